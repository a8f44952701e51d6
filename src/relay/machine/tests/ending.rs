//! Doubt, leaving, back-pressure, a server in shutdown, a pause.

use super::*;

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
fn a_resume_does_not_outlive_the_next_pause() {
    let mut bench = Bench::new();
    bench.tick();
    bench.input(Input::Resume);
    let record = || Answer::Progress(Some(Box::new(progress(START, 0))));
    let go = [Answer::Identified(identity()), Answer::Started, Answer::Fenced, record()];
    bench.answer(record());
    go.into_iter().for_each(|answer| drop(bench.answer(answer)));
    bench.answer(Answer::Slot(report()));
    bench.input(Input::Pause);
    bench.answer(Answer::Committed);
    bench.after(ms(2_000));
    bench.answer(Answer::Progress(Some(Box::new(Progress { paused: true, ..progress(START, 0) }))));
    assert_eq!(bench.machine.phase(), Phase::Paused);
}

#[test]
fn a_relay_that_was_idle_for_long_retries_at_once() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.now += ms(2_000);
        bench.tick();
        bench.fail(Peer::Postgres);
    }
    bench.now += ms(2_000);
    bench.take_over(progress(START, 0));
    bench.after(ms(10_000));
    bench.fail(Peer::Postgres);
    assert_eq!(bench.tick(), [Action::ReadProgress]);
}
