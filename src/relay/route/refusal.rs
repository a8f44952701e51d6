//! Why a row cannot become a record: a value that a quarantine can keep, never a panic.
//!
//! It promises to say which row it was, as far as that could be read, and refuses to quote a payload.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The class of a refusal, for metrics and for the quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A value, or the record, is over the limit.
    TooLarge,
    /// The topic's column makes no name that Kafka takes.
    Topic,
    /// There is no event id.
    Id,
    /// The partition's column names none.
    Partition,
    /// A value that is not what its type promises, or that Kafka cannot take.
    Value,
}

impl Reason {
    /// All of them, in the order of their labels in the documentation.
    pub const ALL: [Self; 5] =
        [Self::TooLarge, Self::Topic, Self::Id, Self::Partition, Self::Value];

    /// The word that stands for it in metrics and in quarantine entries.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Topic => "topic",
            Self::Id => "id",
            Self::Partition => "partition",
            Self::Value => "value",
        }
    }
}

/// A row that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {} of {table} cannot be sent: {detail}", Identity(.id))]
pub struct Refusal {
    /// Its class.
    pub reason: Reason,
    /// The table, with its schema.
    pub table: Arc<str>,
    /// The event's id as a header would carry it, if it could be read.
    pub id: Option<Bytes>,
    /// The record's key, if it could be read; null keys are `None` too.
    pub key: Option<Bytes>,
    /// What is wrong, by which rule, and the way out.
    pub detail: String,
    /// How large the value or the record is, where that is what is wrong.
    pub size: Option<usize>,
}

struct Identity<'a>(&'a Option<Bytes>);

impl fmt::Display for Identity<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => out.write_str(&excerpt(id)),
            None => out.write_str("without a readable id"),
        }
    }
}

/// Characters of a value that a message shows: enough for a uuid and for a long topic's beginning.
const EXCERPT_CHARS_MAX: usize = 60;

/// A value for a message: one line, no control characters, cut when long.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    // Four bytes is the longest character, so this much holds all that is shown.
    let head = &bytes[..bytes.len().min(4 * EXCERPT_CHARS_MAX)];
    let text = String::from_utf8_lossy(head);
    let mut shown: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    let whole = shown.len() == text.len() && head.len() == bytes.len();
    shown = shown.escape_debug().to_string();
    if !whole {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_event_in_one_line() {
        let refusal = Refusal {
            reason: Reason::Topic,
            table: "public.outbox".into(),
            id: Some(Bytes::from_static(b"a\nb")),
            key: None,
            detail: "no topic".to_owned(),
            size: None,
        };
        let said = "event a\\nb of public.outbox cannot be sent: no topic";
        assert_eq!(refusal.to_string(), said);
        let nameless = Refusal { id: None, ..refusal };
        assert!(nameless.to_string().starts_with("event without a readable id of public.outbox"));
    }

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        assert_eq!(excerpt(b"order"), "order");
        assert_eq!(excerpt("ü".repeat(60).as_bytes()), "ü".repeat(60));
        assert_eq!(excerpt("ü".repeat(61).as_bytes()), format!("{}…", "ü".repeat(60)));
        assert!(excerpt(&[0xff; 1000]).ends_with('…'));
    }

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let labels: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::label).into();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
