//! Do records carry what the rows hold, and do the tables hold what the writers wrote?

use super::super::evidence::{Fate, NO_KEY, Number, Row, Write};
use super::super::verdict::{Check, Name, Witness};
use super::findings::Findings;
use super::tally::{Sighting, Tally};

/// Content: key, value and version header of every committed record, against its row.
pub(super) fn unaltered(tally: &Tally<'_>) -> Check {
    let mut findings = Findings::default();
    let mut checked = 0;
    for seen in tally.sightings().filter(|seen| seen.record.committed) {
        let Some((_, row)) = seen.row else { continue };
        checked += 1;
        let Some((fault, what)) = alteration(tally, seen, row) else { continue };
        findings.add(fault, (0, seen.record.offset.unsigned_abs()), || Witness {
            what: what.clone(),
            ..tally.witness(seen)
        });
    }
    let tables = &tally.evidence.tables;
    let unread: Vec<&str> =
        tables.iter().filter(|table| !table.has_payload).map(|table| table.name.as_str()).collect();
    let reason = if checked == 0 {
        Some("no row was published".to_owned())
    } else {
        (!unread.is_empty()).then(|| format!("payloads not compared for {}", unread.join(", ")))
    };
    findings.check(Name::Content, "records", checked, reason)
}

fn alteration(tally: &Tally<'_>, seen: Sighting<'_>, row: &Row) -> Option<(&'static str, String)> {
    let record = seen.record;
    if record.key != row.key {
        let found = match record.key {
            NO_KEY => "no key".to_owned(),
            key => format!("key {}", tally.evidence.keys.text(key)),
        };
        return Some(("altered key", format!("the record has {found}")));
    }
    if tally.evidence.tables[usize::from(row.table)].has_payload && record.payload != row.payload {
        return Some(("altered payload", "the value is not the row's payload".to_owned()));
    }
    if record.version == Number::UNREADABLE {
        return Some(("unreadable aggregateversion", "the header is no number".to_owned()));
    }
    let has_version = tally.evidence.tables[usize::from(row.table)].has_version;
    match record.version.get() {
        Some(version) if has_version && row.version != record.version => {
            Some(("altered version", format!("the record says version {version}")))
        }
        Some(_) | None => None,
    }
}

/// Table: what the writers were told, against what is in the tables. Losses here are Postgres' or
/// the writers', not the relay's.
pub(super) fn table_keeps_writes(tally: &Tally<'_>) -> Check {
    let evidence = tally.evidence;
    let mut findings = Findings::default();
    let Some(history) = &evidence.history else {
        return findings.check(Name::Table, "writes", 0, Some("no history was given".to_owned()));
    };
    for write in &history.writes {
        let mut found = evidence.rows_of(write.id).map(|index| &evidence.rows[index]).peekable();
        let Some(first) = found.peek().copied() else {
            if write.fate == Fate::Committed {
                findings.add("lost in the table", (0, write.at_us.unsigned_abs()), || Witness {
                    what: "commit was acknowledged, the row is gone".to_owned(),
                    ..write_witness(tally, write)
                });
            }
            continue;
        };
        if let Some(why) = write.fate.forbidden() {
            findings.add("should not be in the table", (1, 0), || Witness {
                what: format!("the row was {why}"),
                ..tally.row_witness(first)
            });
        } else if !found.any(|row| as_written(tally, write, row)) {
            findings.add("differs from what was written", (2, 0), || Witness {
                what: written_as(tally, write),
                ..tally.row_witness(first)
            });
        }
    }
    let checked = history.writes.len() as u64;
    let reason = (checked == 0).then(|| "the history has no writes".to_owned());
    findings.check(Name::Table, "writes", checked, reason)
}

fn as_written(tally: &Tally<'_>, write: &Write, row: &Row) -> bool {
    let table = &tally.evidence.tables[usize::from(row.table)];
    write.table.as_deref() == Some(table.name.as_str())
        && write.key == row.key
        && (!table.has_version || write.version == row.version)
}

fn written_as(tally: &Tally<'_>, write: &Write) -> String {
    let key = tally.evidence.keys.text(write.key);
    let table = write.table.as_deref().unwrap_or("no table");
    match write.version.get() {
        Some(version) => format!("written to {table} as version {version} of {key}"),
        None => format!("written to {table} for {key} without a version"),
    }
}

fn write_witness(tally: &Tally<'_>, write: &Write) -> Witness {
    Witness {
        id: Some(uuid::Uuid::from_u128(write.id).to_string()),
        table: write.table.as_deref().map(str::to_owned),
        key: (write.key != NO_KEY).then(|| tally.evidence.keys.text(write.key)),
        version: write.version.get(),
        op: Some(write.op),
        written_at_us: Some(write.at_us),
        ..Witness::default()
    }
}
