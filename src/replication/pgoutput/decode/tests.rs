//! The decoder against bytes that real servers sent, whole, cut and damaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::*;
use crate::replication::pgoutput::{Field, Kind, Relations, Value};

/// `tests/golden/pgoutput/<version>/<form>-<number>-<message>.bin`, one message a file, recorded by
/// `tests/services/golden.rs`.
fn golden() -> Vec<(PathBuf, Bytes)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pgoutput");
    let mut files = Vec::new();
    for version in fs::read_dir(root).unwrap() {
        for file in fs::read_dir(version.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            files.push((path.clone(), Bytes::from(fs::read(path).unwrap())));
        }
    }
    files.sort();
    files
}

fn read(bytes: &Bytes) -> Result<Message, DecodeError> {
    decode(&bytes.clone().into())
}

fn rows(message: &Message) -> Vec<&Tuple> {
    match message {
        Message::Insert(insert) => vec![&insert.new],
        Message::Update(update) => {
            let before = update.old.iter().map(|old| match old {
                OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
            });
            before.chain([&update.new]).collect()
        }
        Message::Delete(delete) => match &delete.old {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => vec![tuple],
        },
        Message::Begin(_)
        | Message::Commit(_)
        | Message::Origin(_)
        | Message::Relation(_)
        | Message::Type(_)
        | Message::Truncate(_)
        | Message::Logical(_) => Vec::new(),
    }
}

#[test]
fn every_recorded_message_is_read_and_every_tag_is_among_them() {
    let mut seen = BTreeSet::new();
    for (path, bytes) in golden() {
        let message = read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let version = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        seen.insert((version, bytes[0]));
        // Values are slices of the message, never copies.
        let range = bytes.as_ptr_range();
        for value in rows(&message).iter().flat_map(|row| row.values()) {
            if let Value::Text(part) | Value::Binary(part) = value
                && !part.is_empty()
            {
                assert!(range.contains(&part.as_ptr()), "{}", path.display());
            }
        }
    }
    for version in ["13", "14", "15", "16", "17", "18"] {
        for tag in b"BCORYIUDT" {
            assert!(seen.contains(&(version.to_owned(), *tag)), "{version}: {}", char::from(*tag));
        }
        let logical = seen.contains(&(version.to_owned(), b'M'));
        assert_eq!(logical, version != "13", "13 has no logical messages");
    }
}

#[test]
fn every_prefix_of_every_recorded_message_is_an_error() {
    for (path, bytes) in golden() {
        for cut in 0..bytes.len() {
            assert!(read(&bytes.slice(..cut)).is_err(), "{} cut at {cut}", path.display());
        }
    }
}

#[test]
fn every_flipped_bit_gives_an_error_or_a_value() {
    let kinds = [
        Kind::Text,
        Kind::Json,
        Kind::Jsonb,
        Kind::Bytea,
        Kind::Uuid,
        Kind::Int2,
        Kind::Int4,
        Kind::Int8,
        Kind::Bool,
        Kind::Timestamp,
        Kind::Xid8,
        Kind::Other,
    ];
    for (_, bytes) in golden() {
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                let Ok(message) = read(&Bytes::from(flipped)) else { continue };
                for value in rows(&message).iter().flat_map(|row| row.values()) {
                    for kind in kinds {
                        let _either = kind.read(value.clone());
                    }
                }
            }
        }
    }
}

/// The recorded tables hold the same values in every version and form; so both forms of each type,
/// as six servers write them, must mean the same.
#[test]
fn all_servers_and_both_forms_say_the_same() {
    let mut expected: Option<Vec<(String, Field)>> = None;
    let mut compared = 0;
    let mut relations = Relations::new();
    for (path, bytes) in golden() {
        match read(&bytes).unwrap() {
            Message::Relation(relation) => {
                relations.describe(relation).unwrap();
            }
            Message::Insert(insert) => {
                let relation = relations.of_row(insert.relation, &insert.new).unwrap();
                if relation.name != "golden" || insert.new.value(1) == Some(Value::Null) {
                    continue;
                }
                let columns = relation.columns.iter().zip(insert.new.values());
                // An enum's type is not built in, so its binary form is refused by name.
                let fields: Vec<(String, Field)> = columns
                    .filter(|(column, _)| column.name != "mood")
                    .map(|(column, value)| {
                        let field = Kind::in_text(column.type_oid).read(value);
                        let field = field.unwrap_or_else(|error| panic!("{path:?}: {error}"));
                        (column.name.clone(), field)
                    })
                    .collect();
                compared += 1;
                assert_eq!(
                    *expected.get_or_insert_with(|| fields.clone()),
                    fields,
                    "{}",
                    path.display()
                );
            }
            Message::Type(named) => relations.name_type(named).unwrap(),
            Message::Begin(_)
            | Message::Commit(_)
            | Message::Origin(_)
            | Message::Update(_)
            | Message::Delete(_)
            | Message::Truncate(_)
            | Message::Logical(_) => {}
        }
    }
    assert_eq!(compared, 11, "six servers as text, five in binary");
}

#[test]
fn what_is_wrong_is_said_with_tag_and_offset() {
    for (bytes, text) in [
        (&b""[..], "a pgoutput message is empty"),
        (
            b"S",
            "pgoutput message 'S' (0x53) is unknown in protocol 1: is the slot's plugin pgoutput?",
        ),
        (
            b"I\0\0\0\x07N\0\x01t\xff\xff\xff\xfb",
            "pgoutput message 'I' is malformed at byte 9: length of value is -5",
        ),
        (
            b"I\0\0\0\x07X",
            "pgoutput message 'I' is malformed at byte 5: row side is 'X', expected one of N",
        ),
        (
            b"I\0\0\0\x07N\0\0!",
            "pgoutput message 'I' is malformed at byte 8: 1 bytes are left after the last field",
        ),
        (
            b"I\0\0\0\x07N\xff\xffn",
            "pgoutput message 'I' is malformed at byte 8: value count says 65535, but only 1 bytes follow",
        ),
        (
            b"R\0\0\0\x07a\0b\0d\xff\xff",
            "pgoutput message 'R' is malformed at byte 12: column count says 65535, but only 0 bytes follow",
        ),
        (
            b"T\xff\xff\xff\xff\0",
            "pgoutput message 'T' is malformed at byte 6: table count says 4294967295, but only 0 bytes follow",
        ),
    ] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert_eq!(read(&bytes).unwrap_err().to_string(), text);
    }
}
