//! The judgement's result: what was checked, how much of it was bad, and who saw it.
//!
//! Promises a stable JSON shape (`docs/check.md`) and no verdict "holds" for what nobody looked at.

use serde::Serialize;

/// How the whole check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Something was checked and nothing is wrong.
    Pass,
    /// At least one check found something wrong.
    Violated,
    /// The arguments contradict each other or cannot be understood.
    Usage,
    /// There was nothing to check, which proves nothing.
    Vacuous,
    /// The evidence could not be read.
    Broken,
}

impl Outcome {
    /// The process exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Violated => 1,
            Self::Usage => 2,
            Self::Vacuous => 3,
            Self::Broken => 4,
        }
    }
}

/// The result of judging.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The sum of it.
    pub outcome: Outcome,
    /// What there was to look at.
    pub seen: Seen,
    /// One entry for each of [`Name::ALL`], in that order.
    pub checks: Vec<Check>,
    /// Circumstances worth knowing.
    pub notes: Vec<String>,
}

impl Verdict {
    /// The entry for one check.
    #[must_use]
    pub fn check(&self, name: Name) -> &Check {
        let found = self.checks.iter().find(|check| check.name == name);
        found.expect("a verdict has an entry for every name")
    }

    /// The names of the checks that found something wrong.
    #[must_use]
    pub fn violated(&self) -> Vec<Name> {
        let bad = self.checks.iter().filter(|check| check.result == Judged::Violated);
        bad.map(|check| check.name).collect()
    }
}

/// How much evidence there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Rows in the tables.
    pub rows: u64,
    /// Rows found only by the second look.
    pub late_rows: u64,
    /// Records at read_committed.
    pub committed_records: u64,
    /// Records at read_uncommitted, the committed ones included.
    pub uncommitted_records: u64,
    /// Records of committed rows seen only at read_uncommitted: aborted or still open copies.
    /// A reader at read_uncommitted has to expect them, so they are counted and not judged.
    pub aborted_copies: u64,
    /// Records at read_committed beyond the first of each row.
    pub duplicates: u64,
    /// Rows in the history.
    pub history_rows: u64,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Name {
    /// No loss: every row has a record.
    I1,
    /// No phantom: every record has a committed row.
    I2,
    /// Once.
    I3,
    /// Order within a key and within a partition.
    I4,
    /// Whole transactions.
    I5,
    /// Routing.
    I6,
    /// Records carry what the rows hold.
    #[serde(rename = "content")]
    Content,
    /// The tables hold what the writers wrote.
    #[serde(rename = "table")]
    Table,
    /// Readers at read_committed reach the end.
    #[serde(rename = "readable")]
    Readable,
}

impl Name {
    /// Every check, in the order of the report.
    pub const ALL: [Self; 9] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::Content,
        Self::Table,
        Self::Readable,
    ];

    /// As in reports.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I6 => "I6",
            Self::Content => "content",
            Self::Table => "table",
            Self::Readable => "readable",
        }
    }

    /// What it says, in a few words.
    #[must_use]
    pub fn claim(self) -> &'static str {
        match self {
            Self::I1 => "no committed row is lost",
            Self::I2 => "no record without a row",
            Self::I3 => "each row is published once",
            Self::I4 => "records are in order",
            Self::I5 => "transactions are whole",
            Self::I6 => "keys stay in one partition",
            Self::Content => "records equal their rows",
            Self::Table => "tables keep all writes",
            Self::Readable => "readers reach the end",
        }
    }
}

/// What became of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// Looked at, nothing wrong.
    Holds,
    /// Looked at, something wrong.
    Violated,
    /// Could not be looked at; never the same as `holds`.
    NotChecked,
}

/// One check's result.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Which.
    pub name: Name,
    /// What it says.
    pub claim: &'static str,
    /// What became of it.
    pub result: Judged,
    /// Why it could not be checked, or which part of it could not.
    pub reason: Option<String>,
    /// How many things were looked at.
    pub checked: u64,
    /// How many of them were bad.
    pub bad: u64,
    /// What is counted: rows, records, keys …
    pub unit: &'static str,
    /// The bad ones by kind of fault, most frequent first.
    pub faults: Vec<Fault>,
    /// The first few, most telling first.
    pub witnesses: Vec<Witness>,
}

/// How often a kind of fault was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The kind.
    pub fault: &'static str,
    /// How often.
    pub count: u64,
}

/// One thing that is wrong, with what is needed to look at it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Witness {
    /// The kind of fault.
    pub fault: &'static str,
    /// What is wrong, in words.
    pub what: String,
    /// The event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The table its row is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The Postgres transaction that wrote the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txid: Option<i64>,
    /// The aggregate id, else the record's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The aggregate's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The topic of the record, or the one the row belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The record's partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The record's offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// The record's log position in Postgres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// The record's timestamp, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<i64>,
    /// The writer's operation in the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<u64>,
    /// When the writer ended that operation, microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at_us: Option<i64>,
}
