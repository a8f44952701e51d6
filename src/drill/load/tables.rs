//! The tables the load writes to, and the aggregates that give each key its versions.
//!
//! Promises to create what is missing and to touch nothing that is there: an outbox table made by
//! `sql/outbox.sql` stays as it is. Refuses a table whose payload column has another type than the
//! plan, and a table that already holds this seed's events, because their ids would collide.
//!
//! Bounded by: one statement a table, and one row a key.
//! Tested by: `tests/services/load.rs`.

use anyhow::{Context as _, bail};
use tokio_postgres::Client;
use uuid::Uuid;

use super::plan::{Payload, Plan, Table, key_name};

/// How many ids of the plan's beginning are looked up to see whether it ran here before.
const IDS_PROBED: usize = 200;

impl Payload {
    /// The column type.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Text => "text",
            Self::Bytea => "bytea",
        }
    }
}

/// Creates what is missing, and checks what is there.
pub async fn setup(client: &Client, plan: &Plan) -> anyhow::Result<()> {
    client
        .batch_execute(
            "create schema if not exists drill;
             create table if not exists drill.aggregate (
                 key text primary key,
                 version bigint not null default 0
             ) with (fillfactor = 50)",
        )
        .await
        .context("create drill.aggregate")?;
    for table in &plan.mix().tables {
        create(client, table).await.with_context(|| format!("create {}", table.name))?;
        check_payload(client, table).await?;
        create_keys(client, table, plan.mix().keys).await?;
    }
    check_unused(client, plan).await
}

/// The table as users get it.
const OUTBOX_SQL: &str = include_str!("../../../sql/outbox.sql");

/// Creates a table if there is none of this name: `public.outbox` as it is shipped, others with the
/// same columns and as little else as possible.
async fn create(client: &Client, table: &Table) -> Result<(), tokio_postgres::Error> {
    let name = &table.name;
    if name == "public.outbox" {
        let there =
            client.query_one("select to_regclass('public.outbox') is not null", &[]).await?;
        if !there.get::<_, bool>(0) {
            client.batch_execute("set search_path = public").await?;
            client.batch_execute(OUTBOX_SQL).await?;
        }
        return Ok(());
    }
    let (schema, _) = name.split_once('.').unwrap_or(("public", name));
    let payload = table.payload.sql();
    client
        .batch_execute(&format!(
            "create schema if not exists {schema};
             create table if not exists {name} (
                 id uuid primary key,
                 aggregatetype text not null,
                 aggregateid text not null,
                 type text not null,
                 payload {payload},
                 seq bigint generated always as identity,
                 txid xid8 not null default pg_current_xact_id(),
                 created_at timestamptz not null default clock_timestamp(),
                 aggregateversion bigint,
                 traceparent text
             )"
        ))
        .await
}

async fn check_payload(client: &Client, table: &Table) -> anyhow::Result<()> {
    let found: Option<String> = client
        .query_opt(
            "select format_type(atttypid, atttypmod) from pg_attribute
             where attrelid = to_regclass($1) and attname = 'payload' and not attisdropped",
            &[&table.name],
        )
        .await
        .with_context(|| format!("read the columns of {}", table.name))?
        .map(|row| row.get(0));
    let planned = table.payload.sql();
    match found {
        Some(found) if found == planned => Ok(()),
        Some(found) => bail!(
            "{}.payload is {found}, but the load was told {planned}; name the right type for this table",
            table.name
        ),
        None => bail!("{} has no payload column, so it is no outbox table", table.name),
    }
}

async fn create_keys(client: &Client, table: &Table, keys: u32) -> anyhow::Result<()> {
    for kind in &table.aggregatetypes {
        let names: Vec<String> = (0..keys).map(|number| key_name(kind, number)).collect();
        client
            .execute(
                "insert into drill.aggregate (key) select unnest($1::text[]) on conflict do nothing",
                &[&names],
            )
            .await
            .with_context(|| format!("create the keys of {kind}"))?;
    }
    Ok(())
}

async fn check_unused(client: &Client, plan: &Plan) -> anyhow::Result<()> {
    let ids: Vec<Uuid> = plan
        .clone()
        .flat_map(|transaction| transaction.rows().map(|row| row.id).collect::<Vec<_>>())
        .take(IDS_PROBED)
        .collect();
    for table in &plan.mix().tables {
        let name = &table.name;
        let used: i64 = client
            .query_one(&format!("select count(*) from {name} where id = any($1)"), &[&ids])
            .await
            .with_context(|| format!("look for earlier events in {name}"))?
            .get(0);
        if used > 0 {
            bail!(
                "{name} already holds events of this seed, and their ids would collide; \
                 choose another seed or an empty database"
            );
        }
    }
    Ok(())
}
