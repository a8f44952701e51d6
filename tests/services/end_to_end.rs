//! The drill from end to end, with its shipped binary: a load whose Postgres is killed under it, a
//! publisher, and the checker, which must believe a faithful one and no other.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use postrider::drill::cluster::{Postgres, PostgresOptions};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{blocking, connect, kafka, shared_run, wait_until};
use crate::shipped::{drill, folder, said};

const DEADLINE: Duration = Duration::from_secs(60);
/// A load's tables, and how each gives its payload as bytes.
const TABLES: [(&str, &str); 4] = [
    ("public.outbox", "convert_to(payload::text, 'UTF8')"),
    ("drill.outbox_jsonb", "convert_to(payload::text, 'UTF8')"),
    ("drill.outbox_text", "convert_to(payload, 'UTF8')"),
    ("drill.outbox_bytea", "payload"),
];
/// No other test has topics of these names.
const TOPICS: [&str; 5] = [
    "outbox.event.order",
    "outbox.event.payment",
    "outbox.event.stock",
    "outbox.event.shipment",
    "outbox.event.label",
];
/// Rows in one Kafka transaction.
const BATCH: usize = 100;

/// A committed row, as it is to be published.
struct Event {
    id: Uuid,
    topic: String,
    key: String,
    version: i64,
    payload: Vec<u8>,
}

/// Every committed row: a table after the other, each in the order of `seq`, which the lock of a key
/// makes the order of its commits.
async fn committed(client: &Client) -> Vec<Event> {
    let mut events = Vec::new();
    for (table, payload) in TABLES {
        let sql = format!(
            "select id, 'outbox.event.' || aggregatetype, aggregateid, aggregateversion, {payload} \
             from {table} order by seq"
        );
        events.extend(client.query(&sql, &[]).await.unwrap().into_iter().map(|row| Event {
            id: row.get(0),
            topic: row.get(1),
            key: row.get(2),
            version: row.get(3),
            payload: row.get(4),
        }));
    }
    events
}

/// What the tests want of a relay, in its smallest form.
struct Publisher(BaseProducer);

impl Publisher {
    fn new(bootstrap: &str) -> Self {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("transactional.id", "end-to-end")
            .create()
            .unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        Self(producer)
    }

    fn send(&self, events: &[Event]) {
        self.0.begin_transaction().unwrap();
        for event in events {
            let (id, version) = (event.id.to_string(), event.version.to_string());
            let headers = OwnedHeaders::new()
                .insert(Header { key: "id", value: Some(&id) })
                .insert(Header { key: "aggregateversion", value: Some(&version) });
            let record = BaseRecord::to(&event.topic)
                .key(&event.key)
                .payload(&event.payload)
                .headers(headers);
            self.0.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.0.flush(DEADLINE).unwrap();
    }

    fn publish(&self, events: &[Event]) {
        self.send(events);
        self.0.commit_transaction(DEADLINE).unwrap();
    }

    fn abort(&self, events: &[Event]) {
        self.send(events);
        self.0.abort_transaction(DEADLINE).unwrap();
    }
}

/// Runs `drill load` and kills its Postgres once, in the middle.
async fn load(server: &Arc<Postgres>, history: &Path) {
    let history = history.to_str().unwrap();
    let url = server.url("shop");
    let mut command = drill(&["load", "--postgres", &url, "--history", history, "--seed", "23"]);
    command.args(["--rate", "250", "--count", "400"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().unwrap();
    rows(server, 100).await;
    let killed = Arc::clone(server);
    blocking(move || {
        killed.kill().unwrap();
        killed.start_again(&[]).unwrap();
    })
    .await;
    let (code, summary, errors) = said(&blocking(|| running.wait_with_output().unwrap()).await);
    assert_eq!(code, Some(0), "{summary}{errors}");
    assert!(summary.contains("400 begun"), "{summary}");
    assert!(!summary.contains(" 0 reopened"), "the kill was not noticed: {summary}");
}

/// Waits until the load has committed some rows to `public.outbox`.
async fn rows(server: &Postgres, at_least: i64) {
    let mut client = None;
    wait_until(DEADLINE, "rows of the load", async || {
        if client.is_none() {
            client = connect(&server.url("shop")).await.ok();
        }
        let count = client.as_ref()?.query_one("select count(*) from public.outbox", &[]).await;
        // The load makes the table first.
        (count.ok()?.get::<_, i64>(0) >= at_least).then_some(())
    })
    .await;
}

/// Runs `drill check` and returns its exit code and its JSON.
async fn check(url: &str, bootstrap: &str, history: &Path) -> (Option<i32>, Value) {
    let history = history.to_str().unwrap();
    let mut command =
        drill(&["check", "--json", "--postgres", url, "--kafka", bootstrap, "--history", history]);
    command.args(["--rest", "100ms", "--drain-timeout", "5s"]);
    TOPICS.iter().for_each(|topic| {
        command.args(["--topic", topic]);
    });
    let output = blocking(move || command.output().unwrap()).await;
    let (code, out, errors) = said(&output);
    let report = serde_json::from_str(&out);
    (code, report.unwrap_or_else(|error| panic!("{error}: {out}{errors}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_is_published_and_the_shipped_checker_believes_it_once() {
    let (_keep, folder) = folder();
    let history = folder.join("history.ndjson");
    let server = blocking(|| {
        let server = Postgres::start(shared_run(), PostgresOptions::version(17)).unwrap();
        server.create_database("shop").unwrap();
        Arc::new(server)
    })
    .await;
    load(&server, &history).await;

    let kafka = kafka().await;
    let url = server.url("shop");
    let events = committed(&connect(&url).await.unwrap()).await;
    let bootstrap = kafka.bootstrap();
    let (publisher, events) = blocking(move || {
        TOPICS.iter().for_each(|topic| kafka.create_topic(topic, 3, 1, &[]).unwrap());
        let publisher = Publisher::new(&kafka.bootstrap());
        // A relay that crashed before its first commit leaves copies that nobody may count.
        publisher.abort(&events[..BATCH]);
        events.chunks(BATCH).for_each(|batch| publisher.publish(batch));
        (publisher, events)
    })
    .await;

    let (code, report) = check(&url, &bootstrap, &history).await;
    assert_eq!((code, &report["outcome"]), (Some(0), &json!("pass")), "{report:#}");
    let all_hold = report["checks"].as_array().unwrap().iter().all(|it| it["result"] == "holds");
    assert!(all_hold, "{report:#}");
    let seen = &report["seen"];
    assert_eq!(seen["rows"], events.len());
    assert_eq!(
        (&seen["committed_records"], &seen["aborted_copies"]),
        (&seen["rows"], &json!(BATCH))
    );
    // The plan rolls some transactions back.
    assert!(seen["history_rows"].as_u64() > seen["rows"].as_u64(), "{seen}");
    assert_eq!(report["notes"], json!([]));

    let (again, events) = blocking(move || {
        publisher.publish(&events[7..8]);
        (events[7].id.to_string(), events)
    })
    .await;
    let (code, report) = check(&url, &bootstrap, &history).await;
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("violated")), "{report:#}");
    let violated: Vec<&Value> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["result"] == "violated")
        .collect();
    assert_eq!(violated.len(), 1, "{report:#}");
    assert_eq!((&violated[0]["name"], &violated[0]["bad"]), (&json!("I3"), &json!(1)));
    assert_eq!(violated[0]["witnesses"][0]["id"], again);
    assert_eq!(report["seen"]["committed_records"], events.len() + 1);
}
