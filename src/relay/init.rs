//! `postrider init`: the SQL around the outbox, to be read, or applied.

use super::route::Mappings;
use crate::config::Problems;
use crate::outbox::TableName;
use crate::postgres::migrations::{self, Applied, MigrationError, OUTBOX, Patience};
use crate::postgres::{ConnectError, MaterialError, PostgresConfig, Session};

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
    /// The file makes a table of one name.
    #[error(
        "--apply makes a table named outbox, and outbox.table is {0}: change the name in what \
         `postrider init` prints, then use psql"
    )]
    OtherName(TableName),
    /// It was applied once, and what it made is not where it is looked for.
    #[error(
        "the outbox was made in this database before, but there is no table {0}: it is in another \
         schema, renamed or dropped; name it with outbox.table, or make {0} with psql from what \
         `postrider init` prints"
    )]
    Elsewhere(TableName),
    /// The search path could not be set, or the table not be looked for.
    #[error("looking for {table} failed")]
    Look {
        /// The table.
        table: TableName,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
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

/// Creates the outbox table and its publication in the configured database, in the schema of
/// `outbox.table`; says what was done.
///
/// # Errors
///
/// See [`InitError`]; nothing is left half done.
pub fn apply_once(
    part: Part,
    postgres: &PostgresConfig,
    mappings: &Mappings,
) -> Result<String, InitError> {
    if part != Part::Table {
        return Err(InitError::NotApplicable);
    }
    // The table of `[outbox]` itself comes first; further ones are an operator's own.
    let table = mappings.first().table.clone();
    if table.name() != MADE {
        return Err(InitError::OtherName(table));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let applied = runtime.block_on(apply(postgres, &table))?;
    Ok(match applied.now.as_slice() {
        [] => "nothing to do: the outbox is in the database already".to_owned(),
        steps => format!("applied {}", steps.join(", ")),
    })
}

/// The name of the table in `sql/outbox.sql`.
const MADE: &str = "outbox";

async fn apply(postgres: &PostgresConfig, table: &TableName) -> Result<Applied, InitError> {
    let mut session = postgres.connector()?.connect().await?;
    if let Some(schema) = table.schema() {
        // The file leaves the schema to the search path, where a role may have anything.
        let path = format!("set search_path = \"{}\"", schema.replace('"', "\"\""));
        let look = |source| InitError::Look { table: table.clone(), source };
        session.batch_execute(&path).await.map_err(look)?;
    }
    let applied = migrations::migrate(&mut session, &OUTBOX, Patience::default()).await?;
    if exists(&session, table).await? {
        Ok(applied)
    } else {
        Err(InitError::Elsewhere(table.clone()))
    }
}

async fn exists(session: &Session, table: &TableName) -> Result<bool, InitError> {
    const THERE: &str = "select to_regclass($1) is not null";
    let look = |source| InitError::Look { table: table.clone(), source };
    let row = session.query_one(THERE, &[&table.quoted()]).await.map_err(look)?;
    row.try_get(0).map_err(look)
}
