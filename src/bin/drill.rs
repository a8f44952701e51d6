//! `drill`: starts real servers, breaks them, and counts what arrived.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a command's own output")]

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use postrider::drill::cluster::fetch::{DEBIAN_PROGRAMS, DebianProgram};
use postrider::drill::cluster::kafka::Installation;
use postrider::drill::cluster::{self, Postgres, PostgresOptions, RunDir, Services};

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
    /// Start one Postgres and wait to be ended, for the test of the clean-up
    #[command(hide = true)]
    Linger { version: u16, how: Linger },
}

/// What a lingering drill does once its server runs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Linger {
    /// Nothing, until somebody ends it.
    Wait,
    /// The same, with the server frozen: it takes no signal but SIGKILL.
    Frozen,
    /// Panics.
    Panic,
    /// Ends as a program should.
    Return,
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
        Command::Linger { version, how } => linger(version, how),
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
    for DebianProgram { program, .. } in DEBIAN_PROGRAMS {
        match services.program(program) {
            Ok(path) => println!("{program}: {}", path.display()),
            Err(error) => println!("{error:#}"),
        }
    }
    Ok(())
}

fn linger(version: u16, how: Linger) -> anyhow::Result<()> {
    let run = RunDir::create()?;
    let server = Postgres::start(&run, PostgresOptions::version(version))?;
    if how == Linger::Frozen {
        server.freeze()?;
    }
    println!("{} {}", server.pid()?, run.path().display());
    match how {
        Linger::Return => return Ok(()),
        Linger::Panic => panic!("as asked"),
        Linger::Wait | Linger::Frozen => {}
    }
    loop {
        std::thread::park();
    }
}
