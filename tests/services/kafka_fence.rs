//! A second relay takes over while the first is inside a transaction: the first one's commit fails,
//! and nothing of it is ever visible. And the planted fault: with one id left out, it is.

use std::time::Duration;

use bytes::Bytes;
use postrider::kafka::{Extent, Failure, Publisher, Topic, Why};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};

use crate::harness::{blocking, kafka, unique_topic, wait_until};
use crate::kafka_relayed::{COMMITTED, KEY, Relay, UNCOMMITTED, chunk, values};

/// A leader that is inside a transaction of its second id, with one commit behind it.
async fn inside_its_second_transaction(relay: &Relay, topic: &Topic) -> Publisher {
    let (_, publisher) = relay.start().await;
    publisher.send(chunk(&publisher, topic, 0, 1)).await.unwrap();
    publisher.commit(Bytes::from_static(b"1")).await.unwrap();
    publisher.send(chunk(&publisher, topic, 1, 1)).await.unwrap();
    wait_until(Duration::from_secs(20), "the open record to be in kafka", async || {
        let open = values(&relay.bootstrap, topic.name(), UNCOMMITTED).await;
        (open.len() == 2).then_some(())
    })
    .await;
    publisher
}

#[tokio::test]
async fn a_zombie_fails_to_commit_and_nothing_of_it_is_visible() {
    let relay = Relay::on(kafka().await, &[]);
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let zombie = inside_its_second_transaction(&relay, &topic).await;
    let state = relay.progress_topic().await;
    // Reading without fencing answers at once, up to what is open, and harms nobody.
    let peeked = state.peek(Extent::Key(KEY)).await.unwrap();
    assert_eq!(peeked.get(&KEY).map(Bytes::as_ref), Some(b"1".as_slice()));

    // Another number of ids in use, and yet all are fenced.
    let (progress, leader) = relay.clone().with_ids(1).start().await;
    assert_eq!(progress.as_deref(), Some(b"1".as_slice()));
    leader.send(chunk(&leader, &topic, 100, 1)).await.unwrap();
    leader.commit(Bytes::from_static(b"101")).await.unwrap();

    let failure = zombie.commit(Bytes::from_static(b"2")).await.unwrap_err();
    assert!(matches!(failure, Failure::Restart { why: Why::Fenced, .. }), "{failure:?}");
    leader.commit(Bytes::from_static(b"102")).await.unwrap();
    assert_eq!(values(&relay.bootstrap, topic.name(), COMMITTED).await, ["0", "100"]);
    let committed = values(&relay.bootstrap, &relay.state().name, COMMITTED).await;
    assert_eq!(committed, ["1", "101", "102"]);
    assert_eq!(state.peek(Extent::Whole).await.unwrap()[&KEY], "102");
}

#[tokio::test]
async fn one_id_that_is_not_fenced_is_enough_for_a_zombie_to_commit() {
    let relay = Relay::on(kafka().await, &[]);
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    let zombie = inside_its_second_transaction(&relay, &topic).await;
    // The planted fault: a take-over that forgets id 1.
    for number in [0, 2, 3] {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &relay.bootstrap);
        config.set("transactional.id", format!("{}{number}", relay.id_prefix()));
        blocking(move || {
            let producer: BaseProducer = config.create().unwrap();
            producer.init_transactions(Duration::from_secs(30)).unwrap();
        })
        .await;
    }
    let read_too_early = relay.progress_topic().await.peek(Extent::Key(KEY)).await.unwrap();
    assert_eq!(read_too_early.get(&KEY).map(Bytes::as_ref), Some(b"1".as_slice()));
    // So the new leader would send record 1 again, and it would be there twice.
    zombie.commit(Bytes::from_static(b"2")).await.unwrap();
    assert_eq!(values(&relay.bootstrap, topic.name(), COMMITTED).await, ["0", "1"]);
}

#[tokio::test]
async fn of_many_that_start_at_once_the_last_to_fence_can_commit() {
    let relay = Relay::on(kafka().await, &[]).with_ids(4);
    let topic = relay.event_topic(&unique_topic("events", 1).await).await;
    relay.progress_topic().await;
    let (first, second, third) = tokio::join!(relay.fence(), relay.fence(), relay.fence());
    // Whoever was fenced while it fenced has given up; the others are judged by their commits.
    for fenced in [first, second, third].into_iter().flatten() {
        let state = relay.progress_topic().await;
        let Ok((_, publisher)) = fenced.read_progress(&state, KEY).await else { continue };
        if publisher.send(chunk(&publisher, &topic, 7, 1)).await.is_ok() {
            publisher.commit(Bytes::from_static(b"8")).await.ok();
        }
    }
    let (_, last) = relay.start().await;
    last.send(chunk(&last, &topic, 8, 1)).await.unwrap();
    last.commit(Bytes::from_static(b"9")).await.unwrap();
    let events = values(&relay.bootstrap, topic.name(), COMMITTED).await;
    let progress = values(&relay.bootstrap, &relay.state().name, COMMITTED).await;
    // Each event that is visible has the progress of its transaction.
    assert_eq!(events.len(), progress.len(), "{events:?} {progress:?}");
    assert_eq!(events.last().map(String::as_str), Some("8"));
}
