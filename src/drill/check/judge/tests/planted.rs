//! Each planted fault is found, and nothing else; the witness is the right one.

use super::super::super::evidence::{
    Fate, IdHeader, Mode, NO_KEY, Number, Record, Row, Write, digest,
};
use super::super::super::verdict::{Judged, Name, Outcome};
use super::{TOPICS, World, append, found, id_text, small_world};

#[test]
fn clean_evidence_passes_and_everything_was_looked_at() {
    let verdict = small_world().judge();
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");
    for check in &verdict.checks {
        assert_eq!(check.result, Judged::Holds, "{check:#?}");
        assert!(check.checked > 0, "{check:#?}");
    }
    assert_eq!(verdict.notes, Vec::<String>::new());
    assert_eq!((verdict.seen.rows, verdict.seen.committed_records), (6, 6));
}

#[test]
fn no_rows_is_vacuous() {
    let verdict = World::new(1, 2).judge();
    assert_eq!(verdict.outcome, Outcome::Vacuous);
    assert_eq!(verdict.check(Name::I1).result, Judged::NotChecked);
}

#[test]
fn loss_of_a_whole_transaction() {
    let mut world = small_world();
    let lost = world.evidence.rows.iter().find(|row| row.txid == Number::of(702)).unwrap().clone();
    for log in &mut world.evidence.logs {
        log.records.retain(|record| record.id != lost.id);
    }
    let witness = found(&world.judge(), &[Name::I1]);
    assert_eq!((witness.id, witness.fault), (id_text(lost.id), "never published"));
    assert_eq!((witness.txid, witness.version), (Some(702), lost.version.get()));
    assert_eq!(witness.key.as_deref(), Some("key-0"));
    assert_eq!(witness.op, Some(702));
}

#[test]
fn loss_names_aborted_and_open_records() {
    let mut world = small_world();
    let last = world.evidence.rows.iter().find(|row| row.txid == Number::of(702)).unwrap().clone();
    let log = world.log_of(&last);
    let found_at =
        world.evidence.logs[log].records.iter().position(|record| record.id == last.id).unwrap();
    world.record_at((log, found_at)).committed = false;
    let witness = found(&world.judge(), &[Name::I1]);
    assert_eq!(witness.fault, "aborted");
    assert_eq!(witness.partition, Some(world.evidence.logs[log].partition));

    // Everything from that record on is hidden by a transaction that never ended.
    let offset = world.evidence.logs[log].records[found_at].offset;
    world.evidence.logs[log].stable = offset;
    for record in &mut world.evidence.logs[log].records[found_at..] {
        record.committed = false;
    }
    let verdict = world.judge();
    assert!(verdict.violated().contains(&Name::Readable), "{verdict:#?}");
    let witness = &verdict.check(Name::Readable).witnesses[0];
    assert_eq!((witness.fault, witness.offset), ("open transaction", Some(offset)));
    assert_eq!(verdict.check(Name::I1).witnesses[0].fault, "still open");
}

#[test]
fn duplicate() {
    let mut world = small_world();
    let original = world.nth(1);
    let copy = world.record_at(original).clone();
    let id = copy.id;
    append(&mut world.evidence.logs[original.0], copy);
    let verdict = world.judge();
    let witness = found(&verdict, &[Name::I3]);
    assert_eq!((witness.id, witness.fault), (id_text(id), "repeated"));
    assert!(witness.what.starts_with("2 times: partition@offset 0@2, "), "{}", witness.what);
    assert_eq!(verdict.seen.duplicates, 1);

    world.evidence.mode = Mode::AtLeastOnce;
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass);
    assert_eq!(verdict.check(Name::I3).result, Judged::NotChecked);
    assert_eq!(verdict.seen.duplicates, 1);
}

#[test]
fn an_aborted_copy_is_counted_and_no_fault() {
    let mut world = small_world();
    let original = world.nth(0);
    let mut copy = world.record_at(original).clone();
    copy.committed = false;
    append(&mut world.evidence.logs[original.0], copy);
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");
    assert_eq!(verdict.seen.aborted_copies, 1);
    assert_eq!(verdict.seen.duplicates, 0);
}

#[test]
fn aborted_copies_may_be_anywhere_and_anything() {
    let mut world = small_world();
    // The newest version before the oldest, in another partition, with other contents.
    let (at, last) = (world.nth(0), world.nth(3));
    let early = Record { committed: false, offset: 1, ..world.record_at(last).clone() };
    world.evidence.logs[at.0].records.insert(1, early);
    let copy = world.record_at(at).clone();
    let altered = Record { committed: false, payload: 0, key: NO_KEY, ..copy };
    append(&mut world.evidence.logs[1], altered);
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");
    assert_eq!(verdict.seen.aborted_copies, 2);
}

#[test]
fn one_id_in_two_tables_means_two_events() {
    for (topic, log) in [(1, 2), (0, 0)] {
        let mut world = small_world();
        world.evidence.history = None;
        let first = world.evidence.logs[0].records[0].clone();
        let row = world.row_of((0, 0));
        let table = 1 - row.table;
        let twin = Row { table, topic, txid: Number::of(1), version: Number::ABSENT, ..row };
        let record = Record { version: Number::ABSENT, lsn: Number::ABSENT, ..first };
        append(&mut world.evidence.logs[log], record);
        world.evidence.rows.push(twin);
        world.evidence.seal();
        let verdict = world.judge();
        assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");
        assert_eq!(verdict.seen.duplicates, 0);
    }
}

#[test]
fn phantoms_at_either_level() {
    for committed in [true, false] {
        for (fate, fault) in [
            (Some(Fate::RolledBack), "rolled back"),
            (Some(Fate::Undone), "undone at a savepoint"),
            (Some(Fate::Failed), "of a failed transaction"),
            (Some(Fate::Unknown), "not in the table"),
            (None, "not in the table"),
        ] {
            let mut world = small_world();
            let row = world.row(6);
            if let Some(fate) = fate {
                world.remember(&row, fate);
            }
            let record = Record { committed, ..world.record(&row) };
            let log = world.log_of(&row);
            append(&mut world.evidence.logs[log], record);
            let witness = found(&world.judge(), &[Name::I2]);
            assert_eq!((witness.id, witness.fault), (id_text(row.id), fault));
            assert_eq!(witness.what.contains("read_uncommitted"), !committed);
        }
    }
}

#[test]
fn a_row_with_a_forbidden_id_is_a_fault_of_table_and_relay() {
    let mut world = small_world();
    let id = world.evidence.rows[0].id;
    let writes = &mut world.evidence.history.as_mut().unwrap().writes;
    writes.iter_mut().find(|write| write.id == id).unwrap().fate = Fate::RolledBack;
    let witness = found(&world.judge(), &[Name::I2, Name::Table]);
    assert_eq!((witness.id, witness.fault), (id_text(id), "rolled back"));
}

#[test]
fn a_record_of_a_row_the_table_lost_is_no_phantom() {
    let mut world = small_world();
    let row = world.evidence.rows.remove(0);
    let witness = found(&world.judge(), &[Name::Table]);
    assert_eq!((witness.id, witness.fault), (id_text(row.id), "lost in the table"));
}

#[test]
fn records_without_a_readable_id() {
    for (id_header, fault) in
        [(IdHeader::Absent, "no id header"), (IdHeader::Unreadable, "unreadable id header")]
    {
        let mut world = small_world();
        let row = world.row(4);
        let record = Record { id: 0, id_header, ..world.record(&row) };
        append(&mut world.evidence.logs[0], record);
        let witness = found(&world.judge(), &[Name::I2]);
        assert_eq!((witness.id, witness.fault), (None, fault));
        assert_eq!(witness.key.as_deref(), Some("key-4"));
    }
}

#[test]
fn tear_is_a_loss_too() {
    let mut world = small_world();
    let part = world.evidence.rows.iter().find(|row| row.txid == Number::of(701)).unwrap().clone();
    for log in &mut world.evidence.logs {
        log.records.retain(|record| record.id != part.id);
    }
    let verdict = world.judge();
    found(&verdict, &[Name::I1, Name::I5]);
    let witness = &verdict.check(Name::I5).witnesses[0];
    assert_eq!((witness.id.clone(), witness.txid), (id_text(part.id), Some(701)));
    assert_eq!(witness.what, "1 of its 3 rows are missing, this one first");
}

#[test]
fn disorder_by_version() {
    let mut world = small_world();
    // key-0: versions 1, 2, 3, 4 in log 0.
    let records = &mut world.evidence.logs[0].records;
    for record in records.iter_mut() {
        record.lsn = Number::ABSENT;
    }
    let (one, two) = (records[2].offset, records[1].offset);
    records.swap(1, 2);
    (records[1].offset, records[2].offset) = (two, one);
    let witness = found(&world.judge(), &[Name::I4]);
    assert_eq!((witness.fault, witness.version), ("older version after newer", Some(2)));
    assert_eq!(witness.offset, Some(one));
    assert_eq!(witness.key.as_deref(), Some("key-0"));
}

#[test]
fn disorder_by_position() {
    let mut world = small_world();
    let last = world.evidence.logs[0].records.last_mut().unwrap();
    last.lsn = Number::of(1);
    let offset = last.offset;
    let witness = found(&world.judge(), &[Name::I4]);
    assert_eq!((witness.fault, witness.offset), ("position went back", Some(offset)));
    assert_eq!(witness.lsn.as_deref(), Some("0/1"));

    world.evidence.logs[0].records.last_mut().unwrap().lsn = Number::UNREADABLE;
    assert_eq!(found(&world.judge(), &[Name::I4]).fault, "unreadable postrider-lsn");
}

#[test]
fn disorder_within_a_transaction_by_seq() {
    let mut world = small_world();
    without_versions(&mut world);
    assert_eq!(world.judge().outcome, Outcome::Pass);
    let records = &mut world.evidence.logs[0].records;
    let (one, two) = (records[0].offset, records[1].offset);
    records.swap(0, 1);
    (records[0].offset, records[1].offset) = (one, two);
    let witness = found(&world.judge(), &[Name::I4]);
    assert_eq!((witness.fault, witness.txid), ("against the order of seq", Some(701)));
}

fn without_versions(world: &mut World) {
    for table in &mut world.evidence.tables {
        table.has_version = false;
    }
    for row in &mut world.evidence.rows {
        row.version = Number::ABSENT;
    }
    for record in world.evidence.logs.iter_mut().flat_map(|log| &mut log.records) {
        record.version = Number::ABSENT;
        record.lsn = Number::ABSENT;
    }
}

#[test]
fn order_that_cannot_be_told_is_not_checked() {
    let mut world = small_world();
    without_versions(&mut world);
    for row in &mut world.evidence.rows {
        row.seq = Number::ABSENT;
    }
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass);
    assert_eq!(verdict.check(Name::I4).result, Judged::NotChecked);
    assert!(verdict.check(Name::I4).reason.is_some());
}

#[test]
fn order_by_the_header_where_the_table_has_no_version() {
    let mut world = small_world();
    without_versions(&mut world);
    let log = &mut world.evidence.logs[0].records;
    (log[0].version, log[2].version) = (Number::of(2), Number::of(1));
    assert_eq!(found(&world.judge(), &[Name::I4]).fault, "older version after newer");
}

#[test]
fn repetitions_do_not_count_as_disorder() {
    let mut world = small_world();
    world.evidence.mode = Mode::AtLeastOnce;
    let again: Vec<Record> = world.evidence.logs[0].records[1..].to_vec();
    for record in again {
        append(&mut world.evidence.logs[0], record);
    }
    assert_eq!(world.judge().outcome, Outcome::Pass);
}

#[test]
fn a_table_without_txid_leaves_transactions_unchecked() {
    let mut world = small_world();
    for table in &mut world.evidence.tables {
        table.has_txid = false;
    }
    for row in &mut world.evidence.rows {
        row.txid = Number::ABSENT;
    }
    let verdict = world.judge();
    let check = verdict.check(Name::I5);
    assert_eq!(check.result, Judged::NotChecked);
    assert_eq!(check.reason.as_deref(), Some("no column txid in public.outbox, public.outbox_two"));
}

#[test]
fn misrouted_key() {
    let mut world = small_world();
    // Version 4 of key-0, which is followed by the only record of key-2: a key with one record has
    // no second partition to be compared with.
    let mut moved = world.evidence.logs[0].records.remove(3);
    moved.lsn = Number::ABSENT;
    let id = moved.id;
    let key = world.evidence.rows[world.evidence.rows_of(id).start].key;
    append(&mut world.evidence.logs[1], moved);
    let witness = found(&world.judge(), &[Name::I6]);
    assert_eq!((witness.id, witness.fault), (id_text(id), "several partitions"));
    assert_eq!(witness.key, Some(world.evidence.keys.text(key)));
    assert_eq!(witness.partition, Some(1));
}

#[test]
fn wrong_topic() {
    let mut world = small_world();
    let moved = world.evidence.logs[0].records.pop().unwrap();
    let id = moved.id;
    append(&mut world.evidence.logs[2], moved);
    let witness = found(&world.judge(), &[Name::I6]);
    assert_eq!((witness.id, witness.fault), (id_text(id), "wrong topic"));
    assert_eq!(witness.topic.as_deref(), Some(TOPICS[1]));
}

#[test]
fn alterations() {
    type Alter = fn(&mut Record);
    let cases: [(&str, Alter); 5] = [
        ("altered payload", |record| record.payload ^= 1),
        ("altered payload", |record| record.payload = digest(None)),
        ("altered key", |record| record.key = NO_KEY),
        ("altered version", |record| record.version = Number::of(99)),
        ("unreadable aggregateversion", |record| record.version = Number::UNREADABLE),
    ];
    for (fault, alter) in cases {
        let mut world = small_world();
        let at = world.nth(2);
        alter(world.record_at(at));
        let id = world.record_at(at).id;
        let witness = found(&world.judge(), &[Name::Content]);
        assert_eq!((witness.id, witness.fault), (id_text(id), fault));
    }
}

#[test]
fn payloads_that_were_not_read_are_not_compared_and_said_so() {
    let mut world = small_world();
    world.evidence.tables[1].has_payload = false;
    let at = (0..6).map(|it| world.nth(it)).find(|&at| world.row_of(at).table == 1).unwrap();
    world.record_at(at).payload ^= 1;
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass);
    let reason = verdict.check(Name::Content).reason.clone();
    assert_eq!(reason.as_deref(), Some("payloads not compared for public.outbox_two"));
}

#[test]
fn the_table_differs_from_what_was_written() {
    type Alter = fn(&mut Write);
    let cases: [Alter; 3] = [
        |write| write.version = Number::of(77),
        |write| write.key = NO_KEY,
        |write| write.table = Some("public.other".into()),
    ];
    for alter in cases {
        let mut world = small_world();
        alter(&mut world.evidence.history.as_mut().unwrap().writes[3]);
        let witness = found(&world.judge(), &[Name::Table]);
        assert_eq!(witness.fault, "differs from what was written");
    }
}

#[test]
fn a_late_row_vouches_for_its_record_and_demands_nothing() {
    let mut world = small_world();
    let row = Row { late: true, ..world.row(0) };
    let sibling = Row { late: true, ..world.row(1) };
    let record = world.record(&row);
    append(&mut world.evidence.logs[0], record);
    world.evidence.rows.extend([row, sibling]);
    world.evidence.seal();
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:#?}");
    assert_eq!(verdict.seen.late_rows, 2);
}

#[test]
fn gaps_in_the_table_are_noted() {
    let mut world = small_world();
    world.evidence.history = None;
    let second = world.evidence.rows.iter().position(|row| {
        row.version == Number::of(2) && world.evidence.keys.text(row.key) == "key-0"
    });
    let gone = world.evidence.rows.remove(second.unwrap());
    for log in &mut world.evidence.logs {
        log.records.retain(|record| record.id != gone.id);
    }
    let verdict = world.judge();
    assert_eq!(verdict.outcome, Outcome::Pass);
    assert_eq!(
        verdict.notes,
        ["the tables have 1 gaps in the versions of a key; first: key key-0 of \
          outbox.event.order, version 3 follows 1"]
    );
}

#[test]
fn expired_records_are_mentioned_beside_a_loss() {
    let mut world = small_world();
    world.evidence.logs[0].start = 2;
    world.evidence.logs[0].records.remove(0);
    let verdict = world.judge();
    found(&verdict, &[Name::I1, Name::I5]);
    assert!(verdict.check(Name::I1).reason.as_ref().unwrap().contains("expired"));
}
