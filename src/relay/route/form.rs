//! A column's value as the bytes that Debezium's string converters would write.
//!
//! What a type looks like in a record is decided once, when a plan is compiled. In text form a value
//! mostly *is* those bytes, and then they are a slice of what was received. Binary forms, booleans
//! and timestamps are written anew, many into one [`Ink`] block.
//!
//! | type | bytes |
//! |---|---|
//! | text, varchar, char, name, json, jsonb, enum, anything else | the text, as Postgres prints it |
//! | uuid | lower case, hyphenated |
//! | smallint, integer, bigint, xid8 | decimal |
//! | boolean | `true`, `false` |
//! | bytea | the raw bytes; in a header Base64, as Connect's header converter has it |
//! | timestamp | microseconds since 1970, milliseconds if it has at most three digits |
//! | timestamptz | ISO 8601 in UTC, with as many digits as the column has, six by default |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut as _, Bytes, BytesMut};

use super::moment;
use super::row::Value;

/// How the values of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The same bytes in text and in binary.
    Text,
    Jsonb,
    Bytea,
    Uuid,
    Int2,
    Int4,
    Int8,
    Xid8,
    Boolean,
    Timestamp {
        millis: bool,
    },
    TimestampWithZone {
        digits: usize,
    },
    /// A type whose binary form we do not know; its text is taken as it is.
    TextOnly,
}

/// Why a value has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was over the limit and not kept.
    Skipped { size: usize },
    /// The stream did not send it, which an inserted row never does.
    Absent,
    /// It is not a value of its type.
    Malformed,
}

/// The version that opens a binary jsonb; there has been no other.
const JSONB_VERSION: u8 = 1;

/// Digits of a timestamp's fraction when the column does not say.
const FRACTION_DIGITS: usize = 6;

impl Form {
    /// The form of a built-in type; oids never change once given out.
    pub(super) fn of(type_oid: u32, modifier: i32) -> Self {
        let digits = usize::try_from(modifier).ok().filter(|digits| *digits <= FRACTION_DIGITS);
        let digits = digits.unwrap_or(FRACTION_DIGITS);
        match type_oid {
            19 | 25 | 114 | 1042 | 1043 => Self::Text,
            3802 => Self::Jsonb,
            17 => Self::Bytea,
            2950 => Self::Uuid,
            21 => Self::Int2,
            23 => Self::Int4,
            20 => Self::Int8,
            5069 => Self::Xid8,
            16 => Self::Boolean,
            1114 => Self::Timestamp { millis: digits <= 3 },
            1184 => Self::TimestampWithZone { digits },
            _ => Self::TextOnly,
        }
    }

    /// What the type is called in a message.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Jsonb => "jsonb",
            Self::Bytea => "bytea",
            Self::Uuid => "uuid",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Xid8 => "xid8",
            Self::Boolean => "boolean",
            Self::Timestamp { .. } => "timestamp",
            Self::TimestampWithZone { .. } => "timestamptz",
            Self::TextOnly => "a type that is known by its text alone",
        }
    }

    /// The bytes for a key, a value or a topic; `None` for null.
    pub(super) fn bytes(self, value: Value, ink: &mut Ink) -> Result<Option<Bytes>, Fault> {
        match value {
            Value::Null => Ok(None),
            Value::Unchanged => Err(Fault::Absent),
            Value::Skipped { size } => Err(Fault::Skipped { size }),
            Value::Text(text) => self.of_text(text, ink).ok_or(Fault::Malformed).map(Some),
            Value::Binary(bytes) => self.of_binary(bytes, ink).ok_or(Fault::Malformed).map(Some),
        }
    }

    /// The bytes for a header.
    pub(super) fn header(self, value: Value, ink: &mut Ink) -> Result<Option<Bytes>, Fault> {
        let bytes = self.bytes(value, ink)?;
        if self == Self::Bytea {
            return Ok(bytes.map(|bytes| Bytes::from(BASE64.encode(bytes))));
        }
        Ok(bytes)
    }

    /// An integer, of the integer types.
    pub(super) fn integer(self, value: Value) -> Result<Option<i64>, Fault> {
        let number = match value {
            Value::Null => return Ok(None),
            Value::Unchanged => return Err(Fault::Absent),
            Value::Skipped { size } => return Err(Fault::Skipped { size }),
            Value::Text(text) => std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
            Value::Binary(bytes) => self.number(&bytes),
        };
        number.map(Some).ok_or(Fault::Malformed)
    }

    /// Microseconds since 1970, of the two timestamp types.
    pub(super) fn moment(self, value: Value) -> Result<Option<i64>, Fault> {
        let micros = match value {
            Value::Null => return Ok(None),
            Value::Unchanged => return Err(Fault::Absent),
            Value::Skipped { size } => return Err(Fault::Skipped { size }),
            Value::Text(text) => std::str::from_utf8(&text).ok().and_then(moment::parse),
            Value::Binary(bytes) => {
                exactly(&bytes).map(i64::from_be_bytes).and_then(moment::of_wire)
            }
        };
        micros.map(Some).ok_or(Fault::Malformed)
    }

    fn of_text(self, text: Bytes, ink: &mut Ink) -> Option<Bytes> {
        match self {
            Self::Text
            | Self::Jsonb
            | Self::Uuid
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Xid8
            | Self::TextOnly => Some(text),
            Self::Bytea => unhex(text.strip_prefix(b"\\x")?),
            Self::Boolean => match text.as_ref() {
                b"t" => Some(Bytes::from_static(b"true")),
                b"f" => Some(Bytes::from_static(b"false")),
                _ => None,
            },
            Self::Timestamp { millis } => {
                Some(ink.number(in_unit(moment::parse(std::str::from_utf8(&text).ok()?)?, millis)))
            }
            Self::TimestampWithZone { digits } => {
                let micros = moment::parse(std::str::from_utf8(&text).ok()?)?;
                Some(ink.write(&moment::iso(micros, digits)))
            }
        }
    }

    fn of_binary(self, bytes: Bytes, ink: &mut Ink) -> Option<Bytes> {
        match self {
            Self::Text | Self::Bytea => Some(bytes),
            Self::Jsonb => (*bytes.first()? == JSONB_VERSION).then(|| bytes.slice(1..)),
            Self::Uuid => {
                let id = uuid::Uuid::from_slice(&bytes).ok()?;
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                Some(ink.write(id.hyphenated().encode_lower(&mut text)))
            }
            Self::Int2 | Self::Int4 | Self::Int8 => Some(ink.number(self.number(&bytes)?)),
            Self::Xid8 => Some(ink.number(u64::from_be_bytes(exactly(&bytes)?))),
            Self::Boolean => match bytes.as_ref() {
                [1] => Some(Bytes::from_static(b"true")),
                [0] => Some(Bytes::from_static(b"false")),
                _ => None,
            },
            Self::Timestamp { millis } => {
                let micros = moment::of_wire(i64::from_be_bytes(exactly(&bytes)?))?;
                Some(ink.number(in_unit(micros, millis)))
            }
            Self::TimestampWithZone { digits } => {
                let micros = moment::of_wire(i64::from_be_bytes(exactly(&bytes)?))?;
                Some(ink.write(&moment::iso(micros, digits)))
            }
            // A plan refuses the type by name before it comes to this.
            Self::TextOnly => None,
        }
    }

    fn number(self, bytes: &[u8]) -> Option<i64> {
        match self {
            Self::Int2 => exactly(bytes).map(|bytes| i16::from_be_bytes(bytes).into()),
            Self::Int4 => exactly(bytes).map(|bytes| i32::from_be_bytes(bytes).into()),
            Self::Int8 => exactly(bytes).map(i64::from_be_bytes),
            Self::Text
            | Self::Jsonb
            | Self::Bytea
            | Self::Uuid
            | Self::Xid8
            | Self::Boolean
            | Self::Timestamp { .. }
            | Self::TimestampWithZone { .. }
            | Self::TextOnly => None,
        }
    }
}

fn in_unit(micros: i64, millis: bool) -> i64 {
    if millis { micros.div_euclid(1000) } else { micros }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn unhex(text: &[u8]) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, odd) = text.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    bytes.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

/// Small values written one behind the other, so that they share an allocation.
#[derive(Debug, Default)]
pub(super) struct Ink(BytesMut);

/// Room for some hundred small values. A block lives as long as any of its values, so a larger one
/// would keep more memory for less.
const INK_BLOCK_BYTES: usize = 16 * 1024;

impl Ink {
    pub(super) fn write(&mut self, text: &str) -> Bytes {
        self.reserve(text.len());
        self.0.put_slice(text.as_bytes());
        self.0.split().freeze()
    }

    pub(super) fn number(&mut self, number: impl std::fmt::Display) -> Bytes {
        use std::fmt::Write as _;
        // The longest of 64 bits, with its sign.
        self.reserve(20);
        write!(self.0, "{number}").expect("a buffer in memory takes any text");
        self.0.split().freeze()
    }

    pub(super) fn lsn(&mut self, lsn: crate::lsn::Lsn) -> Bytes {
        // `FFFFFFFF/FFFFFFFF` has 17, within what `number` reserves.
        self.number(lsn)
    }

    fn reserve(&mut self, bytes: usize) {
        if self.0.capacity() - self.0.len() < bytes {
            // `reserve` could copy or wait for the old block; a new one leaves it to its readers.
            self.0 = BytesMut::with_capacity(bytes.max(INK_BLOCK_BYTES));
        }
    }
}

#[cfg(test)]
mod tests;
