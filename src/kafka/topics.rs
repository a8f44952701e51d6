//! The topics that events go to: looked up before the first record is sent to one.
//!
//! A record for an unknown topic would wait 30 s in librdkafka and then take its whole transaction
//! with it. So a [`Topic`], which a record needs, comes from [`Topics::get`] only, and that asks
//! the broker once and remembers. It also remembers how many partitions there are: when that
//! changes, keys move to other partitions and their order is gone, which is for the operator to
//! decide.
//!
//! Guarantee: a [`Topic`] existed, with at least one partition, when it was looked up.
//! Bounded by: [`LOOK_UP_TIMEOUT`] a look-up; one entry a topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer as _;

use super::ClientOptions;
use super::admin::{self, NewTopic};
use super::failure::{Failure, Verdict, Why, classify, of_code};
use super::options::Purpose;
use super::producer::Producer;
use super::threads::on_thread;

/// How long a look-up may take, connecting included.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a topic that was just made may be unknown to the broker that is asked.
const CREATED_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at a topic that was just made.
const CREATED_PAUSE: Duration = Duration::from_millis(50);

/// Copies of a topic that we make, if the cluster has so many brokers.
const REPLICATION: i32 = 3;

/// A topic that exists. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic(Arc<Known>);

#[derive(Debug, PartialEq, Eq)]
struct Known {
    name: String,
    partitions: i32,
}

impl Topic {
    pub(super) fn new(name: &str, partitions: i32) -> Self {
        Self(Arc::new(Known { name: name.to_owned(), partitions }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many partitions it had when it was looked up.
    #[must_use]
    pub fn partitions(&self) -> i32 {
        self.0.partitions
    }
}

/// How a topic that does not exist is made.
#[derive(Debug, Clone)]
pub struct CreateTopics {
    /// How many partitions.
    pub partitions: i32,
    /// How many copies; if not given, three, or as many as there are brokers.
    pub replication: Option<i32>,
    /// Its configuration, in Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// Looks topics up and remembers them; it outlives publishers.
#[derive(Clone)]
pub struct Topics(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    create: Option<CreateTopics>,
    client: Producer,
    known: Mutex<HashMap<String, Topic>>,
}

impl Topics {
    /// Makes the client that asks; it connects with the first question. With `create`, what does
    /// not exist is made.
    ///
    /// # Errors
    /// librdkafka refuses the options.
    pub fn new(options: &ClientOptions, create: Option<CreateTopics>) -> Result<Self, Failure> {
        let client = Producer::create(options, &Purpose::LookUp)?;
        let options = options.clone();
        Ok(Self(Arc::new(Inner { options, create, client, known: Mutex::default() })))
    }

    /// A topic that was looked up before; never asks.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<Topic> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// A topic; asks the broker if it was not looked up before.
    ///
    /// # Errors
    /// It does not exist, or must not be seen; or nobody answers.
    pub async fn get(&self, name: &str) -> Result<Topic, Failure> {
        if let Some(topic) = self.known(name) {
            return Ok(topic);
        }
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        on_thread("looking up a topic", move || inner.find(&name)).await
    }

    /// Looks at every known topic again. To be called every so often: librdkafka uses new
    /// partitions within its `topic.metadata.refresh.interval.ms`, 5 minutes.
    ///
    /// # Errors
    /// One is gone or its number of partitions has changed: a stop, for keys have moved.
    pub async fn recheck(&self) -> Result<(), Failure> {
        let inner = Arc::clone(&self.0);
        on_thread("looking at the topics again", move || inner.recheck()).await
    }
}

impl Inner {
    fn find(&self, name: &str) -> Result<Topic, Failure> {
        let deadline = Instant::now() + LOOK_UP_TIMEOUT;
        let partitions = match (look_up(&self.client, name, deadline)?, &self.create) {
            (Some(partitions), _) => partitions,
            (None, Some(create)) => self.create(name, create)?,
            (None, None) => return Err(missing(name)),
        };
        let topic = Topic::new(name, partitions);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(name.to_owned()).or_insert(topic).clone())
    }

    fn create(&self, name: &str, create: &CreateTopics) -> Result<i32, Failure> {
        let config = create.config.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let (partitions, replication) = (create.partitions, create.replication);
        let config = config.collect();
        make(&self.options, &self.client, NewTopic { name, partitions, replication, config })
    }

    fn recheck(&self) -> Result<(), Failure> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for topic in known.values() {
            let deadline = Instant::now() + LOOK_UP_TIMEOUT;
            let now = look_up(&self.client, topic.name(), deadline)?;
            let now = now.ok_or_else(|| missing(topic.name()))?;
            if now != topic.partitions() {
                let (name, before) = (topic.name(), topic.partitions());
                return Err(Failure::stop(
                    format!("topic {name} has {now} partitions instead of {before}"),
                    "keys move to other partitions, so their order is not kept across the change: \
                     let consumers finish what is in the topic, then start the relay again",
                ));
            }
        }
        Ok(())
    }
}

fn missing(name: &str) -> Failure {
    of_code(Code::UnknownTopicOrPartition, format!("topic {name} does not exist"))
}

/// How many partitions a topic has; none if it does not exist. One that is there but still has a
/// partition without a leader is waited for, till the deadline.
pub(super) fn look_up(
    client: &Producer,
    name: &str,
    deadline: Instant,
) -> Result<Option<i32>, Failure> {
    let doing = format!("looking up topic {name}");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let metadata = client.inner().client().fetch_metadata(Some(name), left);
        let metadata = metadata.map_err(|error| explain(client, &doing, &error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let error = topic.and_then(rdkafka::metadata::MetadataTopic::error).map(Code::from);
        match (topic, error) {
            (Some(topic), None) if !topic.partitions().is_empty() => {
                return Ok(i32::try_from(topic.partitions().len()).ok());
            }
            (_, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => return Ok(None),
            (Some(_), Some(Code::LeaderNotAvailable) | None) | (None, None)
                if Instant::now() < deadline =>
            {
                std::thread::park_timeout(CREATED_PAUSE);
            }
            (_, error) => {
                let code = error.unwrap_or(Code::LeaderNotAvailable);
                return Err(of_code(code, format!("{doing} failed: {code}")));
            }
        }
    }
}

/// How many brokers there are.
fn brokers(client: &Producer) -> Result<i32, Failure> {
    let metadata = client.inner().client().fetch_metadata(None, LOOK_UP_TIMEOUT);
    let metadata = metadata.map_err(|error| explain(client, "counting the brokers", &error))?;
    Ok(i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX))
}

/// Makes a topic, if nobody has before us, and waits until it can be used.
pub(super) fn make(
    options: &ClientOptions,
    client: &Producer,
    topic: NewTopic<'_>,
) -> Result<i32, Failure> {
    let name = topic.name;
    let replication = match topic.replication {
        Some(given) => given,
        None => REPLICATION.min(brokers(client)?),
    };
    admin::create(options, &NewTopic { replication: Some(replication), ..topic })?;
    tracing::info!(topic = name, replication, "topic created");
    // The broker that is asked next may not have heard of it.
    let deadline = Instant::now() + CREATED_TIMEOUT;
    loop {
        if let Some(partitions) = look_up(client, name, deadline)? {
            return Ok(partitions);
        }
        if Instant::now() >= deadline {
            let fact = format!("topic {name} was created but is not seen");
            return Err(Failure::restart(Why::Unreachable, fact));
        }
        std::thread::park_timeout(CREATED_PAUSE);
    }
}

/// A look-up that fails because the login was refused times out only.
pub(super) fn explain(client: &Producer, doing: &str, error: &KafkaError) -> Failure {
    if let Some((code, reason)) = client.context().denied() {
        return of_code(code, format!("{doing} failed: {reason}"));
    }
    match classify(doing, error) {
        Verdict::Final(failure) => failure,
        Verdict::Retry(fact) => Failure::restart(Why::Unreachable, fact),
    }
}
