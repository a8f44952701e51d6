//! The checker is checked: each planted fault is found, named and witnessed, clean evidence
//! passes, and every field of a row and a record matters to some verdict.

mod legal;
mod planted;
mod random;

use super::super::evidence::{
    Evidence, Fate, History, IdHeader, Mode, Number, PartitionLog, Record, Row, Table, Write,
    digest,
};
use super::super::verdict::{Name, Outcome, Verdict, Witness};
use super::judge;

const TABLES: [&str; 2] = ["public.outbox", "public.outbox_two"];
const TOPICS: [&str; 2] = ["outbox.event.order", "outbox.event.payment"];

/// Makes clean evidence: what a correct relay leaves behind.
struct World {
    evidence: Evidence,
    random: fastrand::Rng,
    versions: std::collections::HashMap<(u32, u32), i64>,
    txid: i64,
    seq: i64,
    lsn: i64,
}

impl World {
    fn new(seed: u64, partitions: i32) -> Self {
        let mut evidence = Evidence::new(Mode::ExactlyOnce);
        for name in TABLES {
            evidence.tables.push(Table {
                name: name.to_owned(),
                has_txid: true,
                has_version: true,
                has_seq: true,
                has_payload: true,
            });
        }
        for name in TOPICS {
            let topic = evidence.topics.intern(name.as_bytes());
            for partition in 0..partitions {
                let (start, end, stable, moving, records) = (0, 0, 0, false, Vec::new());
                evidence.logs.push(PartitionLog {
                    topic,
                    partition,
                    start,
                    end,
                    stable,
                    moving,
                    records,
                });
            }
        }
        evidence.history = Some(History::default());
        let random = fastrand::Rng::with_seed(seed);
        Self { evidence, random, versions: Default::default(), txid: 700, seq: 0, lsn: 1 << 32 }
    }

    /// One committed transaction, published. Keys are numbers, so that a test can name them.
    fn transaction(&mut self, keys: &[u32]) {
        self.txid += 1;
        self.lsn += 100;
        let rows: Vec<Row> = keys.iter().map(|&key| self.row(key)).collect();
        for row in rows {
            self.remember(&row, Fate::Committed);
            let record = self.record(&row);
            let log = self.log_of(&row);
            append(&mut self.evidence.logs[log], record);
            self.evidence.rows.push(row);
        }
        self.evidence.seal();
    }

    fn row(&mut self, key: u32) -> Row {
        self.seq += 1;
        let topic = key % 2;
        let key = self.evidence.keys.intern(format!("key-{key}").as_bytes());
        let version = self.versions.entry((topic, key)).or_default();
        *version += 1;
        Row {
            id: self.random.u128(..),
            version: Number::of(*version),
            txid: Number::of(self.txid),
            seq: Number::of(self.seq),
            payload: digest(Some(&self.seq.to_le_bytes())),
            key,
            topic,
            table: u16::from(key.is_multiple_of(3)),
            late: false,
        }
    }

    fn record(&self, row: &Row) -> Record {
        Record {
            id: row.id,
            offset: 0,
            timestamp: 1_700_000_000_000 + self.lsn,
            version: row.version,
            lsn: Number::of(self.lsn),
            payload: row.payload,
            key: row.key,
            id_header: IdHeader::Uuid,
            committed: true,
        }
    }

    fn remember(&mut self, row: &Row, fate: Fate) {
        let history = self.evidence.history.get_or_insert_default();
        history.writes.push(Write {
            id: row.id,
            op: row.txid.get().unwrap().unsigned_abs(),
            at_us: 5,
            version: row.version,
            key: row.key,
            table: Some(TABLES[usize::from(row.table)].into()),
            fate,
        });
        history.writes.sort_unstable_by_key(|write| write.id);
    }

    fn log_of(&self, row: &Row) -> usize {
        let partitions = u32::try_from(self.evidence.logs.len()).unwrap() / 2;
        (row.topic * partitions + row.key % partitions) as usize
    }

    /// A random run; at least two versions of some keys and one transaction of several rows.
    fn random(seed: u64) -> Self {
        let mut world = Self::new(seed, 3);
        world.transaction(&[0, 1, 2, 0, 1]);
        for _ in 0..world.random.usize(0..20) {
            let keys: Vec<u32> =
                (0..world.random.usize(1..6)).map(|_| world.random.u32(0..8)).collect();
            world.transaction(&keys);
        }
        world
    }

    /// A committed record, by its number in the order of logs.
    fn nth(&self, number: usize) -> (usize, usize) {
        let mut left = number;
        for (log, partition) in self.evidence.logs.iter().enumerate() {
            if left < partition.records.len() {
                return (log, left);
            }
            left -= partition.records.len();
        }
        panic!("no record {number}");
    }

    fn any_record(&mut self) -> (usize, usize) {
        let all: usize = self.evidence.logs.iter().map(|log| log.records.len()).sum();
        let number = self.random.usize(0..all);
        self.nth(number)
    }

    fn record_at(&mut self, (log, index): (usize, usize)) -> &mut Record {
        &mut self.evidence.logs[log].records[index]
    }

    fn row_of(&self, (log, index): (usize, usize)) -> Row {
        let id = self.evidence.logs[log].records[index].id;
        self.evidence.rows[self.evidence.rows_of(id).start].clone()
    }

    fn judge(&self) -> Verdict {
        judge(&self.evidence)
    }
}

/// Appends as a transactional producer does: offsets have gaps where control records are.
fn append(log: &mut PartitionLog, mut record: Record) {
    record.offset = log.end;
    log.records.push(record);
    log.end += 2;
    log.stable = log.end;
}

fn id_text(id: u128) -> Option<String> {
    Some(uuid::Uuid::from_u128(id).to_string())
}

/// Exactly these checks are violated; returns the first one's first witness.
#[track_caller]
fn found(verdict: &Verdict, expected: &[Name]) -> Witness {
    assert_eq!(verdict.violated(), expected, "{verdict:#?}");
    assert_eq!(verdict.outcome, Outcome::Violated);
    let check = verdict.check(expected[0]);
    assert!(check.bad > 0 && !check.faults.is_empty());
    check.witnesses[0].clone()
}

fn small_world() -> World {
    let mut world = World::new(1, 2);
    world.transaction(&[0, 1, 0]);
    world.transaction(&[0]);
    world.transaction(&[0, 2]);
    world
}
