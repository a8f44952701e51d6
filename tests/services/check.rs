//! The checker against a real Postgres and a real Kafka: each fault is planted for real, and the
//! verdict, the JSON and the exit code must name it.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use bench::{Bench, Event, PARTITIONS, Shape, TIMEOUT, is, producer, publish_by, run};
use rdkafka::producer::Producer as _;

mod bench;
mod live;

#[tokio::test]
async fn check_passes_a_faithful_publisher() {
    let mut bench = Bench::new(Shape::Ours).await;
    for transaction in bench.some_transactions().await {
        bench.publish(&transaction);
    }
    let found = bench.check(&["--json"]).await;
    found.passes();
    assert_eq!(found.by_result("holds").len(), 9, "{}", found.text);
    assert_eq!(found.json["seen"]["rows"], 6);
    assert_eq!(found.json["seen"]["committed_records"], 6);
    assert_eq!(found.json["notes"], json!([]));
    assert!(found.text.lines().all(|line| line.chars().count() <= 80), "{}", found.text);
}

#[tokio::test]
async fn check_allows_an_aborted_copy() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish_and_abort(&transactions[0]);
    for transaction in &transactions {
        bench.publish(transaction);
    }
    // An aborted transaction at the very end: the last offset belongs to no visible record.
    bench.publish_and_abort(&transactions[2]);
    let found = bench.check(&[]).await;
    found.passes();
    assert_eq!(found.json["seen"]["aborted_copies"], 5, "the fault did not happen");
    assert_eq!(found.json["seen"]["uncommitted_records"], 11);
}

#[tokio::test]
async fn check_finds_loss_and_says_where() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish(&transactions[0]);
    bench.publish(&transactions[2]);
    let found = bench.check(&[]).await;
    is(found.violates(&["I1"]), "never published", &transactions[1][0]);
    assert_eq!(found.entry("I1")["bad"], 1);

    bench.publish_and_abort(&transactions[1]);
    let found = bench.check(&[]).await;
    is(found.violates(&["I1"]), "aborted", &transactions[1][0]);
    assert!(found.entry("I1")["witnesses"][0]["offset"].is_number());
}

#[tokio::test]
async fn check_finds_a_torn_transaction() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish_and_abort(&transactions[0][..1]);
    bench.publish(&transactions[0][1..]);
    bench.publish(&transactions[1]);
    bench.publish(&transactions[2]);
    let found = bench.check(&[]).await;
    found.violates(&["I1", "I5"]);
    let witness = &found.entry("I5")["witnesses"][0];
    is(witness, "torn", &transactions[0][0]);
    assert!(witness["txid"].is_number());
}

#[tokio::test]
async fn check_finds_a_repetition_unless_it_is_allowed() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    transactions.iter().for_each(|transaction| bench.publish(transaction));
    bench.publish(&transactions[1]);
    let found = bench.check(&[]).await;
    is(found.violates(&["I3"]), "repeated", &transactions[1][0]);

    let found = bench.check(&["--mode", "at-least-once"]).await;
    found.passes();
    assert_eq!(found.json["seen"]["duplicates"], 1);
    assert_eq!(found.by_result("not_checked"), ["I3"]);
}

#[tokio::test]
async fn check_finds_phantoms_at_both_levels() {
    let mut bench = Bench::new(Shape::Ours).await;
    for transaction in bench.some_transactions().await {
        bench.publish(&transaction);
    }
    let ghost = bench.write(&[("order", "c", 1)], false).await;
    bench.publish_and_abort(&ghost);
    let found = bench.check(&[]).await;
    let witness = found.violates(&["I2"]);
    is(witness, "rolled back", &ghost[0]);
    assert_eq!(witness["what"], "seen at read_uncommitted");

    bench.publish(&ghost);
    let nameless = Event { id: None, ..ghost[0].clone() };
    bench.publish(&[nameless]);
    let found = bench.check(&[]).await;
    let witness = found.violates(&["I2"]);
    is(witness, "rolled back", &ghost[0]);
    assert_eq!(witness["what"], "seen at read_committed");
    assert_eq!(found.entry("I2")["bad"], 3);
}

#[tokio::test]
async fn check_finds_disorder() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish(&transactions[0]);
    // Versions 3 and 2 of order a, at one position so that only the versions tell.
    let late = Event { lsn: transactions[2][0].lsn.clone(), ..transactions[1][0].clone() };
    bench.publish(&transactions[2]);
    bench.publish(std::slice::from_ref(&late));
    let found = bench.check(&[]).await;
    let witness = found.violates(&["I4"]);
    is(witness, "older version after newer", &late);
    assert_eq!((&witness["version"], &found.entry("I4")["bad"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn check_finds_a_wrong_partition_and_an_altered_payload() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish(&transactions[0]);
    let mut stray = transactions[1][0].clone();
    stray.partition = (stray.partition + 1) % PARTITIONS;
    bench.publish(std::slice::from_ref(&stray));
    let mut altered = transactions[2].clone();
    altered[1].payload.push(b' ');
    bench.publish(&altered);
    let found = bench.check(&[]).await;
    is(found.violates(&["I6", "content"]), "several partitions", &stray);
    is(&found.entry("content")["witnesses"][0], "altered payload", &altered[1]);
    let found = bench.check(&["--no-payload"]).await;
    found.violates(&["I6"]);
}

#[tokio::test]
async fn check_reports_an_open_transaction_and_does_not_hang() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish(&transactions[0]);
    let hanging = producer(&bench.bootstrap, &format!("{}-hanging", bench.name));
    publish_by(&hanging, &transactions[1]);
    publish_by(&bench.producer, &transactions[2]);
    bench.producer.commit_transaction(TIMEOUT).unwrap();
    let found = bench.check(&[]).await;
    // Behind the open one, the rest of its partition is hidden too.
    found.violates(&["I1", "I5", "readable"]);
    assert_eq!(found.entry("I1")["witnesses"][0]["fault"], "still open");
    let witness = &found.entry("readable")["witnesses"][0];
    assert_eq!(witness["fault"], "open transaction");
    assert_eq!(witness["offset"], 2, "after one record and its control record: {witness}");

    hanging.commit_transaction(TIMEOUT).unwrap();
    bench.check(&["--drain-timeout", "10s"]).await.passes();
}

#[tokio::test]
async fn check_waits_for_what_is_on_its_way() {
    let mut bench = Bench::new(Shape::Ours).await;
    let transactions = bench.some_transactions().await;
    bench.publish(&transactions[0]);
    publish_by(&bench.producer, &transactions.concat()[3..]);
    let waiting = bench.check(&["--drain-timeout", "20s"]);
    let commit = async {
        // Long enough for a first look in most runs; the outcome is the same in all.
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.producer.commit_transaction(TIMEOUT).unwrap();
    };
    let (found, ()) = tokio::join!(waiting, commit);
    found.passes();
}

#[tokio::test]
async fn check_says_what_a_debezium_table_cannot_tell() {
    let mut bench = Bench::new(Shape::Debezium).await;
    for transaction in bench.some_transactions().await {
        bench.publish(&transaction);
    }
    let found = bench.check(&[]).await;
    found.passes();
    assert_eq!(found.by_result("not_checked"), ["I5"], "{}", found.text);
    assert_eq!(found.entry("I5")["reason"], "no column txid in public.outbox");
    assert!(found.text.ends_with("PASS, not checked: I5\n"), "{}", found.text);
}

#[tokio::test]
async fn check_counts_rows_of_a_missing_topic_as_lost() {
    let mut bench = Bench::new(Shape::Ours).await;
    for transaction in bench.some_transactions().await {
        bench.publish(&transaction);
    }
    let lost = bench.write(&[("refund", "a", 1)], true).await;
    let found = bench.check(&[]).await;
    is(found.violates(&["I1"]), "never published", &lost[0]);
    let note = format!("topic {} does not exist", lost[0].topic);
    assert_eq!(found.json["notes"], json!([note]));
}

#[tokio::test]
async fn check_tells_vacuous_usage_and_broken_apart() {
    let mut bench = Bench::new(Shape::Ours).await;
    let found = bench.check(&[]).await;
    assert_eq!((found.exit, &found.json["outcome"]), (3, &json!("vacuous")), "{}", found.text);

    bench.client.batch_execute("create table other (like outbox)").await.unwrap();
    let found = bench.check(&["--table", "public.other"]).await;
    assert_eq!((found.exit, &found.json["outcome"]), (2, &json!("usage")), "{}", found.text);
    assert!(found.text.contains("the history speaks of table public.outbox"), "{}", found.text);

    writeln!(bench.history, "{{\"begin\":").unwrap();
    let found = bench.check(&[]).await;
    assert_eq!((found.exit, &found.json["outcome"]), (4, &json!("broken")), "{}", found.text);
    assert!(found.json["error"].as_str().unwrap().contains("history line"), "{}", found.text);
    assert_eq!(found.by_result("not_checked").len(), 9);

    // Port 1 refuses at once.
    let refused =
        ["check", "--postgres", "postgres://nobody@127.0.0.1:1/x", "--kafka", "127.0.0.1:1"];
    let found = run(&refused).await;
    assert_eq!(found.exit, 4, "{}", found.text);
    assert!(found.text.contains("connect to Postgres at"), "{}", found.text);
}
