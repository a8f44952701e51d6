//! What a commit makes visible and when, on a real broker; and what a commit costs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider::drill::cluster::RunDir;
use postrider::drill::cluster::kafka::{Kafka, KafkaOptions};
use postrider::kafka::{Chunk, Delivery, Failure, Record, RecordLimit, Tag, Why};

use crate::harness::{blocking, kafka, unique_topic, wait_until};
use crate::kafka_relayed::{COMMITTED, Relay, UNCOMMITTED, chunk, numbers, seen, values};

#[tokio::test]
async fn a_commit_shows_all_records_in_order_with_the_progress_last() {
    let kafka = kafka().await;
    let relay = Relay::on(kafka, &[]);
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let (progress, publisher) = relay.start().await;
    assert_eq!(progress, None);
    for round in 0..3 {
        publisher.send(chunk(&publisher, &topic, round * 100, 60)).await.unwrap();
        publisher.send(chunk(&publisher, &topic, round * 100 + 60, 40)).await.unwrap();
        let committed = publisher.commit(Bytes::from(format!("{round}"))).await.unwrap();
        assert_eq!((committed.records, committed.renew), (100, None));
    }
    for level in [COMMITTED, UNCOMMITTED] {
        assert_eq!(values(&relay.bootstrap, topic.name(), level).await, numbers(0..300), "{level}");
        let progress = values(&relay.bootstrap, &relay.state().name, level).await;
        assert_eq!(progress, numbers(0..3), "{level}");
    }
    let records = seen(&relay.bootstrap, topic.name(), 0, COMMITTED).await;
    assert_eq!(records[7].headers, [("id".to_owned(), "7".to_owned())]);
    // One marker stands between the records of two transactions.
    assert_eq!((records[99].offset, records[100].offset), (99, 101));

    // With the progress in the same partition as the records, its offset shows that it is last.
    let own = relay.progress_topic().await;
    publisher.send(chunk(&publisher, own.topic(), 1000, 5)).await.unwrap();
    publisher.commit(Bytes::from_static(b"last")).await.unwrap();
    let progress = values(&relay.bootstrap, own.topic().name(), COMMITTED).await;
    assert_eq!(progress[3..], ["1000", "1001", "1002", "1003", "1004", "last"]);
}

#[tokio::test]
async fn what_is_not_committed_is_invisible_and_progress_alone_can_be() {
    let kafka = kafka().await;
    let relay = Relay::on(kafka, &[]);
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let (_, publisher) = relay.start().await;
    publisher.commit(Bytes::from_static(b"alone")).await.unwrap();
    publisher.send(chunk(&publisher, &topic, 0, 10)).await.unwrap();
    wait_until(Duration::from_secs(20), "the records to be in kafka", async || {
        let open = values(&relay.bootstrap, topic.name(), UNCOMMITTED).await;
        (open.len() == 10).then_some(())
    })
    .await;
    let none: [String; 0] = [];
    assert_eq!(values(&relay.bootstrap, topic.name(), COMMITTED).await, none);
    // Reads up to the open transaction, and does not wait for it.
    drop(publisher);
    let (progress, publisher) = relay.start().await;
    assert_eq!(progress.as_deref(), Some(b"alone".as_slice()));
    publisher.send(chunk(&publisher, &topic, 50, 1)).await.unwrap();
    publisher.commit(Bytes::from_static(b"next")).await.unwrap();
    assert_eq!(values(&relay.bootstrap, topic.name(), COMMITTED).await, ["50"]);
    assert_eq!(values(&relay.bootstrap, topic.name(), UNCOMMITTED).await.len(), 11);
}

async fn commit_times(ids: usize, count: usize) -> Vec<Duration> {
    let relay = Relay::on(kafka().await, &[]).with_ids(ids);
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let (_, publisher) = relay.start().await;
    let mut times = Vec::with_capacity(count);
    for round in 0..count {
        let begun = Instant::now();
        publisher.send(chunk(&publisher, &topic, round, 1)).await.unwrap();
        publisher.commit(Bytes::from_static(b"p")).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

#[tokio::test]
async fn a_commit_has_no_quantum_and_ids_that_take_turns_no_tail() {
    const COUNT: usize = 200;
    for ids in [1, 2] {
        let times = commit_times(ids, COUNT).await;
        let (median, late) = (times[COUNT / 2], times[COUNT * 9 / 10]);
        println!("{ids} id(s): one record sent and committed, median {median:?}, p90 {late:?}");
        // The step of the client's own flush would make each of them 100 ms; a busy machine some.
        let limit = Duration::from_millis(if ids == 1 { 60 } else { 20 });
        assert!(median < limit, "{ids} ids: median {median:?}");
    }
}

#[tokio::test]
async fn a_record_that_is_too_large_is_named() {
    let relay = Relay::on(kafka().await, &[("message.max.bytes", "3000000")]);
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let (_, publisher) = relay.start().await;
    let large = |bytes: usize| Record {
        tag: Tag(77),
        topic: topic.clone(),
        partition: None,
        key: None,
        value: Some(Bytes::from(vec![b'x'; bytes])),
        timestamp_ms: None,
    };
    // The client's own limit is noticed before anything is sent.
    let mut next = Chunk::with_capacity(1, publisher.record_limit());
    assert_eq!(publisher.record_limit(), RecordLimit(3_000_000));
    assert_eq!(next.push(large(3_000_000), []).unwrap_err().limit, 3_000_000);
    publisher.send(chunk(&publisher, &topic, 0, 10)).await.unwrap();
    // The broker's, of 1 048 588, by the broker.
    next.push(Record { value: Some(random(2_000_000)), ..large(1) }, []).unwrap();
    publisher.send(next).await.unwrap();
    let failure = publisher.commit(Bytes::from_static(b"p")).await.unwrap_err();
    let Failure::Quarantine { records, fact } = &failure else { panic!("{failure:?}") };
    assert_eq!(records, &[Tag(77)], "{fact}");
    // Spent: the same answer for ever, and nothing of it visible.
    assert_eq!(publisher.commit(Bytes::from_static(b"p")).await.unwrap_err(), failure);
    assert_eq!(publisher.send(chunk(&publisher, &topic, 0, 1)).await.unwrap_err(), failure);
    let none: [String; 0] = [];
    assert_eq!(values(&relay.bootstrap, topic.name(), COMMITTED).await, none);
    let (progress, publisher) = relay.start().await;
    assert_eq!(progress, None);
    publisher.send(chunk(&publisher, &topic, 0, 10)).await.unwrap();
    publisher.commit(Bytes::from_static(b"p")).await.unwrap();
}

/// Bytes that do not get smaller by compression.
fn random(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn a_small_queue_slows_the_sender_and_loses_nothing() {
    let relay = Relay::on(
        kafka().await,
        &[("queue.buffering.max.messages", "1000"), ("queue.buffering.max.kbytes", "1100")],
    );
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let (_, publisher) = relay.start().await;
    for part in 0..20 {
        publisher.send(chunk(&publisher, &topic, part * 1000, 1000)).await.unwrap();
    }
    publisher.commit(Bytes::from_static(b"p")).await.unwrap();
    assert_eq!(values(&relay.bootstrap, topic.name(), COMMITTED).await, numbers(0..20_000));
}

#[tokio::test]
async fn at_least_once_writes_the_progress_after_the_records_without_transactions() {
    let relay = Relay::on(kafka().await, &[]);
    let relay = Relay { delivery: Delivery::AtLeastOnce, ..relay };
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let (_, publisher) = relay.start().await;
    publisher.send(chunk(&publisher, &topic, 0, 10)).await.unwrap();
    publisher.commit(Bytes::from_static(b"0")).await.unwrap();
    publisher.send(chunk(&publisher, &topic, 10, 1)).await.unwrap();
    publisher.commit(Bytes::from_static(b"1")).await.unwrap();
    let records = seen(&relay.bootstrap, topic.name(), 0, COMMITTED).await;
    // No markers: no offset is missing.
    assert_eq!((records.len(), records[10].offset), (11, 10));
    drop(publisher);
    assert_eq!(relay.start().await.0.as_deref(), Some(b"1".as_slice()));
}

#[tokio::test]
async fn a_broker_killed_inside_a_transaction_loses_and_repeats_nothing() {
    let kafka = blocking(|| {
        let run = RunDir::create().unwrap();
        std::sync::Arc::new(Kafka::start(&run, KafkaOptions::default()).unwrap())
    })
    .await;
    let relay = Relay::on(&kafka, &[("transaction.timeout.ms", "30000")]);
    let with = std::sync::Arc::clone(&kafka);
    blocking(move || with.create_topic("events", 1, 1, &[]).unwrap()).await;
    let topic = relay.event_topic("events").await;
    let (_, publisher) = relay.start().await;
    publisher.send(chunk(&publisher, &topic, 0, 10)).await.unwrap();
    publisher.commit(Bytes::from_static(b"10")).await.unwrap();
    publisher.send(chunk(&publisher, &topic, 10, 10)).await.unwrap();
    wait_until(Duration::from_secs(20), "the open records to be in kafka", async || {
        let open = values(&relay.bootstrap, topic.name(), UNCOMMITTED).await;
        (open.len() == 20).then_some(())
    })
    .await;
    let with = std::sync::Arc::clone(&kafka);
    blocking(move || {
        with.brokers()[0].kill().unwrap();
        with.brokers()[0].start_again(&[]).unwrap();
    })
    .await;
    let begun = Instant::now();
    let outcome = publisher.commit(Bytes::from_static(b"20")).await;
    println!("a commit over a killed broker took {:?}: {outcome:?}", begun.elapsed());
    // Whatever it was, the doubt is seen, and the publisher takes nothing more.
    match &outcome {
        Ok(committed) => assert!(committed.renew.is_some(), "{committed:?}"),
        Err(failure) => assert!(matches!(failure, Failure::Restart { .. }), "{failure:?}"),
    }
    let refused = publisher.send(chunk(&publisher, &topic, 20, 1)).await.unwrap_err();
    assert!(matches!(
        refused,
        Failure::Restart { why: Why::Doubt | Why::Fenced | Why::Unreachable, .. }
    ));
    drop(publisher);
    // Only the progress tells what to send again.
    let (progress, publisher) = relay.start().await;
    let next: usize = String::from_utf8(progress.unwrap().to_vec()).unwrap().parse().unwrap();
    assert!(outcome.is_err() || next == 20, "{next}");
    publisher.send(chunk(&publisher, &topic, next, 30 - next)).await.unwrap();
    publisher.commit(Bytes::from_static(b"30")).await.unwrap();
    assert_eq!(values(&relay.bootstrap, topic.name(), COMMITTED).await, numbers(0..30));
}
