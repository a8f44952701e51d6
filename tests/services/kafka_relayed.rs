//! What the tests of the publisher share: a relay's options and topics on a real broker, its
//! records, and readers that use the client crate only, so that nothing of ours judges itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider::drill::cluster::kafka::{Kafka, Listener};
use postrider::kafka::{
    Chunk, ClientOptions, Delivery, Failure, Fenced, Header, HeaderName, Publisher,
    PublisherOptions, Record, StateTopic, StateTopicOptions, Tag, Topic, Topics, fence,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::harness::{blocking, unique};

pub(crate) const KEY: Bytes = Bytes::from_static(b"relay");

/// A relay's name with everything that follows from it.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) bootstrap: String,
    pub(crate) name: String,
    pub(crate) client: ClientOptions,
    pub(crate) delivery: Delivery,
}

/// Client options from librdkafka's keys.
pub(crate) fn client(settings: &[(String, String)], more: &[(&str, &str)]) -> ClientOptions {
    let mut all: BTreeMap<String, String> = settings.iter().cloned().collect();
    all.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    ClientOptions::new(all, None).unwrap()
}

impl Relay {
    pub(crate) fn on(kafka: &Kafka, more: &[(&str, &str)]) -> Self {
        Self {
            bootstrap: kafka.bootstrap(),
            name: unique("relay"),
            client: client(&kafka.client_settings(Listener::Plaintext), more),
            delivery: Delivery::ExactlyOnce { ids: 2 },
        }
    }

    pub(crate) fn with_ids(self, ids: usize) -> Self {
        Self { delivery: Delivery::ExactlyOnce { ids }, ..self }
    }

    pub(crate) fn id_prefix(&self) -> String {
        format!("postrider.{}-", self.name)
    }

    pub(crate) fn state(&self) -> StateTopicOptions {
        StateTopicOptions {
            name: format!("postrider.progress.{}", self.name),
            group: format!("postrider.{}", self.name),
            create: true,
            replication: None,
        }
    }

    pub(crate) async fn progress_topic(&self) -> StateTopic {
        StateTopic::open(&self.client, self.state()).await.unwrap()
    }

    pub(crate) async fn fence(&self) -> Result<Fenced, Failure> {
        let options = PublisherOptions::new(self.client.clone(), self.id_prefix());
        fence(PublisherOptions { delivery: self.delivery, ..options }).await
    }

    /// The whole start: fence, read, publish.
    pub(crate) async fn start(&self) -> (Option<Bytes>, Publisher) {
        let topic = self.progress_topic().await;
        self.fence().await.unwrap().read_progress(&topic, KEY).await.unwrap()
    }

    pub(crate) async fn event_topic(&self, name: &str) -> Topic {
        Topics::new(&self.client, None).unwrap().get(name).await.unwrap()
    }
}

/// Records `first..first + count`, one key, with their number as value and header.
pub(crate) fn chunk(publisher: &Publisher, topic: &Topic, first: usize, count: usize) -> Chunk {
    let id = HeaderName::new("id");
    let mut chunk = Chunk::with_capacity(count, publisher.record_limit());
    for number in first..first + count {
        let value = Bytes::from(number.to_string());
        let record = Record {
            tag: Tag(number),
            topic: topic.clone(),
            partition: None,
            key: Some(Bytes::from_static(b"k")),
            value: Some(value.clone()),
            timestamp_ms: None,
        };
        chunk.push(record, [Header { name: id.clone(), value: Some(value) }]).unwrap();
    }
    chunk
}

/// A record as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) value: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// All records of a partition at an isolation level, to its end at that level.
pub(crate) async fn seen(bootstrap: &str, topic: &str, partition: i32, level: &str) -> Vec<Seen> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "looks-only");
    config.set("isolation.level", level).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
    let topic = topic.to_owned();
    blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut all = Vec::new();
        while Instant::now() < deadline {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    let headers = message.headers().into_iter().flat_map(|it| it.iter());
                    all.push(Seen {
                        offset: message.offset(),
                        value: text(message.payload().unwrap_or_default()),
                        headers: headers
                            .map(|it| (it.key.to_owned(), text(it.value.unwrap_or_default())))
                            .collect(),
                    });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return all,
                Some(Err(_)) | None => {}
            }
        }
        panic!("{topic} was not read to its end");
    })
    .await
}

/// The values only.
pub(crate) async fn values(bootstrap: &str, topic: &str, level: &str) -> Vec<String> {
    seen(bootstrap, topic, 0, level).await.into_iter().map(|record| record.value).collect()
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(crate) const COMMITTED: &str = "read_committed";
pub(crate) const UNCOMMITTED: &str = "read_uncommitted";
