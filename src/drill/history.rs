//! The history: what the load knows about each transaction, one JSON object a line.
//!
//! Promises that a line is whole, that lines never interleave, and that a `begin` line has left
//! this process before the COMMIT or ROLLBACK it announces: a load that is killed leaves a
//! `begin` without an `end`, which reads as *unknown*, and never a commit nobody wrote down.
//! It does not survive the machine: lines are handed to the operating system, and synced to disk
//! only by [`Writer::finish`].
//!
//! The format is described in `docs/drill.md`.
//!
//! Guarantee: a row the load may have committed has a line.
//! Bounded by: [`WAITING_LINES_MAX`] lines wait for the disk, then the load waits too.
//! Tested by: this module's tests.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// The version of the format, in the first line; a reader refuses one it does not know.
pub const FORMAT_VERSION: u32 = 1;

/// How many lines may wait for the writer. Each worker has at most one, so this is only reached
/// with more workers than anybody uses; then they wait, which is the right answer to a slow disk.
pub const WAITING_LINES_MAX: usize = 1024;

/// Lines that wait together are written together, up to this many bytes in one system call.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// The first line of a history.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// What the plan was made from.
    pub seed: u64,
    /// Microseconds since 1970, by the clock of the load's machine.
    pub started_at_us: u64,
    /// Every table the load writes to, `schema.table`.
    pub tables: Vec<String>,
    /// [`FORMAT_VERSION`].
    pub version: u32,
}

/// What the load is about to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// COMMIT.
    Commit,
    /// ROLLBACK: none of the rows may ever be seen.
    Rollback,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The server confirmed it.
    Ok,
    /// Certainly not committed.
    Fail,
    /// COMMIT was sent and no answer settles it: the table decides.
    Unknown,
}

/// One row of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The event's id.
    pub id: Uuid,
    /// `schema.table`.
    pub table: String,
    /// The Kafka topic it must arrive in.
    pub topic: String,
    /// The aggregate's id, which is the Kafka key.
    pub key: String,
    /// 1, 2, 3 .. within its key, without gaps among committed rows.
    pub version: i64,
}

/// Written before COMMIT or ROLLBACK is sent.
#[derive(Debug, Clone, Serialize)]
pub struct Begin {
    /// The number of the transaction in the plan.
    pub op: u64,
    /// Which worker ran it.
    pub worker: u32,
    /// Microseconds since 1970.
    pub at_us: u64,
    /// What will be asked for.
    pub intent: Intent,
    /// The rows that stand when it is asked.
    pub rows: Vec<Row>,
    /// Ids of rows undone by ROLLBACK TO SAVEPOINT.
    pub undone: Vec<Uuid>,
}

/// Written after the answer to COMMIT or ROLLBACK, or after giving up on it.
#[derive(Debug, Clone, Serialize)]
pub struct End {
    /// As in [`Begin`].
    pub op: u64,
    /// Microseconds since 1970.
    pub at_us: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, when it is not ok.
    pub error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Run(&'a Run),
    Begin(&'a Begin),
    End(&'a End),
}

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file exists: evidence is not overwritten.
    #[error(
        "history {path} cannot be created: {source}; an existing history is never overwritten, name another file or remove it"
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk is full or gone.
    #[error(
        "history {path} cannot be written: {reason}; the load stops, because what is not written down cannot be judged"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A value has no JSON form. The lines above have one.
    #[error("a history line cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

struct Entry {
    line: Vec<u8>,
    written: oneshot::Sender<()>,
}

/// Hands lines to the writer; cheap to clone, one for each worker.
#[derive(Debug, Clone)]
pub struct History {
    lines: mpsc::Sender<Entry>,
    path: Arc<Path>,
}

/// The thread that owns the file. Drop every [`History`], then call [`finish`](Self::finish).
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<io::Result<u64>>,
    path: Arc<Path>,
}

impl History {
    /// Creates the file with its first line, and the thread that writes to it.
    pub fn create(path: &Path, run: &Run) -> Result<(Self, Writer), HistoryError> {
        let path: Arc<Path> = Arc::from(path);
        let refused = |source| HistoryError::Create { path: path.to_path_buf(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&path).map_err(refused)?;
        file.write_all(&encode(&Line::Run(run))?).map_err(refused)?;
        let (sender, receiver) = mpsc::channel(WAITING_LINES_MAX);
        // A thread and not a task: a write to a slow disk must not hold up a runtime thread, on
        // which the load's own clock depends.
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_lines(file, receiver))
            .map_err(refused)?;
        Ok((Self { lines: sender, path: path.clone() }, Writer { thread, path }))
    }

    /// Returns once the line is with the operating system. Only then may COMMIT be sent.
    pub async fn begin(&self, begin: &Begin) -> Result<(), HistoryError> {
        self.write(&Line::Begin(begin)).await
    }

    /// Returns once the line is with the operating system.
    pub async fn end(&self, end: &End) -> Result<(), HistoryError> {
        self.write(&Line::End(end)).await
    }

    // Cancel safety: a cancelled call has either written the whole line or none of it.
    async fn write(&self, line: &Line<'_>) -> Result<(), HistoryError> {
        let (written, done) = oneshot::channel();
        let entry = Entry { line: encode(line)?, written };
        let gone = || HistoryError::Write {
            path: self.path.to_path_buf(),
            reason: "its writer has stopped".to_owned(),
        };
        self.lines.send(entry).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())
    }
}

impl Writer {
    /// Waits until the last line is on disk; returns how many lines were written after the first.
    ///
    /// Must be called after every [`History`] has been dropped, else it waits for them.
    pub async fn finish(self) -> Result<u64, HistoryError> {
        let failed = |reason: String| HistoryError::Write { path: self.path.to_path_buf(), reason };
        let thread = self.thread;
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(Ok(lines))) => Ok(lines),
            Ok(Ok(Err(error))) => Err(failed(error.to_string())),
            Ok(Err(_)) | Err(_) => Err(failed("its writer panicked".to_owned())),
        }
    }
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn encode(line: &Line<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Ends when all senders are gone. On an error it ends too, and with it every waiting call.
fn write_lines(mut file: File, mut lines: mpsc::Receiver<Entry>) -> io::Result<u64> {
    let mut count = 0;
    let mut bytes = Vec::new();
    let mut waiting = Vec::new();
    while let Some(first) = lines.blocking_recv() {
        let mut next = Some(first);
        while let Some(entry) = next {
            bytes.extend_from_slice(&entry.line);
            waiting.push(entry.written);
            next = if bytes.len() < WRITE_BYTES_MAX { lines.try_recv().ok() } else { None };
        }
        file.write_all(&bytes)?;
        bytes.clear();
        count += waiting.len() as u64;
        for written in waiting.drain(..) {
            // A caller that was cancelled does not need the answer; its line stands all the same.
            written.send(()).ok();
        }
    }
    file.sync_all()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            seed: 7,
            started_at_us: 1,
            tables: vec!["public.outbox".to_owned()],
            version: FORMAT_VERSION,
        }
    }

    fn begin(op: u64) -> Begin {
        Begin {
            op,
            worker: 2,
            at_us: 5,
            intent: Intent::Commit,
            rows: vec![Row {
                id: Uuid::from_u128(1),
                table: "public.outbox".to_owned(),
                topic: "outbox.event.order".to_owned(),
                key: "k1".to_owned(),
                version: 3,
            }],
            undone: vec![Uuid::from_u128(2)],
        }
    }

    #[tokio::test]
    async fn the_format_is_what_the_document_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.ndjson");
        let (history, writer) = History::create(&path, &run()).unwrap();
        history.begin(&begin(17)).await.unwrap();
        // The line has left this process before the call returned: a kill -9 here keeps it.
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        let end = End { op: 17, at_us: 6, outcome: Outcome::Unknown, error: Some("gone".into()) };
        history.end(&end).await.unwrap();
        drop(history);
        assert_eq!(writer.finish().await.unwrap(), 2);
        let expected = concat!(
            r#"{"run":{"seed":7,"started_at_us":1,"tables":["public.outbox"],"version":1}}"#,
            "\n",
            r#"{"begin":{"op":17,"worker":2,"at_us":5,"intent":"commit","rows":[{"id":"00000000-0000-0000-0000-000000000001","table":"public.outbox","topic":"outbox.event.order","key":"k1","version":3}],"undone":["00000000-0000-0000-0000-000000000002"]}}"#,
            "\n",
            r#"{"end":{"op":17,"at_us":6,"outcome":"unknown","error":"gone"}}"#,
            "\n",
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[tokio::test]
    async fn an_existing_history_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.ndjson");
        std::fs::write(&path, "evidence").unwrap();
        let error = History::create(&path, &run()).unwrap_err().to_string();
        assert!(error.contains("never overwritten"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "evidence");
    }

    #[tokio::test]
    async fn lines_of_many_workers_do_not_interleave() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.ndjson");
        let (history, writer) = History::create(&path, &run()).unwrap();
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..16 {
            let history = history.clone();
            workers.spawn(async move {
                for op in 0..50 {
                    history.begin(&begin(worker * 50 + op)).await.unwrap();
                }
            });
        }
        workers.join_all().await;
        drop(history);
        assert_eq!(writer.finish().await.unwrap(), 800);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut ops: Vec<u64> = text
            .lines()
            .skip(1)
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["begin"]["op"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        ops.sort_unstable();
        assert_eq!(ops, (0..800).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_full_disk_stops_the_caller() {
        // Linux has a disk that is always full.
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (sender, receiver) = mpsc::channel(4);
        let thread = std::thread::spawn(move || write_lines(file, receiver));
        let history = History { lines: sender, path: Arc::from(Path::new("/dev/full")) };
        let error = history.begin(&begin(1)).await.unwrap_err().to_string();
        assert!(error.contains("cannot be written"), "{error}");
        let writer = Writer { thread, path: history.path.clone() };
        drop(history);
        let error = writer.finish().await.unwrap_err().to_string();
        assert!(error.contains("No space left"), "{error}");
    }
}
