//! What the checker prints: a table for people, JSON for machines. Both say the same.

use std::fmt;

use serde::Serialize;

use super::evidence::Mode;
use super::verdict::{Check, Judged, Name, Outcome, Seen, Verdict, Witness};

/// Raised when a field changes its meaning or goes; new fields may come without.
const FORMAT: u32 = 1;

/// Lines are no longer than a terminal is wide.
const WIDTH: usize = 80;

/// The result of a check, complete.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this shape.
    pub format: u32,
    /// What was promised.
    pub mode: Mode,
    /// Why the evidence could not be read, or the arguments not be used.
    pub error: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Report {
    /// A judgement was possible.
    #[must_use]
    pub fn judged(mode: Mode, verdict: Verdict) -> Self {
        Self { format: FORMAT, mode, error: None, verdict }
    }

    /// No judgement was possible, so that nothing counts as checked.
    #[must_use]
    pub fn failed(mode: Mode, outcome: Outcome, error: String) -> Self {
        let unchecked = |name: Name| Check {
            name,
            claim: name.claim(),
            result: Judged::NotChecked,
            reason: Some("there is no evidence".to_owned()),
            checked: 0,
            bad: 0,
            unit: "rows",
            faults: Vec::new(),
            witnesses: Vec::new(),
        };
        let checks = Name::ALL.into_iter().map(unchecked).collect();
        let verdict = Verdict { outcome, seen: Seen::default(), checks, notes: Vec::new() };
        Self { format: FORMAT, mode, error: Some(error), verdict }
    }

    /// As one JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers always serialize")
    }
}

/// The table for people.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        if let Some(error) = &self.error {
            writeln!(out, "{}", wrapped("error: ", error))?;
            return writeln!(out, "\n{}", last_line(verdict));
        }
        let seen = verdict.seen;
        writeln!(
            out,
            "{} rows; records: {} at read_committed, {} at read_uncommitted",
            seen.rows, seen.committed_records, seen.uncommitted_records
        )?;
        writeln!(
            out,
            "{} repeated, {} aborted or open copies, {} rows in the history\n",
            seen.duplicates, seen.aborted_copies, seen.history_rows
        )?;
        for check in &verdict.checks {
            writeln!(out, "{}", line(check))?;
            if let Some(reason) = &check.reason {
                writeln!(out, "{}", wrapped("           ", reason))?;
            }
        }
        for check in verdict.checks.iter().filter(|check| check.bad > 0) {
            let faults = check.faults.iter().map(|it| format!("{} {}", it.count, it.fault));
            let faults = faults.collect::<Vec<_>>().join(", ");
            writeln!(out, "\n{}", wrapped("", &format!("{}: {faults}", check.name.label())))?;
            for witness in &check.witnesses {
                writeln!(out, "{}", wrapped("  - ", &sentence(witness)))?;
            }
        }
        for note in &verdict.notes {
            writeln!(out, "\n{}", wrapped("note: ", note))?;
        }
        writeln!(out, "\n{}", last_line(verdict))
    }
}

fn line(check: &Check) -> String {
    let word = match check.result {
        Judged::Holds => "holds",
        Judged::Violated => "VIOLATED",
        Judged::NotChecked => "not checked",
    };
    let counts = match check.result {
        Judged::NotChecked => String::new(),
        Judged::Holds => format!("{} {}", check.checked, check.unit),
        Judged::Violated => format!("{} of {} {}", check.bad, check.checked, check.unit),
    };
    let line = format!("{:<8} {:<26} {word:<11} {counts}", check.name.label(), check.claim);
    line.trim_end().to_owned()
}

fn last_line(verdict: &Verdict) -> String {
    let unchecked: Vec<&str> = verdict
        .checks
        .iter()
        .filter(|check| check.result == Judged::NotChecked)
        .map(|check| check.name.label())
        .collect();
    match verdict.outcome {
        Outcome::Pass if unchecked.is_empty() => "PASS".to_owned(),
        Outcome::Pass => format!("PASS, not checked: {}", unchecked.join(", ")),
        Outcome::Violated => {
            let names: Vec<&str> = verdict.violated().iter().map(|name| name.label()).collect();
            format!("VIOLATED: {}", names.join(", "))
        }
        Outcome::Vacuous => "VACUOUS: there was nothing to check".to_owned(),
        Outcome::Usage => "USAGE".to_owned(),
        Outcome::Broken => "BROKEN: the evidence could not be read".to_owned(),
    }
}

fn sentence(witness: &Witness) -> String {
    let mut parts = vec![format!("{}: {}", witness.fault, witness.what)];
    let mut add = |name: &str, value: Option<String>| {
        parts.extend(value.map(|value| format!("{name} {value}")));
    };
    add("id", witness.id.clone());
    let place = witness.partition.zip(witness.offset);
    let topic = witness.topic.clone();
    add(
        "at",
        match (topic, place) {
            (Some(topic), Some((partition, offset))) => {
                Some(format!("{topic}/{partition}@{offset}"))
            }
            (topic, _) => topic,
        },
    );
    add("key", witness.key.clone());
    add("version", witness.version.map(|it| it.to_string()));
    add("table", witness.table.clone());
    add("txid", witness.txid.map(|it| it.to_string()));
    add("lsn", witness.lsn.clone());
    add("timestamp", witness.timestamp_ms.map(|it| format!("{it} ms")));
    add("op", witness.op.map(|it| it.to_string()));
    add("written", witness.written_at_us.map(|it| format!("{it} us")));
    parts.join("; ")
}

/// Breaks text at spaces; what follows the first line is indented like the text of the first. Words
/// longer than a line stay whole, so that ids and topics can be copied.
fn wrapped(lead: &str, text: &str) -> String {
    let indent = " ".repeat(lead.len());
    let mut lines = lead.to_owned();
    let mut width = lead.len();
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > lead.len() && width + 1 + length > WIDTH {
            lines.push('\n');
            lines.push_str(&indent);
            width = lead.len();
        } else if width > lead.len() {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Fault;
    use super::*;

    fn violated() -> Report {
        let mut report = Report::failed(Mode::ExactlyOnce, Outcome::Violated, String::new());
        report.error = None;
        let check = &mut report.verdict.checks[0];
        check.result = Judged::Violated;
        check.reason = None;
        (check.checked, check.bad) = (2_000_000, 1_999_999);
        check.faults = vec![Fault { fault: "never published", count: 1_999_999 }];
        check.witnesses = vec![Witness {
            fault: "never published",
            what: "in the table, in no topic at any isolation level".to_owned(),
            id: Some(uuid::Uuid::from_u128(7).to_string()),
            topic: Some("outbox.event.order".to_owned()),
            key: Some("k1".to_owned()),
            txid: Some(812),
            ..Witness::default()
        }];
        report
    }

    #[test]
    fn the_table_fits_a_terminal_and_says_everything() {
        let text = violated().to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in ["1999999 of 2000000 rows", "1999999 never published", "txid 812", "k1"] {
            assert!(words.contains(part), "{part} in\n{text}");
        }
        assert!(text.ends_with("\nVIOLATED: I1\n"), "{text}");
    }

    #[test]
    fn the_json_shape_is_stable() {
        let json: serde_json::Value = serde_json::from_str(&violated().to_json()).unwrap();
        let keys = |value: &serde_json::Value| {
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(&json), "checks error format mode notes outcome seen");
        assert_eq!(json["format"], 1);
        assert_eq!(json["outcome"], "violated");
        assert_eq!(json["mode"], "exactly-once");
        let check = &json["checks"][0];
        assert_eq!(keys(check), "bad checked claim faults name reason result unit witnesses");
        assert_eq!(check["result"], "violated");
        assert_eq!(keys(&check["witnesses"][0]), "fault id key topic txid what");
        let names: Vec<_> =
            json["checks"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
        let expected = ["I1", "I2", "I3", "I4", "I5", "I6", "content", "table", "readable"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_broken_check_claims_nothing() {
        let report = Report::failed(Mode::ExactlyOnce, Outcome::Broken, "no route".to_owned());
        let checks = &report.verdict.checks;
        assert!(checks.iter().all(|check| check.result == Judged::NotChecked));
        assert!(report.to_string().contains("error: no route"));
        assert_eq!(report.verdict.outcome.exit_code(), 4);
    }
}
