//! The judgement: a pure function from evidence to a verdict.
//!
//! Promises: every claim is judged from the evidence alone, by comparing what the tables hold with
//! what the topics hold; a claim nothing could be compared for is `not_checked`, and a judgement
//! over no rows at all is vacuous. Refuses: any I/O, any clock, any knowledge of how a relay works.

mod content;
mod findings;
mod grouping;
mod order;
mod presence;
mod tally;
#[cfg(test)]
mod tests;

use super::evidence::Evidence;
use super::verdict::{Judged, Name, Outcome, Seen, Verdict};
use findings::Findings;
use tally::Tally;

/// Judges sealed evidence (see [`Evidence::seal`]).
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    assert!(evidence.rows.is_sorted_by_key(|row| row.id), "evidence must be sealed first");
    let tally = Tally::of(evidence);
    let checks = vec![
        presence::no_loss(&tally),
        presence::no_phantom(&tally),
        presence::once(&tally),
        order::in_order(&tally),
        grouping::whole_transactions(&tally),
        grouping::one_partition(&tally),
        content::unaltered(&tally),
        content::table_keeps_writes(&tally),
        readable(&tally),
    ];
    let violated = checks.iter().any(|check| check.result == Judged::Violated);
    let outcome = match (violated, evidence.rows.iter().all(|row| row.late)) {
        (true, _) => Outcome::Violated,
        (false, true) => Outcome::Vacuous,
        (false, false) => Outcome::Pass,
    };
    let mut notes = evidence.notes.clone();
    notes.extend(order::gaps_in_tables(evidence));
    notes.extend(content::unheard_of(evidence));
    Verdict { outcome, seen: seen(&tally), checks, notes }
}

fn readable(tally: &Tally<'_>) -> super::verdict::Check {
    let logs = &tally.evidence.logs;
    let mut findings = Findings::default();
    for log in logs.iter().filter(|log| log.stable < log.end && !log.moving) {
        findings.add("open transaction", (log.stable as u64, 0), || {
            let behind = log.end - log.stable;
            super::verdict::Witness {
                what: format!(
                    "open transaction at offset {}: {behind} offsets are hidden from read_committed",
                    log.stable
                ),
                topic: Some(tally.evidence.topics.text(log.topic)),
                partition: Some(log.partition),
                offset: Some(log.stable),
                ..Default::default()
            }
        });
    }
    let moving = logs.iter().filter(|log| log.moving).count();
    let reason = match (logs.len(), moving) {
        (0, _) => Some("no topic to read".to_owned()),
        (_, 0) => None,
        (_, moving) => Some(format!("{moving} partitions had a transaction in progress")),
    };
    findings.check(Name::Readable, "partitions", logs.len() as u64, reason)
}

fn seen(tally: &Tally<'_>) -> Seen {
    let evidence = tally.evidence;
    let records = || evidence.logs.iter().flat_map(|log| &log.records);
    Seen {
        rows: evidence.rows.len() as u64,
        late_rows: evidence.rows.iter().filter(|row| row.late).count() as u64,
        committed_records: records().filter(|record| record.committed).count() as u64,
        uncommitted_records: records().count() as u64,
        aborted_copies: tally.counts.iter().map(|count| u64::from(count.hidden)).sum(),
        duplicates: tally
            .counts
            .iter()
            .map(|count| u64::from(count.committed.saturating_sub(1)))
            .sum(),
        history_rows: evidence.history.as_ref().map_or(0, |history| history.writes.len() as u64),
    }
}
