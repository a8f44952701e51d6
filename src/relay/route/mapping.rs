//! How the rows of one table become records: the options of Debezium's EventRouter, checked.
//!
//! A mapping names columns; whether a table has them is known only when the stream describes it, and
//! is [`Plan`](super::Plan)'s to say.

use super::pattern::TopicRule;
use crate::event::{HEADER_AGGREGATE_VERSION, HEADER_LSN, HEADER_TRACEPARENT};
use crate::outbox::TableName;

/// Header with the id of the writing transaction, 32 bits of it in decimal.
pub const HEADER_XID: &str = "postrider-xid";
/// Header with the event's place among the outbox rows of its transaction, from 0.
pub const HEADER_INDEX: &str = "postrider-index";
/// Header, and column, with what a writer's tracing system adds to its trace context.
pub const HEADER_TRACESTATE: &str = "tracestate";
/// Header, and column, with the time at which the row was written.
pub const HEADER_CREATED_AT: &str = "created_at";

/// The mapping of one table.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The part of the configuration it came from, such as `outbox.billing`: messages name its keys.
    pub section: String,
    /// The table, always with its schema.
    pub table: TableName,
    /// Column with the event's id.
    pub id: String,
    /// Column with the record's key.
    pub key: String,
    /// Column with the record's value.
    pub payload: String,
    /// Column that the topic is made of.
    pub route_by: String,
    /// How.
    pub topic: TopicRule,
    /// Column with the record's timestamp; without one it is the commit's.
    pub timestamp: Option<String>,
    /// Further columns, in the order of their headers.
    pub placements: Vec<Placement>,
    /// Whether a table may lack the columns of `placements`.
    pub missing: Missing,
    /// Whether an empty or blank payload is a tombstone, as a null one always is.
    pub tombstone_on_empty: bool,
    /// What an update of a row means.
    pub on_update: OnUpdate,
    /// Headers that Debezium has not.
    pub extras: Extras,
}

/// Where a further column goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The column.
    pub column: String,
    /// The place.
    pub place: PlaceOf,
}

/// A place in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceOf {
    /// A header of this name; null is a header without a value.
    Header(String),
    /// The number of the partition; null leaves it to the key.
    Partition,
}

/// What to do when a table lacks a column of the placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Refuse the table.
    Error,
    /// Go without.
    Ignore,
}

/// What an update of an outbox row means. An event is written once; what was sent stays sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUpdate {
    /// Pass over it with a warning.
    Warn,
    /// Pass over it with an error in the log.
    Error,
    /// Stop, so that an operator looks.
    Fatal,
}

/// Headers on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extras {
    /// `traceparent` and `tracestate` from the columns of these names.
    pub trace: bool,
    /// `aggregateversion` from the column of this name.
    pub version: bool,
    /// `created_at` from the column of this name.
    pub created_at: bool,
    /// `postrider-lsn`, `postrider-xid` and `postrider-index`.
    pub position: bool,
}

impl Extras {
    /// The columns asked for, each with whether a table may lack it. Each is its header's name too.
    pub(super) fn columns(self) -> impl Iterator<Item = (&'static str, Missing)> {
        [
            (self.trace, HEADER_TRACEPARENT, Missing::Error),
            // Few writers have one; a table for `traceparent` alone is complete.
            (self.trace, HEADER_TRACESTATE, Missing::Ignore),
            (self.version, HEADER_AGGREGATE_VERSION, Missing::Error),
            (self.created_at, HEADER_CREATED_AT, Missing::Error),
        ]
        .into_iter()
        .filter_map(|(asked, column, missing)| asked.then_some((column, missing)))
    }

    /// The headers asked for.
    pub(super) fn headers(self) -> impl Iterator<Item = &'static str> {
        let position = [HEADER_LSN, HEADER_XID, HEADER_INDEX].into_iter();
        let position = position.filter(move |_| self.position);
        self.columns().map(|(column, _)| column).chain(position)
    }
}

/// A change of a table that is no new event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A row was changed.
    Update,
    /// A row was deleted: how outboxes are kept small.
    Delete,
    /// The table was emptied.
    Truncate,
}

/// What is to be done about a [`Change`]. None of them sends anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    Ignore,
    /// A warning in the log.
    Warn,
    /// An error in the log.
    Error,
    /// Stop.
    Stop,
}

impl Mapping {
    /// The columns that no row can be routed without.
    #[must_use]
    pub fn required_columns(&self) -> Vec<&str> {
        let own = [&self.id, &self.route_by, &self.key, &self.payload].map(String::as_str);
        let placed = self.placements.iter().map(|one| one.column.as_str());
        let placed = placed.filter(|_| self.missing == Missing::Error);
        let extras = self.extras.columns().filter(|(_, missing)| *missing == Missing::Error);
        let all = own.into_iter().chain(self.timestamp.as_deref()).chain(placed);
        all.chain(extras.map(|(column, _)| column)).collect()
    }

    /// What is to be done about a change that is no new event.
    #[must_use]
    pub fn on_change(&self, change: Change) -> Reaction {
        match (change, self.on_update) {
            (Change::Delete | Change::Truncate, _) => Reaction::Ignore,
            (Change::Update, OnUpdate::Warn) => Reaction::Warn,
            (Change::Update, OnUpdate::Error) => Reaction::Error,
            (Change::Update, OnUpdate::Fatal) => Reaction::Stop,
        }
    }
}

/// Reads a list of placements in Debezium's own notation: `column:header[:alias]` or
/// `column:partition`, with commas between them.
///
/// # Errors
///
/// The first entry that cannot be read, and what to write instead.
pub fn placements(text: &str) -> Result<Vec<Placement>, String> {
    let placements: Vec<_> = text.split(',').map(placement).collect::<Result<_, _>>()?;
    let partitions = placements.iter().filter(|one| one.place == PlaceOf::Partition).count();
    if partitions > 1 {
        return Err("two entries are the partition: a record has one".to_owned());
    }
    Ok(placements)
}

fn placement(entry: &str) -> Result<Placement, String> {
    let parts: Vec<&str> = entry.split(':').map(str::trim).collect();
    let (column, place, alias) = match parts[..] {
        [column, place] => (column, place, None),
        [column, place, alias] => (column, place, Some(alias)),
        _ => {
            let entry = entry.trim();
            return Err(format!("{entry:?} is not column:header, column:header:alias or the like"));
        }
    };
    if column.is_empty() || alias == Some("") {
        return Err(format!("{:?} has an empty part", entry.trim()));
    }
    let place = match (place.to_ascii_lowercase().as_str(), alias) {
        ("header", alias) => PlaceOf::Header(alias.unwrap_or(column).to_owned()),
        ("partition", None) => PlaceOf::Partition,
        ("partition", Some(alias)) => {
            return Err(format!(
                "{column}:partition has the alias {alias}, but no name to give it"
            ));
        }
        ("envelope", _) => {
            return Err(format!(
                "{column}:envelope is not supported in this version: place it in a header"
            ));
        }
        _ => return Err(format!("{place:?} is no place: write header or partition")),
    };
    Ok(Placement { column: column.to_owned(), place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(column: &str, name: &str) -> Placement {
        Placement { column: column.to_owned(), place: PlaceOf::Header(name.to_owned()) }
    }

    #[test]
    fn placements_are_read_as_debezium_writes_them() {
        let partition = Placement { column: "shard".to_owned(), place: PlaceOf::Partition };
        for (text, expected) in [
            ("type:header", vec![header("type", "type")]),
            ("type:header:eventType", vec![header("type", "eventType")]),
            (
                " type:HEADER:eventType , shard:partition,region:header",
                vec![header("type", "eventType"), partition, header("region", "region")],
            ),
        ] {
            assert_eq!(placements(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn placements_that_cannot_be_are_refused() {
        for (text, says) in [
            ("type", "is not column:header"),
            ("a:b:c:d", "is not column:header"),
            ("type:header,", "is not column:header"),
            (":header", "empty part"),
            ("type:header:", "empty part"),
            ("type:value", "is no place"),
            ("shard:partition:p", "has the alias p"),
            ("a:partition,b:partition", "a record has one"),
            ("type:envelope:kind", "not supported in this version"),
        ] {
            let refused = placements(text).unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
