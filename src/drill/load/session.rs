//! One worker's connection, and one transaction on it.
//!
//! Promises the order that makes a history worth reading: the rows are written, the `begin` line
//! is with the operating system, and only then COMMIT or ROLLBACK is sent. Refuses to reuse a
//! connection after anything went wrong on it: a fresh one costs milliseconds and has no past.
//!
//! Guarantee: COMMIT is sent only when every statement before it has succeeded, so its answer is
//! never that of a transaction that was rolled back; a confirmed one survives the server's crash.
//! Bounded by: [`CONNECT_LIMIT`], and the limit of each [`Job`]; one transaction at a time.
//! Tested by: `tests/services/load.rs`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::ledger::Ledger;
use super::outcome;
use super::plan::{Mix, Payload, PlannedRow, Step, Transaction};
use crate::drill::history::{Begin, End, History, HistoryError, Intent, Outcome, Row, now_us};

/// A server that is frozen, or not there, keeps a connection attempt waiting for this long.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// With `synchronous_commit = off`, a server that crashes loses what it confirmed shortly before, and
/// *ok* would be a lie. Every other level stays as it is configured.
const KEEP_WHAT_IS_CONFIRMED: &str = "select set_config('synchronous_commit', 'on', false)
     where current_setting('synchronous_commit') = 'off'";

/// Locks are taken in the order of the keys, always: two transactions with the same two keys wait
/// for each other instead of deadlocking.
const LOCK: &str =
    "select key, version from drill.aggregate where key = any($1) order by key for update";

/// A connection with its prepared statements.
pub(super) struct Session {
    client: Client,
    lock: Statement,
    inserts: HashMap<usize, Statement>,
    /// Reads and writes the socket; ends with the session.
    _driver: JoinSet<()>,
}

/// What a worker needs to run a transaction and to write it down.
pub(super) struct Job<'a> {
    pub(super) worker: u32,
    pub(super) mix: &'a Mix,
    pub(super) history: &'a History,
    /// From BEGIN to the last row, and again for COMMIT.
    pub(super) limit: Duration,
}

/// What became of a transaction.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) outcome: Outcome,
    pub(super) rows: usize,
    pub(super) undone: usize,
    /// A short name for counting, and the whole text.
    pub(super) error: Option<(String, String)>,
}

/// Opens a connection and the task that drives it.
pub(super) async fn connect(config: &Config) -> anyhow::Result<(Client, JoinSet<()>)> {
    let (client, connection) = timeout(CONNECT_LIMIT, config.connect(NoTls))
        .await
        .with_context(|| format!("no answer within {CONNECT_LIMIT:?}"))??;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Its error reaches the statement that waits for an answer, which is where it counts.
        connection.await.ok();
    });
    timeout(CONNECT_LIMIT, client.batch_execute(KEEP_WHAT_IS_CONFIRMED))
        .await
        .with_context(|| format!("no answer within {CONNECT_LIMIT:?}"))??;
    Ok((client, driver))
}

impl Session {
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let (client, driver) = connect(config).await?;
        let lock = timeout(CONNECT_LIMIT, client.prepare(LOCK))
            .await
            .with_context(|| format!("no answer within {CONNECT_LIMIT:?}"))??;
        Ok(Self { client, lock, inserts: HashMap::new(), _driver: driver })
    }

    /// Runs one transaction and writes it down. The session is good for another one only if the
    /// answer has no error.
    pub(super) async fn run(
        &mut self,
        job: &Job<'_>,
        transaction: &Transaction,
    ) -> Result<Ran, HistoryError> {
        let mut ledger = Ledger::default();
        let written = timeout(job.limit, self.write(job.mix, transaction, &mut ledger)).await;
        let (rows, undone) = ledger.into_rows();
        let counts = (rows.len(), undone.len());
        let begin = Begin {
            op: transaction.op,
            worker: job.worker,
            at_us: now_us(),
            intent: transaction.intent,
            rows,
            undone,
        };
        // If this line cannot be written, COMMIT is not sent: dropping the session rolls back.
        job.history.begin(&begin).await?;
        let (outcome, error) = match written {
            Ok(Ok(())) => self.end(transaction.intent, job.limit).await,
            Ok(Err(error)) => (Outcome::Fail, Some(describe(&error))),
            Err(_) => (Outcome::Fail, Some(too_late("before COMMIT", job.limit))),
        };
        let text = error.as_ref().map(|(_, text)| text.clone());
        let end = End { op: transaction.op, at_us: now_us(), outcome, error: text };
        job.history.end(&end).await?;
        Ok(Ran { outcome, rows: counts.0, undone: counts.1, error })
    }

    /// Everything between BEGIN and the end.
    async fn write(
        &mut self,
        mix: &Mix,
        transaction: &Transaction,
        ledger: &mut Ledger,
    ) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("begin").await?;
        for row in self.client.query(&self.lock, &[&transaction.keys()]).await? {
            ledger.locked(row.get(0), row.get(1));
        }
        for step in &transaction.steps {
            match step {
                Step::Insert(row) => self.insert(mix, row, ledger).await?,
                Step::Savepoint => {
                    let depth = ledger.open();
                    self.client.batch_execute(&format!("savepoint s{depth}")).await?;
                }
                Step::RollbackToSavepoint => {
                    let depth = ledger.undo();
                    // The savepoint itself survives ROLLBACK TO, so it is released as well.
                    let undo =
                        format!("rollback to savepoint s{depth}; release savepoint s{depth}");
                    self.client.batch_execute(&undo).await?;
                }
                Step::ReleaseSavepoint => {
                    let depth = ledger.close();
                    self.client.batch_execute(&format!("release savepoint s{depth}")).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes the key's next version and writes the row, in one statement.
    async fn insert(
        &mut self,
        mix: &Mix,
        row: &PlannedRow,
        ledger: &mut Ledger,
    ) -> Result<(), tokio_postgres::Error> {
        let table = &mix.tables[row.table];
        if !self.inserts.contains_key(&row.table) {
            let sql = insert_sql(&table.name, table.payload);
            self.inserts.insert(row.table, self.client.prepare(&sql).await?);
        }
        let version = ledger
            .next_version(&row.key)
            .expect("setup made a row for every key, and nobody deletes aggregates");
        ledger.insert(Row {
            id: row.id,
            table: table.name.clone(),
            topic: format!("outbox.event.{}", row.aggregatetype),
            key: row.key.clone(),
            version,
        });
        let payload: Box<dyn ToSql + Sync + Send> = match table.payload {
            Payload::Json | Payload::Jsonb | Payload::Text => Box::new(row.payload_text()),
            Payload::Bytea => Box::new(row.payload_binary()),
        };
        let kind = format!("{}.changed", row.aggregatetype);
        let statement = &self.inserts[&row.table];
        let values: [&(dyn ToSql + Sync); 7] =
            [&row.id, &row.aggregatetype, &row.key, &kind, &*payload, &version, &row.traceparent];
        self.client.execute(statement, &values).await?;
        Ok(())
    }

    /// Sends COMMIT or ROLLBACK and judges the answer.
    async fn end(&self, intent: Intent, limit: Duration) -> (Outcome, Option<(String, String)>) {
        // What is known to be closed cannot carry a COMMIT any more, so nothing was sent.
        if self.client.is_closed() {
            let text = "the connection was lost before COMMIT or ROLLBACK was sent";
            return (Outcome::Fail, Some(("connection closed".to_owned(), text.to_owned())));
        }
        let sql = match intent {
            Intent::Commit => "commit",
            Intent::Rollback => "rollback",
        };
        match (timeout(limit, self.client.batch_execute(sql)).await, intent) {
            (Ok(Ok(())), _) => (Outcome::Ok, None),
            // Nobody asked for a commit, so there is none, whatever the answer.
            (Ok(Err(error)), Intent::Rollback) => (Outcome::Fail, Some(describe(&error))),
            (Err(_), Intent::Rollback) => (Outcome::Fail, Some(too_late("to ROLLBACK", limit))),
            (Ok(Err(error)), Intent::Commit) => {
                (outcome::after_commit_was_sent(&error), Some(describe(&error)))
            }
            (Err(_), Intent::Commit) => (Outcome::Unknown, Some(too_late("to COMMIT", limit))),
        }
    }
}

fn insert_sql(table: &str, payload: Payload) -> String {
    let payload = match payload {
        Payload::Json => "$5::text::json",
        Payload::Jsonb => "$5::text::jsonb",
        Payload::Text => "$5::text",
        Payload::Bytea => "$5::bytea",
    };
    format!(
        "with version as (update drill.aggregate set version = $6::bigint where key = $3::text)
         insert into {table} (id, aggregatetype, aggregateid, type, payload, aggregateversion, traceparent)
         values ($1::uuid, $2::text, $3::text, $4::text, {payload}, $6::bigint, $7::text)"
    )
}

fn describe(error: &tokio_postgres::Error) -> (String, String) {
    let text = match error.as_db_error() {
        Some(refusal) => format!("{}: {}", refusal.code().code(), refusal.message()),
        None => error.to_string(),
    };
    (outcome::name_of(error), text)
}

fn too_late(what: &str, limit: Duration) -> (String, String) {
    ("no answer in time".to_owned(), format!("no answer {what} within {limit:?}"))
}
