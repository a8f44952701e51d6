//! What a server shows for a certificate, and what becomes of it: chains, dates, names, renewals.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postrider::drill::cluster::certificates::Certificates;
use postrider::drill::cluster::{Access, Postgres, PostgresOptions, RunDir, ServerTls};
use postrider::postgres::{
    ConnectError, ConnectFailure, Connector, Environment, SessionLimits, Settings,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use crate::harness::{blocking, wait_until};

/// A server whose certificate is changed while it runs.
struct Scene {
    server: Arc<Postgres>,
    folder: PathBuf,
}

type Authority = Issuer<'static, KeyPair>;

impl Scene {
    async fn start() -> Self {
        blocking(|| {
            let run = RunDir::create().unwrap();
            let certificates = Certificates::create(run.path()).unwrap();
            let tls = Some(ServerTls::of(&certificates));
            let options =
                PostgresOptions { access: Access::Trust, tls, ..PostgresOptions::version(17) };
            let server = Arc::new(Postgres::start(&run, options).unwrap());
            let folder = server.data().parent().unwrap().to_owned();
            Self { server, folder }
        })
        .await
    }

    /// Has the server show `chain`, and waits until it does.
    async fn show(&self, chain: &str, key: &KeyPair) {
        fs::write(self.folder.join("ssl_cert_file"), chain).unwrap();
        fs::write(self.folder.join("ssl_key_file"), key.serialize_pem()).unwrap();
        let server = Arc::clone(&self.server);
        blocking(move || server.reload(&[]).unwrap()).await;
        // Pinned, it is accepted whatever is wrong with it, and no other one is.
        let leaf = self
            .root("shown.pem", chain.split_inclusive("-----END CERTIFICATE-----").next().unwrap());
        let shown =
            async || self.connect("localhost", "verify-ca", &leaf).await.is_ok().then_some(());
        wait_until(Duration::from_secs(20), "the new certificate", shown).await;
    }

    fn root(&self, name: &str, pem: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, pem).unwrap();
        path
    }

    fn connector(&self, host: &str, mode: &str, root: &std::path::Path) -> Connector {
        let text = format!(
            "host={host} hostaddr=127.0.0.1 port={} user=postgres sslmode={mode} sslrootcert={}",
            self.server.port(),
            root.display()
        );
        let settings = Settings::parse(&text, &Environment::empty()).unwrap();
        Connector::new(settings, SessionLimits::default(), None).unwrap()
    }

    async fn connect(
        &self,
        host: &str,
        mode: &str,
        root: &std::path::Path,
    ) -> Result<(), ConnectError> {
        self.connector(host, mode, root).connect().await.map(drop)
    }
}

fn parameters(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = date_time_ymd(2024, 1, 1);
    parameters.not_after = date_time_ymd(2044, 1, 1);
    parameters
}

/// An authority, signed by another one or by itself, and its certificate.
fn authority(name: &str, above: Option<&Authority>) -> (Authority, String) {
    let mut parameters = parameters(name, &[]);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = match above {
        Some(above) => parameters.signed_by(&key, above).unwrap(),
        None => parameters.self_signed(&key).unwrap(),
    };
    (Issuer::new(parameters, key), certificate.pem())
}

fn leaf(names: &[&str], until: i32, above: &Authority) -> (String, KeyPair) {
    let mut parameters = parameters("server", names);
    parameters.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (parameters.signed_by(&key, above).unwrap().pem(), key)
}

#[tokio::test]
async fn chains_dates_and_names_are_judged_and_told() {
    let scene = Scene::start().await;
    let (top, top_pem) = authority("top", None);
    let (middle, middle_pem) = authority("middle", Some(&top));
    let root = scene.root("top.pem", &top_pem);

    let (server, key) = leaf(&["localhost", "127.0.0.1"], 2044, &middle);
    scene.show(&format!("{server}{middle_pem}"), &key).await;
    for host in ["localhost", "127.0.0.1"] {
        scene.connect(host, "verify-full", &root).await.unwrap();
    }
    scene.show(&server, &key).await;
    let error = scene.connect("localhost", "verify-full", &root).await.unwrap_err();
    assert!(matches!(error.failure(), ConnectFailure::TlsUnknownAuthority(_)), "{error}");

    // A name does not stand for an address, nor an address for a name.
    let (named, key) = leaf(&["localhost"], 2044, &top);
    scene.show(&named, &key).await;
    scene.connect("localhost", "verify-full", &root).await.unwrap();
    let error = scene.connect("127.0.0.1", "verify-full", &root).await.unwrap_err();
    assert!(matches!(error.failure(), ConnectFailure::TlsName { .. }), "{error}");

    let (expired, key) = leaf(&["localhost"], 2025, &top);
    scene.show(&expired, &key).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = scene.connect("localhost", mode, &root).await.unwrap_err();
        assert!(matches!(error.failure(), ConnectFailure::Tls { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("expired") && text.contains("look at the dates"), "{text}");
    }
}

#[tokio::test]
async fn a_renewed_authority_counts_after_a_reload() {
    let scene = Scene::start().await;
    let (old, old_pem) = authority("same name", None);
    let root = scene.root("root.pem", &old_pem);
    let (server, key) = leaf(&["localhost"], 2044, &old);
    scene.show(&server, &key).await;
    let connector = scene.connector("localhost", "verify-full", &root);
    let open = connector.connect().await.unwrap();

    let (new, new_pem) = authority("same name", None);
    let (server, key) = leaf(&["localhost"], 2044, &new);
    scene.show(&server, &key).await;
    let error = connector.connect().await.unwrap_err();
    assert!(matches!(error.failure(), ConnectFailure::TlsUnknownAuthority(_)), "{error}");
    scene.root("root.pem", "half of a fi");
    connector.reload().unwrap_err();
    scene.root("root.pem", &new_pem);
    connector.reload().unwrap();
    connector.connect().await.unwrap();
    open.batch_execute("select 1").await.expect("what is open stays open");
}
