//! The messages of pgoutput, protocol 1: what a publication's rows look like on the wire.
//!
//! Pure: bytes in, a [`Message`] or a [`DecodeError`] out; no I/O, no clock, no log. Values are
//! slices of the received buffer. A message is consumed whole, or refused with its tag and the
//! offset: what we do not understand is never passed over, because it might be a row.
//!
//! Protocol 1 sends a transaction only after its commit, whole and without rolled-back parts:
//! `Begin`, rows with their relations before them, `Commit`. Relations come again after any change
//! of a table, in the middle of a transaction too, and columns may move: [`Relations`] finds them
//! by name.
//!
//! Guarantee: no input panics; no value is lost, moved or read in another column's place.
//! Bounded by: the frame limit of the connection; [`relations::RELATIONS_MAX`].
//! Tested by: golden bytes of servers 13–18, each cut at every length and flipped at every bit;
//! `fuzz/fuzz_targets/decoder.rs`; `tests/services/replication.rs`.

mod decode;
pub mod kind;
pub mod relations;
mod timestamp;

use bytes::Bytes;

pub use self::decode::{DecodeError, decode};
pub use self::kind::{Field, Kind, ValueError};
pub use self::relations::{Column, Relation, Relations, ReplicaIdentity};
use crate::lsn::Lsn;

/// Microseconds since 1970-01-01 UTC, converted from the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    /// From 1970-01-01 to 2000-01-01, where the server's count begins.
    const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

    /// From microseconds since 2000-01-01, as the server counts.
    pub fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(Self::POSTGRES_EPOCH))
    }
}

/// One pgoutput message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins.
    Begin(Begin),
    /// It is complete.
    Commit(Commit),
    /// The transaction came from another server's replication.
    Origin(Origin),
    /// A table's columns, before its first row and after any change of it.
    Relation(Relation),
    /// The name of a type that is not built in.
    Type(TypeName),
    /// A new row.
    Insert(Insert),
    /// A changed row.
    Update(Update),
    /// A deleted row.
    Delete(Delete),
    /// Emptied tables.
    Truncate(Truncate),
    /// What `pg_logical_emit_message` wrote.
    Logical(LogicalMessage),
}

/// `B`: the transaction that the next messages belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit record starts; the same as [`Commit::commit`].
    pub commit: Lsn,
    /// When it committed; not monotonic in log order.
    pub at: UnixMicros,
    /// The top-level transaction id, 32 bits of it.
    pub xid: u32,
}

/// `C`: the transaction is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record starts. The server skips a transaction on restart if and only if
    /// this is below the confirmed position.
    pub commit: Lsn,
    /// Where it ends: the position to store and to confirm. The next commit may start exactly here.
    pub end: Lsn,
    /// When it committed.
    pub at: UnixMicros,
}

/// `O`: where a replicated transaction came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its commit on the server of origin.
    pub commit: Lsn,
    /// The name of the origin.
    pub name: String,
}

/// `Y`: the name behind a type's oid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// The type.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// `I`: a row was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert {
    /// Oid of its table.
    pub relation: u32,
    /// The row.
    pub new: Tuple,
}

/// `U`: a row was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Oid of its table.
    pub relation: u32,
    /// What the replica identity kept of the row before.
    pub old: Option<OldTuple>,
    /// The row after.
    pub new: Tuple,
}

/// `D`: a row was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Oid of its table.
    pub relation: u32,
    /// What the replica identity kept of the row.
    pub old: OldTuple,
}

/// A row before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldTuple {
    /// Only the key columns are set.
    Key(Tuple),
    /// The whole row (`REPLICA IDENTITY FULL`).
    Full(Tuple),
}

/// `T`: tables were emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// With `CASCADE`.
    pub cascade: bool,
    /// With `RESTART IDENTITY`.
    pub restart_identity: bool,
    /// Oids of the tables.
    pub relations: Vec<u32>,
}

/// `M`: a message written by SQL. Any role may write one: never trust its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalMessage {
    /// Sent with its transaction; otherwise at once, and even if that rolls back.
    pub transactional: bool,
    /// Where it was written.
    pub at: Lsn,
    /// What its writer calls it; empty when it was too large to be kept.
    pub prefix: String,
    /// What it says.
    pub content: Content,
}

/// The content of a logical message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Bytes(Bytes),
    /// Over the limit: prefix and content together had this size.
    Skipped {
        /// In bytes.
        size: usize,
    },
}

/// A row's values, in the order of its relation's columns. One buffer and a list of ranges.
#[derive(Clone, PartialEq, Eq)]
pub struct Tuple {
    bytes: Bytes,
    cells: Vec<Cell>,
}

/// A value's place in the message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Null,
    Unchanged,
    Text { start: usize, end: usize },
    Binary { start: usize, end: usize },
    Skipped { size: usize },
}

/// A value as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// SQL null.
    Null,
    /// A large value that an update did not touch, and so did not send.
    Unchanged,
    /// In the type's text form.
    Text(Bytes),
    /// In the type's binary form.
    Binary(Bytes),
    /// Over the limit: read through and not kept.
    Skipped {
        /// In bytes, in the form it was sent in.
        size: usize,
    },
}

impl Tuple {
    /// The number of columns.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// A table may have no columns.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The value of a column, as a slice of the received bytes; `None` past the last one.
    pub fn value(&self, column: usize) -> Option<Value> {
        Some(match self.cells.get(column)? {
            Cell::Null => Value::Null,
            Cell::Unchanged => Value::Unchanged,
            // `decode` took both ends from the cursor, inside these bytes and in order.
            Cell::Text { start, end } => Value::Text(self.bytes.slice(*start..*end)),
            Cell::Binary { start, end } => Value::Binary(self.bytes.slice(*start..*end)),
            Cell::Skipped { size } => Value::Skipped { size: *size },
        })
    }

    /// All values in column order.
    pub fn values(&self) -> impl Iterator<Item = Value> + '_ {
        (0..self.cells.len()).filter_map(|column| self.value(column))
    }

    /// Bytes of the values that were kept, and of those that were not: what a limit counts.
    pub fn size(&self) -> usize {
        self.cells.iter().fold(0, |sum, cell| {
            sum.saturating_add(match cell {
                Cell::Null | Cell::Unchanged => 0,
                Cell::Text { start, end } | Cell::Binary { start, end } => {
                    end.saturating_sub(*start)
                }
                Cell::Skipped { size } => *size,
            })
        })
    }
}

impl std::fmt::Debug for Tuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}
