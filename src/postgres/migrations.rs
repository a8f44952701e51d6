//! Schema changes that are applied once, in order, and never silently differ.
//!
//! What has been applied is kept in `postrider.migration`: number, name and checksum. The schema is
//! our own, so that nothing of ours meets the application's tables, and the role needs CREATE on the
//! database only the first time; a role that finds everything applied needs USAGE and SELECT alone.
//!
//! Each migration runs in one transaction together with its row, under an advisory lock that belongs
//! to this transaction: a failure or a crash leaves nothing, a second process waits and then finds
//! the work done, and a pooler between us and the server does no harm.

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Transaction};

/// One step. Numbers begin at 1 and have no gap. A step that was released never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its place.
    pub number: i32,
    /// Its file's name, for messages.
    pub name: &'static str,
    /// Statements that can run inside one transaction; no `begin`, `commit` or `concurrently`.
    pub sql: &'static str,
}

impl Migration {
    /// Of the text with plain line ends: a checkout that made them CRLF is the same migration.
    fn checksum(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(self.sql.replace("\r\n", "\n").as_bytes()) {
            write!(hex, "{byte:02x}").expect("a String takes everything");
        }
        hex
    }
}

/// All steps of one part of the product, which has its own numbers.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// The part, such as `outbox`.
    pub part: &'static str,
    /// Its steps, in order.
    pub steps: &'static [Migration],
}

/// The outbox table. Roles and grants are not among them: those are an administrator's.
pub const OUTBOX: Migrations = Migrations {
    part: "outbox",
    steps: &[Migration {
        number: 1,
        name: "outbox.sql",
        sql: include_str!("../../sql/outbox.sql"),
    }],
};

/// How long a migration waits, for another process that migrates as for each lock on a table. While it
/// waits for a table's lock, everybody who needs that table waits behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(pub Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Names of the steps applied now.
    pub now: Vec<&'static str>,
    /// How many had been applied before.
    pub before: usize,
}

/// Why the database is not as the program needs it.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A step was changed after it had been applied.
    #[error(
        "migration {part}/{number} {name} was changed after it had been applied: the database has \
         checksum {applied}…, this program {embedded}…; run the program that applied it, or put the \
         change into a new migration"
    )]
    Changed {
        /// The part.
        part: &'static str,
        /// The step.
        number: i32,
        /// Its name here.
        name: &'static str,
        /// Beginning of the checksum in the database.
        applied: String,
        /// Beginning of the checksum of this program's text.
        embedded: String,
    },
    /// The database is ahead of this program.
    #[error(
        "the database has migration {part}/{number} {name}, which this program does not know (it ends \
         with {newest}): an older program must not work on a newer schema, run the newer one"
    )]
    Newer {
        /// The part.
        part: &'static str,
        /// The step.
        number: i32,
        /// Its name there.
        name: String,
        /// The newest this program knows.
        newest: i32,
    },
    /// A step is missing in the database although a later one is there.
    #[error(
        "the database has migration {part}/{later} but not {part}/{missing}: somebody removed its row \
         from postrider.migration; find out what was applied and put the row back"
    )]
    Gap {
        /// The part.
        part: &'static str,
        /// What is missing.
        missing: i32,
        /// What is there.
        later: i32,
    },
    /// The program itself is wrong.
    #[error("migrations of {part} are not numbered 1, 2, 3 …: {number} stands at place {place}")]
    Numbering {
        /// The part.
        part: &'static str,
        /// The number found.
        number: i32,
        /// Where.
        place: usize,
    },
    /// Somebody else migrates, or holds a lock, for longer than we wait.
    #[error(
        "{what} waited {waited:?} for a lock and gave up (55P03): another process migrates, or a long \
         transaction uses the table; nothing was changed, try again or end it"
    )]
    Locked {
        /// What was going on.
        what: String,
        /// How long.
        waited: Duration,
        /// All of it; the text has what matters of it.
        cause: tokio_postgres::Error,
    },
    /// The rights do not suffice.
    #[error(
        "{what} is not permitted ({message}): migrate as the owner of the schema; the first migration \
         needs `grant create on database … to …`"
    )]
    Forbidden {
        /// What was going on.
        what: String,
        /// The server's words.
        message: String,
        /// All of it.
        cause: tokio_postgres::Error,
    },
    /// The connection broke while the server was committing.
    #[error(
        "{what} got no answer to its commit, so it is applied or it is not: start again, a step that \
         is applied is not applied twice"
    )]
    Unknown {
        /// What was going on.
        what: String,
        /// All of it.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement failed, or the connection did before anything was committed.
    #[error("{what} failed and left nothing behind")]
    Failed {
        /// What was going on.
        what: String,
        /// All of it.
        #[source]
        source: tokio_postgres::Error,
    },
}

/// Applies what is missing. Safe to call from any number of processes at once.
pub async fn migrate(
    client: &mut Client,
    migrations: &Migrations,
    patience: Patience,
) -> Result<Applied, MigrationError> {
    check_numbers(migrations)?;
    let mut applied = Applied::default();
    // One step a turn, and one last turn that finds nothing to do.
    for _ in 0..=migrations.steps.len() {
        match step(client, migrations, patience, &mut applied).await? {
            Some(name) => {
                tracing::info!(part = migrations.part, name, "migration applied");
                applied.now.push(name);
            }
            None => break,
        }
    }
    Ok(applied)
}

/// One transaction: lock, look, apply the first missing step.
async fn step(
    client: &mut Client,
    migrations: &Migrations,
    patience: Patience,
    applied: &mut Applied,
) -> Result<Option<&'static str>, MigrationError> {
    let looking = || format!("looking for migrations of {}", migrations.part);
    let failed = |source| failure(looking(), patience, source);
    // Whatever the role's default is: a snapshot from before the lock does not show what was done
    // by whom we waited for.
    let begin = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
    let transaction = begin.start().await.map_err(failed)?;
    lock(&transaction, migrations.part, patience).await.map_err(failed)?;
    let rows = recorded(&transaction, migrations.part).await.map_err(failed)?;
    let next = compare(migrations, &rows)?;
    if applied.now.is_empty() {
        applied.before = rows.len();
    }
    let Some(next) = next else { return Ok(None) };

    let what = || format!("migration {}/{} {}", migrations.part, next.number, next.name);
    let failed = |source| failure(what(), patience, source);
    if rows.is_empty() {
        prepare(&transaction).await.map_err(failed)?;
    }
    transaction.batch_execute(next.sql).await.map_err(failed)?;
    const RECORD: &str = "insert into postrider.migration (part, number, name, sha256) \
                          values ($1, $2, $3, $4)";
    let checksum = next.checksum();
    let values: [&(dyn ToSql + Sync); 4] = [&migrations.part, &next.number, &next.name, &checksum];
    transaction.execute(RECORD, &values).await.map_err(failed)?;
    match transaction.commit().await {
        Ok(()) => Ok(Some(next.name)),
        Err(refusal) if refusal.as_db_error().is_some_and(|error| !ends_session(error)) => {
            Err(failed(refusal))
        }
        Err(source) => Err(MigrationError::Unknown { what: what(), source }),
    }
}

/// Whether the server said no more than that it goes away, which may be after the commit.
fn ends_session(error: &DbError) -> bool {
    matches!(error.severity(), "FATAL" | "PANIC") || error.code().code().starts_with("57P0")
}

async fn lock(
    transaction: &Transaction<'_>,
    part: &str,
    patience: Patience,
) -> Result<(), tokio_postgres::Error> {
    let limit = format!("set local lock_timeout = '{}ms'", patience.0.as_millis().max(1));
    transaction.batch_execute(&limit).await?;
    take(transaction, &format!("postrider.migration/{part}")).await
}

/// Advisory locks share one space of numbers in a database; a hash of our own name keeps clear of
/// those that others pick by hand.
async fn take(transaction: &Transaction<'_>, key: &str) -> Result<(), tokio_postgres::Error> {
    const LOCK: &str = "select pg_advisory_xact_lock(hashtextextended($1, 0))";
    transaction.execute(LOCK, &[&key]).await?;
    Ok(())
}

struct Row {
    number: i32,
    name: String,
    sha256: String,
}

async fn recorded(
    transaction: &Transaction<'_>,
    part: &str,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    const EXISTS: &str = "select to_regclass('postrider.migration') is not null";
    if !transaction.query_one(EXISTS, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    const ROWS: &str =
        "select number, name, sha256 from postrider.migration where part = $1 order by number";
    let rows = transaction.query(ROWS, &[&part]).await?;
    rows.iter()
        .map(|row| {
            Ok(Row { number: row.try_get(0)?, name: row.try_get(1)?, sha256: row.try_get(2)? })
        })
        .collect()
}

/// `if not exists` asks for the right to create even where nothing is to be created, so it is looked
/// for first: a role without that right can go on migrating where an administrator made the schema.
async fn prepare(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    // Of two parts that begin at once, neither sees what the other one creates.
    take(transaction, "postrider.migration").await?;
    const SCHEMA: &str = "select to_regnamespace('postrider') is not null";
    if !transaction.query_one(SCHEMA, &[]).await?.try_get::<_, bool>(0)? {
        transaction.batch_execute("create schema if not exists postrider").await?;
    }
    const TABLE: &str = "select to_regclass('postrider.migration') is not null";
    if !transaction.query_one(TABLE, &[]).await?.try_get::<_, bool>(0)? {
        const CREATE: &str = "create table if not exists postrider.migration (
            part text not null,
            number int not null,
            name text not null,
            sha256 text not null,
            applied_at timestamptz not null default now(),
            applied_by text not null default current_user,
            primary key (part, number)
        )";
        transaction.batch_execute(CREATE).await?;
    }
    Ok(())
}

fn check_numbers(migrations: &Migrations) -> Result<(), MigrationError> {
    for (place, (step, expected)) in migrations.steps.iter().zip(1..).enumerate() {
        if step.number != expected {
            let (part, number, place) = (migrations.part, step.number, place + 1);
            return Err(MigrationError::Numbering { part, number, place });
        }
    }
    Ok(())
}

/// The first step that the database lacks, if what it has is what we know. Pure.
fn compare<'a>(
    migrations: &'a Migrations,
    rows: &[Row],
) -> Result<Option<&'a Migration>, MigrationError> {
    const SHOWN: usize = 12;
    let part = migrations.part;
    for (row, expected) in rows.iter().zip(1..) {
        if row.number != expected {
            return Err(MigrationError::Gap { part, missing: expected, later: row.number });
        }
        let Some(step) = migrations.steps.iter().find(|step| step.number == row.number) else {
            let newest = migrations.steps.last().map_or(0, |step| step.number);
            let (number, name) = (row.number, row.name.clone());
            return Err(MigrationError::Newer { part, number, name, newest });
        };
        let embedded = step.checksum();
        if row.sha256 != embedded {
            return Err(MigrationError::Changed {
                part,
                number: step.number,
                name: step.name,
                applied: row.sha256.chars().take(SHOWN).collect(),
                embedded: embedded.chars().take(SHOWN).collect(),
            });
        }
    }
    Ok(migrations.steps.get(rows.len()))
}

fn failure(what: String, patience: Patience, source: tokio_postgres::Error) -> MigrationError {
    match source.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            MigrationError::Locked { what, waited: patience.0, cause: source }
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let message = source.as_db_error().map(|error| error.message().to_owned());
            MigrationError::Forbidden { what, message: message.unwrap_or_default(), cause: source }
        }
        _ => MigrationError::Failed { what, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Migrations = Migrations {
        part: "test",
        steps: &[
            Migration { number: 1, name: "one.sql", sql: "select 1" },
            Migration { number: 2, name: "two.sql", sql: "select 2" },
        ],
    };

    fn row(number: i32) -> Row {
        let step = STEPS.steps.iter().find(|step| step.number == number);
        let sha256 = step.map(Migration::checksum).unwrap_or_default();
        Row { number, name: format!("{number}.sql"), sha256 }
    }

    fn next(rows: &[Row]) -> Result<Option<i32>, String> {
        compare(&STEPS, rows).map(|step| step.map(|s| s.number)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_missing_step_is_next() {
        assert_eq!(next(&[]), Ok(Some(1)));
        assert_eq!(next(&[row(1)]), Ok(Some(2)));
        assert_eq!(next(&[row(1), row(2)]), Ok(None));
    }

    #[test]
    fn what_differs_is_refused_by_name() {
        let changed = Row { sha256: "0123456789abcdef".into(), ..row(1) };
        let error = next(&[changed]).unwrap_err();
        assert!(error.contains("test/1 one.sql was changed"), "{error}");
        assert!(error.contains("checksum 0123456789ab…, this program 822ae07d4783…"), "{error}");

        let windows = Migration { sql: "select 1;\r\nselect 2", ..STEPS.steps[0] };
        let unix = Migration { sql: "select 1;\nselect 2", ..windows };
        assert_eq!(windows.checksum(), unix.checksum(), "line ends are no change");

        let error = next(&[row(1), row(2), row(3)]).unwrap_err();
        assert!(error.contains("has migration test/3 3.sql"), "{error}");
        assert!(error.contains("ends with 2"), "{error}");

        let error = next(&[row(2)]).unwrap_err();
        assert!(error.contains("has migration test/2 but not test/1"), "{error}");
    }

    #[test]
    fn numbers_have_no_gap() {
        const WRONG: Migrations = Migrations {
            part: "test",
            steps: &[Migration { number: 2, name: "two.sql", sql: "" }],
        };
        let error = check_numbers(&WRONG).unwrap_err().to_string();
        assert!(error.contains("2 stands at place 1"), "{error}");
        check_numbers(&OUTBOX).unwrap();
    }
}
