//! Where the server is and as whom we log in: plain data, filled by whoever read the settings.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A host, by name or address. The name is what a certificate is checked against.
    Tcp {
        /// Name or address.
        host: String,
        /// Spares the look-up of the name (`hostaddr`).
        address: Option<IpAddr>,
        /// Port.
        port: u16,
    },
    /// A socket file, such as `/run/postgresql/.s.PGSQL.5432`. Never encrypted.
    Unix {
        /// The socket itself, not its folder.
        path: PathBuf,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix { path } => write!(f, "{}", path.display()),
        }
    }
}

/// What `sslmode` says. `require`, `verify-ca` and `verify-full` are one mode here: what is checked
/// of the certificate is the given configuration's verifier's work.
#[derive(Clone)]
pub enum Encryption {
    /// `disable`: never.
    Disable,
    /// `allow`: only if the server refuses us without.
    Allow(Arc<ClientConfig>),
    /// `prefer`: if the server can; nothing is promised.
    Prefer(Arc<ClientConfig>),
    /// `require`, `verify-ca`, `verify-full`: or not at all.
    Require(Arc<ClientConfig>),
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "Disable",
            Self::Allow(_) => "Allow",
            Self::Prefer(_) => "Prefer",
            Self::Require(_) => "Require",
        })
    }
}

/// Whether the password's proof is bound to the server's certificate, so that nobody in the middle
/// can pass it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it and the certificate allows it.
    #[default]
    Prefer,
    /// Or no login at all.
    Require,
}

/// Password methods that give the password, or as good as that, to whoever listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weak {
    /// `md5`: the stored hash is as good as the password, and can be cracked offline.
    pub md5: bool,
    /// `password`: sent as it is.
    pub cleartext: bool,
}

/// How to reach the server and what to say first.
#[derive(Clone)]
pub struct Login {
    /// Where.
    pub endpoint: Endpoint,
    /// How.
    pub encryption: Encryption,
    /// TLS begins at once, instead of being asked for (`sslnegotiation = direct`; servers from 17
    /// on, and only with [`Encryption::Require`]). The configuration must offer the protocol
    /// `postgresql` (ALPN).
    pub direct_tls: bool,
    /// The role, which needs REPLICATION.
    pub user: String,
    /// The password, if the server asks for one.
    pub password: Option<String>,
    /// The database whose rows are streamed.
    pub database: String,
    /// Shown in `pg_stat_replication`.
    pub application_name: String,
    /// Whether the proof of the password is bound to the connection.
    pub channel_binding: ChannelBinding,
    /// Which weak password methods are allowed all the same.
    pub weak: Weak,
    /// The connection string's own `options`, such as `-c work_mem=8MB`.
    pub options: Option<String>,
    /// Server settings for this connection, such as `wal_sender_timeout`; they win over `options`.
    pub settings: Vec<(String, String)>,
    /// For connecting, TLS and login together.
    pub connect_timeout: Duration,
}

impl Login {
    /// A login with the defaults: no encryption chosen, ten seconds.
    pub fn new(endpoint: Endpoint, encryption: Encryption, user: &str, database: &str) -> Self {
        Self {
            endpoint,
            encryption,
            direct_tls: false,
            user: user.to_owned(),
            password: None,
            database: database.to_owned(),
            application_name: "postrider".to_owned(),
            channel_binding: ChannelBinding::Prefer,
            weak: Weak::default(),
            options: None,
            settings: Vec::new(),
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// What the first message says. Everything that changes how a value looks as text is pinned:
    /// a role's or a database's own settings must not change what is published.
    pub(super) fn parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![
            ("user", self.user.as_str()),
            ("database", &self.database),
            ("replication", "database"),
            ("application_name", &self.application_name),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
            ("standard_conforming_strings", "on"),
            // A role with `client_min_messages = error` would hide the warning that rows are lost.
            ("client_min_messages", "warning"),
        ];
        if let Some(options) = &self.options {
            parameters.push(("options", options));
        }
        parameters
            .extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        parameters
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("endpoint", &self.endpoint)
            .field("encryption", &self.encryption)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("database", &self.database)
            .field("application_name", &self.application_name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_does_not_show_its_password() {
        let endpoint = Endpoint::Tcp { host: "::1".to_owned(), address: None, port: 5432 };
        let mut login = Login::new(endpoint, Encryption::Disable, "relay", "app");
        login.password = Some("hunter2".to_owned());
        let shown = format!("{login:?}");
        assert!(!shown.contains("hunter2") && shown.contains("(hidden)"), "{shown}");
        assert_eq!(login.endpoint.to_string(), "[::1]:5432");
    }

    #[test]
    fn settings_come_last_and_so_win() {
        let endpoint = Endpoint::Unix { path: "/run/postgresql/.s.PGSQL.5432".into() };
        let mut login = Login::new(endpoint, Encryption::Disable, "relay", "app");
        login.options = Some("-c wal_sender_timeout=1".to_owned());
        login.settings.push(("wal_sender_timeout".to_owned(), "10s".to_owned()));
        let parameters = login.parameters();
        assert_eq!(parameters.last(), Some(&("wal_sender_timeout", "10s")));
        assert!(parameters.contains(&("replication", "database")));
    }
}
