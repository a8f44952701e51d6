//! `postrider`: parses, loads the configuration, assembles, and maps the result to an exit code.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a command's own output")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postrider::config::arguments::{self, ArgumentsError, Flags};
use postrider::config::{Loaded, Problems, Settings, Sources, load};
use postrider::daemon::{self, Exit, chain};
use postrider::relay::{self, InitError, Part, RunConfig};

const PREFIX: &str = "POSTRIDER";

/// Relays a Postgres outbox table into Kafka, each committed row exactly once.
///
/// This version lays the ground: `run` watches the outbox and publishes nothing yet.
#[derive(Parser)]
#[command(name = "postrider", version, max_term_width = 80, after_help = arguments::help(PREFIX))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration, in TOML; docs/configuration.md describes every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the values in effect and where each comes from, without secrets
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let parsed = arguments::parse::<Cli>(std::env::args_os());
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(ArgumentsError::Clap(error)) => {
            // Nothing can be said about a standard output that is gone.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
        Err(ArgumentsError::Problems(problems)) => return usage(&problems),
    };
    match arguments.command.command {
        Command::Run(file) => run(file, arguments.flags),
        Command::Init { part, apply, file } => match init(part, apply, file, arguments.flags) {
            Ok(()) => Exit::Clean.into(),
            Err(
                error @ (InitError::Configuration(_)
                | InitError::NotApplicable
                | InitError::OtherName(_)),
            ) => usage(&error),
            Err(error) => {
                eprintln!("postrider: {}", chain(&error));
                Exit::Failed.into()
            }
        },
    }
}

fn run(file: ConfigFile, flags: Flags) -> ExitCode {
    let print = file.print_config;
    let loaded = match settle::<RunConfig>(file.config, flags) {
        Ok(loaded) => loaded,
        Err(problems) => return usage(&problems),
    };
    if print {
        print!("{}", loaded.effective);
        return Exit::Clean.into();
    }
    let (process, postgres, outbox) = loaded.settings;
    daemon::run("postrider", process, async |assembly| relay::build(assembly, &postgres, outbox))
}

fn init(part: Part, apply: bool, file: ConfigFile, flags: Flags) -> Result<(), InitError> {
    if !apply && !file.print_config {
        flags.none_expected()?;
        print!("{}", part.text());
        return Ok(());
    }
    let loaded = settle::<RunConfig>(file.config, flags)?;
    if file.print_config {
        print!("{}", loaded.effective);
        return Ok(());
    }
    let (_, postgres, outbox) = &loaded.settings;
    println!("{}", relay::apply_once(part, postgres, outbox)?);
    Ok(())
}

fn settle<S: Settings>(file: Option<PathBuf>, flags: Flags) -> Result<Loaded<S>, Problems> {
    load(Sources::new(PREFIX).file(file).variables(std::env::vars_os()).flags(flags))
}

fn usage(error: &dyn Error) -> ExitCode {
    eprintln!("postrider: {error}");
    Exit::Usage.into()
}
