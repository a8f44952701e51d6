//! Collects what is wrong: all of it is counted, the few most telling are kept.

use std::collections::BTreeMap;

use super::super::verdict::{Check, Fault, Judged, Name, Witness};

/// As many as fit on a screen; more of the same tell nothing new.
const WITNESSES: usize = 8;

/// The bad things one check has found so far.
#[derive(Default)]
pub(super) struct Findings {
    bad: u64,
    faults: BTreeMap<&'static str, u64>,
    kept: BTreeMap<(u64, u64, u64), Witness>,
}

impl Findings {
    /// Counts one fault. The witnesses with the lowest `rank` are kept, earlier ones first.
    pub(super) fn add(
        &mut self,
        fault: &'static str,
        rank: (u64, u64),
        witness: impl FnOnce() -> Witness,
    ) {
        self.bad += 1;
        *self.faults.entry(fault).or_default() += 1;
        let rank = (rank.0, rank.1, self.bad);
        let full = self.kept.len() >= WITNESSES;
        if full && self.kept.last_key_value().is_some_and(|(&worst, _)| worst <= rank) {
            return;
        }
        self.kept.insert(rank, Witness { fault, ..witness() });
        if full {
            self.kept.pop_last();
        }
    }

    /// Closes the check. With nothing looked at, `reason` says why; with something looked at, it
    /// says which part was not.
    pub(super) fn check(
        self,
        name: Name,
        unit: &'static str,
        checked: u64,
        reason: Option<String>,
    ) -> Check {
        let result = match (self.bad, checked) {
            (1.., _) => Judged::Violated,
            (0, 0) => Judged::NotChecked,
            (0, _) => Judged::Holds,
        };
        let mut faults: Vec<Fault> =
            self.faults.into_iter().map(|(fault, count)| Fault { fault, count }).collect();
        faults.sort_by_key(|fault| std::cmp::Reverse(fault.count));
        Check {
            name,
            claim: name.claim(),
            result,
            reason,
            checked,
            bad: self.bad,
            unit,
            faults,
            witnesses: self.kept.into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_most_telling_and_counts_all() {
        let mut findings = Findings::default();
        for rank in (0..100).rev() {
            findings.add("x", (rank, 0), || Witness {
                offset: Some(rank as i64),
                ..Witness::default()
            });
        }
        let check = findings.check(Name::I1, "rows", 100, None);
        assert_eq!(check.bad, 100);
        assert_eq!(check.faults, [Fault { fault: "x", count: 100 }]);
        let offsets: Vec<_> = check.witnesses.iter().filter_map(|witness| witness.offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
