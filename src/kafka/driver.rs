//! The thread that sends and commits: the life of the transactions, strictly one after the other.
//!
//! ```text
//!            send, commit                    commit: sure
//!    Idle ───────────────▶ Open(producer) ───────────────▶ Idle, the next producer's turn
//!                            │        │
//!                    failure │        │ commit: done, but something had no answer
//!                            ▼        ▼
//!                           Spent (takes nothing more; its producers are dropped)
//! ```
//!
//! REASON 6. The progress is the last record of its transaction. Should an old request be carried
//! out late and commit a part, the progress is not in that part.
//! REASON 7. A transaction is begun only after the commit of the one before has returned. So two are
//! never in doubt at once, and no record overtakes another: a reader passes the records of one only
//! after its marker, which stands before the records of the next.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::chunk::{Chunk, Record};
use super::failure::{Failure, Why};
use super::producer::{Certainty, Producer};
use super::publisher::{Command, Committed};

/// Beyond the transaction's own timeout, how long a commit is repeated. A broker that was killed
/// and came back answered after 20 s, and the commit was good.
const COMMIT_GRACE: Duration = Duration::from_secs(45);

/// What is going on.
#[derive(Debug)]
enum Life {
    /// No transaction is open: an open one without work would make all readers wait.
    Idle,
    /// One is open.
    Open { begun: Instant, records: usize, bytes: usize },
    /// Nothing is sent any more.
    Spent,
}

/// Owns the producers.
pub(super) struct Driver {
    producers: Vec<Producer>,
    transactions: bool,
    timeout: Duration,
    progress: Record,
    life: Life,
    /// Whose turn it is.
    turn: usize,
    spent: Arc<OnceLock<Failure>>,
}

impl Driver {
    pub(super) fn new(
        producers: Vec<Producer>,
        transactions: bool,
        timeout: Duration,
        progress: Record,
        spent: Arc<OnceLock<Failure>>,
    ) -> Self {
        assert!(!producers.is_empty(), "a driver has producers");
        let life = Life::Idle;
        Self { producers, transactions, timeout, progress, life, turn: 0, spent }
    }

    /// Serves commands until the caller has gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            match command {
                Command::Send(chunk, room) => {
                    if let Err(failure) = self.send(&chunk) {
                        self.spend(failure);
                    }
                    drop(room);
                }
                Command::Commit(value, reply) => {
                    let committed = self.commit(value);
                    if let Err(failure) = &committed {
                        self.spend(failure.clone());
                    }
                    if let Ok(Committed { renew: Some(why), .. }) = &committed {
                        self.spend(Failure::restart(Why::Doubt, why.clone()));
                    }
                    // A caller that has gone learns the rest by its next fence.
                    drop(reply.send(committed));
                }
            }
        }
        self.abort();
    }

    fn send(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        let begun = self.begin()?;
        let deadline = begun + self.timeout;
        for (record, headers) in chunk.iter() {
            self.producer().enqueue(record, headers, deadline)?;
        }
        if let Life::Open { records, bytes, .. } = &mut self.life {
            *records += chunk.len();
            *bytes += chunk.bytes();
        }
        // A transaction that has failed already is not filled any further.
        if self.producer().context().deliveries().any_failed() {
            return self.producer().drain(deadline);
        }
        Ok(())
    }

    fn commit(&mut self, value: Bytes) -> Result<Committed, Failure> {
        let begun = self.begin()?;
        let Life::Open { records, bytes, .. } = self.life else {
            return Err(self.failure());
        };
        let deadline = begun + self.timeout;
        let progress = Record { value: Some(value), ..self.progress.clone() };
        if !self.transactions {
            // The progress must not be there before what it speaks of.
            self.producer().drain(deadline)?;
        }
        self.producer().enqueue(&progress, &[], deadline)?;
        self.producer().drain(deadline)?;
        let drained = Instant::now();
        let certainty = if self.transactions {
            self.producer().commit(begun, deadline + COMMIT_GRACE)?
        } else {
            Certainty::Sure
        };
        self.life = Life::Idle;
        self.turn = (self.turn + 1) % self.producers.len();
        let (sending, commit) = (drained - begun, drained.elapsed());
        let renew = match certainty {
            Certainty::Sure => None,
            Certainty::Disturbed(why) => Some(why),
        };
        Ok(Committed { records, bytes, sending, commit, renew })
    }

    /// Opens a transaction unless one is open; answers when it was begun.
    fn begin(&mut self) -> Result<Instant, Failure> {
        match self.life {
            Life::Open { begun, .. } => Ok(begun),
            Life::Spent => Err(self.failure()),
            Life::Idle => {
                if self.transactions {
                    self.producer().begin()?;
                }
                let begun = Instant::now();
                self.life = Life::Open { begun, records: 0, bytes: 0 };
                Ok(begun)
            }
        }
    }

    /// The end, whatever it was: readers are freed, the caller is told, the producers go.
    fn spend(&mut self, failure: Failure) {
        // The first failure tells why; what follows is only refused for it.
        if self.spent.set(failure).is_err() {
            return;
        }
        self.abort();
        self.life = Life::Spent;
        self.producers.clear();
    }

    fn abort(&mut self) {
        if self.transactions && matches!(self.life, Life::Open { .. }) {
            self.producer().abort();
        }
        self.life = Life::Spent;
    }

    fn producer(&self) -> &Producer {
        &self.producers[self.turn]
    }

    fn failure(&self) -> Failure {
        self.spent.get().cloned().unwrap_or_else(|| Failure::thread("publishing"))
    }
}
