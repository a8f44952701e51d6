//! Reads the history a load left behind: one JSON object a line, two lines an operation.
//!
//! Promises: a last line cut off in the middle is tolerated, because the writer may have been
//! killed; anything else that is not as it should be is refused with its line number. A checker
//! that guesses what a damaged history meant proves nothing.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::evidence::{Fate, History, NO_KEY, Names, Number, Write};

/// The only version of the format there is.
const FORMAT: u64 = 1;

/// A history and the tables it speaks about.
#[derive(Debug, Default)]
pub struct Told {
    /// The rows.
    pub history: History,
    /// As in its first line.
    pub tables: Vec<String>,
}

/// Why a history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("history line {line}: cannot be read")]
    Read {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("history line {line}: {what}; the file is damaged or no history")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There is no first line.
    #[error("the history is empty: not even the line that describes the run was written")]
    Empty,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Run(Run),
    Begin(Begin),
    End(End),
}

#[derive(Deserialize)]
struct Run {
    version: u64,
    tables: Vec<String>,
}

#[derive(Deserialize)]
struct Begin {
    op: u64,
    at_us: i64,
    intent: Intent,
    rows: Vec<WrittenRow>,
    #[serde(default)]
    undone: Vec<Uuid>,
}

#[derive(Deserialize)]
struct WrittenRow {
    id: Uuid,
    table: String,
    key: String,
    version: Option<i64>,
}

#[derive(Deserialize)]
struct End {
    op: u64,
    outcome: Answer,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Intent {
    Commit,
    Rollback,
}

/// What the writer was told.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok,
    Fail,
    Unknown,
}

/// An operation whose end is not known yet: where its rows are, and what was intended.
struct Open {
    writes: std::ops::Range<usize>,
    intent: Intent,
}

#[derive(Default)]
struct Reading {
    tables: Vec<Arc<str>>,
    writes: Vec<Write>,
    open: HashMap<u64, Open>,
    ended: HashSet<u64>,
}

/// Reads a history to its end.
///
/// # Errors
/// When a line other than a cut-off last one is not as it should be.
pub fn read(mut input: impl BufRead, keys: &mut Names) -> Result<Told, HistoryError> {
    let mut reading = Reading::default();
    let mut told = Told::default();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = input.read_until(b'\n', &mut text);
        if read.map_err(|source| HistoryError::Read { line, source })? == 0 {
            break;
        }
        let parsed = match serde_json::from_slice::<Line>(&text) {
            Ok(parsed) => parsed,
            Err(_) if !text.ends_with(b"\n") => {
                told.history.torn = true;
                break;
            }
            Err(error) => return Err(HistoryError::Line { line, what: error.to_string() }),
        };
        let accepted = match (line, parsed) {
            (1, Line::Run(run)) => run.accept(&mut told, &mut reading),
            (1, Line::Begin(_) | Line::End(_)) => Err("the first line must be `run`".to_owned()),
            (_, Line::Run(_)) => Err("`run` belongs in the first line only".to_owned()),
            (_, Line::Begin(begin)) => reading.begin(begin, keys),
            (_, Line::End(end)) => reading.end(&end),
        };
        accepted.map_err(|what| HistoryError::Line { line, what })?;
    }
    if told.tables.is_empty() {
        return Err(HistoryError::Empty);
    }
    told.history.writes = reading.finish()?;
    Ok(told)
}

impl Run {
    fn accept(self, told: &mut Told, reading: &mut Reading) -> Result<(), String> {
        if self.version != FORMAT {
            return Err(format!("format version {}, this reader knows {FORMAT}", self.version));
        }
        if self.tables.is_empty() {
            return Err("`tables` is empty".to_owned());
        }
        reading.tables = self.tables.iter().map(|table| table.as_str().into()).collect();
        told.tables = self.tables;
        Ok(())
    }
}

impl Reading {
    fn begin(&mut self, begin: Begin, keys: &mut Names) -> Result<(), String> {
        let Begin { op, at_us, intent, rows, undone } = begin;
        if self.open.contains_key(&op) || self.ended.contains(&op) {
            return Err(format!("operation {op} begins twice"));
        }
        let from = self.writes.len();
        // A row named in both lists was undone.
        let kept = rows.into_iter().filter(|row| !undone.contains(&row.id));
        for row in kept {
            let table = self.tables.iter().find(|table| ***table == *row.table);
            let table = table.ok_or_else(|| format!("table {} is not of this run", row.table))?;
            self.writes.push(Write {
                id: row.id.as_u128(),
                op,
                at_us,
                version: Number::maybe(row.version),
                key: keys.intern(row.key.as_bytes()),
                table: Some(Arc::clone(table)),
                fate: Fate::Unknown,
            });
        }
        self.open.insert(op, Open { writes: from..self.writes.len(), intent });
        self.writes.extend(undone.into_iter().map(|id| Write {
            id: id.as_u128(),
            op,
            at_us,
            version: Number::ABSENT,
            key: NO_KEY,
            table: None,
            fate: Fate::Undone,
        }));
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        let End { op, outcome } = *end;
        let open = self.open.remove(&op);
        let open = open.ok_or_else(|| format!("operation {op} ends without having begun"))?;
        self.ended.insert(op);
        let fate = match (open.intent, outcome) {
            (Intent::Rollback, Answer::Ok | Answer::Fail | Answer::Unknown) => Fate::RolledBack,
            (Intent::Commit, Answer::Ok) => Fate::Committed,
            (Intent::Commit, Answer::Fail) => Fate::Failed,
            (Intent::Commit, Answer::Unknown) => Fate::Unknown,
        };
        self.writes[open.writes].iter_mut().for_each(|write| write.fate = fate);
        Ok(())
    }

    /// Operations without an end: a commit is in doubt, a rollback is one all the same, for no
    /// COMMIT was ever sent.
    fn finish(mut self) -> Result<Vec<Write>, HistoryError> {
        for open in self.open.into_values() {
            match open.intent {
                Intent::Commit => {}
                Intent::Rollback => {
                    let writes = &mut self.writes[open.writes];
                    writes.iter_mut().for_each(|write| write.fate = Fate::RolledBack);
                }
            }
        }
        self.writes.sort_unstable_by_key(|write| write.id);
        match self.writes.windows(2).find(|pair| pair[0].id == pair[1].id) {
            None => Ok(self.writes),
            Some(pair) => Err(HistoryError::Line {
                line: 0,
                what: format!(
                    "id {} is written by operations {} and {}",
                    Uuid::from_u128(pair[0].id),
                    pair[0].op,
                    pair[1].op
                ),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str =
        r#"{"run":{"seed":7,"started_at_us":1,"tables":["public.outbox"],"version":1}}"#;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn begin(op: u64, intent: &str, rows: &[u128], undone: &[u128]) -> String {
        let row = |&row: &u128| {
            serde_json::json!({"id": id(row), "table": "public.outbox",
                "topic": "outbox.event.order", "key": "k1", "version": 3})
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        let undone: Vec<_> = undone.iter().map(|&row| id(row)).collect();
        serde_json::json!({"begin": {"op": op, "worker": 2, "at_us": 9, "intent": intent,
            "rows": rows, "undone": undone}})
        .to_string()
    }

    fn end(op: u64, outcome: &str) -> String {
        let end = serde_json::json!({"op": op, "at_us": 10, "outcome": outcome, "error": null});
        serde_json::json!({ "end": end }).to_string()
    }

    fn read_text(text: &str) -> Result<Told, HistoryError> {
        read(text.as_bytes(), &mut Names::default())
    }

    fn read_lines(lines: &[String]) -> Result<Told, HistoryError> {
        read_text(&format!("{RUN}\n{}\n", lines.join("\n")))
    }

    #[test]
    fn each_row_has_the_fate_of_its_operation() {
        let told = read_lines(&[
            begin(1, "commit", &[1, 2], &[3]),
            begin(2, "rollback", &[4], &[]),
            begin(3, "commit", &[5], &[]),
            end(1, "ok"),
            end(3, "fail"),
            begin(4, "commit", &[6], &[]),
            end(2, "ok"),
            end(4, "unknown"),
            begin(5, "commit", &[7, 8], &[8]),
            begin(6, "rollback", &[9], &[]),
        ])
        .unwrap();
        let fates: Vec<_> =
            told.history.writes.iter().map(|write| (write.id, write.fate)).collect();
        use Fate::{Committed, Failed, RolledBack, Undone, Unknown};
        assert_eq!(
            fates,
            [
                (1, Committed),
                (2, Committed),
                (3, Undone),
                (4, RolledBack),
                (5, Failed),
                (6, Unknown),
                (7, Unknown),
                (8, Undone),
                (9, RolledBack)
            ]
        );
        assert_eq!(told.tables, ["public.outbox"]);
        assert!(!told.history.torn);
    }

    #[test]
    fn a_torn_last_line_is_tolerated_at_every_length() {
        let whole = format!("{RUN}\n{}\n", begin(1, "commit", &[1], &[]));
        let last = end(1, "ok");
        for cut in 1..last.len() {
            let told = read_text(&format!("{whole}{}", &last[..cut])).unwrap();
            assert!(told.history.torn);
            assert_eq!(told.history.writes[0].fate, Fate::Unknown);
        }
        let told = read_text(&format!("{whole}{last}")).unwrap();
        assert!(!told.history.torn);
        assert_eq!(told.history.writes[0].fate, Fate::Committed);
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        let good = begin(1, "commit", &[1], &[]);
        let cases = [
            (format!("{RUN}\n{{\"begin\":\n{good}\n"), "line 2"),
            (format!("{RUN}\n\n{good}\n"), "line 2"),
            (format!("{good}\n"), "line 1: the first line must be `run`"),
            (format!("{RUN}\n{RUN}\n"), "line 2: `run` belongs"),
            (format!("{RUN}\n{good}\n{good}\n"), "line 3: operation 1 begins twice"),
            (format!("{RUN}\n{}\n", end(9, "ok")), "line 2: operation 9 ends without"),
            (format!("{RUN}\n{good}\n{}\n", end(1, "maybe")), "line 3: unknown variant `maybe`"),
            (format!("{RUN}\n{{\"pause\":{{}}}}\n"), "line 2: unknown variant `pause`"),
            (
                format!("{RUN}\n{}\n", good.replace("public.", "other.")),
                "line 2: table other.outbox",
            ),
            (RUN.replace("\"version\":1", "\"version\":2") + "\n", "line 1: format version 2"),
            (
                format!("{RUN}\n{good}\n{}\n", begin(2, "commit", &[1], &[])),
                "is written by operations 1 and 2",
            ),
            (String::new(), "the history is empty"),
            (RUN[..20].to_owned(), "the history is empty"),
        ];
        for (text, expected) in cases {
            let error = read_text(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\nexpected: {expected}");
        }
    }
}
