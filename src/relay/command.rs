//! The command line of `postrider`, as data.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::Part;
use crate::config::arguments;

/// What environment variables start with.
pub const PREFIX: &str = "POSTRIDER";

/// Relays a Postgres outbox table into Kafka, each committed row exactly once.
///
/// This version lays the ground: `run` watches the outbox and publishes nothing yet.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, max_term_width = 80, after_help = arguments::help(PREFIX))]
pub struct Postrider {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the outbox: readiness, metrics, orderly stop (relaying comes next)
    Run(ConfigFile),
    /// Print the SQL and the settings around the outbox, or apply the table
    Init {
        /// What to print
        #[arg(value_enum, default_value_t)]
        part: Part,
        /// Create the table and its publication in the configured database
        #[arg(long)]
        apply: bool,
        /// Where the configuration is.
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigFile {
    /// The configuration, in TOML; docs/configuration.md describes every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the values in effect and where each comes from, without secrets
    #[arg(long)]
    pub print_config: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Postrider::command().debug_assert();
    }
}
