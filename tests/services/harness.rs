//! Servers that tests share: one Postgres a version and one Kafka broker, started by the first
//! test that asks.
//!
//! Promises each caller a database or a topic of its own, so that tests run side by side. Nothing
//! in here belongs to a runtime: every `#[tokio::test]` has its own, which ends before the servers
//! do.
//! Statics are never dropped; the run directory's warden cleans up after the last test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use postrider::drill::cluster::kafka::{Kafka, KafkaOptions};
use postrider::drill::cluster::{POSTGRES_VERSIONS, Postgres, PostgresOptions, RunDir};

/// A fresh database on a shared server. Stop, kill or freeze servers of your own instead.
pub(crate) struct Database {
    /// Over TCP, as the superuser.
    pub(crate) url: String,
    /// Through the unix socket, as the superuser.
    pub(crate) socket_url: String,
    /// Its name on the server.
    pub(crate) name: String,
    /// The server, to be asked, not to be broken.
    pub(crate) server: &'static Postgres,
}

impl Database {
    /// A client; its connection lives as long as the calling test's runtime.
    pub(crate) async fn connect(&self) -> tokio_postgres::Client {
        connect(&self.url).await.expect("a shared server takes connections")
    }
}

/// A fresh database on the shared server of a major version.
pub(crate) async fn postgres(version: u16) -> Database {
    blocking(move || {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = shared_postgres(version);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        server.create_database(&name).unwrap_or_else(|error| panic!("{error:#}"));
        Database { url: server.url(&name), socket_url: server.socket_url(&name), name, server }
    })
    .await
}

/// The run directory that all shared servers live in.
pub(crate) fn shared_run() -> &'static Arc<RunDir> {
    static RUN: OnceLock<Arc<RunDir>> = OnceLock::new();
    RUN.get_or_init(|| RunDir::create().unwrap_or_else(|error| panic!("{error:#}")))
}

fn shared_postgres(version: u16) -> &'static Postgres {
    static SERVERS: [Mutex<Option<&'static Postgres>>; POSTGRES_VERSIONS.len()] =
        [const { Mutex::new(None) }; POSTGRES_VERSIONS.len()];
    let index = POSTGRES_VERSIONS.iter().position(|known| *known == version);
    let index = index.unwrap_or_else(|| panic!("no test runs on Postgres {version}"));
    // Held over the start: the others wait for the one that starts it. A failed start leaves the
    // place empty, so each test that needs the server reports why by itself.
    let mut place = SERVERS[index].lock().unwrap_or_else(PoisonError::into_inner);
    place.get_or_insert_with(|| {
        let started = Postgres::start(shared_run(), PostgresOptions::version(version));
        Box::leak(Box::new(started.unwrap_or_else(|error| panic!("{error:#}"))))
    })
}

/// Runs blocking work, such as starting a server, beside the test's own tasks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A plain SQL client. The connection task ends with the client or with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "a test's connection needs no named task set")]
pub(crate) async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(async move {
        // A test that breaks the server sees it at its client.
        connection.await.ok();
    });
    Ok(client)
}

/// Waits for a fact: probes until it is there, or panics at the deadline naming it.
pub(crate) async fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(fact) = probe().await {
            return fact;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} for {what}, in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The broker that tests share. Stop, kill or freeze brokers of your own instead.
pub(crate) async fn kafka() -> &'static Kafka {
    blocking(|| {
        static BROKER: Mutex<Option<&'static Kafka>> = Mutex::new(None);
        // As with Postgres: a failed start leaves the place empty.
        let mut place = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
        *place.get_or_insert_with(|| {
            let started = Kafka::start(shared_run(), KafkaOptions::default());
            Box::leak(Box::new(started.unwrap_or_else(|error| panic!("{error:#}"))))
        })
    })
    .await
}

/// A name that no other test uses, for a group, a topic or a transactional id.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A new topic on the shared broker, with a name of its own.
pub(crate) async fn unique_topic(name: &str, partitions: i32) -> String {
    let kafka = kafka().await;
    let topic = unique(name);
    let made = topic.clone();
    blocking(move || kafka.create_topic(&made, partitions, 1, &[]))
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    topic
}
