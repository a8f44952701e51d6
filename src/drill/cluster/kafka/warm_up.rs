//! The first start of a fetched Kafka, which teaches the later ones; see [`super::Warmth`].
//!
//! Promises that the archive holds the classes of what tests do first: secured endpoints, a topic,
//! a transaction, a consumer group. It is also the proof that what was fetched works.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::installation::{ARCHIVE, BOOTSTRAP, Installation};
use super::{Kafka, KafkaOptions, Listener, Secured};
use crate::drill::cluster::{RunDir, wait_until};

/// Nothing is loaded yet and both cores may be busy.
const DEADLINE: Duration = Duration::from_secs(30);
const TOPIC: &str = "warm-up";

/// Starts a broker that writes down its classes when it ends, and has it do everything once.
pub(super) fn start(run: &Arc<RunDir>, installation: Installation) -> Result<Kafka> {
    let secured = Secured { users: vec![], authorizer: true };
    let options = KafkaOptions { secured: Some(secured), ..KafkaOptions::default() };
    // Relative to the broker's folder.
    let flags = [format!("-XX:ArchiveClassesAtExit={ARCHIVE}")];
    let kafka = Kafka::start_with(run, &options, &installation, &flags)?;
    exercise(&kafka).context("kafka started but does not work")?;
    Ok(kafka)
}

/// Stops it; the folder then holds what is to be kept.
pub(super) fn finish(kafka: Kafka) -> Result<PathBuf> {
    let broker = kafka.broker(1);
    broker.stop()?;
    let folder = broker.folder().to_path_buf();
    fs::copy(folder.join("data").join(BOOTSTRAP), folder.join(BOOTSTRAP))?;
    Ok(folder)
}

fn exercise(kafka: &Kafka) -> Result<()> {
    kafka.create_topic(TOPIC, 1, 1, &[])?;
    let mut config = ClientConfig::new();
    config.extend(kafka.client_settings(Listener::Tls));
    let mut producing = config.clone();
    producing.set("transactional.id", TOPIC).set("compression.type", "lz4");
    let producer: BaseProducer = producing.create()?;
    producer.init_transactions(DEADLINE)?;
    producer.begin_transaction()?;
    producer.send(BaseRecord::to(TOPIC).key("key").payload("value")).map_err(|(error, _)| error)?;
    producer.commit_transaction(DEADLINE)?;

    config.set("group.id", TOPIC).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[TOPIC])?;
    wait_until(DEADLINE, "the record that was written", || {
        match consumer.poll(Duration::from_millis(100)).transpose()? {
            Some(message) => Ok((message.payload() == Some(b"value")).then_some(())),
            None => Ok(None),
        }
    })?;
    consumer.commit_consumer_state(rdkafka::consumer::CommitMode::Sync)?;
    Ok(())
}
