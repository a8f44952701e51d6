//! What was found in the tables, the topics and the history, in the form the judgement reads.
//!
//! Promises: one small, fixed size a row and a record, names interned, so that two million events
//! fit into a few hundred megabytes. Refuses to interpret: nothing here says what is right.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use serde::Serialize;

/// What the relay under test promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every committed row has one record for a reader at read_committed.
    ExactlyOnce,
    /// Every committed row has at least one record; repetitions are counted, not judged.
    AtLeastOnce,
}

/// Everything the judgement is made from.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What was promised.
    pub mode: Mode,
    /// The tables read, and which columns they have.
    pub tables: Vec<Table>,
    /// Names of topics, by [`TopicId`].
    pub topics: Names,
    /// Aggregate ids and record keys.
    pub keys: Names,
    /// The rows of the tables: the truth. Sorted by id once all are read, see [`Self::seal`].
    pub rows: Vec<Row>,
    /// What the partitions of the topics hold.
    pub logs: Vec<PartitionLog>,
    /// What the writers said, if they left a history.
    pub history: Option<History>,
    /// Circumstances a reader of the verdict should know.
    pub notes: Vec<String>,
}

/// Index into [`Evidence::topics`].
pub type TopicId = u32;
/// Index into [`Evidence::keys`].
pub type KeyId = u32;

impl Evidence {
    /// Nothing found yet.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            tables: Vec::new(),
            topics: Names::default(),
            keys: Names::default(),
            rows: Vec::new(),
            logs: Vec::new(),
            history: None,
            notes: Vec::new(),
        }
    }

    /// Sorts the rows by id, as [`Self::rows_of`] and the judgement need them.
    pub fn seal(&mut self) {
        self.rows.sort_unstable_by_key(|row| row.id);
    }

    /// Where the rows with this id are; more than one only if two tables hold the same id.
    #[must_use]
    pub fn rows_of(&self, id: u128) -> std::ops::Range<usize> {
        let from = self.rows.partition_point(|row| row.id < id);
        let count = self.rows[from..].iter().take_while(|row| row.id == id).count();
        from..from + count
    }
}

/// An outbox table: its name and the optional columns it has.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// As given by the user, `schema.name`.
    pub name: String,
    /// Has `txid`, so that whole transactions (I5) can be judged.
    pub has_txid: bool,
    /// Has `aggregateversion`, so that order within a key (I4) can be judged.
    pub has_version: bool,
    /// Has `seq`.
    pub has_seq: bool,
    /// Its payload was read and may be compared with the records' values.
    pub has_payload: bool,
}

/// A committed row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The event's id.
    pub id: u128,
    /// `aggregateversion`.
    pub version: Number,
    /// The Postgres transaction that wrote the row.
    pub txid: Number,
    /// The table's identity column: the order of rows within a transaction.
    pub seq: Number,
    /// [`digest`] of the payload; meaningless without [`Table::has_payload`].
    pub payload: u64,
    /// `aggregateid`.
    pub key: KeyId,
    /// The topic the row belongs to.
    pub topic: TopicId,
    /// Index into [`Evidence::tables`].
    pub table: u16,
    /// Found only by a second look, after its record was seen: committed while the topics were
    /// being read. Such a row proves its record innocent; nothing is demanded on its behalf.
    pub late: bool,
}

/// The records of one partition, in offset order.
#[derive(Clone, Debug)]
pub struct PartitionLog {
    /// Which topic.
    pub topic: TopicId,
    /// Which partition.
    pub partition: i32,
    /// The first offset there was; above 0, retention has taken records away.
    pub start: i64,
    /// The high watermark up to which records count.
    pub end: i64,
    /// How far a read_committed reader gets. Below `end`, a transaction is open at this offset.
    pub stable: i64,
    /// The open transaction at `stable` is a new one: before it, readers were getting ahead.
    pub moving: bool,
    /// What a read_uncommitted reader sees, in offset order.
    pub records: Vec<Record>,
}

/// A record in a topic.
#[derive(Clone, Debug)]
pub struct Record {
    /// The `id` header; 0 unless `id_header` is [`IdHeader::Uuid`].
    pub id: u128,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds, shown in witnesses.
    pub timestamp: i64,
    /// The `aggregateversion` header.
    pub version: Number,
    /// The `postrider-lsn` header.
    pub lsn: Number,
    /// [`digest`] of the value.
    pub payload: u64,
    /// The record's key, [`NO_KEY`] when it has none.
    pub key: KeyId,
    /// What the `id` header looked like.
    pub id_header: IdHeader,
    /// Seen by a reader at read_committed too.
    pub committed: bool,
}

/// The key of a record without one.
pub const NO_KEY: KeyId = KeyId::MAX;

/// What was found where the `id` header should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdHeader {
    /// A UUID.
    Uuid,
    /// No such header.
    Absent,
    /// A header that is no UUID.
    Unreadable,
}

/// A number that may be missing or unreadable, in eight bytes because there are millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(i64);

impl Number {
    /// There is none: a null, or no such header.
    pub const ABSENT: Self = Self(i64::MIN);
    /// There is something, but no number.
    pub const UNREADABLE: Self = Self(i64::MIN + 1);

    /// The number. The two lowest `i64` have other meanings and are no versions or positions.
    #[must_use]
    pub const fn of(value: i64) -> Self {
        Self(value)
    }

    /// A column's value.
    #[must_use]
    pub fn maybe(value: Option<i64>) -> Self {
        value.map_or(Self::ABSENT, Self)
    }

    /// The number, if there is one.
    #[must_use]
    pub fn get(self) -> Option<i64> {
        (self != Self::ABSENT && self != Self::UNREADABLE).then_some(self.0)
    }

    /// A decimal number from a header.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        // The two lowest numbers mean something else here, and are nobody's version.
        number.filter(|&number| number > Self::UNREADABLE.0).map_or(Self::UNREADABLE, Self)
    }

    /// A log position in Postgres' spelling, `16/B374D848`.
    #[must_use]
    pub fn parse_lsn(text: &[u8]) -> Self {
        let position = std::str::from_utf8(text).ok().and_then(|text| {
            let (high, low) = text.split_once('/')?;
            // The parser below would take a sign.
            let digits = |part: &str| part.chars().all(|digit| digit.is_ascii_hexdigit());
            if !digits(high) || !digits(low) {
                return None;
            }
            let high = u64::from(u32::from_str_radix(high, 16).ok()?);
            let low = u64::from(u32::from_str_radix(low, 16).ok()?);
            i64::try_from(high << 32 | low).ok()
        });
        position.map_or(Self::UNREADABLE, Self)
    }
}

/// Names, each stored once.
#[derive(Clone, Debug, Default)]
pub struct Names {
    names: Vec<Arc<[u8]>>,
    index: HashMap<Arc<[u8]>, u32>,
}

impl Names {
    /// The number that stands for this name from now on.
    pub fn intern(&mut self, name: &[u8]) -> u32 {
        if let Some(&known) = self.index.get(name) {
            return known;
        }
        let next = u32::try_from(self.names.len()).expect("fewer than four billion names fit");
        let name: Arc<[u8]> = name.into();
        self.names.push(Arc::clone(&name));
        self.index.insert(name, next);
        next
    }

    /// The name as text for people; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self, number: u32) -> String {
        let name = self.names.get(number as usize);
        name.map_or_else(String::new, |name| String::from_utf8_lossy(name).into_owned())
    }
}

/// What the writers wrote down.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every row that was ever sent, sorted by id.
    pub writes: Vec<Write>,
    /// The last line was cut off in the middle: the writer was killed.
    pub torn: bool,
}

impl History {
    /// What the history says about an id.
    #[must_use]
    pub fn write_of(&self, id: u128) -> Option<&Write> {
        let found = self.writes.binary_search_by_key(&id, |write| write.id).ok()?;
        Some(&self.writes[found])
    }
}

/// One row a writer sent to Postgres.
#[derive(Clone, Debug)]
pub struct Write {
    /// The row's id.
    pub id: u128,
    /// The operation (one Postgres transaction) it belonged to.
    pub op: u64,
    /// When the writer was about to end the transaction, microseconds since 1970.
    pub at_us: i64,
    /// The version the writer gave it; absent for a row that was undone.
    pub version: Number,
    /// Its key; [`NO_KEY`] for a row that was undone.
    pub key: KeyId,
    /// The table it went to; empty for a row that was undone.
    pub table: Option<Arc<str>>,
    /// What became of it.
    pub fate: Fate,
}

/// What the writer knows about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Commit was acknowledged.
    Committed,
    /// Nobody knows; the table decides.
    Unknown,
    /// The transaction was rolled back on purpose.
    RolledBack,
    /// The row was undone by a rollback to a savepoint.
    Undone,
    /// The transaction certainly failed.
    Failed,
}

impl Fate {
    /// Why a record of such a row must never be seen, if so.
    #[must_use]
    pub fn forbidden(self) -> Option<&'static str> {
        match self {
            Self::Committed | Self::Unknown => None,
            Self::RolledBack => Some("rolled back"),
            Self::Undone => Some("undone at a savepoint"),
            Self::Failed => Some("of a failed transaction"),
        }
    }
}

/// A fingerprint of a payload or value. `None` (SQL null, tombstone) differs from empty.
#[must_use]
pub fn digest(bytes: Option<&[u8]>) -> u64 {
    // Not cryptographic: nobody plants collisions here, and it must keep up with the disk.
    let mut hasher = std::hash::DefaultHasher::new();
    match bytes {
        None => hasher.write_u8(0),
        Some(bytes) => {
            hasher.write_u8(1);
            hasher.write(bytes);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_records_stay_small() {
        assert!(size_of::<Row>() <= 64, "{}", size_of::<Row>());
        assert!(size_of::<Record>() <= 64, "{}", size_of::<Record>());
    }

    #[test]
    fn headers_are_numbers_or_are_called_unreadable() {
        assert_eq!(Number::parse(b"17").get(), Some(17));
        assert_eq!(Number::parse(b"17 "), Number::UNREADABLE);
        assert_eq!(Number::parse(b"\xff"), Number::UNREADABLE);
        // Not "no header": one that hides a version from the comparison.
        assert_eq!(Number::parse(b"-9223372036854775808"), Number::UNREADABLE);
        assert_eq!(Number::parse_lsn(b"1/0000000A").get(), Some((1 << 32) + 10));
        for bad in ["", "1", "/", "1/", "g/1", "1/1/1", "+1/1", "FFFFFFFF/0", "1/100000000"] {
            assert_eq!(Number::parse_lsn(bad.as_bytes()), Number::UNREADABLE, "{bad}");
        }
    }

    #[test]
    fn a_tombstone_is_not_an_empty_value() {
        assert_ne!(digest(None), digest(Some(b"")));
        assert_eq!(digest(Some(b"x")), digest(Some(b"x")));
    }

    #[test]
    fn names_are_stored_once() {
        let mut names = Names::default();
        assert_eq!(names.intern(b"a"), 0);
        assert_eq!(names.intern(b"b"), 1);
        assert_eq!(names.intern(b"a"), 0);
        assert_eq!(names.text(1), "b");
    }
}
