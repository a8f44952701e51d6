//! Connections as psql would make them: every sslmode, every kind of password, every way to fail.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use postrider::drill::cluster::certificates::{Certificates, Identity};
use postrider::drill::cluster::{
    Access, Postgres, PostgresOptions, RunDir, ServerTls, Shutdown, free_port,
};
use postrider::postgres::{
    ConnectError, ConnectFailure, Connector, Environment, MaterialError, Password, PasswordSource,
    Session, SessionLimits, Settings,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{blocking, postgres, shared_run};

/// A server with TLS that takes passwords with and without it, shared by the tests of this file.
struct Scene {
    certificates: Certificates,
    server: Postgres,
}

async fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    blocking(|| SCENE.get_or_init(|| start(Access::Scram, Certificates::server))).await
}

fn start(access: Access, show: fn(&Certificates) -> &Identity) -> Scene {
    // Certificates have fixed names in their folder, so each scene needs its own.
    let run = RunDir::create().unwrap();
    let certificates = Certificates::create(run.path()).unwrap();
    let tls = Some(ServerTls::showing(&certificates, show(&certificates)));
    let options = PostgresOptions { access, tls, ..PostgresOptions::version(17) };
    Scene { server: Postgres::start(&run, options).unwrap(), certificates }
}

impl Scene {
    /// Keywords for the superuser, without password and TLS.
    fn keywords(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.server.port())
    }

    fn with_password(&self) -> String {
        format!("{} password=pr-test-only", self.keywords())
    }

    fn root(&self) -> String {
        format!("sslrootcert={}", self.certificates.authority().display())
    }

    fn stranger(&self) -> String {
        format!("sslrootcert={}", self.certificates.stranger().display())
    }
}

fn connector(text: &str) -> Result<Connector, MaterialError> {
    let settings = Settings::parse(text, &Environment::empty()).unwrap();
    Connector::new(settings, SessionLimits::default(), None)
}

async fn connect(text: &str) -> Result<Session, ConnectError> {
    connector(text).unwrap_or_else(|error| panic!("{text}: {error}")).connect().await
}

async fn refused(text: &str) -> ConnectError {
    match connect(text).await {
        Ok(_) => panic!("{text} was accepted"),
        Err(error) => error,
    }
}

async fn encrypted(text: &str) -> bool {
    let session = connect(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let question = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    session.query_one(question, &[]).await.unwrap().get(0)
}

fn private_file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

#[tokio::test]
async fn each_sslmode_means_what_libpq_means() {
    let scene = scene().await;
    let (text, root, stranger) = (scene.with_password(), scene.root(), scene.stranger());
    for (mode, is_encrypted) in [
        ("sslmode=disable".to_owned(), false),
        ("sslmode=prefer".to_owned(), true),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=require {root}"), true),
        (format!("sslmode=verify-ca {root}"), true),
        (format!("sslmode=verify-full {root}"), true),
        (format!("sslmode=verify-full {root} ssl_min_protocol_version=TLSv1.3"), true),
        (format!("sslmode=verify-full {root} sslnegotiation=direct"), true),
    ] {
        assert_eq!(encrypted(&format!("{text} {mode}")).await, is_encrypted, "{mode}");
    }
    // Given a root, every mode with TLS checks the chain, and none falls back to no TLS.
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let error = refused(&format!("{text} sslmode={mode} {stranger}")).await;
        assert!(
            matches!(error.failure(), ConnectFailure::TlsUnknownAuthority(_)),
            "{mode}: {error}"
        );
        assert!(error.to_string().contains("no root in sslrootcert has signed"), "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_name_counts_for_verify_full_alone() {
    let scene = blocking(|| start(Access::Trust, Certificates::wrong_name)).await;
    let (text, root) = (scene.keywords(), scene.root());
    for mode in ["require", "verify-ca"] {
        assert!(encrypted(&format!("{text} sslmode={mode} {root}")).await, "{mode}");
    }
    let error = refused(&format!("{text} sslmode=verify-full {root}")).await;
    assert!(matches!(error.failure(), ConnectFailure::TlsName { .. }), "{error:?}");
    assert!(error.to_string().contains("elsewhere.invalid"), "{error}");

    // The certificate itself as root: pinned. Its name still counts for verify-full.
    let own = scene.certificates.wrong_name().certificate.display().to_string();
    assert!(encrypted(&format!("{text} sslmode=verify-ca sslrootcert={own}")).await);
    let error = refused(&format!("{text} sslmode=verify-full sslrootcert={own}")).await;
    assert!(matches!(error.failure(), ConnectFailure::TlsName { .. }), "{error:?}");
    let named =
        format!("{text} hostaddr=127.0.0.1").replace("host=127.0.0.1", "host=elsewhere.invalid");
    assert!(encrypted(&format!("{named} sslmode=verify-full {root}")).await);
}

#[tokio::test]
async fn only_prefer_goes_without_tls() {
    let database = postgres(17).await;
    let authority = scene().await.root();
    assert!(!encrypted(&format!("{}?sslmode=prefer", database.url)).await);
    for mode in ["require", "verify-ca", "verify-full"] {
        let text = format!(
            "host=127.0.0.1 port={} user=postgres sslmode={mode} {authority}",
            database.server.port()
        );
        let error = refused(&text).await;
        assert!(matches!(error.failure(), ConnectFailure::TlsRefused(_)), "{mode}: {error:?}");
        assert!(error.to_string().contains("set ssl=on there"), "{error}");
    }
}

#[tokio::test]
async fn scram_can_be_bound_to_the_channel() {
    let scene = scene().await;
    let text = format!("{} channel_binding=require", scene.with_password());
    assert!(encrypted(&format!("{text} sslmode=verify-full {}", scene.root())).await);
    let error = refused(&format!("{text} sslmode=disable")).await;
    assert!(matches!(error.failure(), ConnectFailure::Authentication { .. }), "{error:?}");
    assert!(error.to_string().contains("channel_binding=require needs SCRAM over TLS"), "{error}");
}

#[tokio::test]
async fn passwords_come_from_where_they_are_said_to_be() {
    let scene = scene().await;
    let folder = tempfile::tempdir().unwrap();
    let text = scene.keywords();
    let passfile =
        private_file(folder.path(), "pass", "# ours\n127.0.0.1:*:*:postgres:pr-test-only\n");
    connect(&format!("{text} passfile={}", passfile.display())).await.unwrap();

    let error = refused(&text).await;
    assert!(matches!(error.failure(), ConnectFailure::NoPassword { .. }), "{error:?}");
    assert!(error.to_string().contains("set password, password_file or passfile"), "{error}");

    let error = refused(&format!("{text} password=hunter2")).await;
    assert!(matches!(error.failure(), ConnectFailure::WrongPassword { .. }), "{error:?}");
    assert_eq!(error.failure().sqlstate().unwrap().code(), "28P01");
    assert!(error.to_string().contains("password of role postgres (28P01)"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));

    let kept = connector(&format!("{text} passfile={}", passfile.display())).unwrap();
    std::fs::rename(&passfile, folder.path().join("away")).unwrap();
    let error = kept.reload().unwrap_err().to_string();
    assert!(error.contains("pass cannot be read: "), "{error}");
    kept.connect().await.expect("everything stays as it was");
    std::fs::rename(folder.path().join("away"), &passfile).unwrap();

    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o644)).unwrap();
    let error = connector(&format!("{text} passfile={}", passfile.display())).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn a_reload_reads_passwords_again() {
    let scene = scene().await;
    let admin = connect(&scene.with_password()).await.unwrap();
    let set = async |password: &str| {
        let sql = format!("alter role reloaded password '{password}'");
        admin.batch_execute(&sql).await.unwrap();
    };
    admin.batch_execute("create role reloaded login").await.unwrap();
    set("one").await;

    let current = Arc::new(Mutex::new("one"));
    let source: PasswordSource = {
        let current = Arc::clone(&current);
        Arc::new(move || match *current.lock().unwrap_or_else(PoisonError::into_inner) {
            "" => Err("the file is gone".to_owned()),
            password => Ok(Password::new(password)),
        })
    };
    let text = scene.keywords().replace("user=postgres", "user=reloaded");
    let settings = Settings::parse(&text, &Environment::empty()).unwrap();
    let connector = Connector::new(settings, SessionLimits::default(), Some(source)).unwrap();
    let open = connector.connect().await.unwrap();

    set("two").await;
    let failure = connector.connect().await.unwrap_err();
    assert!(matches!(failure.failure(), ConnectFailure::WrongPassword { .. }), "{failure:?}");
    *current.lock().unwrap() = "";
    assert!(connector.reload().unwrap_err().to_string().contains("the file is gone"));
    *current.lock().unwrap() = "two";
    connector.reload().unwrap();
    connector.connect().await.unwrap();
    open.batch_execute("select 1").await.expect("what is open stays open");
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_reloaded() {
    let scene = blocking(|| start(Access::Certificate, Certificates::server)).await;
    let files = |who: &str| scene.certificates.client(who).unwrap();
    let text = format!("{} sslmode=verify-full {}", scene.keywords(), scene.root());
    let (right, wrong) = (files("postgres"), files("somebody"));
    let folder = tempfile::tempdir().unwrap();
    let use_files = |identity: &Identity| {
        for (from, to) in [(&identity.certificate, "c.pem"), (&identity.key, "k.pem")] {
            private_file(folder.path(), to, &std::fs::read_to_string(from).unwrap());
        }
    };
    use_files(&wrong);
    let place = folder.path().display();
    let connector =
        connector(&format!("{text} sslcert={place}/c.pem sslkey={place}/k.pem")).unwrap();
    let error = connector.connect().await.unwrap_err();
    assert!(matches!(error.failure(), ConnectFailure::NotAdmitted { .. }), "{error:?}");
    use_files(&right);
    connector.reload().unwrap();
    connector.connect().await.unwrap();

    let error = refused(&text).await;
    assert!(error.to_string().contains("requires a valid client certificate"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_needs_no_tls() {
    let database = postgres(13).await;
    let session = connect(&format!("{}?sslmode=verify-full", database.socket_url)).await.unwrap();
    let row = session.query_one("select inet_client_addr() is null", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
    assert_eq!(session.server_version().major(), 13);
}

#[tokio::test]
async fn each_failure_has_its_class_and_its_way_out() {
    let database = postgres(17).await;
    let keywords = format!("host=127.0.0.1 port={} user=postgres", database.server.port());

    let error = refused(&format!("{keywords} dbname=nowhere")).await;
    assert!(matches!(error.failure(), ConnectFailure::NoDatabase { .. }), "{error:?}");
    assert!(error.to_string().contains("has no database nowhere (3D000): create it"), "{error}");

    let port = free_port().unwrap();
    let error = refused(&format!("host=127.0.0.1 port={port} user=u")).await;
    assert!(matches!(error.failure(), ConnectFailure::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}: cannot be reached")), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(error.is_transient());
    // The text says what the cause says; a whole chain does not say it twice.
    let chain = postrider::daemon::chain(&error);
    assert_eq!(chain.matches("Connection refused").count(), 1, "{chain}");

    let error = refused("host=no-such-host.invalid user=u").await;
    assert!(matches!(error.failure(), ConnectFailure::Unreachable { .. }), "{error:?}");

    let client = database.connect().await;
    client.batch_execute("create role one login connection limit 1").await.unwrap();
    let one = format!("{keywords} dbname={}", database.name).replace("user=postgres", "user=one");
    let _first = connect(&one).await.unwrap();
    let error = refused(&one).await;
    assert!(matches!(error.failure(), ConnectFailure::TooManyConnections { .. }), "{error:?}");
    assert!(error.is_transient());

    let error = refused(&keywords.replace("user=postgres", "user=nobody_here")).await;
    assert!(matches!(error.failure(), ConnectFailure::NotAdmitted { .. }), "{error:?}");
    assert_eq!(error.failure().sqlstate().unwrap().code(), "28000");
}

#[tokio::test]
async fn no_line_of_pg_hba_is_named_as_such() {
    let scene = blocking(|| start(Access::ScramOverTls, Certificates::server)).await;
    let error = refused(&format!("{} sslmode=disable", scene.with_password())).await;
    assert!(matches!(error.failure(), ConnectFailure::NotAdmitted { .. }), "{error:?}");
    assert!(error.to_string().contains("no pg_hba.conf entry"), "{error}");
    assert!(error.to_string().contains("add a line to its pg_hba.conf"), "{error}");
}

#[tokio::test]
async fn a_server_that_stops_is_worth_another_try() {
    let server = blocking(|| {
        let server = Postgres::start(shared_run(), PostgresOptions::version(14)).unwrap();
        Arc::new(server)
    })
    .await;
    let text = format!("host=127.0.0.1 port={} user=postgres", server.port());
    let open = connect(&text).await.unwrap();
    // A smart stop waits for the open session and meanwhile turns everybody else away.
    server.request_stop(Shutdown::Smart).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match connect(&text).await {
            Ok(_) => assert!(Instant::now() < deadline, "the server never began to stop"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.failure(), ConnectFailure::NotNow { .. }), "{error:?}");
    assert!(error.is_transient());
    drop(open);
    blocking(move || server.wait_stopped(Duration::from_secs(20)).unwrap()).await;
}

#[tokio::test]
async fn silence_ends_at_the_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let started = Instant::now();
    let error = refused(&format!("host=127.0.0.1 port={port} user=u connect_timeout=1")).await;
    assert!(matches!(error.failure(), ConnectFailure::TimedOut(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(listener);
}

#[tokio::test]
async fn servers_are_tried_in_turn_until_one_fits() {
    let database = postgres(18).await;
    let (dead, alive) = (free_port().unwrap(), database.server.port());
    let text = format!("host=127.0.0.1,127.0.0.1 port={dead},{alive} user=postgres");
    connect(&text).await.unwrap();
    for target in ["read-write", "primary", "prefer-standby"] {
        connect(&format!("{text} target_session_attrs={target}")).await.unwrap();
    }
    let error = refused(&format!("{text} target_session_attrs=standby")).await;
    assert_eq!(error.attempts().len(), 2);
    assert!(matches!(error.failure(), ConnectFailure::WrongTarget { .. }), "{error:?}");
    assert!(
        error.to_string().contains("is a primary, and target_session_attrs=standby"),
        "{error}"
    );
    let read_only = "target_session_attrs=read-only options='-c default_transaction_read_only=on'";
    connect(&format!("{text} {read_only}")).await.unwrap();

    // Reached and refused for good: the next server would only hide the reason.
    let text = format!("host=127.0.0.1,127.0.0.1 port={alive},{dead} user=postgres dbname=nowhere");
    assert_eq!(refused(&text).await.attempts().len(), 1);
}

/// Speaks just enough to be asked for its version: nobody has servers of 12 and 19 at hand.
async fn pretend(version: i32) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut message = vec![0; 4096];
        assert!(stream.read(&mut message).await.unwrap() > 0, "startup");
        stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        assert!(stream.read(&mut message).await.unwrap() > 0, "question");
        let mut answer = b"1\0\0\0\x04".to_vec();
        let mut columns = b"\0\x03".to_vec();
        for (oid, size) in [(23_i32, 4_i16), (16, 1), (16, 1)] {
            columns.extend(b"c\0\0\0\0\0\0\0");
            columns.extend(oid.to_be_bytes());
            columns.extend(size.to_be_bytes());
            columns.extend(b"\xff\xff\xff\xff\0\x01");
        }
        let mut row = b"\0\x03\0\0\0\x04".to_vec();
        row.extend(version.to_be_bytes());
        row.extend(b"\0\0\0\x01\0\0\0\0\x01\0");
        for (tag, body) in [
            (b'2', vec![]),
            (b't', b"\0\0".to_vec()),
            (b'T', columns),
            (b'D', row),
            (b'C', b"S 1\0".to_vec()),
            (b'Z', vec![b'I']),
        ] {
            answer.push(tag);
            answer.extend((i32::try_from(body.len()).unwrap() + 4).to_be_bytes());
            answer.extend(body);
        }
        stream.write_all(&answer).await.unwrap();
        while stream.read(&mut message).await.is_ok_and(|read| read > 0) {}
    });
    port
}

#[tokio::test]
async fn servers_before_13_are_refused_by_name_and_later_ones_are_not() {
    let text = |port| format!("host=127.0.0.1 port={port} user=u sslmode=disable");
    let error = refused(&text(pretend(120_022).await)).await;
    assert!(matches!(error.failure(), ConnectFailure::TooOld { .. }), "{error:?}");
    assert!(
        error.to_string().contains("runs PostgreSQL 12.22, older than 13: upgrade it"),
        "{error}"
    );
    let session = connect(&text(pretend(190_000).await)).await.unwrap();
    assert_eq!(session.server_version().to_string(), "19");
}

#[tokio::test]
async fn every_supported_version_is_known_for_what_it_is() {
    for version in postrider::drill::cluster::POSTGRES_VERSIONS {
        let database = postgres(version).await;
        let session = connect(&database.url).await.unwrap();
        assert_eq!(session.server_version().major(), u32::from(version));
    }
}

#[tokio::test]
async fn the_systems_authorities_did_not_sign_ours() {
    let scene = scene().await;
    let text = format!("{} sslrootcert=system", scene.with_password());
    // A machine without any is told so; with some, ours is not among them.
    match connector(&text) {
        Err(error) => assert!(error.to_string().contains("install ca-certificates"), "{error}"),
        Ok(connector) => {
            let error = connector.connect().await.unwrap_err();
            assert!(matches!(error.failure(), ConnectFailure::TlsUnknownAuthority(_)), "{error:?}");
        }
    }
}
