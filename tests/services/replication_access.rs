//! Ways into a server, as the replication client meets them: SCRAM, TLS, weak methods, silence.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider::drill::cluster::certificates::{Certificates, Identity};
use postrider::drill::cluster::{Access, Postgres, PostgresOptions, RunDir, ServerTls};
use postrider::lsn::Lsn;
use postrider::replication::{
    ChannelBinding, Connection, Encryption, Endpoint, Error, Login, Settings, SlotSpec, Start, Weak,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::harness::blocking;

struct Scene {
    certificates: Certificates,
    server: Postgres,
}

async fn scene(
    version: u16,
    access: Access,
    show: Option<fn(&Certificates) -> &Identity>,
) -> Scene {
    blocking(move || {
        let run = RunDir::create().unwrap();
        let certificates = Certificates::create(run.path()).unwrap();
        let tls = show.map(|show| ServerTls::showing(&certificates, show(&certificates)));
        let options = PostgresOptions { access, tls, ..PostgresOptions::version(version) };
        Scene { server: Postgres::start(&run, options).unwrap(), certificates }
    })
    .await
}

fn verifying(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn login(server: &Postgres, encryption: Encryption) -> Login {
    let host = "127.0.0.1".to_owned();
    let endpoint = Endpoint::Tcp { host, address: None, port: server.port() };
    let mut login = Login::new(endpoint, encryption, "postgres", "postgres");
    login.password = Some("pr-test-only".to_owned());
    login
}

async fn open(login: &Login) -> Result<Connection, Error> {
    Connection::open(login.clone(), Settings::default()).await
}

#[tokio::test]
async fn scram_and_its_bound_form_are_accepted_by_a_real_server() {
    for version in [13, 18] {
        let Scene { certificates, server } =
            scene(version, Access::ScramOverTls, Some(Certificates::server)).await;
        let config = verifying(certificates.authority());
        let mut bound = login(&server, Encryption::Require(Arc::clone(&config)));
        for binding in [ChannelBinding::Require, ChannelBinding::Prefer, ChannelBinding::Disable] {
            bound.channel_binding = binding;
            assert!(open(&bound).await.unwrap().encrypted());
        }
        bound.password = Some("guess".to_owned());
        let error = open(&bound).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
        // `allow` begins in plain, which this server refuses, and then goes on with TLS.
        let allow = login(&server, Encryption::Allow(Arc::clone(&config)));
        assert!(open(&allow).await.unwrap().encrypted());
        assert!(open(&login(&server, Encryption::Prefer(config))).await.unwrap().encrypted());
        let error = open(&login(&server, Encryption::Disable)).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("28000"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_a_stranger_is_refused() {
    let Scene { certificates, server } =
        scene(17, Access::Trust, Some(Certificates::wrong_name)).await;
    let config = verifying(certificates.authority());
    let Err(Error::Tls { source, .. }) = open(&login(&server, Encryption::Require(config))).await
    else {
        panic!("the name must not pass")
    };
    assert!(source.to_string().contains("not valid for name"), "{source}");
    let config = verifying(certificates.stranger());
    let error = open(&login(&server, Encryption::Require(config))).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_only_where_tls_is_demanded() {
    let Scene { certificates, server } = scene(14, Access::Scram, None).await;
    let config = verifying(certificates.authority());
    let error = open(&login(&server, Encryption::Require(Arc::clone(&config)))).await.unwrap_err();
    assert!(matches!(error, Error::TlsRefused { .. }), "{error}");
    assert!(!open(&login(&server, Encryption::Prefer(config))).await.unwrap().encrypted());
    let mut bound = login(&server, Encryption::Disable);
    bound.channel_binding = ChannelBinding::Require;
    let error = open(&bound).await.unwrap_err();
    assert!(matches!(error, Error::Scram { .. }), "{error}");
    bound.password = None;
    let error = open(&bound).await.unwrap_err();
    assert!(matches!(error, Error::PasswordMissing { .. }), "{error}");
}

#[tokio::test]
async fn weak_methods_are_refused_by_name_and_work_when_allowed() {
    let Scene { server, .. } = scene(17, Access::Trust, None).await;
    let make = "set password_encryption = 'md5'; create role weak login replication password 'w'";
    server.sql("postgres", make).unwrap();
    for method in ["md5", "password"] {
        let lines = format!("local all all trust\nhost all all 127.0.0.1/32 {method}\n");
        std::fs::write(server.data().join("pg_hba.conf"), lines).unwrap();
        server.sql("postgres", "select pg_reload_conf()").unwrap();
        let mut login = login(&server, Encryption::Disable);
        login.user = "weak".to_owned();
        login.password = Some("w".to_owned());
        let refused = crate::harness::wait_until(Duration::from_secs(10), method, async || {
            match open(&login).await {
                Err(Error::PasswordWeak { method: found, .. }) => (found == method).then_some(()),
                _ => None,
            }
        });
        refused.await;
        login.weak = Weak { md5: method == "md5", cleartext: method == "password" };
        open(&login).await.unwrap();
    }
}

#[tokio::test]
async fn a_frozen_walsender_is_noticed() {
    let Scene { server, .. } = scene(17, Access::Trust, None).await;
    server.sql("postgres", "create publication p").unwrap();
    let settings = Settings { silence_max: Duration::from_secs(1), ..Settings::default() };
    let login = login(&server, Encryption::Disable);
    let mut connection = Connection::open(login, settings).await.unwrap();
    let (spec, within) = (SlotSpec::new("s"), Duration::from_secs(30));
    connection.create_slot(&spec, within, std::future::pending()).await.unwrap();
    let mut stream = connection.start(&Start::new("s", Lsn::ZERO, "p")).await.unwrap();
    server.freeze_one(stream.connection().backend().pid).unwrap();
    let silent = async {
        loop {
            if let Err(error) = stream.next().await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), silent).await.unwrap();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
}
