//! Encrypted and named connections, missing rights and wrong words: each is named.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider::drill::cluster::RunDir;
use postrider::drill::cluster::kafka::{
    Grant, Kafka, KafkaOptions, Listener, Mechanism, Operation, Resource, ResourceKind, Secured,
    User,
};
use postrider::kafka::{Failure, StateTopic, Topics};

use crate::harness::{blocking, unique, wait_until};
use crate::kafka_relayed::{KEY, Relay, chunk, client};

async fn secured() -> Arc<Kafka> {
    let users = vec![User::new("relay", "relay-secret")];
    let secured = Some(Secured { users, authorizer: true });
    blocking(move || {
        let run = RunDir::create().unwrap();
        let options = KafkaOptions { secured, ..KafkaOptions::default() };
        Arc::new(Kafka::start(&run, options).unwrap_or_else(|error| panic!("{error:#}")))
    })
    .await
}

fn relay_by(kafka: &Kafka, listener: Listener, more: &[(&str, &str)]) -> Relay {
    let name = unique("relay");
    Relay { client: client(&kafka.client_settings(listener), more), name, ..Relay::on(kafka, &[]) }
}

async fn allow(kafka: &Arc<Kafka>, kind: ResourceKind, name: &str, operation: Operation) {
    let (kafka, name) = (Arc::clone(kafka), name.to_owned());
    blocking(move || {
        let resource = Resource { kind, name: &name, prefixed: true };
        kafka.allow(&[Grant { principal: "User:relay", resource, operation }]).unwrap();
    })
    .await;
}

fn stop(failure: &Failure) -> String {
    assert!(matches!(failure, Failure::Stop { may_heal: true, .. }), "{failure:?}");
    failure.to_string()
}

#[tokio::test]
async fn each_missing_right_is_named_until_none_is_missing() {
    let kafka = secured().await;
    let scram = Listener::SaslTls(Mechanism::ScramSha256);
    let relay = relay_by(&kafka, scram, &[]);
    let made = Arc::clone(&kafka);
    let state = relay.state();
    blocking(move || {
        let compacted = [("cleanup.policy", "compact")];
        made.create_topic(&state.name, 1, 1, &compacted).unwrap();
        made.create_topic("orders.new", 1, 1, &[]).unwrap();
    })
    .await;

    let failure = StateTopic::open(&relay.client, relay.state()).await.unwrap_err();
    assert!(stop(&failure).contains("grant Write on it"), "{failure}");
    allow(&kafka, ResourceKind::Topic, "postrider.", Operation::Read).await;
    allow(&kafka, ResourceKind::Topic, "postrider.", Operation::Write).await;
    let state = relay.progress_topic().await;

    let failure = relay.fence().await.unwrap_err();
    assert!(stop(&failure).contains("Write on the transactional ids"), "{failure}");
    allow(&kafka, ResourceKind::TransactionalId, &relay.id_prefix(), Operation::Write).await;
    let fenced = relay.fence().await.unwrap();

    // An empty topic needs no reader; one with a record does.
    let (_, publisher) = fenced.read_progress(&state, KEY).await.unwrap();
    publisher.commit(Bytes::from_static(b"first")).await.unwrap();
    drop(publisher);
    let failure = relay.fence().await.unwrap().read_progress(&state, KEY).await.unwrap_err();
    assert!(stop(&failure).contains("Read on the consumer group"), "{failure}");
    allow(&kafka, ResourceKind::Group, "postrider.", Operation::Read).await;

    let topics = Topics::new(&relay.client, None).unwrap();
    let failure = topics.get("orders.new").await.unwrap_err();
    assert!(stop(&failure).contains("orders.new"), "{failure}");
    // Seen, but not to be written to.
    allow(&kafka, ResourceKind::Topic, "orders.", Operation::Read).await;
    let topic = topics.get("orders.new").await.unwrap();
    let (_, publisher) = relay.start().await;
    publisher.send(chunk(&publisher, &topic, 0, 1)).await.unwrap();
    let failure = publisher.commit(Bytes::from_static(b"p")).await.unwrap_err();
    assert!(stop(&failure).contains("grant Write") && failure.to_string().contains("orders.new"));
    allow(&kafka, ResourceKind::Topic, "orders.", Operation::Write).await;
    let (_, publisher) = relay.start().await;
    publisher.send(chunk(&publisher, &topic, 0, 1)).await.unwrap();
    publisher.commit(Bytes::from_static(b"p")).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_authority_are_named_and_not_shown() {
    let kafka = secured().await;
    let begun = std::time::Instant::now();
    let scram = Listener::SaslTls(Mechanism::ScramSha512);
    let relay = relay_by(&kafka, scram, &[("sasl.password", "hunter2")]);
    let failure = relay.fence().await.unwrap_err();
    assert!(stop(&failure).contains("check user, password"), "{failure}");
    assert!(!format!("{failure} {failure:?} {:?}", relay.client).contains("hunter2"));
    let stranger = kafka.certificates().unwrap().stranger().to_str().unwrap().to_owned();
    let relay = relay_by(&kafka, Listener::Tls, &[("ssl.ca.location", &stranger)]);
    let failure = StateTopic::open(&relay.client, relay.state()).await.unwrap_err();
    assert!(stop(&failure).contains("ssl.ca.location"), "{failure}");
    println!("a wrong password and a wrong authority were named after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(40));
}

#[tokio::test]
async fn a_client_certificate_is_enough_of_a_name() {
    let kafka = secured().await;
    let relay = relay_by(&kafka, Listener::MutualTls, &[]);
    // Nothing was granted to it: that it is refused shows that the name arrived.
    let failure = wait_until(Duration::from_secs(20), "a refusal", async || {
        StateTopic::open(&relay.client, relay.state()).await.err()
    })
    .await;
    assert!(stop(&failure).contains("grant"), "{failure}");
}
