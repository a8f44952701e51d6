//! I1, I2 and I3: is every row there, is nothing else there, and is it there once?

use super::super::evidence::{IdHeader, Mode};
use super::super::verdict::{Check, Name, Witness};
use super::findings::Findings;
use super::tally::{Sighting, Tally};

/// I1. A row that no read_committed reader sees is lost, and the fault says where: never sent, sent
/// and aborted, or sent in a transaction that is still open.
pub(super) fn no_loss(tally: &Tally<'_>) -> Check {
    let evidence = tally.evidence;
    let mut findings = Findings::default();
    let mut checked = 0;
    for (index, row) in evidence.rows.iter().enumerate().filter(|(_, row)| !row.late) {
        checked += 1;
        if tally.counts[index].committed > 0 {
            continue;
        }
        let age = row.seq.get().or(row.txid.get()).unwrap_or(0).unsigned_abs();
        match tally.sighting_of(index) {
            None => findings.add("never published", (0, age), || Witness {
                what: "in the table, in no topic at any isolation level".to_owned(),
                ..tally.row_witness(row)
            }),
            Some(seen) if seen.record.offset >= seen.log.stable => {
                findings.add("still open", (1, age), || Witness {
                    what: format!(
                        "published in a transaction not ended: read_committed stops at {}",
                        seen.log.stable
                    ),
                    ..tally.witness(seen)
                });
            }
            Some(seen) => findings.add("aborted", (1, age), || Witness {
                what: "published in an aborted transaction only".to_owned(),
                ..tally.witness(seen)
            }),
        }
    }
    let trimmed = evidence.logs.iter().filter(|log| log.start > 0).count();
    let reason = match (checked, trimmed) {
        (0, _) => Some("the tables have no rows".to_owned()),
        (_, 0) => None,
        (_, trimmed) => Some(format!(
            "{trimmed} partitions no longer start at offset 0: a missing record may have expired"
        )),
    };
    findings.check(Name::I1, "rows", checked, reason)
}

/// I2. At both isolation levels: a relay sees only committed rows, so even an aborted record of
/// anything else is proof of a fault.
pub(super) fn no_phantom(tally: &Tally<'_>) -> Check {
    let mut findings = Findings::default();
    let mut checked = 0;
    for seen in tally.sightings() {
        checked += 1;
        let Some((fault, gravity)) = phantom(tally, seen) else { continue };
        let rank = (gravity, u64::from(!seen.record.committed));
        findings.add(fault, rank, || {
            let level = if seen.record.committed { "read_committed" } else { "read_uncommitted" };
            Witness { what: format!("seen at {level}"), ..tally.witness(seen) }
        });
    }
    let reason = (checked == 0).then(|| "the topics have no records".to_owned());
    findings.check(Name::I2, "records", checked, reason)
}

/// What is wrong with a record's existence, and how telling that is: lower is more.
fn phantom(tally: &Tally<'_>, seen: Sighting<'_>) -> Option<(&'static str, u64)> {
    match seen.record.id_header {
        IdHeader::Absent => return Some(("no id header", 2)),
        IdHeader::Unreadable => return Some(("unreadable id header", 2)),
        IdHeader::Uuid => {}
    }
    let history = tally.evidence.history.as_ref();
    let fate = history.and_then(|history| history.write_of(seen.record.id)).map(|write| write.fate);
    if let Some(why) = fate.and_then(super::super::evidence::Fate::forbidden) {
        return Some((why, 0));
    }
    // Commit was acknowledged and the row is gone: the table lost it, the relay is innocent.
    let acknowledged = fate == Some(super::super::evidence::Fate::Committed);
    (seen.row.is_none() && !acknowledged).then_some(("not in the table", 1))
}

/// I3. Judged in exactly-once mode only; repetitions are counted in both.
pub(super) fn once(tally: &Tally<'_>) -> Check {
    let published = tally.counts.iter().filter(|count| count.committed > 0).count() as u64;
    if tally.evidence.mode == Mode::AtLeastOnce {
        let reason = "at-least-once: repetitions are counted, not judged".to_owned();
        return Findings::default().check(Name::I3, "rows", 0, Some(reason));
    }
    let mut findings = Findings::default();
    for (index, row) in tally.evidence.rows.iter().enumerate() {
        let times = tally.counts[index].committed;
        if times < 2 {
            continue;
        }
        let rank = (u64::from(u32::MAX - times), row.seq.get().unwrap_or(0).unsigned_abs());
        findings.add("repeated", rank, || {
            let places = committed_places(tally, index);
            let base = tally.sighting_of(index).map(|seen| tally.witness(seen));
            Witness { what: format!("{times} times: {places}"), ..base.unwrap_or_default() }
        });
    }
    let reason = (published == 0).then(|| "no row was published".to_owned());
    findings.check(Name::I3, "rows", published, reason)
}

/// Where the committed records of a row are. Scans everything, for the few witnesses kept.
fn committed_places(tally: &Tally<'_>, row: usize) -> String {
    let of_row = tally
        .sightings()
        .filter(|seen| seen.record.committed && seen.row.is_some_and(|(index, _)| index == row));
    let places: Vec<String> = of_row
        .take(4)
        .map(|seen| format!("{}@{}", seen.log.partition, seen.record.offset))
        .collect();
    format!("partition@offset {}", places.join(", "))
}
