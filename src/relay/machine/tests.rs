//! The machine step by step: what each rule looks like from outside.

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
fn the_start_up_path_asks_one_thing_after_the_other() {
    let mut bench = Bench::new();
    let record = || Some(Box::new(progress(START, 0)));
    assert_eq!(bench.tick(), [Action::ReadProgress]);
    assert_eq!(bench.answer(Answer::Progress(record())), [Action::Identify]);
    let start = Action::StartReplication { slot: "orders".to_owned(), at: Lsn(START) };
    assert_eq!(bench.answer(Answer::Identified(identity())), [start]);
    assert_eq!(bench.answer(Answer::Started), [Action::Fence { ids: 0..=3 }]);
    assert_eq!(bench.answer(Answer::Fenced), [Action::RereadProgress]);
    let inspect = Action::InspectSlot { slot: "orders".to_owned() };
    assert_eq!(bench.answer(Answer::Progress(record())), [inspect]);
    assert_eq!(bench.answer(Answer::Slot(report())), [status(START, START)]);
    assert_eq!(bench.machine.phase(), Phase::Streaming);
}

#[test]
fn a_standby_asks_for_the_slot_again_and_does_not_touch_kafka() {
    let mut bench = Bench::new();
    bench.tick();
    bench.answer(Answer::Progress(Some(Box::new(progress(START, 0)))));
    bench.answer(Answer::Identified(identity()));
    assert_eq!(bench.answer(Answer::SlotBusy { own_stale: false }), []);
    assert_eq!(bench.machine.phase(), Phase::Standby);
    assert_eq!(bench.after(ms(100)), []);
    let again = bench.after(ms(150));
    assert!(matches!(again[..], [Action::StartReplication { .. }]), "{again:?}");
    let stale = bench.answer(Answer::SlotBusy { own_stale: true });
    assert_eq!(stale, [Action::TerminateStale]);
    // Now and then by the whole path: the server or a pause may be new.
    assert_eq!(bench.after(ms(10_000)), [Action::Reset, Action::ReadProgress]);
}

#[test]
fn before_go_keepalives_are_answered_with_zero_and_rows_are_kept() {
    let mut bench = Bench::new();
    bench.tick();
    bench.answer(Answer::Progress(Some(Box::new(progress(START, 0)))));
    bench.answer(Answer::Identified(identity()));
    bench.answer(Answer::Started);
    assert_eq!(bench.keepalive(1_050, true), [status(1_050, 0)]);
    bench.begin(1_000);
    assert_eq!(bench.rows(3, 30), [Action::Keep { skip: 0 }]);
    bench.end(1_000, 1_010);
    bench.answer(Answer::Fenced);
    bench.transaction(1_010, 1_020, 2);
    bench.begin(1_020);
    bench.rows(4, 40);
    assert_eq!(bench.after(ms(10_000)), [status(1_050, 0)]);
    // Kafka had more than was read first: one transaction, and a part of the next but one.
    bench.answer(Answer::Progress(Some(Box::new(progress(1_020, 3)))));
    let go = bench.answer(Answer::Slot(report()));
    assert_eq!(go, [Action::Discard { rows: 3 + 2 + 3 }, status(1_050, 1_020)]);
    assert_eq!(
        bench.end(1_020, 1_060),
        [Action::Begin { id: 1 }, Action::Publish { rows: 1 }, commit(1_060, 0)]
    );
}

#[test]
fn a_transaction_is_skipped_only_strictly_below_progress() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.begin(999);
    assert_eq!(bench.rows(2, 20), [Action::Keep { skip: 2 }]);
    assert_eq!(bench.end(999, 1_000), []);
    bench.begin(1_000);
    assert_eq!(bench.rows(2, 20), [Action::Keep { skip: 0 }]);
    assert!(bench.end(1_000, 1_008).contains(&commit(1_008, 0)));
}

#[test]
fn of_a_split_transaction_just_the_published_rows_are_skipped() {
    let mut bench = Bench::streaming_from(progress(START, 5));
    bench.begin(1_000);
    assert_eq!(bench.rows(3, 30), [Action::Keep { skip: 3 }]);
    assert_eq!(bench.rows(3, 30), [Action::Keep { skip: 2 }]);
    let end = bench.end(1_000, 1_010);
    assert_eq!(end, [Action::Begin { id: 1 }, Action::Publish { rows: 1 }, commit(1_010, 0)]);

    let mut bench = Bench::streaming_from(progress(START, 5));
    bench.begin(1_000);
    bench.rows(4, 40);
    bench.end(1_000, 1_010);
    assert!(matches!(bench.machine.stop(), Some(Stop::Shrunk { rows: 4, published: 5, .. })));
}

#[test]
fn what_comes_during_a_commit_is_the_next_batch_by_the_other_id() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    let first = bench.transaction(1_000, 1_010, 1);
    assert_eq!(first, [Action::Begin { id: 1 }, Action::Publish { rows: 1 }, commit(1_010, 0)]);
    assert_eq!(bench.transaction(1_010, 1_020, 2), []);
    assert_eq!(bench.transaction(1_020, 1_030, 3), []);
    bench.begin(1_030);
    bench.rows(7, 70);
    assert_eq!(
        bench.answer(Answer::Committed),
        [
            status(1_030, 1_010),
            Action::Begin { id: 0 },
            Action::Publish { rows: 5 },
            commit(1_030, 0)
        ],
        "whole transactions only; the next is not finished"
    );
}

#[test]
fn a_large_transaction_streams_and_is_split_only_when_open_for_long() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.begin(1_000);
    assert_eq!(bench.rows(9, 900), [Action::Keep { skip: 0 }]);
    let open = [Action::Keep { skip: 0 }, Action::Begin { id: 1 }, Action::Publish { rows: 10 }];
    assert_eq!(bench.rows(1, 100), open);
    assert_eq!(bench.rows(2, 20), [Action::Keep { skip: 0 }, Action::Publish { rows: 2 }]);
    assert_eq!(bench.machine.deadline(), Some(bench.now + ms(7_500)));
    assert_eq!(bench.after(ms(7_500)), [commit(1_000, 12)]);
    assert_eq!(bench.rows(1, 10), [Action::Keep { skip: 0 }]);
    assert_eq!(bench.answer(Answer::Committed), [status(1_000, 1_000)]);
    let end = bench.end(1_000, 1_100);
    assert_eq!(end, [Action::Begin { id: 0 }, Action::Publish { rows: 1 }, commit(1_100, 0)]);
}

#[test]
fn an_idle_log_is_followed_by_progress_once_a_second() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    assert_eq!(bench.keepalive(900, false), [], "right after START they run below");
    assert_eq!(bench.keepalive(START, false), []);
    let follow = [Action::Begin { id: 1 }, commit(1_200, 0)];
    assert_eq!(bench.keepalive(1_200, false), follow, "progress goes first");
    assert_eq!(bench.answer(Answer::Committed), [status(1_200, 1_200)]);
    assert_eq!(bench.keepalive(1_300, true), [status(1_300, 1_200)]);
    assert_eq!(bench.machine.deadline(), Some(bench.now + ms(1_000)));
    assert_eq!(bench.after(ms(1_000)), [Action::Begin { id: 0 }, commit(1_300, 0)]);
    bench.answer(Answer::Committed);
    // Not in the middle of anything, however long it takes.
    bench.begin(1_400);
    assert_eq!(bench.keepalive(1_400, false), []);
    assert_eq!(bench.after(ms(5_000)), []);
}

#[test]
fn empty_transactions_cost_no_more_than_a_keepalive() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.begin(1_000);
    assert_eq!(bench.end(1_000, 1_010), [Action::Begin { id: 1 }, commit(1_010, 0)]);
    bench.begin(1_010);
    bench.end(1_010, 1_020);
    bench.answer(Answer::Committed);
    assert_eq!(bench.after(ms(999)), []);
    assert_eq!(bench.after(ms(1)), [Action::Begin { id: 0 }, commit(1_020, 0)]);
}

#[test]
fn a_doubt_takes_the_whole_path_and_old_answers_are_not_heard() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.transaction(1_000, 1_010, 1);
    let attempt = bench.machine.attempt();
    assert_eq!(bench.fail(Peer::Kafka), [Action::Reset]);
    assert_eq!(bench.input(Input::Answer(attempt, Answer::Committed)), []);
    assert_eq!(bench.input(Input::Failed(attempt, Peer::Postgres)), []);
    assert_eq!(bench.tick(), [Action::ReadProgress], "the first retry is at once");
    assert_eq!(bench.fail(Peer::Kafka), [Action::Reset]);
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.after(ms(100)), [Action::ReadProgress]);
}

#[test]
fn a_commit_or_a_step_that_does_not_return_is_a_doubt() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.transaction(1_000, 1_010, 1);
    assert!(!bench.after(ms(14_999)).contains(&Action::Reset));
    assert_eq!(bench.after(ms(1)), [Action::Reset]);

    let mut bench = Bench::new();
    bench.tick();
    assert_eq!(bench.after(ms(59_999)), []);
    assert_eq!(bench.after(ms(1)), [Action::Reset]);
}

#[test]
fn leaving_finishes_what_is_whole_and_acknowledges_it() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.transaction(1_000, 1_010, 1);
    bench.transaction(1_010, 1_020, 1);
    assert_eq!(bench.input(Input::Leave), [Action::StopReading]);
    assert_eq!(bench.rows(1, 10), [Action::Keep { skip: 1 }], "read too late: not kept");
    let next = bench.answer(Answer::Committed);
    assert_eq!(
        next,
        [
            status(1_020, 1_010),
            Action::Begin { id: 0 },
            Action::Publish { rows: 1 },
            commit(1_020, 0)
        ]
    );
    let last = bench.answer(Answer::Committed);
    let end = [Action::CloseConnection, Action::Reset, Action::Leave];
    assert!(last.starts_with(&[status(1_020, 1_020)]) && last.ends_with(&end), "{last:?}");
    assert_eq!(bench.machine.phase(), Phase::Left);
}

#[test]
fn leaving_gives_up_an_unfinished_transaction_and_a_kafka_that_hangs() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.begin(1_000);
    bench.rows(100, 2_000);
    let left = bench.input(Input::Leave);
    assert!(left.contains(&Action::Abort) && left.ends_with(&[Action::Leave]), "{left:?}");

    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.transaction(1_000, 1_010, 1);
    bench.input(Input::Leave);
    bench.after(ms(19_999));
    assert_eq!(bench.after(ms(1)), [Action::Reset, Action::Leave]);
}

#[test]
fn too_many_bytes_stop_the_reading_and_then_the_connection() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.begin(1_000);
    assert!(bench.rows(100, 11_000).contains(&Action::StopReading));
    assert_eq!(bench.answer(Answer::Delivered { bytes: 3_000 }), []);
    let read = bench.answer(Answer::Delivered { bytes: 4_000 });
    assert_eq!(read, [Action::Read], "half of the bound is free again");
    bench.rows(100, 9_000);
    bench.after(ms(7_500));
    // The part cannot be committed in time: a doubt. Otherwise the grace would end it.
    assert_eq!(bench.after(ms(15_000)), [Action::Reset]);
}

#[test]
fn a_kafka_that_is_slow_for_too_long_gets_its_batch_without_a_connection() {
    let limits = Limits { held_bytes: 1_000, chunk_bytes: 500, ..Limits::default() };
    let mut bench = Bench::with(Limits { pressure_grace: ms(8_000), ..limits });
    bench.take_over(progress(START, 0));
    bench.transaction(1_000, 1_010, 1);
    bench.begin(1_010);
    assert!(bench.rows(100, 2_000).contains(&Action::StopReading));
    assert_eq!(bench.after(ms(8_000)), [Action::CloseConnection]);
    assert_eq!(bench.fail(Peer::Postgres), [], "we closed it ourselves");
    assert_eq!(bench.answer(Answer::Committed), [Action::Reset]);
    assert_eq!(bench.tick(), [Action::ReadProgress], "Kafka worked: at once");
}

#[test]
fn a_server_in_shutdown_is_let_go_when_kafka_does_not_answer() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    bench.transaction(1_000, 1_010, 1);
    for _ in 0..100 {
        assert_eq!(bench.keepalive(1_010, true), [status(1_010, 1_000)]);
    }
    assert_eq!(bench.machine.deadline(), Some(bench.now + ms(3_000)));
    assert_eq!(bench.after(ms(3_000)), [Action::CloseConnection]);

    // Nothing is pending: it merely asks whether we live.
    let mut bench = Bench::streaming_from(progress(START, 0));
    for _ in 0..1_000 {
        assert_eq!(bench.keepalive(START, true), [status(START, START)]);
    }
    assert_eq!(bench.after(ms(3_000)), []);
}

#[test]
fn a_pause_is_written_and_honoured_and_a_resume_is_written_too() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    let paused = Progress { paused: true, ..progress(START, 0) };
    let pause = bench.input(Input::Pause);
    let written = Action::Commit { progress: Box::new(paused.clone()) };
    assert_eq!(pause, [Action::StopReading, Action::Begin { id: 1 }, written]);
    let closed = bench.answer(Answer::Committed);
    assert!(closed.ends_with(&[Action::CloseConnection, Action::Reset]), "{closed:?}");
    assert_eq!(bench.machine.phase(), Phase::Paused);
    assert_eq!(bench.after(ms(2_000)), [Action::ReadProgress]);
    bench.answer(Answer::Progress(Some(Box::new(paused.clone()))));
    assert_eq!(bench.machine.phase(), Phase::Paused, "a standby does the same");
    assert_eq!(bench.input(Input::Resume), [Action::ReadProgress]);
    bench.answer(Answer::Progress(Some(Box::new(paused.clone()))));
    bench.answer(Answer::Identified(identity()));
    bench.answer(Answer::Started);
    bench.answer(Answer::Fenced);
    bench.answer(Answer::Progress(Some(Box::new(paused))));
    let go = bench.answer(Answer::Slot(report()));
    assert_eq!(go, [status(START, START), Action::Begin { id: 0 }, commit(START, 0)]);
}

#[test]
fn without_progress_the_relay_is_founded_first() {
    let mut bench = Bench::new();
    bench.tick();
    assert_eq!(bench.answer(Answer::Progress(None)), [Action::FirstStart]);
    assert_eq!(bench.answer(Answer::Founded), [Action::Reset, Action::ReadProgress]);
}

#[test]
fn a_stop_holds_until_an_operator_resumes() {
    let mut bench = Bench::streaming_from(progress(START, 0));
    let stop = Stop::Outside { reason: "topic gone".to_owned(), advice: "create it".to_owned() };
    let held = bench.input(Input::Refused(bench.machine.attempt(), stop.clone()));
    assert_eq!(held, [Action::Reset, Action::Hold(stop.clone())]);
    assert_eq!(bench.machine.stop(), Some(&stop));
    assert_eq!(bench.after(ms(1_000_000)), []);
    assert_eq!(bench.input(Input::Resume), [Action::ReadProgress]);
    assert_eq!(bench.machine.stop(), None);
}

/// The stop that this reading of progress, server and slot leads to.
fn stop_of(first: Progress, identity: Identity, second: Progress, slot: SlotReport) -> Stop {
    let mut bench = Bench::new();
    bench.tick();
    bench.answer(Answer::Progress(Some(Box::new(first))));
    bench.answer(Answer::Identified(identity));
    bench.answer(Answer::History(vec![(1, Lsn(1_500))]));
    bench.answer(Answer::Started);
    bench.answer(Answer::Fenced);
    bench.answer(Answer::Progress(Some(Box::new(second))));
    bench.answer(Answer::Slot(slot));
    assert_eq!(bench.machine.phase(), Phase::Holding);
    let stop = bench.machine.stop().cloned().unwrap();
    assert!(!stop.advice().is_empty());
    stop
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let at = |first: Progress| stop_of(first.clone(), identity(), first, report());
    let other = |relay: &str| Progress { relay: relay.to_owned(), ..progress(START, 0) };
    assert!(matches!(at(other("else")), Stop::Relay { .. }));
    assert_eq!(at(Progress { mode: Mode::Polling, ..progress(START, 0) }), Stop::Mode);
    let slot = Progress { generation: 2, ..progress(START, 0) };
    assert!(matches!(at(slot), Stop::Slot { own, .. } if own == "orders_2"));
    let system = Progress { system_id: "43".to_owned(), ..progress(START, 0) };
    assert!(matches!(at(system), Stop::System { .. }));
    assert!(matches!(at(Progress { timeline: 2, ..progress(START, 0) }), Stop::Timeline { .. }));
    assert!(matches!(at(progress(5_001, 0)), Stop::Ahead { .. }));
    // At the very end of the log there is no commit record that could be split.
    assert!(matches!(at(progress(5_000, 1)), Stop::Ahead { .. }));

    let with = |second, slot| stop_of(progress(START, 0), identity(), second, slot);
    let back = with(progress(START - 1, 0), report());
    assert!(matches!(back, Stop::WentBack { now: Some(Lsn(999)), .. }));
    let ahead = SlotReport { confirmed_flush: Lsn(START + 1), ..report() };
    assert!(matches!(with(progress(START, 0), ahead), Stop::SlotAhead { .. }));
    let shorter = SlotReport { xlogpos: Lsn(START - 1), ..report() };
    assert!(matches!(with(progress(START, 0), shorter), Stop::Ahead { .. }));
}

#[test]
fn a_slot_that_is_no_longer_ours_is_no_reason_to_stop() {
    let mut bench = Bench::new();
    bench.tick();
    let record = || Answer::Progress(Some(Box::new(progress(START, 0))));
    bench.answer(record());
    bench.answer(Answer::Identified(identity()));
    bench.answer(Answer::Started);
    bench.answer(Answer::Fenced);
    bench.answer(record());
    let lost = SlotReport { ours: false, confirmed_flush: Lsn(START + 500), ..report() };
    assert_eq!(bench.answer(Answer::Slot(lost)), [Action::Reset]);
    assert_eq!(bench.machine.phase(), Phase::Waiting);
}

#[test]
fn after_a_failover_progress_goes_on_up_to_the_switch_point() {
    let promoted = Identity { timeline: 2, ..identity() };
    let at = |lsn, index| {
        let first = progress(lsn, index);
        stop_of(first.clone(), promoted.clone(), first, report())
    };
    assert!(matches!(at(1_501, 0), Stop::BeyondSwitch { .. }));
    assert!(matches!(at(1_500, 1), Stop::BeyondSwitch { .. }), "its commit record is not there");
    let foreign = Identity { timeline: 7, ..identity() };
    let first = Progress { timeline: 3, ..progress(1_400, 0) };
    let unrelated = stop_of(first.clone(), foreign, first, report());
    assert!(matches!(unrelated, Stop::Timeline { found: 3, server: 7 }));

    let mut bench = Bench::new();
    bench.tick();
    let record = || Answer::Progress(Some(Box::new(progress(1_500, 0))));
    bench.answer(record());
    let trace = bench.answer(Answer::Identified(promoted));
    assert_eq!(trace, [Action::ReadTimelineHistory { timeline: 2 }]);
    bench.answer(Answer::History(vec![(1, Lsn(1_500))]));
    bench.answer(Answer::Started);
    bench.answer(Answer::Fenced);
    bench.answer(record());
    bench.answer(Answer::Slot(report()));
    let next = bench.transaction(1_500, 1_510, 1);
    let on_2 = Progress { timeline: 2, ..progress(1_510, 0) };
    assert_eq!(next.last(), Some(&Action::Commit { progress: Box::new(on_2) }));
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
            let kept = actions.iter().filter(|one| matches!(one, Action::Keep { .. })).count();
            assert!(kept <= usize::from(rows), "{actions:?}");
        }
    }
}
