//! Every bound of the machine in one place; a set that could not make progress is refused.

use std::time::Duration;

/// The product's maximum of transactional ids. Start-up fences all of them, whatever is configured:
/// the relay before us may have been configured otherwise.
pub const IDS: u8 = 4;

/// Bounds. [`Limits::default`] is right for a broker and a server in one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transactional ids that take turns, 1 to [`IDS`].
    pub ids: u8,
    /// For one step of the start-up path. Above what librdkafka needs when a coordinator is loading
    /// (30 s), so that the step's own error is seen rather than this one.
    pub step_timeout: Duration,
    /// Between two attempts of a standby to take the slot: takeover is promised within a second.
    pub standby_poll: Duration,
    /// How long a standby asks with one connection and one reading of progress, before it goes by
    /// the whole path again and notices a new server or a pause.
    pub standby_refresh: Duration,
    /// Between two unsolicited status updates: at most a third of `wal_sender_timeout`.
    pub status_interval: Duration,
    /// Kafka's `transaction.timeout.ms`. A transaction that has been open for half of it is split;
    /// a commit that has not returned after the whole of it is in doubt.
    pub transaction_timeout: Duration,
    /// At most one transaction with nothing but progress in this time.
    pub follow_interval: Duration,
    /// Rows in memory: kept, or sent and not yet delivered.
    pub held_bytes: u64,
    /// An unfinished source transaction is held back up to this size, then streamed.
    pub chunk_bytes: u64,
    /// How long reading may stop before the connection is closed: a client that stays connected and
    /// does not read can hang every checkpoint of the server.
    pub pressure_grace: Duration,
    /// Keepalives that ask for a reply, without a Kafka commit between them, that mean a server in
    /// shutdown waits for us.
    pub stopping_keepalives: u32,
    /// How long such a server waits for Kafka before we let it go.
    pub stopping_patience: Duration,
    /// For finishing the open batch.
    pub drain_timeout: Duration,
    /// How often a paused relay looks whether it was resumed.
    pub pause_poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ids: 2,
            step_timeout: Duration::from_secs(60),
            standby_poll: Duration::from_millis(250),
            standby_refresh: Duration::from_secs(10),
            status_interval: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(15),
            follow_interval: Duration::from_secs(1),
            held_bytes: 64 << 20,
            chunk_bytes: 256 << 10,
            pressure_grace: Duration::from_secs(30),
            stopping_keepalives: 100,
            stopping_patience: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(20),
            pause_poll: Duration::from_secs(2),
        }
    }
}

/// Why limits were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// None, or more than are fenced.
    #[error("{ids} transactional ids: 1 to {IDS} are possible, start-up fences that many")]
    Ids {
        /// As given.
        ids: u8,
    },
    /// The relay would close its connection before a large transaction could be split, and start
    /// again from its beginning, for ever.
    #[error(
        "reading may stop for {grace:?}, a Kafka transaction is split after {split:?}: the first \
         must be the longer one, or a slow Kafka never finishes a large transaction"
    )]
    Grace {
        /// As given.
        grace: Duration,
        /// Half of the transaction timeout.
        split: Duration,
    },
    /// Nothing could ever be streamed.
    #[error("{held} bytes in memory and chunks of {chunk} bytes: the first must be the larger one")]
    Bytes {
        /// As given.
        held: u64,
        /// As given.
        chunk: u64,
    },
}

impl Limits {
    /// The same limits, if they can work.
    ///
    /// # Errors
    ///
    /// A set that could stall for ever, by the rule that it breaks.
    pub fn checked(self) -> Result<Self, LimitsError> {
        if !(1..=IDS).contains(&self.ids) {
            return Err(LimitsError::Ids { ids: self.ids });
        }
        if self.pressure_grace <= self.split_after() {
            let (grace, split) = (self.pressure_grace, self.split_after());
            return Err(LimitsError::Grace { grace, split });
        }
        if self.held_bytes <= self.chunk_bytes {
            return Err(LimitsError::Bytes { held: self.held_bytes, chunk: self.chunk_bytes });
        }
        Ok(self)
    }

    /// When an open Kafka transaction is split.
    #[must_use]
    pub fn split_after(&self) -> Duration {
        self.transaction_timeout / 2
    }
}
