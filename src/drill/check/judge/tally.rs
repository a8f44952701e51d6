//! Which record belongs to which row, worked out once for all checks.

use uuid::Uuid;

use super::super::evidence::{Evidence, IdHeader, NO_KEY, PartitionLog, Record, Row, Table};
use super::super::verdict::Witness;

/// Marks a record without a row.
const NO_ROW: u32 = u32::MAX;

/// How often a row was seen.
#[derive(Clone, Copy, Default)]
pub(super) struct Count {
    /// Records at read_committed.
    pub(super) committed: u32,
    /// Records seen at read_uncommitted only.
    pub(super) hidden: u32,
    /// A record of the row, a committed one if there is one: log and record plus one, 0 for none.
    place: (u32, u32),
}

/// Evidence with its records joined to its rows.
pub(super) struct Tally<'a> {
    pub(super) evidence: &'a Evidence,
    /// By row.
    pub(super) counts: Vec<Count>,
    /// By log and record: the row, or [`NO_ROW`].
    row_of: Vec<Vec<u32>>,
}

/// A record in its log, with its row if it has one.
#[derive(Clone, Copy)]
pub(super) struct Sighting<'a> {
    pub(super) log: &'a PartitionLog,
    pub(super) record: &'a Record,
    pub(super) row: Option<(usize, &'a Row)>,
}

impl<'a> Tally<'a> {
    pub(super) fn of(evidence: &'a Evidence) -> Self {
        let mut counts = vec![Count::default(); evidence.rows.len()];
        let mut row_of = Vec::with_capacity(evidence.logs.len());
        for (log_index, log) in (1..).zip(&evidence.logs) {
            let mut rows = Vec::with_capacity(log.records.len());
            for (record_index, record) in (0..).zip(&log.records) {
                let row = find_row(evidence, &counts, log, record);
                rows.push(row);
                let Some(count) = counts.get_mut(row as usize) else { continue };
                if record.committed && count.committed == 0 || count.place.0 == 0 {
                    count.place = (log_index, record_index);
                }
                if record.committed {
                    count.committed += 1;
                } else {
                    count.hidden += 1;
                }
            }
            row_of.push(rows);
        }
        Self { evidence, counts, row_of }
    }

    /// The records of one log, in offset order.
    pub(super) fn sightings_in(&self, log_index: usize) -> impl Iterator<Item = Sighting<'a>> {
        let evidence = self.evidence;
        let log = &evidence.logs[log_index];
        let rows = self.row_of[log_index].iter().map(|&row| {
            let row = row as usize;
            evidence.rows.get(row).map(|found| (row, found))
        });
        log.records.iter().zip(rows).map(move |(record, row)| Sighting { log, record, row })
    }

    /// All records.
    pub(super) fn sightings(&self) -> impl Iterator<Item = Sighting<'a>> {
        (0..self.evidence.logs.len()).flat_map(|log| self.sightings_in(log))
    }

    /// Where the row was seen: at read_committed if ever, else at read_uncommitted.
    pub(super) fn sighting_of(&self, row: usize) -> Option<Sighting<'a>> {
        let (log, record) = self.counts[row].place;
        let log = &self.evidence.logs[(log as usize).checked_sub(1)?];
        let record = &log.records[record as usize];
        Some(Sighting { log, record, row: Some((row, &self.evidence.rows[row])) })
    }

    /// The names of the tables that lack something; none if all have it.
    pub(super) fn tables_without(&self, has: impl Fn(&Table) -> bool) -> Option<String> {
        let without = self.evidence.tables.iter().filter(|table| !has(table));
        let names: Vec<&str> = without.map(|table| table.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// A witness that names a row.
    pub(super) fn row_witness(&self, row: &Row) -> Witness {
        let written = self.evidence.history.as_ref().and_then(|history| history.write_of(row.id));
        Witness {
            id: Some(Uuid::from_u128(row.id).to_string()),
            table: Some(self.evidence.tables[usize::from(row.table)].name.clone()),
            txid: row.txid.get(),
            key: (row.key != NO_KEY).then(|| self.evidence.keys.text(row.key)),
            version: row.version.get(),
            topic: Some(self.evidence.topics.text(row.topic)),
            op: written.map(|write| write.op),
            written_at_us: written.map(|write| write.at_us),
            ..Witness::default()
        }
    }

    /// A witness that names a record, and its row if it has one.
    pub(super) fn witness(&self, seen: Sighting<'_>) -> Witness {
        let record = seen.record;
        let base = match seen.row {
            Some((_, row)) => self.row_witness(row),
            None => Witness {
                id: (record.id_header == IdHeader::Uuid)
                    .then(|| Uuid::from_u128(record.id).to_string()),
                key: (record.key != NO_KEY).then(|| self.evidence.keys.text(record.key)),
                version: record.version.get(),
                ..Witness::default()
            },
        };
        Witness {
            topic: Some(self.evidence.topics.text(seen.log.topic)),
            partition: Some(seen.log.partition),
            offset: Some(record.offset),
            lsn: record.lsn.get().map(|lsn| format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)),
            timestamp_ms: Some(record.timestamp),
            ..base
        }
    }
}

/// The row of a record. Two tables may hold the same id; then the one that belongs to the record's
/// topic is meant, and of several such the one seen least.
fn find_row(evidence: &Evidence, counts: &[Count], log: &PartitionLog, record: &Record) -> u32 {
    if record.id_header != IdHeader::Uuid {
        return NO_ROW;
    }
    let best = evidence.rows_of(record.id).min_by_key(|&row| {
        let elsewhere = evidence.rows[row].topic != log.topic;
        (elsewhere, counts[row].committed + counts[row].hidden)
    });
    best.map_or(NO_ROW, |row| u32::try_from(row).expect("rows are counted in 32 bits"))
}
