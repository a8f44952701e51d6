//! The harness itself: brokers boot, break, come back, let in whom they should and keep records.
//!
//! JVMs are dear, so a test here is a story: each breaks one cluster of its own in several ways.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::drill::cluster::RunDir;
use postrider::drill::cluster::kafka::{
    Boot, Broker, Brokers, Grant, Kafka, KafkaOptions, Listener, Mechanism, Operation, Resource,
    ResourceKind, Secured, User,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::harness::{blocking, kafka, unique, unique_topic, wait_until};

/// The promise is 5 s for one broker, on a machine that has nothing else to do: measured are 1.0 s,
/// and 2.5 s for three. This is what a build and other servers beside it may make of that.
const BOOT_SLACK: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(30);

type Settings = Vec<(String, String)>;

async fn start(options: KafkaOptions) -> Arc<Kafka> {
    let kafka = blocking(move || {
        let run = RunDir::create().unwrap();
        Arc::new(Kafka::start(&run, options).unwrap_or_else(|error| panic!("{error:#}")))
    })
    .await;
    report_boot(&kafka);
    kafka
}

fn report_boot(kafka: &Kafka) {
    let Boot { format, start } = kafka.boot();
    let brokers = kafka.brokers().len();
    println!(
        "{brokers} broker(s) of kafka {}: format {format:?}, start {start:?}",
        kafka.version()
    );
    assert!(format + start < BOOT_SLACK, "{brokers} broker(s) took {:?}", format + start);
}

async fn with<T: Send + 'static>(
    kafka: &Arc<Kafka>,
    work: impl FnOnce(&Kafka) -> anyhow::Result<T> + Send + 'static,
) -> T {
    let kafka = Arc::clone(kafka);
    blocking(move || work(&kafka).unwrap_or_else(|error| panic!("{error:#}"))).await
}

/// A plain producer that waits for all copies; `timeout` ends a record that does not get through.
fn producer(settings: Settings, timeout: Duration, more: &[(&str, &str)]) -> FutureProducer {
    let mut config = quick(settings);
    config.set("acks", "all").set("message.timeout.ms", timeout.as_millis().to_string());
    config.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    config.create().unwrap()
}

/// A client that looks for a lost broker more often than librdkafka's defaults do.
fn quick(settings: Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.extend(settings);
    config
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "50");
    config
}

async fn produce(producer: &FutureProducer, topic: &str, value: &str) -> KafkaResult<i64> {
    let record = FutureRecord::to(topic).partition(0).key("key").payload(value);
    let sent = producer.send(record, DEADLINE).await;
    sent.map(|delivery| delivery.offset).map_err(|(error, _)| error)
}

/// All values of partition 0, as a reader of this isolation level sees them.
async fn values(settings: Settings, topic: &str, isolation: &str) -> Vec<String> {
    let mut config = quick(settings);
    config.set("group.id", "unused").set("enable.partition.eof", "true");
    config.set("enable.auto.commit", "false").set("isolation.level", isolation);
    let topic = topic.to_owned();
    blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let (mut values, started) = (vec![], Instant::now());
        loop {
            assert!(started.elapsed() < DEADLINE, "no end of {topic}, only {values:?}");
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return values,
                Some(Err(_)) | None => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_transaction_on_the_shared_broker_is_seen_when_it_is_committed() {
    let kafka = kafka().await;
    report_boot(kafka);
    let topic = unique_topic("isolation", 1).await;
    let settings = kafka.client_settings(Listener::Plaintext);
    let mut config = quick(settings.clone());
    config.set("transactional.id", unique("isolation"));
    let to = topic.clone();
    blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        let send = |value: &str| {
            let record = BaseRecord::to(&to).partition(0).key("key").payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.flush(DEADLINE).unwrap();
        };
        producer.begin_transaction().unwrap();
        send("kept");
        producer.commit_transaction(DEADLINE).unwrap();
        producer.begin_transaction().unwrap();
        send("undone");
        producer.abort_transaction(DEADLINE).unwrap();
    })
    .await;
    assert_eq!(values(settings.clone(), &topic, "read_committed").await, ["kept"]);
    assert_eq!(values(settings, &topic, "read_uncommitted").await, ["kept", "undone"]);
    blocking(move || kafka.delete_topic(&topic).unwrap()).await;
}

#[tokio::test]
async fn one_broker_is_killed_frozen_and_restarted() {
    let kafka = start(KafkaOptions { proxied: true, ..KafkaOptions::default() }).await;
    with(&kafka, |k| k.create_topic("t", 1, 1, &[])).await;
    let settings = || kafka.client_settings(Listener::Plaintext);
    let patient = producer(settings(), DEADLINE, &[]);
    let hasty = producer(settings(), Duration::from_secs(1), &[]);
    let mut expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for value in &expected {
        produce(&patient, "t", value).await.unwrap();
    }

    // Killed: what was acknowledged is there afterwards.
    let before = kafka.broker(1).pid();
    with(&kafka, |k| k.broker(1).kill()).await;
    assert!(!kafka.broker(1).running());
    assert_timed_out(produce(&hasty, "t", "into the void").await);
    with(&kafka, |k| k.broker(1).start_again(&[("message.max.bytes", "2000")])).await;
    assert_ne!(kafka.broker(1).pid(), before);
    assert_eq!(values(settings(), "t", "read_committed").await, expected);

    // The other setting is in effect.
    let long = "x".repeat(5000);
    let refused = produce(&patient, "t", &long).await.unwrap_err();
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));

    // Frozen: nothing is acknowledged; thawed: it goes on.
    with(&kafka, |k| k.broker(1).freeze()).await;
    assert!(kafka.broker(1).running());
    assert!(kafka.broker(1).start_again(&[]).is_err(), "it runs already");
    assert_timed_out(produce(&hasty, "t", "perhaps").await);
    let mut waiting = Box::pin(produce(&patient, "t", "late"));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "a frozen broker acknowledged");
    with(&kafka, |k| k.broker(1).thaw()).await;
    waiting.await.unwrap();

    // Stopped in order, and started with the first settings.
    with(&kafka, |k| k.broker(1).stop()).await;
    let clean = kafka.broker(1).folder().join("data/.kafka_cleanshutdown");
    assert!(clean.exists(), "it did not write everything down");
    with(&kafka, |k| k.broker(1).start_again(&[])).await;
    produce(&patient, "t", &long).await.unwrap();
    expected.extend(["late".to_owned(), long]);
    let mut found = values(settings(), "t", "read_committed").await;
    // The broker may have read it before it froze, or after.
    found.retain(|value| value != "perhaps");
    assert_eq!(found, expected);

    // Whoever comes by the proxied endpoint is told the proxy's port.
    let proxied = kafka.broker(1).proxied().unwrap();
    let mut config = quick(kafka.client_settings(Listener::Proxied));
    assert!(config.get("bootstrap.servers").unwrap().ends_with(&proxied.listen.to_string()));
    config.set("bootstrap.servers", format!("127.0.0.1:{}", proxied.forward_to));
    let port = blocking(move || {
        let client: BaseConsumer = config.create().unwrap();
        client.fetch_metadata(None, DEADLINE).unwrap().brokers()[0].port()
    });
    assert_eq!(port.await, i32::from(proxied.listen));
}

fn assert_timed_out(sent: KafkaResult<i64>) {
    let code = sent.expect_err("the fault did not happen").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::MessageTimedOut));
}

#[tokio::test]
async fn three_brokers_outlive_one_and_refuse_without_two() {
    let kafka = start(KafkaOptions { brokers: Brokers::Three, ..KafkaOptions::default() }).await;
    with(&kafka, |k| k.create_topic("t", 1, 3, &[])).await;
    with(&kafka, |k| k.wait_in_sync("t")).await;
    let settings = || kafka.client_settings(Listener::Plaintext);
    let patient = producer(settings(), DEADLINE, &[]);
    produce(&patient, "t", "three alive").await.unwrap();

    let first = with(&kafka, |k| Ok(k.leader("t", 0))).await.unwrap();
    let killed = Instant::now();
    with(&kafka, move |k| k.broker(first).kill()).await;
    produce(&patient, "t", "two alive").await.unwrap();
    println!("a record was acknowledged {:?} after its leader was killed", killed.elapsed());
    let second = kafka.leader("t", 0).unwrap();
    assert!(second != first && !kafka.broker(first).running());

    // The other follower goes in order, so that a controller still takes note of it.
    let third = (1..=3).find(|id| ![first, second].contains(id)).unwrap();
    with(&kafka, move |k| k.broker(third).stop()).await;
    wait_until(DEADLINE, "one copy in sync", async || {
        (kafka.in_sync("t", 0) == [second]).then_some(())
    })
    .await;
    let once = [("enable.idempotence", "false"), ("retries", "0")];
    let refused = produce(&producer(settings(), DEADLINE, &once), "t", "one alive").await;
    let code = refused.expect_err("two copies are missing").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::NotEnoughReplicas));

    with(&kafka, move |k| {
        std::thread::scope(|scope| {
            let again = |id| scope.spawn(move || k.broker(id).start_again(&[]));
            let started = [again(first), again(third)].map(|one| one.join().unwrap());
            started.into_iter().collect::<anyhow::Result<()>>()
        })
    })
    .await;
    with(&kafka, |k| k.wait_in_sync("t")).await;
    produce(&patient, "t", "three again").await.unwrap();
    let found = values(settings(), "t", "read_committed").await;
    assert_eq!(found, ["three alive", "two alive", "three again"]);
    assert!(kafka.brokers().iter().all(Broker::running));
}

/// Comes in, or says as what it was refused. A broker that just closes complains to nobody but by
/// that, several times over.
async fn come_in(settings: Settings) -> Result<(), Vec<RDKafkaErrorCode>> {
    const CLOSED_TOO_OFTEN: usize = 4;
    const REFUSALS: [RDKafkaErrorCode; 2] =
        [RDKafkaErrorCode::Authentication, RDKafkaErrorCode::SSL];
    let mut config = quick(settings);
    config.set("group.id", "unused");
    blocking(move || {
        let client: BaseConsumer = config.create().unwrap();
        let started = Instant::now();
        let mut complaints = vec![];
        loop {
            if client.fetch_metadata(None, Duration::from_millis(500)).is_ok() {
                return Ok(());
            }
            // Complaints are delivered while one polls.
            if let Some(Err(error)) = client.poll(Duration::from_millis(50)) {
                complaints.extend(error.rdkafka_error_code());
            }
            let refused = complaints.iter().any(|code| REFUSALS.contains(code));
            if refused || complaints.len() >= CLOSED_TOO_OFTEN {
                return Err(complaints);
            }
            assert!(started.elapsed() < DEADLINE, "neither in nor refused: {complaints:?}");
        }
    })
    .await
}

fn replace(mut settings: Settings, key: &str, value: &str) -> Settings {
    let place = settings.iter_mut().find(|(name, _)| name == key).unwrap();
    value.clone_into(&mut place.1);
    settings
}

#[tokio::test]
async fn every_listener_lets_in_whom_it_should_and_the_authorizer_denies() {
    let users = vec![User::new("relay", "relay-secret"), User::new("shop", "shop-secret")];
    let secured = Some(Secured { users, authorizer: true });
    let kafka = start(KafkaOptions { secured, ..KafkaOptions::default() }).await;
    let stranger = kafka.certificates().unwrap().stranger().to_str().unwrap().to_owned();

    for listener in [Listener::Plaintext, Listener::Tls, Listener::MutualTls] {
        come_in(kafka.client_settings(listener)).await.unwrap();
    }
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        for listener in [Listener::Sasl(mechanism), Listener::SaslTls(mechanism)] {
            come_in(kafka.client_settings(listener)).await.unwrap();
        }
        let wrong = replace(
            kafka.client_settings(Listener::Sasl(mechanism)),
            "sasl.password",
            "shop-secret",
        );
        let refused = come_in(wrong).await.unwrap_err();
        assert!(refused.contains(&RDKafkaErrorCode::Authentication), "{mechanism:?}: {refused:?}");
    }
    let distrustful = replace(kafka.client_settings(Listener::Tls), "ssl.ca.location", &stranger);
    let refused = come_in(distrustful).await.unwrap_err();
    assert!(refused.contains(&RDKafkaErrorCode::SSL), "{refused:?}");
    let mut nameless = kafka.client_settings(Listener::MutualTls);
    nameless.retain(|(key, _)| key != "ssl.certificate.location" && key != "ssl.key.location");
    // In TLS 1.3 the client is done before the broker looks for its certificate and hangs up.
    let refused = come_in(nameless).await.unwrap_err();
    assert!(refused.contains(&RDKafkaErrorCode::BrokerTransportFailure), "{refused:?}");

    // A user with a name may do what was granted, to whom it was granted.
    with(&kafka, |k| k.create_topic("orders.new", 1, 1, &[])).await;
    let relay = kafka.client_settings(Listener::SaslTls(Mechanism::ScramSha256));
    let denied = produce(&producer(relay.clone(), DEADLINE, &[]), "orders.new", "no").await;
    let code = denied.expect_err("nothing was granted").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::TopicAuthorizationFailed));
    with(&kafka, |k| {
        let resource = Resource { kind: ResourceKind::Topic, name: "orders.", prefixed: true };
        let grant = |principal, operation| Grant { principal, resource, operation };
        k.allow(&[grant("User:relay", Operation::Write), grant("User:CN=relay", Operation::Read)])
    })
    .await;
    produce(&producer(relay.clone(), DEADLINE, &[]), "orders.new", "yes").await.unwrap();
    let shop = replace(replace(relay, "sasl.username", "shop"), "sasl.password", "shop-secret");
    let denied = produce(&producer(shop, DEADLINE, &[]), "orders.new", "no").await;
    let code = denied.expect_err("granted to another").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::TopicAuthorizationFailed));
}
