//! A real Postgres, any version from 13 to 18, that can be stopped, killed, frozen and brought
//! back with other settings.
//!
//! Guarantee: a server that [`Postgres::start`] returned takes connections; one that
//! [`Postgres::kill`] returned from has no process left, so a restart finds its memory free.
//! Bounded by: a minute each for a boot and for SQL, half a minute for a stop.
//! Tested by: `tests/services/cluster_postgres.rs`.

mod faults;
mod settings;
mod sql;
mod standby;
mod template;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_postgres::Config;

use super::certificates::{Certificates, Identity};
use super::services::Services;
use super::{Launch, Process, RunDir, free_port, wait_until};
use settings::Settings;
use template::SUPERUSER;

pub use faults::Shutdown;
pub use settings::Access;
pub use sql::Rows;
pub use standby::StandbyOptions;

/// A boot takes half a second; crash recovery after a drill, on a busy machine, much longer.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);
/// How often a first start tries another port when somebody took the one before.
const PORT_ATTEMPTS: u32 = 5;
/// The superuser's password where [`Access`] asks for one.
pub const PASSWORD: &str = "pr-test-only";

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// The major version, 13 to 18.
    pub version: u16,
    /// `postgresql.conf` settings over the harness's own.
    pub settings: Vec<(String, String)>,
    /// Who may connect over TCP.
    pub access: Access,
    /// The server's certificate and the authority of its clients'; without it TLS is off.
    pub tls: Option<ServerTls>,
}

/// The TLS files of a server.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// What the server shows.
    pub identity: Identity,
    /// The authority that signed the certificates of clients it lets in.
    pub client_authority: PathBuf,
}

impl ServerTls {
    /// The right certificate of a run.
    pub fn of(certificates: &Certificates) -> Self {
        Self::showing(certificates, certificates.server())
    }

    /// Another certificate of a run, such as the one with the wrong name.
    pub fn showing(certificates: &Certificates, identity: &Identity) -> Self {
        Self {
            identity: identity.clone(),
            client_authority: certificates.authority().to_path_buf(),
        }
    }
}

impl PostgresOptions {
    /// A server of this major version as the harness sets it up.
    pub fn version(version: u16) -> Self {
        Self { version, ..Self::default() }
    }

    /// The same with a setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A server of ours, started or not.
#[derive(Debug)]
pub struct Postgres {
    name: String,
    version: u16,
    bin: PathBuf,
    folder: PathBuf,
    access: Access,
    port: u16,
    run: Arc<RunDir>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    /// `None` before the first start and after a stop or a kill.
    process: Option<Arc<Process>>,
}

impl Postgres {
    /// Makes an empty server in the run directory and starts it.
    pub fn start(run: &Arc<RunDir>, options: PostgresOptions) -> Result<Self> {
        let services = Services::find()?;
        let binaries = services.postgres(options.version)?;
        let (bin, folder) = prepare(run, &binaries.bin, options.version, "pg")?;
        template::make_data(run, services.folder(), binaries, &bin, &folder)?;
        let over = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut settings = settings::merged(over);
        if let Some(tls) = &options.tls {
            install_tls(run, &folder, tls, &mut settings)?;
        }
        write_for_server(
            run,
            &folder.join("data/pg_hba.conf"),
            &settings::access_file(options.access),
        )?;
        let server = Self::boot_anywhere(Self {
            name: format!("postgres {}", options.version),
            version: options.version,
            bin,
            folder,
            access: options.access,
            port: 0,
            run: Arc::clone(run),
            state: Mutex::new(State { settings, process: None }),
        })?;
        if matches!(server.access, Access::Scram | Access::ScramOverTls) {
            server.sql("postgres", &format!("alter role {SUPERUSER} password '{PASSWORD}'"))?;
        }
        Ok(server)
    }

    /// A first start, which may choose its port again.
    fn boot_anywhere(mut server: Self) -> Result<Self> {
        let mut attempt = 1;
        loop {
            server.port = free_port()?;
            let booted = server.boot(&mut server.state());
            match booted {
                Ok(()) => return Ok(server),
                Err(error)
                    if attempt < PORT_ATTEMPTS
                        && format!("{error:#}").contains("Address already in use") =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Its major version.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Its port on 127.0.0.1, the same over its whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of its unix socket.
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// The server's log; it goes on over restarts.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// A URL over TCP, for the superuser, with a password where the server asks for one.
    pub fn url(&self, database: &str) -> String {
        let password = match self.access {
            Access::Trust | Access::Certificate => String::new(),
            Access::Scram | Access::ScramOverTls => format!(":{PASSWORD}"),
        };
        format!("postgres://{SUPERUSER}{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// A URL through the unix socket, for the superuser, who is trusted there.
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{SUPERUSER}@{folder}:{}/{database}", self.port)
    }

    /// Runs statements as the superuser and returns the rows of the last one that has any.
    pub fn sql(&self, database: &str, statements: &str) -> Result<Rows> {
        sql::with_client(self.config(database), async |client| sql::rows(client, statements).await)
            .with_context(|| format!("{} was asked in database {database}", self.name))
    }

    /// The first column of the first row of [`Postgres::sql`].
    pub fn ask(&self, database: &str, question: &str) -> Result<String> {
        let rows = self.sql(database, question)?;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        value.with_context(|| format!("no value answers: {question}"))
    }

    /// Makes a database. The name is used as it is, in quotes.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.sql("postgres", &format!("create database \"{name}\"")).map(drop)
    }

    /// Whether the postmaster is there; a frozen one is.
    pub fn running(&self) -> bool {
        self.state().process.as_ref().is_some_and(|process| process.running())
    }

    /// The postmaster's pid.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.process()?.pid())
    }

    /// Makes a standby the primary of a new timeline, and waits until it takes writes.
    pub fn promote(&self) -> Result<()> {
        let promoted = self.ask("postgres", "select pg_promote(true, 30)")?;
        ensure!(promoted == "t", "{} was not promoted within 30 s", self.name);
        wait_until(BOOT_DEADLINE, &format!("{} to take writes", self.name), || {
            let standby = self.ask("postgres", "select pg_is_in_recovery()")?;
            Ok((standby == "f").then_some(()))
        })
    }

    /// Waits until a standby has replayed the WAL up to a position of its primary.
    pub fn wait_replayed(&self, lsn: &str, deadline: Duration) -> Result<()> {
        let question = format!("select pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn");
        wait_until(deadline, &format!("{} to replay {lsn}", self.name), || {
            Ok((self.ask("postgres", &question)? == "t").then_some(()))
        })
    }

    /// Where the server's WAL ends now: written, and with `fsync` on also flushed.
    pub fn wal_position(&self) -> Result<String> {
        self.ask("postgres", "select pg_current_wal_flush_lsn()")
    }

    fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(&self.folder)
            .port(self.port)
            .user(SUPERUSER)
            .dbname(database)
            .application_name("postrider-harness")
            .connect_timeout(Duration::from_secs(10));
        config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The postmaster, to be worked with while nobody else is kept from asking about it.
    fn process(&self) -> Result<Arc<Process>> {
        let process = self.state().process.clone();
        process.with_context(|| format!("{} is not running", self.name))
    }

    fn write_settings(&self, settings: &Settings) -> Result<()> {
        let mut settings = settings.clone();
        settings.insert("port".to_owned(), self.port.to_string());
        let folder = self.folder.display().to_string();
        settings.insert("unix_socket_directories".to_owned(), folder);
        write_for_server(
            &self.run,
            &self.data().join("postgresql.conf"),
            &settings::file(&settings),
        )
    }

    fn boot(&self, state: &mut State) -> Result<()> {
        self.write_settings(&state.settings)?;
        let process = Process::spawn(
            &self.run,
            Launch {
                name: self.name.clone(),
                program: self.bin.join("postgres"),
                arguments: vec!["-D".into(), self.data().into()],
                environment: vec![],
                folder: self.folder.clone(),
                log: self.log(),
            },
        )?;
        let pid_file = self.data().join("postmaster.pid");
        let pid = process.pid().to_string();
        process.wait_until(BOOT_DEADLINE, "it to take connections", || {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            // Line 1 tells this server from the one before, line 8 is its state: a standby is
            // "ready" as well once it takes connections.
            let ready = lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready");
            Ok(ready.then_some(()))
        })?;
        state.process = Some(Arc::new(process));
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The files stay until the run directory goes: its warden reads postmaster.pid.
        self.kill().ok();
    }
}

/// The server's folder, and its programs where its account can reach them.
fn prepare(run: &Arc<RunDir>, bin: &Path, version: u16, kind: &str) -> Result<(PathBuf, PathBuf)> {
    // `bin` needs the `lib` and `share` beside it.
    let home = bin.parent().context("a bin folder has a parent")?;
    let bin = run.reachable(home)?.join("bin");
    let folder = run.server_folder(&format!("{kind}{version}"))?;
    Ok((bin, folder))
}

fn change(settings: &mut Settings, over: &[(&str, &str)]) {
    for (name, value) in over {
        settings.insert((*name).to_owned(), (*value).to_owned());
    }
}

fn write_for_server(run: &RunDir, file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    run.hand_over(file)
}

/// Copies the TLS files: a server's key must belong to its account and to nobody else.
fn install_tls(
    run: &RunDir,
    folder: &Path,
    tls: &ServerTls,
    settings: &mut Settings,
) -> Result<()> {
    settings.insert("ssl".to_owned(), "on".to_owned());
    let files = [
        ("ssl_cert_file", &tls.identity.certificate),
        ("ssl_key_file", &tls.identity.key),
        ("ssl_ca_file", &tls.client_authority),
    ];
    for (setting, source) in files {
        let file = folder.join(setting);
        fs::copy(source, &file)?;
        run.hand_over(&file)?;
        settings.insert(setting.to_owned(), file.display().to_string());
    }
    Ok(())
}
