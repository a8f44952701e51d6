//! `drill`: starts real servers, breaks them, and counts what arrived.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a command's own output")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postrider::drill::cluster::kafka::Installation;
use postrider::drill::cluster::{self, Services};

/// Starts real Postgres and Kafka on loopback, breaks them on purpose, and counts what arrived.
#[derive(Parser)]
#[command(name = "drill", version, max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The servers' binaries: where they are, and fetching what is missing
    #[command(subcommand)]
    Services(ServicesCommand),
}

#[derive(Subcommand)]
enum ServicesCommand {
    /// Fetch what this machine lacks into the services folder
    Fetch,
    /// Show which binaries are used, and why those
    List,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Services(ServicesCommand::Fetch) => cluster::fetch(&|line| eprintln!("{line}")),
        Command::Services(ServicesCommand::List) => list(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> anyhow::Result<()> {
    let services = Services::find()?;
    println!("services folder: {}", services.folder().display());
    for postgres in services.all_postgres() {
        let (version, origin) = (&postgres.version, postgres.origin);
        println!("postgres {version}: {} ({origin})", postgres.bin.display());
    }
    match Installation::find() {
        Ok(Installation { version, jars, origin, warm, java }) => {
            let warm = if warm.is_some() { "" } else { ", without its first start's archive" };
            let java = format!("Java {} at {}", java.version, java.program.display());
            println!("kafka {version}: {} ({origin}{warm}), {java}", jars.display());
        }
        Err(error) => println!("kafka: {error:#}"),
    }
    Ok(())
}
