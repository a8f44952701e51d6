//! The start-up path: its order, its comparisons, its stops.

use super::*;

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
