//! One relay in the simulation: the machine, and a loop around it as thin as the real one.

use std::collections::VecDeque;
use std::time::Duration;

use super::kafka::{Ask, Request, rows_before};
use super::postgres::Row;
use super::{Seen, World};
use crate::backoff::Backoff;
use crate::lsn::Lsn;
use crate::relay::machine::planted::{Planted, Switch};
use crate::relay::machine::{Action, Answer, IDS, Input, Limits, Machine, Peer, Settings};
use crate::relay::progress::{Mode, Position, Progress, VERSION};

/// Asked of a server outside of the stream; the answer comes when the schedule says so.
#[derive(Debug)]
pub(super) enum Question {
    ReadProgress,
    /// The high watermark, once it was looked up.
    Reread(Option<usize>),
    Identify,
    History,
    Start(Lsn),
    Terminate,
    Inspect,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) running: bool,
    pub(super) frozen: bool,
    pub(super) frozen_since: u64,
    reading: bool,
    store: VecDeque<Row>,
    open_id: u8,
    /// Whether the open Kafka transaction has rows.
    open_rows: bool,
    pub(super) connection: Option<usize>,
    pub(super) channel: usize,
    pub(super) questions: VecDeque<Question>,
    pub(super) inbox: VecDeque<Input>,
    /// Answers to questions of forgotten attempts, which come at any time, or never.
    late: Vec<Input>,
}

pub(super) fn settings() -> Settings {
    Settings { relay: "r".to_owned(), slot: "s".to_owned() }
}

pub(super) fn founding(start: u64) -> Progress {
    Progress {
        v: VERSION,
        relay: "r".to_owned(),
        mode: Mode::Cdc,
        generation: 1,
        system_id: "7".to_owned(),
        timeline: 1,
        slot: "s".to_owned(),
        tables: Vec::new(),
        lsn: Lsn(start),
        index: 0,
        watermark: None,
        at: 0,
        paused: false,
    }
}

/// Small enough that a few dozen rows meet every bound.
fn limits(ids: u8) -> Limits {
    let ms = Duration::from_millis;
    Limits {
        ids,
        step_timeout: ms(600),
        standby_poll: ms(20),
        standby_refresh: ms(150),
        status_interval: ms(60),
        transaction_timeout: ms(300),
        follow_interval: ms(50),
        held_bytes: 600,
        chunk_bytes: 100,
        pressure_grace: ms(200),
        stopping_keepalives: 20,
        stopping_patience: ms(60),
        drain_timeout: ms(300),
        pause_poll: ms(40),
    }
}

fn machine(random: &mut fastrand::Rng, planted: Option<Planted>) -> Machine {
    let backoff = Backoff::try_new(Duration::from_millis(5), Duration::from_millis(80), 0.3);
    let backoff = backoff.unwrap().immediate_first();
    let limits = limits(random.u8(1..=IDS));
    let mut machine = Machine::new(settings(), limits, backoff, random.u64(..)).unwrap();
    machine.planted = Switch { on: planted };
    machine
}

impl World {
    pub(super) fn new_node(&mut self) {
        let machine = machine(&mut self.random, self.planted);
        let channel = self.kafka.channel(self.nodes.len(), machine.attempt());
        self.nodes.push(Node {
            machine,
            running: true,
            frozen: false,
            frozen_since: 0,
            reading: true,
            store: VecDeque::new(),
            open_id: 0,
            open_rows: false,
            connection: None,
            channel,
            questions: VecDeque::new(),
            inbox: VecDeque::new(),
            late: Vec::new(),
        });
    }

    /// A new process in the place of a dead one.
    pub(super) fn start_again(&mut self, at: usize) {
        let machine = machine(&mut self.random, self.planted);
        let channel = self.kafka.channel(at, machine.attempt());
        let node = &mut self.nodes[at];
        node.machine = machine;
        node.channel = channel;
        node.running = true;
    }

    /// kill -9, or the end of a process that has left.
    pub(super) fn die(&mut self, at: usize) {
        self.forget(at);
        let node = &mut self.nodes[at];
        node.inbox.clear();
        node.late.clear();
        node.running = false;
        node.frozen = false;
    }

    /// What a relay leaves behind when it drops everything: requests in flight, of which some may
    /// arrive later; a walsender that may not have noticed; answers to old questions.
    fn forget(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.questions.clear();
        node.store.clear();
        node.reading = true;
        let channel = &mut self.kafka.channels[node.channel];
        channel.heard = false;
        let arrives = self.random.usize(0..=channel.requests.len());
        channel.requests.truncate(arrives);
        if let Some(connection) = node.connection.take() {
            self.close(connection);
        }
    }

    fn close(&mut self, connection: usize) {
        let noticed = self.calm || self.random.u8(0..4) > 0;
        self.postgres.cut(connection, noticed, &mut self.random);
        self.postgres.connections[connection].transit.clear();
    }

    pub(super) fn feed(&mut self, at: usize, input: Input) {
        self.feed_rows(at, input, Vec::new());
    }

    fn feed_rows(&mut self, at: usize, input: Input, mut rows: Vec<Row>) {
        let now = Duration::from_millis(self.now);
        let mut actions = std::mem::take(&mut self.actions);
        self.nodes[at].machine.step(now, input, &mut actions);
        for action in actions.drain(..) {
            self.act(at, action, &mut rows);
        }
        if !rows.is_empty() && self.nodes[at].running {
            // Every chunk of rows is answered by one `Keep`, or by a reset.
            let reset = self.nodes[at].connection.is_none();
            self.check(reset, || "rows were neither kept nor skipped".to_owned());
        }
        self.actions = actions;
    }

    /// The next message of the stream, or its end.
    pub(super) fn read(&mut self, at: usize) {
        let Some(connection) = self.nodes[at].connection else { return };
        if !self.nodes[at].reading {
            return;
        }
        let attempt = self.nodes[at].machine.attempt();
        let link = &mut self.postgres.connections[connection];
        if let Some(sent) = link.transit.pop_front() {
            self.feed_rows(at, Input::Stream(attempt, sent.message), sent.rows);
        } else if !link.alive {
            self.nodes[at].connection = None;
            self.feed(at, Input::Failed(attempt, Peer::Postgres));
        }
    }

    fn act(&mut self, at: usize, action: Action, rows: &mut Vec<Row>) {
        match action {
            Action::ReadProgress => self.nodes[at].questions.push_back(Question::ReadProgress),
            Action::RereadProgress => self.nodes[at].questions.push_back(Question::Reread(None)),
            Action::Identify => self.nodes[at].questions.push_back(Question::Identify),
            Action::ReadTimelineHistory { .. } => {
                self.nodes[at].questions.push_back(Question::History);
            }
            Action::StartReplication { at: lsn, .. } => {
                self.nodes[at].questions.push_back(Question::Start(lsn));
            }
            Action::TerminateStale => self.nodes[at].questions.push_back(Question::Terminate),
            Action::InspectSlot { .. } => self.nodes[at].questions.push_back(Question::Inspect),
            Action::Fence { ids } => {
                self.check_fence(at);
                self.request(at, Request::Fence(ids));
            }
            Action::Keep { skip } => {
                let skip = usize::try_from(skip).unwrap();
                self.nodes[at].store.extend(rows.drain(..).skip(skip));
            }
            Action::Discard { rows } => {
                let rows = usize::try_from(rows).unwrap();
                self.nodes[at].store.drain(..rows);
            }
            Action::Begin { id } => {
                self.nodes[at].open_id = id;
                self.nodes[at].open_rows = false;
            }
            Action::Publish { rows } => {
                let rows = usize::try_from(rows).unwrap();
                let rows = self.nodes[at].store.drain(..rows).collect();
                self.nodes[at].open_rows = true;
                self.ask(at, Ask::Rows(rows));
            }
            Action::Commit { progress } => {
                if self.progress_apart && self.nodes[at].open_rows {
                    self.ask(at, Ask::Commit);
                }
                self.ask(at, Ask::Progress(progress));
                self.ask(at, Ask::Commit);
            }
            Action::Abort => self.ask(at, Ask::Abort),
            Action::Read => self.nodes[at].reading = true,
            Action::StopReading => {
                self.nodes[at].reading = false;
                self.saw(Seen::Stall);
            }
            Action::Status { flush, .. } => self.status(at, flush),
            Action::CloseConnection => {
                if let Some(connection) = self.nodes[at].connection.take() {
                    self.close(connection);
                }
            }
            Action::Reset => {
                rows.clear();
                self.forget(at);
                let attempt = self.nodes[at].machine.attempt();
                self.nodes[at].channel = self.kafka.channel(at, attempt);
                self.leave_answers(at, attempt - 1);
            }
            Action::FirstStart => self.fail("first start, but progress exists".to_owned()),
            Action::Hold(stop) => self.fail(format!("held: {stop}")),
            Action::Leave => self.die(at),
        }
    }

    /// What other threads of the process still have to say about the attempt that has ended.
    fn leave_answers(&mut self, at: usize, ended: u64) {
        let answers = [Answer::Started, Answer::Fenced, Answer::Committed];
        let answer = self.random.choice(answers).expect("there are three");
        let node = &mut self.nodes[at];
        node.late.clear();
        node.late.extend(node.inbox.drain(..));
        node.late.push(Input::Answer(ended, answer));
        node.late.push(Input::Failed(ended, Peer::Kafka));
    }

    pub(super) fn hear_late(&mut self, at: usize) {
        if !self.nodes[at].late.is_empty() {
            let which = self.random.usize(0..self.nodes[at].late.len());
            let input = self.nodes[at].late.swap_remove(which);
            self.feed(at, input);
        }
    }

    fn ask(&mut self, at: usize, ask: Ask) {
        let id = self.nodes[at].open_id;
        self.request(at, Request::With(id, ask));
    }

    fn request(&mut self, at: usize, request: Request) {
        let channel = self.nodes[at].channel;
        self.kafka.channels[channel].requests.push_back(request);
    }

    /// A standby must not fence: only who was granted the slot may, even if it has lost it since.
    fn check_fence(&mut self, at: usize) {
        let granted = self.nodes[at]
            .connection
            .is_some_and(|connection| self.postgres.connections[connection].granted);
        let leader = self.postgres.active.is_some_and(|active| {
            let other = self.postgres.connections[active].node;
            let node = &self.nodes[other];
            other != at && node.running && !node.frozen && node.connection == Some(active)
        });
        self.check(granted || !leader, || "a standby fences a healthy leader".to_owned());
    }

    /// Never acknowledged beyond what readers of Kafka have.
    fn status(&mut self, at: usize, flush: Lsn) {
        let Some(connection) = self.nodes[at].connection else { return };
        let position = Position { lsn: flush, index: 0 };
        let log = &self.postgres.log;
        let (told, have) = (rows_before(position, log), self.kafka.reached(log));
        self.check(told <= have, || format!("acknowledged {told:?}, Kafka has {have:?}"));
        self.postgres.connections[connection].statuses.push_back(flush);
    }

    /// One question of a node is answered.
    pub(super) fn answer(&mut self, at: usize) {
        let Some(question) = self.nodes[at].questions.pop_front() else { return };
        let fails = !self.calm && self.random.u8(0..60) == 0;
        if fails {
            let peer = if self.random.bool() { Peer::Kafka } else { Peer::Postgres };
            return self.post(at, |attempt| Input::Failed(attempt, peer));
        }
        let answer = match question {
            Question::ReadProgress => Answer::Progress(Some(Box::new(self.kafka.read()))),
            Question::Reread(high) => {
                let high = high.unwrap_or_else(|| self.kafka.high_watermark());
                let Some(record) = self.kafka.reread(high) else {
                    return self.nodes[at].questions.push_front(Question::Reread(Some(high)));
                };
                Answer::Progress(Some(Box::new(record)))
            }
            Question::Identify => {
                self.nodes[at].connection = Some(self.postgres.connect(at));
                Answer::Identified(self.postgres.identity())
            }
            Question::History => Answer::History(self.postgres.ended.clone()),
            Question::Start(lsn) => match self.start_replication(at, lsn) {
                Some(answer) => answer,
                None => return self.post(at, |attempt| Input::Failed(attempt, Peer::Postgres)),
            },
            Question::Terminate => {
                if let Some(active) = self.postgres.active {
                    self.postgres.notice(active);
                }
                return;
            }
            Question::Inspect => Answer::Slot(self.postgres.report(self.nodes[at].connection)),
        };
        self.post(at, |attempt| Input::Answer(attempt, answer));
    }

    fn start_replication(&mut self, at: usize, lsn: Lsn) -> Option<Answer> {
        let connection = self.nodes[at].connection?;
        if !self.postgres.connections[connection].alive {
            return None;
        }
        if self.postgres.start(connection, lsn, &mut self.random) {
            return Some(Answer::Started);
        }
        let active = self.postgres.active.map(|active| &self.postgres.connections[active]);
        let own_stale = active.is_some_and(|active| active.node == at && !active.alive);
        Some(Answer::SlotBusy { own_stale })
    }

    fn post(&mut self, at: usize, input: impl FnOnce(u64) -> Input) {
        let attempt = self.nodes[at].machine.attempt();
        self.nodes[at].inbox.push_back(input(attempt));
    }
}
