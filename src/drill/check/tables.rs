//! Reads the outbox tables: the truth everything else is measured by.
//!
//! Promises: one repeatable-read snapshot over all tables, streamed row by row; columns that a
//! table lacks are recorded as lacking, so that a claim that needs them is not called checked.
//! Refuses to write: the transaction is read only.

use std::pin::pin;

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::TryStreamExt as _;
use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use super::evidence::{Evidence, NO_KEY, Number, Row, Table, digest};

/// Ids asked for in one statement of the second look.
const LOOKUP_BATCH: usize = 10_000;

/// Which tables to read, and how their rows map to topics.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Names as Postgres understands them.
    pub tables: Vec<String>,
    /// Put before `aggregatetype` to get the topic.
    pub topic_prefix: String,
    /// The column with the payload; none if payloads are not to be compared.
    pub payload: Option<String>,
}

/// An open connection to the database with the tables.
pub struct Tables {
    client: Client,
    wanted: Wanted,
    sources: Vec<Source>,
    /// Drives the connection; ends with this value.
    _connection: JoinSet<Result<(), tokio_postgres::Error>>,
}

/// How one table is read.
struct Source {
    select: String,
    id: Type,
}

impl Tables {
    /// Connects and looks at the tables' columns.
    ///
    /// # Errors
    /// When the database cannot be reached, or a table is missing or is no outbox.
    pub async fn open(
        url: &str,
        root_certificates: Option<&std::path::Path>,
        wanted: Wanted,
        evidence: &mut Evidence,
    ) -> Result<Self> {
        let (client, connection) = connect(url, root_certificates).await?;
        // Rows that a policy hides from this user would count as not committed. So the server
        // shall refuse instead of hiding.
        client.batch_execute("set row_security = off").await.context("ask for every row")?;
        let standby = client.query_one("select pg_is_in_recovery()", &[]).await;
        if standby.context("ask what kind of server this is")?.get(0) {
            let note =
                "the tables are a standby's: nothing is demanded for rows it has yet to replay";
            evidence.notes.push(note.to_owned());
        }
        let mut sources = Vec::new();
        for name in &wanted.tables {
            let (table, source) = describe(&client, name, wanted.payload.as_deref()).await?;
            if evidence.tables.iter().any(|known| known.name == table.name) {
                bail!("table {} is named twice", table.name);
            }
            evidence.tables.push(table);
            sources.push(source);
        }
        Ok(Self { client, wanted, sources, _connection: connection })
    }

    /// Reads every row into the evidence.
    ///
    /// # Errors
    /// When the connection breaks or a row cannot be understood.
    pub async fn read(&self, evidence: &mut Evidence) -> Result<()> {
        self.client
            .batch_execute("begin transaction isolation level repeatable read, read only")
            .await
            .context("start reading the tables")?;
        for (table, source) in (0..).zip(&self.sources) {
            let no_parameters = std::iter::empty::<&(dyn ToSql + Sync)>();
            self.stream(&source.select, no_parameters, table, false, evidence).await?;
        }
        self.client.batch_execute("commit").await.context("end reading the tables")?;
        evidence.seal();
        Ok(())
    }

    /// Asks again for ids that were seen in the topics but not in the tables: on a live system
    /// their rows may have been committed in the meantime. Found ones are added as late rows.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub async fn look_again(&self, strangers: Vec<u128>, evidence: &mut Evidence) -> Result<()> {
        for batch in strangers.chunks(LOOKUP_BATCH) {
            let ids: Vec<Uuid> = batch.iter().copied().map(Uuid::from_u128).collect();
            let ids: &(dyn ToSql + Sync) = &ids;
            for (table, source) in (0..).zip(&self.sources) {
                // Text may spell a UUID in several ways: it is compared as what it means.
                let id = if source.id == Type::UUID { "id" } else { "id::text::uuid" };
                let select = format!("{} where {id} = any($1)", source.select);
                self.stream(&select, [ids], table, true, evidence).await?;
            }
        }
        evidence.seal();
        Ok(())
    }

    async fn stream<'a>(
        &self,
        select: &str,
        parameters: impl IntoIterator<Item = &'a (dyn ToSql + Sync), IntoIter: ExactSizeIterator>,
        table: u16,
        late: bool,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let name = evidence.tables[usize::from(table)].name.clone();
        let reading = || format!("read table {name}");
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.into_iter().collect();
        let rows = self.client.query_raw(select, parameters).await.with_context(reading)?;
        let mut rows = pin!(rows);
        while let Some(found) = rows.try_next().await.with_context(reading)? {
            let row = self.row(&found, table, late, evidence);
            evidence.rows.push(row.with_context(reading)?);
        }
        Ok(())
    }

    fn row(
        &self,
        found: &tokio_postgres::Row,
        table: u16,
        late: bool,
        evidence: &mut Evidence,
    ) -> Result<Row> {
        let id: &str = found.try_get(0)?;
        let id = Uuid::parse_str(id).map_err(|_| {
            anyhow!("id {id:?} is not a UUID; the checker compares events by UUID only")
        })?;
        let kind: &str = found.try_get(1)?;
        let key: Option<&str> = found.try_get(2)?;
        let payload: Option<&[u8]> = found.try_get(6)?;
        Ok(Row {
            id: id.as_u128(),
            version: Number::maybe(found.try_get(3)?),
            txid: Number::maybe(found.try_get(4)?),
            seq: Number::maybe(found.try_get(5)?),
            payload: digest(payload),
            key: key.map_or(NO_KEY, |key| evidence.keys.intern(key.as_bytes())),
            topic: evidence.topics.intern(format!("{}{kind}", self.wanted.topic_prefix).as_bytes()),
            table,
            late,
        })
    }
}

/// Finds a table's columns and writes the statement that reads it.
async fn describe(client: &Client, name: &str, payload: Option<&str>) -> Result<(Table, Source)> {
    let columns = client
        .query(
            "select quote_ident(n.nspname) || '.' || quote_ident(c.relname), \
                    a.attname, coalesce(nullif(t.typbasetype, 0), t.oid) \
             from pg_class c \
             join pg_namespace n on n.oid = c.relnamespace \
             join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
             join pg_type t on t.oid = a.atttypid \
             where c.oid = to_regclass($1)",
            &[&name],
        )
        .await
        .with_context(|| format!("look at table {name}"))?;
    let Some(first) = columns.first() else {
        bail!("table {name} does not exist, or this user may not see its schema");
    };
    let full_name: String = first.get(0);
    let of = |column: &str| {
        let found = columns.iter().find(|row| row.get::<_, &str>(1) == column);
        found.map(|row| Type::from_oid(row.get(2)).unwrap_or(Type::UNKNOWN))
    };
    for required in ["id", "aggregatetype", "aggregateid"] {
        if of(required).is_none() {
            bail!("table {full_name} has no column {required}: it is not an outbox table");
        }
    }
    let number = |column: &str| match of(column) {
        Some(_) => format!("{column}::text::bigint"),
        None => "null::bigint".to_owned(),
    };
    let payload_column = match payload {
        None => "null::bytea".to_owned(),
        Some(column) => match of(column) {
            None => bail!("table {full_name} has no column {column}; see --payload-column"),
            Some(Type::BYTEA) => quoted(column),
            Some(_) => format!("convert_to({}::text, 'UTF8')", quoted(column)),
        },
    };
    let (version, txid, seq) = (number("aggregateversion"), number("txid"), number("seq"));
    let select = format!(
        "select id::text, aggregatetype::text, aggregateid::text, {version}, {txid}, {seq}, \
         {payload_column} from {full_name}"
    );
    let table = Table {
        name: full_name,
        has_txid: of("txid").is_some(),
        has_version: of("aggregateversion").is_some(),
        has_seq: of("seq").is_some(),
        has_payload: payload.is_some(),
    };
    Ok((table, Source { select, id: of("id").unwrap_or(Type::UNKNOWN) }))
}

fn quoted(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}

type Connected = (Client, JoinSet<Result<(), tokio_postgres::Error>>);

/// Where a configuration leads to, for messages; it may hold a password besides.
fn places(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    });
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    format!("{}, port {}", hosts.collect::<Vec<_>>().join(" or "), ports.join(" or "))
}

/// Connects with TLS unless the URL says `sslmode=disable` or the server has none to offer.
async fn connect(url: &str, root_certificates: Option<&std::path::Path>) -> Result<Connected> {
    // The URL may hold a password: it is not repeated in messages.
    let mut config: Config = url.parse().context("understand the Postgres URL")?;
    if config.get_password().is_none()
        && let Some(password) = std::env::var_os("PGPASSWORD")
    {
        config.password(password.to_string_lossy().as_bytes());
    }
    config.application_name("drill check");
    let mut driver = JoinSet::new();
    let failed = || format!("connect to Postgres at {}", places(&config));
    let client = if config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = config.connect(NoTls).await.with_context(failed)?;
        driver.spawn(connection);
        client
    } else {
        let tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls(root_certificates)?);
        let (client, connection) = config.connect(tls).await.with_context(failed)?;
        driver.spawn(connection);
        client
    };
    Ok((client, driver))
}

/// Verifies the server against a file of root certificates, or those of the system.
fn tls(root_certificates: Option<&std::path::Path>) -> Result<rustls::ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    match root_certificates {
        None => {
            // A server without TLS needs none of them, so none found is no error yet.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        Some(path) => {
            let reading = || format!("read root certificates from {}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).with_context(reading)? {
                roots.add(certificate.with_context(reading)?).with_context(reading)?;
            }
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("set up TLS")?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
