//! Nothing outlives a drill, however it ends: `drill linger` starts a Postgres, is ended in each
//! way there is, and leaves no process, no folder and no shared memory.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use postrider::drill::cluster::{RunDir, wait_until};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::harness::blocking;

const DEADLINE: Duration = Duration::from_secs(30);

/// A drill with a running server.
struct Lingering {
    drill: Child,
    postmaster: i32,
    folder: PathBuf,
}

impl Lingering {
    fn start(how: &str) -> Self {
        // A test that runs as a background job of a script has inherited an ignored Ctrl-C.
        let mut drill = Command::new("env")
            .args(["--default-signal=INT", env!("CARGO_BIN_EXE_drill"), "linger", "17", how])
            // Held open by us, so that it does not outlive a test that is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(drill.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (pid, folder) = line.trim().split_once(' ').expect("it says what it started");
        let (postmaster, folder) = (pid.parse().unwrap(), PathBuf::from(folder));
        Self { drill, postmaster, folder }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.drill)
    }

    /// The fault must find a whole server: a postmaster and its helpers, and their segment.
    fn assert_at_work(&self) {
        assert!(RunDir::processes_in(&self.folder).len() > 4, "the server is not whole");
        assert!(has_segment(self.postmaster), "the server has no shared memory to leave behind");
    }

    fn assert_nothing_left(mut self) -> ExitStatus {
        let status =
            wait_until(DEADLINE, "the end of the drill", || Ok(self.drill.try_wait()?)).unwrap();
        wait_until(DEADLINE, "nothing to be left", || {
            let gone = RunDir::processes_in(&self.folder).is_empty()
                && !self.folder.exists()
                && !has_segment(self.postmaster);
            Ok(gone.then_some(()))
        })
        .unwrap();
        status
    }
}

/// Whether a System V segment exists that this process made.
fn has_segment(creator: i32) -> bool {
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    segments.lines().any(|line| line.split_whitespace().nth(4) == Some(&creator.to_string()))
}

#[tokio::test]
async fn kill_9_leaves_nothing() {
    blocking(|| {
        let lingering = Lingering::start("wait");
        lingering.assert_at_work();
        kill_process(lingering.pid(), Signal::KILL).unwrap();
        assert_eq!(lingering.assert_nothing_left().signal(), Some(9));
    })
    .await;
}

#[tokio::test]
async fn kill_9_with_a_frozen_server_leaves_nothing() {
    blocking(|| {
        let lingering = Lingering::start("frozen");
        lingering.assert_at_work();
        kill_process(lingering.pid(), Signal::KILL).unwrap();
        assert_eq!(lingering.assert_nothing_left().signal(), Some(9));
    })
    .await;
}

#[tokio::test]
async fn ctrl_c_leaves_nothing() {
    blocking(|| {
        let lingering = Lingering::start("wait");
        lingering.assert_at_work();
        // A terminal sends it to the whole group; warden and servers are in groups of their own.
        kill_process_group(lingering.pid(), Signal::INT).unwrap();
        assert_eq!(lingering.assert_nothing_left().signal(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn a_panic_leaves_nothing() {
    blocking(|| {
        let status = Lingering::start("panic").assert_nothing_left();
        assert_eq!(status.code(), Some(101));
    })
    .await;
}

#[tokio::test]
async fn a_plain_end_leaves_nothing() {
    blocking(|| {
        let status = Lingering::start("return").assert_nothing_left();
        assert_eq!(status.code(), Some(0));
    })
    .await;
}
