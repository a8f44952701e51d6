//! An event before it is written, and every rule it must keep so that the relay can route it.
//!
//! Checking is pure and happens before the database sees anything: an error from the server would
//! abort the writer's transaction, a refusal here leaves it usable.

use std::fmt;

use serde::Serialize;

use super::json;
use super::table::PayloadColumn;
use crate::event::{self, ContractError, EventId, KEY_BYTES_MAX, Traceparent};

/// The longest `type`, as in the table's check.
pub const TYPE_BYTES_MAX: usize = 1024;

/// The largest payload by default: with key, type and headers it stays below the 1,000,000 bytes that
/// Kafka clients send and the 1,048,588 that brokers take. The table's check says the same.
pub const PAYLOAD_BYTES_DEFAULT: usize = 960 * 1024;

/// What becomes the value of the record.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub(super) Content);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Content {
    Json(String),
    Text(String),
    Bytes(Vec<u8>),
    Tombstone,
}

impl Payload {
    /// A value as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(Content::Json(serde_json::to_string(value)?)))
    }

    /// Text that is JSON already; consumers get it byte for byte from a `json` column.
    pub fn json_text(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_str::<serde::de::IgnoredAny>(&text)?;
        Ok(Self(Content::Json(text)))
    }

    /// Text, for a `text` or `bytea` column.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Content::Text(text.into()))
    }

    /// Bytes such as Avro or Protobuf, for a `bytea` column.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Content::Bytes(bytes.into()))
    }

    /// No value: tells a compacted topic to forget the key.
    #[must_use]
    pub fn tombstone() -> Self {
        Self(Content::Tombstone)
    }

    /// Its size in bytes as it will be sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().map_or(0, <[u8]>::len)
    }

    /// Whether there is nothing to send: a tombstone, or an empty value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Content::Json(text) | Content::Text(text) => Some(text.as_bytes()),
            Content::Bytes(bytes) => Some(bytes),
            Content::Tombstone => None,
        }
    }

    /// As text, for columns that are not `bytea`; bytes have been refused there before.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Content::Json(text) | Content::Text(text) => Some(text),
            Content::Bytes(_) | Content::Tombstone => None,
        }
    }
}

/// Payloads hold customers' data: logs get the kind and the size.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Content::Json(_) => "json",
            Content::Text(_) => "text",
            Content::Bytes(_) => "bytes",
            Content::Tombstone => "tombstone",
        };
        write!(f, "{kind} of {} bytes", self.len())
    }
}

/// One event: a row of the outbox, a record of Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its identity. Keep it when you repeat an attempt, so that the second row is refused.
    pub id: EventId,
    /// Names the topic.
    pub aggregate_type: String,
    /// Becomes the key: events of one aggregate stay in order.
    pub aggregate_id: String,
    /// What happened, such as `OrderPlaced`.
    pub kind: String,
    /// What consumers read.
    pub payload: Payload,
    /// The version of the aggregate after this event, for consumers that look for gaps.
    pub aggregate_version: Option<i64>,
    /// The writer's trace.
    pub traceparent: Option<String>,
}

impl Event {
    /// An event with a new id and without the optional parts.
    pub fn new(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        kind: impl Into<String>,
        payload: Payload,
    ) -> Self {
        Self {
            id: EventId::new(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.into(),
            kind: kind.into(),
            payload,
            aggregate_version: None,
            traceparent: None,
        }
    }

    /// Checks everything that would keep the relay from routing the row, or the table from taking it.
    pub(super) fn check(&self, column: PayloadColumn, payload_max: usize) -> Result<(), Refusal> {
        event::check_aggregate_type(&self.aggregate_type)
            .map_err(|rule| Refusal::AggregateType { rule })?;
        check_text("aggregateid", &self.aggregate_id, KEY_BYTES_MAX)?;
        check_text("type", &self.kind, TYPE_BYTES_MAX)?;
        if let Some(trace) = &self.traceparent {
            trace.parse::<Traceparent>().map_err(|rule| Refusal::Traceparent { rule })?;
        }
        check_payload(&self.payload, column, payload_max)
    }
}

/// Why an event was not written. Nothing has been sent to the server; the transaction is usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It names no topic.
    #[error("aggregatetype: {rule}")]
    AggregateType {
        /// The rule and the way out.
        rule: ContractError,
    },
    /// A text that must say something says nothing.
    #[error("{field}: empty; {why}")]
    Empty {
        /// The column.
        field: &'static str,
        /// What it is needed for.
        why: &'static str,
    },
    /// A text longer than its column takes.
    #[error(
        "{field}: {bytes} bytes, at most {limit}: shorten it, long values belong in the payload"
    )]
    TooLong {
        /// The column.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A character that Postgres keeps in no text.
    #[error("{field}: contains a NUL character, which Postgres cannot store: {way_out}")]
    Nul {
        /// The column.
        field: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// Not a trace context.
    #[error("traceparent: {rule}")]
    Traceparent {
        /// The rule and the way out.
        rule: ContractError,
    },
    /// A payload that would be quarantined instead of sent.
    #[error(
        "payload: {bytes} bytes, at most {limit}: send a reference to the data, or raise this limit, \
         the table's check and the broker's and topic's message size together"
    )]
    PayloadTooLarge {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Valid JSON that Postgres does not take into such a column.
    #[error("payload: not for a {column} column, {rule}")]
    Json {
        /// The column's type.
        column: PayloadColumn,
        /// What is in the way, and the way out.
        rule: &'static str,
    },
    /// A payload of a kind that the table's column does not hold.
    #[error("payload: {kind} does not go into a {column} column: {way_out}")]
    PayloadKind {
        /// What was given.
        kind: &'static str,
        /// The column's type.
        column: PayloadColumn,
        /// What to do.
        way_out: &'static str,
    },
}

fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), Refusal> {
    if text.is_empty() {
        let why = match field {
            "aggregateid" => "it is the key, without one the events of an aggregate have no order",
            _ => "consumers decide by it what the event means",
        };
        return Err(Refusal::Empty { field, why });
    }
    if text.len() > limit {
        return Err(Refusal::TooLong { field, bytes: text.len(), limit });
    }
    if text.contains('\0') {
        return Err(Refusal::Nul { field, way_out: "remove it" });
    }
    Ok(())
}

fn check_payload(payload: &Payload, column: PayloadColumn, limit: usize) -> Result<(), Refusal> {
    let kind = |kind, way_out| Err(Refusal::PayloadKind { kind, column, way_out });
    match (&payload.0, column) {
        (Content::Tombstone, _) | (_, PayloadColumn::Bytea) => {}
        (Content::Bytes(_), _) => {
            return kind("bytes", "use a table whose payload is bytea, and say so to the writer");
        }
        (Content::Text(_), PayloadColumn::Json | PayloadColumn::Jsonb) => {
            return kind("text", "make it JSON, or use a table whose payload is text");
        }
        (Content::Text(text), PayloadColumn::Text) if text.contains('\0') => {
            return Err(Refusal::Nul { field: "payload", way_out: "use a bytea column" });
        }
        (Content::Json(text), PayloadColumn::Json | PayloadColumn::Jsonb) => {
            let jsonb = column == PayloadColumn::Jsonb;
            if let Some(rule) = json::fault(text, jsonb) {
                return Err(Refusal::Json { column, rule });
            }
        }
        (Content::Text(_) | Content::Json(_), _) => {}
    }
    if payload.len() > limit {
        return Err(Refusal::PayloadTooLarge { bytes: payload.len(), limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new("order", "42", "OrderPlaced", Payload::json_text(r#"{"total": 1.0}"#).unwrap())
    }

    fn refused(event: &Event) -> String {
        event.check(PayloadColumn::Json, 100).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_event_is_accepted() {
        assert_eq!(event().check(PayloadColumn::Json, 100), Ok(()));
        let full = Event {
            aggregate_version: Some(3),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            payload: Payload::tombstone(),
            ..event()
        };
        assert_eq!(full.check(PayloadColumn::Json, 0), Ok(()), "a tombstone has no size");
    }

    #[test]
    fn each_refusal_names_the_field_and_the_way_out() {
        for (change, words) in [
            (Event { aggregate_type: String::new(), ..event() }, "aggregatetype: empty"),
            (
                Event { aggregate_type: "an order".into(), ..event() },
                "aggregatetype: ' ' at byte 2",
            ),
            (Event { aggregate_id: String::new(), ..event() }, "aggregateid: empty; it is the key"),
            (
                Event { aggregate_id: "k".repeat(1025), ..event() },
                "aggregateid: 1025 bytes, at most 1024",
            ),
            (Event { aggregate_id: "a\0".into(), ..event() }, "aggregateid: contains a NUL"),
            (Event { kind: String::new(), ..event() }, "type: empty; consumers decide"),
            (Event { traceparent: Some("00-1".into()), ..event() }, "traceparent: \"00-1\" is not"),
        ] {
            let text = refused(&change);
            assert!(text.contains(words), "{text}");
        }
        let large = Event { payload: Payload::json(&"x".repeat(99)).unwrap(), ..event() };
        let text = refused(&large);
        assert!(text.starts_with("payload: 101 bytes, at most 100: send a reference"), "{text}");
    }

    #[test]
    fn payloads_go_only_where_they_can_be_kept() {
        use PayloadColumn::{Bytea, Json, Jsonb, Text};
        let json = Payload::json_text("1").unwrap();
        for (payload, accepting) in [
            (json, &[Json, Jsonb, Text, Bytea][..]),
            (Payload::text("plain"), &[Text, Bytea]),
            (Payload::text("with\0nul"), &[Bytea]),
            (Payload::bytes([0, 255]), &[Bytea]),
            (Payload::tombstone(), &[Json, Jsonb, Text, Bytea]),
            (Payload::json_text(r#""\u0000""#).unwrap(), &[Json, Text, Bytea]),
            (Payload::json_text(r#""\\u0000""#).unwrap(), &[Json, Jsonb, Text, Bytea]),
        ] {
            for column in [Json, Jsonb, Text, Bytea] {
                let event = Event { payload: payload.clone(), ..event() };
                let accepted = event.check(column, 100).is_ok();
                assert_eq!(accepted, accepting.contains(&column), "{payload:?} into {column}");
            }
        }
    }

    #[test]
    fn what_is_not_json_never_becomes_a_json_payload() {
        assert!(Payload::json_text("{").is_err());
        assert!(Payload::json_text("1 2").is_err());
    }

    #[test]
    fn a_payload_is_not_printed() {
        assert_eq!(format!("{:?}", Payload::text("secret")), "text of 6 bytes");
    }
}
