//! The machine step by step: what each rule looks like from outside.

mod ending;
mod publishing;
mod takeover;

use std::time::Duration;

use super::*;
use crate::lsn::Lsn;
use crate::relay::progress::{Mode, Position, Progress};

const START: u64 = 1_000;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn progress(lsn: u64, index: u64) -> Progress {
    Progress {
        v: 1,
        relay: "orders".to_owned(),
        mode: Mode::Cdc,
        generation: 1,
        system_id: "42".to_owned(),
        timeline: 1,
        slot: "orders".to_owned(),
        tables: vec!["public.outbox".to_owned()],
        lsn: Lsn(lsn),
        index,
        watermark: None,
        at: 0,
        paused: false,
    }
}

fn identity() -> Identity {
    Identity { system_id: "42".to_owned(), timeline: 1, xlogpos: Lsn(5_000) }
}

fn report() -> SlotReport {
    SlotReport { ours: true, confirmed_flush: Lsn(START), xlogpos: Lsn(5_000) }
}

/// A machine, a clock that only the test moves, and short words.
struct Bench {
    machine: Machine,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits { held_bytes: 10_000, chunk_bytes: 1_000, ..Limits::default() })
    }

    fn with(limits: Limits) -> Self {
        let settings = Settings { relay: "orders".to_owned(), slot: "orders".to_owned() };
        let backoff = Backoff::try_new(ms(100), ms(1_000), 0.0).unwrap().immediate_first();
        let machine = Machine::new(settings, limits, backoff, 7).unwrap();
        Self { machine, now: ms(1) }
    }

    fn streaming_from(record: Progress) -> Self {
        let mut bench = Self::new();
        bench.take_over(record);
        bench
    }

    fn take_over(&mut self, record: Progress) -> Vec<Action> {
        self.tick();
        self.answer(Answer::Progress(Some(Box::new(record.clone()))));
        self.answer(Answer::Identified(identity()));
        self.answer(Answer::Started);
        self.answer(Answer::Fenced);
        self.answer(Answer::Progress(Some(Box::new(record))));
        let go = self.answer(Answer::Slot(report()));
        assert_eq!(self.machine.phase(), Phase::Streaming);
        go
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.step(self.now, input, &mut out);
        out
    }

    fn tick(&mut self) -> Vec<Action> {
        self.input(Input::Tick)
    }

    fn after(&mut self, wait: Duration) -> Vec<Action> {
        self.now += wait;
        self.tick()
    }

    fn answer(&mut self, answer: Answer) -> Vec<Action> {
        self.input(Input::Answer(self.machine.attempt(), answer))
    }

    fn message(&mut self, message: Message) -> Vec<Action> {
        self.input(Input::Stream(self.machine.attempt(), message))
    }

    fn fail(&mut self, peer: Peer) -> Vec<Action> {
        self.input(Input::Failed(self.machine.attempt(), peer))
    }

    fn begin(&mut self, commit_lsn: u64) -> Vec<Action> {
        self.message(Message::Begin { xid: 1, commit_lsn: Lsn(commit_lsn) })
    }

    fn rows(&mut self, count: u64, bytes: u64) -> Vec<Action> {
        self.message(Message::Rows { count, bytes })
    }

    fn end(&mut self, commit_lsn: u64, end_lsn: u64) -> Vec<Action> {
        self.message(Message::Commit { commit_lsn: Lsn(commit_lsn), end_lsn: Lsn(end_lsn) })
    }

    /// A whole small transaction; what its end set off.
    fn transaction(&mut self, commit_lsn: u64, end_lsn: u64, rows: u64) -> Vec<Action> {
        self.begin(commit_lsn);
        self.rows(rows, rows * 10);
        self.end(commit_lsn, end_lsn)
    }

    fn keepalive(&mut self, wal_end: u64, reply_requested: bool) -> Vec<Action> {
        self.message(Message::Keepalive { wal_end: Lsn(wal_end), reply_requested })
    }
}

fn commit(lsn: u64, index: u64) -> Action {
    Action::Commit { progress: Box::new(progress(lsn, index)) }
}

fn status(write: u64, flush: u64) -> Action {
    Action::Status { write: Lsn(write), flush: Lsn(flush) }
}

#[test]
fn limits_that_could_stall_for_ever_are_refused() {
    let limits = Limits::default();
    assert_eq!(limits.checked(), Ok(limits));
    let ids = Limits { ids: 5, ..limits }.checked();
    assert_eq!(ids, Err(LimitsError::Ids { ids: 5 }));
    let grace = Limits { pressure_grace: ms(7_500), ..limits }.checked();
    assert!(matches!(grace, Err(LimitsError::Grace { .. })));
    let bytes = Limits { chunk_bytes: 64 << 20, ..limits }.checked();
    assert!(matches!(bytes, Err(LimitsError::Bytes { .. })));
}

fn any_input(random: &mut fastrand::Rng, attempt: u64) -> Input {
    let mut lsn = || Lsn(START + random.u64(0..60) * 5);
    let (one, two) = (lsn(), lsn());
    let message = match random.u8(0..4) {
        0 => Message::Begin { xid: 1, commit_lsn: one },
        1 => Message::Rows { count: random.u64(0..9), bytes: random.u64(0..9_000) },
        2 => Message::Commit { commit_lsn: one, end_lsn: two },
        _ => Message::Keepalive { wal_end: one, reply_requested: random.bool() },
    };
    let record = Progress { paused: random.u8(0..9) == 0, ..progress(one.0, random.u64(0..3)) };
    let identity = Identity { timeline: random.u32(1..=2), ..identity() };
    let slot = SlotReport { ours: random.u8(0..5) > 0, confirmed_flush: one, xlogpos: two };
    let answers = [
        Answer::Progress(random.bool().then(|| Box::new(record))),
        Answer::Founded,
        Answer::Identified(identity),
        Answer::History(vec![(1, one)]),
        Answer::Started,
        Answer::SlotBusy { own_stale: random.bool() },
        Answer::Fenced,
        Answer::Slot(slot),
        Answer::Delivered { bytes: random.u64(0..9_000) },
        Answer::Committed,
    ];
    match random.u8(0..24) {
        0 => Input::Failed(attempt, random.choice([Peer::Postgres, Peer::Kafka]).unwrap()),
        1 => random.choice([Input::Pause, Input::Resume, Input::ServerStopping]).unwrap(),
        2 if random.u8(0..20) == 0 => Input::Leave,
        2..=5 => Input::Tick,
        6..=14 => Input::Stream(attempt, message),
        _ => Input::Answer(attempt, random.choice(answers).unwrap()),
    }
}

/// The machine takes what comes, in any order: a loop or a server gone wrong costs a restart or a
/// stop, never a panic, and never an acknowledgement that goes back or beyond what is published.
#[test]
fn any_input_in_any_state_is_survived() {
    for seed in crate::property::seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        for _ in 0..400 {
            bench.now += ms(random.u64(0..400));
            let input = any_input(&mut random, bench.machine.attempt());
            let rows = matches!(input, Input::Stream(_, Message::Rows { .. }));
            let actions = bench.input(input);
            if let Some(positions) = bench.machine.positions() {
                let published = positions.published();
                assert!(published >= Position::default() && positions.acked() <= published.lsn);
            }
            bench.tick();
            bench.tick();
            bench.tick();
            let (deadline, now) = (bench.machine.deadline(), bench.now);
            assert!(deadline.is_none_or(|at| at > now), "the loop would spin: {deadline:?}");
            let kept = actions.iter().filter(|one| matches!(one, Action::Keep { .. })).count();
            assert!(kept <= usize::from(rows), "{actions:?}");
        }
    }
}
