//! A faithful little publisher with its own table, topics and history, and the checker run as the
//! command runs it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Parser as _;
use postrider::drill::check::{CheckArgs, check};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Database, kafka, postgres};

pub(super) const PARTITIONS: i32 = 2;
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// The arguments as `drill check` takes them.
#[derive(clap::Parser)]
#[command(args_override_self = true)]
struct Command {
    #[command(flatten)]
    check: CheckArgs,
}

/// What the publisher sends for a row, and a fault may change.
#[derive(Clone)]
pub(super) struct Event {
    pub(super) id: Option<String>,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) key: String,
    pub(super) version: i64,
    pub(super) payload: Vec<u8>,
    pub(super) lsn: String,
}

/// The two kinds of table there are: ours, and one made for Debezium.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Shape {
    Ours,
    Debezium,
}

/// A table, topics, a publisher and a history.
pub(super) struct Bench {
    pub(super) shape: Shape,
    pub(super) database: Database,
    pub(super) client: tokio_postgres::Client,
    pub(super) bootstrap: String,
    /// Makes topics and transactional ids this test's own.
    pub(super) name: String,
    pub(super) producer: BaseProducer,
    /// At read_committed and at read_uncommitted; asked for ends only.
    readers: [BaseConsumer; 2],
    pub(super) history: tempfile::NamedTempFile,
    pub(super) operations: u64,
}

impl Bench {
    pub(super) async fn new(shape: Shape) -> Self {
        let database = postgres(17).await;
        let client = database.connect().await;
        let ours = "payload jsonb, seq bigint generated always as identity, \
                    txid xid8 not null default pg_current_xact_id(), aggregateversion bigint";
        let columns = if shape == Shape::Ours { ours } else { "payload bytea" };
        let table = format!(
            "create table outbox (id uuid primary key, aggregatetype text not null, \
             aggregateid text not null, type text not null, {columns})"
        );
        client.batch_execute(&table).await.unwrap();
        let bootstrap = kafka().await.bootstrap();
        let name = format!("check-{}", Uuid::new_v4().simple());
        let topics = ["order", "payment"].map(|kind| format!("outbox.event.{name}.{kind}"));
        create_topics(&bootstrap, &topics).await;
        let mut history = tempfile::NamedTempFile::new().unwrap();
        let run = json!({"seed": 1, "started_at_us": 1, "tables": ["public.outbox"], "version": 1});
        writeln!(history, "{}", json!({ "run": run })).unwrap();
        let producer = producer(&bootstrap, &name);
        let readers = ["read_committed", "read_uncommitted"].map(|level| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &bootstrap).set("isolation.level", level);
            config.create().unwrap()
        });
        let operations = 0;
        Self { shape, database, client, bootstrap, name, producer, readers, history, operations }
    }

    /// One Postgres transaction; each row is a kind, a key and a version.
    pub(super) async fn write(&mut self, rows: &[(&str, &str, i64)], commit: bool) -> Vec<Event> {
        self.client.batch_execute("begin").await.unwrap();
        let mut events = Vec::new();
        for row in rows {
            events.push(self.insert(*row).await);
        }
        self.operations += 1;
        let op = self.operations;
        let intent = if commit { "commit" } else { "rollback" };
        let told: Vec<Value> = events
            .iter()
            .map(|event| {
                let Event { id, topic, key, version, .. } = event;
                json!({"id": id, "table": "public.outbox", "topic": topic, "key": key,
                    "version": version})
            })
            .collect();
        let begin = json!({"op": op, "worker": 1, "at_us": op, "intent": intent, "rows": told,
            "undone": []});
        writeln!(self.history, "{}", json!({ "begin": begin })).unwrap();
        self.client.batch_execute(intent).await.unwrap();
        let end = json!({"op": op, "at_us": op, "outcome": "ok", "error": null});
        writeln!(self.history, "{}", json!({ "end": end })).unwrap();
        let now = self.client.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap();
        events.iter_mut().for_each(|event| event.lsn = now.get(0));
        events
    }

    async fn insert(&self, (kind, key, version): (&str, &str, i64)) -> Event {
        let id = Uuid::new_v4();
        let kind = format!("{}.{kind}", self.name);
        // Postgres gives jsonb back in its own spelling; a relay passes that on.
        let payload = format!("{{\"version\":{version},\"key\":\"{key}\"}}");
        let insert = match self.shape {
            Shape::Ours => {
                "insert into outbox (id, aggregatetype, aggregateid, type, payload, \
                 aggregateversion) values ($1, $2, $3, 'Changed', $4::text::jsonb, $5) \
                 returning convert_to(payload::text, 'UTF8')"
            }
            Shape::Debezium => {
                "insert into outbox (id, aggregatetype, aggregateid, type, payload) \
                 values ($1, $2, $3, 'Changed', convert_to($4::text || ($5::bigint)::text, 'UTF8')) \
                 returning payload"
            }
        };
        let row = self.client.query_one(insert, &[&id, &kind, &key, &payload, &version]).await;
        Event {
            id: Some(id.to_string()),
            topic: format!("outbox.event.{kind}"),
            partition: i32::from(key.as_bytes()[key.len() - 1]) % PARTITIONS,
            key: key.to_owned(),
            version,
            payload: row.unwrap().get(0),
            lsn: String::new(),
        }
    }

    /// A run without a fault: two versions of one key in one transaction, two topics, a rollback.
    pub(super) async fn some_transactions(&mut self) -> Vec<Vec<Event>> {
        let rolled_back = self.write(&[("order", "a", 9)], false).await;
        assert_eq!(rolled_back.len(), 1);
        vec![
            self.write(&[("order", "a", 1), ("order", "b", 1), ("payment", "a", 1)], true).await,
            self.write(&[("order", "a", 2)], true).await,
            self.write(&[("order", "a", 3), ("order", "b", 2)], true).await,
        ]
    }

    pub(super) fn publish(&self, events: &[Event]) {
        publish_by(&self.producer, events);
        self.producer.commit_transaction(TIMEOUT).unwrap();
        self.wait_ended(events);
    }

    pub(super) fn publish_and_abort(&self, events: &[Event]) {
        publish_by(&self.producer, events);
        self.producer.abort_transaction(TIMEOUT).unwrap();
        self.wait_ended(events);
    }

    /// A commit returns before its control records are written; until then the transaction is still
    /// open for readers, which a checker with little patience would report.
    pub(super) fn wait_ended(&self, events: &[Event]) {
        let started = Instant::now();
        for event in events {
            let end = |consumer: &BaseConsumer| {
                consumer.fetch_watermarks(&event.topic, event.partition, TIMEOUT).unwrap().1
            };
            while end(&self.readers[0]) < end(&self.readers[1]) {
                assert!(started.elapsed() < TIMEOUT, "the transaction did not end");
            }
        }
    }

    /// Runs the checker as the command does, with a short patience.
    pub(super) async fn check(&self, more: &[&str]) -> Found {
        let topics = ["order", "payment"].map(|kind| format!("outbox.event.{}.{kind}", self.name));
        let history = self.history.path().to_str().unwrap();
        let mut words = vec!["check", "--postgres", &self.database.url, "--kafka", &self.bootstrap];
        words.extend(["--history", history, "--rest", "50ms", "--drain-timeout", "300ms"]);
        topics.iter().for_each(|topic| words.extend(["--topic", topic]));
        words.extend(more);
        run(&words).await
    }
}

pub(super) fn producer(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer
}

/// Sends in a transaction that is left open; the records are on the broker afterwards.
pub(super) fn publish_by(producer: &BaseProducer, events: &[Event]) {
    producer.begin_transaction().unwrap();
    for event in events {
        let (version, lsn) = (event.version.to_string(), event.lsn.as_str());
        let mut headers = OwnedHeaders::new()
            .insert(Header { key: "aggregateversion", value: Some(&version) })
            .insert(Header { key: "postrider-lsn", value: Some(lsn) });
        if let Some(id) = &event.id {
            headers = headers.insert(Header { key: "id", value: Some(id) });
        }
        let record = BaseRecord::to(&event.topic)
            .key(&event.key)
            .payload(&event.payload)
            .partition(event.partition)
            .headers(headers);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

pub(super) async fn create_topics(bootstrap: &str, names: &[String]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let topics: Vec<_> = names
        .iter()
        .map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)))
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    for made in admin.create_topics(&topics, &options).await.unwrap() {
        made.unwrap();
    }
}

/// What the checker said, by both of its ways.
pub(super) struct Found {
    pub(super) json: Value,
    pub(super) text: String,
    pub(super) exit: u8,
}

pub(super) async fn run(words: &[&str]) -> Found {
    let command = Command::try_parse_from(words).unwrap();
    let report = check(command.check).await;
    let json = serde_json::from_str(&report.to_json()).unwrap();
    Found { json, text: report.to_string(), exit: report.verdict.outcome.exit_code() }
}

impl Found {
    pub(super) fn by_result(&self, result: &str) -> Vec<&str> {
        let checks = self.json["checks"].as_array().unwrap().iter();
        let matching = checks.filter(|check| check["result"] == result);
        matching.map(|check| check["name"].as_str().unwrap()).collect()
    }

    pub(super) fn entry(&self, name: &str) -> &Value {
        let checks = self.json["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap()
    }

    #[track_caller]
    pub(super) fn passes(&self) {
        assert_eq!(self.exit, 0, "{}", self.text);
        assert_eq!(self.json["outcome"], "pass");
        assert!(self.text.contains("\nPASS"), "{}", self.text);
    }

    /// Exactly these checks are violated; returns the first witness of the first of them.
    #[track_caller]
    pub(super) fn violates(&self, names: &[&str]) -> &Value {
        assert_eq!(self.exit, 1, "{}", self.text);
        assert_eq!(self.json["outcome"], "violated");
        assert_eq!(self.by_result("violated"), names, "{}", self.text);
        &self.entry(names[0])["witnesses"][0]
    }
}

#[track_caller]
pub(super) fn is(witness: &Value, fault: &str, event: &Event) {
    assert_eq!(witness["fault"], fault, "{witness}");
    assert_eq!(witness["id"].as_str(), event.id.as_deref(), "{witness}");
    assert_eq!(witness["key"], event.key.as_str(), "{witness}");
    assert_eq!(witness["topic"], event.topic.as_str(), "{witness}");
}
