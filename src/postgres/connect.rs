//! Making connections: one server after the other, with the files as they are now.
//!
//! It promises that whatever comes back is a server of a supported version and of the wanted kind,
//! reached as `sslmode` says; everything else is a [`ConnectError`] that names server and way out.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_postgres::config::{self, SslNegotiation};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{Attempt, ConnectError, ConnectFailure, MaterialError};
use super::passfile;
use super::session::{Links, ServerVersion, Session};
use super::settings::{
    ChannelBinding, Passfile, Password, Place, Server, Settings, SslMode, Target,
};
use super::tls;

/// Limits that every session begins with. The server enforces them, so they hold whatever the client
/// does. `None` leaves the server's or the role's own setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// The longest a statement may run.
    pub statement_timeout: Option<Duration>,
    /// The longest a statement may wait for a lock.
    pub lock_timeout: Option<Duration>,
    /// The longest a transaction may do nothing, holding back the log for every slot.
    pub idle_in_transaction_timeout: Option<Duration>,
}

impl SessionLimits {
    /// As startup options, after those of the connection string.
    fn options(&self, given: Option<&str>) -> Option<String> {
        let limit = |name: &str, limit: Option<Duration>| {
            limit.map(|limit| format!("-c {name}={}ms", limit.as_millis()))
        };
        let all: Vec<String> = [
            given.map(str::to_owned),
            limit("statement_timeout", self.statement_timeout),
            limit("lock_timeout", self.lock_timeout),
            limit("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!all.is_empty()).then(|| all.join(" "))
    }
}

/// Reads a password again, such as from the file that a configuration names. The error's text says
/// what is wrong and shows no secret.
pub type PasswordSource = Arc<dyn Fn() -> Result<Password, String> + Send + Sync>;

/// Makes connections with one set of settings.
pub struct Connector {
    settings: Settings,
    limits: SessionLimits,
    password: Option<PasswordSource>,
    materials: RwLock<Arc<Materials>>,
    links: Links,
    warned_of_version: AtomicBool,
}

/// What was read from files; replaced as a whole on reload.
struct Materials {
    tls: Option<MakeRustlsConnect>,
    /// One a server, in their order.
    passwords: Vec<Option<Password>>,
}

impl Connector {
    /// Reads certificates and passwords. `password` wins over the settings' own and the passfile.
    pub fn new(
        settings: Settings,
        limits: SessionLimits,
        password: Option<PasswordSource>,
    ) -> Result<Self, MaterialError> {
        let materials = RwLock::new(Arc::new(Materials::read(&settings, password.as_ref())?));
        let warned_of_version = AtomicBool::new(false);
        let links = Links::default();
        Ok(Self { settings, limits, password, materials, links, warned_of_version })
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Reads certificates and passwords again; connections made from now on use them. After an error
    /// everything stays as it was.
    pub fn reload(&self) -> Result<(), MaterialError> {
        let fresh = Arc::new(Materials::read(&self.settings, self.password.as_ref())?);
        *self.materials.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Tries the servers in turn and returns the first that fits.
    ///
    /// A server that is reached and refuses for good, such as for a wrong password, ends the search, as
    /// in libpq: the next one would only hide the reason.
    pub async fn connect(&self) -> Result<Session, ConnectError> {
        let materials = Arc::clone(&self.materials.read().unwrap_or_else(PoisonError::into_inner));
        let mut order: Vec<usize> = (0..self.settings.servers.len()).collect();
        if self.settings.shuffle {
            fastrand::shuffle(&mut order);
        }
        let mut attempts = Vec::new();
        for target in wishes(self.settings.target) {
            for &index in &order {
                let server = &self.settings.servers[index];
                match self.connect_to(server, index, &materials, *target).await {
                    Ok(session) => return Ok(session),
                    Err(failure) => {
                        let last = !failure.is_transient();
                        attempts.push(Attempt { server: server.to_string(), failure });
                        if last {
                            return Err(ConnectError { attempts });
                        }
                    }
                }
            }
        }
        Err(ConnectError { attempts })
    }

    /// Waits until the connections that were dropped have ended, at most `patience`, and cuts the
    /// others. Returns how many were cut.
    pub async fn close(&self, patience: Duration) -> usize {
        self.links.close(patience).await
    }

    async fn connect_to(
        &self,
        server: &Server,
        index: usize,
        materials: &Materials,
        target: Target,
    ) -> Result<Session, ConnectFailure> {
        let config = self.config(server, materials.passwords[index].as_ref());
        let limit = self.settings.connect_timeout;
        let connecting = async {
            let client = match (&materials.tls, &server.place) {
                (Some(tls), Place::Tcp { .. }) => self.open(&config, server, tls.clone()).await?,
                // TLS does not exist on unix sockets, in any mode, as in libpq.
                (None, _) | (_, Place::Unix(_)) => self.open(&config, server, NoTls).await?,
            };
            self.inspect(client, server, target).await
        };
        // Boxed because the handshakes inside make a large future, which callers should not carry.
        match tokio::time::timeout(limit, Box::pin(connecting)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectFailure::TimedOut(limit)),
        }
    }

    async fn open<T>(
        &self,
        config: &Config,
        server: &Server,
        tls: T,
    ) -> Result<Client, ConnectFailure>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let opened = config.connect(tls).await;
        let (client, connection) = opened.map_err(|error| self.classify(error))?;
        self.links.drive(connection, server.to_string());
        Ok(client)
    }

    fn classify(&self, error: tokio_postgres::Error) -> ConnectFailure {
        ConnectFailure::classify(error, &self.settings.user, &self.settings.dbname)
    }

    /// Asks what kind of server this is, in one round trip.
    async fn inspect(
        &self,
        client: Client,
        server: &Server,
        target: Target,
    ) -> Result<Session, ConnectFailure> {
        const QUESTION: &str = "select current_setting('server_version_num')::int4, \
            pg_is_in_recovery(), current_setting('transaction_read_only')::bool";
        let row = client.query_typed_one(QUESTION, &[]).await.map_err(|e| self.classify(e))?;
        let answer = |error| self.classify(error);
        let number: i32 = row.try_get(0).map_err(answer)?;
        let recovering: bool = row.try_get(1).map_err(answer)?;
        let read_only: bool = row.try_get(2).map_err(answer)?;

        let version = ServerVersion::from_number(number.unsigned_abs());
        if version < ServerVersion::OLDEST {
            return Err(ConnectFailure::TooOld { found: version });
        }
        if version.major() > ServerVersion::NEWEST_MAJOR
            && !self.warned_of_version.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %server, %version,
                "postgres is newer than {}, the newest version that was tested",
                ServerVersion::NEWEST_MAJOR
            );
        }
        match mismatch(target, recovering, read_only) {
            None => Ok(Session::new(client, version, self.links.clone())),
            Some((found, wanted)) => Err(ConnectFailure::WrongTarget { found, wanted }),
        }
    }

    fn config(&self, server: &Server, password: Option<&Password>) -> Config {
        let settings = &self.settings;
        let mut config = Config::new();
        match &server.place {
            Place::Tcp { name, address } => {
                config.host(name);
                if let Some(address) = address {
                    config.hostaddr(*address);
                }
                config.ssl_mode(match settings.tls.mode {
                    SslMode::Disable => config::SslMode::Disable,
                    SslMode::Prefer => config::SslMode::Prefer,
                    SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                        config::SslMode::Require
                    }
                });
            }
            Place::Unix(directory) => {
                config.host_path(directory).ssl_mode(config::SslMode::Disable);
            }
        }
        config.port(server.port).user(&settings.user).dbname(&settings.dbname);
        if let Some(password) = password {
            config.password(password.expose());
        }
        if settings.tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        config.channel_binding(match settings.channel_binding {
            ChannelBinding::Disable => config::ChannelBinding::Disable,
            ChannelBinding::Prefer => config::ChannelBinding::Prefer,
            ChannelBinding::Require => config::ChannelBinding::Require,
        });
        if let Some(name) = &settings.application_name {
            config.application_name(name);
        }
        if let Some(options) = self.limits.options(settings.options.as_deref()) {
            config.options(options);
        }
        self.keepalives(&mut config);
        config
    }

    fn keepalives(&self, config: &mut Config) {
        let keepalives = &self.settings.keepalives;
        config.keepalives(!keepalives.off);
        if let Some(idle) = keepalives.idle {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = keepalives.interval {
            config.keepalives_interval(interval);
        }
        if let Some(count) = keepalives.count {
            config.keepalives_retries(count);
        }
        if let Some(patience) = keepalives.user_timeout {
            config.tcp_user_timeout(patience);
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.settings.servers.iter().map(ToString::to_string).collect();
        f.debug_struct("Connector").field("servers", &servers).finish_non_exhaustive()
    }
}

impl Materials {
    fn read(settings: &Settings, password: Option<&PasswordSource>) -> Result<Self, MaterialError> {
        let tcp = |server: &Server| matches!(server.place, Place::Tcp { .. });
        let tls = match settings.servers.iter().any(tcp) {
            true => tls::client_config(&settings.tls)?.map(MakeRustlsConnect::new),
            false => None,
        };
        let given = match password {
            Some(source) => Some(source().map_err(MaterialError::Password)?),
            None => settings.password.clone(),
        };
        let passwords = match given {
            Some(password) => vec![Some(password); settings.servers.len()],
            None => from_passfile(settings)?,
        };
        Ok(Self { tls, passwords })
    }
}

fn from_passfile(settings: &Settings) -> Result<Vec<Option<Password>>, MaterialError> {
    let content = match &settings.passfile {
        // A reload must not trade a password for none, so one that is gone is an error.
        Passfile::File(path) => Some(passfile::read(path)?.ok_or_else(|| passfile::gone(path))?),
        // Nobody asked for the default file, so a bad one is no reason not to start.
        Passfile::DefaultFile(path) => path.as_deref().and_then(|path| {
            passfile::read(path).unwrap_or_else(|error| {
                tracing::warn!(%error, "password file ignored");
                None
            })
        }),
    };
    let find =
        |server| passfile::find(content.as_deref()?, server, &settings.dbname, &settings.user);
    Ok(settings.servers.iter().map(find).collect())
}

/// What to look for in each round over the servers.
fn wishes(target: Target) -> &'static [Target] {
    match target {
        Target::Any => &[Target::Any],
        Target::ReadWrite => &[Target::ReadWrite],
        Target::ReadOnly => &[Target::ReadOnly],
        Target::Primary => &[Target::Primary],
        Target::Standby => &[Target::Standby],
        Target::PreferStandby => &[Target::Standby, Target::Any],
    }
}

/// What the server is and what was wanted instead, if they differ.
fn mismatch(
    target: Target,
    recovering: bool,
    read_only: bool,
) -> Option<(&'static str, &'static str)> {
    // A standby takes no writes, and says so only by its recovery.
    let read_only = read_only || recovering;
    match target {
        Target::Any | Target::PreferStandby => None,
        Target::ReadWrite => read_only.then_some(("read-only", "read-write")),
        Target::ReadOnly => (!read_only).then_some(("read-write", "read-only")),
        Target::Primary => recovering.then_some(("a standby", "primary")),
        Target::Standby => (!recovering).then_some(("a primary", "standby")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_options_of_the_connection_string() {
        let limits = SessionLimits {
            statement_timeout: Some(Duration::from_secs(30)),
            lock_timeout: Some(Duration::from_millis(1500)),
            idle_in_transaction_timeout: None,
        };
        assert_eq!(
            limits.options(Some("-c work_mem=1MB")).unwrap(),
            "-c work_mem=1MB -c statement_timeout=30000ms -c lock_timeout=1500ms"
        );
        assert_eq!(SessionLimits::default().options(None), None);
    }

    #[test]
    fn each_target_takes_the_servers_it_names() {
        // Recovering, read-only: a standby, a primary, a primary with default_transaction_read_only.
        let servers = [(true, false), (false, false), (false, true)];
        for (target, fits) in [
            (Target::Any, [true, true, true]),
            (Target::ReadWrite, [false, true, false]),
            (Target::ReadOnly, [true, false, true]),
            (Target::Primary, [false, true, true]),
            (Target::Standby, [true, false, false]),
            (Target::PreferStandby, [true, true, true]),
        ] {
            let found =
                servers.map(|(recovering, read)| mismatch(target, recovering, read).is_none());
            assert_eq!(found, fits, "{target:?}");
        }
    }
}
