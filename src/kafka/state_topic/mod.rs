//! A topic that holds what must be known at a start: the progress, the entries set aside.
//!
//! It has one partition, so that its records have one order and one end; it is compacted, so that
//! the last record of a key stays for ever. [`StateTopic::open`] makes it or refuses one that is
//! otherwise. Keys and values are bytes here.
//!
//! There are two ways to read it, and they answer two questions:
//!
//! - [`StateTopic::peek`], at any time, fences nobody and waits for nobody: it reads up to the
//!   first open transaction. It says where to ask Postgres to start.
//! - [`super::Fenced::read`], only after every producer was fenced: it reads all there is. It says
//!   what is published.
//!
//! Guarantee: what a read answers was committed, and it is the last one of its key.
//! Bounded by: [`READ_TIMEOUT`]; an interval of [`SUFFIX`] offsets first, where only one key is
//! asked for.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ClientOptions;
use super::admin::{self, NewTopic};
use super::context::Context;
use super::failure::{Failure, Verdict, Why, classify, of_code};
use super::options::Purpose;
use super::producer::Producer;
use super::threads::on_thread;
use super::topics::{self, Topic, explain};

/// How long a read may take. After fencing nobody else writes here, so what it waits for is the
/// broker: completing the fenced transactions, or becoming leader.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one poll may wait; between two, the end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long a question for the partition's ends, or a look-up, may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How many offsets before the end are read first when one key is asked for: a hundred
/// transactions a second write 17 million offsets a day before they are compacted.
const SUFFIX: i64 = 20_000;

/// By how much the interval grows when the key was not in it.
const GROWTH: i64 = 10;

/// Which topic, and how it is read and made.
#[derive(Debug, Clone)]
pub struct StateTopicOptions {
    /// Its name.
    pub name: String,
    /// The consumer group that a reader names. None is joined, but librdkafka looks for its
    /// coordinator, so the right to read it is needed.
    pub group: String,
    /// Whether it is made if it does not exist.
    pub create: bool,
    /// How many copies it then gets; if not given, three, or as many as there are brokers.
    pub replication: Option<i32>,
}

/// How much of the topic is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// The last record of every key.
    Whole,
    /// The last record of this key.
    Key(Bytes),
}

/// The last records of their keys. A key whose last record is a tombstone is not among them.
pub type Records = BTreeMap<Bytes, Bytes>;

/// A topic that was found to be as it must.
#[derive(Debug, Clone)]
pub struct StateTopic {
    options: ClientOptions,
    topic: Topic,
    group: String,
}

/// Where a read ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Where an open transaction begins, or at the end.
    LastStable,
    /// When the reader has come to this offset.
    Position(i64),
}

impl StateTopic {
    /// Looks at the topic; makes it, if that is allowed and needed.
    ///
    /// # Errors
    /// It is missing or must not be seen, or its shape could lose what is in it: each with the
    /// command that mends it.
    pub async fn open(options: &ClientOptions, about: StateTopicOptions) -> Result<Self, Failure> {
        let options = options.clone();
        on_thread("looking at a state topic", move || Self::open_now(options, &about)).await
    }

    fn open_now(options: ClientOptions, about: &StateTopicOptions) -> Result<Self, Failure> {
        let client = Producer::create(&options, &Purpose::LookUp)?;
        let name = about.name.as_str();
        let partitions = match topics::look_up(&client, name, Instant::now() + QUESTION_TIMEOUT)? {
            Some(partitions) => partitions,
            None if about.create => {
                let replication = about.replication;
                let config = rules::CREATED.into_iter().collect();
                let new = NewTopic { name, partitions: 1, replication, config };
                topics::make(&options, &client, new)?
            }
            None => return Err(rules::missing(name)),
        };
        let replication = replication(&client, name)?;
        let config = admin::describe(&options, name)?;
        if config.is_none() {
            tracing::info!(
                topic = name,
                "compaction of the topic not checked: no right to describe its configuration"
            );
        }
        rules::check(name, partitions, replication, config.as_ref())?;
        Ok(Self { options, topic: Topic::new(name, partitions), group: about.group.clone() })
    }

    /// The topic, to send records to.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Reads what is committed, up to the first transaction that is still open. Fences nobody and
    /// waits for nobody's transaction.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn peek(&self, extent: Extent) -> Result<Records, Failure> {
        let this = self.clone();
        on_thread("reading a state topic", move || this.read_now(&extent, false)).await
    }

    /// Reads all there is. To be called after fencing only, else what is read may be old already
    /// when it is returned; see [`super::Fenced`].
    pub(super) async fn read_all(&self, extent: Extent) -> Result<Records, Failure> {
        let this = self.clone();
        on_thread("reading a state topic", move || this.read_now(&extent, true)).await
    }

    fn read_now(&self, extent: &Extent, everything: bool) -> Result<Records, Failure> {
        let deadline = Instant::now() + READ_TIMEOUT;
        let client = Producer::create(&self.options, &Purpose::LookUp)?;
        // REASON 4. The end is the *uncommitted* high watermark. The last stable offset may lie
        // before our own last record as long as the broker is completing fenced transactions.
        let ends = client.inner().client().fetch_watermarks(self.topic.name(), 0, QUESTION_TIMEOUT);
        let doing = format!("asking for the end of topic {}", self.topic.name());
        let (low, high) = ends.map_err(|error| explain(&client, &doing, &error))?;
        if low >= high {
            return Ok(Records::new());
        }
        let end = if everything { End::Position(high) } else { End::LastStable };
        let consumer = self.consumer()?;
        let Extent::Key(key) = extent else {
            return Ok(self.read_from(&consumer, low, end, deadline)?.live);
        };
        let mut length = SUFFIX;
        loop {
            let from = low.max(high - length);
            let mut read = self.read_from(&consumer, from, end, deadline)?;
            if from == low || read.seen.contains(key) {
                read.live.retain(|found, _| found == key);
                return Ok(read.live);
            }
            length = length.saturating_mul(GROWTH);
        }
    }

    fn consumer(&self) -> Result<BaseConsumer<Context>, Failure> {
        let context = Context::new(&self.group, self.options.token());
        let config = self.options.config(&Purpose::Reader { group: &self.group });
        config.create_with_context(context).map_err(|error| self.unread(&error))
    }

    fn unread(&self, error: &KafkaError) -> Failure {
        match classify(&format!("reading topic {}", self.topic.name()), error) {
            Verdict::Final(failure) => failure,
            Verdict::Retry(fact) => Failure::restart(Why::Unreachable, fact),
        }
    }

    fn read_from(
        &self,
        consumer: &BaseConsumer<Context>,
        from: i64,
        end: End,
        deadline: Instant,
    ) -> Result<Read, Failure> {
        let mut assignment = TopicPartitionList::new();
        let start = assignment.add_partition_offset(self.topic.name(), 0, Offset::Offset(from));
        start.and_then(|()| consumer.assign(&assignment)).map_err(|error| self.unread(&error))?;
        let mut read = Read::default();
        while Instant::now() < deadline {
            let reached_end = match consumer.poll(POLL) {
                Some(Ok(record)) => {
                    read.record(record.key(), record.payload());
                    false
                }
                Some(Err(KafkaError::PartitionEOF(_))) => true,
                Some(Err(error)) => {
                    self.tolerate(consumer, &error)?;
                    false
                }
                None => false,
            };
            match end {
                End::LastStable if reached_end => return Ok(read),
                End::LastStable => {}
                // REASON 5. By position, not by the last record: the marker of a transaction has an
                // offset too and never arrives as a record.
                End::Position(high) => {
                    if self.position(consumer)? >= high {
                        return Ok(read);
                    }
                }
            }
        }
        let name = self.topic.name();
        let fact = format!("topic {name} was not read to its end within {READ_TIMEOUT:?}");
        Err(Failure::restart(Why::Unreachable, fact))
    }

    fn position(&self, consumer: &BaseConsumer<Context>) -> Result<i64, Failure> {
        let positions = consumer.position().map_err(|error| self.unread(&error))?;
        let found = positions.find_partition(self.topic.name(), 0);
        Ok(match found.map(|partition| partition.offset()) {
            Some(Offset::Offset(offset)) => offset,
            // It has not read anything yet.
            _ => -1,
        })
    }

    /// What mends itself before the deadline is waited for.
    fn tolerate(
        &self,
        consumer: &BaseConsumer<Context>,
        error: &KafkaError,
    ) -> Result<(), Failure> {
        if let Some((code, reason)) = consumer.client().context().denied() {
            let name = self.topic.name();
            return Err(of_code(code, format!("reading topic {name} failed: {reason}")));
        }
        match self.unread(error) {
            Failure::Restart { why: Why::Unreachable, .. } => Ok(()),
            failure @ (Failure::Restart { .. }
            | Failure::Quarantine { .. }
            | Failure::Stop { .. }) => Err(failure),
        }
    }
}

/// What a read has found so far.
#[derive(Default)]
struct Read {
    live: Records,
    /// Every key, those with a tombstone too.
    seen: BTreeSet<Bytes>,
}

impl Read {
    fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        // A compacted topic takes no record without a key.
        let Some(key) = key else { return };
        let key = Bytes::copy_from_slice(key);
        match value {
            Some(value) => self.live.insert(key.clone(), Bytes::copy_from_slice(value)),
            None => self.live.remove(&key),
        };
        self.seen.insert(key);
    }
}

fn replication(client: &Producer, name: &str) -> Result<usize, Failure> {
    let metadata = client.inner().client().fetch_metadata(Some(name), QUESTION_TIMEOUT);
    let doing = format!("looking up topic {name}");
    let metadata = metadata.map_err(|error| explain(client, &doing, &error))?;
    let topic = metadata.topics().first();
    let first = topic.and_then(|topic| topic.partitions().first());
    Ok(first.map_or(1, |partition| partition.replicas().len()))
}
