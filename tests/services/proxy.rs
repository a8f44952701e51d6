//! The proxy in front of a real broker: the one request that decides a transaction is held, lost,
//! or answered to nobody, and a reader sees what that means.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use postrider::drill::cluster::RunDir;
use postrider::drill::cluster::kafka::{Kafka, KafkaOptions, Listener};
use postrider::drill::proxy::{Event, Protocol, Proxy, RequestKind, Target};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use tokio::task::JoinHandle;

use crate::harness::blocking;

const TIMEOUT: Duration = Duration::from_secs(30);
const TOPIC: &str = "held";

fn client(settings: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in settings {
        config.set(key, value);
    }
    config
}

fn producer(settings: &[(String, String)]) -> BaseProducer {
    let producer: BaseProducer =
        client(settings).set("transactional.id", "proxied").create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer
}

/// Opens a transaction with one record, acknowledged by the broker and not committed.
async fn send(producer: BaseProducer, value: &'static str) -> BaseProducer {
    blocking(move || {
        producer.begin_transaction().unwrap();
        producer
            .send(BaseRecord::<str, str>::to(TOPIC).payload(value))
            .map_err(|(error, _)| error)
            .unwrap();
        producer.flush(TIMEOUT).unwrap();
        producer
    })
    .await
}

/// Commits on a thread of its own, so that the test can look on.
fn commit(producer: BaseProducer) -> JoinHandle<(BaseProducer, KafkaResult<()>)> {
    tokio::task::spawn_blocking(move || {
        let committed = producer.commit_transaction(TIMEOUT);
        (producer, committed)
    })
}

/// All that a `read_committed` reader sees, which does not come through the proxy.
async fn committed(settings: &[(String, String)]) -> Vec<String> {
    let config = client(settings);
    blocking(move || {
        let mut config = config;
        let consumer: BaseConsumer = config
            .set("group.id", "proxied")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let mut seen = Vec::new();
        loop {
            match consumer.poll(TIMEOUT).expect("the end of the partition is reported") {
                Ok(record) => {
                    seen.push(String::from_utf8(record.payload().unwrap().to_vec()).unwrap());
                }
                Err(KafkaError::PartitionEOF(_)) => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_kafka_request_is_held_discarded_or_answered_to_nobody() {
    let kafka = blocking(|| {
        let run = RunDir::create().unwrap();
        let options = KafkaOptions { proxied: true, ..KafkaOptions::default() };
        let kafka = Kafka::start(&run, options).unwrap();
        kafka.create_topic(TOPIC, 1, 1, &[]).unwrap();
        kafka
    })
    .await;
    let place = kafka.broker(1).proxied().unwrap();
    let proxy = Proxy::bind_on(place.listen, Protocol::Kafka).unwrap();
    proxy.forward_to(Target::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, place.forward_to))));
    let through = kafka.client_settings(Listener::Proxied);
    let beside = kafka.client_settings(Listener::Plaintext);

    let producer = blocking(move || producer(&through)).await;
    let producer = send(producer, "held").await;
    let held = proxy.hold(RequestKind::END_TXN);
    let committing = commit(producer);
    held.caught(TIMEOUT).await.unwrap();
    assert_eq!(committed(&beside).await, [""; 0], "the commit was held, and yet it is visible");
    held.release();
    let (producer, result) = committing.await.unwrap();
    result.unwrap();
    assert_eq!(committed(&beside).await, ["held"]);

    // It worked, and whoever asked for it is not told.
    let producer = send(producer, "unsaid").await;
    let unsaid = proxy.deliver_and_cut(RequestKind::END_TXN);
    let committing = commit(producer);
    unsaid.withheld(TIMEOUT).await.unwrap();
    let (producer, result) = committing.await.unwrap();
    result.unwrap();
    assert_eq!(committed(&beside).await, ["held", "unsaid"]);

    // It never arrived; the client asks again over a new connection.
    let producer = send(producer, "lost").await;
    let lost = proxy.discard(RequestKind::END_TXN);
    let committing = commit(producer);
    lost.decided(TIMEOUT).await.unwrap();
    let (_producer, result) = committing.await.unwrap();
    result.unwrap();
    assert_eq!(committed(&beside).await, ["held", "unsaid", "lost"]);
    let strange = proxy.events().iter().any(|event| matches!(event, Event::NotKafka { .. }));
    assert!(!strange, "the proxy lost track of the requests: {:?}", proxy.events());
}
