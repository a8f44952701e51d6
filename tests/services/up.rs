//! The demo as a newcomer starts and ends it: nothing of it stays.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use postrider::drill::cluster::RunDir;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{blocking, wait_until};
use crate::shipped::{DEADLINE, said};

/// A demo that runs, and where it keeps its things.
struct Demo {
    child: Child,
    run: PathBuf,
}

impl Demo {
    async fn start(seconds: &'static str) -> Self {
        blocking(move || {
            let mut child = Command::new(env!("CARGO_BIN_EXE_drill"))
                .args(["up", "--seconds", seconds])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // The lines end with the process; what it says later is not needed.
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let run = lines.find_map(|line| {
                let line = line.unwrap();
                line.trim().strip_prefix("logs, data").map(|path| PathBuf::from(path.trim()))
            });
            lines.find(|line| line.as_ref().unwrap().contains("Ctrl-C")).unwrap().unwrap();
            // Read on, so that it never writes to a closed pipe.
            std::thread::spawn(move || lines.for_each(drop));
            Self { child, run: run.expect("the demo says where its data is") }
        })
        .await
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end, and for the end of everything that it started.
    async fn leaves_nothing(mut self) -> Option<i32> {
        let child = &mut self.child;
        let ended = wait_until(DEADLINE, "the end of the demo", async || child.try_wait().unwrap());
        let status = ended.await;
        gone(&self.run).await;
        status.code()
    }
}

async fn gone(run: &Path) {
    wait_until(DEADLINE, "the end of all that the demo started", async || {
        (RunDir::processes_in(run).is_empty() && !run.exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_demo_ends_by_itself_on_ctrl_c_and_on_kill_and_leaves_nothing() {
    let by_itself = Demo::start("1").await;
    assert_eq!(by_itself.leaves_nothing().await, Some(0));

    let interrupted = Demo::start("600").await;
    assert!(RunDir::processes_in(&interrupted.run).len() > 2, "nothing runs in its folder");
    interrupted.signal(Signal::INT);
    assert_eq!(interrupted.leaves_nothing().await, Some(0));

    let killed = Demo::start("600").await;
    killed.signal(Signal::KILL);
    assert_eq!(killed.leaves_nothing().await, None);
}

#[tokio::test]
async fn help_of_drill_fits_eighty_columns() {
    for arguments in [
        &["--help"][..],
        &["up", "--help"],
        &["load", "--help"],
        &["check", "--help"],
        &["services", "--help"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_drill")).args(arguments).output().unwrap();
        let (code, out, _) = said(&output);
        assert_eq!(code, Some(0));
        let wide: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:?}");
    }
}

#[tokio::test]
async fn mistakes_end_with_two_and_failures_with_four() {
    let nobody = "postgresql://u:hunter2@127.0.0.1:1/d";
    for (arguments, code, words) in [
        (&["load", "--postgres", nobody, "--rate", "0"][..], 2, "rate is 0"),
        (&["load", "--postgres", nobody, "--workers", "0"], 2, "workers is 0"),
        (&["load", "--postgres", "garbage"], 2, "read the database's URL"),
        (&["load", "--postgres", nobody, "--seconds", "1"], 4, "connect to Postgres"),
        (&["check", "--postgres", nobody, "--kafka", "127.0.0.1:1"], 4, "127.0.0.1, port 1"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_drill")).args(arguments).output().unwrap();
        let (found, out, errors) = said(&output);
        assert_eq!(found, Some(code), "{arguments:?}: {out}{errors}");
        assert!((out.clone() + &errors).contains(words), "{arguments:?}: {out}{errors}");
        assert!(!errors.contains("hunter2") && !out.contains("hunter2"), "{out}{errors}");
    }
}
