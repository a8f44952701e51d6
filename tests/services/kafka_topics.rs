//! Topics that are missing, wrong, made or changed; and how a state topic is read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider::kafka::{CreateTopics, Extent, Failure, StateTopic, Topics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;

use crate::harness::{blocking, kafka, unique, unique_topic, wait_until};
use crate::kafka_relayed::{KEY, Relay, chunk};

#[tokio::test]
async fn an_unknown_topic_is_answered_at_once() {
    let relay = Relay::on(kafka().await, &[]);
    let topics = Topics::new(&relay.client, None).unwrap();
    topics.get(&unique_topic("events", 3).await).await.unwrap();
    let begun = Instant::now();
    let failure = topics.get("no.such.topic").await.unwrap_err();
    let took = begun.elapsed();
    println!("an unknown topic took {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(matches!(failure, Failure::Stop { may_heal: true, .. }), "{failure:?}");
    assert!(failure.to_string().contains("topic no.such.topic does not exist"), "{failure}");
    assert!(topics.known("no.such.topic").is_none());
}

#[tokio::test]
async fn a_topic_is_made_as_asked_when_that_is_allowed() {
    let relay = Relay::on(kafka().await, &[]);
    let config = [("max.message.bytes".to_owned(), "2000000".to_owned())].into();
    let create = CreateTopics { partitions: 5, replication: None, config };
    let topics = Topics::new(&relay.client, Some(create)).unwrap();
    let name = unique("made");
    let (one, other) = tokio::join!(topics.get(&name), topics.get(&name));
    assert_eq!((one.unwrap().partitions(), other.unwrap().partitions()), (5, 5));
    let topic = topics.known(&name).unwrap();
    let (_, publisher) = relay.start().await;
    publisher.send(chunk(&publisher, &topic, 0, 1)).await.unwrap();
    publisher.commit(Bytes::from_static(b"p")).await.unwrap();
    topics.recheck().await.unwrap();
}

#[tokio::test]
async fn a_changed_number_of_partitions_is_noticed() {
    let relay = Relay::on(kafka().await, &[]);
    let name = unique_topic("events", 2).await;
    let topics = Topics::new(&relay.client, None).unwrap();
    topics.get(&name).await.unwrap();
    topics.recheck().await.unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &relay.bootstrap);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    admin.create_partitions([&NewPartitions::new(&name, 3)], &AdminOptions::new()).await.unwrap();
    blocking(move || drop(admin)).await;
    let deadline = Duration::from_secs(20);
    let failure =
        wait_until(deadline, "the change to be noticed", async || topics.recheck().await.err())
            .await;
    assert!(matches!(failure, Failure::Stop { may_heal: false, .. }), "{failure:?}");
    assert!(failure.to_string().contains("3 partitions instead of 2"), "{failure}");
}

#[tokio::test]
async fn a_progress_topic_that_could_lose_it_is_refused() {
    let kafka = kafka().await;
    for (partitions, config, says) in [
        (2, [("cleanup.policy", "compact")], "2 partitions instead of 1"),
        (1, [("cleanup.policy", "delete")], "cleanup.policy=delete"),
        (1, [("cleanup.policy", "compact,delete")], "retention.ms=604800000"),
    ] {
        let relay = Relay::on(kafka, &[]);
        let name = relay.state().name;
        blocking(move || kafka.create_topic(&name, partitions, 1, &config).unwrap()).await;
        let failure = StateTopic::open(&relay.client, relay.state()).await.unwrap_err();
        assert!(matches!(failure, Failure::Stop { may_heal: false, .. }), "{failure:?}");
        assert!(failure.to_string().contains(says), "{failure}");
    }
    let relay = Relay::on(kafka, &[]);
    let about = postrider::kafka::StateTopicOptions { create: false, ..relay.state() };
    let failure = StateTopic::open(&relay.client, about).await.unwrap_err();
    assert!(failure.to_string().contains("kafka-topics.sh --create"), "{failure}");
}

#[tokio::test]
async fn a_state_topic_keeps_the_last_record_of_each_key() {
    let relay = Relay::on(kafka().await, &[]);
    let (_, publisher) = relay.start().await;
    let state = relay.progress_topic().await;
    // More than the part that is looked at first when one key is asked for.
    publisher.commit(Bytes::from_static(b"old")).await.unwrap();
    publisher.send(chunk(&publisher, state.topic(), 0, 25_000)).await.unwrap();
    publisher.send(chunk(&publisher, state.topic(), 25_000, 1)).await.unwrap();
    publisher.commit(Bytes::from_static(b"new")).await.unwrap();
    let begun = Instant::now();
    let all = state.peek(Extent::Whole).await.unwrap();
    println!("25 000 records of state were read in {:?}", begun.elapsed());
    assert_eq!(
        (all[&KEY].as_ref(), all[b"k".as_slice()].as_ref()),
        (b"new".as_slice(), b"25000".as_slice())
    );
    let one = state.peek(Extent::Key(KEY)).await.unwrap();
    assert_eq!((one.len(), one[&KEY].as_ref()), (1, b"new".as_slice()));
    assert!(state.peek(Extent::Key("no such key".into())).await.unwrap().is_empty());
}
