//! What a broker's `server.properties` says, as pure text.
//!
//! Promises that every broker of a cluster agrees on who is in it, that a test's own settings win
//! over ours, and that each setting that departs from Kafka's default has its reason here.

use std::fmt::Write as _;
use std::path::Path;

use super::security::{Endpoint, Security};

/// The ports of one broker, fixed for its life: clients and the other brokers know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) controller: u16,
    /// Where the broker listens, one port an endpoint.
    pub(super) endpoints: Vec<(Endpoint, u16)>,
    /// What it tells clients of [`Endpoint::Proxied`] to connect to instead of its own port.
    pub(super) proxy: Option<u16>,
}

impl Ports {
    /// The port of an endpoint, if the broker has it.
    pub(super) fn of(&self, wanted: Endpoint) -> Option<u16> {
        self.endpoints.iter().find(|(endpoint, _)| *endpoint == wanted).map(|(_, port)| *port)
    }

    fn advertised(&self, endpoint: Endpoint, own: u16) -> u16 {
        if endpoint == Endpoint::Proxied { self.proxy.unwrap_or(own) } else { own }
    }
}

/// Settings that are the same for every broker, with the reason for each group.
const ALWAYS: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    // A topic that nobody created is a mistake that must be seen.
    ("auto.create.topics.enable", "false"),
    // Internal topics are made on first use; 50 partitions each would take seconds.
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    // A transaction that timed out unblocks its readers after a second and not after ten.
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    // A consumer group's first member is not kept waiting for others.
    ("group.initial.rebalance.delay.ms", "0"),
    // Two cores, a handful of clients. A thread costs a stack and a little boot time.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "2"),
    ("group.coordinator.threads", "1"),
    ("num.recovery.threads.per.data.dir", "1"),
    // The default of 128 MB is allocated at start, more than all else together.
    ("log.cleaner.dedupe.buffer.size", "10485760"),
    ("log.segment.bytes", "16777216"),
    ("log.segment.delete.delay.ms", "1000"),
    // Nobody reads JMX here.
    ("metric.reporters", ""),
    // A quorum on loopback elects in milliseconds; the default waits are for a network. Three
    // brokers are up 0.8 s sooner.
    ("controller.quorum.election.timeout.ms", "300"),
    ("controller.quorum.election.backoff.max.ms", "200"),
    ("controller.quorum.fetch.timeout.ms", "1500"),
    // A killed broker is missed after 4 s and not after 9 s. Less would fence healthy brokers
    // while a build keeps both cores busy.
    ("broker.heartbeat.interval.ms", "500"),
    ("broker.session.timeout.ms", "4000"),
];

/// What differs between one broker and three: copies, and how many must have a record.
fn copies(brokers: usize) -> Vec<(&'static str, String)> {
    let copies = brokers.to_string();
    let in_sync = if brokers < 3 { "1" } else { "2" }.to_owned();
    vec![
        ("offsets.topic.replication.factor", copies.clone()),
        ("transaction.state.log.replication.factor", copies.clone()),
        ("transaction.state.log.min.isr", in_sync.clone()),
        ("share.coordinator.state.topic.replication.factor", copies.clone()),
        ("share.coordinator.state.topic.min.isr", in_sync.clone()),
        ("default.replication.factor", copies),
        ("min.insync.replicas", in_sync),
    ]
}

/// The whole file for broker `index` (from 0). Later lines win, and the test's own come last.
pub(super) fn server_properties(
    index: usize,
    cluster: &[Ports],
    security: Option<&Security>,
    folder: &Path,
    own: &[(String, String)],
) -> String {
    let ports = &cluster[index];
    let join = |parts: Vec<String>| parts.join(",");
    let voters = cluster.iter().enumerate();
    let voters = voters.map(|(i, ports)| format!("{}@127.0.0.1:{}", i + 1, ports.controller));
    let endpoints = || ports.endpoints.iter().copied();
    let at = |name: &str, port: u16| format!("{name}://127.0.0.1:{port}");
    let mut listeners: Vec<String> = endpoints().map(|(e, port)| at(e.name(), port)).collect();
    listeners.push(at("CONTROLLER", ports.controller));
    let mut protocols: Vec<String> =
        endpoints().map(|(e, _)| format!("{}:{}", e.name(), e.protocol())).collect();
    protocols.push("CONTROLLER:PLAINTEXT".to_owned());
    let advertised = endpoints().map(|(e, port)| at(e.name(), ports.advertised(e, port))).collect();

    let mut lines: Vec<(String, String)> = vec![
        ("node.id".to_owned(), (index + 1).to_string()),
        ("controller.quorum.voters".to_owned(), join(voters.collect())),
        ("listeners".to_owned(), join(listeners)),
        ("advertised.listeners".to_owned(), join(advertised)),
        ("listener.security.protocol.map".to_owned(), join(protocols)),
        ("log.dirs".to_owned(), folder.join("data").display().to_string()),
    ];
    lines.extend(ALWAYS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    lines.extend(copies(cluster.len()).into_iter().map(|(key, value)| (key.to_owned(), value)));
    lines.extend(security.map(Security::broker_settings).unwrap_or_default());
    lines.extend(own.iter().cloned());
    properties(&lines)
}

/// Java's properties format. A backslash escapes and `=` in a value is fine.
fn properties(lines: &[(String, String)]) -> String {
    lines.iter().fold(String::new(), |mut text, (key, value)| {
        let value = value.replace('\\', "\\\\").replace('\n', "\\n");
        writeln!(text, "{key}={value}").expect("writing to a string cannot fail");
        text
    })
}

/// `meta.properties` makes a folder a formatted one. Kafka itself adds the folder's id.
pub(super) fn meta_properties(index: usize, cluster_id: &str) -> String {
    format!("version=1\nnode.id={}\ncluster.id={cluster_id}\n", index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn ports(first: u16) -> Ports {
        let endpoints = vec![(Endpoint::Plaintext, first + 1), (Endpoint::Proxied, first + 2)];
        Ports { controller: first, endpoints, proxy: Some(first + 3) }
    }

    fn read(text: &str) -> HashMap<&str, &str> {
        text.lines().map(|line| line.split_once('=').unwrap()).collect()
    }

    #[test]
    fn brokers_agree_on_the_voters_and_differ_in_themselves() {
        let cluster = [ports(100), ports(200), ports(300)];
        let text = server_properties(1, &cluster, None, Path::new("/tmp/x"), &[]);
        let file = read(&text);
        assert_eq!(file["node.id"], "2");
        assert_eq!(
            file["controller.quorum.voters"],
            "1@127.0.0.1:100,2@127.0.0.1:200,3@127.0.0.1:300"
        );
        assert_eq!(
            file["listeners"],
            "PLAINTEXT://127.0.0.1:201,PROXIED://127.0.0.1:202,CONTROLLER://127.0.0.1:200"
        );
        assert_eq!(
            file["advertised.listeners"],
            "PLAINTEXT://127.0.0.1:201,PROXIED://127.0.0.1:203"
        );
        assert_eq!(file["log.dirs"], "/tmp/x/data");
        assert_eq!(file["transaction.state.log.min.isr"], "2");
    }

    #[test]
    fn a_single_broker_needs_no_second_copy_and_own_settings_win() {
        let own = [("num.io.threads".to_owned(), "1".to_owned())];
        let text = server_properties(0, &[ports(100)], None, Path::new("/tmp/x"), &own);
        let file = read(&text);
        assert_eq!(file["offsets.topic.replication.factor"], "1");
        assert_eq!(file["min.insync.replicas"], "1");
        assert_eq!(file["num.io.threads"], "1");
    }

    #[test]
    fn a_backslash_in_a_value_survives_java() {
        assert_eq!(properties(&[("a".to_owned(), r"b\c=d".to_owned())]), "a=b\\\\c=d\n");
    }
}
