//! Looking at an outbox from outside: is it what a relay can relay?
//!
//! It only reads catalogs, needs no right on the table, and reports everything that is wrong at once.
//! Each defect carries its way out, because whoever reads it has just set the thing up or just
//! broken it.

use std::fmt;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::TableName;

/// Something that stands in the way of relaying, or will when it matters most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defect {
    /// The server writes no logical log.
    WalLevel(String),
    /// There is no such table.
    Missing(TableName),
    /// It is a view, a foreign table or something else that has no log of its own.
    NotATable(TableName),
    /// It, or these partitions of it, are unlogged, temporary or foreign: their rows never reach
    /// the log.
    NotLogged(TableName, Vec<String>),
    /// Columns that routing needs are not there.
    LacksColumns(TableName, Vec<String>),
    /// No publication announces its inserts, or those of these partitions.
    NotPublished(TableName, Vec<String>),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WalLevel(level) => write!(
                f,
                "wal_level is {level}, it must be logical: `alter system set wal_level = 'logical'`, \
                 then restart the server"
            ),
            Self::Missing(table) if table.name() == "outbox" => write!(
                f,
                "there is no table {table}: `postrider init --apply` makes it, or name yours with \
                 outbox.table"
            ),
            Self::Missing(table) => write!(
                f,
                "there is no table {table}: correct outbox.table, or make it with psql from what \
                 `postrider init` prints"
            ),
            Self::NotATable(table) => {
                write!(f, "{table} is no table, and only tables are in the server's log")
            }
            Self::NotLogged(table, parts) => write!(
                f,
                "{} is unlogged, temporary or foreign, so that its rows never reach the server's log: \
                 `alter table {} set logged`, or another kind of table",
                Parts(table, parts),
                parts.first().unwrap_or(&table.quoted())
            ),
            Self::LacksColumns(table, columns) => write!(
                f,
                "{table} lacks the column(s) {}: `postrider init` prints the whole table",
                columns.join(", ")
            ),
            Self::NotPublished(table, parts) => write!(
                f,
                "no publication has the inserts of {} (one with a row filter, or without some of the \
                 columns, does not count): `create publication postrider for table {sql} with (publish \
                 = 'insert', publish_via_partition_root = true)`, or `alter publication … add table \
                 {sql}`",
                Parts(table, parts),
                sql = table.quoted()
            ),
        }
    }
}

/// `app.outbox`, or `outbox_1 and 3 more partitions of app.outbox`.
struct Parts<'a>(&'a TableName, &'a [String]);

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            [] => write!(f, "{}", self.0),
            [one] => write!(f, "partition {one} of {}", self.0),
            [one, more @ ..] => write!(f, "partition {one} of {} and {} more", self.0, more.len()),
        }
    }
}

/// Everything that is wrong with `table` as an outbox whose rows are routed by the columns `routed`;
/// empty means that it is fine.
///
/// # Errors
///
/// The connection failed, or the role may not even read the catalogs.
pub async fn inspect(
    client: &Client,
    table: &TableName,
    routed: &[&str],
) -> Result<Vec<Defect>, tokio_postgres::Error> {
    const SERVER: &str =
        "select current_setting('wal_level'), current_setting('server_version_num')::int4";
    let server = client.query_one(SERVER, &[]).await?;
    let wal_level: String = server.try_get(0)?;
    let mut defects = Vec::new();
    if wal_level != "logical" {
        defects.push(Defect::WalLevel(wal_level));
    }
    let question = question(server.try_get(1)?);
    let quoted = table.quoted();
    let values: [&(dyn ToSql + Sync); 4] = [&quoted, &table.schema(), &table.name(), &routed];
    let Some(row) = client.query_opt(&question, &values).await? else {
        defects.push(Defect::Missing(table.clone()));
        return Ok(defects);
    };
    if !row.try_get::<_, bool>(0)? {
        defects.push(Defect::NotATable(table.clone()));
        return Ok(defects);
    }
    // Where rows end up: the table itself, or its partitions.
    let (places, partitioned): (i64, bool) = (row.try_get(1)?, row.try_get(2)?);
    let whole_or = |found: Vec<String>| {
        let whole = !partitioned || i64::try_from(found.len()) == Ok(places);
        if whole { Vec::new() } else { found }
    };
    let not_logged: Vec<String> = row.try_get(3)?;
    if !not_logged.is_empty() {
        let parts = if partitioned { not_logged } else { Vec::new() };
        defects.push(Defect::NotLogged(table.clone(), parts));
    }
    let columns: Vec<String> = row.try_get(4)?;
    let lacking: Vec<String> = routed
        .iter()
        .filter(|needed| !columns.iter().any(|column| column == *needed))
        .map(|needed| (*needed).to_owned())
        .collect();
    if !lacking.is_empty() {
        defects.push(Defect::LacksColumns(table.clone(), lacking));
    }
    let not_published: Vec<String> = row.try_get(5)?;
    if !not_published.is_empty() {
        defects.push(Defect::NotPublished(table.clone(), whole_or(not_published)));
    }
    Ok(defects)
}

/// The query about the table: `$1` its name as SQL, `$2` its schema or null, `$3` its bare name, `$4`
/// the columns that routing needs.
///
/// A schema's table is looked for in the catalog, since `to_regclass` asks for a right on the schema.
/// A place is published if a publication has it or any table it is a partition of.
fn question(server_version: i32) -> String {
    // Since 15 a publication may hold schemas, and back rows and columns of a table.
    let (whole, by_schema) = if server_version < 150_000 {
        ("true", "false")
    } else {
        (
            "r.prqual is null and (r.prattrs is null or not exists ( \
                select from pg_attribute a where a.attrelid = r.prrelid and a.attname = any ($4) \
                and a.attnum <> all (r.prattrs::int2[])))",
            "exists (select from pg_publication_namespace s \
                join pg_class l on l.relnamespace = s.pnnspid \
                where s.pnpubid = p.oid and l.oid = any (place.lineage))",
        )
    };
    format!(
        "with the as ( \
            select c.oid, c.relkind from pg_class c where c.oid = case \
                when $2::text is null then to_regclass($1)::oid \
                else (select t.oid from pg_class t join pg_namespace n on n.oid = t.relnamespace \
                    where n.nspname = $2 and t.relname = $3) end), \
        leaf as (select t.relid::oid as oid from the, pg_partition_tree(the.oid) t \
            where the.relkind = 'p' and t.isleaf and t.relid <> the.oid), \
        place as ( \
            select c.oid, c.relkind, c.relpersistence, \
                c.oid || array(select a.relid::oid from pg_partition_ancestors(c.oid) a) as lineage \
            from pg_class c where c.oid in (select oid from leaf) \
                or (not exists (select from leaf) and c.oid in (select oid from the))) \
        select the.relkind in ('r', 'p'), (select count(*) from place), the.relkind = 'p', \
            array(select place.oid::regclass::text from place \
                where place.relpersistence <> 'p' or place.relkind not in ('r', 'p') order by 1), \
            array(select attname::text from pg_attribute \
                where attrelid = the.oid and attnum > 0 and not attisdropped and $4::text[] is not null), \
            array(select place.oid::regclass::text from place where not exists ( \
                select from pg_publication p where p.pubinsert and (p.puballtables \
                    or exists (select from pg_publication_rel r where r.prpubid = p.oid \
                        and r.prrelid = any (place.lineage) and {whole}) \
                    or {by_schema})) order by 1) \
        from the"
    )
}
