//! I4: within a partition, are the records of a key in the order of its versions, the rows of a
//! transaction in the order they were written, and the log positions never going back?

use std::collections::HashMap;

use super::super::evidence::{Evidence, KeyId, Number};
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
    let reason = (compared == 0).then(|| {
        "no two records could be compared: no aggregateversion, seq or postrider-lsn".to_owned()
    });
    findings.check(Name::I4, "comparisons", compared, reason)
}

/// What was seen last in one partition.
#[derive(Default)]
struct Latest {
    /// The highest log position, and where.
    lsn: Option<(i64, i64)>,
    /// By key.
    keys: HashMap<KeyId, LatestOfKey>,
}

#[derive(Clone, Copy)]
struct LatestOfKey {
    /// The highest version, and the offset it had.
    version: Option<(i64, i64)>,
    /// Table, transaction and seq of the last record.
    written: Option<(u16, i64, i64)>,
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
        let Some((_, row)) = seen.row else { return 0 };
        let offset = seen.record.offset;
        let version = row.version.get().or(seen.record.version.get());
        let written = row.txid.get().zip(row.seq.get());
        let written = written.map(|(txid, seq)| (row.table, txid, seq));
        let Some(before) = self.keys.get_mut(&row.key) else {
            let version = version.map(|version| (version, offset));
            self.keys.insert(row.key, LatestOfKey { version, written, offset });
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
        if let (Some((table, txid, seq)), Some(last)) = (written, before.written)
            && (table, txid) == (last.0, last.1)
        {
            compared += 1;
            // One swap is one fault: versions have already told of it.
            if seq < last.2 && !disordered {
                findings.add("against the order of seq", (1, offset.unsigned_abs()), || {
                    let what = format!("seq {seq} after {}, at offset {}", last.2, before.offset);
                    Witness { what, ..tally.witness(seen) }
                });
            }
        }
        before.written = written;
        before.offset = offset;
        compared
    }
}

/// Versions of a key that are missing from the tables, or there twice: not the relay's doing, so a
/// note and no fault. A first version above 1 is no gap, the table may have been trimmed.
pub(super) fn gaps_in_tables(evidence: &Evidence) -> Vec<String> {
    let rows = &evidence.rows;
    let mut order: Vec<(u32, KeyId, i64)> = rows
        .iter()
        .filter(|row| !row.late)
        .filter_map(|row| row.version.get().map(|version| (row.topic, row.key, version)))
        .collect();
    order.sort_unstable();
    let pairs = || order.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1));
    let describe = |what: &str, count: usize, first: Option<&[(u32, KeyId, i64)]>| {
        let pair = first?;
        Some(format!(
            "the tables have {count} {what}; first: key {} of {}, version {} follows {}",
            evidence.keys.text(pair[0].1),
            evidence.topics.text(pair[0].0),
            pair[1].2,
            pair[0].2,
        ))
    };
    let gaps = || pairs().filter(|pair| pair[1].2.saturating_sub(pair[0].2) > 1);
    let twice = || pairs().filter(|pair| pair[1].2 == pair[0].2);
    [
        describe("gaps in the versions of a key", gaps().count(), gaps().next()),
        describe("versions of a key twice", twice().count(), twice().next()),
    ]
    .into_iter()
    .flatten()
    .collect()
}
