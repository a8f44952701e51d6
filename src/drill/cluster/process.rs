//! One server process that can be broken on purpose.
//!
//! Promises that a signal only ever reaches the process that was started: it is sent while the
//! child is not reaped, so its pid cannot have passed to another one. A dropped process is killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{RunDir, wait_until};

/// How long the kernel may take to end a process after SIGKILL or to stop it after SIGSTOP. It is
/// milliseconds, unless the disk is so busy that the process sleeps uninterruptibly.
const KERNEL_DEADLINE: Duration = Duration::from_secs(20);
/// How much of a log's end goes into an error message.
const TAIL_LINES: usize = 25;
/// How far from the end the tail is looked for, so that a large log is not read whole.
const TAIL_BYTES: u64 = 16 * 1024;

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What errors call it: `postgres 17`, `kafka broker 1`.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables added to ours.
    pub environment: Vec<(String, String)>,
    /// The working directory. It must lie in the run directory: the warden finds servers by it.
    pub folder: PathBuf,
    /// Where standard output and standard error are appended.
    pub log: PathBuf,
}

/// A child process in a [`RunDir`], in a process group of its own, run by the run's account.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: Pid,
    child: Mutex<Child>,
    // After `child`: the process is gone before the folder may go.
    run: Arc<RunDir>,
}

impl Process {
    /// Starts it. That it started says nothing about its health: wait for a fact next.
    pub fn spawn(run: &Arc<RunDir>, launch: Launch) -> Result<Self> {
        let Launch { name, program, arguments, environment, folder, log } = launch;
        if !folder.starts_with(run.path()) {
            bail!(
                "{name} would work in {}, outside the run directory {}, where no warden finds it",
                folder.display(),
                run.path().display()
            );
        }
        let output =
            File::options().create(true).append(true).open(&log).with_context(|| {
                format!("the log of {name}, {}, cannot be opened", log.display())
            })?;
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .envs(environment)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C goes to our group; when and how servers stop is our decision.
            .process_group(0);
        if let Some(account) = run.account() {
            command.uid(account.uid).gid(account.gid);
        }
        let child = command
            .spawn()
            .with_context(|| format!("{name} did not start: {}", program.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{name} has no usable pid"))?;
        Ok(Self { name, log, pid, child: Mutex::new(child), run: Arc::clone(run) })
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The run directory it works in.
    pub fn run_dir(&self) -> &Arc<RunDir> {
        &self.run
    }

    /// Whether it has not ended; a frozen process runs.
    pub fn running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Sends a signal; an error if the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // While the lock is held nobody reaps the child, so the pid stays its own.
        let mut child = self.child();
        if let Some(status) = child.try_wait()? {
            bail!("{} has ended ({status}) and takes no signal", self.name);
        }
        kill_process(self.pid, signal)
            .with_context(|| format!("{} (pid {}) takes no signal", self.name, self.pid()))
    }

    /// `kill -9`, and waits until it is gone. Fine if it is gone already, or frozen.
    pub fn kill(&self) -> Result<ExitStatus> {
        // The standard library signals only a child that it has not reaped.
        self.child().kill().with_context(|| format!("{} cannot be killed", self.name))?;
        self.wait_exit(KERNEL_DEADLINE)
    }

    /// SIGSTOP, and waits until the kernel has stopped it: all connections stay, nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.wait_state("stop", |state| state == 'T')
    }

    /// SIGCONT, and waits until it is no longer stopped.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.wait_state("continue", |state| state != 'T')
    }

    /// Waits until it ends by itself, or after a signal.
    pub fn wait_exit(&self, deadline: Duration) -> Result<ExitStatus> {
        wait_until(deadline, &format!("{} to end", self.name), || Ok(self.child().try_wait()?))
            .with_context(|| self.log_tail())
    }

    /// Waits for a fact about it, and gives up at once when the process ends. Errors carry the end
    /// of its log.
    pub fn wait_until<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait_until(deadline, &format!("{what} ({})", self.name), || {
            if let Some(status) = self.child().try_wait()? {
                bail!("{} ended ({status}) while we waited for {what}", self.name);
            }
            probe()
        })
        .with_context(|| self.log_tail())
    }

    /// The end of its log, for an error message.
    pub fn log_tail(&self) -> String {
        log_tail(&self.name, &self.log)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        // A panic elsewhere leaves nothing half done in here.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_state(&self, what: &str, expected: impl Fn(char) -> bool) -> Result<()> {
        wait_until(KERNEL_DEADLINE, &format!("{} to {what}", self.name), || {
            let state = process_state(self.pid())
                .with_context(|| format!("{} ended while told to {what}", self.name))?;
            Ok(expected(state).then_some(()))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The run's own drop, or its warden, takes care of what a failure here leaves.
        if self.running() {
            self.kill().ok();
        }
    }
}

/// The state letter of a process from `/proc`: `R`, `S`, `D`, `T` for stopped, `Z` ...
pub(super) fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may hold anything, parentheses too.
    stat.rsplit_once(") ")?.1.chars().next()
}

fn log_tail(name: &str, log: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = match read() {
        Ok(text) => text,
        Err(error) => {
            return format!("the log of {name}, {}, is unreadable: {error}", log.display());
        }
    };
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("the log of {name}, {}, ends:\n    {}", log.display(), tail.join("\n    "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(run: &Arc<RunDir>, script: &str) -> Process {
        let folder = run.server_folder("shell").unwrap();
        let launch = Launch {
            name: "a shell".to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("WORD".to_owned(), "hello".to_owned())],
            log: folder.join("log"),
            folder,
        };
        Process::spawn(run, launch).unwrap()
    }

    #[test]
    fn freezes_thaws_and_dies() {
        let run = RunDir::create().unwrap();
        let process = shell(&run, "exec sleep 600");
        assert!(process.running());
        process.freeze().unwrap();
        assert_eq!(process_state(process.pid()), Some('T'));
        process.thaw().unwrap();
        assert_ne!(process_state(process.pid()), Some('T'));
        process.freeze().unwrap();
        let status = process.kill().unwrap();
        assert!(!status.success() && !process.running());
        let refused = process.signal(Signal::TERM).unwrap_err().to_string();
        assert!(refused.contains("has ended"), "{refused}");
        assert_eq!(process.kill().unwrap(), status, "a second kill finds it dead");
    }

    #[test]
    fn a_wait_ends_with_the_process_and_shows_its_log() {
        let run = RunDir::create().unwrap();
        let process = shell(&run, "echo $WORD; id -u; exit 3");
        let never = || Ok(None::<()>);
        let error = process.wait_until(Duration::from_secs(20), "an answer", never).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("exit status: 3") && text.contains("hello"), "{text}");
        // As root the shell was somebody else.
        assert!(!text.contains("\n    0"), "{text}");
    }

    #[test]
    fn a_folder_outside_the_run_is_refused() {
        let run = RunDir::create().unwrap();
        let launch = Launch {
            name: "stray".to_owned(),
            program: "/bin/true".into(),
            arguments: vec![],
            environment: vec![],
            folder: "/tmp".into(),
            log: run.path().join("log"),
        };
        let refused = Process::spawn(&run, launch).unwrap_err().to_string();
        assert!(refused.contains("outside the run directory"), "{refused}");
    }
}
