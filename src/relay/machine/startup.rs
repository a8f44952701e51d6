//! The start-up path: the only way to "go", at the first start as after every doubt.

use super::inflow::{Inflow, Unfit};
use super::input::{Action, Answer, Identity, Message, SlotReport};
use super::planted::Planted;
use super::positions::Positions;
use super::state::{Ground, Held, Publishing, State, Stream};
use super::stop::Stop;
use super::{IDS, Machine, Turn, compare};
use crate::lsn::Lsn;
use crate::relay::progress::Progress;

impl Machine {
    /// The top of the path. Kafka is only read.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) -> State {
        turn.act(Action::ReadProgress);
        State::Reading { until: turn.now + self.limits.step_timeout }
    }

    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, state: State, answer: Answer) -> State {
        match (state, answer) {
            (State::Reading { .. }, Answer::Progress(found)) => self.read(turn, found),
            (State::Founding, Answer::Founded) => {
                self.reset(turn);
                self.begin(turn)
            }
            (State::Identifying { progress, .. }, Answer::Identified(identity)) => {
                self.identified(turn, progress, identity)
            }
            (State::Tracing { ground, .. }, Answer::History(ended)) => {
                self.traced(turn, ground, ended)
            }
            (State::Starting { ground, .. }, Answer::Started) => self.held(turn, ground),
            (State::Starting { ground, .. }, Answer::SlotBusy { own_stale }) => {
                self.busy(turn, ground, own_stale)
            }
            (State::Fencing { held, .. }, Answer::Fenced) => self.fenced(turn, held),
            (State::Rereading { held, .. }, Answer::Progress(found)) => {
                self.reread(turn, held, found)
            }
            (State::Inspecting { held, record, .. }, Answer::Slot(report)) => {
                self.inspected(turn, held, *record, report)
            }
            (state @ (State::Streaming(_) | State::Draining { .. }), Answer::Committed) => {
                self.committed(turn, state)
            }
            (
                state @ (State::Streaming(_) | State::Draining { .. }),
                Answer::Delivered { bytes },
            ) => self.delivered(turn, state, bytes),
            // An answer that nobody waits for changes nothing: the path goes on only by the answer
            // that its state asked for.
            (
                state,
                Answer::Progress(_)
                | Answer::Founded
                | Answer::Identified(_)
                | Answer::History(_)
                | Answer::Started
                | Answer::SlotBusy { .. }
                | Answer::Fenced
                | Answer::Slot(_)
                | Answer::Delivered { .. }
                | Answer::Committed,
            ) => state,
        }
    }

    /// Reason 1: read without fencing, and without waiting for open transactions.
    fn read(&mut self, turn: &mut Turn<'_>, found: Option<Box<Progress>>) -> State {
        let Some(progress) = found else {
            turn.act(Action::FirstStart);
            return State::Founding;
        };
        if progress.paused && !self.resuming {
            self.reset(turn);
            return State::Paused { until: turn.now + self.limits.pause_poll };
        }
        turn.act(Action::Identify);
        State::Identifying { progress, until: turn.now + self.limits.step_timeout }
    }

    /// Reason 2: compare before the server is given a position.
    fn identified(
        &mut self,
        turn: &mut Turn<'_>,
        progress: Box<Progress>,
        identity: Identity,
    ) -> State {
        let until = turn.now + self.limits.step_timeout;
        let timeline = match compare::origin(&self.settings, &progress, &identity) {
            Ok(timeline) => timeline,
            Err(stop) => return self.hold(turn, stop),
        };
        let stale_at = turn.now + self.limits.standby_refresh;
        let ground = Ground { progress, identity, ended: Vec::new(), stale_at };
        match timeline {
            compare::Timeline::Same => self.start(turn, ground),
            compare::Timeline::Newer => {
                turn.act(Action::ReadTimelineHistory { timeline: ground.identity.timeline });
                State::Tracing { ground, until }
            }
        }
    }

    fn traced(&mut self, turn: &mut Turn<'_>, ground: Ground, ended: Vec<(u32, Lsn)>) -> State {
        match compare::history(&ground.progress, &ground.identity, &ended) {
            Ok(()) => self.start(turn, Ground { ended, ..ground }),
            Err(stop) => self.hold(turn, stop),
        }
    }

    /// Asks for the slot; a standby does so again and again, and Kafka is not touched (reason 3).
    pub(super) fn start(&mut self, turn: &mut Turn<'_>, ground: Ground) -> State {
        if let Err(stop) = compare::reachable(&ground.progress, ground.identity.xlogpos) {
            return self.hold(turn, stop);
        }
        let slot = ground.progress.slot.clone();
        turn.act(Action::StartReplication { slot, at: ground.progress.lsn });
        if self.planted.is(Planted::FenceBeforeSlot) {
            turn.act(Action::Fence { ids: 0..=IDS - 1 });
        }
        State::Starting { ground, until: turn.now + self.limits.step_timeout }
    }

    /// 55006: somebody is active. Another relay, and we stand by; or a walsender of our own that has
    /// not noticed its end, which nobody but us waits for.
    fn busy(&mut self, turn: &mut Turn<'_>, ground: Ground, own_stale: bool) -> State {
        if own_stale {
            turn.act(Action::TerminateStale);
        }
        State::Standby { ground, until: turn.now + self.limits.standby_poll }
    }

    /// CopyBoth: the slot is held. Reasons 3 and 5: only now, and all ids.
    fn held(&mut self, turn: &mut Turn<'_>, ground: Ground) -> State {
        let inflow = Inflow::new(ground.progress.position(), self.planted);
        let held = Held { ground, inflow, status_due: turn.now + self.limits.status_interval };
        let until = turn.now + self.limits.step_timeout;
        let ids = if self.planted.is(Planted::OneIdNotFenced) { self.limits.ids } else { IDS };
        turn.act(Action::Fence { ids: 0..=ids - 1 });
        State::Fencing { held, until }
    }

    /// Reason 6: read again, after fencing, to the high watermark.
    fn fenced(&mut self, turn: &mut Turn<'_>, held: Held) -> State {
        let until = turn.now + self.limits.step_timeout;
        if self.planted.is(Planted::ReadBeforeFence) {
            let found = Some(held.ground.progress.clone());
            return self.reread(turn, held, found);
        }
        turn.act(Action::RereadProgress);
        State::Rereading { held, until }
    }

    fn reread(&mut self, turn: &mut Turn<'_>, held: Held, found: Option<Box<Progress>>) -> State {
        let first = &held.ground.progress;
        let Some(record) = found else {
            return self.hold(turn, Stop::WentBack { before: first.lsn, now: None });
        };
        // Somebody moved on to a new slot between our two readings: what we hold is the old one.
        if record.generation > first.generation {
            return self.restart(turn);
        }
        if record.generation < first.generation || record.position() < first.position() {
            let stop = Stop::WentBack { before: first.lsn, now: Some(record.lsn) };
            return self.hold(turn, stop);
        }
        // A pause that came between the readings; `resuming` was for the older record too.
        if record.paused && !self.resuming {
            self.reset(turn);
            return State::Paused { until: turn.now + self.limits.pause_poll };
        }
        turn.act(Action::InspectSlot { slot: record.slot.clone() });
        State::Inspecting { held, record, until: turn.now + self.limits.step_timeout }
    }

    /// The last check, while the slot is held (reason 7), and "go".
    ///
    /// A relay that was frozen on this path may have lost the slot without knowing it. The relay
    /// after it has acknowledged since, what it published since: that is no reason for a Stop, but
    /// to stand by. So the server must say, in the same row, that the slot is ours.
    fn inspected(
        &mut self,
        turn: &mut Turn<'_>,
        held: Held,
        record: Progress,
        report: SlotReport,
    ) -> State {
        if !report.ours && !self.planted.is(Planted::InspectUnheld) {
            return self.restart(turn);
        }
        if let Err(stop) = self.verdict(&held, &record, report) {
            return self.hold(turn, stop);
        }
        let Held { ground, mut inflow, status_due: _ } = held;
        match inflow.restart_at(record.position()) {
            Ok(0) => {}
            Ok(rows) => turn.act(Action::Discard { rows }),
            Err(unfit) => return self.unfit(turn, unfit),
        }
        let positions = Positions::starting_at(record.position(), inflow.received);
        let saved_paused = record.paused;
        // Somebody else has resumed; a later pause is to be honoured.
        self.resuming &= saved_paused;
        let base = Progress { timeline: ground.identity.timeline, paused: false, ..record };
        let mut stream = Box::new(Stream {
            inflow,
            positions,
            base,
            saved_paused,
            publishing: Publishing::Idle,
            outstanding: 0,
            follow: None,
            follow_due: turn.now,
            status_due: turn.now,
            proven: turn.now + self.limits.status_interval,
            pausing: false,
            asked: 0,
            stopping: None,
            connected: true,
        });
        // What Kafka has may be acknowledged, whoever put it there (reason 11).
        self.acknowledge(turn, &mut stream);
        self.streaming(turn, stream)
    }

    fn verdict(&self, held: &Held, record: &Progress, report: SlotReport) -> Result<(), Stop> {
        let Ground { identity, ended, .. } = &held.ground;
        match compare::origin(&self.settings, record, identity)? {
            compare::Timeline::Same => {}
            compare::Timeline::Newer => compare::history(record, identity, ended)?,
        }
        compare::slot(record, report)
    }

    /// A message before "go": kept, by the progress read first; sorted out at "go".
    pub(super) fn early(
        &mut self,
        turn: &mut Turn<'_>,
        held: &mut Held,
        message: Message,
    ) -> Result<(), Unfit> {
        if let Some(skip) = held.inflow.accept(message)? {
            turn.act(Action::Keep { skip });
        }
        self.pressure(turn, &mut held.inflow, 0);
        match message {
            Message::Keepalive { reply_requested: true, .. } => self.status_zero(turn, held),
            Message::Keepalive { reply_requested: false, .. }
            | Message::Begin { .. }
            | Message::Rows { .. }
            | Message::Commit { .. } => {}
        }
        Ok(())
    }

    /// Reason 4.
    pub(super) fn status_zero(&mut self, turn: &mut Turn<'_>, held: &mut Held) {
        held.status_due = turn.now + self.limits.status_interval;
        turn.act(Action::Status { write: held.inflow.received, flush: Lsn::ZERO });
    }

    pub(super) fn unfit(&mut self, turn: &mut Turn<'_>, unfit: Unfit) -> State {
        match unfit {
            Unfit::Order => self.restart(turn),
            Unfit::Stop(stop) => self.hold(turn, stop),
        }
    }
}
