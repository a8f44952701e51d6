//! The event contract on the wire: which topic, which key, which headers.
//!
//! Writers, relay, consumers and the checker agree on this file and on nothing else. It promises that
//! a name it accepts is a topic that Kafka accepts; it refuses, with the rule, everything else. It
//! does no I/O and imports nothing of ours.
//!
//! | part | is |
//! |---|---|
//! | topic | [`TOPIC_PREFIX`] + `aggregatetype` |
//! | key | the bytes of `aggregateid`, never empty |
//! | value | the bytes of `payload`; no value is a tombstone |
//! | header [`HEADER_ID`] | the event's id: a lower-case uuid |
//! | headers [`HEADER_AGGREGATE_VERSION`], [`HEADER_TRACEPARENT`], [`HEADER_LSN`] | optional |
//!
//! Guarantee: what [`topic`], [`EventId`] and [`Traceparent`] accept can be sent and read back.
//! Bounded by: Kafka's 249 characters for a topic, [`KEY_BYTES_MAX`] for a key, 55 characters and
//! [`TRACEPARENT_BYTES_MAX`] at most for a trace.
//! Tested by: the tests below.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// What every topic of the outbox begins with; Debezium's default, so its consumers find their topics.
pub const TOPIC_PREFIX: &str = "outbox.event.";

/// The longest topic name that Kafka takes.
pub const TOPIC_BYTES_MAX: usize = 249;

/// The longest `aggregatetype`: what the prefix leaves of a topic name.
pub const AGGREGATE_TYPE_BYTES_MAX: usize = TOPIC_BYTES_MAX - TOPIC_PREFIX.len();

/// The longest key. Four times Debezium's 255 characters, since a character takes up to four bytes;
/// the table's check says the same.
pub const KEY_BYTES_MAX: usize = 1024;

/// The longest `traceparent` kept. A later version of the format may append fields; a header is no
/// place for an unbounded one.
pub const TRACEPARENT_BYTES_MAX: usize = 256;

/// Header with the event's id, by which a consumer recognises what it has already handled.
pub const HEADER_ID: &str = "id";

/// Header with the version of the aggregate after this event, in decimal; consumers find gaps by it.
pub const HEADER_AGGREGATE_VERSION: &str = "aggregateversion";

/// Header with the W3C trace context of the writer.
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// Header with the position of the event's transaction in the log, for those who ask for it.
pub const HEADER_LSN: &str = "postrider-lsn";

/// The identity of an event: made once by its writer, the same in every repetition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// A new identity. Version 7 begins with the time, so that the ids of one moment are neighbours
    /// in the table's primary key and an insert touches few of its pages.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "every call gives another id")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The plain uuid, for a query's parameter.
    #[must_use]
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = ContractError;

    /// Reads the form of the header: hyphenated, 36 characters. Other spellings of a uuid are refused
    /// because two spellings of one id would be two events to a consumer that compares text.
    fn from_str(text: &str) -> Result<Self, ContractError> {
        let id = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
        id.map(Self).ok_or_else(|| ContractError::EventId { found: excerpt(text) })
    }
}

/// What breaks the contract. Each text names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// The name would begin a topic without an end.
    #[error("empty, but it names the topic: give it the aggregate's type, such as order")]
    TopicEmpty,
    /// The topic would be longer than Kafka allows.
    #[error(
        "{bytes} bytes long; Kafka allows {TOPIC_BYTES_MAX} for a topic and {TOPIC_PREFIX} takes \
         {} of them: shorten it to {AGGREGATE_TYPE_BYTES_MAX}",
        TOPIC_PREFIX.len()
    )]
    TopicTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A character that no topic may have.
    #[error(
        "{character:?} at byte {at} cannot be part of a topic: use letters, digits, dot, underscore \
         and hyphen of ASCII"
    )]
    TopicCharacter {
        /// The first such character.
        character: char,
        /// Where it stands.
        at: usize,
    },
    /// Not the header form of a uuid.
    #[error("{found:?} is not an event id: expected a hyphenated uuid of 36 characters")]
    EventId {
        /// What was there, cut short.
        found: String,
    },
    /// Not a W3C trace context.
    #[error("{found:?} is not a W3C traceparent: {rule}")]
    Traceparent {
        /// What was there, cut short.
        found: String,
        /// The rule it breaks.
        rule: &'static str,
    },
}

/// The topic of an aggregate type, or why there can be none.
pub fn topic(aggregate_type: &str) -> Result<String, ContractError> {
    check_aggregate_type(aggregate_type)?;
    Ok(format!("{TOPIC_PREFIX}{aggregate_type}"))
}

/// Whether an aggregate type names a topic; [`topic`] without making the name.
pub fn check_aggregate_type(aggregate_type: &str) -> Result<(), ContractError> {
    if aggregate_type.is_empty() {
        return Err(ContractError::TopicEmpty);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some((at, character)) = aggregate_type.char_indices().find(|&(_, c)| !allowed(c)) {
        return Err(ContractError::TopicCharacter { character, at });
    }
    if aggregate_type.len() > AGGREGATE_TYPE_BYTES_MAX {
        return Err(ContractError::TopicTooLong { bytes: aggregate_type.len() });
    }
    Ok(())
}

/// A W3C trace context that has been checked: `00-<32 hex>-<16 hex>-<2 hex>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traceparent(String);

impl Traceparent {
    /// Its text, as in the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Traceparent {
    type Err = ContractError;

    fn from_str(text: &str) -> Result<Self, ContractError> {
        match traceparent_rule_broken(text) {
            None => Ok(Self(text.to_owned())),
            Some(rule) => Err(ContractError::Traceparent { found: excerpt(text), rule }),
        }
    }
}

/// The first rule of <https://www.w3.org/TR/trace-context/#traceparent-header> that `text` breaks.
fn traceparent_rule_broken(text: &str) -> Option<&'static str> {
    if text.len() > TRACEPARENT_BYTES_MAX {
        return Some("longer than 256 bytes");
    }
    let mut fields = text.split('-');
    let mut field = |digits: usize| {
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        fields.next().filter(|field| field.len() == digits && field.bytes().all(hex))
    };
    let (Some(version), Some(trace), Some(parent), Some(_flags)) =
        (field(2), field(32), field(16), field(2))
    else {
        return Some("expected 00-<32>-<16>-<2> digits, hexadecimal in lower case");
    };
    if version == "ff" {
        return Some("version ff is forbidden");
    }
    // Later versions may append fields; the first one must end here.
    if version == "00" && fields.next().is_some() {
        return Some("version 00 ends after its fourth field");
    }
    if trace.bytes().all(|b| b == b'0') {
        return Some("a trace id of zeros means that there is no trace: leave it out");
    }
    if parent.bytes().all(|b| b == b'0') {
        return Some("a parent id of zeros means that there is no parent: leave the trace out");
    }
    None
}

/// Enough of a wrong value to recognise it, and no more: errors travel into logs.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_the_prefix_and_the_type() {
        assert_eq!(topic("order").unwrap(), "outbox.event.order");
        assert_eq!(topic("A.b_c-9").unwrap(), "outbox.event.A.b_c-9");
        let longest = "a".repeat(AGGREGATE_TYPE_BYTES_MAX);
        assert_eq!(topic(&longest).unwrap().len(), TOPIC_BYTES_MAX);
    }

    #[test]
    fn what_kafka_would_refuse_is_refused_here() {
        assert_eq!(topic(""), Err(ContractError::TopicEmpty));
        let long = "a".repeat(AGGREGATE_TYPE_BYTES_MAX + 1);
        assert_eq!(topic(&long), Err(ContractError::TopicTooLong { bytes: 237 }));
        for (name, character, at) in
            [("a b", ' ', 1), ("käse", 'ä', 1), ("a/b", '/', 1), ("\0", '\0', 0)]
        {
            assert_eq!(topic(name), Err(ContractError::TopicCharacter { character, at }), "{name}");
        }
        assert!(
            ContractError::TopicTooLong { bytes: 237 }.to_string().contains("shorten it to 236")
        );
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = EventId::new();
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        let text = "0190163d-8694-739b-aea5-966c26f8ad91";
        assert_eq!(text.parse::<EventId>().unwrap().to_string(), text);
        for other in
            ["", "0190163d8694739baea5966c26f8ad91", "{0190163d-8694-739b-aea5-966c26f8ad91}"]
        {
            assert!(other.parse::<EventId>().is_err(), "{other}");
        }
    }

    #[test]
    fn ids_of_one_moment_are_neighbours() {
        let (first, second) = (EventId::new(), EventId::new());
        assert!(first < second, "{first} {second}");
        assert_eq!(first.as_uuid().get_version_num(), 7);
    }

    #[test]
    fn a_trace_context_is_held_to_its_standard() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(good.parse::<Traceparent>().unwrap().as_str(), good);
        assert!(format!("01{}-later", &good[2..]).parse::<Traceparent>().is_ok());
        for (bad, rule) in [
            (String::new(), "expected 00-"),
            (good.to_uppercase(), "expected 00-"),
            (good[..54].to_owned(), "expected 00-"),
            (format!("ff{}", &good[2..]), "ff is forbidden"),
            (format!("{good}-x"), "ends after"),
            (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), "no trace"),
            (format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16)), "no parent"),
            (format!("01{}-{}", &good[2..], "x".repeat(300)), "longer than"),
        ] {
            let error = bad.parse::<Traceparent>().unwrap_err().to_string();
            assert!(error.contains(rule), "{bad}: {error}");
        }
    }
}
