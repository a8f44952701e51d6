//! What Postgres, Kafka and correct relays may legally leave behind is no violation, and what was
//! not compared does not count as compared.

use super::super::super::evidence::{Fate, NO_KEY, Number, Record, Row};
use super::super::super::verdict::{Judged, Name, Outcome};
use super::{World, append, found, id_text, small_world};

/// Publishes a row of its own transaction into a log of its topic.
fn publish(world: &mut World, row: Row, log: usize) {
    let record = world.record(&row);
    append(&mut world.evidence.logs[log], record);
    world.remember(&row, Fate::Committed);
    world.evidence.rows.push(row);
    world.evidence.seal();
}

#[test]
fn rows_without_a_key_may_go_to_any_partition_in_any_order() {
    let mut world = small_world();
    // Kafka's partitioners spread records without a key; nothing is promised about their order.
    for (version, log) in [(2, 0), (1, 0), (3, 1)] {
        world.txid += 1;
        let row = Row { key: NO_KEY, version: Number::of(version), ..world.row(0) };
        publish(&mut world, row, log);
    }
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");
    assert_eq!(verdict.notes, Vec::<String>::new());
}

#[test]
fn a_witness_of_a_row_without_a_key_has_none() {
    let mut world = small_world();
    world.txid += 1;
    let row = Row { key: NO_KEY, ..world.row(0) };
    world.evidence.rows.push(row.clone());
    world.evidence.seal();
    let witness = found(&world.judge(), &[Name::I1]);
    assert_eq!((witness.id, witness.key), (id_text(row.id), None));
}

#[test]
fn tables_that_share_a_topic_have_versions_of_their_own() {
    let mut world = small_world();
    for version in 1..=2 {
        for table in [0, 1] {
            world.txid += 1;
            world.lsn += 100;
            // After version 4 of the same key, from the other table.
            let row =
                Row { table, version: Number::of(10 * i64::from(table) + version), ..world.row(0) };
            let key = world.evidence.keys.intern(b"new");
            publish(&mut world, Row { key, ..row }, 0);
        }
    }
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");

    // Within one of them the order counts, whatever comes in between.
    let records = &mut world.evidence.logs[0].records;
    let last = records.len() - 1;
    let (low, high) = (records[last - 2].clone(), records[last].clone());
    records[last - 2] = Record { offset: low.offset, lsn: low.lsn, ..high.clone() };
    records[last] = Record { offset: high.offset, lsn: high.lsn, ..low };
    found(&world.judge(), &[Name::I4]);
}

#[test]
fn rows_that_nothing_is_demanded_for_prove_nothing() {
    let mut world = small_world();
    world.evidence.history = None;
    world.evidence.rows.iter_mut().for_each(|row| row.late = true);
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Vacuous, "{verdict:#?}");
}

#[test]
fn a_history_of_nothing_but_doubts_compares_nothing() {
    let mut world = small_world();
    let row = world.row(1);
    world.evidence.history.as_mut().unwrap().writes.clear();
    world.remember(&row, Fate::Unknown);
    let verdict = world.judge();
    assert_eq!(verdict.check(Name::Table).result, Judged::NotChecked, "{verdict:#?}");
    // And the rows that are there were written by somebody else.
    assert!(
        verdict.notes.iter().any(|note| note.starts_with("6 rows are not in the history")),
        "{verdict:#?}"
    );
}

#[test]
fn a_doubtful_transaction_is_in_the_tables_whole_or_not_at_all() {
    let mut world = small_world();
    let of_op = |world: &World| {
        world
            .evidence
            .rows
            .iter()
            .filter(|row| row.txid == Number::of(701))
            .cloned()
            .collect::<Vec<_>>()
    };
    let rows = of_op(&world);
    assert_eq!(rows.len(), 3);
    let writes = &mut world.evidence.history.as_mut().unwrap().writes;
    writes.iter_mut().filter(|write| write.op == 701).for_each(|write| write.fate = Fate::Unknown);
    assert_eq!(world.judge().outcome, Outcome::Pass);

    let lost = &rows[1];
    world.evidence.rows.retain(|row| row.id != lost.id);
    world
        .evidence
        .logs
        .iter_mut()
        .for_each(|log| log.records.retain(|record| record.id != lost.id));
    let witness = found(&world.judge(), &[Name::Table]);
    assert_eq!((witness.fault, witness.id), ("half of a transaction", id_text(lost.id)));
    assert_eq!(witness.op, Some(701));
}

#[test]
fn what_could_not_be_compared_is_said() {
    let mut world = small_world();
    world.evidence.tables[1].has_version = false;
    world.evidence.rows[0].txid = Number::ABSENT;
    let at = world.nth(0);
    world.record_at(at).version = Number::ABSENT;
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");
    let reason = verdict.check(Name::Content).reason.as_deref().unwrap_or_default();
    assert!(reason.contains("1 records have no header aggregateversion"), "{reason}");
    let reason = verdict.check(Name::I4).reason.as_deref().unwrap_or_default();
    assert!(reason.contains("no column aggregateversion in public.outbox_two"), "{reason}");
    let reason = verdict.check(Name::I5).reason.as_deref().unwrap_or_default();
    assert!(reason.contains("1 rows have no txid"), "{reason}");
}
