//! `drill up`: the demo. Everything that a first look needs, started, named, and taken away again.
//!
//! It runs the shipped `postrider` as a process, as an operator would, and nothing else of ours.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::cluster::{
    Kafka, KafkaOptions, Launch, Postgres, PostgresOptions, Process, RunDir, free_port,
};

/// The version most teams run when this was written.
const POSTGRES: u16 = 17;

/// From starting the relay until its `/ready` says yes; it takes a fraction of a second.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// One answer of the admin endpoints, which are on loopback and hold nothing back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts the demo, shows what runs where, and holds it for `length`, or until Ctrl-C.
///
/// # Errors
///
/// Something could not be started; nothing is left running.
pub fn up(length: Option<Duration>, say: &dyn Fn(&str)) -> Result<()> {
    let began = Instant::now();
    let run = RunDir::create()?;
    say("starting postgres and kafka");
    let (postgres, kafka) = servers(&run)?;
    postgres.create_database("demo")?;
    let url = postgres.url("demo");
    let program = beside_us("postrider")?;
    say("creating the outbox table");
    let made = output(Command::new(&program).args(["init", "--apply"]).env(URL_VARIABLE, &url))?;
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    say("starting postrider");
    let relay = relay(&run, &program, &url, admin)?;

    say(&format!("\neverything runs, after {:.1} s:\n", began.elapsed().as_secs_f64()));
    let rows = [
        ("postgres", format!("{url}  (version {POSTGRES}, pid {})", postgres.pid()?)),
        ("kafka", format!("{}  (version {})", kafka.bootstrap(), kafka.version())),
        ("outbox", format!("table public.outbox, publication postrider: {}", made.trim())),
        (
            "postrider",
            format!(
                "http://{admin}/  (pid {}: it watches, and publishes nothing yet)",
                relay.pid()
            ),
        ),
        ("logs, data", run.path().display().to_string()),
    ];
    for (what, place) in rows {
        say(&format!("  {what:<11} {place}"));
    }
    say(&format!(
        "\ntry, in another terminal:\n\n  psql {url} -c '\\d outbox'\n  curl http://{admin}/ready\n"
    ));
    say(&match length {
        Some(length) => format!("this ends by itself in {} s, or with Ctrl-C", length.as_secs()),
        None => "Ctrl-C ends everything and leaves nothing behind".to_owned(),
    });
    let ended = hold(length, &relay)?;
    say(&format!("\n{ended}: stopping"));
    relay.signal(rustix::process::Signal::TERM)?;
    let status = relay.wait_exit(READY_DEADLINE)?;
    drop((postgres, kafka));
    say(&format!("postrider ended with {status}; the servers and their data are gone"));
    Ok(())
}

const URL_VARIABLE: &str = "POSTRIDER__POSTGRES__URL";

/// Both at once: Kafka takes longer, and neither needs the other.
fn servers(run: &Arc<RunDir>) -> Result<(Postgres, Kafka)> {
    std::thread::scope(|scope| {
        let kafka = scope.spawn(|| Kafka::start(run, KafkaOptions::default()));
        let postgres = Postgres::start(run, PostgresOptions::version(POSTGRES))?;
        let kafka = kafka.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((postgres, kafka))
    })
}

/// The binary that was built together with this one.
fn beside_us(name: &str) -> Result<PathBuf> {
    let us = std::env::current_exe().context("find this program")?;
    let program = us.with_file_name(name);
    if !program.exists() {
        bail!("{} is missing: build it with `cargo build --bins`", program.display());
    }
    Ok(program)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn relay(run: &Arc<RunDir>, program: &Path, url: &str, admin: SocketAddr) -> Result<Process> {
    let folder = run.server_folder("postrider")?;
    // The servers' account may not be able to enter the folder that we were built in.
    let copy = folder.join("postrider");
    fs::copy(program, &copy).context("copy postrider into the run directory")?;
    let launch = Launch {
        name: "postrider".to_owned(),
        program: copy,
        arguments: vec!["run".into(), format!("--admin.listen={admin}").into()],
        environment: vec![(URL_VARIABLE.into(), url.into())],
        log: folder.join("log"),
        folder,
    };
    let relay = Process::spawn(run, launch)?;
    relay.wait_until(READY_DEADLINE, "a 200 from postrider's /ready", || {
        Ok(ready(admin).then_some(()))
    })?;
    Ok(relay)
}

fn ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&admin, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Waits for the end: the time, a signal, or the relay's death, which is an error.
fn hold(length: Option<Duration>, relay: &Process) -> Result<&'static str> {
    /// How often to see whether the relay still runs.
    const GLANCE: Duration = Duration::from_millis(500);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut glance = tokio::time::interval(GLANCE);
        let end = async {
            match length {
                Some(length) => tokio::time::sleep(length).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok("the time is over"),
                _ = interrupt.recv() => return Ok("Ctrl-C"),
                _ = terminate.recv() => return Ok("SIGTERM"),
                _ = glance.tick() => if !relay.running() {
                    bail!("postrider ended by itself; the end of its log:\n{}", relay.log_tail());
                },
            }
        }
    })
}
