//! `drill`: parses, dispatches, and maps the result to an exit code.
#![expect(clippy::print_stderr, reason = "a command's own output")]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postrider::drill::check;
use postrider::drill::command::{Command, Drill, Services};
use postrider::drill::{cluster, load, up};
use tokio_util::sync::CancellationToken;

/// The harness itself failed; 1 is kept for what a check found.
const BROKEN: u8 = 4;

/// As clap ends on what it does not understand.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Drill { command } = Drill::parse();
    match run(command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("drill: {error:#}");
            ExitCode::from(BROKEN)
        }
    }
}

fn run(command: Command) -> anyhow::Result<u8> {
    // A reader that is gone, such as `head`, has seen enough.
    let say = |line: &str| {
        writeln!(std::io::stdout(), "{line}").ok();
    };
    match command {
        Command::Services(Services::Fetch) => cluster::fetch(&|line| eprintln!("{line}"))?,
        Command::Services(Services::List) => say(&cluster::listing()?),
        Command::Up { seconds } => up::up(seconds.map(Duration::from_secs), &say)?,
        Command::Load(load) => {
            let options = load.options();
            if let Err(mistake) = options.check() {
                eprintln!("drill: {mistake:#}");
                return Ok(USAGE);
            }
            say(&runtime()?.block_on(until_told(options))?.to_string());
        }
        Command::Check(args) => return Ok(runtime()?.block_on(check::run(args)).exit_code()),
        Command::Linger { version, how } => how.linger(version, &say)?,
    }
    Ok(0)
}

/// A load that Ctrl-C ends in order: what was begun is finished and counted.
async fn until_told(options: load::Options) -> anyhow::Result<load::Summary> {
    let stop = CancellationToken::new();
    let running = load::run(options, stop.clone());
    tokio::pin!(running);
    tokio::select! {
        summary = &mut running => return summary,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    stop.cancel();
    running.await
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
