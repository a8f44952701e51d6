//! The role behind `postrider run`: for now it watches the outbox that it will relay.
//!
//! Hops 2 and 3 are not built yet, and this module says so at every start. What it does already is
//! what surrounds them: it keeps a connection pool, looks at the server and the table again and
//! again, and tells over `/ready` and in the log what is wrong with them and what mends it.
//!
//! Guarantee: nothing is written, to Postgres or to Kafka.
//! Bounded by: the pool's size and patience, one look at a time, `outbox.check_interval` between two.
//! Tested by: `tests/services/run.rs`.

use std::time::Duration;

use crate::config::{Key, Kind, Reader, Section};
use crate::daemon::{Assembly, Failure, ProcessConfig};
use crate::observe::PoolUse;
use crate::outbox::TableName;
use crate::postgres::{Pool, PostgresConfig};

mod init;
mod watch;

pub use init::{InitError, Part, apply_once};

use watch::Watch;

/// What `postrider run` and `postrider init --apply` read: one file serves both.
pub type RunConfig = (ProcessConfig, PostgresConfig, OutboxConfig);

/// Which table is the outbox.
#[derive(Debug, Clone)]
pub struct OutboxConfig {
    /// The table.
    pub table: TableName,
    /// How often to look whether it is as it should be.
    pub check_interval: Duration,
}

impl Section for OutboxConfig {
    const KEYS: &'static [Key] = &[
        Key {
            path: "outbox.table",
            kind: Kind::Text,
            default: Some("public.outbox"),
            help: "The outbox table, as `schema.table`. Names are taken as written, upper case \
                   included.",
        },
        Key {
            path: "outbox.check_interval",
            kind: Kind::Duration,
            default: Some("10s"),
            help: "How often to look whether server and table are as they should be; `/ready` says \
                   what was found.",
        },
    ];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let table = raw.text("outbox.table");
        let range = Duration::from_millis(100)..=Duration::from_secs(3600);
        let check_interval = raw.duration("outbox.check_interval", range);
        let table = match table?.parse::<TableName>() {
            Ok(table) => Some(table),
            Err(error) => {
                raw.problem("outbox.table", "must be table or schema.table", error.rule());
                None
            }
        };
        Some(Self { table: table?, check_interval: check_interval? })
    }
}

/// Builds the role.
///
/// # Errors
///
/// A certificate or a password file that cannot be used.
pub fn build(
    assembly: &mut Assembly,
    postgres: &PostgresConfig,
    outbox: OutboxConfig,
) -> Result<(), Failure> {
    tracing::warn!("this version watches the outbox and publishes nothing yet");
    let pool = postgres.pool("relay").map_err(Failure::configuration)?;
    watch_pool(assembly, &pool);
    let watch = Watch::new(&assembly.readiness, pool, outbox);
    assembly.tasks.work("outbox watch", |stop| watch.run(stop));
    Ok(())
}

fn watch_pool(assembly: &mut Assembly, pool: &Pool) {
    let sampled = pool.clone();
    assembly.metrics.watch_pool(pool.name(), move || {
        let status = sampled.status();
        PoolUse { idle: status.idle, used: status.in_use }
    });
    let reloaded = pool.clone();
    assembly.reloads.add("postgres certificates and passwords", move || {
        let pool = reloaded.clone();
        async move { pool.reload().map_err(Into::into) }
    });
}
