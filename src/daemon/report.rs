//! How a run ended: what finished, what did not, and the last line.
//!
//! The last line is for whoever is woken by it: the verdict, its cause, and what to do.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Level;

use super::exit::{Exit, Failure};
use super::tasks::Name;
use crate::observe::panics::Panic;

/// What the supervisor saw.
#[derive(Debug)]
pub(super) struct Report {
    drain_timeout: Duration,
    /// What began the drain.
    pub(super) reason: Option<String>,
    pub(super) drain_began: Option<Instant>,
    pub(super) finished: Vec<Name>,
    pub(super) unfinished: Vec<Name>,
    pub(super) failed: Vec<(Name, Failure)>,
    pub(super) panic: Option<Panicked>,
    /// A person did not want to wait for the drain.
    pub(super) left_at_once: bool,
}

/// Whose panic ended the process. Its own line in the log has the place and the backtrace.
#[derive(Debug)]
pub(super) enum Panicked {
    /// A task of the two sets.
    Task {
        /// Which.
        name: Name,
        /// The panic's text.
        text: String,
    },
    /// An owned task, a blocking call, a thread of our own.
    Elsewhere(Panic),
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { name, text } => write!(f, "task `{name}` panicked: {text}"),
            Self::Elsewhere(Panic { thread, place }) => {
                write!(f, "a panic at {place} in thread `{thread}`, logged above")
            }
        }
    }
}

impl Report {
    pub(super) fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            reason: None,
            drain_began: None,
            finished: Vec::new(),
            unfinished: Vec::new(),
            failed: Vec::new(),
            panic: None,
            left_at_once: false,
        }
    }

    /// The code to end with: the gravest of everything that happened.
    pub(super) fn exit(&self) -> Exit {
        let abrupt = self.panic.is_some() || self.left_at_once || !self.unfinished.is_empty();
        let own = if abrupt { Exit::Failed } else { Exit::Clean };
        self.failed.iter().map(|(_, failure)| failure.exit()).fold(own, Exit::max)
    }

    /// What to log, in order; the last line is the verdict.
    pub(super) fn lines(&self) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        if !self.finished.is_empty() {
            lines.push((Level::INFO, format!("finished: {}", self.finished.join(", "))));
        }
        if !self.unfinished.is_empty() {
            let why = if self.panic.is_some() {
                "abandoned after the panic".to_owned()
            } else if self.left_at_once {
                "abandoned at a second SIGINT".to_owned()
            } else {
                format!("not finished within {:?}", self.drain_timeout)
            };
            lines.push((Level::ERROR, format!("{why}: {}", self.unfinished.join(", "))));
        }
        lines.push(self.verdict());
        lines
    }

    fn verdict(&self) -> (Level, String) {
        let exit = self.exit();
        // The first failure of the gravest class: later ones of it are often its consequences.
        let gravest = self.failed.iter().find(|(_, failure)| failure.exit() == exit);
        match (gravest, &self.panic) {
            (Some((name, failure)), _) if exit > Exit::Failed => {
                verdict(failure, &format!("task `{name}`: "))
            }
            (_, Some(panic)) => (Level::ERROR, format!("failed: {panic} (exit {})", exit.code())),
            (Some((name, failure)), None) => verdict(failure, &format!("task `{name}`: ")),
            (None, None) => self.own_verdict(exit),
        }
    }

    fn own_verdict(&self, exit: Exit) -> (Level, String) {
        let reason = self.reason.as_deref().unwrap_or("all work is done");
        let code = exit.code();
        match exit {
            Exit::Clean => {
                let took = self.drain_began.map_or(Duration::ZERO, |began| began.elapsed());
                let ms = took.as_millis();
                (
                    Level::INFO,
                    format!("ended: {reason}; everything finished in {ms} ms (exit {code})"),
                )
            }
            Exit::Failed | Exit::Usage | Exit::Stopped => {
                (Level::ERROR, format!("failed: {reason}; not everything finished (exit {code})"))
            }
        }
    }

    /// Writes the lines to the log.
    pub(super) fn log(&self) {
        for (level, line) in self.lines() {
            log((level, line));
        }
    }
}

/// The last line for a failure: `whose` says what it happened to.
pub(super) fn verdict(failure: &Failure, whose: &str) -> (Level, String) {
    let code = failure.exit().code();
    let line = match failure.exit() {
        Exit::Clean | Exit::Failed => format!("failed: {whose}{failure} (exit {code})"),
        Exit::Usage => format!("bad configuration: {whose}{failure} (exit {code})"),
        Exit::Stopped => {
            let advice = failure.advice().unwrap_or("see the lines above");
            format!("stopped to protect data: {whose}{failure} (exit {code}). What to do: {advice}")
        }
    };
    (Level::ERROR, line)
}

/// Logs one line at a level that is only known now.
pub(super) fn log((level, line): (Level, impl AsRef<str>)) {
    let line = line.as_ref();
    if level == Level::ERROR {
        tracing::error!("{line}");
    } else {
        tracing::info!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(Duration::from_secs(8))
    }

    fn last(report: &Report) -> String {
        report.lines().pop().unwrap().1
    }

    #[test]
    fn an_operators_case_outranks_everything_and_ends_with_what_to_do() {
        let mut report = report();
        report.failed.push(("poll".into(), Failure::restart("connection lost")));
        assert_eq!(report.exit(), Exit::Failed);
        assert_eq!(last(&report), "failed: task `poll`: connection lost (exit 1)");
        report.failed.push(("relay".into(), Failure::configuration("no such table")));
        assert_eq!(report.exit(), Exit::Usage);
        let advice = "run `postrider recover`";
        report.failed.push(("slot".into(), Failure::stop("the slot is gone", advice)));
        report.panic = Some(Panicked::Task { name: "x".into(), text: "bug".to_owned() });
        report.unfinished.push("relay".into());
        assert_eq!(report.exit(), Exit::Stopped);
        assert_eq!(
            last(&report),
            "stopped to protect data: task `slot`: the slot is gone (exit 3). What to do: \
             run `postrider recover`"
        );
    }

    #[test]
    fn what_was_not_finished_is_named_before_the_last_line() {
        let mut report = report();
        report.reason = Some("SIGTERM".to_owned());
        report.finished = vec!["poll".into()];
        assert_eq!(report.exit(), Exit::Clean);
        report.unfinished = vec!["publish".into(), "report".into()];
        let lines: Vec<String> = report.lines().into_iter().map(|(_, line)| line).collect();
        assert_eq!(
            lines,
            [
                "finished: poll",
                "not finished within 8s: publish, report",
                "failed: SIGTERM; not everything finished (exit 1)",
            ]
        );
    }
}
