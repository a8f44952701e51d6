//! Looking at the outbox again and again, and saying what was found only when it changed.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::route::{Mapping, Mappings};
use crate::backoff::{Backoff, Delays};
use crate::daemon::{Failure, chain};
use crate::observe::{Condition, Readiness};
use crate::outbox::{Defect, inspect};
use crate::postgres::Pool;

/// How long connections in use may take to come back when we leave. Nobody but the look uses one.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// A look is two catalog queries a table. A server that needs longer does not answer, whatever TCP
/// says. Getting the connection has bounds of its own, which grow with the list of servers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Nobody answered, or not in time; the text says why.
    Unreachable(String),
    /// Postgres answers.
    Outbox(Vec<Defect>),
}

/// The watching task.
pub(super) struct Watch {
    pool: Pool,
    mappings: Mappings,
    check_interval: Duration,
    postgres_condition: Condition,
    outbox_condition: Condition,
    retries: Delays,
}

impl Watch {
    pub(super) fn new(
        readiness: &Readiness,
        pool: Pool,
        check_interval: Duration,
        mappings: Mappings,
    ) -> Self {
        let retries = Backoff::try_new(Duration::from_millis(100), Duration::from_secs(5), 0.5)
            .expect("the bounds are in order")
            .delays(fastrand::u64(..));
        Self {
            postgres_condition: readiness.condition("postgres", "not asked yet"),
            outbox_condition: readiness.condition("outbox", "not looked at yet"),
            pool,
            mappings,
            check_interval,
            retries,
        }
    }

    /// Looks until it is told to stop, and then closes the pool.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let mut last = None;
        loop {
            let Some(found) = stop.run_until_cancelled(self.look()).await else { break };
            if last.as_ref() != Some(&found) {
                self.tell(&found);
            }
            let pause = match &found {
                Found::Unreachable(_) => self.retries.next_delay(),
                Found::Outbox(_) => {
                    self.retries.reset();
                    self.check_interval
                }
            };
            last = Some(found);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        let cut = self.pool.close(CLOSE_PATIENCE).await;
        if cut > 0 {
            tracing::warn!(cut, "connections to postgres did not end in time and were cut");
        }
        Ok(())
    }

    async fn look(&self) -> Found {
        let session = match self.pool.get().await {
            Ok(session) => session,
            Err(error) => return Found::Unreachable(chain(&error)),
        };
        let looking = async {
            let mut defects: Vec<Defect> = Vec::new();
            for mapping in self.mappings.all() {
                let columns = mapping.required_columns();
                for defect in inspect(&session, &mapping.table, &columns).await? {
                    // What is wrong with the server is found with each table.
                    if !defects.contains(&defect) {
                        defects.push(defect);
                    }
                }
            }
            Ok::<_, tokio_postgres::Error>(defects)
        };
        match timeout(LOOK_TIMEOUT, looking).await {
            Ok(Ok(defects)) => Found::Outbox(defects),
            Ok(Err(error)) => Found::Unreachable(chain(&error)),
            Err(_) => Found::Unreachable(format!("no answer within {LOOK_TIMEOUT:?}")),
        }
    }

    fn tell(&self, found: &Found) {
        match found {
            Found::Unreachable(reason) => {
                tracing::warn!("postgres cannot be asked: {reason}");
                self.postgres_condition.not_ready(reason.as_str());
                self.outbox_condition.not_ready("unknown while postgres cannot be asked");
            }
            Found::Outbox(defects) => {
                self.postgres_condition.ready();
                let lines: Vec<String> = defects.iter().map(ToString::to_string).collect();
                if lines.is_empty() {
                    for Mapping { table, .. } in self.mappings.all() {
                        tracing::info!(%table, "outbox {table} is fine");
                    }
                    self.outbox_condition.ready();
                } else {
                    lines.iter().for_each(|line| tracing::warn!("outbox: {line}"));
                    self.outbox_condition.not_ready(lines.join("; "));
                }
            }
        }
    }
}
