//! What can go wrong on the replication connection, each with what was being done and a way out.

use std::io;
use std::time::Duration;

use super::answer::ServerError;
use super::cursor::Fault;
use super::frame::FrameError;
use super::scram::ScramError;
use crate::lsn::Lsn;

/// Why the connection, a command or the stream failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// The address.
        endpoint: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Connecting and logging in took too long.
    #[error(
        "no login at {endpoint} within {after:?}: the server is starting, overloaded or unreachable; \
         connect_timeout sets the limit"
    )]
    ConnectTimeout {
        /// The address.
        endpoint: String,
        /// The limit.
        after: Duration,
    },
    /// TLS was asked for, the server has none.
    #[error(
        "{endpoint} does not speak TLS, which sslmode demands: set `ssl = on` at the server, or an \
         sslmode below `require`"
    )]
    TlsRefused {
        /// The address.
        endpoint: String,
    },
    /// More than one byte came in answer to the request for TLS: somebody wrote into the connection
    /// before it was encrypted (CVE-2021-23222).
    #[error("{endpoint} sent data before TLS began: somebody may be writing into the connection")]
    TlsInjected {
        /// The address.
        endpoint: String,
    },
    /// The handshake failed: an unknown authority, another name, an expired certificate.
    #[error("TLS with {endpoint} failed: check sslmode, sslrootcert and the host's name")]
    Tls {
        /// The address.
        endpoint: String,
        /// What rustls says, with the name or the reason.
        #[source]
        source: io::Error,
    },
    /// The server wants a password and there is none.
    #[error("the server asks user {user} for a password ({method}), and none is configured")]
    PasswordMissing {
        /// The role.
        user: String,
        /// How it would be checked.
        method: &'static str,
    },
    /// The server wants the password in a form that gives it away.
    #[error(
        "the server asks user {user} for {method} authentication, which gives the password away: \
         set password_encryption = 'scram-sha-256', give the role its password again and use \
         scram-sha-256 in pg_hba.conf, or allow {method} by name"
    )]
    PasswordWeak {
        /// The role.
        user: String,
        /// `md5` or `password`.
        method: &'static str,
    },
    /// The server wants something that we do not have.
    #[error(
        "the server asks user {user} for {method} authentication, which is not supported: \
         scram-sha-256, trust, peer and client certificates are"
    )]
    AuthenticationUnsupported {
        /// The role.
        user: String,
        /// By name, or by number if it has none.
        method: String,
    },
    /// The channel cannot be bound though it must be.
    #[error("channel_binding = require, but {why}")]
    ChannelBinding {
        /// Why it cannot be.
        why: &'static str,
    },
    /// The exchange of proofs failed on our side.
    #[error("the proof of the password for user {user} failed")]
    Scram {
        /// The role.
        user: String,
        /// Why.
        #[source]
        source: ScramError,
    },
    /// The server said no; its SQLSTATE is in there.
    #[error("{doing}: {error}")]
    Server {
        /// What we asked it to do.
        doing: &'static str,
        /// What it said.
        error: Box<ServerError>,
    },
    /// A slot was not made in time: some transaction that was open then is still open.
    #[error(
        "slot {slot} could not be created within {within:?}, because a transaction that was open when \
         creation began has not ended; no slot was left behind. Find it with `select pid, xact_start, \
         query from pg_stat_activity where xact_start is not null order by xact_start`, then retry"
    )]
    SlotTimeout {
        /// The slot.
        slot: String,
        /// The limit.
        within: Duration,
        /// What the server said to that.
        error: Box<ServerError>,
    },
    /// We were told to stop while a slot was being made; it is gone again.
    #[error("the creation of slot {slot} was cancelled; no slot was left behind")]
    SlotCancelled {
        /// The slot.
        slot: String,
    },
    /// Postgres 18 goes on without a publication that does not exist yet; the rows are lost.
    #[error(
        "the server skips rows, because a publication does not exist at this point of the log: {notice}. \
         Confirm nothing after this: create the publication before the slot, and read the rows of \
         the gap from the table"
    )]
    PublicationSkipped {
        /// The warning that says so.
        notice: Box<ServerError>,
    },
    /// A message whose bytes break its layout.
    #[error("{doing}: message {:?} is malformed {fault}", char::from(*.tag))]
    Malformed {
        /// What we were doing.
        doing: &'static str,
        /// The message's type.
        tag: u8,
        /// Where, and what is wrong.
        fault: Fault,
    },
    /// A message that has no place here.
    #[error("{doing}: unexpected message {:?}: the server is not one we know, or the stream is out of step", char::from(*.tag))]
    Unexpected {
        /// What we were doing.
        doing: &'static str,
        /// The message's type.
        tag: u8,
    },
    /// An answer without what was asked for.
    #[error("{doing}: the answer has no usable {field} (server {version})")]
    Incomplete {
        /// What we were doing.
        doing: &'static str,
        /// What is missing.
        field: &'static str,
        /// The server's version.
        version: String,
    },
    /// The stream cannot be cut into messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server closed the connection without a word.
    #[error(
        "{doing}: the server closed the connection without a message: it crashed, was stopped, or \
         heard nothing from us for wal_sender_timeout"
    )]
    Closed {
        /// What we were doing.
        doing: &'static str,
    },
    /// Reading or writing failed.
    #[error("{doing}: the connection broke")]
    Broken {
        /// What we were doing.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time; the connection is of no further use.
    #[error("{doing}: no answer within {after:?}")]
    Timeout {
        /// What we were doing.
        doing: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Nothing has come for so long that nobody can be there.
    #[error(
        "nothing has come from the server for {after:?}, not even a keepalive: it is frozen, or the \
         network is cut"
    )]
    Silent {
        /// The limit.
        after: Duration,
    },
    /// A position that the server has not shown us: it would believe it, and skip what is below.
    #[error(
        "refused to confirm {flush}, the server has shown nothing beyond {received}: it would skip \
         every commit below for good"
    )]
    ConfirmBeyond {
        /// The position to confirm.
        flush: Lsn,
        /// The last one received.
        received: Lsn,
    },
    /// An earlier command was given up half-way.
    #[error("{doing}: an earlier command was given up half-way; open a new connection")]
    Abandoned {
        /// What we were doing.
        doing: &'static str,
    },
    /// The answer to a query is larger than a check may need.
    #[error(
        "{doing}: the answer is larger than {limit} bytes; this connection is for checks, not for data"
    )]
    AnswerTooLarge {
        /// What we were doing.
        doing: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A text that cannot be sent.
    #[error("{what} contains a zero byte, which Postgres cannot take")]
    ZeroByte {
        /// Which text.
        what: &'static str,
    },
    /// The pause between reads cannot be made.
    #[error("cannot make a timer for the pause between reads")]
    Timer {
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The server's SQLSTATE, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|error| error.code.as_str())
    }

    /// What the server said, if it was the server.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { error, .. } | Self::SlotTimeout { error, .. } => Some(error),
            Self::PublicationSkipped { notice } => Some(notice),
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::TlsRefused { .. }
            | Self::TlsInjected { .. }
            | Self::Tls { .. }
            | Self::PasswordMissing { .. }
            | Self::PasswordWeak { .. }
            | Self::AuthenticationUnsupported { .. }
            | Self::ChannelBinding { .. }
            | Self::Scram { .. }
            | Self::SlotCancelled { .. }
            | Self::Malformed { .. }
            | Self::Unexpected { .. }
            | Self::Incomplete { .. }
            | Self::Frame(_)
            | Self::Closed { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Silent { .. }
            | Self::ConfirmBeyond { .. }
            | Self::Abandoned { .. }
            | Self::AnswerTooLarge { .. }
            | Self::ZeroByte { .. }
            | Self::Timer { .. } => None,
        }
    }
}
