//! Hop 1 for Rust writers: an event is written in the transaction of the change it tells of.
//!
//! ```ignore
//! let transaction = client.transaction().await?;
//! transaction.execute("update orders set state = 'placed' where id = $1", &[&id]).await?;
//! let event = Event::new("order", id.to_string(), "OrderPlaced", Payload::json(&order)?);
//! outbox.append(&transaction, &event).await?;
//! transaction.commit().await?;
//! ```
//!
//! It takes a [`Transaction`] and not a connection, so that an event without its change cannot be
//! written by mistake; a savepoint is a transaction too, and what is rolled back to it was never
//! written. What the relay could not route is refused before anything is sent, so that the writer
//! learns of it and its transaction stays usable.
//!
//! One round trip: the statement travels with its parameter types, values and the request to execute
//! it in one message train, without the usual question for the types first.
//!
//! Guarantee: after `Ok`, the rows exist exactly if the transaction commits.
//! Bounded by: [`Outbox::payload_max`], [`BATCH_EVENTS_MAX`], [`BATCH_BYTES_MAX`].
//! Tested by: `tests/services/outbox.rs`, `tests/services/inspect.rs`.

mod event;
mod inspect;
mod json;
mod table;

pub use event::{Event, PAYLOAD_BYTES_DEFAULT, Payload, Refusal, TYPE_BYTES_MAX};
pub use inspect::{Defect, inspect};
pub use table::{PayloadColumn, TableName, TableNameError};

use table::Statements;
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

/// The most events in one statement: beyond that a batch gains nothing, and one wrong row costs more.
pub const BATCH_EVENTS_MAX: usize = 1000;

/// The most payload in one statement, since both sides hold all of it in memory at once.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A writer to one outbox table. Cheap to clone, made once.
#[derive(Debug, Clone)]
pub struct Outbox {
    table: TableName,
    column: PayloadColumn,
    payload_max: usize,
    statements: Statements,
}

impl Outbox {
    /// A writer to `table`, whose payload column has the given type.
    #[must_use]
    pub fn new(table: TableName, column: PayloadColumn) -> Self {
        let statements = Statements::new(&table, column);
        Self { table, column, payload_max: PAYLOAD_BYTES_DEFAULT, statements }
    }

    /// Refuses payloads larger than `bytes` instead of [`PAYLOAD_BYTES_DEFAULT`]. The table's check,
    /// the broker and the topic have limits of their own, which must not be lower.
    #[must_use]
    pub fn payload_max(mut self, bytes: usize) -> Self {
        self.payload_max = bytes;
        self
    }

    /// The table written to.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// Writes one event in one round trip.
    ///
    /// After [`AppendError::Refused`] the transaction is usable; after [`AppendError::Database`] the
    /// server has aborted it, or the connection is gone.
    pub async fn append(
        &self,
        transaction: &Transaction<'_>,
        event: &Event,
    ) -> Result<(), AppendError> {
        event
            .check(self.column, self.payload_max)
            .map_err(|refusal| AppendError::Refused { index: 0, refusal })?;
        let id = event.id.as_uuid();
        let (text, bytes) = (event.payload.as_text(), event.payload.as_bytes());
        let payload: &(dyn ToSql + Sync) = match self.column {
            PayloadColumn::Bytea => &bytes,
            PayloadColumn::Json | PayloadColumn::Jsonb | PayloadColumn::Text => &text,
        };
        let written = transaction
            .execute_typed(
                &self.statements.one,
                &[
                    (&id, Type::UUID),
                    (&event.aggregate_type, Type::TEXT),
                    (&event.aggregate_id, Type::TEXT),
                    (&event.kind, Type::TEXT),
                    (payload, self.statements.payload.clone()),
                    (&event.aggregate_version, Type::INT8),
                    (&event.traceparent, Type::TEXT),
                ],
            )
            .await
            .map_err(|source| self.database(source))?;
        self.expect_written(written, 1)
    }

    /// Writes several events in one statement and one round trip, in the order given: all or none.
    ///
    /// Every event is checked before anything is sent, and the first one refused is named by its
    /// place. No events is no statement.
    pub async fn append_batch(
        &self,
        transaction: &Transaction<'_>,
        events: &[Event],
    ) -> Result<(), AppendError> {
        if events.is_empty() {
            return Ok(());
        }
        self.check_batch(events)?;
        let ids: Vec<_> = events.iter().map(|event| event.id.as_uuid()).collect();
        let types: Vec<_> = events.iter().map(|event| event.aggregate_type.as_str()).collect();
        let keys: Vec<_> = events.iter().map(|event| event.aggregate_id.as_str()).collect();
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        let versions: Vec<_> = events.iter().map(|event| event.aggregate_version).collect();
        let traces: Vec<_> = events.iter().map(|event| event.traceparent.as_deref()).collect();
        let texts: Vec<_>;
        let bytes: Vec<_>;
        let payloads: &(dyn ToSql + Sync) = match self.column {
            PayloadColumn::Bytea => {
                bytes = events.iter().map(|event| event.payload.as_bytes()).collect();
                &bytes
            }
            PayloadColumn::Json | PayloadColumn::Jsonb | PayloadColumn::Text => {
                texts = events.iter().map(|event| event.payload.as_text()).collect();
                &texts
            }
        };
        let written = transaction
            .execute_typed(
                &self.statements.many,
                &[
                    (&ids, Type::UUID_ARRAY),
                    (&types, Type::TEXT_ARRAY),
                    (&keys, Type::TEXT_ARRAY),
                    (&kinds, Type::TEXT_ARRAY),
                    (payloads, self.statements.payloads.clone()),
                    (&versions, Type::INT8_ARRAY),
                    (&traces, Type::TEXT_ARRAY),
                ],
            )
            .await
            .map_err(|source| self.database(source))?;
        self.expect_written(written, events.len())
    }

    fn check_batch(&self, events: &[Event]) -> Result<(), AppendError> {
        if events.len() > BATCH_EVENTS_MAX {
            return Err(AppendError::TooManyEvents { events: events.len() });
        }
        for (index, event) in events.iter().enumerate() {
            event
                .check(self.column, self.payload_max)
                .map_err(|refusal| AppendError::Refused { index, refusal })?;
        }
        let bytes: usize = events.iter().map(|event| event.payload.len()).sum();
        if bytes > BATCH_BYTES_MAX && events.len() > 1 {
            return Err(AppendError::TooManyBytes { bytes });
        }
        Ok(())
    }

    fn database(&self, source: tokio_postgres::Error) -> AppendError {
        AppendError::Database { table: self.table.to_string(), source }
    }

    /// A trigger or rule on the table can swallow an insert without an error. The event would be
    /// missing without anybody noticing, so the writer must not commit.
    fn expect_written(&self, written: u64, expected: usize) -> Result<(), AppendError> {
        if usize::try_from(written) == Ok(expected) {
            return Ok(());
        }
        Err(AppendError::Swallowed { table: self.table.to_string(), written, expected })
    }
}

/// Writes to `outbox` as sql/outbox.sql makes it.
impl Default for Outbox {
    fn default() -> Self {
        let table = "outbox".parse().expect("the name is a constant that the parser accepts");
        Self::new(table, PayloadColumn::default())
    }
}

/// Why events were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The relay could not have routed it. Nothing was sent; the transaction is usable.
    #[error("event {index} of the batch refused: {refusal}")]
    Refused {
        /// Its place in the batch, from 0; 0 for a single event.
        index: usize,
        /// The field, the rule and the way out.
        refusal: Refusal,
    },
    /// More events than go into one statement. Nothing was sent.
    #[error(
        "{events} events in one batch, at most {BATCH_EVENTS_MAX}: append them in several batches"
    )]
    TooManyEvents {
        /// How many there were.
        events: usize,
    },
    /// More payload than goes into one statement. Nothing was sent.
    #[error(
        "{bytes} bytes in one batch, at most {BATCH_BYTES_MAX}: append them in several batches"
    )]
    TooManyBytes {
        /// How many there were.
        bytes: usize,
    },
    /// The server took the statement and did not keep every row.
    #[error(
        "{written} of {expected} rows written to {table}: a trigger or rule dropped the others; roll \
         the transaction back and remove it"
    )]
    Swallowed {
        /// The table.
        table: String,
        /// Rows kept.
        written: u64,
        /// Rows sent.
        expected: usize,
    },
    /// The server refused, or the connection broke. The source has the SQLSTATE.
    #[error("write to the outbox table {table}: roll the transaction back and try all of it again")]
    Database {
        /// The table.
        table: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: Payload) -> Event {
        Event::new("order", "1", "Placed", payload)
    }

    #[test]
    fn a_batch_has_bounds() {
        let outbox = Outbox::default();
        let many = vec![event(Payload::tombstone()); BATCH_EVENTS_MAX + 1];
        let error = outbox.check_batch(&many).unwrap_err().to_string();
        assert!(error.contains("1001 events in one batch, at most 1000"), "{error}");

        let large = vec![event(Payload::json(&"x".repeat(900_000)).unwrap()); 20];
        let error = outbox.check_batch(&large).unwrap_err().to_string();
        assert!(error.contains("18000040 bytes in one batch"), "{error}");
    }

    #[test]
    fn the_first_wrong_event_is_named_by_its_place() {
        let mut events = vec![event(Payload::tombstone()); 3];
        events[2].aggregate_id.clear();
        let error = Outbox::default().check_batch(&events).unwrap_err().to_string();
        assert!(error.starts_with("event 2 of the batch refused: aggregateid: empty"), "{error}");
    }

    #[test]
    fn a_swallowed_insert_is_an_error() {
        let outbox = Outbox::default();
        assert!(outbox.expect_written(2, 2).is_ok());
        let error = outbox.expect_written(1, 2).unwrap_err().to_string();
        assert!(error.contains("1 of 2 rows written to outbox"), "{error}");
    }
}
