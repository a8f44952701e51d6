//! A mapping applied to one table as the stream describes it: columns are found once, then each row
//! is a few slices.
//!
//! It promises a record or a [`Refusal`] for every row, and refuses a table that the mapping does not
//! fit, with every column that is wrong.

use std::sync::Arc;

use bytes::Bytes;

use super::form::{Fault, Form, Ink};
use super::mapping::{HEADER_INDEX, HEADER_XID, Mapping, Missing, PlaceOf};
use super::record::{HeaderValue, Headers, Record};
use super::refusal::{Reason, Refusal, excerpt};
use super::row::{Place, Row, Table, Value};
use super::topic::Topics;
use crate::event::{HEADER_ID, HEADER_LSN};

/// What is known of the connection that the rows come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// Values come in their binary form, so their types must be ones that we know.
    pub binary: bool,
    /// The largest record, key and headers included: beyond it a row is refused.
    pub record_bytes_max: usize,
}

/// A table that a mapping does not fit. Nothing of it can be sent until an operator has mended one of
/// the two.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table} does not fit [{section}]: {}", .faults.join("; "))]
pub struct Unfit {
    /// The table, with its schema.
    pub table: String,
    /// The mapping's part of the configuration.
    pub section: String,
    /// Everything that is wrong, each with the way out.
    pub faults: Vec<String>,
}

/// A column of the table, found.
#[derive(Debug, Clone, Copy)]
struct Source {
    column: usize,
    form: Form,
}

#[derive(Debug)]
enum HeaderPlan {
    /// Null is a header without a value, as Debezium has it.
    Column(Source),
    /// Null is no header: consumers of a trace context know no empty one.
    IfPresent(Source),
    Lsn,
    Xid,
    Index,
}

/// What to do with each row of one table.
#[derive(Debug)]
pub struct Plan {
    table: Arc<str>,
    /// Names for messages, in the order of the table.
    columns: Vec<String>,
    id: Source,
    key: Source,
    payload: Source,
    route_by: Source,
    timestamp: Option<Source>,
    partition: Option<Source>,
    /// In the order of `names`, without the id, which is always first.
    headers: Vec<HeaderPlan>,
    names: Arc<[Arc<str>]>,
    tombstone_on_empty: bool,
    record_bytes_max: usize,
    topics: Topics,
    ink: Ink,
}

impl Plan {
    /// Finds the mapping's columns in the table.
    ///
    /// # Errors
    ///
    /// [`Unfit`] with all that is wrong.
    pub fn compile(table: &Table, mapping: &Mapping, wire: Wire) -> Result<Self, Unfit> {
        let mut search = Search { table, binary: wire.binary, faults: Vec::new() };
        let section = &mapping.section;
        let id = search.required(&mapping.id, &format!("{section}.column_id"));
        let key = search.required(&mapping.key, &format!("{section}.column_key"));
        let payload = search.required(&mapping.payload, &format!("{section}.column_payload"));
        let route_by = search.required(&mapping.route_by, &format!("{section}.route_by"));
        let timestamp = mapping.timestamp.as_ref().and_then(|column| {
            let key = format!("{section}.column_timestamp");
            let time =
                |form| matches!(form, Form::Timestamp { .. } | Form::TimestampWithZone { .. });
            search.typed(column, &key, Missing::Error, time, "timestamp or timestamptz")
        });
        let mut names: Vec<Arc<str>> = vec![HEADER_ID.into()];
        let (mut headers, mut partition) = (Vec::new(), None);
        let placement = format!("{section}.placement");
        for one in &mapping.placements {
            match &one.place {
                PlaceOf::Header(name) => {
                    if let Some(source) = search.find(&one.column, &placement, mapping.missing) {
                        names.push(name.as_str().into());
                        headers.push(HeaderPlan::Column(source));
                    }
                }
                PlaceOf::Partition => {
                    let integer = |form| matches!(form, Form::Int2 | Form::Int4 | Form::Int8);
                    let kind = "smallint, integer or bigint";
                    partition =
                        search.typed(&one.column, &placement, mapping.missing, integer, kind);
                }
            }
        }
        for (column, missing) in mapping.extras.columns() {
            if let Some(source) = search.find(column, &format!("{section}.header_…"), missing) {
                names.push(column.into());
                headers.push(HeaderPlan::IfPresent(source));
            }
        }
        if mapping.extras.position {
            names.extend([HEADER_LSN, HEADER_XID, HEADER_INDEX].map(Arc::from));
            headers.extend([HeaderPlan::Lsn, HeaderPlan::Xid, HeaderPlan::Index]);
        }
        let full_name = table.full_name();
        let (Some(id), Some(key), Some(payload), Some(route_by), true) =
            (id, key, payload, route_by, search.faults.is_empty())
        else {
            let section = section.clone();
            return Err(Unfit { table: full_name, section, faults: search.faults });
        };
        Ok(Self {
            table: full_name.into(),
            columns: table.columns.iter().map(|column| column.name.clone()).collect(),
            id,
            key,
            payload,
            route_by,
            timestamp,
            partition,
            headers,
            names: names.into(),
            tombstone_on_empty: mapping.tombstone_on_empty,
            record_bytes_max: wire.record_bytes_max,
            topics: Topics::new(mapping.topic.clone()),
            ink: Ink::default(),
        })
    }

    /// The table, with its schema.
    #[must_use]
    pub fn table(&self) -> &Arc<str> {
        &self.table
    }

    /// The record of an inserted row.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: this row cannot be sent, now or later. The others can.
    pub fn route(
        &mut self,
        row: &(impl Row + ?Sized),
        place: Place,
    ) -> Result<Record, Box<Refusal>> {
        // Identity and key come first, so that a refusal of the rest can name them.
        let mut known = Known::default();
        self.record(row, place, &mut known).map_err(|fault| {
            let Known { id, key } = known;
            let NotSent { reason, detail, size } = fault;
            Box::new(Refusal { reason, table: Arc::clone(&self.table), id, key, detail, size })
        })
    }

    fn record(
        &mut self,
        row: &(impl Row + ?Sized),
        place: Place,
        known: &mut Known,
    ) -> Result<Record, NotSent> {
        let id = self.header(row, self.id)?.filter(|id| !id.is_empty());
        let Some(id) = id else {
            let column = self.name(self.id);
            let detail =
                format!("column {column} is null or empty, and consumers know an event by it");
            return Err(NotSent::new(Reason::Id, detail));
        };
        known.id = Some(id.clone());
        let key = self.bytes(row, self.key)?;
        known.key.clone_from(&key);
        let topic = self.topic(row)?;
        let value = self.payload(row)?;
        let partition = match self.partition {
            Some(source) => self.partition(row, source)?,
            None => None,
        };
        let timestamp_ms = self.timestamp(row, place)?;
        let headers = self.headers(row, place, id)?;
        let record = Record { topic, key, value, headers, timestamp_ms, partition };
        let size = record.size();
        if size > self.record_bytes_max {
            return Err(NotSent::too_large("the record", size, self.record_bytes_max));
        }
        Ok(record)
    }

    fn topic(&mut self, row: &(impl Row + ?Sized)) -> Result<Arc<str>, NotSent> {
        let Some(routed_by) = self.bytes(row, self.route_by)? else {
            let detail = format!("column {} is null, and makes no topic", self.name(self.route_by));
            return Err(NotSent::new(Reason::Topic, detail));
        };
        self.topics.of(&routed_by).map_err(|what| {
            let column = &self.columns[self.route_by.column];
            NotSent::new(
                Reason::Topic,
                format!("column {column} = \"{}\" {what}", excerpt(&routed_by)),
            )
        })
    }

    fn payload(&mut self, row: &(impl Row + ?Sized)) -> Result<Option<Bytes>, NotSent> {
        let payload = self.bytes(row, self.payload)?;
        // Debezium trims as Java does, which takes all up to the space; bytes it takes as they are.
        let raw = self.payload.form == Form::Bytea;
        let blank = |bytes: &Bytes| bytes.iter().all(|byte| !raw && *byte <= b' ');
        Ok(payload.filter(|bytes| !(self.tombstone_on_empty && blank(bytes))))
    }

    fn partition(&self, row: &(impl Row + ?Sized), source: Source) -> Result<Option<i32>, NotSent> {
        let number = source.form.integer(value(row, source));
        let Some(number) = number.map_err(|fault| self.fault(source, fault))? else {
            return Ok(None);
        };
        match i32::try_from(number) {
            Ok(partition) if partition >= 0 => Ok(Some(partition)),
            Ok(_) | Err(_) => {
                let detail = format!(
                    "column {} = {number} is no partition: they begin at 0",
                    self.name(source)
                );
                Err(NotSent::new(Reason::Partition, detail))
            }
        }
    }

    fn timestamp(&self, row: &(impl Row + ?Sized), place: Place) -> Result<i64, NotSent> {
        let commit_ms = place.committed_micros.div_euclid(1000).max(0);
        let Some(source) = self.timestamp else { return Ok(commit_ms) };
        let micros = source.form.moment(value(row, source));
        match micros.map_err(|fault| self.fault(source, fault))? {
            None => Ok(commit_ms),
            Some(micros) if micros < 0 => {
                let detail = format!(
                    "column {} is before 1970, and Kafka has no such timestamp",
                    self.name(source)
                );
                Err(NotSent::new(Reason::Value, detail))
            }
            Some(micros) => Ok(micros / 1000),
        }
    }

    fn headers(
        &mut self,
        row: &(impl Row + ?Sized),
        place: Place,
        id: Bytes,
    ) -> Result<Headers, NotSent> {
        let mut values = Vec::with_capacity(self.names.len());
        values.push(HeaderValue::Bytes(id));
        for at in 0..self.headers.len() {
            values.push(match self.headers[at] {
                HeaderPlan::Column(source) => {
                    self.header(row, source)?.map_or(HeaderValue::Null, HeaderValue::Bytes)
                }
                HeaderPlan::IfPresent(source) => {
                    self.header(row, source)?.map_or(HeaderValue::Absent, HeaderValue::Bytes)
                }
                HeaderPlan::Lsn => HeaderValue::Bytes(self.ink.lsn(place.commit)),
                HeaderPlan::Xid => HeaderValue::Bytes(self.ink.number(place.xid)),
                HeaderPlan::Index => HeaderValue::Bytes(self.ink.number(place.index)),
            });
        }
        Ok(Headers::new(Arc::clone(&self.names), values))
    }

    fn bytes(
        &mut self,
        row: &(impl Row + ?Sized),
        source: Source,
    ) -> Result<Option<Bytes>, NotSent> {
        let bytes = source.form.bytes(value(row, source), &mut self.ink);
        bytes.map_err(|fault| self.fault(source, fault))
    }

    fn header(
        &mut self,
        row: &(impl Row + ?Sized),
        source: Source,
    ) -> Result<Option<Bytes>, NotSent> {
        let bytes = source.form.header(value(row, source), &mut self.ink);
        bytes.map_err(|fault| self.fault(source, fault))
    }

    fn name(&self, source: Source) -> &str {
        &self.columns[source.column]
    }

    fn fault(&self, source: Source, fault: Fault) -> NotSent {
        let column = self.name(source);
        match fault {
            Fault::Skipped { size } => {
                NotSent::too_large(&format!("column {column}"), size, self.record_bytes_max)
            }
            Fault::Absent => {
                NotSent::new(Reason::Value, format!("column {column} was not sent by the server"))
            }
            Fault::Malformed => {
                let kind = source.form.name();
                NotSent::new(Reason::Value, format!("column {column} has no value of {kind}"))
            }
        }
    }
}

/// A row with too few values is out of step with its table; its decoder has refused it before.
fn value(row: &(impl Row + ?Sized), source: Source) -> Value {
    row.value(source.column).unwrap_or(Value::Unchanged)
}

/// What has been read of a row before something was wrong with it.
#[derive(Default)]
struct Known {
    id: Option<Bytes>,
    key: Option<Bytes>,
}

struct NotSent {
    reason: Reason,
    detail: String,
    size: Option<usize>,
}

impl NotSent {
    fn new(reason: Reason, detail: String) -> Self {
        Self { reason, detail, size: None }
    }

    fn too_large(what: &str, size: usize, most: usize) -> Self {
        let detail = format!("{what} has {size} bytes, {most} are allowed");
        Self { reason: Reason::TooLarge, detail, size: Some(size) }
    }
}

/// Looks for columns, and notes all that are missing or of a wrong type.
struct Search<'a> {
    table: &'a Table,
    binary: bool,
    faults: Vec<String>,
}

impl Search<'_> {
    fn required(&mut self, column: &str, key: &str) -> Option<Source> {
        self.find(column, key, Missing::Error)
    }

    fn find(&mut self, column: &str, key: &str, missing: Missing) -> Option<Source> {
        self.typed(column, key, missing, |_| true, "any type")
    }

    fn typed(
        &mut self,
        name: &str,
        key: &str,
        missing: Missing,
        fits: impl Fn(Form) -> bool,
        kind: &str,
    ) -> Option<Source> {
        let Some(column) = self.table.columns.iter().position(|column| column.name == name) else {
            if missing == Missing::Error {
                self.faults.push(format!(
                    "no column {name} ({key}) is published: add it to the table and to the \
                     publication's column list, or name another one"
                ));
            }
            return None;
        };
        let found = &self.table.columns[column];
        let form = Form::of(found.type_oid, found.modifier);
        if self.binary && form == Form::TextOnly {
            let oid = found.type_oid;
            self.faults.push(format!(
                "column {name} ({key}) has the type with oid {oid}, whose binary form is not known: \
                 map a column of another type, or have the values sent as text"
            ));
            return None;
        }
        if !fits(form) {
            let found = form.name();
            self.faults.push(format!("column {name} ({key}) must be {kind}, it is {found}"));
            return None;
        }
        Some(Source { column, form })
    }
}

#[cfg(test)]
mod tests;
