//! Certificates for servers on loopback, made anew for each run and trusted by nobody else.
//!
//! Promises one authority and what it signed: a server certificate for `localhost` and 127.0.0.1,
//! one for another name (a client that verifies must refuse it), and a client certificate per
//! user. A second authority that signed nothing stands for a stranger's.
//! Bounded by: valid from 2024 to 2044, as a drill moves no clocks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate and its key (PKCS #8), both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file, mode 0600.
    pub key: PathBuf,
}

/// The files of one run's certificates.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    authority: PathBuf,
    stranger: PathBuf,
    server: Identity,
    wrong_name: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// Makes them in an existing folder.
    pub fn create(folder: &Path) -> Result<Self> {
        let (issuer, authority) = authority(folder, "authority")?;
        let (_, stranger) = authority_of_nobody(folder)?;
        let names = ["localhost", "127.0.0.1"];
        let server = sign(folder, &issuer, "server", "localhost", &names)?;
        let elsewhere = ["elsewhere.invalid"];
        let wrong_name = sign(folder, &issuer, "wrong-name", "elsewhere.invalid", &elsewhere)?;
        Ok(Self { folder: folder.to_path_buf(), authority, stranger, server, wrong_name, issuer })
    }

    /// The authority that clients should trust, PEM.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// An authority that signed nothing here: who trusts only it must refuse every server.
    pub fn stranger(&self) -> &Path {
        &self.stranger
    }

    /// For a server reached as `localhost` or 127.0.0.1.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// Of the same authority, for another name.
    pub fn wrong_name(&self) -> &Identity {
        &self.wrong_name
    }

    /// A new certificate for a client; its common name is what servers take for the user.
    pub fn client(&self, user: &str) -> Result<Identity> {
        sign(&self.folder, &self.issuer, &format!("client-{user}"), user, &[])
    }

    /// Another certificate for the same server, as a renewal makes it.
    pub fn renewed_server(&self) -> Result<Identity> {
        let names = ["localhost", "127.0.0.1"];
        sign(&self.folder, &self.issuer, "server-renewed", "localhost", &names)
    }
}

fn authority_of_nobody(folder: &Path) -> Result<(Issuer<'static, KeyPair>, PathBuf)> {
    authority(folder, "stranger")
}

fn authority(folder: &Path, name: &str) -> Result<(Issuer<'static, KeyPair>, PathBuf)> {
    let mut parameters = parameters(&format!("postrider test {name}"), &[])?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let file = folder.join(format!("{name}.pem"));
    write(&file, &parameters.self_signed(&key)?.pem(), 0o644)?;
    Ok((Issuer::new(parameters, key), file))
}

fn sign(
    folder: &Path,
    issuer: &Issuer<'_, KeyPair>,
    file: &str,
    common_name: &str,
    names: &[&str],
) -> Result<Identity> {
    let mut parameters = parameters(common_name, names)?;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Brokers are each other's clients, so a server's certificate serves both ways.
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let identity = Identity {
        certificate: folder.join(format!("{file}.pem")),
        key: folder.join(format!("{file}.key")),
    };
    write(&identity.certificate, &parameters.signed_by(&key, issuer)?.pem(), 0o644)?;
    write(&identity.key, &key.serialize_pem(), 0o600)?;
    Ok(identity)
}

fn parameters(common_name: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.not_before = date_time_ymd(2024, 1, 1);
    parameters.not_after = date_time_ymd(2044, 1, 1);
    Ok(parameters)
}

fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
    Ok(())
}
