//! How a process ends: four exit codes and the failures that lead to them.
//!
//! Whoever starts processes (systemd, an orchestrator, the drill) decides by the code alone
//! whether a restart makes sense, so every failure is classified where it is understood. There is
//! no conversion that would pick a class by itself.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The contract with whoever started the process. Ordered: of several reasons the greatest wins,
/// because the one that needs an operator must not hide behind one that a restart would mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0: did what it was asked to, and finished it.
    Clean,
    /// 1: failed; a restart may help.
    Failed,
    /// 2: bad arguments or configuration; a restart will not help.
    Usage,
    /// 3: stopped to protect data; an operator is needed, and the last line says for what.
    Stopped,
}

impl Exit {
    /// The number the process ends with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Stopped => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What a failure was caused by: any error of any module.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A failure that ends the process, with its class. Displays as the chain of its causes.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    cause: Cause,
    advice: Option<String>,
}

impl Failure {
    /// A new start may succeed where this one failed (exit 1).
    pub fn restart(cause: impl Into<Cause>) -> Self {
        Self { exit: Exit::Failed, cause: cause.into(), advice: None }
    }

    /// The configuration is wrong in a way only building shows: a certificate that is no
    /// certificate (exit 2).
    pub fn configuration(cause: impl Into<Cause>) -> Self {
        Self { exit: Exit::Usage, cause: cause.into(), advice: None }
    }

    /// To go on, or to start again, would endanger data (exit 3). `advice` is what the operator
    /// has to do, a sentence without its full stop; it ends the log's last line.
    pub fn stop(cause: impl Into<Cause>, advice: impl Into<String>) -> Self {
        Self { exit: Exit::Stopped, cause: cause.into(), advice: Some(advice.into()) }
    }

    /// The code this failure alone would end the process with.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// What an operator has to do.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain(self.cause.as_ref()).fmt(f)
    }
}

/// `error: its cause: the cause's cause`, for the place where an error is logged or shown.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
