//! What the checker keeps of a record: its place, its headers, and a fingerprint of its value.
//!
//! Promises that a header counts only if it says one thing: there is one, or all of its name agree.

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use uuid::Uuid;

use super::evidence::{IdHeader, NO_KEY, Names, Number, Record, digest};

/// Headers of the contract on the wire. Spelled out here a second time on purpose: a checker that
/// takes them from the code under test would follow it into a mistake.
const ID_HEADER: &str = "id";
const VERSION_HEADER: &str = "aggregateversion";
const LSN_HEADER: &str = "postrider-lsn";

/// The record of a message.
pub(super) fn record(message: &BorrowedMessage<'_>, keys: &mut Names) -> Record {
    let (id, id_header) = id_of(message);
    Record {
        id,
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or_default(),
        version: number(message, VERSION_HEADER, Number::parse),
        lsn: number(message, LSN_HEADER, Number::parse_lsn),
        payload: digest(message.payload()),
        key: message.key().map_or(NO_KEY, |key| keys.intern(key)),
        id_header,
        committed: false,
    }
}

/// The `id` header; 0 unless it is a UUID.
pub(super) fn id_of(message: &BorrowedMessage<'_>) -> (u128, IdHeader) {
    match header(message, ID_HEADER) {
        Header::Absent => (0, IdHeader::Absent),
        Header::Ambiguous => (0, IdHeader::Unreadable),
        Header::Value(text) => match Uuid::try_parse_ascii(text) {
            Ok(id) => (id.as_u128(), IdHeader::Uuid),
            Err(_) => (0, IdHeader::Unreadable),
        },
    }
}

fn number(message: &BorrowedMessage<'_>, name: &str, parse: fn(&[u8]) -> Number) -> Number {
    match header(message, name) {
        Header::Absent => Number::ABSENT,
        Header::Ambiguous => Number::UNREADABLE,
        Header::Value(text) => parse(text),
    }
}

/// What a record says under one name.
enum Header<'a> {
    Absent,
    /// Present without a value counts as empty.
    Value(&'a [u8]),
    /// Several that differ. Some clients take the first and some the last, so it says nothing.
    Ambiguous,
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Header<'a> {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    let mut values =
        all.filter(|header| header.key == name).map(|header| header.value.unwrap_or_default());
    let Some(value) = values.next() else { return Header::Absent };
    if values.all(|other| other == value) { Header::Value(value) } else { Header::Ambiguous }
}
