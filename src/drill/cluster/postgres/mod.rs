//! A real Postgres, any version from 13 to 18, that can be stopped, killed, frozen and brought
//! back with other settings.
//!
//! Guarantee: a server that [`Postgres::start`] returned takes connections; one that
//! [`Postgres::kill`] returned from has no process left, so a restart finds its memory free.
//! Bounded by: [`BOOT_DEADLINE`], [`STOP_DEADLINE`] and the SQL deadline of a minute.
//! Tested by: `tests/services/cluster_postgres.rs`.

mod settings;
mod sql;
mod standby;
mod template;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Config;

use super::certificates::{Certificates, Identity};
use super::process::process_state;
use super::services::Services;
use super::{Launch, Process, RunDir, free_port, wait_until};
use settings::Settings;
use template::SUPERUSER;

pub use settings::Access;
pub use sql::Rows;
pub use standby::StandbyOptions;

/// A boot takes half a second; crash recovery after a drill, on a busy machine, much longer.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);
/// A fast stop writes a checkpoint. One that waits for a walsender never ends: that is a fact to
/// be reported, not to be waited for.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
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

/// How to stop, as `pg_ctl stop -m` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Waits for every client to leave.
    Smart,
    /// Ends sessions, waits for walsenders to have sent everything, and writes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers.
    Immediate,
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
    process: Option<Process>,
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
        let server = Self::boot_anywhere(run, bin, folder, settings, options)?;
        if matches!(server.access, Access::Scram | Access::ScramOverTls) {
            server.sql("postgres", &format!("alter role {SUPERUSER} password '{PASSWORD}'"))?;
        }
        Ok(server)
    }

    /// A first start, which may choose its port again.
    fn boot_anywhere(
        run: &Arc<RunDir>,
        bin: PathBuf,
        folder: PathBuf,
        settings: Settings,
        options: PostgresOptions,
    ) -> Result<Self> {
        let mut server = Self {
            name: format!("postgres {}", options.version),
            version: options.version,
            bin,
            folder,
            access: options.access,
            port: 0,
            run: Arc::clone(run),
            state: Mutex::new(State { settings, process: None }),
        };
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
        self.state().process.as_ref().is_some_and(Process::running)
    }

    /// The postmaster's pid.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.process(&self.state())?.pid())
    }

    /// Stops it and waits for the end.
    pub fn stop(&self, how: Shutdown) -> Result<()> {
        self.request_stop(how)?;
        self.wait_stopped(STOP_DEADLINE)
    }

    /// Asks it to stop and returns at once.
    pub fn request_stop(&self, how: Shutdown) -> Result<()> {
        let signal = match how {
            Shutdown::Smart => Signal::TERM,
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        self.process(&self.state())?.signal(signal)
    }

    /// Waits for the end of a stop that was asked for.
    pub fn wait_stopped(&self, deadline: Duration) -> Result<()> {
        let mut state = self.state();
        self.process(&state)?.wait_exit(deadline)?;
        state.process = None;
        Ok(())
    }

    /// `kill -9` of the postmaster and of every process of the server, and waits until none is left.
    pub fn kill(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(process) = state.process.take() {
            process.kill()?;
        }
        // Its children notice within a second or two, unless they are frozen or blocked in a send.
        RunDir::kill_all_in(&self.data())
    }

    /// Starts it again where it was, with settings changed; on the same port.
    pub fn start_again(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut state = self.state();
        if state.process.as_ref().is_some_and(Process::running) {
            bail!("{} runs already: stop or kill it first", self.name);
        }
        change(&mut state.settings, settings);
        self.boot(&mut state)
    }

    /// Changes settings that need no restart.
    pub fn reload(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut state = self.state();
        change(&mut state.settings, settings);
        self.write_settings(&state.settings)?;
        self.process(&state)?.signal(Signal::HUP)
    }

    /// SIGSTOP for the postmaster and every process of the server. Connections stay open and
    /// nothing answers, as on a machine that hangs.
    pub fn freeze(&self) -> Result<()> {
        let state = self.state();
        self.process(&state)?.freeze()?;
        // The postmaster forks nothing any more, so this ends.
        let data = self.data();
        wait_until(STOP_DEADLINE, &format!("all of {} to freeze", self.name), || {
            let moving: Vec<i32> = RunDir::processes_in(&data)
                .into_iter()
                .filter(|pid| process_state(*pid).is_some_and(|state| state != 'T'))
                .collect();
            for pid in &moving {
                signal_one(*pid, Signal::STOP);
            }
            Ok(moving.is_empty().then_some(()))
        })
    }

    /// SIGCONT for all of it.
    pub fn thaw(&self) -> Result<()> {
        let state = self.state();
        for pid in RunDir::processes_in(&self.data()) {
            signal_one(pid, Signal::CONT);
        }
        self.process(&state)?.thaw()
    }

    /// SIGSTOP for one process of the server, such as a walsender or the checkpointer, and waits
    /// until it is stopped.
    pub fn freeze_one(&self, pid: i32) -> Result<()> {
        self.own(pid)?;
        signal_one(pid, Signal::STOP);
        wait_until(STOP_DEADLINE, &format!("process {pid} to freeze"), || {
            Ok((process_state(pid) == Some('T')).then_some(()))
        })
    }

    /// SIGCONT for one process of the server.
    pub fn thaw_one(&self, pid: i32) -> Result<()> {
        self.own(pid)?;
        signal_one(pid, Signal::CONT);
        Ok(())
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

    fn process<'s>(&self, state: &'s State) -> Result<&'s Process> {
        state.process.as_ref().with_context(|| format!("{} is not running", self.name))
    }

    fn own(&self, pid: i32) -> Result<()> {
        ensure!(
            RunDir::processes_in(&self.data()).contains(&pid),
            "process {pid} is none of {}",
            self.name
        );
        Ok(())
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
        state.process = Some(process);
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

/// A signal for a process of the server that was found a moment ago; gone is fine.
fn signal_one(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, signal).ok();
    }
}
