//! The three parts that judge every relay, together and as shipped: `drill load` writes while
//! Postgres is killed, somebody publishes, `drill check` compares.
//!
//! The publisher in here is the simplest that is right after the fact: it reads the tables when
//! nobody writes any more.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use postrider::drill::cluster::kafka::{Kafka, KafkaOptions};
use postrider::drill::cluster::{Postgres, PostgresOptions, RunDir};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use crate::harness::{blocking, connect, wait_until};
use crate::shipped::{DEADLINE, folder, said};

/// A table and how its payload becomes bytes.
const TABLES: [(&str, &str); 4] = [
    ("public.outbox", "convert_to(payload::text, 'UTF8')"),
    ("drill.outbox_jsonb", "convert_to(payload::text, 'UTF8')"),
    ("drill.outbox_text", "convert_to(payload, 'UTF8')"),
    ("drill.outbox_bytea", "payload"),
];

const TIMEOUT: Duration = Duration::from_secs(30);

struct Row {
    id: String,
    topic: String,
    key: String,
    version: i64,
    payload: Option<Vec<u8>>,
}

async fn rows(url: &str) -> Vec<Row> {
    let client = connect(url).await.unwrap();
    let mut rows = Vec::new();
    for (table, payload) in TABLES {
        let sql = format!(
            "select id::text, aggregatetype, aggregateid, aggregateversion, {payload} \
             from {table} order by max(seq) over (partition by txid), txid, seq"
        );
        rows.extend(client.query(&sql, &[]).await.unwrap().into_iter().map(|row| Row {
            id: row.get(0),
            topic: format!("outbox.event.{}", row.get::<_, String>(1)),
            key: row.get(2),
            version: row.get(3),
            payload: row.get(4),
        }));
    }
    rows
}

fn publish(kafka: &Kafka, rows: &[&Row]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "end-to-end")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    for row in rows {
        let version = row.version.to_string();
        let headers = OwnedHeaders::new()
            .insert(Header { key: "id", value: Some(&row.id) })
            .insert(Header { key: "aggregateversion", value: Some(&version) });
        let mut record = BaseRecord::to(&row.topic).key(&row.key).headers(headers);
        if let Some(payload) = &row.payload {
            record = record.payload(payload);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.commit_transaction(TIMEOUT).unwrap();
}

/// `drill check` as shipped: its exit code and its JSON.
fn check(postgres: &str, kafka: &str, history: &Path) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_drill"))
        .args([
            "check",
            "--json",
            "--drain-timeout",
            "3s",
            "--postgres",
            postgres,
            "--kafka",
            kafka,
        ])
        .arg("--history")
        .arg(history)
        .output()
        .unwrap();
    let (code, out, errors) = said(&output);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{errors}")))
}

/// Lets the shipped load run for a while, with a `kill -9` of Postgres in its middle.
async fn load(server: Postgres, history: &Path) -> Postgres {
    let mut load = Command::new(env!("CARGO_BIN_EXE_drill"))
        .args(["load", "--seconds", "4", "--rate", "200", "--seed", "7", "--postgres"])
        .arg(server.url("postgres"))
        .arg("--history")
        .arg(history)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = |words: &str| {
        std::fs::read_to_string(history).is_ok_and(|text| text.matches(words).count() > 100)
    };
    wait_until(DEADLINE, "a hundred commits", async || written("\"ok\"").then_some(())).await;
    let server = blocking(move || {
        server.kill().unwrap();
        server.start_again(&[]).unwrap();
        server
    })
    .await;
    wait_until(DEADLINE, "the end of the load", async || load.try_wait().unwrap()).await;
    let (code, out, errors) = said(&load.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{out}{errors}");
    server
}

#[tokio::test]
async fn load_and_checker_agree_through_a_crash_of_postgres() {
    let (_keep, folder) = folder();
    let history = folder.join("history.ndjson");
    let (server, kafka) = blocking(|| {
        let run = RunDir::create().unwrap();
        let server = Postgres::start(&run, PostgresOptions::version(17)).unwrap();
        (server, Kafka::start(&run, KafkaOptions::default()).unwrap())
    })
    .await;
    let server = load(server, &history).await;
    let told = std::fs::read_to_string(&history).unwrap();
    assert!(
        told.contains("\"unknown\"") || told.contains("\"fail\""),
        "the crash was not felt by any transaction"
    );

    let url = server.url("postgres");
    let rows = rows(&url).await;
    let bootstrap = kafka.bootstrap();
    let (first, again) = blocking(move || {
        let mut topics: Vec<&str> = rows.iter().map(|row| row.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics.iter().for_each(|topic| kafka.create_topic(topic, 3, 1, &[]).unwrap());
        publish(&kafka, &rows.iter().collect::<Vec<_>>());
        let first = check(&url, &bootstrap, &history);
        publish(&kafka, &rows[..1].iter().collect::<Vec<_>>());
        (first, check(&url, &bootstrap, &history))
    })
    .await;
    let (code, report) = first;
    assert_eq!(code, Some(0), "{report:#}");
    assert!(report["seen"]["rows"].as_u64().unwrap() > 100, "{report:#}");
    let (code, report) = again;
    assert_eq!(code, Some(1), "the repetition was not found: {report:#}");
}
