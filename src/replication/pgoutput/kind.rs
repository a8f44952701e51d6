//! From a value as received, text or binary, to a [`Field`]: one list of types, both forms.
//!
//! In text form any type can be taken, as its text. In binary form only the types listed here can;
//! another one is refused by its name before the first row, because its bytes would be a guess.

use bytes::Bytes;
use uuid::Uuid;

use super::{Relations, UnixMicros, Value, timestamp};

/// Built-in types by oid, for decoding and for messages. They never change once given out.
const BUILT_IN: [(u32, &str, Option<Kind>); 34] = [
    (16, "boolean", Some(Kind::Bool)),
    (17, "bytea", Some(Kind::Bytea)),
    (18, "\"char\"", None),
    (19, "name", Some(Kind::Text)),
    (20, "bigint", Some(Kind::Int8)),
    (21, "smallint", Some(Kind::Int2)),
    (23, "integer", Some(Kind::Int4)),
    (25, "text", Some(Kind::Text)),
    (26, "oid", None),
    (28, "xid", None),
    (114, "json", Some(Kind::Json)),
    (142, "xml", None),
    (600, "point", None),
    (700, "real", None),
    (701, "double precision", None),
    (790, "money", None),
    (869, "inet", None),
    (650, "cidr", None),
    (1000, "boolean[]", None),
    (1007, "integer[]", None),
    (1009, "text[]", None),
    (1042, "character", Some(Kind::Text)),
    (1043, "character varying", Some(Kind::Text)),
    (1082, "date", None),
    (1083, "time without time zone", None),
    (1114, "timestamp without time zone", Some(Kind::Timestamp)),
    (1184, "timestamp with time zone", Some(Kind::Timestamp)),
    (1186, "interval", None),
    (1560, "bit", None),
    (1700, "numeric", None),
    (2950, "uuid", Some(Kind::Uuid)),
    (3220, "pg_lsn", None),
    (3802, "jsonb", Some(Kind::Jsonb)),
    (5069, "xid8", Some(Kind::Xid8)),
];

/// The version that opens a binary jsonb; there has been no other.
const JSONB_VERSION: u8 = 1;

/// How a column's values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// text, varchar, char(n), name: the same bytes in both forms.
    Text,
    /// json: the same bytes in both forms.
    Json,
    /// jsonb: in binary a version byte, then the text.
    Jsonb,
    /// bytea: raw in binary, twice as long in text.
    Bytea,
    /// uuid.
    Uuid,
    /// smallint.
    Int2,
    /// integer.
    Int4,
    /// bigint.
    Int8,
    /// boolean.
    Bool,
    /// timestamp with or without time zone; without is read as UTC.
    Timestamp,
    /// xid8: a transaction id that never comes again.
    Xid8,
    /// Any other type, in text form.
    Other,
}

/// A value that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// SQL null.
    Null,
    /// Not sent, because an update did not touch it.
    Unchanged,
    /// Over the limit and not kept.
    Skipped {
        /// Its size as sent.
        size: usize,
    },
    /// Text in UTF-8; json and jsonb too.
    Text(Bytes),
    /// Bytes of a bytea.
    Bytes(Bytes),
    /// A uuid.
    Uuid(Uuid),
    /// Any of the integers.
    Integer(i64),
    /// True or false.
    Boolean(bool),
    /// A moment.
    Timestamp(UnixMicros),
    /// A transaction id of 64 bits.
    Xid8(u64),
}

/// Why a value, or a type, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The type's binary form is not one that we know.
    #[error(
        "column {column} has the type {type_name}, whose binary form is not decoded: \
         map a column of type text, varchar, json, jsonb, bytea, uuid, smallint, integer, bigint, \
         boolean, timestamp, timestamptz or xid8, or turn binary transfer off"
    )]
    Unsupported {
        /// The column.
        column: String,
        /// Its type's name.
        type_name: String,
    },
    /// The bytes are not a value of the type.
    #[error("{size} bytes are not a {form} value of kind {kind:?}")]
    Malformed {
        /// The kind.
        kind: Kind,
        /// `text` or `binary`.
        form: &'static str,
        /// How long the value is; its content may be secret.
        size: usize,
    },
}

/// The name Postgres gives to a built-in type.
pub(super) fn built_in_name(oid: u32) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, ..)| *known == oid).map(|(_, name, _)| *name)
}

impl Kind {
    /// How a column of this type is read when values come as text: never refused.
    pub fn in_text(type_oid: u32) -> Self {
        Self::known(type_oid).unwrap_or(Self::Other)
    }

    /// How a column of this type is read when values come in binary.
    ///
    /// # Errors
    ///
    /// [`ValueError::Unsupported`] names column and type.
    pub fn in_binary(
        column: &str,
        type_oid: u32,
        relations: &Relations,
    ) -> Result<Self, ValueError> {
        Self::known(type_oid).ok_or_else(|| ValueError::Unsupported {
            column: column.to_owned(),
            type_name: relations.type_name(type_oid),
        })
    }

    fn known(type_oid: u32) -> Option<Self> {
        BUILT_IN.iter().find(|(known, ..)| *known == type_oid).and_then(|(_, _, kind)| *kind)
    }

    /// Reads a value of this kind, in whichever form it came.
    ///
    /// # Errors
    ///
    /// [`ValueError::Malformed`]; for a binary value of [`Kind::Other`] too.
    pub fn read(self, value: Value) -> Result<Field, ValueError> {
        match value {
            Value::Null => Ok(Field::Null),
            Value::Unchanged => Ok(Field::Unchanged),
            Value::Skipped { size } => Ok(Field::Skipped { size }),
            Value::Text(bytes) => {
                let size = bytes.len();
                self.text(bytes).ok_or(ValueError::Malformed { kind: self, form: "text", size })
            }
            Value::Binary(bytes) => {
                let size = bytes.len();
                self.binary(bytes).ok_or(ValueError::Malformed { kind: self, form: "binary", size })
            }
        }
    }

    fn text(self, bytes: Bytes) -> Option<Field> {
        let text = std::str::from_utf8(&bytes).ok()?;
        Some(match self {
            Self::Text | Self::Json | Self::Jsonb | Self::Other => Field::Text(bytes),
            Self::Bytea => Field::Bytes(unhex(text.strip_prefix("\\x")?)?),
            Self::Uuid => Field::Uuid(Uuid::try_parse(text).ok()?),
            Self::Int2 => Field::Integer(text.parse::<i16>().ok()?.into()),
            Self::Int4 => Field::Integer(text.parse::<i32>().ok()?.into()),
            Self::Int8 => Field::Integer(text.parse().ok()?),
            Self::Bool => match text {
                "t" => Field::Boolean(true),
                "f" => Field::Boolean(false),
                _ => return None,
            },
            Self::Timestamp => Field::Timestamp(timestamp::parse(text)?),
            Self::Xid8 => Field::Xid8(text.parse().ok()?),
        })
    }

    fn binary(self, bytes: Bytes) -> Option<Field> {
        Some(match self {
            Self::Text | Self::Json => {
                std::str::from_utf8(&bytes).ok()?;
                Field::Text(bytes)
            }
            Self::Jsonb => {
                let (version, text) = bytes.split_first()?;
                std::str::from_utf8(text).ok().filter(|_| *version == JSONB_VERSION)?;
                Field::Text(bytes.slice(1..))
            }
            Self::Bytea => Field::Bytes(bytes),
            Self::Uuid => Field::Uuid(Uuid::from_slice(&bytes).ok()?),
            Self::Int2 => Field::Integer(i16::from_be_bytes(exactly(&bytes)?).into()),
            Self::Int4 => Field::Integer(i32::from_be_bytes(exactly(&bytes)?).into()),
            Self::Int8 => Field::Integer(i64::from_be_bytes(exactly(&bytes)?)),
            Self::Bool => match exactly(&bytes)? {
                [0] => Field::Boolean(false),
                [1] => Field::Boolean(true),
                _ => return None,
            },
            Self::Timestamp => {
                let micros = i64::from_be_bytes(exactly(&bytes)?);
                // The server's infinities are the ends of the range: not a moment.
                let finite = micros != i64::MIN && micros != i64::MAX;
                Field::Timestamp(finite.then(|| UnixMicros::from_postgres(micros))?)
            }
            Self::Xid8 => Field::Xid8(u64::from_be_bytes(exactly(&bytes)?)),
            Self::Other => return None,
        })
    }
}

fn exactly<const N: usize>(bytes: &Bytes) -> Option<[u8; N]> {
    <[u8; N]>::try_from(bytes.as_ref()).ok()
}

fn unhex(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(name: &str) -> u32 {
        BUILT_IN.iter().find(|(_, known, _)| *known == name).unwrap().0
    }

    fn both(name: &str, text: &'static str, binary: &'static [u8], expected: Field) {
        let relations = Relations::new();
        let kind = Kind::in_binary("c", oid(name), &relations).unwrap();
        assert_eq!(kind, Kind::in_text(oid(name)), "{name}");
        let text = kind.read(Value::Text(Bytes::from_static(text.as_bytes())));
        assert_eq!(text.as_ref(), Ok(&expected), "{name} as text");
        let binary = kind.read(Value::Binary(Bytes::from_static(binary)));
        assert_eq!(binary.as_ref(), Ok(&expected), "{name} in binary");
    }

    #[test]
    fn both_forms_of_a_value_mean_the_same() {
        let text = |text: &'static str| Field::Text(Bytes::from_static(text.as_bytes()));
        both("text", "a", b"a", text("a"));
        both("character varying", "", b"", text(""));
        both("json", "{ }", b"{ }", text("{ }"));
        both("jsonb", "{}", b"\x01{}", text("{}"));
        both("bytea", "\\x00fF", b"\x00\xff", Field::Bytes(Bytes::from_static(b"\x00\xff")));
        both("smallint", "-2", b"\xff\xfe", Field::Integer(-2));
        both("integer", "7", b"\0\0\0\x07", Field::Integer(7));
        both("bigint", "-1", b"\xff\xff\xff\xff\xff\xff\xff\xff", Field::Integer(-1));
        both("boolean", "t", b"\x01", Field::Boolean(true));
        both("xid8", "4294967296", b"\0\0\0\x01\0\0\0\0", Field::Xid8(1 << 32));
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let bytes = b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
        both("uuid", "01234567-89ab-cdef-0123-456789abcdef", bytes, Field::Uuid(id));
        let second = Field::Timestamp(UnixMicros(946_684_801_000_000));
        let raw = b"\0\0\0\0\0\x0f\x42\x40";
        both("timestamp with time zone", "2000-01-01 00:00:01+00", raw, second.clone());
        both("timestamp without time zone", "2000-01-01 00:00:01", raw, second);
    }

    #[test]
    fn a_type_without_a_known_binary_form_is_refused_by_name() {
        let error = Kind::in_binary("price", 1700, &Relations::new()).unwrap_err().to_string();
        assert!(error.contains("column price has the type numeric"), "{error}");
        assert_eq!(Kind::in_text(1700), Kind::Other);
        let value = Value::Text(Bytes::from_static(b"1.50"));
        assert_eq!(Kind::Other.read(value), Ok(Field::Text(Bytes::from_static(b"1.50"))));
    }

    #[test]
    fn wrong_bytes_are_refused_without_being_shown() {
        let kinds = [
            Kind::Jsonb,
            Kind::Bytea,
            Kind::Uuid,
            Kind::Int2,
            Kind::Int4,
            Kind::Int8,
            Kind::Bool,
            Kind::Timestamp,
            Kind::Xid8,
        ];
        for kind in kinds {
            for wrong in [&b"secret"[..], b"\xff", b""] {
                if kind != Kind::Jsonb {
                    let error = kind.read(Value::Text(Bytes::from_static(wrong))).unwrap_err();
                    assert!(!error.to_string().contains("secret"));
                }
                if kind != Kind::Bytea {
                    let error = kind.read(Value::Binary(Bytes::from_static(wrong))).unwrap_err();
                    assert!(!error.to_string().contains("secret"));
                }
            }
        }
        for form in
            [Value::Text(Bytes::from_static(b"\xe9")), Value::Binary(Bytes::from_static(b"\xe9"))]
        {
            assert!(Kind::Text.read(form).is_err());
        }
        let forever = Value::Binary(Bytes::from_static(b"\x7f\xff\xff\xff\xff\xff\xff\xff"));
        assert!(Kind::Timestamp.read(forever).is_err());
    }

    #[test]
    fn what_is_not_there_stays_so() {
        assert_eq!(Kind::Int8.read(Value::Null), Ok(Field::Null));
        assert_eq!(Kind::Text.read(Value::Unchanged), Ok(Field::Unchanged));
        let skipped = Value::Skipped { size: 9 };
        assert_eq!(Kind::Bytea.read(skipped), Ok(Field::Skipped { size: 9 }));
    }
}
