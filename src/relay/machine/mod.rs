//! The relay's life as a state machine without I/O: no clock, no runtime, no client.
//!
//! [`Machine::step`] takes the time and one [`Input`], and gives the [`Action`]s that the loop around
//! it carries out in order. Everything that makes the relay exactly-once is decided here, so that it
//! can be run by the million with seeds.
//!
//! ```text
//!            ┌──────────────────────── any doubt, anything lost: Reset, backoff ◀───────────────┐
//!            ▼                                                                                  │
//!   ┌──▶ Waiting ─▶ Reading ─▶ Identifying ──────────────────▶ Starting ─▶ Fencing ─▶ Rereading │
//!   │                │  │ ▲          └─▶ Tracing (new timeline) ─▶ │ ▲          │         │      │
//!   │        no      │  │ │                                  55006 ▼ │          ▼         ▼      │
//!   │     progress   │  │ │ resumed                            Standby     (slot held)  Inspecting
//!   │                ▼  ▼ │                                                               │ "go"
//!   └─────────── Founding Paused ◀─── pause ──── Draining ◀───────────────────────── Streaming
//!                                                   │   └▶ Waiting (server leaves, back-pressure)
//!                                                   └▶ Left (SIGTERM)
//!   anywhere: an operator is needed ─▶ Holding ─▶ resume ─▶ Waiting          anywhere: SIGTERM ─▶ Left
//! ```
//!
//! # Why this is exactly once
//!
//! Numbered here; each number stands beside the step that it is about.
//!
//! 1. Reading progress first needs no fencing, because it only chooses where to *start*: an older
//!    record makes the server send more, which reason 9 skips.
//! 2. Before the server is given a position, system, timeline and position are compared: it accepts
//!    any position, and silently skips every commit below one that is not its own.
//! 3. The slot admits one reader. Only who holds it touches Kafka: a standby that fenced would kill
//!    a healthy leader at its every start.
//! 4. Until "go" nothing is acknowledged: keepalives are answered with flush 0/0, for what we know of
//!    Kafka is not yet fenced.
//! 5. All ids are fenced, not those configured: an open transaction of any id that is left over
//!    could commit after we have sent its rows again.
//! 6. Progress is read again *after* fencing, up to the high watermark: fencing completes a commit
//!    that was already decided, and only then nobody but us can write another record.
//! 7. While the slot is held and nothing is acknowledged, `confirmed_flush` cannot move: above
//!    progress means that somebody acknowledged rows that Kafka does not have. Stop. That the slot
//!    *is* held must be seen in the same look: a frozen relay may have lost it, and then it stands by.
//! 8. A Kafka transaction carries its own progress, last: rows and progress commit together, and a
//!    transaction cut short by a straggler lacks the record rather than the rows.
//! 9. The skip rule: see `published_of` in `inflow`.
//! 10. Commits are strictly serial: begin only after the last commit has returned well. Then the
//!     rows of all transactions are in the partitions in commit order, whatever id they took.
//! 11. The server is told only what Kafka has committed without a doubt.
//! 12. A doubt is never resolved by asking again: the answer may belong to another epoch. Producers
//!     are dropped and the whole path is taken, whose fencing settles what happened.
//! 13. A keepalive is followed only when nothing received before it is uncommitted, only above
//!     progress, and only after progress itself went there: else reason 7's check would cry wolf.
//!
//! Guarantee: rows reach Kafka once, whole, in commit order; nothing is acknowledged before.
//! Bounded by: [`Limits`]; one unanswered question at a time; rows in memory by bytes.
//! Tested by: `tests` (tables of states and inputs) and `simulation` (seeded, with planted bugs).

mod compare;
mod inflow;
mod input;
mod limits;
mod planted;
mod positions;
#[cfg(test)]
mod simulation;
mod startup;
mod state;
mod stop;
mod streaming;
#[cfg(test)]
mod tests;
mod timers;

use std::time::Duration;

use crate::backoff::{Backoff, Delays};

pub use input::{Action, Answer, Identity, Input, Message, Peer, SlotReport};
pub use limits::{IDS, Limits, LimitsError};
pub use positions::Positions;
pub use state::Phase;
pub use stop::Stop;

use planted::{Planted, Switch};
use state::{End, Publishing, State};

/// Who this relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub relay: String,
    /// The name of its first slot.
    pub slot: String,
}

impl Settings {
    /// The slot's name of a generation.
    #[must_use]
    pub fn slot_of(&self, generation: u32) -> String {
        if generation <= 1 { self.slot.clone() } else { format!("{}_{generation}", self.slot) }
    }
}

/// The machine. Time is a duration since any fixed moment; it must not go back.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    limits: Limits,
    delays: Delays,
    attempt: u64,
    state: State,
    /// The id of the last Kafka transaction.
    last_id: u8,
    /// An operator ended a pause: go on although progress says "paused", and say so in progress.
    resuming: bool,
    stop: state::Reason,
    planted: Switch,
}

/// The moment of a step, and where its actions go.
struct Turn<'a> {
    now: Duration,
    out: &'a mut Vec<Action>,
}

impl Turn<'_> {
    fn act(&mut self, action: Action) {
        self.out.push(action);
    }
}

impl Machine {
    /// A relay that starts at its first [`Input::Tick`]. `backoff` should have its first delay at
    /// zero; `seed` is for its jitter.
    ///
    /// # Errors
    ///
    /// Limits that could stall for ever.
    pub fn new(
        settings: Settings,
        limits: Limits,
        backoff: Backoff,
        seed: u64,
    ) -> Result<Self, LimitsError> {
        Ok(Self {
            settings,
            limits: limits.checked()?,
            delays: backoff.delays(seed),
            attempt: 1,
            state: State::Waiting { until: Duration::ZERO },
            last_id: 0,
            resuming: false,
            stop: None,
            planted: Switch::default(),
        })
    }

    /// What answers, messages and failures must carry to be heard. It changes with
    /// [`Action::Reset`], and only then.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Where in its life the relay is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// How far the relay is, while it streams.
    #[must_use]
    pub fn positions(&self) -> Option<Positions> {
        match &self.state {
            State::Streaming(stream) | State::Draining { stream, .. } => Some(stream.positions),
            State::Waiting { .. }
            | State::Reading { .. }
            | State::Founding
            | State::Identifying { .. }
            | State::Tracing { .. }
            | State::Starting { .. }
            | State::Standby { .. }
            | State::Fencing { .. }
            | State::Rereading { .. }
            | State::Inspecting { .. }
            | State::Paused { .. }
            | State::Holding
            | State::Left => None,
        }
    }

    /// Why it holds, while it does.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// One step. Actions are added to `out`, which the caller empties and reuses.
    pub fn step(&mut self, now: Duration, input: Input, out: &mut Vec<Action>) {
        let mut turn = Turn { now, out };
        // `Left` stands in only while the transition owns the state.
        let state = std::mem::replace(&mut self.state, State::Left);
        self.state = self.transition(&mut turn, state, input);
    }

    fn transition(&mut self, turn: &mut Turn<'_>, state: State, input: Input) -> State {
        match (state, input) {
            // What is finished stays so; what holds waits for an operator.
            (
                State::Left,
                Input::Tick
                | Input::Leave
                | Input::Pause
                | Input::Resume
                | Input::ServerStopping
                | Input::Answer(..)
                | Input::Stream(..)
                | Input::Failed(..)
                | Input::Refused(..),
            ) => State::Left,
            (state, Input::Tick) => self.tick(turn, state),
            (state, Input::Leave) => self.leave(turn, state),
            (state, Input::Pause) => self.pause(turn, state),
            (state, Input::Resume) => self.resume(turn, state),
            (state, Input::ServerStopping) => self.server_stopping(turn, state),
            (state, Input::Answer(attempt, answer)) if self.hears(attempt) => {
                self.answered(turn, state, answer)
            }
            (state, Input::Stream(attempt, message)) if self.hears(attempt) => {
                self.streamed(turn, state, message)
            }
            (state, Input::Failed(attempt, peer)) if self.hears(attempt) => {
                self.failed(turn, state, peer)
            }
            (state, Input::Refused(attempt, stop)) if self.hears(attempt) => {
                self.refused(turn, state, stop)
            }
            // From a forgotten attempt: its connection, producers and rows are gone (reason 12).
            (
                state,
                Input::Answer(..) | Input::Stream(..) | Input::Failed(..) | Input::Refused(..),
            ) => state,
        }
    }

    fn hears(&self, attempt: u64) -> bool {
        attempt == self.attempt || self.planted.is(Planted::HearForgotten)
    }

    /// Forgets everything that is not in Kafka.
    fn reset(&mut self, turn: &mut Turn<'_>) {
        self.attempt += 1;
        turn.act(Action::Reset);
    }

    /// Reason 12: the one way of recovering, from anything.
    fn restart(&mut self, turn: &mut Turn<'_>) -> State {
        self.reset(turn);
        State::Waiting { until: turn.now + self.delays.next_delay() }
    }

    fn hold(&mut self, turn: &mut Turn<'_>, stop: Stop) -> State {
        self.reset(turn);
        self.stop = Some(stop.clone());
        turn.act(Action::Hold(stop));
        State::Holding
    }

    fn failed(&mut self, turn: &mut Turn<'_>, state: State, peer: Peer) -> State {
        match (state, peer) {
            (State::Draining { mut stream, end, until }, Peer::Postgres)
                if end == End::Restart || !stream.connected =>
            {
                // We closed that connection ourselves; the commit may still end well.
                stream.connected = false;
                State::Draining { stream, end, until }
            }
            (State::Draining { end: End::Leave, .. }, Peer::Postgres | Peer::Kafka) => {
                self.left(turn)
            }
            // Nothing is asked of anybody here: the failure is of something already given up.
            (
                state @ (State::Waiting { .. }
                | State::Paused { .. }
                | State::Holding
                | State::Left),
                Peer::Postgres | Peer::Kafka,
            ) => state,
            (State::Streaming(stream), Peer::Kafka)
                if self.planted.is(Planted::TrustDoubt)
                    && matches!(stream.publishing, Publishing::Committing { .. }) =>
            {
                self.committed(turn, State::Streaming(stream))
            }
            (
                State::Reading { .. }
                | State::Founding
                | State::Identifying { .. }
                | State::Tracing { .. }
                | State::Starting { .. }
                | State::Standby { .. }
                | State::Fencing { .. }
                | State::Rereading { .. }
                | State::Inspecting { .. }
                | State::Streaming(_)
                | State::Draining { .. },
                Peer::Postgres | Peer::Kafka,
            ) => self.restart(turn),
        }
    }

    fn refused(&mut self, turn: &mut Turn<'_>, state: State, stop: Stop) -> State {
        match state {
            State::Holding | State::Left => state,
            State::Waiting { .. }
            | State::Reading { .. }
            | State::Founding
            | State::Identifying { .. }
            | State::Tracing { .. }
            | State::Starting { .. }
            | State::Standby { .. }
            | State::Fencing { .. }
            | State::Rereading { .. }
            | State::Inspecting { .. }
            | State::Streaming(_)
            | State::Draining { .. }
            | State::Paused { .. } => self.hold(turn, stop),
        }
    }

    fn left(&mut self, turn: &mut Turn<'_>) -> State {
        self.reset(turn);
        turn.act(Action::Leave);
        State::Left
    }
}
