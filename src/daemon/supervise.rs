//! The life between "started" and "ended": signals, ends of tasks, reloads, the drain.
//!
//! ```text
//!            all work finished ─────────────────────────────────▶ ended
//!  running ─ SIGTERM, SIGINT, a task failed ─▶ draining ─ all work finished, drain_timeout,
//!     │ ▲                                         │        SIGINT ─▶ ended
//!     └─┘ SIGHUP: reload                          └ a panic, in either state ─▶ ended
//! ```
//!
//! A failed task drains the others: they are sound, and what they finish need not be repeated. A
//! panic does not: it is a bug, after which nothing in memory can be trusted, least of all a
//! commit. Both are safe, since nothing that matters is kept in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::reload::Reloads;
use super::report::{Panicked, Report};
use super::signals::{Signal, SignalSource};
use super::systemd::Systemd;
use super::tasks::{Ended, Tasks};
use crate::observe::panics::Panic;
use crate::observe::{Condition, Metrics};

/// How long a panic that the hook announced may take to reach us as the end of a task, with the
/// task's name. Unwinding is quick; a panic outside a task never arrives.
const PANIC_NAME_WAIT: Duration = Duration::from_millis(250);

/// Beyond the drain, until systemd may lose patience: stopping the endpoints and the runtime.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Everything the supervisor listens to and speaks with.
pub(super) struct Supervisor<S> {
    pub(super) tasks: Tasks,
    pub(super) signals: S,
    pub(super) panics: watch::Receiver<Option<Panic>>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) systemd: Systemd,
    pub(super) drain_timeout: Duration,
    /// Objects from the beginning of the drain on.
    pub(super) condition: Condition,
    pub(super) reloading: Reloading,
}

/// Where we are; see the diagram above.
#[derive(Clone, Copy)]
enum Phase {
    Running,
    Draining { until: Instant },
}

/// A reload under way, and whether SIGHUP came again meanwhile: files may have changed since.
#[derive(Default)]
pub(super) struct Reloading {
    current: Option<Pin<Box<dyn Future<Output = ()>>>>,
    again: bool,
}

impl<S: SignalSource> Supervisor<S> {
    /// Runs until the process should end, and says how.
    pub(super) async fn run(&mut self) -> Report {
        let mut report = Report::new(self.drain_timeout);
        let mut phase = Phase::Running;
        self.systemd.started().await;
        loop {
            if report.panic.is_some() || self.tasks.unfinished().is_empty() {
                break;
            }
            // Biased: what has already happened to a task comes before what is asked of us, so
            // that the report blames a failure and not the signal that followed it.
            tokio::select! {
                biased;
                ended = self.tasks.next() => {
                    phase = self.task_ended(ended, phase, &mut report).await;
                }
                () = announced(&mut self.panics) => self.name_the_panic(&mut report).await,
                signal = self.signals.next() => match (signal, phase) {
                    (Signal::Hangup, Phase::Running) => self.reload().await,
                    (Signal::Hangup, Phase::Draining { .. }) => {
                        tracing::info!("SIGHUP: nothing is reloaded while stopping");
                    }
                    (Signal::Terminate | Signal::Interrupt, Phase::Running) => {
                        phase = self.drain(&signal.to_string(), &mut report).await;
                    }
                    (Signal::Terminate, Phase::Draining { until }) => {
                        let left = until.saturating_duration_since(Instant::now());
                        tracing::info!("SIGTERM again: still draining, for at most {left:.1?}");
                    }
                    (Signal::Interrupt, Phase::Draining { .. }) => {
                        report.left_at_once = true;
                        break;
                    }
                },
                () = deadline(phase) => break,
                () = finished(&mut self.reloading.current) => {
                    self.systemd.reloaded().await;
                    if std::mem::take(&mut self.reloading).again {
                        self.reload().await;
                    }
                }
            }
        }
        report.unfinished = self.tasks.unfinished();
        report
    }

    async fn task_ended(&mut self, ended: Ended, phase: Phase, report: &mut Report) -> Phase {
        match ended {
            Ended::Finished(name) => {
                tracing::info!("task `{name}` has finished");
                report.finished.push(name);
                phase
            }
            Ended::Failed(name, failure) => {
                tracing::error!("task `{name}` failed: {failure}");
                let reason = format!("task `{name}` failed");
                report.failed.push((name, failure));
                match phase {
                    Phase::Running => self.drain(&reason, report).await,
                    Phase::Draining { .. } => phase,
                }
            }
            Ended::Panicked(name, text) => {
                report.panic = Some(Panicked::Task { name, text });
                phase
            }
        }
    }

    /// A panic was logged somewhere: if it was a task's, its end tells which.
    async fn name_the_panic(&mut self, report: &mut Report) {
        let announced = self.panics.borrow().clone();
        let by_task = timeout(PANIC_NAME_WAIT, async {
            loop {
                match self.tasks.next().await {
                    Ended::Panicked(name, text) => return Panicked::Task { name, text },
                    Ended::Finished(name) => report.finished.push(name),
                    Ended::Failed(name, failure) => report.failed.push((name, failure)),
                }
            }
        });
        report.panic = by_task.await.ok().or(announced.map(Panicked::Elsewhere));
    }

    async fn drain(&mut self, reason: &str, report: &mut Report) -> Phase {
        let within = self.drain_timeout;
        tracing::info!("stopping ({reason}): work has {within:?} to finish");
        report.reason = Some(reason.to_owned());
        report.drain_began = Some(Instant::now());
        // Nothing new is needed any more, and no READY=1 may follow STOPPING=1.
        self.reloading = Reloading::default();
        self.condition.not_ready(format!("stopping ({reason})"));
        self.systemd.stopping(within + STOP_MARGIN).await;
        self.tasks.stop();
        Phase::Draining { until: Instant::now() + within }
    }

    async fn reload(&mut self) {
        if self.reloading.current.is_some() {
            self.reloading.again = true;
            return;
        }
        self.systemd.reloading().await;
        let run = Arc::clone(&self.reloads).run(Arc::clone(&self.metrics));
        self.reloading.current = Some(Box::pin(run));
    }
}

/// The end of the drain; never while running.
async fn deadline(phase: Phase) {
    match phase {
        Phase::Running => std::future::pending().await,
        Phase::Draining { until } => sleep_until(until).await,
    }
}

/// The end of the reload, if there is one.
async fn finished(reload: &mut Option<Pin<Box<dyn Future<Output = ()>>>>) {
    match reload {
        Some(reload) => reload.await,
        None => std::future::pending().await,
    }
}

/// The first panic of the process.
async fn announced(panics: &mut watch::Receiver<Option<Panic>>) {
    if panics.wait_for(Option::is_some).await.is_err() {
        // Only a test drops the sender.
        std::future::pending::<()>().await;
    }
}
