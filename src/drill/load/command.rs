//! `drill load`: the load as a command.
//!
//! Tested by: this module's tests.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Mix, Options};

/// Write outbox transactions at a steady rate, and keep their history.
///
/// The plan depends on the seed only. Transactions are due by the clock and do not wait for each
/// other; what starts late is reported as lateness. Ends by itself after --count or --seconds,
/// or on Ctrl-C.
#[derive(Debug, Args)]
pub struct LoadCommand {
    /// Database to write to: a postgres:// URL or a libpq connection string
    #[arg(long, value_name = "URL")]
    pub postgres: String,
    /// File for the history; it must not exist yet
    #[arg(long, value_name = "FILE", default_value = "history.ndjson")]
    pub history: PathBuf,
    /// Seed of the plan: the same seed gives the same transactions
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Transactions a second, on average
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub rate: f64,
    /// Connections, and so transactions at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub workers: u32,
    /// End after this many transactions
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Keys of each aggregate type
    #[arg(long, value_name = "N", default_value_t = Mix::default().keys)]
    pub keys: u32,
    /// How many of them are hot
    #[arg(long, value_name = "N", default_value_t = Mix::default().hot_keys)]
    pub hot_keys: u32,
    /// Of 100 rows, how many go to a hot key
    #[arg(long, value_name = "N", default_value_t = Mix::default().hot_percent)]
    pub hot_percent: u32,
    /// Of 100 transactions, how many have several rows
    #[arg(long, value_name = "N", default_value_t = Mix::default().multi_percent)]
    pub multi_percent: u32,
    /// Rows in one transaction, at most
    #[arg(long, value_name = "N", default_value_t = Mix::default().rows_max)]
    pub rows_max: u32,
    /// Of 100 transactions, how many use savepoints
    #[arg(long, value_name = "N", default_value_t = Mix::default().savepoint_percent)]
    pub savepoint_percent: u32,
    /// Of 100 transactions, how many are rolled back
    #[arg(long, value_name = "N", default_value_t = Mix::default().rollback_percent)]
    pub rollback_percent: u32,
    /// Of 1000 rows, how many are large
    #[arg(long, value_name = "N", default_value_t = Mix::default().large_permille)]
    pub large_permille: u32,
    /// Size of the largest payload, in bytes; public.outbox takes 983040
    #[arg(long, value_name = "N", default_value_t = Mix::default().large_bytes_max)]
    pub large_bytes: usize,
}

impl LoadCommand {
    /// What the arguments ask for; checked when the load starts.
    pub fn options(self) -> Options {
        let mix = Mix {
            keys: self.keys,
            hot_keys: self.hot_keys,
            hot_percent: self.hot_percent,
            multi_percent: self.multi_percent,
            rows_max: self.rows_max,
            savepoint_percent: self.savepoint_percent,
            rollback_percent: self.rollback_percent,
            large_permille: self.large_permille,
            large_bytes_max: self.large_bytes,
            ..Mix::default()
        };
        Options {
            workers: self.workers,
            mix,
            count: self.count,
            duration: self.seconds.map(Duration::from_secs),
            ..Options::new(&self.postgres, self.seed, self.rate, self.history)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        load: LoadCommand,
    }

    #[test]
    fn arguments_become_options() {
        let alone =
            Alone::parse_from(["load", "--postgres", "host=x", "--seconds", "3", "--keys", "9"]);
        let options = alone.load.options();
        assert_eq!(options.duration, Some(Duration::from_secs(3)));
        assert_eq!(options.mix, Mix { keys: 9, ..Mix::default() });
    }

    #[test]
    fn help_fits_80_columns() {
        Alone::command().debug_assert();
        let help = Alone::command().term_width(80).render_long_help().to_string();
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    }
}
