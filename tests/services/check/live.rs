//! The checker on systems that move while it looks, and on evidence that is hidden or ambiguous.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::drill::check::evidence::{Evidence, Mode};
use postrider::drill::check::tables::{Tables, Wanted};
use postrider::drill::cluster::kafka::{Kafka, KafkaOptions, Listener, Mechanism, Secured, User};
use postrider::drill::cluster::{Postgres, PostgresOptions, StandbyOptions};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use uuid::Uuid;

use super::bench::{Bench, Event, Shape, TIMEOUT, create_topics, is, producer, publish_by};
use crate::harness::{blocking, postgres, shared_run, unique};

#[tokio::test]
async fn check_reads_a_topic_that_is_made_while_it_waits() {
    let mut bench = Bench::new(Shape::Ours).await;
    for transaction in bench.some_transactions().await {
        bench.publish(&transaction);
    }
    // The first event of its type; its topic comes with the relay's first record.
    let late = bench.write(&[("refund", "a", 1)], true).await;
    let waiting = bench.check(&["--drain-timeout", "20s"]);
    let publish = async {
        // Long enough for a first look in most runs; the outcome is the same in all.
        tokio::time::sleep(Duration::from_millis(400)).await;
        create_topics(&bench.bootstrap, std::slice::from_ref(&late[0].topic)).await;
        bench.publish(&late);
    };
    let (found, ()) = tokio::join!(waiting, publish);
    found.passes();
    assert_eq!(found.json["notes"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_allows_a_live_system_its_open_transactions() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    transactions.iter().for_each(|transaction| bench.publish(transaction));
    let live = producer(&bench.bootstrap, &format!("{}-live", bench.name));
    let (done, copies) = (Arc::new(AtomicBool::new(false)), transactions[1].clone());
    let stop = Arc::clone(&done);
    let busy = blocking(move || {
        while !stop.load(Ordering::Relaxed) {
            publish_by(&live, &copies);
            // Open nearly all of the time, and each one only briefly.
            std::thread::park_timeout(Duration::from_millis(40));
            live.abort_transaction(TIMEOUT).unwrap();
        }
    });
    let check = async {
        let found = bench.check(&["--drain-timeout", "800ms"]).await;
        done.store(true, Ordering::Relaxed);
        found
    };
    let (found, ()) = tokio::join!(check, busy);
    found.passes();
    let notes = found.json["notes"].to_string();
    assert!(notes.contains("still growing"), "the system was not live: {notes}");
}

#[tokio::test]
async fn check_refuses_an_id_that_is_said_twice() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish(&transactions[0]);
    bench.publish(&transactions[1]);
    bench.producer.begin_transaction().unwrap();
    for event in &transactions[2] {
        send_with_another_id(&bench, event);
    }
    bench.producer.commit_transaction(TIMEOUT).unwrap();
    bench.wait_ended(&transactions[2]);
    let found = bench.check(&[]).await;
    let witness = found.violates(&["I1", "I2"]);
    is(witness, "never published", &transactions[2][0]);
    assert_eq!(found.entry("I2")["faults"][0]["fault"], "unreadable id header");
}

fn send_with_another_id(bench: &Bench, event: &Event) {
    let other = Uuid::new_v4().to_string();
    let id = event.id.as_deref();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "id", value: id })
        .insert(Header { key: "id", value: Some(&other) });
    let record = BaseRecord::to(&event.topic)
        .key(&event.key)
        .payload(&event.payload)
        .partition(event.partition)
        .headers(headers);
    bench.producer.send(record).map_err(|(error, _)| error).unwrap();
}

#[tokio::test]
async fn check_refuses_to_judge_rows_it_may_not_see() {
    let bench = Bench::new(Shape::Ours).await;
    let role = unique("auditor").replace('-', "_");
    bench
        .client
        .batch_execute(&format!(
            "create role {role} login; grant select on outbox to {role};
             alter table outbox enable row level security;
             create policy none on outbox using (false)"
        ))
        .await
        .unwrap();
    let url = bench.database.url.replace("//postgres@", &format!("//{role}@"));
    assert_ne!(url, bench.database.url);
    let found = bench.check(&["--postgres", &url]).await;
    assert_eq!(found.exit, 4, "{}", found.text);
    assert!(found.text.contains("row-level security"), "{}", found.text);
}

#[tokio::test]
async fn the_checker_says_that_a_standby_may_lack_rows() {
    let standby = blocking(|| {
        let primary = Postgres::start(shared_run(), PostgresOptions::version(17)).unwrap();
        primary
            .sql("postgres", "create table outbox (id uuid, aggregatetype text, aggregateid text)")
            .unwrap();
        let standby = primary.standby(StandbyOptions::default()).unwrap();
        let position = primary.wal_position().unwrap();
        standby.wait_replayed(&position, TIMEOUT).unwrap();
        // Whatever is committed from here on, the standby does not know of.
        standby.sql("postgres", "select pg_wal_replay_pause()").unwrap();
        let late = "insert into outbox values (gen_random_uuid(), 'order', 'a')";
        primary.sql("postgres", late).unwrap();
        standby
    })
    .await;
    let mut evidence = Evidence::new(Mode::ExactlyOnce);
    let wanted =
        Wanted { tables: vec!["outbox".to_owned()], topic_prefix: String::new(), payload: None };
    let url = standby.url("postgres");
    let tables = Tables::open(&url, None, wanted, &mut evidence).await.unwrap();
    tables.read(&mut evidence).await.unwrap();
    assert!(evidence.rows.is_empty(), "the standby knows the row");
    assert!(evidence.notes.iter().any(|note| note.contains("standby")), "{:?}", evidence.notes);
}

#[tokio::test]
async fn check_reads_a_payload_whose_type_is_a_domain() {
    let mut bench = Bench::new(Shape::Debezium).await;
    let domain = "create domain bytes as bytea; alter table outbox alter payload type bytes";
    bench.client.batch_execute(domain).await.unwrap();
    for transaction in bench.some_transactions().await {
        bench.publish(&transaction);
    }
    bench.check(&[]).await.passes();
}

#[tokio::test]
async fn the_second_look_finds_every_row_however_it_is_spelled() {
    let database = postgres(17).await;
    let client = database.connect().await;
    let table = "create table events (id text primary key, aggregatetype text, aggregateid text)";
    client.batch_execute(table).await.unwrap();
    let mut evidence = Evidence::new(Mode::ExactlyOnce);
    let wanted =
        Wanted { tables: vec!["events".to_owned()], topic_prefix: String::new(), payload: None };
    let tables = Tables::open(&database.url, None, wanted, &mut evidence).await.unwrap();
    tables.read(&mut evidence).await.unwrap();
    let id = Uuid::from_u128(0xABCD << 64);
    let spelled = id.to_string().to_uppercase();
    client.execute("insert into events values ($1, 'a', 'b')", &[&spelled]).await.unwrap();
    // A busy system has written many rows meanwhile; this one is looked up last.
    let mut strangers: Vec<u128> = (1..=100_000).collect();
    strangers.push(id.as_u128());
    tables.look_again(strangers, &mut evidence).await.unwrap();
    assert_eq!(evidence.rows.len(), 1);
    assert!(evidence.rows[0].late);
}

#[tokio::test]
async fn check_does_not_take_a_forbidden_topic_for_a_missing_one() {
    let mut bench = Bench::new(Shape::Ours).await;
    bench.some_transactions().await;
    let kafka = blocking(|| {
        let secured =
            Secured { users: vec![User::new("auditor", "auditor-secret")], authorizer: true };
        let options = KafkaOptions { secured: Some(secured), ..KafkaOptions::default() };
        Kafka::start(shared_run(), options).unwrap()
    })
    .await;
    let settings: Vec<String> = kafka
        .client_settings(Listener::Sasl(Mechanism::ScramSha256))
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let (bootstrap, settings): (Vec<&str>, Vec<&str>) =
        settings.iter().map(String::as_str).partition(|it| it.starts_with("bootstrap.servers="));
    let mut words = vec!["--kafka", bootstrap[0].split_once('=').unwrap().1];
    settings.iter().for_each(|setting| words.extend(["--kafka-set", setting]));
    let found = bench.check(&words).await;
    assert_eq!(found.exit, 4, "{}", found.text);
    assert!(found.text.contains("may not see it"), "{}", found.text);
}
