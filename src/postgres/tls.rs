//! TLS as libpq's `sslmode` means it, by rustls.
//!
//! | sslmode | no root certificate | root certificate |
//! |---|---|---|
//! | `disable` | no TLS | no TLS |
//! | `prefer`, `require` | encrypted; whom one talks to is not checked | the chain is checked, the name is not |
//! | `verify-ca` | refused | the chain is checked, the name is not |
//! | `verify-full` | refused | chain and name are checked |
//!
//! Two differences to libpq. A name is looked for in the subject's alternative names only, as every
//! current standard demands, not in its common name. And a certificate that is itself in the root
//! file, byte for byte, is trusted as it is: that is how self-signed servers are pinned, which rustls
//! alone would refuse.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::settings::{ClientIdentity, Roots, SslMode, TlsSettings};

/// Why TLS cannot be set up. Nothing has been connected yet.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Checking was asked for, and there is nothing to check against.
    #[error(
        "sslmode={mode} needs root certificates: set sslrootcert to a file with them, or to system"
    )]
    NoRoots {
        /// The mode, in libpq's word.
        mode: &'static str,
    },
    /// A file that should hold certificates or a key does not.
    #[error("{what} file {} cannot be used: {reason}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key's file can be read by others.
    #[error(
        "key file {0} can be used by others (mode {mode:03o}): chmod 600 {0}, or 640 if root owns it",
        path.display()
    )]
    KeyExposed {
        /// Which.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// The system has no certificates where they are looked for.
    #[error(
        "the system has no root certificates: install ca-certificates, or name a file in sslrootcert"
    )]
    NoSystemRoots,
    /// rustls refuses the parts.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Reads the files and builds what each handshake needs; `None` when there is to be no TLS.
pub(super) fn client_config(settings: &TlsSettings) -> Result<Option<ClientConfig>, TlsError> {
    if settings.mode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        trust: trust(settings, &provider)?,
        check_name: settings.mode == SslMode::VerifyFull,
        provider: Arc::clone(&provider),
    };
    let versions: &[_] = if settings.only_1_3 {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let setup = |error: Error| TlsError::Setup(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity(&settings.identity)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(setup)?,
        None => builder.with_no_client_auth(),
    };
    if settings.direct {
        // Without it a server that was not asked first refuses the handshake.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Some(config))
}

fn trust(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Trust>, TlsError> {
    let certificates = match &settings.roots {
        Roots::File(path) => certificates("root certificate", path)?,
        Roots::DefaultFile(Some(path)) if path.exists() => certificates("root certificate", path)?,
        Roots::DefaultFile(_) => match settings.mode {
            SslMode::VerifyCa => return Err(TlsError::NoRoots { mode: "verify-ca" }),
            SslMode::VerifyFull => return Err(TlsError::NoRoots { mode: "verify-full" }),
            SslMode::Disable | SslMode::Prefer | SslMode::Require => return Ok(None),
        },
        // A broken file among a hundred good ones does not count; none at all does.
        Roots::System => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    let (taken, _) = store.add_parsable_certificates(certificates.iter().cloned());
    if taken == 0 {
        return Err(match &settings.roots {
            Roots::System => TlsError::NoSystemRoots,
            Roots::File(path) | Roots::DefaultFile(Some(path)) => TlsError::File {
                what: "root certificate",
                path: path.clone(),
                reason: "none of its certificates can be understood".into(),
            },
            Roots::DefaultFile(None) => TlsError::Setup("no root certificates".into()),
        });
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    Ok(Some(Trust { chain, pinned: certificates }))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong(
            "it has no certificate in PEM form (-----BEGIN CERTIFICATE-----)".into(),
        ));
    }
    Ok(found)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(settings: &ClientIdentity) -> Result<Option<Identity>, TlsError> {
    let (certificate, key) = match settings {
        ClientIdentity::Files { certificate, key } => (certificate.clone(), key.clone()),
        ClientIdentity::DefaultFiles(Some(folder)) if folder.join("postgresql.crt").exists() => {
            (folder.join("postgresql.crt"), folder.join("postgresql.key"))
        }
        ClientIdentity::DefaultFiles(_) => return Ok(None),
    };
    let chain = certificates("client certificate", &certificate)?;
    check_key_rights(&key)?;
    let read = PrivateKeyDer::from_pem_file(&key).map_err(|error| TlsError::File {
        what: "client key",
        path: key.clone(),
        reason: format!("{error} (it must be PEM and not encrypted)"),
    })?;
    Ok(Some((chain, read)))
}

/// libpq's rule: only the user, or the user's group if the file belongs to root.
fn check_key_rights(path: &Path) -> Result<(), TlsError> {
    let file = |error: io::Error| TlsError::File {
        what: "client key",
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let metadata = std::fs::metadata(path).map_err(file)?;
    let mode = metadata.mode() & 0o777;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(TlsError::KeyExposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[derive(Debug)]
struct Trust {
    chain: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

/// Checks a server's certificate as far as the mode asks. Signatures of the handshake are checked in
/// every mode: they prove that the other side has the key of the certificate that channel binding
/// relies on.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    trust: Option<Trust>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        if trust.pinned.iter().any(|pinned| pinned == end_entity) {
            if self.check_name {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified = trust.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is looked at last, so everything else has been found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mode: SslMode, roots: Roots) -> TlsSettings {
        let identity = ClientIdentity::DefaultFiles(None);
        TlsSettings { mode, roots, identity, only_1_3: false, direct: false }
    }

    #[test]
    fn checking_needs_something_to_check_against() {
        for (mode, word) in [(SslMode::VerifyCa, "verify-ca"), (SslMode::VerifyFull, "verify-full")]
        {
            let error = client_config(&settings(mode, Roots::DefaultFile(None))).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("sslmode={word} needs root")),
                "{error}"
            );
        }
        let require = settings(SslMode::Require, Roots::DefaultFile(Some("/no/root.crt".into())));
        assert!(client_config(&require).unwrap().is_some());
        let disable = settings(SslMode::Disable, Roots::File("/no/root.crt".into()));
        assert!(client_config(&disable).unwrap().is_none());
    }

    #[test]
    fn a_wrong_file_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.crt");
        let error = |path: &Path| {
            client_config(&settings(SslMode::Require, Roots::File(path.into())))
                .unwrap_err()
                .to_string()
        };
        assert!(error(&path).contains("root.crt cannot be used: "), "{}", error(&path));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(error(&path).contains("BEGIN CERTIFICATE"), "{}", error(&path));
    }

    #[test]
    fn a_key_for_everybody_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = check_key_rights(&path).unwrap_err().to_string();
        assert!(error.contains("(mode 644): chmod 600"), "{error}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(check_key_rights(&path).is_ok());
    }
}
