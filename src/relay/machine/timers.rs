//! What time and operators do to the machine. Every wait has an end here.

use std::time::Duration;

use super::input::Action;
use super::state::{End, Held, Publishing, State, Stream};
use super::{Machine, Turn};

impl Machine {
    /// When the machine wants its next [`Input::Tick`](super::Input::Tick), whatever else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Waiting { until }
            | State::Reading { until }
            | State::Identifying { until, .. }
            | State::Tracing { until, .. }
            | State::Starting { until, .. }
            | State::Standby { until, .. }
            | State::Paused { until } => Some(*until),
            State::Fencing { held, until }
            | State::Rereading { held, until }
            | State::Inspecting { held, until, .. } => {
                let stalled = held.inflow.stalled.map(|since| since + self.limits.pressure_grace);
                [Some(*until), Some(held.status_due), stalled].into_iter().flatten().min()
            }
            State::Streaming(stream) => self.stream_deadline(stream),
            State::Draining { stream, until, .. } => {
                let status = stream.connected.then_some(stream.status_due);
                [Some(*until), status].into_iter().flatten().min()
            }
            // The first start bounds its own steps; the others wait for an operator, or for nobody.
            State::Founding | State::Holding | State::Left => None,
        }
    }

    fn stream_deadline(&self, stream: &Stream) -> Option<Duration> {
        let limits = &self.limits;
        let kafka = match stream.publishing {
            Publishing::Idle => stream.following().map(|_| stream.follow_due),
            Publishing::Open { since } => Some(since + limits.split_after()),
            Publishing::Committing { since, .. } => Some(since + limits.transaction_timeout),
        };
        let stalled = stream.inflow.stalled.map(|since| since + limits.pressure_grace);
        let stopping = (!stream.quiet())
            .then_some(stream.stopping.map(|since| since + limits.stopping_patience))
            .flatten();
        [Some(stream.status_due), kafka, stalled, stopping].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, turn: &mut Turn<'_>, state: State) -> State {
        match state {
            State::Waiting { until } | State::Paused { until } if turn.now >= until => {
                self.begin(turn)
            }
            State::Standby { ground, until } if turn.now >= until => {
                // From the top now and then: the server, its timeline or a pause may be new.
                if turn.now >= ground.stale_at {
                    self.refresh(turn)
                } else {
                    self.start(turn, ground)
                }
            }
            State::Reading { until }
            | State::Identifying { until, .. }
            | State::Tracing { until, .. }
            | State::Starting { until, .. }
                if turn.now >= until =>
            {
                self.restart(turn)
            }
            State::Fencing { mut held, until } => {
                if self.overdue(turn, &mut held, until) {
                    self.restart(turn)
                } else {
                    State::Fencing { held, until }
                }
            }
            State::Rereading { mut held, until } => {
                if self.overdue(turn, &mut held, until) {
                    self.restart(turn)
                } else {
                    State::Rereading { held, until }
                }
            }
            State::Inspecting { mut held, record, until } => {
                if self.overdue(turn, &mut held, until) {
                    self.restart(turn)
                } else {
                    State::Inspecting { held, record, until }
                }
            }
            State::Streaming(stream) => self.tick_stream(turn, stream),
            State::Draining { stream, end, until } => self.tick_drain(turn, stream, end, until),
            State::Waiting { .. }
            | State::Paused { .. }
            | State::Standby { .. }
            | State::Reading { .. }
            | State::Identifying { .. }
            | State::Tracing { .. }
            | State::Starting { .. }
            | State::Founding
            | State::Holding
            | State::Left => state,
        }
    }

    /// A standby starts again from the top, without waiting: nothing has failed.
    fn refresh(&mut self, turn: &mut Turn<'_>) -> State {
        self.reset(turn);
        self.begin(turn)
    }

    /// Whether the step, or a stop of reading, took too long.
    fn overdue(&mut self, turn: &mut Turn<'_>, held: &mut Held, until: Duration) -> bool {
        let grace = self.limits.pressure_grace;
        let stalled = held.inflow.stalled.is_some_and(|since| turn.now >= since + grace);
        if turn.now >= until || stalled {
            return true;
        }
        self.status_if_due(turn, held);
        false
    }

    fn tick_stream(&mut self, turn: &mut Turn<'_>, mut stream: Box<Stream>) -> State {
        let now = turn.now;
        match stream.publishing {
            // Reason 12: a commit that has not returned is a doubt.
            Publishing::Committing { since, .. }
                if now >= since + self.limits.transaction_timeout =>
            {
                return self.restart(turn);
            }
            Publishing::Committing { .. } | Publishing::Open { .. } | Publishing::Idle => {}
        }
        let over = |since: Option<Duration>, patience| since.is_some_and(|at| now >= at + patience);
        let stopping = over(stream.stopping, self.limits.stopping_patience) && !stream.quiet();
        if stopping || over(stream.inflow.stalled, self.limits.pressure_grace) {
            return self.drain(turn, stream, End::Restart);
        }
        if now >= stream.status_due {
            self.acknowledge(turn, &mut stream);
        }
        if now >= stream.proven {
            // An idle relay commits nothing, and yet the next trouble is a new one.
            self.delays.reset();
        }
        self.streaming(turn, stream)
    }

    fn tick_drain(
        &mut self,
        turn: &mut Turn<'_>,
        mut stream: Box<Stream>,
        end: End,
        until: Duration,
    ) -> State {
        if turn.now >= until {
            return match end {
                End::Leave => self.left(turn),
                // The pause is not in progress: the operator must know that it did not take.
                End::Pause | End::Restart => self.restart(turn),
            };
        }
        if turn.now >= stream.status_due {
            self.acknowledge(turn, &mut stream);
        }
        State::Draining { stream, end, until }
    }

    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, state: State) -> State {
        match state {
            State::Streaming(stream) => self.drain(turn, stream, End::Leave),
            State::Draining { stream, until, .. } => self.draining(turn, stream, End::Leave, until),
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
            | State::Left => self.left(turn),
        }
    }

    /// A pause is a field of progress, so only the relay that streams can begin one.
    pub(super) fn pause(&mut self, turn: &mut Turn<'_>, state: State) -> State {
        match state {
            State::Streaming(mut stream) => {
                stream.pausing = true;
                // A resume from before must not outlive this pause.
                self.resuming = false;
                self.streaming(turn, stream)
            }
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
            | State::Draining { .. }
            | State::Paused { .. }
            | State::Holding
            | State::Left => state,
        }
    }

    pub(super) fn resume(&mut self, turn: &mut Turn<'_>, state: State) -> State {
        match state {
            State::Paused { .. } => {
                self.resuming = true;
                self.begin(turn)
            }
            // A paused relay is here for a moment at every look.
            State::Reading { .. } => {
                self.resuming = true;
                state
            }
            State::Holding => {
                self.stop = None;
                self.delays.reset();
                self.begin(turn)
            }
            State::Streaming(mut stream) => {
                stream.pausing = false;
                State::Streaming(stream)
            }
            State::Waiting { .. }
            | State::Founding
            | State::Identifying { .. }
            | State::Tracing { .. }
            | State::Starting { .. }
            | State::Standby { .. }
            | State::Fencing { .. }
            | State::Rereading { .. }
            | State::Inspecting { .. }
            | State::Draining { .. }
            | State::Left => state,
        }
    }

    /// The server waits for our acknowledgement of everything before it goes. With a Kafka that
    /// works it gets it; otherwise we must let it go.
    pub(super) fn server_stopping(&mut self, turn: &mut Turn<'_>, state: State) -> State {
        match state {
            State::Streaming(mut stream) => {
                stream.stopping.get_or_insert(turn.now);
                State::Streaming(stream)
            }
            // Before "go" there is nothing to finish, and nothing will be acknowledged.
            State::Fencing { .. } | State::Rereading { .. } | State::Inspecting { .. } => {
                self.restart(turn)
            }
            State::Draining { mut stream, end: End::Leave, until } if stream.connected => {
                turn.act(Action::CloseConnection);
                stream.connected = false;
                State::Draining { stream, end: End::Leave, until }
            }
            State::Waiting { .. }
            | State::Reading { .. }
            | State::Founding
            | State::Identifying { .. }
            | State::Tracing { .. }
            | State::Starting { .. }
            | State::Standby { .. }
            | State::Draining { .. }
            | State::Paused { .. }
            | State::Holding
            | State::Left => state,
        }
    }
}
