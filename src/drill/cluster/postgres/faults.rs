//! What can be done to a running server: stopped, killed, frozen, and brought back.
//!
//! Promises that each returns when the fact is there: no process left after a kill, none moving
//! after a freeze.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::super::process::process_state;
use super::super::{RunDir, wait_until};
use super::{Postgres, change};

/// A fast stop writes a checkpoint. One that waits for a walsender never ends: that is a fact to
/// be reported, not to be waited for.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How to stop, as `pg_ctl stop -m` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Waits for every client to leave.
    Smart,
    /// Ends sessions, waits for walsenders to have sent everything, and writes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers.
    Immediate,
}

impl Postgres {
    /// Stops it and waits for the end.
    pub fn stop(&self, how: Shutdown) -> Result<()> {
        self.request_stop(how)?;
        self.wait_stopped(STOP_DEADLINE)
    }

    /// Asks it to stop and returns at once.
    pub fn request_stop(&self, how: Shutdown) -> Result<()> {
        let signal = match how {
            Shutdown::Smart => Signal::TERM,
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        self.process()?.signal(signal)
    }

    /// Waits for the end of a stop that was asked for.
    pub fn wait_stopped(&self, deadline: Duration) -> Result<()> {
        self.process()?.wait_exit(deadline)?;
        self.state().process = None;
        Ok(())
    }

    /// `kill -9` of the postmaster and of every process of the server, and waits until none is left.
    pub fn kill(&self) -> Result<()> {
        let process = self.state().process.take();
        if let Some(process) = process {
            process.kill()?;
        }
        // Its children notice within a second or two, unless they are frozen or blocked in a send.
        RunDir::kill_all_in(&self.data())
    }

    /// Starts it again where it was, with settings changed; on the same port.
    pub fn start_again(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut state = self.state();
        if state.process.as_ref().is_some_and(|process| process.running()) {
            bail!("{} runs already: stop or kill it first", self.name);
        }
        change(&mut state.settings, settings);
        self.boot(&mut state)
    }

    /// Changes settings that need no restart.
    pub fn reload(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut state = self.state();
        change(&mut state.settings, settings);
        self.write_settings(&state.settings)?;
        drop(state);
        self.process()?.signal(Signal::HUP)
    }

    /// SIGSTOP for the postmaster and every process of the server. Connections stay open and
    /// nothing answers, as on a machine that hangs.
    pub fn freeze(&self) -> Result<()> {
        self.process()?.freeze()?;
        // The postmaster forks nothing any more, so this ends.
        let data = self.data();
        wait_until(STOP_DEADLINE, &format!("all of {} to freeze", self.name), || {
            let moving: Vec<i32> = RunDir::processes_in(&data)
                .into_iter()
                .filter(|pid| process_state(*pid).is_some_and(|state| state != 'T'))
                .collect();
            for pid in &moving {
                signal_one(*pid, Signal::STOP);
            }
            Ok(moving.is_empty().then_some(()))
        })
    }

    /// SIGCONT for all of it.
    pub fn thaw(&self) -> Result<()> {
        for pid in RunDir::processes_in(&self.data()) {
            signal_one(pid, Signal::CONT);
        }
        self.process()?.thaw()
    }

    /// SIGSTOP for one process of the server, such as a walsender or the checkpointer, and waits
    /// until it is stopped.
    pub fn freeze_one(&self, pid: i32) -> Result<()> {
        self.own(pid)?;
        signal_one(pid, Signal::STOP);
        wait_until(STOP_DEADLINE, &format!("process {pid} to freeze"), || {
            Ok((process_state(pid) == Some('T')).then_some(()))
        })
    }

    /// SIGCONT for one process of the server.
    pub fn thaw_one(&self, pid: i32) -> Result<()> {
        self.own(pid)?;
        signal_one(pid, Signal::CONT);
        Ok(())
    }

    fn own(&self, pid: i32) -> Result<()> {
        ensure!(
            RunDir::processes_in(&self.data()).contains(&pid),
            "process {pid} is none of {}",
            self.name
        );
        Ok(())
    }
}

/// A signal for a process of the server that was found a moment ago; gone is fine.
fn signal_one(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, signal).ok();
    }
}
