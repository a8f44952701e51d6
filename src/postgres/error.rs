//! Why there is no connection: what happened, and what to do about it.
//!
//! Every class keeps the SQLSTATE or the transport's error as its cause, and none shows a secret. The
//! text of a class says all that the cause says, so the cause is no `source`: whoever prints a whole
//! chain would say it twice.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use tokio_postgres::error::SqlState;

use super::passfile::PassfileError;
use super::session::ServerVersion;
use super::tls::TlsError;

/// Why the files that a connection needs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The list of passwords.
    #[error(transparent)]
    Passfile(#[from] PassfileError),
    /// The password's own file.
    #[error("password cannot be read again: {0}")]
    Password(String),
}

/// No server of the list gave a connection. Never without an attempt.
#[derive(Debug)]
pub struct ConnectError {
    pub(super) attempts: Vec<Attempt>,
}

/// One server, and why it gave no connection.
#[derive(Debug, thiserror::Error)]
#[error("{server}: {failure}")]
pub struct Attempt {
    /// Where it is.
    pub server: String,
    /// What happened there.
    pub failure: ConnectFailure,
}

impl ConnectError {
    /// The attempts in the order they were made.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// What the last server said: the only one, mostly.
    #[must_use]
    pub fn failure(&self) -> &ConnectFailure {
        &self.attempts.last().expect("an error is made of attempts only").failure
    }

    /// Whether trying again later may help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        // A refusal for good ends the search, so it is the last one if there is any.
        self.failure().is_transient()
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connect to postgres: ")?;
        for (index, attempt) in self.attempts.iter().enumerate() {
            let between = if index > 0 { "; " } else { "" };
            write!(f, "{between}{attempt}")?;
        }
        Ok(())
    }
}

// No source: the text above holds every cause already, and a caller that prints the whole chain
// would repeat it. `failure()` gives the parts.
impl StdError for ConnectError {}

/// What kept one server from giving a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// Nobody answers there.
    #[error("cannot be reached ({reason}): is it running and listening there, is the way open?")]
    Unreachable {
        /// The system's words.
        reason: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// No answer, or not all of it, in time.
    #[error(
        "did not answer within {0:?}: is the way open, is the server overloaded? connect_timeout sets the limit"
    )]
    TimedOut(Duration),
    /// TLS was asked for and the server has none.
    #[error("has no TLS, and sslmode asks for it: set ssl=on there; sslmode=prefer goes without")]
    TlsRefused(tokio_postgres::Error),
    /// The certificate is somebody else's.
    #[error(
        "presents a certificate for another name ({reason}): connect by a name that is in it, or have one made with this name among its alternative names"
    )]
    TlsName {
        /// Which names it has.
        reason: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// The certificate is not signed by whom we trust.
    #[error(
        "presents a certificate that no root in sslrootcert has signed: add its authority there, or look who answers at this address"
    )]
    TlsUnknownAuthority(tokio_postgres::Error),
    /// The certificate, or ours, has another fault.
    #[error(
        "TLS failed: {reason}; look at the dates and the chain of its certificate, and whether it trusts sslcert if one is given"
    )]
    Tls {
        /// What rustls says, or the server's alert.
        reason: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// 28P01.
    #[error(
        "refused the password of role {user} (28P01): set the right one, or the role's with alter role; password_file and passfile are read again on reload"
    )]
    WrongPassword {
        /// The role.
        user: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// The server wants a password and there is none.
    #[error(
        "asks for the password of role {user}, and none is given: set password, password_file or passfile"
    )]
    NoPassword {
        /// The role.
        user: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// The way of authentication failed on our side of it, such as channel binding.
    #[error("authentication broken off: {reason}")]
    Authentication {
        /// What was missing, and the way out.
        reason: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// 28000: no line of pg_hba.conf matches, or the role may not log in.
    #[error(
        "does not let role {user} into database {dbname} (28000: {message}): add a line to its pg_hba.conf, or check that the role exists and may log in"
    )]
    NotAdmitted {
        /// The role.
        user: String,
        /// The database.
        dbname: String,
        /// The server's words.
        message: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// 3D000.
    #[error("has no database {dbname} (3D000): create it, or correct dbname")]
    NoDatabase {
        /// The database.
        dbname: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// 53300.
    #[error(
        "has no connection left (53300: {message}): raise max_connections or the role's limit, or make pools smaller"
    )]
    TooManyConnections {
        /// The server's words.
        message: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// 57P03 and its like: starting, recovering, shutting down.
    #[error(
        "takes no connections now ({code}: {message}): it starts, recovers or stops; trying again helps"
    )]
    NotNow {
        /// The SQLSTATE.
        code: String,
        /// The server's words.
        message: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// Older than what is supported.
    #[error(
        "runs PostgreSQL {found}, older than {}: upgrade it, 13 to 18 are supported",
        ServerVersion::OLDEST
    )]
    TooOld {
        /// What it is.
        found: ServerVersion,
    },
    /// Not the kind of server that was asked for.
    #[error("is {found}, and target_session_attrs={wanted} is wanted")]
    WrongTarget {
        /// What it is.
        found: &'static str,
        /// What is wanted.
        wanted: &'static str,
    },
    /// Another refusal by the server.
    #[error("refused the connection ({code}: {message})")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// The server's words.
        message: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// The connection broke while it was made.
    #[error("broke the connection off ({reason})")]
    Broken {
        /// What is known of it.
        reason: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
}

impl ConnectFailure {
    /// Whether trying again later may help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut(_)
            | Self::TooManyConnections { .. }
            | Self::NotNow { .. }
            | Self::WrongTarget { .. }
            | Self::Broken { .. } => true,
            Self::TlsRefused(_)
            | Self::TlsName { .. }
            | Self::TlsUnknownAuthority(_)
            | Self::Tls { .. }
            | Self::WrongPassword { .. }
            | Self::NoPassword { .. }
            | Self::Authentication { .. }
            | Self::NotAdmitted { .. }
            | Self::NoDatabase { .. }
            | Self::TooOld { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// The server's code, where it gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        self.cause()?.code()
    }

    /// The driver's error, where there is one.
    #[must_use]
    pub fn cause(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::TlsRefused(cause)
            | Self::TlsUnknownAuthority(cause)
            | Self::Unreachable { cause, .. }
            | Self::TlsName { cause, .. }
            | Self::Tls { cause, .. }
            | Self::WrongPassword { cause, .. }
            | Self::NoPassword { cause, .. }
            | Self::Authentication { cause, .. }
            | Self::NotAdmitted { cause, .. }
            | Self::NoDatabase { cause, .. }
            | Self::TooManyConnections { cause, .. }
            | Self::NotNow { cause, .. }
            | Self::Refused { cause, .. }
            | Self::Broken { cause, .. } => Some(cause),
            Self::TimedOut(_) | Self::TooOld { .. } | Self::WrongTarget { .. } => None,
        }
    }

    /// Sorts an error of the driver.
    pub(super) fn classify(cause: tokio_postgres::Error, user: &str, dbname: &str) -> Self {
        if let Some(refusal) = cause.as_db_error() {
            let (code, message) = (refusal.code().clone(), refusal.message().to_owned());
            return Self::refused(cause, &code, message, user, dbname);
        }
        if let Some(tls) = find::<rustls::Error>(&cause) {
            return Self::tls(tls.clone(), cause);
        }
        let reason = innermost(&cause);
        // The driver does not show its kinds, only their words; the tests hold us to them.
        match cause.to_string().as_str() {
            "error connecting to server" => Self::Unreachable { reason, cause },
            "error performing TLS handshake" if reason.contains("does not support TLS") => {
                Self::TlsRefused(cause)
            }
            "error performing TLS handshake" => Self::Tls { reason, cause },
            "invalid configuration" if reason.contains("password missing") => {
                Self::NoPassword { user: user.to_owned(), cause }
            }
            "authentication error" if reason.contains("channel binding") => Self::Authentication {
                reason:
                    "channel_binding=require needs SCRAM over TLS, and a certificate that is not \
                         signed with Ed25519; check pg_hba.conf and password_encryption there"
                        .into(),
                cause,
            },
            "authentication error" => Self::Authentication { reason, cause },
            _ => Self::Broken { reason, cause },
        }
    }

    fn refused(
        cause: tokio_postgres::Error,
        code: &SqlState,
        message: String,
        user: &str,
        dbname: &str,
    ) -> Self {
        let (user, dbname) = (user.to_owned(), dbname.to_owned());
        match *code {
            SqlState::INVALID_PASSWORD => Self::WrongPassword { user, cause },
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                Self::NotAdmitted { user, dbname, message, cause }
            }
            SqlState::INVALID_CATALOG_NAME => Self::NoDatabase { dbname, cause },
            SqlState::TOO_MANY_CONNECTIONS => Self::TooManyConnections { message, cause },
            SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => {
                Self::NotNow { code: code.code().to_owned(), message, cause }
            }
            _ => Self::Refused { code: code.code().to_owned(), message, cause },
        }
    }

    fn tls(error: rustls::Error, cause: tokio_postgres::Error) -> Self {
        let reason = error.to_string();
        let rustls::Error::InvalidCertificate(fault) = error else {
            return Self::Tls { reason, cause };
        };
        // A bad signature: an authority of the same name, made anew with another key.
        if matches!(fault, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
            return Self::TlsUnknownAuthority(cause);
        }
        let wrong_name = matches!(
            fault,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        );
        if wrong_name { Self::TlsName { reason, cause } } else { Self::Tls { reason, cause } }
    }
}

/// The first error of type `T` in the chain; `io::Error` hides its own inner error from `source`.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        current = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

fn innermost(error: &dyn StdError) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}
