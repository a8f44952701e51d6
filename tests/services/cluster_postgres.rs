//! The harness itself: every version boots, breaks, comes back and keeps its promises.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::drill::cluster::{Postgres, PostgresOptions, RunDir, Shutdown};
use tokio_postgres::error::SqlState;

use crate::harness::{blocking, connect, postgres, wait_until};

/// A boot takes 0.2 s when the machine has nothing else to do; the promise is 2 s, and this is
/// what a build beside it may make of that.
const BOOT_SLACK: Duration = Duration::from_secs(10);

async fn start(options: PostgresOptions) -> Arc<Postgres> {
    blocking(move || {
        let run = RunDir::create().unwrap();
        Arc::new(Postgres::start(&run, options).unwrap_or_else(|error| panic!("{error:#}")))
    })
    .await
}

async fn with<T: Send + 'static>(
    server: &Arc<Postgres>,
    work: impl FnOnce(&Postgres) -> anyhow::Result<T> + Send + 'static,
) -> T {
    let server = Arc::clone(server);
    blocking(move || work(&server).unwrap_or_else(|error| panic!("{error:#}"))).await
}

async fn boots_survives_kill_and_takes_other_settings(version: u16) {
    // The first start may have to make the template.
    drop(start(PostgresOptions::version(version)).await);
    let started = Instant::now();
    let server = start(PostgresOptions::version(version)).await;
    let took = started.elapsed();
    println!("postgres {version} booted in {took:?}");
    assert!(took < BOOT_SLACK, "postgres {version} booted in {took:?}");
    let number = with(&server, |s| s.ask("postgres", "show server_version_num")).await;
    assert_eq!(number.parse::<u32>().unwrap() / 10_000, u32::from(version));

    with(&server, |s| s.sql("postgres", "create table t (n int)")).await;
    let client = connect(&server.url("postgres")).await.unwrap();
    client.execute("insert into t values (1), (2)", &[]).await.unwrap();
    client.batch_execute("begin; insert into t values (3)").await.unwrap();
    let before = with(&server, |s| s.pid()).await;
    with(&server, Postgres::kill).await;
    assert!(!server.running());
    assert_eq!(RunDir::processes_in(&server.data()), [0; 0], "backends survived");
    assert!(client.simple_query("select 1").await.is_err(), "the fault did not happen");

    with(&server, |s| s.start_again(&[("max_connections", "37")])).await;
    assert_ne!(with(&server, |s| s.pid()).await, before);
    let kept = with(&server, |s| s.ask("postgres", "select array_agg(n order by n) from t")).await;
    assert_eq!(kept, "{1,2}", "committed rows stay and only they");
    assert_eq!(with(&server, |s| s.ask("postgres", "show max_connections")).await, "37");

    with(&server, |s| s.stop(Shutdown::Fast)).await;
    let log = std::fs::read_to_string(server.log()).unwrap();
    assert!(log.contains("database system was not properly shut down"), "{log}");
    assert!(log.contains("received fast shutdown request"), "{log}");
}

macro_rules! each_version {
    ($($name:ident $version:literal),*) => {$(
        #[tokio::test]
        async fn $name() {
            boots_survives_kill_and_takes_other_settings($version).await;
        }
    )*};
}
each_version!(
    postgres_13_boots_and_breaks 13,
    postgres_14_boots_and_breaks 14,
    postgres_15_boots_and_breaks 15,
    postgres_16_boots_and_breaks 16,
    postgres_17_boots_and_breaks 17,
    postgres_18_boots_and_breaks 18
);

#[tokio::test]
async fn each_call_has_a_database_of_its_own() {
    let (one, two) = (postgres(17).await, postgres(17).await);
    assert_ne!(one.name, two.name);
    let client = one.connect().await;
    let name: String = client.query_one("select current_database()", &[]).await.unwrap().get(0);
    assert_eq!(name, one.name);

    let client = connect(&two.socket_url).await.unwrap();
    let row = client.query_one("select inet_server_addr() is null", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0), "a unix socket has no address");
    assert_eq!(two.server.version(), 17);
}

#[tokio::test]
async fn a_frozen_server_hangs_and_a_thawed_one_answers() {
    let server = start(PostgresOptions::version(17)).await;
    let client = Arc::new(connect(&server.url("postgres")).await.unwrap());
    with(&server, Postgres::freeze).await;
    let mut answer = Box::pin(client.query_one("select 1", &[]));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(early.is_err(), "a frozen server answered");
    // The kernel still accepts, but nobody greets.
    let url = server.url("postgres");
    let greeted = tokio::time::timeout(Duration::from_millis(300), connect(&url)).await;
    assert!(greeted.is_err(), "a frozen server took a connection");
    with(&server, Postgres::thaw).await;
    let row = tokio::time::timeout(Duration::from_secs(20), answer).await.unwrap().unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
}

#[tokio::test]
async fn one_backend_freezes_alone() {
    let server = start(PostgresOptions::version(16)).await;
    let frozen = connect(&server.url("postgres")).await.unwrap();
    let other = connect(&server.url("postgres")).await.unwrap();
    let pid: i32 = frozen.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    with(&server, move |s| s.freeze_one(pid)).await;
    let mut hangs = Box::pin(frozen.query_one("select 1", &[]));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut hangs).await.is_err());
    other.query_one("select 1", &[]).await.unwrap();
    with(&server, move |s| s.thaw_one(pid)).await;
    hangs.await.unwrap();
    let stranger = i32::try_from(std::process::id()).unwrap();
    assert!(server.freeze_one(stranger).is_err(), "it must touch its own processes only");
    // A frozen server can be killed.
    with(&server, Postgres::freeze).await;
    with(&server, Postgres::kill).await;
    assert!(!server.running());
}

#[tokio::test]
async fn stops_are_fast_immediate_or_smart() {
    let server = start(PostgresOptions::version(18)).await;
    let client = connect(&server.url("postgres")).await.unwrap();
    with(&server, |s| s.request_stop(Shutdown::Smart)).await;
    let waits = with(&server, |s| Ok(s.wait_stopped(Duration::from_millis(300)))).await;
    assert!(waits.is_err(), "a smart stop waits for its client");
    with(&server, |s| s.stop(Shutdown::Fast)).await;
    let error = client.simple_query("select 1").await.unwrap_err();
    assert!(error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN), "{error}");

    with(&server, |s| s.start_again(&[])).await;
    assert!(server.start_again(&[]).is_err(), "it runs already");
    with(&server, |s| s.stop(Shutdown::Immediate)).await;
    with(&server, |s| s.start_again(&[])).await;
    let log = std::fs::read_to_string(server.log()).unwrap();
    assert!(log.contains("received immediate shutdown request"), "{log}");
    assert!(log.contains("not properly shut down; automatic recovery"), "{log}");

    with(&server, |s| s.reload(&[("work_mem", "5MB")])).await;
    wait_until(Duration::from_secs(20), "the setting", async || {
        let set = with(&server, |s| s.ask("postgres", "show work_mem")).await;
        (set == "5MB").then_some(())
    })
    .await;
}
