//! What the load counts, and the summary it ends with.
//!
//! Bounded by: [`ERROR_KINDS_MAX`] kinds of error; the rest is counted as "other".
//! Tested by: this module's tests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::pace::{Latencies, Quantiles};
use super::session::Ran;
use crate::drill::history::{Intent, Outcome};

/// Kinds of error that are counted by name.
const ERROR_KINDS_MAX: usize = 32;

/// Counts so far. Transactions that ended by a planned ROLLBACK are counted apart from `ok`.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Transactions taken from the plan by a worker with a connection.
    pub started: u64,
    /// COMMIT confirmed.
    pub ok: u64,
    /// Rolled back as planned.
    pub rolled_back: u64,
    /// Certainly not committed.
    pub fail: u64,
    /// COMMIT sent, no answer.
    pub unknown: u64,
    /// Rows of transactions that are ok.
    pub rows_ok: u64,
    /// Rows that were undone to a savepoint, in any transaction.
    pub rows_undone: u64,
    /// Connections opened after the first of each worker.
    pub reconnects: u64,
    /// Connection attempts that failed.
    pub refused: u64,
    /// Transactions that were due when the load ended, and had no connection to begin on.
    pub not_started: u64,
    /// Errors by SQLSTATE or kind.
    pub errors: BTreeMap<String, u64>,
    pub(super) lateness: Latencies,
    pub(super) service: Latencies,
    pub(super) response: Latencies,
}

impl Tally {
    pub(super) fn ended(&mut self, intent: Intent, ran: &Ran, late: Duration, service: Duration) {
        self.rows_undone += ran.undone as u64;
        match (ran.outcome, intent) {
            (Outcome::Ok, Intent::Commit) => {
                self.ok += 1;
                self.rows_ok += ran.rows as u64;
            }
            (Outcome::Ok, Intent::Rollback) => self.rolled_back += 1,
            (Outcome::Fail, _) => self.fail += 1,
            (Outcome::Unknown, _) => self.unknown += 1,
        }
        self.lateness.add(late);
        self.service.add(service);
        self.response.add(late + service);
        if let Some((name, _)) = &ran.error {
            self.error(name);
        }
    }

    fn error(&mut self, name: &str) {
        let known = self.errors.contains_key(name) || self.errors.len() < ERROR_KINDS_MAX;
        *self.errors.entry(if known { name } else { "other" }.to_owned()).or_default() += 1;
    }

    fn settled(&self) -> u64 {
        self.ok + self.rolled_back + self.fail + self.unknown
    }
}

/// How a load went.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// What the plan was made from.
    pub seed: u64,
    /// Transactions a second that were due.
    pub rate: f64,
    /// From the first arrival to the last answer, in seconds.
    pub elapsed_s: f64,
    /// Transactions begun.
    pub started: u64,
    /// COMMIT confirmed.
    pub ok: u64,
    /// Rolled back as planned.
    pub rolled_back: u64,
    /// Certainly not committed.
    pub fail: u64,
    /// No answer to COMMIT, those included that the drain gave up.
    pub unknown: u64,
    /// Due before the end, but never begun.
    pub not_started: u64,
    /// Rows of transactions that are ok.
    pub rows_ok: u64,
    /// Rows undone to a savepoint.
    pub rows_undone: u64,
    /// Connections opened after the first of each worker.
    pub reconnects: u64,
    /// Connection attempts that failed.
    pub refused: u64,
    /// Errors by SQLSTATE or kind.
    pub errors: BTreeMap<String, u64>,
    /// From due to begun.
    pub lateness: Quantiles,
    /// From begun to answered.
    pub service: Quantiles,
    /// From due to answered: what a client would have felt.
    pub response: Quantiles,
}

impl Summary {
    pub(super) fn new(
        (seed, rate): (u64, f64),
        tally: Tally,
        elapsed: Duration,
        left_in_plan: u64,
    ) -> Self {
        Self {
            seed,
            rate,
            elapsed_s: elapsed.as_secs_f64(),
            started: tally.started,
            ok: tally.ok,
            rolled_back: tally.rolled_back,
            fail: tally.fail,
            // What was begun and never settled was given up in the drain; its history has a begin
            // line or nothing, and either way the table decides.
            unknown: tally.unknown + tally.started.saturating_sub(tally.settled()),
            not_started: tally.not_started + left_in_plan,
            rows_ok: tally.rows_ok,
            rows_undone: tally.rows_undone,
            reconnects: tally.reconnects,
            refused: tally.refused,
            lateness: tally.lateness.quantiles(),
            service: tally.service.quantiles(),
            response: tally.response.quantiles(),
            errors: tally.errors,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let achieved = self.started as f64 / self.elapsed_s.max(0.001);
        writeln!(f, "load         seed {}, {:.1} s", self.seed, self.elapsed_s)?;
        writeln!(f, "transactions {} begun, {achieved:.0}/s of {:.0}/s", self.started, self.rate)?;
        writeln!(
            f,
            "             {} ok, {} rolled back, {} failed, {} unknown, {} due but never begun",
            self.ok, self.rolled_back, self.fail, self.unknown, self.not_started
        )?;
        writeln!(f, "rows         {} ok, {} undone", self.rows_ok, self.rows_undone)?;
        writeln!(f, "connections  {} reopened, {} refused", self.reconnects, self.refused)?;
        let rows = [
            ("lateness", "due to begun", self.lateness),
            ("service", "begun to answered", self.service),
            ("response", "due to answered", self.response),
        ];
        for (name, what, Quantiles { p50_ms, p99_ms, max_ms }) in rows {
            writeln!(
                f,
                "{name:<12} p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms ({what})"
            )?;
        }
        for (name, count) in &self.errors {
            writeln!(f, "error        {count} x {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(outcome: Outcome, error: Option<&str>) -> Ran {
        let error = error.map(|name| (name.to_owned(), name.to_owned()));
        Ran { outcome, rows: 2, undone: 1, error }
    }

    #[test]
    fn what_the_drain_gave_up_is_unknown() {
        let mut tally = Tally { started: 5, ..Tally::default() };
        let ms = Duration::from_millis;
        tally.ended(Intent::Commit, &ran(Outcome::Ok, None), ms(0), ms(1));
        tally.ended(Intent::Rollback, &ran(Outcome::Ok, None), ms(0), ms(1));
        tally.ended(Intent::Commit, &ran(Outcome::Unknown, Some("57P01")), ms(3), ms(5));
        let summary = Summary::new((7, 10.0), tally, ms(1_000), 4);
        assert_eq!((summary.ok, summary.rolled_back, summary.unknown), (1, 1, 3));
        assert_eq!((summary.rows_ok, summary.rows_undone, summary.not_started), (2, 3, 4));
        assert_eq!(summary.response.max_ms, 8.0);
        assert!(summary.to_string().contains("error        1 x 57P01"), "{summary}");
        assert!(summary.to_string().lines().all(|line| line.len() <= 80), "{summary}");
    }

    #[test]
    fn kinds_of_error_are_bounded() {
        let mut tally = Tally::default();
        for number in 0..100 {
            let name = number.to_string();
            let ran = ran(Outcome::Fail, Some(&name));
            tally.ended(Intent::Commit, &ran, Duration::ZERO, Duration::ZERO);
        }
        assert_eq!(tally.errors.len(), ERROR_KINDS_MAX + 1);
        assert_eq!(tally.errors["other"], 100 - ERROR_KINDS_MAX as u64);
    }
}
