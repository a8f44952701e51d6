//! The access variants of a server: each lets in whom it should, and nobody else.

use std::path::Path;
use std::sync::Arc;

use postrider::drill::cluster::certificates::{Certificates, Identity};
use postrider::drill::cluster::{Access, Postgres, PostgresOptions, RunDir, ServerTls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::harness::{blocking, connect};

struct Scene {
    certificates: Certificates,
    server: Postgres,
}

async fn scene(access: Access, show: fn(&Certificates) -> &Identity) -> Scene {
    blocking(move || {
        let run = RunDir::create().unwrap();
        let certificates = Certificates::create(run.path()).unwrap();
        let tls = ServerTls::showing(&certificates, show(&certificates));
        let options = PostgresOptions { access, tls: Some(tls), ..PostgresOptions::version(17) };
        Scene { server: Postgres::start(&run, options).unwrap(), certificates }
    })
    .await
}

/// Connects with verification of the server's name and authority; the error as text.
async fn connect_tls(url: &str, authority: &Path, client: Option<&Identity>) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(identity) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
            )
            .unwrap(),
    };
    let url = format!("{url}?sslmode=require");
    let connector = MakeRustlsConnect::new(config);
    let (client, connection) =
        tokio_postgres::connect(&url, connector).await.map_err(|error| format!("{error:?}"))?;
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let asked = async { client.query_one(encrypted, &[]).await };
    tokio::select! {
        row = asked => {
            assert!(row.map_err(|error| format!("{error:?}"))?.get::<_, bool>(0));
            Ok(())
        }
        ended = connection => Err(format!("{ended:?}")),
    }
}

#[tokio::test]
async fn scram_over_tls_lets_in_a_password_and_nothing_in_plain() {
    let Scene { certificates, server } = scene(Access::ScramOverTls, Certificates::server).await;
    let url = server.url("postgres");
    connect_tls(&url, certificates.authority(), None).await.unwrap();
    let plain = connect(&url).await.unwrap_err();
    assert!(format!("{plain:?}").contains("no pg_hba.conf entry"), "{plain:?}");
    let wrong = url.replace("pr-test-only", "guess");
    let refused = connect_tls(&wrong, certificates.authority(), None).await.unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");
    let stranger = connect_tls(&url, certificates.stranger(), None).await.unwrap_err();
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_by_who_verifies() {
    let Scene { certificates, server } = scene(Access::Trust, Certificates::wrong_name).await;
    let url = server.url("postgres");
    let refused = connect_tls(&url, certificates.authority(), None).await.unwrap_err();
    assert!(refused.contains("NotValidForName"), "{refused}");
    connect(&url).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_the_user() {
    let Scene { certificates, server } = scene(Access::Certificate, Certificates::server).await;
    let (url, authority) = (server.url("postgres"), certificates.authority());
    let postgres = certificates.client("postgres").unwrap();
    connect_tls(&url, authority, Some(&postgres)).await.unwrap();
    let other = certificates.client("somebody").unwrap();
    let refused = connect_tls(&url, authority, Some(&other)).await.unwrap_err();
    assert!(refused.contains("certificate authentication failed"), "{refused}");
    let refused = connect_tls(&url, authority, None).await.unwrap_err();
    assert!(refused.contains("requires a valid client certificate"), "{refused}");
}

#[tokio::test]
async fn scram_without_tls_asks_for_the_password() {
    let server = blocking(|| {
        let run = RunDir::create().unwrap();
        let options = PostgresOptions { access: Access::Scram, ..PostgresOptions::version(13) };
        Postgres::start(&run, options).unwrap()
    })
    .await;
    connect(&server.url("postgres")).await.unwrap();
    let refused = connect(&server.url("postgres").replace("pr-test-only", "guess")).await;
    assert!(format!("{:?}", refused.unwrap_err()).contains("password authentication failed"));
}
