//! The shipped programs as processes: started, asked over HTTP, signalled, and judged by their exit.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::wait_until;

/// Everything here takes milliseconds on a quiet machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A command line of `postrider`, without this process's own settings.
pub(crate) fn postrider(arguments: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_postrider"), arguments)
}

/// A command line of `drill`, likewise.
pub(crate) fn drill(arguments: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_drill"), arguments);
    command.env_remove("DEMO_SECONDS");
    command
}

fn program(path: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("POSTRIDER_") || name.starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
}

/// What a finished command said.
pub(crate) fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A running `postrider run`; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Where its admin endpoints are.
    pub(crate) admin: String,
}

impl Daemon {
    /// Starts it on a port that the system chooses, and waits until its endpoints are bound.
    pub(crate) async fn start(mut command: Command) -> Self {
        command.arg("--admin.listen=127.0.0.1:0").stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        // Ends with the process, whose pipe it reads.
        std::thread::spawn(move || {
            lines.for_each(|line| written.lock().unwrap().push(line.unwrap()));
        });
        let mut daemon = Self { child, log, admin: String::new() };
        let line = daemon.logged("admin endpoints on http://").await;
        let address = line.split("http://").nth(1).unwrap().split(": ").next().unwrap();
        daemon.admin = address.to_owned();
        daemon
    }

    /// The first log line that contains `words`, now or later.
    pub(crate) async fn logged(&self, words: &str) -> String {
        wait_until(DEADLINE, &format!("{words:?} in the log"), async || {
            self.log.lock().unwrap().iter().find(|line| line.contains(words)).cloned()
        })
        .await
    }

    /// All it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_until(DEADLINE, "the end of postrider", async || child.try_wait().unwrap()).await
    }

    /// Status and body of one answer.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until `/ready` answers with this status and a body that contains `words`.
    pub(crate) async fn ready_says(&self, status: u16, words: &str) {
        wait_until(DEADLINE, &format!("{status} and {words:?} from /ready"), async || {
            let (found, body) = self.get("/ready");
            (found == status && body.contains(words)).then_some(())
        })
        .await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, as a test wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A folder for a test's files.
pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    (folder, path)
}
