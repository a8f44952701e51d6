//! The states, and what each of them knows. The diagram is in the module's root.

use std::time::Duration;

use super::inflow::Inflow;
use super::input::Identity;
use super::positions::Positions;
use super::stop::Stop;
use crate::lsn::Lsn;
use crate::relay::progress::{Position, Progress};

/// What the first half of the start-up path has found out.
#[derive(Debug)]
pub(super) struct Ground {
    /// As read without fencing; START_REPLICATION is asked for at its position.
    pub(super) progress: Box<Progress>,
    pub(super) identity: Identity,
    /// Ended timelines, where the server's is newer than the record's.
    pub(super) ended: Vec<(u32, Lsn)>,
    /// When a standby goes by the path from the top.
    pub(super) stale_at: Duration,
}

#[derive(Debug)]
pub(super) enum State {
    Waiting { until: Duration },
    Reading { until: Duration },
    Founding,
    Identifying { progress: Box<Progress>, until: Duration },
    Tracing { ground: Ground, until: Duration },
    Starting { ground: Ground, until: Duration },
    Standby { ground: Ground, until: Duration },
    Fencing { held: Held, until: Duration },
    Rereading { held: Held, until: Duration },
    Inspecting { held: Held, record: Box<Progress>, until: Duration },
    Streaming(Box<Stream>),
    Draining { stream: Box<Stream>, end: End, until: Duration },
    Paused { until: Duration },
    Holding,
    Left,
}

/// The slot is held, "go" is not yet said.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) ground: Ground,
    pub(super) inflow: Inflow,
    pub(super) status_due: Duration,
}

/// What follows a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Leave,
    Pause,
    Restart,
}

/// The Kafka transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publishing {
    Idle,
    /// A part of one source transaction has been sent.
    Open {
        since: Duration,
    },
    Committing {
        to: Position,
        paused: bool,
        since: Duration,
    },
}

/// After "go".
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) inflow: Inflow,
    pub(super) positions: Positions,
    /// The next record, but for its position.
    pub(super) base: Progress,
    /// Whether the last committed record says "paused".
    pub(super) saved_paused: bool,
    pub(super) publishing: Publishing,
    /// Bytes published and not yet delivered.
    pub(super) outstanding: u64,
    /// The server's log without anything for us goes up to here; progress should follow.
    pub(super) follow: Option<Lsn>,
    pub(super) follow_due: Duration,
    pub(super) status_due: Duration,
    /// From here on, the start-up that led here counts as a success.
    pub(super) proven: Duration,
    /// An operator wants a pause as soon as no part is open.
    pub(super) pausing: bool,
    /// Replies asked for since the last Kafka commit.
    pub(super) asked: u32,
    /// Since when the server wants to shut down and waits for us.
    pub(super) stopping: Option<Duration>,
    pub(super) connected: bool,
}

impl Stream {
    /// Everything received is committed.
    pub(super) fn quiet(&self) -> bool {
        self.publishing == Publishing::Idle && self.inflow.is_empty()
    }

    /// A place to follow to that is beyond progress, and not in the middle of anything.
    pub(super) fn following(&self) -> Option<Position> {
        let to = Position { lsn: self.follow?, index: 0 };
        (to > self.positions.published() && self.quiet()).then_some(to)
    }
}

/// The state's name, for `relay_state{state}` and `/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between two attempts.
    Waiting,
    /// On the start-up path, the slot not yet asked for or not yet held.
    Starting,
    /// Another relay holds the slot.
    Standby,
    /// The slot is held: fencing, reading progress again, checking.
    TakingOver,
    /// Publishing.
    Streaming,
    /// Finishing the open batch.
    Draining,
    /// By an operator's wish.
    Paused,
    /// Stopped: an operator is needed.
    Holding,
    /// Finished.
    Left,
}

impl State {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Waiting { .. } => Phase::Waiting,
            Self::Reading { .. }
            | Self::Founding
            | Self::Identifying { .. }
            | Self::Tracing { .. }
            | Self::Starting { .. } => Phase::Starting,
            Self::Standby { .. } => Phase::Standby,
            Self::Fencing { .. } | Self::Rereading { .. } | Self::Inspecting { .. } => {
                Phase::TakingOver
            }
            Self::Streaming(_) => Phase::Streaming,
            Self::Draining { .. } => Phase::Draining,
            Self::Paused { .. } => Phase::Paused,
            Self::Holding => Phase::Holding,
            Self::Left => Phase::Left,
        }
    }
}

/// Kept for status and `/ready` while holding.
pub(super) type Reason = Option<Stop>;
