//! The life of every long-running role: one order of starting and stopping, in one place.
//!
//! [`run`] starts the log, builds the role, binds the admin endpoints, starts all tasks, tells
//! systemd, and then waits: for signals, for a task that ends, for a panic. At the end it drains
//! within [`DaemonConfig::drain_timeout`], says by name what was and was not finished, and returns
//! the exit code. The configuration has been read and checked before; when it is bad nothing of
//! this happens ([`Exit::Usage`]).
//!
//! A role is an async function that fills an [`Assembly`]: it makes clients, and adds tasks,
//! readiness conditions and reloads. Nothing it adds runs before everything is built and bound.
//!
//! Guarantee: nothing is bound or started unless the whole role could be built; no task outlives
//! the process's orderly end unnoticed; a panic on any thread ends the process with exit 1.
//! Bounded by: `drain_timeout` for the drain, then [`ENDPOINTS_GRACE`], [`ABORT_GRACE`] and [`RUNTIME_GRACE`];
//! ten seconds a reload.
//! Tested by: the unit tests beside this file, with signals and time in the test's hand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Key, Kind, Reader, Section};
use crate::observe::panics::{self, Panic};
use crate::observe::{AdminConfig, LogConfig, Metrics, Readiness, admin, http, log};

mod exit;
mod reload;
mod report;
mod signals;
mod supervise;
mod systemd;
mod tasks;
#[cfg(test)]
mod tests;

pub use exit::{Cause, Exit, Failure, chain};
pub use reload::Reloads;
pub use tasks::{OwnedTask, TaskPanicked, Tasks, spawn_owned};

use report::verdict;
use signals::{Signal, SignalSource, UnixSignals};
use supervise::{Reloading, Supervisor};
use systemd::Systemd;

/// A scrape that is being answered while we stop may end; nothing else uses the endpoints.
const ENDPOINTS_GRACE: Duration = Duration::from_secs(1);

/// A dropped task goes at its next wait; one that computes without a wait is left to the runtime.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Blocking calls (name resolution, files) cannot be stopped; waiting for them has an end.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// How a process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// How long work may take to finish what it has begun.
    pub drain_timeout: Duration,
}

impl Default for DaemonConfig {
    /// Docker kills ten seconds after it asked; a drain that ends before can still say what it
    /// did not finish.
    fn default() -> Self {
        Self { drain_timeout: Duration::from_secs(8) }
    }
}

/// Longer, and an operator who waits for a stop would rather kill.
const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);

impl Section for DaemonConfig {
    const KEYS: &'static [Key] = &[Key {
        path: "daemon.drain_timeout",
        kind: Kind::Duration,
        default: Some("8s"),
        help: "How long work may take to finish what it has begun after SIGTERM. Keep it below \
               what your supervisor waits before it kills (Docker 10 s, Kubernetes 30 s).",
    }];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let drain_timeout =
            raw.duration("daemon.drain_timeout", Duration::ZERO..=DRAIN_TIMEOUT_MAX)?;
        Some(Self { drain_timeout })
    }
}

/// The parts of a configuration that every role has, as one section: `(ProcessConfig, ...)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessConfig {
    /// The log.
    pub log: LogConfig,
    /// The admin endpoints.
    pub admin: AdminConfig,
    /// The life of the process.
    pub daemon: DaemonConfig,
}

impl Section for ProcessConfig {
    const KEYS: &'static [Key] =
        &[LogConfig::KEYS[0], LogConfig::KEYS[1], AdminConfig::KEYS[0], DaemonConfig::KEYS[0]];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let (log, admin) = (LogConfig::read(raw), AdminConfig::read(raw));
        let daemon = DaemonConfig::read(raw);
        Some(Self { log: log?, admin: admin?, daemon: daemon? })
    }
}

/// What a role is built into: everything it wants to run, and the handles it may write to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Assembly {
    /// The role's tasks.
    pub tasks: Tasks,
    /// What SIGHUP reads again.
    pub reloads: Reloads,
    /// Where a part of the role says that it is not ready, and why.
    pub readiness: Readiness,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
}

impl Assembly {
    fn new() -> Self {
        let (metrics, readiness) = (Arc::new(Metrics::new()), Readiness::new());
        metrics.watch_readiness(&readiness);
        let (tasks, reloads) = (Tasks::new(), Reloads::default());
        Self { tasks, reloads, readiness, metrics }
    }
}

/// What surrounds a process; a test brings its own.
struct Surroundings<S> {
    signals: S,
    systemd: Systemd,
    panics: watch::Receiver<Option<Panic>>,
}

/// Runs the role `name` from its start to its end. To be the last thing `main` does.
///
/// `build` makes the role; what it waits for must be bounded, though a signal ends it as well. It
/// should not wait for a server to be there: a role that starts before its database is not ready,
/// not dead.
pub fn run<B>(name: &'static str, config: ProcessConfig, build: B) -> ExitCode
where
    B: AsyncFnOnce(&mut Assembly) -> Result<(), Failure>,
{
    let runtime = match prepare(&config) {
        Ok(runtime) => runtime,
        Err(cause) => {
            #[expect(clippy::print_stderr, reason = "there is no log yet to say this in")]
            {
                eprintln!("{name}: failed: {cause} (exit 1)");
            }
            return Exit::Failed.into();
        }
    };
    let whole_life = async {
        let surroundings = match UnixSignals::new() {
            Ok(signals) => {
                let systemd = Systemd::from_environment();
                Surroundings { signals, systemd, panics: panics::follow() }
            }
            Err(error) => return end_before_start(&Failure::restart(error)),
        };
        live(name, &config, surroundings, build).await
    };
    // A panic in `build` or in a reload unwinds this very thread; the hook has logged it.
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(Box::pin(whole_life))));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    let exit = ended.unwrap_or_else(|_| {
        tracing::error!("failed: a panic outside the tasks, logged above (exit 1)");
        Exit::Failed
    });
    exit.into()
}

fn prepare(config: &ProcessConfig) -> Result<tokio::runtime::Runtime, Cause> {
    log::start(&config.log)?;
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// The whole life, without what belongs to the process as such.
async fn live<S, B>(
    name: &'static str,
    config: &ProcessConfig,
    mut surroundings: Surroundings<S>,
    build: B,
) -> Exit
where
    S: SignalSource,
    B: AsyncFnOnce(&mut Assembly) -> Result<(), Failure>,
{
    tracing::info!(pid = std::process::id(), "{name} {} starts", env!("CARGO_PKG_VERSION"));
    let mut assembly = Assembly::new();
    let condition = assembly.readiness.condition("daemon", "starting");
    tokio::select! {
        biased;
        signal = asked_to_stop(&mut surroundings.signals) => {
            tracing::info!("ended: {signal} before the start was complete (exit 0)");
            return Exit::Clean;
        }
        built = build(&mut assembly) => if let Err(failure) = built {
            return end_before_start(&failure);
        }
    }
    let endpoints = match Endpoints::bind(name, config.admin, &mut assembly).await {
        Ok(endpoints) => endpoints,
        Err(error) => return end_before_start(&Failure::restart(error)),
    };
    let Surroundings { signals, systemd, panics } = surroundings;
    let Assembly { mut tasks, reloads, readiness, metrics } = assembly;
    reloads.names().for_each(|what| metrics.expect_reloads(what));
    tasks.support("readiness", tell_readiness(readiness, systemd.clone()));
    if let Some(watchdog) = systemd.watchdog() {
        tasks.support("watchdog", watchdog);
    }
    condition.ready();
    tasks.start();
    let drain_timeout = config.daemon.drain_timeout;
    let reloads = Arc::new(reloads);
    let mut supervisor = Supervisor {
        tasks,
        signals,
        panics,
        reloads,
        metrics,
        systemd,
        drain_timeout,
        condition,
        reloading: Reloading::default(),
    };
    let report = supervisor.run().await;
    endpoints.close().await;
    // Nothing may speak after the last line.
    if timeout(ABORT_GRACE, supervisor.tasks.abort()).await.is_err() {
        tracing::debug!("a task does not come to a point where it could be dropped");
    }
    report.log();
    report.exit()
}

/// SIGTERM or SIGINT while the role is being built. A reload has nothing to do yet.
async fn asked_to_stop(signals: &mut impl SignalSource) -> Signal {
    loop {
        match signals.next().await {
            signal @ (Signal::Terminate | Signal::Interrupt) => return signal,
            Signal::Hangup => tracing::info!("SIGHUP: everything is being read just now"),
        }
    }
}

fn end_before_start(failure: &Failure) -> Exit {
    report::log(verdict(failure, ""));
    failure.exit()
}

/// Says in the log and to systemd whenever readiness changes.
async fn tell_readiness(readiness: Readiness, systemd: Systemd) -> Result<Infallible, Failure> {
    let mut changes = readiness.changes();
    loop {
        let objections = changes.next().await;
        systemd.status(&objections).await;
        if objections.is_empty() {
            tracing::info!("ready");
        } else {
            let reasons: Vec<String> = objections.iter().map(ToString::to_string).collect();
            tracing::info!("not ready: {}", reasons.join("; "));
        }
    }
}

/// The admin endpoints, from bound to closed.
struct Endpoints {
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Endpoints {
    async fn bind(
        name: &'static str,
        config: AdminConfig,
        assembly: &mut Assembly,
    ) -> Result<Self, http::BindError> {
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let Some(address) = config.listen else {
            tracing::info!("admin endpoints are off (admin.listen = \"off\")");
            stopped.cancel();
            return Ok(Self { stop, stopped });
        };
        let listener = http::bind("admin.listen", address).await?;
        // With port 0 only the socket knows.
        say_where(listener.local_addr().unwrap_or(address));
        let routes = admin::routes(name, Arc::clone(&assembly.metrics), assembly.readiness.clone());
        let (told, done) = (stop.clone(), stopped.clone());
        assembly.tasks.support("admin", async move {
            http::serve(listener, routes, told).await;
            done.cancel();
            // Closed, which only happens at our own wish: the process is about to end.
            std::future::pending().await
        });
        Ok(Self { stop, stopped })
    }

    /// Lets a scrape under way end, but does not wait for a slow one.
    async fn close(&self) {
        self.stop.cancel();
        if timeout(ENDPOINTS_GRACE, self.stopped.cancelled()).await.is_err() {
            tracing::debug!("an admin request was cut");
        }
    }
}

fn say_where(address: SocketAddr) {
    tracing::info!("admin endpoints on http://{address}: /live /ready /metrics");
    if !address.ip().is_loopback() {
        tracing::warn!(
            "admin.listen = \"{address}\" can be reached from other machines, and asks nobody who \
             he is: leave it to a trusted network or a firewall"
        );
    }
}
