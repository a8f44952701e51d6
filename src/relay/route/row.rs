//! What routing needs of a table and of a row, and nothing of the protocol they came by.
//!
//! Values are slices of the received buffer; a [`Row`] hands them out one by one, so that a column
//! that no mapping names is never touched.

use bytes::Bytes;

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The published columns, in the order of a row's values.
    pub columns: Vec<Column>,
}

impl Table {
    /// `schema.table`, as an operator writes it.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// A column as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: u32,
    /// The type's modifier, -1 for none: for a timestamp the digits of its fraction.
    pub modifier: i32,
}

/// A value as received.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A row of a described table.
pub trait Row {
    /// The value of a column; `None` past the last one.
    fn value(&self, column: usize) -> Option<Value>;
}

impl Row for [Value] {
    fn value(&self, column: usize) -> Option<Value> {
        self.get(column).cloned()
    }
}

/// Where in the log a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The commit of its transaction, as `Begin` and `Commit` both name it.
    pub commit: crate::lsn::Lsn,
    /// When that was, in microseconds since 1970-01-01 UTC.
    pub committed_micros: i64,
    /// Its transaction, 32 bits of the id.
    pub xid: u32,
    /// Its place among the outbox rows of the transaction, counted from 0.
    pub index: u64,
}
