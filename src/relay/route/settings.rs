//! The configuration of the mappings: `[outbox]`, and `[outbox.NAME]` for each further table.
//!
//! It promises that a mapping it gives out can be compiled against any table that has its columns,
//! and refuses what Debezium has and this version does not, by name.

use super::mapping::{Extras, Mapping, Missing, OnUpdate, PlaceOf, Placement, placements};
use super::pattern::{Pattern, TopicRule};
use crate::config::{Key, Kind, Reader, Section};
use crate::outbox::TableName;

const TABLE: &str = "outbox.table";
const COLUMN_ID: &str = "outbox.column_id";
const COLUMN_KEY: &str = "outbox.column_key";
const COLUMN_PAYLOAD: &str = "outbox.column_payload";
const COLUMN_TIMESTAMP: &str = "outbox.column_timestamp";
const ROUTE_BY: &str = "outbox.route_by";
const TOPIC_REGEX: &str = "outbox.topic_regex";
const TOPIC_REPLACEMENT: &str = "outbox.topic_replacement";
const PLACEMENT: &str = "outbox.placement";
const PLACEMENT_MISSING: &str = "outbox.placement_missing";
const TOMBSTONE: &str = "outbox.tombstone_on_empty_payload";
const ON_UPDATE: &str = "outbox.on_update";
const HEADER_TRACE: &str = "outbox.header_trace";
const HEADER_VERSION: &str = "outbox.header_version";
const HEADER_CREATED_AT: &str = "outbox.header_created_at";
const HEADER_POSITION: &str = "outbox.header_position";
const EXPAND_JSON: &str = "outbox.expand_json";
const CLOUDEVENTS: &str = "outbox.cloudevents";

/// The mappings of a relay, one for each outbox table.
#[derive(Debug, Clone)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// All of them: that of `[outbox]` first, then by name. Never empty.
    #[must_use]
    pub fn all(&self) -> &[Mapping] {
        &self.0
    }

    /// The one of `[outbox]` itself, which is always there.
    pub fn first(&self) -> &Mapping {
        &self.0[0]
    }

    /// The mapping of a table, named as the stream names it.
    #[must_use]
    pub fn of(&self, full_name: &str) -> Option<&Mapping> {
        self.0.iter().find(|mapping| mapping.table.to_string() == full_name)
    }
}

const fn key(path: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { path, kind, default: Some(default), help }
}

impl Section for Mappings {
    const NAMED: Option<&'static str> = Some("outbox");

    const KEYS: &'static [Key] = &[
        key(
            TABLE,
            Kind::Text,
            "public.outbox",
            "The outbox table, as `schema.table`. Names are taken as written, upper case included. \
             A further table is `[outbox.NAME]` with its own `table`; what that leaves out is as in \
             `[outbox]`.",
        ),
        key(COLUMN_ID, Kind::Text, "id", "Column with the event's id: header `id`."),
        key(COLUMN_KEY, Kind::Text, "aggregateid", "Column with the record's key."),
        key(COLUMN_PAYLOAD, Kind::Text, "payload", "Column with the record's value."),
        Key {
            path: COLUMN_TIMESTAMP,
            kind: Kind::Text,
            default: None,
            help: "Column of type timestamp or timestamptz with the record's time. Without it, and \
                   for a null, the time of the commit.",
        },
        key(ROUTE_BY, Kind::Text, "aggregatetype", "Column that the topic is made of."),
        key(
            TOPIC_REGEX,
            Kind::Text,
            "(?<routedByValue>.*)",
            "Java pattern that must match all of the column's text; what it does not match is the \
             topic as it is.",
        ),
        key(
            TOPIC_REPLACEMENT,
            Kind::Text,
            "outbox.event.${routedByValue}",
            "What the match becomes: `${name}` and `$1` are the pattern's groups.",
        ),
        Key {
            path: PLACEMENT,
            kind: Kind::Text,
            default: None,
            help: "Further columns, with commas between them: `column:header`, \
                   `column:header:alias`, `column:partition`.",
        },
        key(
            PLACEMENT_MISSING,
            Kind::Choice(&["error", "ignore"]),
            "error",
            "What if the table has no column of `placement`: refuse the table, or go without.",
        ),
        key(
            TOMBSTONE,
            Kind::Boolean,
            "false",
            "Whether an empty or blank payload makes a record without a value. A null always does.",
        ),
        key(
            ON_UPDATE,
            Kind::Choice(&["warn", "error", "fatal"]),
            "warn",
            "What an update of an outbox row means: pass over it with a warning or an error, or \
             stop. Deletes are always passed over.",
        ),
        key(
            HEADER_TRACE,
            Kind::Boolean,
            "false",
            "Headers `traceparent` and `tracestate` from columns of these names.",
        ),
        key(
            HEADER_VERSION,
            Kind::Boolean,
            "false",
            "Header `aggregateversion` from the column of this name.",
        ),
        key(
            HEADER_CREATED_AT,
            Kind::Boolean,
            "false",
            "Header `created_at` from the column of this name.",
        ),
        key(
            HEADER_POSITION,
            Kind::Boolean,
            "false",
            "Headers `postrider-lsn`, `postrider-xid` and `postrider-index`: commit, transaction, \
             and place in it.",
        ),
        key(EXPAND_JSON, Kind::Boolean, "false", "Not supported in this version."),
        key(CLOUDEVENTS, Kind::Boolean, "false", "Not supported in this version."),
    ];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let mut mappings = vec![mapping(raw, "outbox".to_owned())];
        for name in raw.names("outbox") {
            let further = raw.within("outbox", &name, |raw| {
                raw.require_own(TABLE);
                let mapping = mapping(raw, format!("outbox.{name}"));
                // An inherited table would only add a second complaint.
                let mapping = mapping.filter(|_| raw.is_own(TABLE))?;
                let same = |other: &&Mapping| other.table == mapping.table;
                if let Some(first) = mappings.iter().flatten().find(same) {
                    let why = format!("[{}] has it already", first.section);
                    raw.problem(TABLE, "must be a table of its own", why);
                }
                Some(mapping)
            });
            mappings.push(further);
        }
        mappings.into_iter().collect::<Option<Vec<_>>>().map(Self)
    }
}

fn mapping(raw: &mut Reader<'_>, section: String) -> Option<Mapping> {
    let table = table(raw);
    let id = raw.text(COLUMN_ID);
    let key = raw.text(COLUMN_KEY);
    let payload = raw.text(COLUMN_PAYLOAD);
    let timestamp = raw.text(COLUMN_TIMESTAMP);
    let route_by = raw.text(ROUTE_BY);
    let topic = topic(raw);
    let placements = further(raw);
    let missing = raw.choice(PLACEMENT_MISSING).map(|word| match word {
        "ignore" => Missing::Ignore,
        _ => Missing::Error,
    });
    let tombstone_on_empty = raw.boolean(TOMBSTONE);
    let on_update = raw.choice(ON_UPDATE).map(|word| match word {
        "fatal" => OnUpdate::Fatal,
        "error" => OnUpdate::Error,
        _ => OnUpdate::Warn,
    });
    let extras = extras(raw, placements.as_deref().unwrap_or_default());
    for path in [EXPAND_JSON, CLOUDEVENTS] {
        if raw.boolean(path) == Some(true) {
            raw.problem(path, "is not supported in this version", "leave it out");
        }
    }
    Some(Mapping {
        section,
        table: table?,
        id: id?,
        key: key?,
        payload: payload?,
        route_by: route_by?,
        topic: topic?,
        timestamp,
        placements: placements?,
        missing: missing?,
        tombstone_on_empty: tombstone_on_empty?,
        on_update: on_update?,
        extras: extras?,
    })
}

/// The stream names each table with its schema; a search path is the session's affair, so a name
/// without one could be any of several tables.
fn table(raw: &mut Reader<'_>) -> Option<TableName> {
    let text = raw.text(TABLE)?;
    let why = match text.parse::<TableName>() {
        Ok(table) if text.contains('.') => return Some(table),
        Ok(_) => format!("it has no schema: write public.{text} if that is the one"),
        // The rule alone: the text may be a URL with a password in it.
        Err(error) => error.rule().to_owned(),
    };
    raw.problem(TABLE, "must be schema.table", why);
    None
}

fn topic(raw: &mut Reader<'_>) -> Option<TopicRule> {
    let (regex, replacement) = (raw.text(TOPIC_REGEX), raw.text(TOPIC_REPLACEMENT));
    let pattern: Option<Pattern> = match TopicRule::pattern(&regex?) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let rule = "must be a Java pattern that means the same here";
            raw.problem(TOPIC_REGEX, rule, error.to_string());
            None
        }
    };
    match pattern?.with_replacement(&replacement?) {
        Ok(topic) => Some(topic),
        Err(error) => {
            let rule = "must be a replacement as Java writes it";
            raw.problem(TOPIC_REPLACEMENT, rule, error.to_string());
            None
        }
    }
}

fn further(raw: &mut Reader<'_>) -> Option<Vec<Placement>> {
    let Some(text) = raw.text(PLACEMENT) else { return Some(Vec::new()) };
    match placements(&text) {
        Ok(placements) => Some(placements),
        Err(why) => {
            let rule = "must be column:header[:alias] or column:partition, with commas between";
            raw.problem(PLACEMENT, rule, why);
            None
        }
    }
}

fn extras(raw: &mut Reader<'_>, placements: &[Placement]) -> Option<Extras> {
    let trace = raw.boolean(HEADER_TRACE);
    let version = raw.boolean(HEADER_VERSION);
    let created_at = raw.boolean(HEADER_CREATED_AT);
    let position = raw.boolean(HEADER_POSITION);
    let extras =
        Extras { trace: trace?, version: version?, created_at: created_at?, position: position? };
    for header in extras.headers() {
        if placements.iter().any(|one| one.place == PlaceOf::Header(header.to_owned())) {
            let rule = "must not repeat a header that is on already";
            raw.problem(PLACEMENT, rule, format!("{header} comes from one of outbox.header_…"));
        }
    }
    Some(extras)
}

#[cfg(test)]
mod tests;
