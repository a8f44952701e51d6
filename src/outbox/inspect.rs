//! Looking at an outbox from outside: is it what a relay can relay?
//!
//! It only reads catalogs, needs no right on the table, and reports everything that is wrong at once.
//! Each defect carries its way out, because whoever reads it has just set the thing up or just
//! broken it.

use std::fmt;

use tokio_postgres::Client;

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
    /// It is unlogged or temporary: its rows never reach the log.
    NotLogged(TableName),
    /// Columns that routing needs are not there.
    LacksColumns(TableName, Vec<String>),
    /// No publication announces its inserts.
    NotPublished(TableName),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WalLevel(level) => write!(
                f,
                "wal_level is {level}, it must be logical: `alter system set wal_level = 'logical'`, \
                 then restart the server"
            ),
            Self::Missing(table) => write!(
                f,
                "there is no table {table}: `postrider init --apply` makes it, or name yours with \
                 outbox.table"
            ),
            Self::NotATable(table) => {
                write!(f, "{table} is no table, and only tables are in the server's log")
            }
            Self::NotLogged(table) => write!(
                f,
                "{table} is unlogged or temporary, so that its rows never reach the server's log: \
                 `alter table {table} set logged`"
            ),
            Self::LacksColumns(table, columns) => write!(
                f,
                "{table} lacks the column(s) {}: `postrider init` prints the whole table, \
                 docs/routing.md says how to name others",
                columns.join(", ")
            ),
            Self::NotPublished(table) => write!(
                f,
                "no publication has the inserts of {table}: `create publication postrider for table \
                 {table} with (publish = 'insert')`"
            ),
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
    const SERVER: &str = "select current_setting('wal_level')";
    let wal_level: String = client.query_one(SERVER, &[]).await?.try_get(0)?;
    let mut defects = Vec::new();
    if wal_level != "logical" {
        defects.push(Defect::WalLevel(wal_level));
    }
    // Named itself, or listed by way of all tables or a schema. The list holds a partitioned table's
    // partitions unless changes go by the root, so one of them stands for it.
    const TABLE: &str = "select c.relkind in ('r', 'p'), c.relpersistence = 'p', \
        array(select attname::text from pg_attribute \
              where attrelid = c.oid and attnum > 0 and not attisdropped), \
        exists (select from pg_publication p \
                where p.pubinsert and (p.puballtables or exists ( \
                    select from pg_publication_rel r \
                    where r.prpubid = p.oid and r.prrelid = c.oid) or exists ( \
                    select from pg_publication_tables t \
                    join pg_namespace n on n.nspname = t.schemaname \
                    join pg_class member on member.relname = t.tablename \
                        and member.relnamespace = n.oid \
                    where t.pubname = p.pubname and (member.oid = c.oid or exists ( \
                        select from pg_inherits i \
                        where i.inhparent = c.oid and i.inhrelid = member.oid))))) \
        from pg_class c where c.oid = to_regclass($1)";
    let Some(row) = client.query_opt(TABLE, &[&table.quoted()]).await? else {
        defects.push(Defect::Missing(table.clone()));
        return Ok(defects);
    };
    if !row.try_get::<_, bool>(0)? {
        defects.push(Defect::NotATable(table.clone()));
        return Ok(defects);
    }
    if !row.try_get::<_, bool>(1)? {
        defects.push(Defect::NotLogged(table.clone()));
    }
    let columns: Vec<String> = row.try_get(2)?;
    let lacking: Vec<String> = routed
        .iter()
        .filter(|needed| !columns.iter().any(|column| column == *needed))
        .map(|needed| (*needed).to_owned())
        .collect();
    if !lacking.is_empty() {
        defects.push(Defect::LacksColumns(table.clone(), lacking));
    }
    if !row.try_get::<_, bool>(3)? {
        defects.push(Defect::NotPublished(table.clone()));
    }
    Ok(defects)
}
