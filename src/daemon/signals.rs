//! The three signals a daemon answers to, as values; tests send the same values by a channel.

use std::fmt;
use std::io;

use tokio::signal::unix;
use tokio::signal::unix::SignalKind;

/// A signal we act on. All others keep the system's meaning (SIGPIPE is ignored by Rust).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM: finish and end. A second one changes nothing: supervisors repeat it.
    Terminate,
    /// SIGINT: as SIGTERM; while draining, leave at once. A person presses Ctrl-C twice.
    Interrupt,
    /// SIGHUP: read certificates and passwords again.
    Hangup,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Hangup => "SIGHUP",
        })
    }
}

/// Where signals come from: the kernel, or a test.
pub(super) trait SignalSource {
    /// The next signal; pending for ever when none can come. Cancel safety: none is lost.
    async fn next(&mut self) -> Signal;
}

/// The process's own signals, from the moment it is made: none of the three kills us after it.
#[derive(Debug)]
pub(super) struct UnixSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl UnixSignals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }
}

impl SignalSource for UnixSignals {
    async fn next(&mut self) -> Signal {
        // `recv` gives `None` only when the runtime is gone, and then this is not polled.
        tokio::select! {
            biased;
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.hangup.recv() => Signal::Hangup,
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
impl SignalSource for tokio::sync::mpsc::Receiver<Signal> {
    async fn next(&mut self) -> Signal {
        match self.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}
