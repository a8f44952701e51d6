//! A small pool of connections: bounded in number, bounded in waiting, checked before each use.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult, TimeoutType};
use deadpool::{Runtime, managed::Object};

use tokio_postgres::SimpleQueryMessage;

use super::connect::Connector;
use super::error::{ConnectError, MaterialError};
use super::session::{ServerVersion, Session};

/// How long an idle connection may take to show that it is alive. One round trip; a server that needs
/// longer for it is as good as gone, and a fresh connection finds out with a better error.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Size and patience of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// The most connections at once.
    pub size: usize,
    /// How long to wait for one that is in use.
    pub wait: Duration,
}

/// What a pool holds at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// The most connections it may have.
    pub max: usize,
    /// Connections nobody uses.
    pub idle: usize,
    /// Connections somebody uses.
    pub in_use: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

/// Connections to be borrowed. Cheap to clone; the clones share them.
#[derive(Clone)]
pub struct Pool {
    name: &'static str,
    options: PoolOptions,
    connections: managed::Pool<Manager>,
}

impl Pool {
    /// A pool without a connection yet. `name` stands in errors and metrics.
    #[must_use]
    pub fn new(name: &'static str, connector: Connector, options: PoolOptions) -> Self {
        let connections = managed::Pool::builder(Manager { connector: Arc::new(connector) })
            .max_size(options.size)
            .wait_timeout(Some(options.wait))
            // Making a connection and checking one have bounds of their own, with better errors.
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a timeout is set and so is the runtime it needs");
        Self { name, options, connections }
    }

    /// A connection that was alive a moment ago, in no transaction.
    pub async fn get(&self) -> Result<Pooled, PoolError> {
        match self.connections.get().await {
            Ok(session) => Ok(Pooled(session)),
            Err(managed::PoolError::Backend(error)) => Err(PoolError::Connect(error)),
            Err(managed::PoolError::Timeout(TimeoutType::Wait)) => Err(PoolError::Exhausted {
                pool: self.name,
                size: self.options.size,
                waited: self.options.wait,
            }),
            Err(managed::PoolError::Closed) => Err(PoolError::Closed { pool: self.name }),
            Err(
                other @ (managed::PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)
                | managed::PoolError::NoRuntimeSpecified
                | managed::PoolError::PostCreateHook(_)),
            ) => unreachable!("neither these timeouts nor hooks are set: {other}"),
        }
    }

    /// Its name in errors and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it holds, for the metric of connections by state.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let status = self.connections.status();
        PoolStatus {
            max: status.max_size,
            idle: status.available,
            in_use: status.size.saturating_sub(status.available),
            waiting: status.waiting,
        }
    }

    /// Reads certificates and passwords again. Connections made from now on use them; those that are
    /// open stay, since the server has accepted them.
    pub fn reload(&self) -> Result<(), MaterialError> {
        self.connections.manager().connector.reload()
    }

    /// Gives out no more connections, closes the idle ones, waits at most `patience` for those in
    /// use, then cuts them. Returns how many were cut.
    pub async fn close(&self, patience: Duration) -> usize {
        self.connections.close();
        self.connections.manager().connector.close(patience).await
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).field("status", &self.status()).finish()
    }
}

/// A borrowed connection; dropping it gives it back.
pub struct Pooled(Object<Manager>);

impl Pooled {
    /// Of the server at the other end.
    #[must_use]
    pub fn server_version(&self) -> ServerVersion {
        self.0.server_version()
    }
}

impl Deref for Pooled {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pooled")
    }
}

/// Why the pool gave no connection.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// All were in use all the time.
    #[error(
        "all {size} connections of pool {pool} stayed in use for {waited:?}: look for long \
         transactions in pg_stat_activity, or raise pool_size within the server's max_connections"
    )]
    Exhausted {
        /// Which pool.
        pool: &'static str,
        /// How many it has.
        size: usize,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A new one could not be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The process is stopping.
    #[error("pool {pool} is closed: the process is stopping")]
    Closed {
        /// Which pool.
        pool: &'static str,
    },
}

struct Manager {
    connector: Arc<Connector>,
}

impl managed::Manager for Manager {
    type Type = Session;
    type Error = ConnectError;

    async fn create(&self) -> Result<Session, ConnectError> {
        self.connector.connect().await
    }

    /// One round trip that proves two things: the connection lives, and the last user left no
    /// transaction open. Inside an old transaction the two clocks differ, and inside an aborted one the
    /// query fails. What somebody began there cannot be mended here, so the connection is dropped.
    /// By simple query, since with the other protocol the clocks differ in every transaction.
    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<ConnectError> {
        const FRESH: &str = "select now() = statement_timestamp()";
        if session.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        let messages = match tokio::time::timeout(CHECK_TIMEOUT, session.simple_query(FRESH)).await
        {
            Ok(Ok(messages)) => messages,
            Ok(Err(error)) => return Err(RecycleError::message(error.to_string())),
            Err(_) => return Err(RecycleError::message("no answer in time")),
        };
        let fresh = messages.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")),
        );
        if fresh { Ok(()) } else { Err(RecycleError::message("left in a transaction")) }
    }
}
