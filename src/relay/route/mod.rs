//! Hop 3: from an outbox row to a record, as Debezium's EventRouter would write it.
//!
//! With the default options topic, key, value, headers and partition are those of
//! `io.debezium.transforms.outbox.EventRouter` with `StringConverter` for key and value
//! (`BinaryDataConverter` for a bytea payload): docs/routing.md has all options side by side, and
//! every difference. Values are never parsed; a payload that is framed for a schema registry passes as
//! it is.
//!
//! ```text
//!   configuration ─► Mappings ─┐ once a table
//!   the stream's table ────────┴─► Plan ──► route(row, place) ──► Record | Refusal
//! ```
//!
//! Pure: no I/O, no clock, no log. Where Debezium stops for ever at a row that it cannot send, a row
//! here becomes a [`Refusal`], a value that names it.
//!
//! Guarantee: the same row gives the same record, whoever routes it; no row panics.
//! Bounded by: the topics kept in mind by a plan, [`pattern::PATTERN_BYTES_MAX`],
//! [`Wire::record_bytes_max`].
//! Tested by: the tests of each file, with bytes recorded from Debezium, Java and kafka-clients.

mod form;
mod mapping;
mod moment;
pub mod murmur2;
pub mod pattern;
mod plan;
mod record;
mod refusal;
mod row;
mod settings;
mod topic;

pub use mapping::{
    Change, Extras, HEADER_CREATED_AT, HEADER_INDEX, HEADER_TRACESTATE, HEADER_XID, Mapping,
    Missing, OnUpdate, PlaceOf, Placement, Reaction, placements,
};
pub use plan::{Plan, Unfit, Wire};
pub use record::{Headers, Record};
pub use refusal::{Reason, Refusal};
pub use row::{Column, Place, Row, Table, Value};
pub use settings::Mappings;
