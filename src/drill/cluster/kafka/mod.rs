//! Real Kafka on loopback: one broker or three, each of which can be stopped, killed and frozen.
//!
//! A [`Kafka`] is up when [`Kafka::start`] returns: a controller leads, all brokers are alive, and
//! topics can be made. Every broker has a plaintext endpoint; [`Secured`] adds TLS, mutual TLS and
//! SASL beside it, so that one broker serves the tests of all of them. Nodes are broker and
//! controller at once, which saves three JVMs.
//!
//! Measured on two idle cores: one broker is up in 1.0 s, three in 2.5 s. Without
//! [`Installation::warm`], as for a Kafka named by `KAFKA_HOME`, it is 2.5 s and 4.6 s.
//!
//! Guarantee: a broker that was started again has its old data, id and ports.
//! Bounded by: every wait has a deadline; a start tries other ports five times.
//! Tested by: `tests/services/cluster_kafka.rs`.

mod acl;
mod admin;
mod broker;
mod fetch;
mod installation;
mod security;
mod settings;
mod storage;
mod warm_up;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use acl::{Grant, Operation, Resource, ResourceKind};
pub use broker::{Broker, Proxied};
pub use fetch::{Jars, Warmth};
pub use installation::{Installation, Java};
pub use security::{Listener, Mechanism, User};

use super::{Certificates, RunDir, free_port, wait_until};
use admin::Admin;
use broker::{Plan, START_DEADLINE};
use security::{Endpoint, Files, Security};
use settings::Ports;

/// How often a start tries with other ports. A free port is taken by a stranger between our look
/// and the broker's start once in a thousand starts or less; five times in a row is something else.
const ATTEMPTS: u32 = 5;

/// What to start. The default is one open broker.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// How many brokers.
    pub brokers: Brokers,
    /// Endpoints that encrypt or ask for a name, beside the plaintext one.
    pub secured: Option<Secured>,
    /// An endpoint that tells its clients to come through a proxy; see [`Broker::proxied`].
    pub proxied: bool,
    /// Lines for `server.properties` that win over ours.
    pub settings: Vec<(String, String)>,
}

/// The size of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Brokers {
    /// One, which holds the only copy of everything.
    #[default]
    One,
    /// Three, with three copies of everything, of which two must be in sync.
    Three,
}

impl Brokers {
    /// As a number.
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
        }
    }
}

/// Who may come in, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Secured {
    /// Who has a password. The first one is who [`Kafka::client_settings`] logs in as, and the
    /// common name of the client certificate.
    pub users: Vec<User>,
    /// Whether everything that no [`Grant`] allows is denied to whoever has a name. Who has none,
    /// like the brokers among each other and this harness, may do everything.
    pub authorizer: bool,
}

/// A running cluster. Dropped, its brokers are killed.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    admin: Arc<Admin>,
    plan: Arc<Plan>,
    certificates: Option<Certificates>,
    boot: Boot,
}

/// How long a start took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boot {
    /// Formatting the data folders.
    pub format: Duration,
    /// From the first process until the cluster was ready.
    pub start: Duration,
}

/// How one attempt to start can end, other than by success.
enum Failed {
    /// A port was taken; another attempt takes others.
    Port(anyhow::Error),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Kafka {
    /// Starts a cluster and waits until it is ready.
    pub fn start(run: &Arc<RunDir>, options: KafkaOptions) -> Result<Self> {
        Self::start_with(run, &options, &Installation::find()?, &[])
    }

    fn start_with(
        run: &Arc<RunDir>,
        options: &KafkaOptions,
        installation: &Installation,
        java_flags: &[String],
    ) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::attempt(run, options, installation, java_flags) {
                Ok(kafka) => return Ok(kafka),
                Err(Failed::Port(error)) if attempt < ATTEMPTS => {
                    tracing::debug!("a port of kafka's was taken, trying others: {error:#}");
                    attempt += 1;
                }
                Err(Failed::Port(error) | Failed::Other(error)) => {
                    return Err(error.context("kafka did not start"));
                }
            }
        }
    }

    fn attempt(
        run: &Arc<RunDir>,
        options: &KafkaOptions,
        installation: &Installation,
        java_flags: &[String],
    ) -> Result<Self, Failed> {
        let count = options.brokers.count();
        let ports = (0..count).map(|_| choose_ports(options)).collect::<Result<Vec<_>>>()?;
        let (certificates, security) = match &options.secured {
            Some(secured) => {
                let (certificates, security) = secure(run, secured)?;
                (Some(certificates), Some(security))
            }
            None => (None, None),
        };
        // The warm folder may lie where the servers' account cannot go, as the jars may.
        let warm = installation.warm.as_deref().map(|folder| run.reachable(folder)).transpose()?;
        let plan = Arc::new(Plan {
            installation: Installation { warm: warm.clone(), ..installation.clone() },
            cluster_id: storage::new_cluster_id(),
            ports,
            security,
            own: options.settings.clone(),
            archive: warm.map(|folder| folder.join(installation::ARCHIVE)),
            java_flags: java_flags.to_vec(),
        });
        let admin = Arc::new(Admin::new(client_settings(&plan, Listener::Plaintext), count)?);
        let brokers = (0..count)
            .map(|index| Broker::prepare(run, &plan, &admin, index))
            .collect::<Result<Vec<_>>>()?;

        let begun = Instant::now();
        storage::format(run, &plan, &brokers)?;
        let formatted = Instant::now();
        brokers.iter().try_for_each(Broker::launch)?;
        if let Err(error) = wait_ready(&brokers, &admin) {
            let taken = brokers.iter().any(Broker::lost_its_port);
            return Err(if taken { Failed::Port(error) } else { Failed::Other(error) });
        }
        let boot = Boot { format: formatted - begun, start: formatted.elapsed() };
        Ok(Self { brokers, admin, plan, certificates, boot })
    }

    /// The plaintext endpoints of all brokers, `host:port` by comma.
    pub fn bootstrap(&self) -> String {
        bootstrap(&self.plan, Endpoint::Plaintext)
    }

    /// What a client sets to come in by a listener, in librdkafka's keys, `bootstrap.servers`
    /// among them.
    ///
    /// # Panics
    /// If the options did not ask for this listener.
    pub fn client_settings(&self, listener: Listener) -> Vec<(String, String)> {
        client_settings(&self.plan, listener)
    }

    /// The brokers, ids 1 to 3 in order.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// A broker by its node id, as a leader is named.
    ///
    /// # Panics
    /// If there is none with this id.
    pub fn broker(&self, id: i32) -> &Broker {
        let found = self.brokers.iter().find(|broker| broker.id() == id);
        found.unwrap_or_else(|| panic!("there are {} brokers, none is {id}", self.brokers.len()))
    }

    /// The certificates, with [`KafkaOptions::secured`].
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// The version that runs: `4.3.1`.
    pub fn version(&self) -> &str {
        &self.plan.installation.version
    }

    /// How long the start took.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Makes a topic and waits until each partition has a leader.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication: i32,
        config: &[(&str, &str)],
    ) -> Result<()> {
        self.admin.create_topic(name, partitions, replication, config)
    }

    /// Deletes a topic and waits until it is unknown.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.admin.delete_topic(name)
    }

    /// Waits until every copy of every partition of a topic is in sync.
    pub fn wait_in_sync(&self, topic: &str) -> Result<()> {
        self.admin.wait_in_sync(topic)
    }

    /// The id of the broker that leads a partition; none while nobody does.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.admin.leader(topic, partition)
    }

    /// The ids of a partition's copies that are in sync, as the broker that answers knows it.
    pub fn in_sync(&self, topic: &str, partition: i32) -> Vec<i32> {
        self.admin.in_sync(topic, partition)
    }

    /// Grants rights, and waits until every running broker knows them. Needs
    /// [`Secured::authorizer`].
    pub fn allow(&self, grants: &[Grant<'_>]) -> Result<()> {
        let running: Vec<_> = self.brokers.iter().filter(|broker| broker.running()).collect();
        let any = running.first().context("no broker runs that could be told of a grant")?;
        for grant in grants {
            acl::create(any.plaintext_address(), grant)?;
        }
        for (grant, broker) in grants.iter().flat_map(|g| running.iter().map(move |b| (g, b))) {
            wait_until(START_DEADLINE, &format!("{} to know {grant:?}", broker.name()), || {
                Ok(acl::known(broker.plaintext_address(), grant)?.then_some(()))
            })?;
        }
        Ok(())
    }
}

fn wait_ready(brokers: &[Broker], admin: &Admin) -> Result<()> {
    brokers.iter().try_for_each(Broker::wait_listening)?;
    brokers[0].wait_for("the cluster to be ready", || {
        // One that died is not waited for.
        for broker in brokers.iter().filter(|broker| !broker.running()) {
            broker.wait_for("it to run", || Ok(None::<()>))?;
        }
        admin.ready()
    })
}

fn choose_ports(options: &KafkaOptions) -> Result<Ports> {
    let mut endpoints = vec![Endpoint::Plaintext];
    endpoints.extend(options.proxied.then_some(Endpoint::Proxied));
    endpoints.extend(options.secured.iter().flat_map(|_| Endpoint::SECURED));
    let endpoints = endpoints.into_iter().map(|endpoint| Ok((endpoint, free_port()?)));
    Ok(Ports {
        controller: free_port()?,
        endpoints: endpoints.collect::<Result<_>>()?,
        proxy: options.proxied.then(free_port).transpose()?,
    })
}

fn bootstrap(plan: &Plan, endpoint: Endpoint) -> String {
    let port = |ports: &Ports| match endpoint {
        Endpoint::Proxied => ports.proxy,
        Endpoint::Plaintext
        | Endpoint::Tls
        | Endpoint::MutualTls
        | Endpoint::Sasl
        | Endpoint::SaslTls => ports.of(endpoint),
    };
    let addresses = plan.ports.iter().map(|ports| {
        let port = port(ports);
        let port = port.unwrap_or_else(|| panic!("kafka was started without {endpoint:?}"));
        format!("127.0.0.1:{port}")
    });
    addresses.collect::<Vec<_>>().join(",")
}

fn client_settings(plan: &Plan, listener: Listener) -> Vec<(String, String)> {
    let bootstrap = bootstrap(plan, listener.endpoint());
    security::client_settings(listener, bootstrap, plan.security.as_ref())
}

/// Makes the certificates and gives the broker's to the account it runs as.
fn secure(run: &Arc<RunDir>, secured: &Secured) -> Result<(Certificates, Security)> {
    let folder = run.server_folder("kafka-certificates")?;
    let certificates = Certificates::create(&folder)?;
    let name = secured.users.first().map_or("client", |user| &user.name);
    let client = certificates.client(name)?;
    let server = certificates.server();
    // Kafka reads one file: the key, then the chain.
    let broker = folder.join("broker.pem");
    let key = fs::read_to_string(&server.key)?;
    fs::write(&broker, key + &fs::read_to_string(&server.certificate)?)?;
    run.hand_over(&broker)?;
    run.hand_over(certificates.authority())?;
    let files = Files {
        authority: certificates.authority().to_path_buf(),
        broker,
        client_certificate: client.certificate,
        client_key: client.key,
    };
    let security = Security { users: secured.users.clone(), authorizer: secured.authorizer, files };
    Ok((certificates, security))
}
