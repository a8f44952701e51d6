//! The publisher as its caller has it: send chunks, commit with a progress record.
//!
//! Sending and committing happen on a thread of their own; see `driver`. A caller that sends faster
//! than Kafka takes waits in [`Publisher::send`], for room that is counted in bytes.
//!
//! Guarantee: after an error, nothing is ever sent or committed by this publisher again.
//! Bounded by: `buffer_bytes` of chunks, and librdkafka's queue.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::chunk::{Chunk, Record};
use super::context::ClientStatistics;
use super::driver::Driver;
use super::fence::{Delivery, PublisherOptions};
use super::producer::Producer;
use super::{Failure, RecordLimit, Tag, Topic};

/// Commands that may wait for the thread. Bytes are counted apart, this bounds tiny chunks.
const COMMANDS: usize = 256;

/// The unit in which bytes are counted, so that 4 GiB fit into a semaphore's permits.
const PERMIT_BYTES: usize = 1024;

/// The tag of the progress record in a failure: no caller has so many records.
pub const PROGRESS_TAG: Tag = Tag(usize::MAX);

/// What the thread is told.
pub(super) enum Command {
    /// Send this; the permit is the room that it takes until it is in librdkafka's queue.
    Send(Chunk, OwnedSemaphorePermit),
    /// Send the progress and commit.
    Commit(Bytes, oneshot::Sender<Result<Committed, Failure>>),
}

/// A commit that Kafka has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Records in it, the progress not counted.
    pub records: usize,
    /// What they take.
    pub bytes: usize,
    /// From the first record until everything was sent and acknowledged.
    pub sending: Duration,
    /// The commit itself.
    pub commit: Duration,
    /// If set, this commit is good, but this publisher takes nothing more: something was left
    /// without an answer on the way. Acknowledge, drop it, and take the start-up path.
    pub renew: Option<String>,
}

/// Publishes. Dropped, it aborts what is open, in the background.
#[derive(Debug)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    room_permits: usize,
    spent: Arc<OnceLock<Failure>>,
    limit: RecordLimit,
    statistics: Vec<Arc<ClientStatistics>>,
}

impl Publisher {
    pub(super) fn start(
        options: &PublisherOptions,
        producers: Vec<Producer>,
        topic: &Topic,
        key: Bytes,
    ) -> Result<Self, Failure> {
        let (send, receive) = mpsc::channel(COMMANDS);
        let spent = Arc::new(OnceLock::new());
        let of = |producer: &Producer| Arc::clone(producer.context().statistics());
        let statistics = producers.iter().map(of).collect();
        let progress = Record {
            tag: PROGRESS_TAG,
            topic: topic.clone(),
            partition: Some(0),
            key: Some(key),
            value: None,
            timestamp_ms: None,
        };
        let driver = Driver::new(
            producers,
            options.delivery != Delivery::AtLeastOnce,
            options.client.transaction_timeout(),
            progress,
            Arc::clone(&spent),
        );
        let thread = std::thread::Builder::new().name("kafka-publish".to_owned());
        let started = thread.spawn(move || driver.run(receive));
        started.map_err(|_| Failure::thread("publishing"))?;
        let room_permits = options.buffer_bytes.div_ceil(PERMIT_BYTES).max(1);
        Ok(Self {
            commands: send,
            room: Arc::new(Semaphore::new(room_permits)),
            room_permits,
            spent,
            limit: options.client.record_limit(),
            statistics,
        })
    }

    /// Largest record that can be sent; a [`Chunk`] checks it.
    #[must_use]
    pub fn record_limit(&self) -> RecordLimit {
        self.limit
    }

    /// What the queues of the clients hold.
    #[must_use]
    pub fn statistics(&self) -> &[Arc<ClientStatistics>] {
        &self.statistics
    }

    /// Sends a chunk in the open transaction, or in a new one. Waits for room. It returns before
    /// the records are in Kafka; only a commit says that. Not cancel-safe in the sense that a
    /// dropped future may or may not have sent the chunk.
    ///
    /// # Errors
    /// This publisher has failed, with this chunk or before.
    pub async fn send(&self, chunk: Chunk) -> Result<(), Failure> {
        self.check()?;
        if chunk.is_empty() {
            return Ok(());
        }
        // One that is larger than all the room goes through alone.
        let permits = chunk.bytes().div_ceil(PERMIT_BYTES).clamp(1, self.room_permits);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        let room = room.map_err(|_| self.gone())?;
        self.commands.send(Command::Send(chunk, room)).await.map_err(|_| self.gone())?;
        self.check()
    }

    /// Sends the progress as the last record, waits until Kafka has everything, and commits. With
    /// nothing sent before, the transaction has the progress only.
    ///
    /// # Errors
    /// Nothing is known about what was sent since the last commit, but that this publisher will
    /// not commit it any more. Only the progress that is read after the next fence tells.
    pub async fn commit(&self, progress: Bytes) -> Result<Committed, Failure> {
        self.check()?;
        let (send, receive) = oneshot::channel();
        self.commands.send(Command::Commit(progress, send)).await.map_err(|_| self.gone())?;
        receive.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn check(&self) -> Result<(), Failure> {
        self.spent.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn gone(&self) -> Failure {
        self.spent.get().cloned().unwrap_or_else(|| Failure::thread("publishing"))
    }
}
