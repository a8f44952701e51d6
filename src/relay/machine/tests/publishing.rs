//! After "go": what is skipped, batched, split, followed.

use super::*;

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
