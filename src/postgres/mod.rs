//! Ordinary SQL: settings, TLS, connections, a pool, migrations.
//!
//! What works in psql works here: connection strings and URLs, libpq's variables, default files and
//! words mean what libpq means by them, and what is not supported is refused by name. The replication
//! connection is another module's.
//!
//! ```ignore
//! let settings = Settings::parse(url, &Environment::of_process())?;
//! let pool = Pool::new("main", Connector::new(settings, SessionLimits::default(), None)?, options);
//! let mut client = pool.get().await?;
//! ```
//!
//! Guarantee: a connection that is handed out is to a supported server of the wanted kind, encrypted
//! and verified as asked, and in no transaction; no secret is printed.
//! Bounded by: `connect_timeout` for each server, [`settings::HOSTS_MAX`] servers, the pool's size and
//! wait, the session's limits, [`migrations::Patience`].
//! Tested by: `tests/services/postgres.rs`, `tests/services/pool.rs`, `tests/services/migrations.rs`.

mod connect;
mod error;
pub mod migrations;
mod passfile;
mod pool;
mod section;
mod session;
pub mod settings;
mod tls;

pub use connect::{Connector, PasswordSource, SessionLimits};
pub use error::{Attempt, ConnectError, ConnectFailure, MaterialError};
pub use passfile::PassfileError;
pub use pool::{Pool, PoolError, PoolOptions, PoolStatus, Pooled};
pub use section::PostgresConfig;
pub use session::{ServerVersion, Session};
pub use settings::{Environment, Password, Settings, SettingsError};
pub use tls::TlsError;
