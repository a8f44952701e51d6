//! The plan: which transactions the load will run, made from a seed and nothing else.
//!
//! Promises that transaction number *n* of a seed is the same in every run and on every machine,
//! whatever happened to the transactions before it; so a failure is replayed with its seed, and
//! the plan needs no memory. Versions are not part of it: they exist only under the row lock of
//! their aggregate, because two workers that commit in another order than the plan's are right.
//!
//! Guarantee: same seed and same mix, same transactions, payloads included.
//! Bounded by: the limits that [`Mix::check`] states.
//! Tested by: this module's tests.

use fastrand::Rng;
use uuid::Uuid;

use crate::drill::history::Intent;

/// Rows in one transaction, at most. Enough for a tear to show, few enough to be shown.
pub const ROWS_MAX: u32 = 1_000;
/// One payload, at most: Kafka's default limit is 1 MiB a record, and the load goes beyond it only
/// when asked to.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Keys of one aggregate type, at most: setup writes a row for each.
pub const KEYS_MAX: u32 = 1_000_000;
/// Where "large" begins: beyond Postgres' TOAST threshold and librdkafka's small-buffer paths.
const LARGE_BYTES_MIN: usize = 16 * 1024;
/// Payloads that are not large.
const SMALL_BYTES: std::ops::RangeInclusive<usize> = 0..=400;

/// The column type of a table's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// `json`: the text is kept as it was written
    Json,
    /// `jsonb`: Postgres rewrites the text
    Jsonb,
    /// `text`
    Text,
    /// `bytea`, filled with any bytes, zero included
    Bytea,
}

/// One outbox table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// `schema.table`, both plain lower-case identifiers.
    pub name: String,
    /// The type of its payload column.
    pub payload: Payload,
    /// The aggregate types whose events it holds; no type belongs to two tables, because order
    /// within a key is promised within one table.
    pub aggregatetypes: Vec<String>,
}

impl Table {
    /// A table with one aggregate type.
    pub fn new(name: &str, payload: Payload, aggregatetype: &str) -> Self {
        Self { name: name.to_owned(), payload, aggregatetypes: vec![aggregatetype.to_owned()] }
    }
}

/// What the transactions are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// Where the rows go.
    pub tables: Vec<Table>,
    /// How many keys each aggregate type has.
    pub keys: u32,
    /// How many of them are hot.
    pub hot_keys: u32,
    /// How many of 100 rows go to a hot key.
    pub hot_percent: u32,
    /// How many of 100 transactions have more than one row.
    pub multi_percent: u32,
    /// Rows in one transaction, at most.
    pub rows_max: u32,
    /// How many of 100 transactions use savepoints.
    pub savepoint_percent: u32,
    /// How many of 100 transactions are rolled back whole.
    pub rollback_percent: u32,
    /// How many of 1000 rows are large.
    pub large_permille: u32,
    /// The size of the largest payload, in bytes.
    pub large_bytes_max: usize,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            tables: vec![
                Table {
                    name: "public.outbox".to_owned(),
                    payload: Payload::Json,
                    aggregatetypes: vec!["order".to_owned(), "payment".to_owned()],
                },
                Table::new("drill.outbox_jsonb", Payload::Jsonb, "stock"),
                Table::new("drill.outbox_text", Payload::Text, "shipment"),
                Table::new("drill.outbox_bytea", Payload::Bytea, "label"),
            ],
            keys: 200,
            hot_keys: 3,
            hot_percent: 20,
            multi_percent: 30,
            rows_max: 8,
            savepoint_percent: 15,
            rollback_percent: 10,
            large_permille: 5,
            large_bytes_max: 256 * 1024,
        }
    }
}

/// Why a mix is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field} is {value}, but {rule}")]
pub struct MixError {
    field: &'static str,
    value: String,
    rule: String,
}

impl Mix {
    /// Refuses what the plan or the SQL made from it could not carry.
    pub fn check(&self) -> Result<(), MixError> {
        let wrong = |field, value: String, rule: &str| {
            Err(MixError { field, value, rule: rule.to_owned() })
        };
        let mut seen = std::collections::BTreeSet::new();
        for table in &self.tables {
            if !is_table_name(&table.name) {
                let rule = "it must be schema.table in lower-case letters, digits and _";
                return wrong("a table", format!("\"{}\"", table.name), rule);
            }
            if table.aggregatetypes.is_empty() {
                let rule = "a table needs at least one";
                return wrong("the aggregate types", format!("empty for {}", table.name), rule);
            }
            for kind in &table.aggregatetypes {
                if kind.is_empty() || !seen.insert(kind) {
                    let rule = "each needs a name and belongs to one table only";
                    return wrong("an aggregate type", format!("\"{kind}\" again or empty"), rule);
                }
            }
        }
        if seen.is_empty() {
            return wrong("the list of tables", "empty".to_owned(), "the load needs one");
        }
        let ranges = [
            ("keys", self.keys, 1, KEYS_MAX),
            ("hot-keys", self.hot_keys, 1, self.keys),
            ("rows-max", self.rows_max, 1, ROWS_MAX),
            ("hot-percent", self.hot_percent, 0, 100),
            ("multi-percent", self.multi_percent, 0, 100),
            ("savepoint-percent", self.savepoint_percent, 0, 100),
            ("rollback-percent", self.rollback_percent, 0, 100),
            ("large-permille", self.large_permille, 0, 1000),
        ];
        for (field, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return wrong(field, value.to_string(), &format!("it must be {low} to {high}"));
            }
        }
        if !(LARGE_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&self.large_bytes_max) {
            let rule = format!("it must be {LARGE_BYTES_MIN} to {PAYLOAD_BYTES_MAX} bytes");
            return wrong("large-bytes", self.large_bytes_max.to_string(), &rule);
        }
        Ok(())
    }
}

fn is_table_name(name: &str) -> bool {
    let plain = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
            && part.len() < 64
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    name.split_once('.').is_some_and(|(schema, table)| plain(schema) && plain(table))
}

/// One row, without its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRow {
    /// The event's id.
    pub id: Uuid,
    /// Index into [`Mix::tables`].
    pub table: usize,
    /// The aggregate type, of which the topic is made.
    pub aggregatetype: String,
    /// `<aggregate type>-<number>`: no two types share a key.
    pub key: String,
    /// W3C trace context, on some rows.
    pub traceparent: Option<String>,
    /// How long the filling of the payload is.
    pub payload_bytes: usize,
    fill_seed: u64,
}

impl PlannedRow {
    /// The payload for `json`, `jsonb` and `text` columns: an object whose filling does not compress, so
    /// that a large row is large on disk too.
    pub fn payload_text(&self) -> String {
        let mut rng = Rng::with_seed(self.fill_seed);
        let fill: String = (0..self.payload_bytes).map(|_| rng.alphanumeric()).collect();
        format!("{{\"id\": \"{}\", \"fill\": \"{fill}\"}}", self.id)
    }

    /// The payload for `bytea` columns.
    pub fn payload_binary(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.payload_bytes];
        Rng::with_seed(self.fill_seed).fill(&mut bytes);
        bytes
    }
}

/// One statement of a transaction, between BEGIN and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write one row.
    Insert(PlannedRow),
    /// Open a savepoint inside the ones that are open.
    Savepoint,
    /// Undo back to the innermost savepoint, and close it.
    RollbackToSavepoint,
    /// Close the innermost savepoint and keep what was done.
    ReleaseSavepoint,
}

/// One transaction of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its number, from 0.
    pub op: u64,
    /// What it does.
    pub steps: Vec<Step>,
    /// How it ends.
    pub intent: Intent,
}

impl Transaction {
    /// Its rows, in order, those that will be undone included.
    pub fn rows(&self) -> impl Iterator<Item = &PlannedRow> {
        self.steps.iter().filter_map(|step| match step {
            Step::Insert(row) => Some(row),
            Step::Savepoint | Step::RollbackToSavepoint | Step::ReleaseSavepoint => None,
        })
    }

    /// Its keys, each once, sorted: everybody locks in this order, so nobody deadlocks.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.rows().map(|row| row.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// All transactions of a seed, without end.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: u64,
    mix: Mix,
    next: u64,
}

impl Plan {
    /// The plan of a seed. Refuses a mix that [`Mix::check`] refuses.
    pub fn new(seed: u64, mix: Mix) -> Result<Self, MixError> {
        mix.check()?;
        Ok(Self { seed, mix, next: 0 })
    }

    /// What the transactions are like.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Transaction number `op`, whatever came before it.
    pub fn transaction(&self, op: u64) -> Transaction {
        let mut rng = Rng::with_seed(scramble(self.seed, op));
        let rolled_back = percent(&mut rng, self.mix.rollback_percent);
        let intent = if rolled_back { Intent::Rollback } else { Intent::Commit };
        let steps = if percent(&mut rng, self.mix.savepoint_percent) {
            self.with_savepoints(&mut rng)
        } else if percent(&mut rng, self.mix.multi_percent) {
            let mut steps = Vec::new();
            self.insert_some(&mut rng, &mut steps, 2);
            steps
        } else {
            vec![Step::Insert(self.row(&mut rng))]
        };
        Transaction { op, steps, intent }
    }

    /// The shapes in which applications and their frameworks use savepoints.
    fn with_savepoints(&self, rng: &mut Rng) -> Vec<Step> {
        let mut steps = Vec::new();
        match rng.u32(0..4) {
            // A try that failed, between work that stands.
            0 => {
                self.insert_some(rng, &mut steps, 1);
                steps.push(Step::Savepoint);
                self.insert_some(rng, &mut steps, 1);
                steps.push(Step::RollbackToSavepoint);
                steps.push(Step::Insert(self.row(rng)));
            }
            // A try that worked: the rows belong to a subtransaction, yet must be seen.
            1 => {
                steps.push(Step::Savepoint);
                self.insert_some(rng, &mut steps, 1);
                steps.push(Step::ReleaseSavepoint);
                steps.push(Step::Insert(self.row(rng)));
            }
            // Everything undone, then COMMIT: a transaction that commits nothing.
            2 => {
                steps.push(Step::Savepoint);
                self.insert_some(rng, &mut steps, 1);
                steps.push(Step::RollbackToSavepoint);
            }
            // Nested: the inner one fails, the outer one stands.
            _ => {
                steps.push(Step::Savepoint);
                steps.push(Step::Insert(self.row(rng)));
                steps.push(Step::Savepoint);
                self.insert_some(rng, &mut steps, 1);
                steps.push(Step::RollbackToSavepoint);
                steps.push(Step::ReleaseSavepoint);
            }
        }
        steps
    }

    fn insert_some(&self, rng: &mut Rng, steps: &mut Vec<Step>, at_least: u32) {
        let low = at_least.min(self.mix.rows_max);
        for _ in 0..rng.u32(low..=self.mix.rows_max) {
            steps.push(Step::Insert(self.row(rng)));
        }
    }

    fn row(&self, rng: &mut Rng) -> PlannedRow {
        let kinds = self.mix.tables.iter().map(|table| table.aggregatetypes.len()).sum();
        let (table, aggregatetype) = self.kind(rng.usize(0..kinds));
        let hot = percent(rng, self.mix.hot_percent);
        let key = rng.u32(0..if hot { self.mix.hot_keys } else { self.mix.keys });
        let large = rng.u32(0..1000) < self.mix.large_permille;
        PlannedRow {
            id: uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid(),
            table,
            aggregatetype: aggregatetype.to_owned(),
            key: key_name(aggregatetype, key),
            traceparent: percent(rng, 25)
                .then(|| format!("00-{:032x}-{:016x}-01", rng.u128(1..), rng.u64(1..))),
            payload_bytes: if large {
                rng.usize(LARGE_BYTES_MIN..=self.mix.large_bytes_max)
            } else {
                rng.usize(SMALL_BYTES)
            },
            fill_seed: rng.u64(..),
        }
    }

    fn kind(&self, index: usize) -> (usize, &str) {
        self.mix
            .tables
            .iter()
            .enumerate()
            .flat_map(|(at, table)| table.aggregatetypes.iter().map(move |kind| (at, &**kind)))
            .nth(index)
            .expect("the index is below the number of aggregate types, which is what is walked")
    }
}

impl Iterator for Plan {
    type Item = Transaction;

    fn next(&mut self) -> Option<Transaction> {
        let transaction = self.transaction(self.next);
        self.next += 1;
        Some(transaction)
    }
}

/// The name of a key. Setup makes the same names in SQL.
pub(super) fn key_name(aggregatetype: &str, number: u32) -> String {
    format!("{aggregatetype}-{number}")
}

fn percent(rng: &mut Rng, of_hundred: u32) -> bool {
    rng.u32(0..100) < of_hundred
}

/// SplitMix64's finisher: neighbouring numbers give unrelated generators.
pub(super) fn scramble(seed: u64, op: u64) -> u64 {
    let mut mixed = seed.wrapping_add(op.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, Mix::default()).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let first: Vec<_> = plan(7).take(500).collect();
        assert_eq!(first, plan(7).take(500).collect::<Vec<_>>());
        assert_ne!(first, plan(8).take(500).collect::<Vec<_>>());
        // Any transaction can be had without those before it.
        assert_eq!(first[321], plan(7).transaction(321));
        let row = first[0].rows().next().unwrap();
        assert_eq!(
            row.payload_text(),
            plan(7).transaction(0).rows().next().unwrap().payload_text()
        );
    }

    /// A changed generator makes every noted seed worthless; this test makes the change visible.
    #[test]
    fn a_noted_seed_keeps_its_meaning() {
        let ids: Vec<String> = plan(7)
            .take(200)
            .flat_map(|t| t.rows().map(|r| r.id.to_string()).collect::<Vec<_>>())
            .take(2)
            .collect();
        assert_eq!(
            ids,
            ["9b2fd16a-3f3b-49aa-ab32-c610fd96a515", "62123e55-fefd-4b22-af59-795ead7668a6",]
        );
    }

    #[test]
    fn every_shape_comes_up() {
        let sample: Vec<_> = plan(1).take(5_000).collect();
        let share = |what: &dyn Fn(&Transaction) -> bool| {
            sample.iter().filter(|transaction| what(transaction)).count() * 100 / sample.len()
        };
        assert!((8..=12).contains(&share(&|t| t.intent == Intent::Rollback)));
        assert!((12..=18).contains(&share(&|t| t.steps.contains(&Step::Savepoint))));
        assert!((50..=70).contains(&share(&|t| t.rows().count() == 1)));
        let rows: Vec<_> = sample.iter().flat_map(Transaction::rows).collect();
        let hot = rows.iter().filter(|row| row.key.ends_with("-0")).count() * 100 / rows.len();
        assert!((5..=10).contains(&hot), "{hot}");
        assert!(rows.iter().any(|row| row.payload_bytes > 100_000));
        assert!(rows.iter().any(|row| row.payload_bytes == 0));
        assert_eq!(rows.iter().map(|row| row.table).collect::<HashSet<_>>().len(), 4);
        assert_eq!(rows.iter().map(|row| row.id).collect::<HashSet<_>>().len(), rows.len());
    }

    #[test]
    fn savepoints_nest_and_close() {
        for transaction in plan(3).take(2_000) {
            let mut open = 0;
            for step in &transaction.steps {
                match step {
                    Step::Insert(_) => {}
                    Step::Savepoint => open += 1,
                    Step::RollbackToSavepoint | Step::ReleaseSavepoint => open -= 1,
                }
                assert!(open >= 0, "{transaction:?}");
            }
            assert_eq!(open, 0, "{transaction:?}");
        }
    }

    #[test]
    fn payloads_are_what_their_column_takes() {
        for row in plan(2).take(200).flat_map(|t| t.rows().cloned().collect::<Vec<_>>()) {
            serde_json::from_str::<serde_json::Value>(&row.payload_text()).unwrap();
            assert_eq!(row.payload_binary().len(), row.payload_bytes);
        }
    }

    #[test]
    fn a_mix_that_cannot_work_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut Mix)| {
            let mut mix = Mix::default();
            change(&mut mix);
            mix.check().unwrap_err().to_string()
        };
        assert!(refused(&|mix| mix.hot_keys = 0).contains("hot-keys is 0"));
        assert!(refused(&|mix| mix.tables.clear()).contains("list of tables"));
        assert!(refused(&|mix| mix.tables[0].name = "a.b;drop".to_owned()).contains("a.b;drop"));
        assert!(
            refused(&|mix| mix.tables[1].aggregatetypes = vec!["order".into()]).contains("order")
        );
        assert!(refused(&|mix| mix.large_bytes_max = usize::MAX).contains("large-bytes"));
        assert!(refused(&|mix| mix.rollback_percent = 101).contains("0 to 100"));
    }
}
