//! After "go": collect, publish, commit, acknowledge, follow.

use super::inflow::{Inflow, Unfit};
use super::input::{Action, Message};
use super::planted::Planted;
use super::state::{End, Held, Publishing, State, Stream};
use super::{Machine, Turn};
use crate::lsn::Lsn;
use crate::relay::progress::Position;

impl Machine {
    pub(super) fn streamed(
        &mut self,
        turn: &mut Turn<'_>,
        state: State,
        message: Message,
    ) -> State {
        match state {
            State::Fencing { mut held, until } => match self.early(turn, &mut held, message) {
                Ok(()) => State::Fencing { held, until },
                Err(unfit) => self.unfit(turn, unfit),
            },
            State::Rereading { mut held, until } => match self.early(turn, &mut held, message) {
                Ok(()) => State::Rereading { held, until },
                Err(unfit) => self.unfit(turn, unfit),
            },
            State::Inspecting { mut held, record, until } => {
                match self.early(turn, &mut held, message) {
                    Ok(()) => State::Inspecting { held, record, until },
                    Err(unfit) => self.unfit(turn, unfit),
                }
            }
            State::Streaming(mut stream) => match self.message(turn, &mut stream, message) {
                Ok(()) => self.streaming(turn, stream),
                Err(unfit) => self.unfit(turn, unfit),
            },
            // Read before the loop was told to stop: it is in no queue and in no record, so it will
            // be sent again. The loop still owes rows an answer.
            State::Draining { .. } => {
                self.refuse_rows(turn, message);
                state
            }
            // A stream that nobody has started: the connection is not to be trusted.
            State::Reading { .. }
            | State::Founding
            | State::Identifying { .. }
            | State::Tracing { .. }
            | State::Starting { .. }
            | State::Standby { .. } => self.restart(turn),
            State::Waiting { .. } | State::Paused { .. } | State::Holding | State::Left => state,
        }
    }

    fn refuse_rows(&self, turn: &mut Turn<'_>, message: Message) {
        match message {
            Message::Rows { count, .. } => turn.act(Action::Keep { skip: count }),
            Message::Begin { .. } | Message::Commit { .. } | Message::Keepalive { .. } => {}
        }
    }

    fn message(
        &mut self,
        turn: &mut Turn<'_>,
        stream: &mut Stream,
        message: Message,
    ) -> Result<(), Unfit> {
        if let Some(skip) = stream.inflow.accept(message)? {
            turn.act(Action::Keep { skip });
        }
        stream.positions.receive(stream.inflow.received);
        match message {
            Message::Keepalive { wal_end, reply_requested } => {
                self.keepalive(turn, stream, wal_end, reply_requested);
            }
            Message::Begin { .. } | Message::Rows { .. } | Message::Commit { .. } => {}
        }
        self.pressure(turn, &mut stream.inflow, stream.outstanding);
        Ok(())
    }

    /// Reason 13. Everything committed before `wal_end` was sent before it; so when all that was
    /// received is committed, `wal_end` is as good a position as a commit's end. Right after START,
    /// keepalives run below progress: they say nothing new.
    fn keepalive(
        &mut self,
        turn: &mut Turn<'_>,
        stream: &mut Stream,
        wal_end: Lsn,
        reply_requested: bool,
    ) {
        if stream.quiet() && (Position { lsn: wal_end, index: 0 }) > stream.positions.published() {
            stream.follow = Some(wal_end);
        }
        if self.planted.is(Planted::FollowBusy) && !stream.quiet() {
            turn.act(Action::Status { write: wal_end, flush: wal_end });
            return;
        }
        if reply_requested {
            // A server that misses nothing from us merely asks whether we live.
            let waited_for = !stream.quiet() || stream.following().is_some();
            stream.asked = if waited_for { stream.asked.saturating_add(1) } else { 0 };
            if stream.asked >= self.limits.stopping_keepalives {
                stream.stopping.get_or_insert(turn.now);
            }
            self.acknowledge(turn, stream);
        }
    }

    /// What holds after every step: publish what can be, then pause or close if that is due.
    pub(super) fn streaming(&mut self, turn: &mut Turn<'_>, mut stream: Box<Stream>) -> State {
        if stream.pausing && !matches!(stream.publishing, Publishing::Open { .. }) {
            return self.drain(turn, stream, End::Pause);
        }
        self.publish(turn, &mut stream, false);
        State::Streaming(stream)
    }

    /// Starts the next Kafka transaction, or goes on with the open one.
    ///
    /// Reason 10: nothing is begun while a commit runs. What comes meanwhile collects, and is the
    /// next batch: its size adapts to Kafka's latency by itself, without a timer.
    pub(super) fn publish(&mut self, turn: &mut Turn<'_>, stream: &mut Stream, draining: bool) {
        match stream.publishing {
            Publishing::Committing { .. } => {}
            Publishing::Idle => self.publish_next(turn, stream, draining),
            Publishing::Open { since } => self.publish_more(turn, stream, since),
        }
    }

    fn publish_next(&mut self, turn: &mut Turn<'_>, stream: &mut Stream, draining: bool) {
        if let Some(whole) = stream.inflow.take_whole() {
            let to = Position { lsn: whole.end_lsn, index: 0 };
            if whole.rows > 0 {
                self.begin_transaction(turn);
                turn.act(Action::Publish { rows: whole.rows });
                stream.outstanding += whole.bytes;
                return self.commit(turn, stream, to);
            }
            // Empty transactions (13 and 14 send them), and the end of one that was published
            // before: worth no more than a keepalive.
            stream.follow = stream.follow.max(Some(to.lsn));
        }
        if stream.saved_paused != stream.base.paused {
            self.begin_transaction(turn);
            return self.commit(turn, stream, stream.positions.published());
        }
        if draining {
            return;
        }
        if let Some(part) = stream.inflow.take_part(self.limits.chunk_bytes) {
            self.begin_transaction(turn);
            turn.act(Action::Publish { rows: part.rows });
            stream.outstanding += part.bytes;
            stream.publishing = Publishing::Open { since: turn.now };
            return;
        }
        if let Some(to) = stream.following()
            && turn.now >= stream.follow_due
        {
            stream.follow_due = turn.now + self.limits.follow_interval;
            self.begin_transaction(turn);
            self.commit(turn, stream, to);
        }
    }

    fn publish_more(
        &mut self,
        turn: &mut Turn<'_>,
        stream: &mut Stream,
        since: std::time::Duration,
    ) {
        if let Some(whole) = stream.inflow.take_whole() {
            if whole.rows > 0 {
                turn.act(Action::Publish { rows: whole.rows });
            }
            stream.outstanding += whole.bytes;
            return self.commit(turn, stream, Position { lsn: whole.end_lsn, index: 0 });
        }
        if let Some(part) = stream.inflow.take_part(0) {
            turn.act(Action::Publish { rows: part.rows });
            stream.outstanding += part.bytes;
        }
        // A broker aborts what is open for too long: half of that time leaves the other half for
        // the commit.
        if turn.now >= since + self.limits.split_after() {
            let to = stream.inflow.split_position().expect("only a part keeps a transaction open");
            self.commit(turn, stream, to);
        }
    }

    fn begin_transaction(&mut self, turn: &mut Turn<'_>) {
        self.last_id = (self.last_id + 1) % self.limits.ids;
        turn.act(Action::Begin { id: self.last_id });
    }

    /// Reason 8: the record says exactly what this transaction completes, and is its last.
    fn commit(&mut self, turn: &mut Turn<'_>, stream: &mut Stream, to: Position) {
        assert!(
            !matches!(stream.publishing, Publishing::Committing { .. }),
            "a second commit would run beside the first"
        );
        let paused = stream.base.paused;
        turn.act(Action::Commit { progress: Box::new(stream.base.moved_to(to)) });
        stream.publishing = Publishing::Committing { to, paused, since: turn.now };
        if self.planted.is(Planted::AcknowledgeBeforeCommit) {
            turn.act(Action::Status { write: to.lsn, flush: to.lsn });
        }
    }

    /// The commit returned well. Reason 11: only here does "published" move, and with it what the
    /// server is told.
    pub(super) fn committed(&mut self, turn: &mut Turn<'_>, state: State) -> State {
        match state {
            State::Streaming(mut stream) => {
                self.settle(turn, &mut stream);
                self.streaming(turn, stream)
            }
            State::Draining { mut stream, end, until } => {
                self.settle(turn, &mut stream);
                self.draining(turn, stream, end, until)
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
            | State::Paused { .. }
            | State::Holding
            | State::Left => state,
        }
    }

    fn settle(&mut self, turn: &mut Turn<'_>, stream: &mut Stream) {
        let (to, paused) = match stream.publishing {
            Publishing::Committing { to, paused, since: _ } => (to, paused),
            // Nobody asked: a commit is never taken for granted.
            Publishing::Idle | Publishing::Open { .. } => return,
        };
        stream.publishing = Publishing::Idle;
        stream.positions.publish(to);
        stream.saved_paused = paused;
        stream.outstanding = 0;
        stream.asked = 0;
        stream.stopping = None;
        if !paused {
            self.resuming = false;
        }
        // Kafka and the server both work: the next trouble is a new one, its first retry at once.
        self.delays.reset();
        self.acknowledge(turn, stream);
        self.pressure(turn, &mut stream.inflow, stream.outstanding);
    }

    /// Reason 11.
    pub(super) fn acknowledge(&mut self, turn: &mut Turn<'_>, stream: &mut Stream) {
        if !stream.connected {
            return;
        }
        stream.status_due = turn.now + self.limits.status_interval;
        let flush = stream.positions.acknowledge();
        turn.act(Action::Status { write: stream.positions.received(), flush });
    }

    pub(super) fn delivered(&mut self, turn: &mut Turn<'_>, state: State, bytes: u64) -> State {
        match state {
            State::Streaming(mut stream) => {
                stream.outstanding = stream.outstanding.saturating_sub(bytes);
                let outstanding = stream.outstanding;
                self.pressure(turn, &mut stream.inflow, outstanding);
                self.streaming(turn, stream)
            }
            State::Draining { .. }
            | State::Waiting { .. }
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
            | State::Left => state,
        }
    }

    /// Back-pressure, by bytes, with hysteresis so that the loop does not switch at every row.
    pub(super) fn pressure(&self, turn: &mut Turn<'_>, inflow: &mut Inflow, outstanding: u64) {
        let held = inflow.bytes() + outstanding;
        match inflow.stalled {
            None if held > self.limits.held_bytes => {
                inflow.stalled = Some(turn.now);
                turn.act(Action::StopReading);
            }
            Some(_) if held <= self.limits.held_bytes / 2 => {
                inflow.stalled = None;
                turn.act(Action::Read);
            }
            None | Some(_) => {}
        }
    }

    /// No more reading; what is complete is still published.
    pub(super) fn drain(
        &mut self,
        turn: &mut Turn<'_>,
        mut stream: Box<Stream>,
        end: End,
    ) -> State {
        match end {
            End::Leave | End::Pause => turn.act(Action::StopReading),
            End::Restart => {
                // Without the slot another relay may take over and fence us. That is safe, as with
                // any relay that was frozen: our commit is either before its fencing, and read, or
                // fails (reasons 5 and 6).
                turn.act(Action::CloseConnection);
                stream.connected = false;
            }
        }
        if end == End::Pause {
            stream.base.paused = true;
        }
        let until = turn.now + self.limits.drain_timeout;
        self.draining(turn, stream, end, until)
    }

    pub(super) fn draining(
        &mut self,
        turn: &mut Turn<'_>,
        mut stream: Box<Stream>,
        end: End,
        until: std::time::Duration,
    ) -> State {
        match stream.publishing {
            Publishing::Open { .. } => {
                // Its source transaction is unfinished and will be sent again.
                turn.act(Action::Abort);
            }
            Publishing::Idle | Publishing::Committing { .. } => {
                self.publish(turn, &mut stream, true);
                if stream.publishing != Publishing::Idle {
                    return State::Draining { stream, end, until };
                }
            }
        }
        match end {
            End::Leave => {
                self.acknowledge(turn, &mut stream);
                if stream.connected {
                    turn.act(Action::CloseConnection);
                }
                self.left(turn)
            }
            End::Pause => {
                turn.act(Action::CloseConnection);
                self.reset(turn);
                State::Paused { until: turn.now + self.limits.pause_poll }
            }
            End::Restart => self.restart(turn),
        }
    }

    /// An unsolicited status: it keeps the connection alive, also while nothing is read.
    pub(super) fn status_if_due(&mut self, turn: &mut Turn<'_>, held: &mut Held) {
        if turn.now >= held.status_due {
            self.status_zero(turn, held);
        }
    }
}
