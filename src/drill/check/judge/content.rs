//! Do records carry what the rows hold, and do the tables hold what the writers wrote?

use super::super::evidence::{Evidence, Fate, NO_KEY, Number, Row, Write};
use super::super::verdict::{Check, Name, Witness};
use super::findings::Findings;
use super::tally::{Sighting, Tally};

/// Content: key, value and version header of every committed record, against its row.
pub(super) fn unaltered(tally: &Tally<'_>) -> Check {
    let mut findings = Findings::default();
    let (mut checked, mut unversioned) = (0, 0_u64);
    for seen in tally.sightings().filter(|seen| seen.record.committed) {
        let Some((_, row)) = seen.row else { continue };
        checked += 1;
        let without = row.version.get().is_some() && seen.record.version == Number::ABSENT;
        unversioned += u64::from(without);
        let Some((fault, what)) = alteration(tally, seen, row) else { continue };
        findings.add(fault, (0, seen.record.offset.unsigned_abs()), || Witness {
            what: what.clone(),
            ..tally.witness(seen)
        });
    }
    let mut reasons = Vec::new();
    if checked == 0 {
        reasons.push("no row was published".to_owned());
    } else if let Some(tables) = tally.tables_without(|table| table.has_payload) {
        reasons.push(format!("payloads not compared for {tables}"));
    }
    if unversioned > 0 {
        reasons.push(format!("{unversioned} records have no header aggregateversion to compare"));
    }
    let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
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
    let mut checked = 0;
    for write in &history.writes {
        let mut found = evidence.rows_of(write.id).map(|index| &evidence.rows[index]).peekable();
        let first = found.peek().copied();
        // Of a doubtful row that is not there, nothing is known and nothing was compared.
        checked += u64::from(first.is_some() || write.fate != Fate::Unknown);
        let Some(first) = first else {
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
    halves(tally, &history.writes, &mut findings);
    let reason = match (history.writes.is_empty(), checked) {
        (true, _) => Some("the history has no writes".to_owned()),
        (false, 0) => Some("the history has doubtful writes only, and none is there".to_owned()),
        (false, _) => None,
    };
    findings.check(Name::Table, "writes", checked, reason)
}

/// A transaction nobody knows the end of is there whole or not at all.
fn halves(tally: &Tally<'_>, writes: &[Write], findings: &mut Findings) {
    let mut doubtful: Vec<(u64, bool, &Write)> = writes
        .iter()
        .filter(|write| write.fate == Fate::Unknown)
        .map(|write| (write.op, !tally.evidence.rows_of(write.id).is_empty(), write))
        .collect();
    // The missing rows of a transaction first.
    doubtful.sort_by_key(|&(op, there, _)| (op, there));
    for group in doubtful.chunk_by(|one, next| one.0 == next.0) {
        let missing = group.iter().filter(|(_, there, _)| !there).count();
        if missing == 0 || missing == group.len() {
            continue;
        }
        findings.add("half of a transaction", (3, group[0].0), || Witness {
            what: format!("{missing} of its {} rows are gone, this one first", group.len()),
            ..write_witness(tally, group[0].2)
        });
    }
}

/// Rows of other writers are legal; a history of another run looks the same, so it is said.
pub(super) fn unheard_of(evidence: &Evidence) -> Option<String> {
    let history = evidence.history.as_ref()?;
    let unheard = |row: &&Row| !row.late && history.write_of(row.id).is_none();
    let count = evidence.rows.iter().filter(unheard).count();
    (count > 0).then(|| {
        format!("{count} rows are not in the history: of other writers or newer, or it is of another run")
    })
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
