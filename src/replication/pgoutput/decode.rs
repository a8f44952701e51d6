//! From bytes to a [`Message`]: one function per tag, every byte accounted for.

use super::relations::{COLUMNS_MAX, Column, Relation, ReplicaIdentity};
use super::{
    Begin, Cell, Commit, Content, Delete, Insert, LogicalMessage, Message, OldTuple, Origin,
    Truncate, Tuple, TypeName, UnixMicros, Update,
};
use crate::lsn::Lsn;
use crate::replication::Payload;
use crate::replication::abridge::{SKIPPED_BINARY, SKIPPED_TEXT};
use crate::replication::cursor::{Broken, Cursor, Fault};

const BEGIN: u8 = b'B';
const COMMIT: u8 = b'C';
const ORIGIN: u8 = b'O';
const RELATION: u8 = b'R';
const TYPE: u8 = b'Y';
const INSERT: u8 = b'I';
const UPDATE: u8 = b'U';
const DELETE: u8 = b'D';
const TRUNCATE: u8 = b'T';
const LOGICAL: u8 = b'M';

const NEW_ROW: u8 = b'N';
const OLD_KEY: u8 = b'K';
const OLD_ROW: u8 = b'O';

/// A relation's column takes at least flags, an empty name, type and modifier.
const COLUMN_MIN: usize = 10;

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is no byte at all.
    #[error("a pgoutput message is empty")]
    Empty,
    /// A message of a later protocol, or of no protocol.
    #[error(
        "pgoutput message {:?} (0x{tag:02x}) is unknown in protocol 1: is the slot's plugin pgoutput?",
        char::from(*.tag)
    )]
    UnknownTag {
        /// As received, at offset 0.
        tag: u8,
    },
    /// The message breaks its own layout.
    #[error("pgoutput message {:?} is malformed {fault}", char::from(*.tag))]
    Malformed {
        /// The message's tag.
        tag: u8,
        /// Where, and what is wrong.
        fault: Fault,
    },
    /// A row of a table that was never described.
    #[error("a row of relation {oid} came before its description: the stream is out of step")]
    UnknownRelation {
        /// The table.
        oid: u32,
    },
    /// A row that does not fit its table's description.
    #[error(
        "a row of {table} has {found} values, its description {expected}: the stream is out of step"
    )]
    ColumnCount {
        /// The table, with schema.
        table: String,
        /// Columns described.
        expected: usize,
        /// Values received.
        found: usize,
    },
    /// More tables than we keep in mind.
    #[error("the publication sends more than {limit} tables: publish the outbox tables alone")]
    TooManyRelations {
        /// What we take.
        limit: usize,
    },
}

/// Reads one message, whole.
///
/// # Errors
///
/// [`DecodeError`] with tag and offset; the stream must not be read on after it.
pub fn decode(payload: &Payload) -> Result<Message, DecodeError> {
    let mut cursor = Cursor::new(&payload.bytes);
    let tag = cursor.u8("tag").map_err(|_| DecodeError::Empty)?;
    let message = match tag {
        BEGIN => begin(&mut cursor),
        COMMIT => commit(&mut cursor),
        ORIGIN => origin(&mut cursor),
        RELATION => relation(&mut cursor),
        TYPE => type_name(&mut cursor),
        INSERT => insert(&mut cursor, payload),
        UPDATE => update(&mut cursor, payload),
        DELETE => delete(&mut cursor, payload),
        TRUNCATE => truncate(&mut cursor),
        LOGICAL => logical(&mut cursor, payload),
        tag => return Err(DecodeError::UnknownTag { tag }),
    };
    message
        .and_then(|message| cursor.finish().map(|()| message))
        .map_err(|fault| DecodeError::Malformed { tag, fault })
}

fn lsn(cursor: &mut Cursor<'_>, field: &'static str) -> Result<Lsn, Fault> {
    cursor.u64(field).map(Lsn)
}

fn time(cursor: &mut Cursor<'_>, field: &'static str) -> Result<UnixMicros, Fault> {
    cursor.i64(field).map(UnixMicros::from_postgres)
}

fn begin(cursor: &mut Cursor<'_>) -> Result<Message, Fault> {
    let commit = lsn(cursor, "commit position")?;
    let at = time(cursor, "commit time")?;
    let xid = cursor.u32("transaction id")?;
    Ok(Message::Begin(Begin { commit, at, xid }))
}

fn commit(cursor: &mut Cursor<'_>) -> Result<Message, Fault> {
    let start = cursor.offset();
    let flags = cursor.u8("flags")?;
    if flags != 0 {
        let what = Broken::Unknown { field: "flags", found: flags, expected: "0" };
        return Err(Fault { offset: start, what });
    }
    let commit = lsn(cursor, "commit position")?;
    let end = lsn(cursor, "end position")?;
    let at = time(cursor, "commit time")?;
    Ok(Message::Commit(Commit { commit, end, at }))
}

fn origin(cursor: &mut Cursor<'_>) -> Result<Message, Fault> {
    let commit = lsn(cursor, "origin's commit position")?;
    let name = cursor.text("origin's name")?.to_owned();
    Ok(Message::Origin(Origin { commit, name }))
}

fn relation(cursor: &mut Cursor<'_>) -> Result<Message, Fault> {
    let oid = cursor.u32("relation oid")?;
    let schema = match cursor.text("schema")? {
        // Empty stands for the system catalog.
        "" => "pg_catalog".to_owned(),
        schema => schema.to_owned(),
    };
    let name = cursor.text("table name")?.to_owned();
    let start = cursor.offset();
    let identity = match cursor.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        found => {
            let what = Broken::Unknown { field: "replica identity", found, expected: "d n f i" };
            return Err(Fault { offset: start, what });
        }
    };
    let count = cursor.u16("column count").map(usize::from)?;
    let count = cursor.count(count, COLUMN_MIN, "column count")?;
    let mut columns = Vec::with_capacity(count.min(COLUMNS_MAX));
    for _ in 0..count {
        let flags = cursor.u8("column flags")?;
        let name = cursor.text("column name")?.to_owned();
        let type_oid = cursor.u32("column type")?;
        let modifier = cursor.i32("type modifier")?;
        columns.push(Column { name, type_oid, modifier, key: flags & 1 == 1 });
    }
    Ok(Message::Relation(Relation { oid, schema, name, identity, columns }))
}

fn type_name(cursor: &mut Cursor<'_>) -> Result<Message, Fault> {
    let oid = cursor.u32("type oid")?;
    let schema = cursor.text("schema")?.to_owned();
    let name = cursor.text("type name")?.to_owned();
    Ok(Message::Type(TypeName { oid, schema, name }))
}

fn insert(cursor: &mut Cursor<'_>, payload: &Payload) -> Result<Message, Fault> {
    let relation = cursor.u32("relation oid")?;
    new_row(cursor)?;
    Ok(Message::Insert(Insert { relation, new: tuple(cursor, payload)? }))
}

fn update(cursor: &mut Cursor<'_>, payload: &Payload) -> Result<Message, Fault> {
    let relation = cursor.u32("relation oid")?;
    let start = cursor.offset();
    let old = match cursor.u8("row side")? {
        NEW_ROW => None,
        side @ (OLD_KEY | OLD_ROW) => {
            let old = old_tuple(side, tuple(cursor, payload)?);
            new_row(cursor)?;
            Some(old)
        }
        found => return Err(unknown_side(start, found, "N K O")),
    };
    Ok(Message::Update(Update { relation, old, new: tuple(cursor, payload)? }))
}

fn delete(cursor: &mut Cursor<'_>, payload: &Payload) -> Result<Message, Fault> {
    let relation = cursor.u32("relation oid")?;
    let start = cursor.offset();
    let old = match cursor.u8("row side")? {
        side @ (OLD_KEY | OLD_ROW) => old_tuple(side, tuple(cursor, payload)?),
        found => return Err(unknown_side(start, found, "K O")),
    };
    Ok(Message::Delete(Delete { relation, old }))
}

fn new_row(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let start = cursor.offset();
    match cursor.u8("row side")? {
        NEW_ROW => Ok(()),
        found => Err(unknown_side(start, found, "N")),
    }
}

fn old_tuple(side: u8, tuple: Tuple) -> OldTuple {
    if side == OLD_KEY { OldTuple::Key(tuple) } else { OldTuple::Full(tuple) }
}

fn unknown_side(offset: usize, found: u8, expected: &'static str) -> Fault {
    Fault { offset, what: Broken::Unknown { field: "row side", found, expected } }
}

fn truncate(cursor: &mut Cursor<'_>) -> Result<Message, Fault> {
    let count = cursor.u32("table count")?;
    let flags = cursor.u8("flags")?;
    let count = cursor.count(usize::try_from(count).unwrap_or(usize::MAX), 4, "table count")?;
    let relations = (0..count).map(|_| cursor.u32("relation oid")).collect::<Result<_, _>>()?;
    let (cascade, restart_identity) = (flags & 1 == 1, flags & 2 == 2);
    Ok(Message::Truncate(Truncate { cascade, restart_identity, relations }))
}

fn logical(cursor: &mut Cursor<'_>, payload: &Payload) -> Result<Message, Fault> {
    let transactional = cursor.u8("flags")? & 1 == 1;
    let at = lsn(cursor, "message position")?;
    if payload.abridged {
        let _marker = cursor.u8("marker")?;
        let size = usize::try_from(cursor.u32("size")?).unwrap_or(usize::MAX);
        let content = Content::Skipped { size };
        return Ok(Message::Logical(LogicalMessage {
            transactional,
            at,
            prefix: String::new(),
            content,
        }));
    }
    let prefix = cursor.text("prefix")?.to_owned();
    let length = cursor.length("content")?;
    let content = Content::Bytes(payload.bytes.slice(cursor.take(length, "content")?));
    Ok(Message::Logical(LogicalMessage { transactional, at, prefix, content }))
}

fn tuple(cursor: &mut Cursor<'_>, payload: &Payload) -> Result<Tuple, Fault> {
    let count = cursor.u16("value count").map(usize::from)?;
    let count = cursor.count(count, 1, "value count")?;
    let mut cells = Vec::with_capacity(count);
    for _ in 0..count {
        cells.push(cell(cursor, payload.abridged)?);
    }
    Ok(Tuple { bytes: payload.bytes.clone(), cells })
}

fn cell(cursor: &mut Cursor<'_>, abridged: bool) -> Result<Cell, Fault> {
    let start = cursor.offset();
    Ok(match cursor.u8("value kind")? {
        b'n' => Cell::Null,
        b'u' => Cell::Unchanged,
        b't' => {
            let length = cursor.length("value")?;
            let range = cursor.take(length, "value")?;
            Cell::Text { start: range.start, end: range.end }
        }
        b'b' => {
            let length = cursor.length("value")?;
            let range = cursor.take(length, "value")?;
            Cell::Binary { start: range.start, end: range.end }
        }
        SKIPPED_TEXT | SKIPPED_BINARY if abridged => {
            Cell::Skipped { size: usize::try_from(cursor.u32("size")?).unwrap_or(usize::MAX) }
        }
        found => {
            let what = Broken::Unknown { field: "value kind", found, expected: "n u t b" };
            return Err(Fault { offset: start, what });
        }
    })
}

#[cfg(test)]
mod tests;
