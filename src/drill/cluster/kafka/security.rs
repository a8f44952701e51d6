//! The ways into a broker: its endpoints, and what a client must set to use each.
//!
//! Promises that the broker's side and the client's side of each way are written in one place. The
//! plaintext endpoints ask nobody who he is: they are the harness's own way in, so with an
//! authorizer the anonymous user is its super user and everybody who names himself has no rights
//! until [`super::Kafka::allow`] grants them.

use std::fmt::Write as _;
use std::path::PathBuf;

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// No encryption, no name. Always there.
    Plaintext,
    /// As plaintext, but through a proxy; see [`super::Broker::proxied`].
    Proxied,
    /// Encrypted, the client has no name.
    Tls,
    /// Encrypted, the client's certificate is its name.
    MutualTls,
    /// A name and a password without encryption.
    Sasl(Mechanism),
    /// A name and a password over TLS.
    SaslTls(Mechanism),
}

impl Listener {
    pub(super) fn endpoint(self) -> Endpoint {
        match self {
            Self::Plaintext => Endpoint::Plaintext,
            Self::Proxied => Endpoint::Proxied,
            Self::Tls => Endpoint::Tls,
            Self::MutualTls => Endpoint::MutualTls,
            Self::Sasl(_) => Endpoint::Sasl,
            Self::SaslTls(_) => Endpoint::SaslTls,
        }
    }

    fn mechanism(self) -> Option<Mechanism> {
        match self {
            Self::Sasl(mechanism) | Self::SaslTls(mechanism) => Some(mechanism),
            Self::Plaintext | Self::Proxied | Self::Tls | Self::MutualTls => None,
        }
    }
}

/// How a password is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself is sent.
    Plain,
    /// A challenge is answered, SHA-256.
    ScramSha256,
    /// A challenge is answered, SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// The name that brokers and clients use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// One port of a broker. All mechanisms share an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Plaintext,
    Proxied,
    Tls,
    MutualTls,
    Sasl,
    SaslTls,
}

impl Endpoint {
    /// Those that need [`Security`].
    pub(super) const SECURED: [Self; 4] = [Self::Tls, Self::MutualTls, Self::Sasl, Self::SaslTls];

    /// The listener's name in the broker's settings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Proxied => "PROXIED",
            Self::Tls => "TLS",
            Self::MutualTls => "MUTUAL",
            Self::Sasl => "SASL",
            Self::SaslTls => "SASLTLS",
        }
    }

    /// Kafka's name for how it talks; a client sets the same.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::Plaintext | Self::Proxied => "PLAINTEXT",
            Self::Tls | Self::MutualTls => "SSL",
            Self::Sasl => "SASL_PLAINTEXT",
            Self::SaslTls => "SASL_SSL",
        }
    }

    fn encrypted(self) -> bool {
        match self {
            Self::Tls | Self::MutualTls | Self::SaslTls => true,
            Self::Plaintext | Self::Proxied | Self::Sasl => false,
        }
    }
}

/// Somebody who may log in, by every mechanism. Test credentials: they are on command lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name; the principal is `User:<name>`. Letters, digits, `-` and `_`.
    pub name: String,
    /// The password. Letters, digits, `-` and `_`.
    pub password: String,
}

impl User {
    /// A user with a password.
    pub fn new(name: &str, password: &str) -> Self {
        // The words go unquoted into three little languages: JAAS, properties, StorageTool.
        let plain =
            |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        assert!(plain(name) && plain(password), "user {name}: letters, digits, - and _ only");
        Self { name: name.to_owned(), password: password.to_owned() }
    }
}

/// Files that the broker and its clients prove themselves with, all PEM.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The authority that signed both.
    pub(super) authority: PathBuf,
    /// The broker's key and certificate in one file.
    pub(super) broker: PathBuf,
    pub(super) client_certificate: PathBuf,
    pub(super) client_key: PathBuf,
}

/// A cluster's secured endpoints, ready to be written down.
#[derive(Debug, Clone)]
pub(super) struct Security {
    pub(super) users: Vec<User>,
    pub(super) authorizer: bool,
    pub(super) files: Files,
}

impl Security {
    /// The broker's side of the endpoints in [`Endpoint::SECURED`].
    pub(super) fn broker_settings(&self) -> Vec<(String, String)> {
        let mut lines: Vec<(String, String)> = vec![];
        let mut set = |key: &str, value: String| lines.push((key.to_owned(), value));
        set("ssl.keystore.type", "PEM".to_owned());
        set("ssl.keystore.location", self.files.broker.display().to_string());
        set("ssl.truststore.type", "PEM".to_owned());
        set("ssl.truststore.location", self.files.authority.display().to_string());
        set("listener.name.mutual.ssl.client.auth", "required".to_owned());
        let mechanisms = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];
        set("sasl.enabled.mechanisms", mechanisms.map(Mechanism::name).join(","));
        for listener in ["sasl", "sasltls"] {
            for mechanism in mechanisms {
                let name = mechanism.name().to_lowercase();
                set(
                    &format!("listener.name.{listener}.{name}.sasl.jaas.config"),
                    self.jaas(mechanism),
                );
            }
        }
        if self.authorizer {
            let class = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
            set("authorizer.class.name", class.to_owned());
            // Who is neither a super user nor allowed is denied: Kafka's default, said aloud.
            set("allow.everyone.if.no.acl.found", "false".to_owned());
            set("super.users", "User:ANONYMOUS".to_owned());
        }
        lines
    }

    fn jaas(&self, mechanism: Mechanism) -> String {
        match mechanism {
            Mechanism::Plain => {
                let module = "org.apache.kafka.common.security.plain.PlainLoginModule required";
                self.users.iter().fold(module.to_owned(), |mut text, User { name, password }| {
                    write!(text, " user_{name}=\"{password}\"").expect("a string takes all");
                    text
                }) + ";"
            }
            // The broker keeps what SCRAM needs among its metadata; see `scram_arguments`.
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
                "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned()
            }
        }
    }

    /// Arguments of `StorageTool format` that put the SCRAM users into a new cluster.
    pub(super) fn scram_arguments(&self) -> Vec<String> {
        let mechanisms = [Mechanism::ScramSha256, Mechanism::ScramSha512];
        let each = self.users.iter().flat_map(|user| mechanisms.map(|m| (user, m.name())));
        each.flat_map(|(User { name, password }, mechanism)| {
            let record = format!("{mechanism}=[name={name},password={password}]");
            ["--add-scram".to_owned(), record]
        })
        .collect()
    }
}

/// The client's side, in librdkafka's keys. The user is the first one.
pub(super) fn client_settings(
    listener: Listener,
    bootstrap: String,
    security: Option<&Security>,
) -> Vec<(String, String)> {
    let endpoint = listener.endpoint();
    let mut lines: Vec<(String, String)> = vec![];
    let mut set = |key: &str, value: String| lines.push((key.to_owned(), value));
    set("bootstrap.servers", bootstrap);
    set("security.protocol", endpoint.protocol().to_lowercase());
    let Some(Security { users, files, .. }) = security else { return lines };
    if endpoint.encrypted() {
        set("ssl.ca.location", files.authority.display().to_string());
    }
    if listener == Listener::MutualTls {
        set("ssl.certificate.location", files.client_certificate.display().to_string());
        set("ssl.key.location", files.client_key.display().to_string());
    }
    if let (Some(mechanism), Some(user)) = (listener.mechanism(), users.first()) {
        set("sasl.mechanism", mechanism.name().to_owned());
        set("sasl.username", user.name.clone());
        set("sasl.password", user.password.clone());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security() -> Security {
        let files = Files {
            authority: "/r/ca.pem".into(),
            broker: "/r/broker.pem".into(),
            client_certificate: "/r/client.pem".into(),
            client_key: "/r/client.key".into(),
        };
        let users = vec![User::new("relay", "r-1"), User::new("shop", "s-1")];
        Security { users, authorizer: true, files }
    }

    fn value<'a>(lines: &'a [(String, String)], key: &str) -> Option<&'a str> {
        lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_broker_knows_every_user_by_every_mechanism() {
        let lines = security().broker_settings();
        let plain = value(&lines, "listener.name.sasltls.plain.sasl.jaas.config").unwrap();
        assert!(plain.ends_with(r#"required user_relay="r-1" user_shop="s-1";"#), "{plain}");
        assert!(value(&lines, "listener.name.sasl.scram-sha-512.sasl.jaas.config").is_some());
        let scram = security().scram_arguments();
        assert_eq!(scram.len(), 8);
        assert_eq!(scram[3], "SCRAM-SHA-512=[name=relay,password=r-1]");
    }

    #[test]
    fn a_client_sets_what_its_endpoint_asks_for_and_no_more() {
        let security = security();
        let of = |listener| client_settings(listener, "b:1".to_owned(), Some(&security));
        let keys = |listener| of(listener).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(Listener::Plaintext), ["bootstrap.servers", "security.protocol"]);
        assert_eq!(keys(Listener::Tls).len(), 3);
        assert_eq!(keys(Listener::MutualTls).len(), 5);
        let sasl = of(Listener::SaslTls(Mechanism::ScramSha512));
        assert_eq!(value(&sasl, "security.protocol"), Some("sasl_ssl"));
        assert_eq!(value(&sasl, "sasl.username"), Some("relay"));
        assert_eq!(value(&sasl, "ssl.ca.location"), Some("/r/ca.pem"));
        assert_eq!(value(&of(Listener::Sasl(Mechanism::Plain)), "ssl.ca.location"), None);
    }

    #[test]
    #[should_panic(expected = "letters, digits")]
    fn a_user_that_would_break_a_config_line_is_refused() {
        User::new("relay", "a\"b");
    }
}
