//! Making a slot without ever leaving one behind that nobody wanted.
//!
//! The server makes a slot only when all transactions that were open at that moment have ended. Until
//! then it is visible, holds the log back, and ignores `statement_timeout`; if we just went away, it
//! would stay for as long as that transaction does, and then for ever. So:
//!
//! 1. `lock_timeout` bounds each wait for a transaction; the server then removes the slot itself.
//! 2. That is per transaction waited for, so our own deadline bounds the sum.
//! 3. At our deadline, or when told to stop, a cancel request goes out on a second connection, again
//!    and again until the first connection answers: only its answer says what became of the slot.
//! 4. If the slot was made just before it could be cancelled, it is dropped.

use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::answer::Rows;
use super::command::{SlotSpec, Snapshot};
use super::connection::Connection;
use super::endpoint::{Encryption, Login};
use super::error::Error;
use super::login::reach_encrypted;
use super::transport::Transport;
use crate::lsn::Lsn;

const CREATE: &str = "create the slot";

/// What `lock_timeout` did: a transaction that was open then is still open.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// What a cancel request did.
const QUERY_CANCELED: &str = "57014";

/// Beyond the server's own timeout, before ours: its answer is the better one.
const GRACE: Duration = Duration::from_secs(1);
/// A cancel request can get lost between two waits of the server, so it is repeated.
const CANCEL_EVERY: Duration = Duration::from_millis(500);
/// A server that does not answer a cancel for this long is not going to.
const CANCEL_FOR: Duration = Duration::from_secs(15);

/// As many cancel requests as can still be on their way.
const CANCEL_HITS_MAX: u32 = 3;

/// A slot that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Its name.
    pub name: String,
    /// Every commit after this comes through the slot, none before.
    pub consistent_point: Lsn,
    /// The name to import the snapshot by, if one was exported.
    pub snapshot: Option<String>,
}

impl Connection {
    /// Makes a slot, or leaves none.
    ///
    /// `stop` ends the waiting early. Dropping this future does not: it leaves the slot to the fate
    /// described above, so hand in `stop` instead.
    ///
    /// Cancel safety: none.
    ///
    /// # Errors
    ///
    /// [`Error::SlotTimeout`] after `within`, [`Error::SlotCancelled`] after `stop`,
    /// [`Error::Server`] for anything else the server says (42710: the slot exists).
    pub async fn create_slot(
        &mut self,
        spec: &SlotSpec,
        within: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<CreatedSlot, Error> {
        self.query(
            "set lock_timeout",
            &format!("set lock_timeout = {}", within.as_millis().max(1)),
        )
        .await?;
        self.send(CREATE, &spec.sql(self.major_version())).await?;
        let outcome = self.await_slot(within, stop).await;
        match outcome {
            (Ended::Early(why), Ok(_made)) => {
                // It was made in the moment in which we cancelled it.
                self.drop_unwanted(&spec.name).await?;
                Err(why.error(spec, within, None))
            }
            (Ended::Early(why), Err(Error::Server { error, .. }))
                if error.code == QUERY_CANCELED =>
            {
                self.reset_lock_timeout().await?;
                Err(why.error(spec, within, Some(error)))
            }
            (_, Err(Error::Server { error, .. })) if error.code == LOCK_NOT_AVAILABLE => {
                self.reset_lock_timeout().await?;
                Err(Error::SlotTimeout { slot: spec.name.clone(), within, error })
            }
            (_, Err(error)) => {
                if !self.busy {
                    self.reset_lock_timeout().await?;
                }
                Err(error)
            }
            (Ended::ByItself, Ok(rows)) => self.created(spec, &rows).await,
        }
    }

    /// A cancel that came late may hit this command instead, which then is tried again.
    async fn drop_unwanted(&mut self, name: &str) -> Result<(), Error> {
        for _ in 0..CANCEL_HITS_MAX {
            match self.drop_slot(name).await {
                Err(error) if error.sqlstate() == Some(QUERY_CANCELED) => {}
                outcome => return outcome,
            }
        }
        self.drop_slot(name).await
    }

    async fn created(&mut self, spec: &SlotSpec, rows: &[Rows]) -> Result<CreatedSlot, Error> {
        let rows = rows.first().cloned().unwrap_or_default();
        let created = CreatedSlot {
            name: self.need(CREATE, &rows, "slot_name")?.to_owned(),
            consistent_point: self.read(CREATE, &rows, "consistent_point")?,
            snapshot: rows.first("snapshot_name").map(str::to_owned),
        };
        // An exported snapshot dies with the next command, so then the setting stays: it is of no
        // harm on the stream, where no lock is waited for but those of catalogs.
        if spec.snapshot == Snapshot::Nothing {
            self.reset_lock_timeout().await?;
        }
        Ok(created)
    }

    async fn reset_lock_timeout(&mut self) -> Result<(), Error> {
        self.query("reset lock_timeout", "reset lock_timeout").await.map(|_| ())
    }

    /// Waits for the answer; asks for it early when it is time.
    async fn await_slot(
        &mut self,
        within: Duration,
        stop: impl Future<Output = ()>,
    ) -> (Ended, Result<Vec<Rows>, Error>) {
        let cancel = Cancel::of(self);
        let mut answer = std::pin::pin!(self.results(CREATE));
        let why = tokio::select! {
            biased;
            // 1. An answer is an answer, however late.
            outcome = &mut answer => return (Ended::ByItself, outcome),
            // 2. Told to stop.
            () = stop => Why::Stopped,
            // 3. The server's own timeout runs for each transaction; ours for all of them.
            () = tokio::time::sleep(within.saturating_add(GRACE)) => Why::Late,
        };
        let deadline = Instant::now() + CANCEL_FOR;
        while Instant::now() < deadline {
            // A failed request is not the end: the next one may get through, and the answer counts.
            let _sent = cancel.request().await;
            let next = tokio::time::timeout(CANCEL_EVERY, &mut answer).await;
            if let Ok(outcome) = next {
                return (Ended::Early(why), outcome);
            }
        }
        (
            Ended::Early(why),
            Err(Error::Timeout { doing: "cancel the slot's creation", after: CANCEL_FOR }),
        )
    }
}

/// How the waiting ended.
enum Ended {
    ByItself,
    Early(Why),
}

enum Why {
    Stopped,
    Late,
}

impl Why {
    fn error(
        &self,
        spec: &SlotSpec,
        within: Duration,
        error: Option<Box<super::answer::ServerError>>,
    ) -> Error {
        let slot = spec.name.clone();
        match self {
            Self::Stopped => Error::SlotCancelled { slot },
            Self::Late => Error::SlotTimeout { slot, within, error: error.unwrap_or_default() },
        }
    }
}

/// A request to cancel what a connection is doing: a connection of its own, with nothing but the
/// other's pid and secret on it.
struct Cancel {
    login: Login,
    /// As the connection itself: the secret is worth as much.
    config: Option<std::sync::Arc<rustls::ClientConfig>>,
    pid: i32,
    secret: i32,
}

impl Cancel {
    fn of(connection: &Connection) -> Self {
        let (pid, secret) = connection.cancel_key();
        let config = match &connection.login.encryption {
            Encryption::Allow(config)
            | Encryption::Prefer(config)
            | Encryption::Require(config) => connection.encrypted().then(|| config.clone()),
            Encryption::Disable => None,
        };
        Self { login: connection.login.clone(), config, pid, secret }
    }

    /// Sends it and waits until the server has taken it, which it says by closing.
    async fn request(&self) -> Result<(), Error> {
        let send = async {
            let mut transport = match &self.config {
                Some(config) => reach_encrypted(&self.login, config).await?,
                None => Transport::connect(&self.login.endpoint).await?,
            };
            let mut request = BytesMut::new();
            frontend::cancel_request(self.pid, self.secret, &mut request);
            let broken = |source| Error::Broken { doing: "request a cancel", source };
            transport.write_all(&request).await.map_err(broken)?;
            transport.flush().await.map_err(broken)?;
            // However it closes, it has been read.
            let _closed = transport.read(&mut [0; 1]).await;
            Ok(())
        };
        let after = Duration::from_secs(2);
        let late = Error::Timeout { doing: "request a cancel", after };
        tokio::time::timeout(after, send).await.unwrap_or(Err(late))
    }
}
