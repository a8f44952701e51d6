//! The load against real servers: its history must be what the tables say, also when Postgres is
//! killed or the network cut in the middle of a COMMIT.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use postrider::drill::cluster::{Postgres, PostgresOptions};
use postrider::drill::load::{Load, Mix, Options, Payload, Summary, Table, run};
use postrider::drill::proxy::{Cut, Direction, Event, Protocol, Proxy, Target};
use serde_json::Value;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::harness::{blocking, connect, postgres, shared_run, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// What a history says of each id.
#[derive(Debug, Default)]
struct Told {
    ok: HashMap<String, (String, String, i64)>,
    unknown: HashSet<String>,
    forbidden: HashSet<String>,
    /// The ids of each transaction that is ok and has rows.
    transactions: Vec<Vec<String>>,
}

/// Reads a history on its own, without the code that wrote it.
fn read(history: &Path) -> Told {
    let text = std::fs::read_to_string(history).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["run"]["version"], 1);
    let outcome: HashMap<u64, &str> = lines
        .iter()
        .filter_map(|line| line.get("end"))
        .map(|end| (end["op"].as_u64().unwrap(), end["outcome"].as_str().unwrap()))
        .collect();
    let mut told = Told::default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for begin in lines.iter().filter_map(|line| line.get("begin")) {
        told.forbidden.extend(begin["undone"].as_array().unwrap().iter().map(text));
        let rows = begin["rows"].as_array().unwrap();
        let ids = rows.iter().map(|row| text(&row["id"]));
        let outcome = outcome.get(&begin["op"].as_u64().unwrap()).copied().unwrap_or("unknown");
        match (begin["intent"].as_str().unwrap(), outcome) {
            ("commit", "ok") => {
                for row in rows {
                    let version = row["version"].as_i64().unwrap();
                    let place = (text(&row["table"]), text(&row["key"]), version);
                    assert!(told.ok.insert(text(&row["id"]), place).is_none(), "an id twice");
                }
                told.transactions.push(ids.collect());
            }
            ("commit", "unknown") => told.unknown.extend(ids),
            ("commit", "fail") | ("rollback", _) => told.forbidden.extend(ids),
            other => panic!("the format knows no {other:?}"),
        }
    }
    told
}

/// Compares a history with the tables; returns how many rows those hold.
async fn verify(client: &Client, mix: &Mix, told: &Told) -> usize {
    let mut found = HashMap::new();
    for table in &mix.tables {
        let sql = format!(
            "select id::text, aggregateid, aggregateversion, txid::text from {} order by seq",
            table.name
        );
        let mut versions: HashMap<String, i64> = HashMap::new();
        for row in client.query(&sql, &[]).await.unwrap() {
            let (id, key, version): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
            let last = versions.entry(key.clone()).or_default();
            assert_eq!(version, *last + 1, "the versions of {key} have a gap in {}", table.name);
            *last = version;
            found.insert(id, ((table.name.clone(), key, version), row.get::<_, String>(3)));
        }
    }
    for (id, place) in &told.ok {
        assert_eq!(found.get(id).map(|(place, _)| place), Some(place), "{id} was confirmed");
    }
    for id in found.keys() {
        assert!(!told.forbidden.contains(id), "{id} is forbidden");
        assert!(told.ok.contains_key(id) || told.unknown.contains(id), "nobody wrote down {id}");
    }
    let mut txids = HashSet::new();
    for ids in told.transactions.iter().filter(|ids| !ids.is_empty()) {
        let mine: HashSet<&str> = ids.iter().map(|id| found[id].1.as_str()).collect();
        assert_eq!(mine.len(), 1, "one transaction has one txid");
        assert!(txids.insert(mine.into_iter().next().unwrap()), "two transactions share a txid");
    }
    found.len()
}

struct Scene {
    folder: tempfile::TempDir,
    options: Options,
}

/// Options with a history in a folder of the test's own.
fn scene(url: &str, seed: u64, rate: f64) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(url, seed, rate, folder.path().join("history.ndjson"));
    Scene { folder, options }
}

async fn finish(load: Load, scene: &Scene) -> (Summary, Told) {
    load.stop();
    let summary = load.finish().await.unwrap();
    (summary, read(&scene.folder.path().join("history.ndjson")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_load_is_what_its_history_says() {
    let database = postgres(17).await;
    let Scene { folder, options } = scene(&database.url, 7, 150.0);
    let mix = options.mix.clone();
    let options = Options { duration: Some(Duration::from_secs(2)), ..options };
    let again = Options { history: folder.path().join("again.ndjson"), ..options.clone() };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    println!("{summary}");

    let told = read(&folder.path().join("history.ndjson"));
    let client = database.connect().await;
    assert_eq!(verify(&client, &mix, &told).await, told.ok.len());
    assert_eq!(told.ok.len() as u64, summary.rows_ok);
    assert_eq!(told.transactions.len() as u64, summary.ok);
    // Nothing was broken, so nothing failed; and everything the mix promises has happened.
    assert_eq!((summary.fail, summary.unknown, summary.reconnects), (0, 0, 0), "{summary}");
    assert!(summary.rolled_back > 0 && summary.rows_undone > 0, "{summary}");
    assert!(told.transactions.iter().any(|ids| ids.len() > 1));
    let large = "select max(pg_column_size(payload::text)) from public.outbox";
    assert!(client.query_one(large, &[]).await.unwrap().get::<_, i32>(0) > 10_000);

    // The same seed again would collide with itself, so it is refused.
    let refused = run(again, CancellationToken::new()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("choose another seed"), "{refused:#}");
}

#[tokio::test]
async fn a_payload_of_another_type_is_refused() {
    let database = postgres(17).await;
    let client = database.connect().await;
    client.batch_execute("create table public.outbox (payload bytea)").await.unwrap();
    let Scene { folder: _folder, options } = scene(&database.url, 1, 10.0);
    let table = Table::new("public.outbox", Payload::Jsonb, "order");
    let options = Options { mix: Mix { tables: vec![table], ..Mix::default() }, ..options };
    let refused = run(options, CancellationToken::new()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("payload is bytea"), "{refused:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_leaves_doubts_but_no_lies() {
    let server = blocking(|| Postgres::start(shared_run(), PostgresOptions::version(17))).await;
    let server = std::sync::Arc::new(server.unwrap());
    blocking({
        let server = server.clone();
        move || server.create_database("drill").unwrap()
    })
    .await;
    let scene = scene(&server.url("drill"), 11, 300.0);
    let mix = scene.options.mix.clone();
    let load = Load::start(scene.options.clone(), CancellationToken::new()).await.unwrap();

    // COMMIT takes most of the time from here on, so that the kill finds some on their way.
    let client = connect(&server.url("drill")).await.unwrap();
    client
        .batch_execute(
            "create function slow() returns trigger language plpgsql as
                 'begin perform pg_sleep(0.02); return null; end';
             create constraint trigger slow after insert on public.outbox
                 deferrable initially deferred for each row execute function slow()",
        )
        .await
        .unwrap();
    wait_until(DEADLINE, "100 commits", async || (load.tally().ok > 100).then_some(())).await;
    let killed = server.clone();
    blocking(move || killed.kill().unwrap()).await;
    wait_until(DEADLINE, "a refusal", async || (load.tally().refused > 0).then_some(())).await;
    let restarted = server.clone();
    blocking(move || restarted.start_again(&[]).unwrap()).await;
    let before = load.tally().ok;
    wait_until(DEADLINE, "commits after the restart", async || {
        (load.tally().ok > before + 100).then_some(())
    })
    .await;

    let (summary, told) = finish(load, &scene).await;
    println!("{summary}");
    assert!(summary.reconnects > 0 && summary.unknown > 0, "{summary}");
    // What became due during the outage was late, and is reported so.
    assert!(summary.lateness.max_ms > 100.0, "{summary}");
    let client = connect(&server.url("drill")).await.unwrap();
    let rows = verify(&client, &mix, &told).await;
    assert!(rows >= told.ok.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ok_survives_a_kill_where_commits_are_asynchronous_by_default() {
    let server = blocking(|| {
        // Without a synchronous commit, what was confirmed since the WAL writer's last round is lost.
        let options = PostgresOptions::version(17)
            .set("synchronous_commit", "off")
            .set("wal_writer_delay", "10s")
            .set("wal_writer_flush_after", "1GB");
        let server = Postgres::start(shared_run(), options).unwrap();
        server.create_database("drill").unwrap();
        server
    })
    .await;
    let scene = scene(&server.url("drill"), 19, 200.0);
    let mix = scene.options.mix.clone();
    let load = Load::start(scene.options.clone(), CancellationToken::new()).await.unwrap();
    wait_until(DEADLINE, "100 commits", async || (load.tally().ok > 100).then_some(())).await;
    let server = blocking(move || {
        server.kill().unwrap();
        server.start_again(&[]).unwrap();
        server
    })
    .await;
    let (summary, told) = finish(load, &scene).await;
    assert!(summary.ok > 100, "{summary}");
    verify(&connect(&server.url("drill")).await.unwrap(), &mix, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_unknown() {
    let database = postgres(17).await;
    let proxy = Proxy::bind(Protocol::Opaque).unwrap();
    proxy.forward_to(Target::Tcp(([127, 0, 0, 1], database.server.port()).into()));
    let port = database.server.port().to_string();
    let url = database.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()));
    assert_ne!(url, database.url);
    let scene = scene(&url, 13, 300.0);
    let mix = scene.options.mix.clone();
    let load = Load::start(scene.options.clone(), CancellationToken::new()).await.unwrap();
    wait_until(DEADLINE, "50 commits", async || (load.tally().ok > 50).then_some(())).await;

    // Answers take a while, so a cut finds some of them on their way.
    proxy.delay(Direction::ToClient, Duration::from_millis(5));
    let mut cut_at = load.tally().ok;
    wait_until(DEADLINE, "commits without an answer", async || {
        let tally = load.tally();
        // Only among transactions that get somewhere: a new connection takes several answers.
        if tally.ok > cut_at + 5 {
            cut_at = tally.ok;
            proxy.cut(Cut::Reset);
        }
        (tally.unknown > 2).then_some(())
    })
    .await;
    proxy.refuse().await.unwrap();
    proxy.cut(Cut::Reset);
    wait_until(DEADLINE, "a refusal", async || (load.tally().refused > 0).then_some(())).await;
    proxy.delay(Direction::ToClient, Duration::ZERO);
    proxy.accept().await.unwrap();
    let before = load.tally().ok;
    wait_until(DEADLINE, "commits after the cuts", async || {
        (load.tally().ok > before + 50).then_some(())
    })
    .await;

    let (summary, told) = finish(load, &scene).await;
    println!("{summary}");
    assert!(proxy.counts().cut > 0 && summary.unknown > 2, "{summary}");
    verify(&database.connect().await, &mix, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_server_makes_the_load_late_but_not_slower() {
    let database = postgres(17).await;
    let proxy = Proxy::bind(Protocol::Opaque).unwrap();
    proxy.forward_to(Target::Tcp(([127, 0, 0, 1], database.server.port()).into()));
    let port = database.server.port().to_string();
    let url = database.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()));
    let scene = scene(&url, 17, 200.0);
    let options = Options {
        workers: 2,
        count: Some(200),
        mix: Mix { savepoint_percent: 0, ..Mix::default() },
        ..scene.options.clone()
    };
    let load = Load::start(options, CancellationToken::new()).await.unwrap();
    wait_until(DEADLINE, "10 commits", async || (load.tally().ok > 10).then_some(())).await;
    proxy.freeze();
    let stalled = |event: &Event| matches!(event, Event::Stalled { .. });
    proxy.wait_for(DEADLINE, "bytes that wait", stalled).await.unwrap();
    // Longer than everything that is still due would take: what waits is late by that much.
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.thaw();
    let summary = load.finish().await.unwrap();
    println!("{summary}");
    assert_eq!((summary.started, summary.unknown, summary.fail), (200, 0, 0), "{summary}");
    // A load that waited for its answers would have had two slow transactions and none that is
    // late: its median would look fine.
    assert!(summary.lateness.p99_ms > 200.0, "{summary}");
    assert!(summary.response.max_ms >= summary.service.max_ms, "{summary}");
}
