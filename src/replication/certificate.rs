//! The hash of a server's certificate that SCRAM binds to (`tls-server-end-point`, RFC 5929).
//!
//! The hash function is that of the certificate's own signature, md5 and SHA-1 raised to SHA-256. Only
//! the few bytes that name it are read, with lengths checked; a certificate whose signature has no
//! hash of its own (Ed25519) cannot be bound to.

use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
/// `[0] EXPLICIT`, in which RSA-PSS names its hash.
const PSS_HASH: u8 = 0xA0;

const RSA_PSS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0A];

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Signature and hash algorithms by object id.
const HASHES: [(&[u8], Hash); 13] = [
    // md5WithRSAEncryption, sha1WithRSAEncryption, SHA-1: too weak, so SHA-256 takes their place.
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x04], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x05], Hash::Sha256),
    (&[0x2B, 0x0E, 0x03, 0x02, 0x1A], Hash::Sha256),
    // ecdsa-with-SHA1.
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01], Hash::Sha256),
    // sha256, sha384, sha512WithRSAEncryption.
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C], Hash::Sha384),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0D], Hash::Sha512),
    // ecdsa-with-SHA256, -SHA384, -SHA512.
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03], Hash::Sha384),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x04], Hash::Sha512),
    // SHA-256, SHA-384, SHA-512, as RSA-PSS names them.
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01], Hash::Sha256),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02], Hash::Sha384),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03], Hash::Sha512),
];

/// The bytes to bind to, or `None` if this certificate cannot be bound to.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_hash(certificate)? {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// Certificate ::= SEQUENCE { what is signed, AlgorithmIdentifier, signature }.
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (_signed, rest) = element(whole, SEQUENCE)?;
    let (algorithm, _signature) = element(rest, SEQUENCE)?;
    let (id, parameters) = element(algorithm, OBJECT_ID)?;
    if id != RSA_PSS {
        return hash_named(id);
    }
    let (parameters, _) = element(parameters, SEQUENCE)?;
    let Some((hash, _)) = element(parameters, PSS_HASH) else {
        // Left out, it is SHA-1, which is raised.
        return Some(Hash::Sha256);
    };
    let (algorithm, _) = element(hash, SEQUENCE)?;
    hash_named(element(algorithm, OBJECT_ID)?.0)
}

fn hash_named(id: &[u8]) -> Option<Hash> {
    HASHES.iter().find(|(known, _)| *known == id).map(|(_, hash)| *hash)
}

/// One DER element with the tag: its content, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(*first), rest),
        // 0x81 to 0x83: that many bytes of length; a certificate is far below 16 MiB.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    (*found == tag).then_some((content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_with(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let names = vec!["localhost".to_owned()];
        rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let p256 = signed_with(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(end_point(&p256), Some(Sha256::digest(&p256).to_vec()));
        let p384 = signed_with(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(end_point(&p384), Some(Sha384::digest(&p384).to_vec()));
        assert_eq!(end_point(&signed_with(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn an_rsa_pss_signature_names_its_hash_in_its_parameters() {
        let wrap = |tag: u8, content: &[u8]| {
            [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
        };
        let sha512 = wrap(SEQUENCE, &wrap(OBJECT_ID, HASHES[12].0));
        for (parameters, length) in [(wrap(PSS_HASH, &sha512), 64), (Vec::new(), 32)] {
            let algorithm = [wrap(OBJECT_ID, RSA_PSS), wrap(SEQUENCE, &parameters)].concat();
            let parts = [wrap(SEQUENCE, b"signed"), wrap(SEQUENCE, &algorithm)].concat();
            assert_eq!(end_point(&wrap(SEQUENCE, &parts)).unwrap().len(), length);
        }
    }

    #[test]
    fn every_cut_and_flip_of_a_certificate_is_survived() {
        let whole = signed_with(&rcgen::PKCS_ECDSA_P256_SHA256);
        for cut in 0..whole.len() {
            assert_eq!(end_point(&whole[..cut]), None);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xFF;
            let _either = end_point(&flipped);
        }
    }
}
