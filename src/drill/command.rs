//! The command line of `drill`, as data.
//!
//! Exit codes: 0 done or passed, 1 a check found something wrong, 2 bad arguments, 3 there was
//! nothing to check, 4 the harness itself failed.

use clap::{Parser, Subcommand, ValueEnum};

use super::check::CheckArgs;
use super::cluster::{Postgres, PostgresOptions, RunDir};
use super::load::command::LoadCommand;

/// Starts real Postgres and Kafka on loopback, writes to the outbox, and
/// counts what arrived.
#[derive(Debug, Parser)]
#[command(
    name = "drill",
    version,
    max_term_width = 80,
    after_help = "Exit codes: 0 done or passed, 1 a check found something wrong, 2 bad arguments, \
                  3 nothing to check, 4 drill itself failed."
)]
pub struct Drill {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The servers' binaries: where they are, and fetching what is missing
    #[command(subcommand)]
    Services(Services),
    /// The demo: start everything, say what runs where, end on Ctrl-C
    Up {
        /// End by itself after so many seconds
        #[arg(long, value_name = "N", env = "DEMO_SECONDS")]
        seconds: Option<u64>,
    },
    /// Write outbox transactions at a steady rate, and keep their history
    Load(LoadCommand),
    /// Compare outbox tables with topics: lost, repeated, torn, out of order
    Check(CheckArgs),
    /// Start one Postgres and wait to be ended, for the test of the clean-up
    #[command(hide = true)]
    Linger {
        /// Its major version.
        version: u16,
        /// What then.
        how: Linger,
    },
}

/// The servers' binaries.
#[derive(Debug, Subcommand)]
pub enum Services {
    /// Fetch what this machine lacks into the services folder
    Fetch,
    /// Show which binaries are used, and why those
    List,
}

/// What a lingering drill does once its server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Linger {
    /// Nothing, until somebody ends it or standard input ends.
    Wait,
    /// The same, with the server frozen: it takes no signal but SIGKILL.
    Frozen,
    /// Panics.
    Panic,
    /// Ends as a program should.
    Return,
}

impl Linger {
    /// Starts a server, says its pid and its run directory, and behaves as asked.
    ///
    /// # Errors
    ///
    /// The server did not start.
    pub fn linger(self, version: u16, say: &dyn Fn(&str)) -> anyhow::Result<()> {
        let run = RunDir::create()?;
        let server = Postgres::start(&run, PostgresOptions::version(version))?;
        if self == Self::Frozen {
            server.freeze()?;
        }
        say(&format!("{} {}", server.pid()?, run.path().display()));
        match self {
            Self::Return => return Ok(()),
            Self::Panic => panic!("as asked"),
            Self::Wait | Self::Frozen => {}
        }
        // Until it is killed, or whoever holds the other end of standard input has gone.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Drill::command().debug_assert();
    }
}
