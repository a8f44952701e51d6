//! `postrider init`: the SQL around the outbox, to be read, or applied.

use crate::config::Problems;
use crate::postgres::migrations::{self, Applied, MigrationError, OUTBOX, Patience};
use crate::postgres::{ConnectError, MaterialError, PostgresConfig};

/// What `postrider init` can print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Part {
    /// The outbox table, its indexes and its publication
    #[default]
    Table,
    /// The same table, partitioned by time
    Partitioned,
    /// Our columns for an existing Debezium outbox table
    AdoptDebezium,
    /// Roles for owner, writers and relay, and their grants
    Roles,
    /// Settings for postgresql.conf, each with its reason
    Server,
}

impl Part {
    /// Its text, with the reasons as comments.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Table => include_str!("../../sql/outbox.sql"),
            Self::Partitioned => include_str!("../../sql/outbox_partitioned.sql"),
            Self::AdoptDebezium => include_str!("../../sql/adopt_debezium.sql"),
            Self::Roles => include_str!("../../sql/outbox_roles.sql"),
            Self::Server => include_str!("../../config/postgresql.conf"),
        }
    }
}

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// Only the table is a migration.
    #[error(
        "--apply applies the table alone: the others depend on your names, rights and versions; read \
         them, then use psql"
    )]
    NotApplicable,
    /// No runtime: the system is out of threads or file descriptors.
    #[error("cannot start")]
    Start(#[from] std::io::Error),
    /// Certificates or passwords cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The database is not as this program knows it, or refused.
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

/// Creates the outbox table and its publication in the configured database; says what was done.
///
/// # Errors
///
/// See [`InitError`]; nothing is left half done.
pub fn apply_once(part: Part, postgres: &PostgresConfig) -> Result<String, InitError> {
    if part != Part::Table {
        return Err(InitError::NotApplicable);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let applied = runtime.block_on(apply(postgres))?;
    Ok(match applied.now.as_slice() {
        [] => "nothing to do: the outbox is in the database already".to_owned(),
        steps => format!("applied {}", steps.join(", ")),
    })
}

async fn apply(postgres: &PostgresConfig) -> Result<Applied, InitError> {
    let mut session = postgres.connector()?.connect().await?;
    Ok(migrations::migrate(&mut session, &OUTBOX, Patience::default()).await?)
}
