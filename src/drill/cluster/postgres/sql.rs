//! The harness's own SQL: a statement, its rows as text, and a deadline.
//!
//! Promises to work wherever it is called, also on a thread that already runs an async runtime:
//! each call has a thread and a runtime of its own. It is for setting servers up and asking them
//! facts, not for load.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// The longest a call may take; a standby's promotion and a large copy are within it.
const DEADLINE: Duration = Duration::from_secs(60);

/// The rows of a statement's last result, as text; NULL is `None`.
pub type Rows = Vec<Vec<Option<String>>>;

/// Connects, hands the client to `work`, and waits for its end.
pub(super) fn with_client<T, F>(config: Config, work: F) -> Result<T>
where
    T: Send,
    F: AsyncFnOnce(&Client) -> Result<T> + Send,
{
    apart(async move || {
        let (client, connection) = config.connect(NoTls).await.context("no connection")?;
        tokio::select! {
            done = work(&client) => done,
            ended = connection => Err(match ended {
                Ok(()) => anyhow::anyhow!("the server closed the connection"),
                Err(error) => error.into(),
            }),
        }
    })
}

/// Runs statements and returns the rows of the last one that has any.
pub(super) async fn rows(client: &Client, statements: &str) -> Result<Rows> {
    let messages = client.simple_query(statements).await.with_context(|| {
        let first: String = statements.chars().take(120).collect();
        format!("this failed: {first}")
    })?;
    let mut rows = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::RowDescription(_) => rows.clear(),
            SimpleQueryMessage::CommandComplete(_) | _ => {}
        }
    }
    Ok(rows)
}

fn apart<T: Send, Fut: Future<Output = Result<T>>>(work: impl FnOnce() -> Fut + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::time::timeout(DEADLINE, work())
                    .await
                    .with_context(|| format!("the server did not answer within {DEADLINE:?}"))?
            })
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
