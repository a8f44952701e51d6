//! Which table is written to: its name, quoted once, and the type of its payload column.
//!
//! A name comes from a configuration file and ends up in SQL; this is the only place where it is
//! turned into an identifier.

use std::fmt;
use std::str::FromStr;

use tokio_postgres::types::Type;

/// Postgres cuts identifiers after so many bytes; a cut name would be another table.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// A table's name, with its schema or left to the search path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

impl TableName {
    /// The schema, if it is not left to the search path.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The name without its schema.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as SQL, quoted.
    #[must_use]
    pub fn quoted(&self) -> String {
        let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.name)),
            None => quote(&self.name),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Why a text names no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} names no table: {rule}; expected table or schema.table")]
pub struct TableNameError {
    found: String,
    rule: &'static str,
}

impl TableNameError {
    /// The rule alone, for a message that shows the text by itself.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    /// Reads `table` or `schema.table`. Names are taken as they are written, upper case included,
    /// because the catalog has them so; a dot inside a name is not supported.
    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let refuse = |rule| Err(TableNameError { found: text.to_owned(), rule });
        // Every log line about the table would show its password.
        if text.contains("://") {
            return refuse("it is a URL");
        }
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() > 2 {
            return refuse("more than one dot");
        }
        for part in &parts {
            if part.is_empty() {
                return refuse("a part is empty");
            }
            if part.len() > IDENTIFIER_BYTES_MAX {
                return refuse("a part is longer than Postgres's 63 bytes");
            }
            if part.contains(['\0', '"']) {
                return refuse(
                    "it contains a quote or NUL (write the bare name, it is quoted for you)",
                );
            }
        }
        Ok(match parts[..] {
            [schema, name] => Self { schema: Some(schema.into()), name: name.into() },
            _ => Self { schema: None, name: text.into() },
        })
    }
}

/// The type of the payload column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadColumn {
    /// `json`, as in sql/outbox.sql: bytes are kept as written.
    #[default]
    Json,
    /// `jsonb`, as in Debezium's examples.
    Jsonb,
    /// `text`.
    Text,
    /// `bytea`.
    Bytea,
}

impl fmt::Display for PayloadColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Text => "text",
            Self::Bytea => "bytea",
        })
    }
}

/// The two statements for one table. Parameter types are fixed here, so that the server need not be
/// asked for them first: that question would be a second round trip.
#[derive(Debug, Clone)]
pub(super) struct Statements {
    pub(super) one: String,
    pub(super) many: String,
    pub(super) payload: Type,
    pub(super) payloads: Type,
}

const COLUMNS: &str =
    "id, aggregatetype, aggregateid, type, payload, aggregateversion, traceparent";

impl Statements {
    pub(super) fn new(table: &TableName, payload: PayloadColumn) -> Self {
        let table = table.quoted();
        let (kind, kinds) = match payload {
            PayloadColumn::Json | PayloadColumn::Jsonb | PayloadColumn::Text => {
                (Type::TEXT, Type::TEXT_ARRAY)
            }
            PayloadColumn::Bytea => (Type::BYTEA, Type::BYTEA_ARRAY),
        };
        let one = format!(
            "insert into {table} ({COLUMNS}) values ($1, $2, $3, $4, $5::{payload}, $6, $7)"
        );
        // The order by is what makes `seq` follow the order of the batch: defaults are drawn after it.
        let many = format!(
            "insert into {table} ({COLUMNS}) \
             select e.id, e.aggregatetype, e.aggregateid, e.type, e.payload::{payload}, \
             e.aggregateversion, e.traceparent \
             from unnest($1, $2, $3, $4, $5, $6, $7) with ordinality as e \
             (id, aggregatetype, aggregateid, type, payload, aggregateversion, traceparent, place) \
             order by e.place"
        );
        Self { one, many, payload: kind, payloads: kinds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_once() {
        let name: TableName = "App.Out box".parse().unwrap();
        assert_eq!(name.quoted(), "\"App\".\"Out box\"");
        assert_eq!(name.to_string(), "App.Out box");
        assert_eq!("outbox".parse::<TableName>().unwrap().quoted(), "\"outbox\"");
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_rule() {
        for (text, rule) in [
            ("", "empty"),
            ("a.", "empty"),
            ("a.b.c", "more than one dot"),
            ("postgres://db/shop", "it is a URL"),
            ("a\"; drop table b; --", "quote"),
            (&"a".repeat(64), "63 bytes"),
        ] {
            let error = text.parse::<TableName>().unwrap_err().to_string();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }
}
