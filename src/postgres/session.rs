//! One connection to one server, and the server's version.
//!
//! A connection has two halves: the client that is used, and the link, a task that moves its bytes.
//! The links of a connector live in one set. A link ends by itself when its client is dropped and
//! has said goodbye; when connector and sessions are all gone, those that remain are cut.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Connection};

/// `server_version_num`, such as 170010.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion(u32);

impl ServerVersion {
    /// The oldest that is supported: `xid8`, row-wise vacuum on insert and partitions in publications
    /// all begin with 13.
    pub const OLDEST: ServerVersion = ServerVersion(130_000);

    /// The newest that was tested. Newer ones are used with a warning.
    pub const NEWEST_MAJOR: u32 = 18;

    /// From `server_version_num`.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Such as 17.
    #[must_use]
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// As the server gives it.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 10_000 {
            0 => write!(f, "{}", self.major()),
            // Before 10 a version had three parts; only to be refused by its name.
            minor if self.major() < 10 => {
                write!(f, "{}.{}.{}", self.major(), minor / 100, minor % 100)
            }
            minor => write!(f, "{}.{minor}", self.major()),
        }
    }
}

impl fmt::Debug for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A connection, used through [`Client`]'s methods.
#[derive(Debug)]
pub struct Session {
    client: Client,
    version: ServerVersion,
    /// Keeps the links alive as long as somebody uses one.
    _links: Links,
}

impl Session {
    pub(super) fn new(client: Client, version: ServerVersion, links: Links) -> Self {
        Self { client, version, _links: links }
    }

    /// Of the server at the other end.
    #[must_use]
    pub fn server_version(&self) -> ServerVersion {
        self.version
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// The set of tasks that move bytes. Bounded by the pools' sizes: one each connection. `None` once it
/// was closed: a connection that was being made meanwhile gets no link, and so comes to nothing.
#[derive(Debug, Clone)]
pub(super) struct Links(Arc<Mutex<Option<JoinSet<()>>>>);

impl Default for Links {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }
}

impl Links {
    pub(super) fn drive<S, T>(&self, connection: Connection<S, T>, server: String)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(links) = links.as_mut() else { return };
        // Finished ones are taken out here, or the set would only grow.
        while links.try_join_next().is_some() {}
        links.spawn(async move {
            if let Err(error) = connection.await {
                // Whoever uses the client gets an error of its own; this one has the cause.
                tracing::debug!(server, %error, "postgres connection ended");
            }
        });
    }

    /// Waits until every client that was dropped has said goodbye, then cuts what is left. Returns
    /// how many were cut.
    pub(super) async fn close(&self, patience: Duration) -> usize {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut links) = links else { return 0 };
        let drained = async { while links.join_next().await.is_some() {} };
        match tokio::time::timeout(patience, drained).await {
            Ok(()) => 0,
            Err(_) => {
                let left = links.len();
                links.shutdown().await;
                left
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_shown_as_people_say_them() {
        for (number, text) in
            [(170_010, "17.10"), (180_000, "18"), (90_624, "9.6.24"), (130_000, "13")]
        {
            assert_eq!(ServerVersion::from_number(number).to_string(), text);
        }
        assert!(ServerVersion::from_number(120_022) < ServerVersion::OLDEST);
        assert_eq!(ServerVersion::from_number(180_004).major(), ServerVersion::NEWEST_MAJOR);
    }
}
