//! The load: a seeded stream of outbox transactions that does not wait for the system under test.
//!
//! Transactions are due by the clock ([`pace`]), made from the seed ([`plan`]), run by a fixed
//! number of workers, each on a connection of its own, and written down before and after their end
//! ([`history`](crate::drill::history)). A worker whose connection dies opens another one and goes
//! on; what became due meanwhile is run late, and the lateness is reported.
//!
//! ```text
//!  seed ─▶ Arrivals ─▶ worker 1..n ─▶ begin, lock keys, rows, savepoints
//!             │            │            └▶ history: begin line
//!           clock          │            └▶ COMMIT or ROLLBACK
//!                          └─ again     └▶ history: end line
//! ```
//!
//! Guarantee: nothing the load may have committed is missing from the history; *fail* is only said
//! of what certainly did not commit.
//! Bounded by: `workers` transactions at a time; `operation_timeout` for each half of one;
//! `outage_limit` without a connection; `drain_timeout` after the end.
//! Tested by: unit tests of its parts; `tests/services/load.rs` for the whole.

pub mod command;
mod ledger;
mod outcome;
pub mod pace;
pub mod plan;
mod run;
mod session;
mod tables;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

pub use plan::{Mix, Payload, Plan, Table, Transaction};
pub use run::{Load, run};
pub use tables::setup;
pub use tally::{Summary, Tally};

/// How the load is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database: a libpq URL or connection string, without TLS.
    pub postgres: String,
    /// What the plan is made from.
    pub seed: u64,
    /// Transactions a second, on average.
    pub rate: f64,
    /// How many connections, and so how many transactions at a time.
    pub workers: u32,
    /// What the transactions are like.
    pub mix: Mix,
    /// Ends after this many transactions.
    pub count: Option<u64>,
    /// Ends when this much time has passed.
    pub duration: Option<Duration>,
    /// The file the history goes to; it must not exist.
    pub history: PathBuf,
    /// How long a transaction may take to its last row, and again for its end.
    pub operation_timeout: Duration,
    /// How long the load goes on without reaching Postgres at all.
    pub outage_limit: Duration,
    /// How long what is due may take after the end, and what is running after that.
    pub drain_timeout: Duration,
}

impl Options {
    /// The usual limits; ends on request only, unless `count` or `duration` is set.
    pub fn new(url: &str, seed: u64, rate: f64, history: PathBuf) -> Self {
        Self {
            postgres: url.to_owned(),
            seed,
            rate,
            workers: 8,
            mix: Mix::default(),
            count: None,
            duration: None,
            history,
            operation_timeout: Duration::from_secs(10),
            outage_limit: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
