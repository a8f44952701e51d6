//! I4: within a partition, are the records of a key in the order of its versions, the rows of a
//! transaction in the order they were written, and the log positions never going back?

use std::collections::HashMap;

use super::super::evidence::{Evidence, KeyId, NO_KEY, Number};
use super::super::verdict::{Check, Name, Witness};
use super::findings::Findings;
use super::tally::{Sighting, Tally};

/// I4. Only the first committed record of each row in each partition counts: a repetition is I3's
/// business, and at-least-once repeats whole stretches legitimately. Missing rows are I1's, so a
/// gap in the topic is no disorder.
pub(super) fn in_order(tally: &Tally<'_>) -> Check {
    let mut findings = Findings::default();
    let mut compared = 0;
    let mut seen_in = vec![0_u32; tally.evidence.rows.len()];
    for (index, tag) in (0..tally.evidence.logs.len()).zip(1..) {
        let mut latest = Latest::default();
        for seen in tally.sightings_in(index).filter(|seen| seen.record.committed) {
            let Some((row, _)) = seen.row else { continue };
            if std::mem::replace(&mut seen_in[row], tag) == tag {
                continue;
            }
            compared += latest.accept(tally, seen, &mut findings);
        }
    }
    let reason = match (compared, tally.tables_without(|table| table.has_version)) {
        (0, _) => Some(
            "no two records could be compared: no aggregateversion, seq or postrider-lsn".into(),
        ),
        (_, None) => None,
        (_, Some(tables)) => Some(format!(
            "no column aggregateversion in {tables}: between transactions only the relay's own \
             postrider-lsn tells"
        )),
    };
    findings.check(Name::I4, "comparisons", compared, reason)
}

/// What was seen last in one partition.
#[derive(Default)]
struct Latest {
    /// The highest log position, and where.
    lsn: Option<(i64, i64)>,
    /// By table and key: the versions of a key are counted in its table, and of two tables that
    /// share a topic each counts for itself.
    keys: HashMap<(u16, KeyId), LatestOfKey>,
}

#[derive(Clone, Copy)]
struct LatestOfKey {
    /// The highest version, and the offset it had.
    version: Option<(i64, i64)>,
    /// Transaction and seq of the last record.
    written: Option<(i64, i64)>,
    offset: i64,
}

impl Latest {
    /// Compares a record with what came before it; returns how many comparisons that took.
    fn accept(&mut self, tally: &Tally<'_>, seen: Sighting<'_>, findings: &mut Findings) -> u64 {
        self.position(tally, seen, findings) + self.within_key(tally, seen, findings)
    }

    fn position(&mut self, tally: &Tally<'_>, seen: Sighting<'_>, findings: &mut Findings) -> u64 {
        let offset = seen.record.offset;
        if seen.record.lsn == Number::UNREADABLE {
            findings.add("unreadable postrider-lsn", (3, 0), || Witness {
                what: "the header is no log position".to_owned(),
                ..tally.witness(seen)
            });
            return 1;
        }
        let Some(lsn) = seen.record.lsn.get() else { return 0 };
        let Some((highest, at)) = self.lsn else {
            self.lsn = Some((lsn, offset));
            return 0;
        };
        if lsn < highest {
            findings.add("position went back", (2, offset.unsigned_abs()), || Witness {
                what: format!(
                    "offset {at} already had {:X}/{:X}",
                    highest >> 32,
                    highest & 0xFFFF_FFFF
                ),
                ..tally.witness(seen)
            });
        } else {
            self.lsn = Some((lsn, offset));
        }
        1
    }

    fn within_key(
        &mut self,
        tally: &Tally<'_>,
        seen: Sighting<'_>,
        findings: &mut Findings,
    ) -> u64 {
        // Records without a key are spread over the partitions, and no order is promised among them.
        let Some((_, row)) = seen.row.filter(|(_, row)| row.key != NO_KEY) else { return 0 };
        let offset = seen.record.offset;
        let version = row.version.get().or(seen.record.version.get());
        let written = row.txid.get().zip(row.seq.get());
        let Some(before) = self.keys.get_mut(&(row.table, row.key)) else {
            let version = version.map(|version| (version, offset));
            let latest = LatestOfKey { version, written, offset };
            self.keys.insert((row.table, row.key), latest);
            return 0;
        };
        let mut compared = 0;
        let mut disordered = false;
        if let Some(version) = version {
            if let Some((highest, at)) = before.version {
                compared += 1;
                disordered = version < highest;
                if disordered {
                    findings.add("older version after newer", (0, offset.unsigned_abs()), || {
                        let what = format!("version {version} after {highest}, at offset {at}");
                        Witness { what, ..tally.witness(seen) }
                    });
                }
            }
            if !disordered {
                before.version = Some((version, offset));
            }
        }
        if let (Some((txid, seq)), Some(last)) = (written, before.written)
            && txid == last.0
        {
            compared += 1;
            // One swap is one fault: versions have already told of it.
            if seq < last.1 && !disordered {
                findings.add("against the order of seq", (1, offset.unsigned_abs()), || {
                    let what = format!("seq {seq} after {}, at offset {}", last.1, before.offset);
                    Witness { what, ..tally.witness(seen) }
                });
            }
        }
        before.written = written;
        before.offset = offset;
        compared
    }
}

/// Topic, table, key and version.
type OfKey = (u32, u16, KeyId, i64);

/// Versions of a key that are missing from the tables, or there twice: not the relay's doing, so a
/// note and no fault. A first version above 1 is no gap, the table may have been trimmed.
pub(super) fn gaps_in_tables(evidence: &Evidence) -> Vec<String> {
    let rows = &evidence.rows;
    let mut order: Vec<OfKey> = rows
        .iter()
        .filter(|row| !row.late && row.key != NO_KEY)
        .filter_map(|row| row.version.get().map(|version| (row.topic, row.table, row.key, version)))
        .collect();
    order.sort_unstable();
    let of = |it: &OfKey| (it.0, it.1, it.2);
    let pairs = || order.windows(2).filter(|pair| of(&pair[0]) == of(&pair[1]));
    let describe = |what: &str, count: usize, first: Option<&[OfKey]>| {
        let pair = first?;
        Some(format!(
            "the tables have {count} {what}; first: key {} of {}, version {} follows {}",
            evidence.keys.text(pair[0].2),
            evidence.topics.text(pair[0].0),
            pair[1].3,
            pair[0].3,
        ))
    };
    let gaps = || pairs().filter(|pair| pair[1].3.saturating_sub(pair[0].3) > 1);
    let twice = || pairs().filter(|pair| pair[1].3 == pair[0].3);
    [
        describe("gaps in the versions of a key", gaps().count(), gaps().next()),
        describe("versions of a key twice", twice().count(), twice().next()),
    ]
    .into_iter()
    .flatten()
    .collect()
}
