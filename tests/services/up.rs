//! `drill up` as somebody meets it who has just cloned the project: it says what runs where, ends as
//! told, and leaves neither process nor folder behind, however it ends.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

use postrider::drill::cluster::{RunDir, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{blocking, connect};
use crate::shipped::{DEADLINE, drill, said};

/// A demo that says it runs, and what it has said.
struct Demo {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    said: Vec<String>,
    folder: PathBuf,
}

impl Demo {
    /// Starts it and reads on until a line contains `until`.
    fn start(arguments: &[&str], until: &str) -> Self {
        let mut command = drill(&["up"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        while said.last().is_none_or(|line: &String| !line.contains(until)) {
            let line = lines.next().unwrap_or_else(|| panic!("it ended, after {said:#?}"));
            said.push(line.unwrap());
        }
        let mut demo = Self { child, lines, said, folder: PathBuf::new() };
        demo.folder = demo.place("logs, data").into();
        assert!(RunDir::processes_in(&demo.folder).len() > 3, "nothing runs: {:#?}", demo.said);
        demo
    }

    /// Where something is, by the table it prints.
    fn place(&self, what: &str) -> String {
        let of = |line: &String| line.trim().strip_prefix(what).map(str::trim).map(str::to_owned);
        let place = self.said.iter().find_map(of);
        let place = place.unwrap_or_else(|| panic!("no {what} in {:#?}", self.said));
        place.split("  (").next().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and for nothing to be left of it.
    fn ends(mut self) -> (ExitStatus, String) {
        let rest: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        let status = self.child.wait().unwrap();
        wait_until(DEADLINE, "nothing to be left", || {
            let gone = RunDir::processes_in(&self.folder).is_empty() && !self.folder.exists();
            Ok(gone.then_some(()))
        })
        .unwrap();
        (status, rest.join("\n"))
    }
}

#[tokio::test]
async fn up_ends_by_itself_and_leaves_nothing() {
    blocking(|| {
        let demo = Demo::start(&["--seconds", "2"], "ends by itself in 2 s");
        for what in ["postgres", "kafka", "outbox", "postrider"] {
            assert!(!demo.place(what).is_empty());
        }
        let (status, rest) = demo.ends();
        assert_eq!(status.code(), Some(0), "{rest}");
        assert!(rest.contains("the time is over: stopping"), "{rest}");
        assert!(rest.contains("postrider ended with exit status: 0"), "{rest}");
    })
    .await;
}

#[tokio::test]
async fn what_up_says_is_there_and_ctrl_c_ends_it() {
    let demo = blocking(|| Demo::start(&[], "Ctrl-C ends everything")).await;
    let client = connect(&demo.place("postgres")).await.unwrap();
    let rows = client.query_one("select count(*) from outbox", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 0);
    drop(client);
    std::net::TcpStream::connect(demo.place("kafka")).unwrap();
    let (status, rest) = blocking(move || {
        demo.signal(Signal::INT);
        demo.ends()
    })
    .await;
    assert_eq!(status.code(), Some(0), "{rest}");
    assert!(rest.contains("Ctrl-C: stopping"), "{rest}");
}

#[tokio::test]
async fn kill_9_of_up_leaves_nothing() {
    blocking(|| {
        let demo = Demo::start(&[], "Ctrl-C ends everything");
        demo.signal(Signal::KILL);
        assert_eq!(demo.ends().0.signal(), Some(9));
    })
    .await;
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
        let (found, out, errors) = said(&drill(arguments).output().unwrap());
        assert_eq!(found, Some(code), "{arguments:?}: {out}{errors}");
        assert!((out.clone() + &errors).contains(words), "{arguments:?}: {out}{errors}");
        assert!(!errors.contains("hunter2") && !out.contains("hunter2"), "{out}{errors}");
    }
}
