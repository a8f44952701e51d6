//! Taking over: fence, then read, then write, and by the types in no other order.
//!
//! [`fence`] is called only while the replication slot is held; before that it would kill a healthy
//! leader's producers at every start of a standby. What it returns can read what is published, and
//! becomes a [`Publisher`] by reading the progress.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::options::Purpose;
use super::producer::Producer;
use super::publisher::Publisher;
use super::state_topic::{Extent, Records, StateTopic};
use super::{ClientOptions, Failure};

/// The number of transactional ids that a relay can use, and that every start fences.
pub const IDS: usize = 4;

/// How long the fencing of an id may take. A coordinator that has just become one loads its log
/// first, and each transaction that is being completed costs half a second.
const FENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of records between the caller and librdkafka's queue: enough to fill a batch for each of
/// several partitions while a commit runs.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// How records are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In Kafka transactions, with the progress in each. The number of ids that take turns, 1 to 4:
    /// the next transaction of the same id waits 20 ms for the markers of the last one, that of
    /// another id does not.
    ExactlyOnce {
        /// How many.
        ids: usize,
    },
    /// Without transactions: the progress is written after all acknowledgements. A crash repeats
    /// records. Nothing is fenced: while two relays run, order and progress may go back.
    AtLeastOnce,
}

/// How to publish.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// The client.
    pub client: ClientOptions,
    /// The transactional ids without their number: `postrider.<relay>-`. Never random, never of a
    /// host or a slot: whoever publishes for this relay must fence whoever did before.
    pub id_prefix: String,
    /// How records are published.
    pub delivery: Delivery,
    /// Bytes of records that may wait between the caller and librdkafka's queue.
    pub buffer_bytes: usize,
}

impl PublisherOptions {
    /// Options with two ids that take turns, the best of one to four where it was measured.
    #[must_use]
    pub fn new(client: ClientOptions, id_prefix: impl Into<String>) -> Self {
        let delivery = Delivery::ExactlyOnce { ids: 2 };
        Self { client, id_prefix: id_prefix.into(), delivery, buffer_bytes: BUFFER_BYTES }
    }
}

/// Nobody else can publish under our ids any more.
pub struct Fenced {
    options: PublisherOptions,
    producers: Vec<Producer>,
}

impl fmt::Debug for Fenced {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fenced({})", self.options.id_prefix)
    }
}

/// Fences every earlier publisher of this relay. Must be called after the slot is held, and before
/// the progress is read; the second is seen to by the types.
///
/// REASON 1. A zombie's records and its commit carry an older epoch, and are refused.
/// REASON 2. All ids that the product can use are fenced, whatever number is configured: a zombie
/// may run with another number, and one id left out is enough to commit.
/// REASON 3. A commit that a zombie has begun is completed first by the coordinator, and only then
/// does the fencing return; so the progress that is read afterwards has it.
///
/// # Errors
/// A right is missing, or nobody answers.
///
/// # Panics
/// If the number of ids is not 1 to 4.
pub async fn fence(options: PublisherOptions) -> Result<Fenced, Failure> {
    let ids = match options.delivery {
        Delivery::ExactlyOnce { ids } => ids,
        Delivery::AtLeastOnce => {
            let producer = Producer::create(&options.client, &Purpose::Idempotent)?;
            return Ok(Fenced { options, producers: vec![producer] });
        }
    };
    assert!((1..=IDS).contains(&ids), "{ids} transactional ids, 1 to {IDS} are possible");
    let fencing: Vec<_> = (0..IDS).map(|number| fence_one(&options, number)).collect();
    let mut producers = Vec::with_capacity(IDS);
    for one in fencing {
        producers.push(one.await.unwrap_or_else(|_| Err(Failure::thread("fencing")))?);
    }
    // Fenced is fenced: what is not configured need not stay connected.
    let unused = producers.split_off(ids);
    // Each may take a second to go.
    drop(std::thread::Builder::new().name("kafka-drop".to_owned()).spawn(move || drop(unused)));
    Ok(Fenced { options, producers })
}

/// Fences one id on a thread of its own.
fn fence_one(
    options: &PublisherOptions,
    number: usize,
) -> oneshot::Receiver<Result<Producer, Failure>> {
    let (send, receive) = oneshot::channel();
    let id = format!("{}{number}", options.id_prefix);
    let client = options.client.clone();
    let thread = std::thread::Builder::new().name(format!("kafka-fence-{number}"));
    let started = thread.spawn(move || {
        let fenced = Producer::create(&client, &Purpose::Transactions { id: &id });
        let fenced = fenced.and_then(|producer| {
            producer.init(Instant::now() + FENCE_TIMEOUT)?;
            Ok(producer)
        });
        // If the receiver has gone, another id has failed already.
        drop(send.send(fenced));
    });
    // Without a thread the sender is gone, and the receiver says so.
    drop(started);
    receive
}

impl Fenced {
    /// Reads all of a state topic, as it now stays until we write.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read(&self, topic: &StateTopic, extent: Extent) -> Result<Records, Failure> {
        topic.read_all(extent).await
    }

    /// Reads the progress under a key, and becomes the publisher that writes it. There is no other
    /// way to a publisher, so nothing is published by a progress that is older than the fence.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read_progress(
        self,
        topic: &StateTopic,
        key: Bytes,
    ) -> Result<(Option<Bytes>, Publisher), Failure> {
        let mut found = topic.read_all(Extent::Key(key.clone())).await?;
        let progress = found.remove(&key);
        let publisher = Publisher::start(&self.options, self.producers, topic.topic(), key)?;
        Ok((progress, publisher))
    }
}
