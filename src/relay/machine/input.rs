//! What goes into the machine and what comes out: plain data, no decoder's and no client's types.

use std::ops::RangeInclusive;

use super::stop::Stop;
use crate::lsn::Lsn;
use crate::relay::progress::Progress;

/// Something happened. What belongs to an attempt carries its number ([`Machine::attempt`] when the
/// action was taken), so that the answer to a forgotten question is not taken for one to a new one.
///
/// [`Machine::attempt`]: super::Machine::attempt
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time has passed: at least at every [`Machine::deadline`](super::Machine::deadline).
    Tick,
    /// SIGTERM: finish the open batch, acknowledge, leave.
    Leave,
    /// An operator wants the relay to pause, its standbys too.
    Pause,
    /// An operator ends a pause, or has mended what a Stop complained of.
    Resume,
    /// The server is shutting down (57P01 or 57P03 on another connection).
    ServerStopping,
    /// An action has ended well.
    Answer(u64, Answer),
    /// A message of the replication stream, in its order.
    Stream(u64, Message),
    /// Anything of class Restart: a connection lost, an error, a doubt. *Every* doubt about a Kafka
    /// transaction is one: a commit that failed, timed out, was fenced, needed a retry, or saw the
    /// client reconnect meanwhile, even if it returned well in the end.
    Failed(u64, Peer),
    /// Anything of class Stop: an operator is needed.
    Refused(u64, Stop),
}

/// Who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The server, or the way to it.
    Postgres,
    /// The brokers, or the way to them.
    Kafka,
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Action::ReadProgress`] and [`Action::RereadProgress`]: the last record, if any.
    Progress(Option<Box<Progress>>),
    /// To [`Action::FirstStart`]: slot and progress exist now.
    Founded,
    /// To [`Action::Identify`].
    Identified(Identity),
    /// To [`Action::ReadTimelineHistory`]: each ended timeline and where it ended.
    History(Vec<(u32, Lsn)>),
    /// To [`Action::StartReplication`]: CopyBoth, so the slot is held.
    Started,
    /// To [`Action::StartReplication`]: 55006. `own_stale`: by a walsender that an earlier attempt
    /// of this very process left behind, known by pid and start time.
    SlotBusy {
        /// See above.
        own_stale: bool,
    },
    /// To [`Action::Fence`]: every id has a new epoch, and what was open is committed or aborted.
    Fenced,
    /// To [`Action::InspectSlot`], asked over another connection while we hold the slot.
    Slot(SlotReport),
    /// Published rows of this size have left our memory.
    Delivered {
        /// As counted in [`Message::Rows`].
        bytes: u64,
    },
    /// To [`Action::Commit`]: it returned well, at the first attempt, over the same connection.
    Committed,
}

/// IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The system identifier, as text.
    pub system_id: String,
    /// The current timeline.
    pub timeline: u32,
    /// The end of the flushed log.
    pub xlogpos: Lsn,
}

/// The slot, all of it as of one moment: one row of `pg_replication_slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotReport {
    /// `active_pid` is our own walsender's: the slot is still held by us, whatever we believe.
    pub ours: bool,
    /// `confirmed_flush_lsn`.
    pub confirmed_flush: Lsn,
    /// The end of the log now: a standby's IDENTIFY_SYSTEM may be long ago.
    pub xlogpos: Lsn,
}

/// The replication stream, as far as the machine needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins.
    Begin {
        /// Its top-level transaction id, as on the wire.
        xid: u32,
        /// Where its commit record starts.
        commit_lsn: Lsn,
    },
    /// Raw Insert messages of the transaction, as many as came together. Answered by exactly one
    /// [`Action::Keep`].
    Rows {
        /// How many, before routing.
        count: u64,
        /// Their size in memory.
        bytes: u64,
    },
    /// The transaction is complete.
    Commit {
        /// Where its commit record starts.
        commit_lsn: Lsn,
        /// Where its commit record ends.
        end_lsn: Lsn,
    },
    /// A primary keepalive.
    Keepalive {
        /// Everything committed before it has been sent before it.
        wal_end: Lsn,
        /// The server wants a status update now.
        reply_requested: bool,
    },
}

/// What the loop must do, in the order given. It keeps the rows it reads in one queue: `Keep` puts
/// rows at its end, `Discard` and `Publish` take them from its front.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read the last progress record, read_committed, to the last stable offset: without waiting,
    /// and without fencing.
    ReadProgress,
    /// There is no progress record: found the relay (lock, intent, slot, progress), or refuse.
    FirstStart,
    /// Open a replication connection; IDENTIFY_SYSTEM.
    Identify,
    /// TIMELINE_HISTORY.
    ReadTimelineHistory {
        /// The server's timeline.
        timeline: u32,
    },
    /// START_REPLICATION, on the connection of `Identify`.
    StartReplication {
        /// The slot.
        slot: String,
        /// Where to start.
        at: Lsn,
    },
    /// End the walsender that an earlier attempt of this process left behind.
    TerminateStale,
    /// New producers, `init_transactions` on each of these ids, in parallel.
    Fence {
        /// All ids that any relay of this name may ever have used.
        ids: RangeInclusive<u8>,
    },
    /// Read the high watermark (read_uncommitted), then read_committed up to it, waiting for it.
    RereadProgress,
    /// Ask for [`SlotReport`].
    InspectSlot {
        /// The slot.
        slot: String,
    },
    /// Keep the rows just given from the `skip`-th on; the first `skip` are published already.
    Keep {
        /// May be all of them.
        skip: u64,
    },
    /// Forget rows from the queue's front: they turned out to be published.
    Discard {
        /// How many.
        rows: u64,
    },
    /// Do not read the replication connection any more, until [`Action::Read`].
    StopReading,
    /// Read it again.
    Read,
    /// Begin a Kafka transaction.
    Begin {
        /// The transactional id's number.
        id: u8,
    },
    /// Send rows from the queue's front in the open transaction.
    Publish {
        /// How many.
        rows: u64,
    },
    /// Send this record, last; drain; commit.
    Commit {
        /// `at` is the sender's to stamp.
        progress: Box<Progress>,
    },
    /// A courtesy to readers before leaving: abort the open transaction, without waiting long.
    Abort,
    /// A standby status update.
    Status {
        /// Received.
        write: Lsn,
        /// Durable in Kafka; 0/0 until "go".
        flush: Lsn,
    },
    /// CopyDone if possible, and close the replication connection. Kept rows stay.
    CloseConnection,
    /// Drop the replication connection, every producer, every kept row, every unanswered question.
    Reset,
    /// Stopped: stay up with metrics and report, not ready, and tell the operator; or exit with 3.
    Hold(Stop),
    /// Everything is finished: exit with 0.
    Leave,
}
