//! One broker: its folder, its process, and what can be done to it.
//!
//! Promises that a restart finds the same data, node id and ports, and that `start_again` returns
//! when the cluster counts the broker among its own, not when a port opens. A broker is also a
//! controller: with two of three gone the remaining one serves what it leads but decides nothing.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::admin::Admin;
use super::installation::{Installation, LIBS};
use super::security::{Endpoint, Security};
use super::settings::{Ports, server_properties};
use crate::drill::cluster::{Launch, Process, RunDir};

const LOG4J: &str = include_str!("log4j2.properties");

/// A broker is up in 1–3 s; both cores may be busy with a build.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(60);
/// An orderly stop takes 0.3 s, and 5 s where no controller answers any more. A first start that
/// writes down its classes takes 3 s more.
const STOP_DEADLINE: Duration = Duration::from_secs(45);
/// A port on loopback accepts or refuses at once; a frozen broker's accepts too.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// What all brokers of a cluster share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) installation: Installation,
    pub(super) cluster_id: String,
    pub(super) ports: Vec<Ports>,
    pub(super) security: Option<Security>,
    /// The test's own settings.
    pub(super) own: Vec<(String, String)>,
    /// Loaded classes to start from, reachable for the servers' account.
    pub(super) archive: Option<PathBuf>,
    /// Flags after all others.
    pub(super) java_flags: Vec<String>,
}

/// A node of a [`super::Kafka`]. Ids count from 1.
#[derive(Debug)]
pub struct Broker {
    index: usize,
    folder: PathBuf,
    plan: Arc<Plan>,
    admin: Arc<Admin>,
    run: Arc<RunDir>,
    /// None until the first start.
    process: Mutex<Option<Arc<Process>>>,
}

/// Where a proxy sits in front of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// The port the proxy must listen on: what the broker tells its clients.
    pub listen: u16,
    /// The broker's own port, to which the proxy forwards.
    pub forward_to: u16,
}

impl Broker {
    /// Prepares the folder; nothing runs yet.
    pub(super) fn prepare(
        run: &Arc<RunDir>,
        plan: &Arc<Plan>,
        admin: &Arc<Admin>,
        index: usize,
    ) -> Result<Self> {
        let folder = run.server_folder("kafka")?;
        for name in ["data", "tmp"] {
            fs::create_dir(folder.join(name))?;
            run.hand_over(&folder.join(name))?;
        }
        let jars = run.reachable(&plan.installation.jars)?;
        std::os::unix::fs::symlink(jars, folder.join(LIBS))?;
        let broker = Self {
            index,
            folder,
            plan: Arc::clone(plan),
            admin: Arc::clone(admin),
            run: Arc::clone(run),
            process: Mutex::new(None),
        };
        broker.write("log4j2.properties", LOG4J)?;
        broker.write_settings(&[])?;
        Ok(broker)
    }

    /// Its node id, from 1.
    pub fn id(&self) -> i32 {
        i32::try_from(self.index + 1).expect("at most three brokers")
    }

    /// Its folder: settings, `data`, the log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its log, of all its starts.
    pub fn log(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    /// Its pid, while there is a process.
    pub fn pid(&self) -> Option<i32> {
        self.process().map(|process| process.pid())
    }

    /// Whether it has not ended; a frozen broker runs.
    pub fn running(&self) -> bool {
        self.process().is_some_and(|process| process.running())
    }

    /// SIGTERM: it hands its leaderships over and writes everything down. A broker that does not end in
    /// time is killed, and that is an error. Thaw a frozen one first.
    pub fn stop(&self) -> Result<()> {
        self.with_process(|process| {
            process.signal(Signal::TERM)?;
            let ended = process.wait_exit(STOP_DEADLINE);
            if ended.is_err() {
                process.kill()?;
            }
            ended.map(drop)
        })
    }

    /// `kill -9`.
    pub fn kill(&self) -> Result<()> {
        self.with_process(|process| process.kill().map(drop))
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.with_process(Process::freeze)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.with_process(Process::thaw)
    }

    /// Starts a broker that ended, on the same data and ports, with these settings besides those it
    /// was made with; settings of an earlier `start_again` are forgotten. Returns when the cluster
    /// lists it, for which most of the controllers must run: two dead brokers of three are started
    /// at the same time, from two threads.
    pub fn start_again(&self, settings: &[(&str, &str)]) -> Result<()> {
        if self.running() {
            bail!("{} runs; stop or kill it first", self.name());
        }
        self.write_settings(settings)?;
        self.launch()?;
        self.wait_listening()?;
        self.wait_for("the cluster to list it", || {
            Ok(self.admin.listed_brokers().contains(&self.id()).then_some(()))
        })
    }

    /// Where a proxy in front of it listens and forwards to; only with
    /// [`super::KafkaOptions::proxied`].
    pub fn proxied(&self) -> Option<Proxied> {
        let ports = &self.plan.ports[self.index];
        Some(Proxied { listen: ports.proxy?, forward_to: ports.of(Endpoint::Proxied)? })
    }

    pub(super) fn name(&self) -> String {
        format!("kafka broker {}", self.id())
    }

    /// Starts the process on what was prepared.
    pub(super) fn launch(&self) -> Result<()> {
        let mut arguments = vec![OsString::from("kafka.Kafka"), "server.properties".into()];
        arguments.splice(0..0, self.plan.java_flags.iter().map(OsString::from));
        let process = self.java(&self.name(), &self.log(), arguments)?;
        *self.place() = Some(Arc::new(process));
        Ok(())
    }

    /// Runs a Java class of Kafka in the broker's folder.
    pub(super) fn java(&self, name: &str, log: &Path, class: Vec<OsString>) -> Result<Process> {
        let installation = &self.plan.installation;
        let mut arguments = installation.java_arguments(self.plan.archive.as_deref())?;
        arguments.extend(class);
        let launch = Launch {
            name: name.to_owned(),
            program: installation.java.program.clone(),
            arguments,
            environment: vec![],
            folder: self.folder.clone(),
            log: log.to_path_buf(),
        };
        Process::spawn(&self.run, launch)
    }

    /// Waits until its plaintext port accepts, which is necessary and by far not enough.
    pub(super) fn wait_listening(&self) -> Result<()> {
        let address = self.plaintext_address();
        self.wait_for("its port to open", || {
            Ok(TcpStream::connect_timeout(&address, CONNECT_DEADLINE).is_ok().then_some(()))
        })
    }

    /// Waits for a fact while the process lives.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.with_process(|process| process.wait_until(START_DEADLINE, what, probe))
    }

    pub(super) fn plaintext_address(&self) -> SocketAddr {
        let port = self.plan.ports[self.index].of(Endpoint::Plaintext);
        (Ipv4Addr::LOCALHOST, port.expect("every broker has a plaintext port")).into()
    }

    /// Whether it ended because somebody else had one of its ports.
    pub(super) fn lost_its_port(&self) -> bool {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        !self.running() && log.contains("Address already in use")
    }

    /// Writes a file that the broker's account can read, whatever our umask.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("{}", path.display()))?;
        self.run.hand_over(&path)
    }

    fn write_settings(&self, settings: &[(&str, &str)]) -> Result<()> {
        let Plan { ports, security, own, .. } = self.plan.as_ref();
        let mut own = own.clone();
        own.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let text = server_properties(self.index, ports, security.as_ref(), &self.folder, &own);
        self.write("server.properties", text)
    }

    fn with_process<T>(&self, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        match self.process() {
            Some(process) => act(&process),
            None => bail!("{} was never started", self.name()),
        }
    }

    /// A handle of its own, so that nobody who waits for a broker keeps others from killing it.
    fn process(&self) -> Option<Arc<Process>> {
        self.place().clone()
    }

    fn place(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        // A panic elsewhere leaves nothing half done in here.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
