//! I5 and I6: do the rows of a transaction appear together, and the records of a key in one place?

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::evidence::{KeyId, NO_KEY, Row, TopicId};
use super::super::verdict::{Check, Name, Witness};
use super::findings::Findings;
use super::tally::{Sighting, Tally};

/// I5. Of one Postgres transaction, a read_committed reader sees all rows or none, over all tables
/// that have `txid`. Transactions of one row are whole by nature and not counted as checked.
pub(super) fn whole_transactions(tally: &Tally<'_>) -> Check {
    let evidence = tally.evidence;
    let mut order: Vec<(i64, u32)> = (0..)
        .zip(&evidence.rows)
        .filter(|(_, row)| !row.late)
        .filter_map(|(index, row)| row.txid.get().map(|txid| (txid, index)))
        .collect();
    order.sort_unstable();
    let mut findings = Findings::default();
    let mut checked = 0;
    for group in order.chunk_by(|one, next| one.0 == next.0).filter(|group| group.len() > 1) {
        checked += 1;
        let hidden = |&&(_, index): &&(i64, u32)| tally.counts[index as usize].committed == 0;
        let missing = group.iter().filter(hidden).count();
        if missing == 0 || missing == group.len() {
            continue;
        }
        findings.add("torn", (0, group[0].0.unsigned_abs()), || {
            let first = group.iter().find(hidden).map_or(0, |&(_, index)| index as usize);
            let what = format!("{missing} of its {} rows are missing, this one first", group.len());
            let base = tally.sighting_of(first).map(|seen| tally.witness(seen));
            let row = &evidence.rows[first];
            Witness { what, ..base.unwrap_or_else(|| tally.row_witness(row)) }
        });
    }
    let reason = reason_for_transactions(tally, order.is_empty(), checked);
    findings.check(Name::I5, "transactions", checked, reason)
}

fn reason_for_transactions(tally: &Tally<'_>, no_txid: bool, checked: u64) -> Option<String> {
    if let Some(tables) = tally.tables_without(|table| table.has_txid) {
        return Some(format!("no column txid in {tables}"));
    }
    if no_txid {
        return Some("no row has a txid".to_owned());
    }
    if checked == 0 {
        return Some("no transaction wrote more than one row".to_owned());
    }
    let unknown = |row: &&Row| !row.late && row.txid.get().is_none();
    let without = tally.evidence.rows.iter().filter(unknown).count();
    (without > 0)
        .then(|| format!("{without} rows have no txid: whether they belong together is unknown"))
}

/// Where the records of one key are: how many in each partition, and the first of them.
type Places<'a> = BTreeMap<i32, (u64, Sighting<'a>)>;

/// I6. All records of a key are in one partition of the topic their rows belong to. Keys are those
/// of the rows, so that an altered record key does not hide a wrong partition.
pub(super) fn one_partition(tally: &Tally<'_>) -> Check {
    let mut findings = Findings::default();
    let mut home: HashMap<(TopicId, KeyId), i32> = HashMap::new();
    let mut bad: HashSet<(TopicId, KeyId)> = HashSet::new();
    let with_rows = || tally.sightings().filter(|seen| seen.record.committed && seen.row.is_some());
    let place = |seen: &Sighting<'_>| seen.row.map_or((0, 0), |(_, row)| (row.topic, row.key));
    let mut strays: HashSet<(TopicId, KeyId)> = HashSet::new();
    for seen in with_rows() {
        let key = place(&seen);
        if key.0 != seen.log.topic {
            home.entry(key).or_insert(-1);
            if strays.insert(key) {
                findings.add("wrong topic", (0, 0), || Witness {
                    what: format!("belongs to {}", tally.evidence.topics.text(key.0)),
                    ..tally.witness(seen)
                });
            }
            continue;
        }
        let first = home.entry(key).or_insert(seen.log.partition);
        if *first == -1 {
            *first = seen.log.partition;
        } else if key.1 == NO_KEY {
            // Without a key any partition is right.
        } else if *first != seen.log.partition {
            bad.insert(key);
        }
    }
    let mut spread: BTreeMap<(TopicId, KeyId), Places<'_>> = BTreeMap::new();
    for seen in with_rows().filter(|seen| bad.contains(&place(seen))) {
        if seen.log.topic == place(&seen).0 {
            let places = spread.entry(place(&seen)).or_default();
            places.entry(seen.log.partition).or_insert((0, seen)).0 += 1;
        }
    }
    for (rank, places) in (0..).zip(spread.values()) {
        findings.add("several partitions", (1, rank), || stray(tally, places));
    }
    let reason = home.is_empty().then(|| "no row was published".to_owned());
    findings.check(Name::I6, "keys", home.len() as u64, reason)
}

/// The witness of a spread key: the first record in the partition that has fewest of them.
fn stray(tally: &Tally<'_>, places: &Places<'_>) -> Witness {
    let counts: Vec<String> =
        places.iter().map(|(partition, (count, _))| format!("{count} in {partition}")).collect();
    let what = format!("records by partition: {}", counts.join(", "));
    let rarest = places.values().min_by_key(|(count, seen)| (*count, -seen.log.partition));
    let base = rarest.map(|&(_, seen)| tally.witness(seen));
    Witness { what, ..base.unwrap_or_default() }
}
