//! The options of the Kafka client: whatever librdkafka knows, but for what would break the
//! protocol.
//!
//! [`ClientOptions::new`] checks a table of texts, names every problem at once, and refuses by name
//! what the publisher's safety rests on, with the reason and the way out. It also asks librdkafka
//! itself about each option, so that a mistyped name is found before anything is started. No value
//! is ever shown: passwords stand among them.
//!
//! TLS, mutual TLS, SASL PLAIN and SCRAM need nothing but their options. OAUTHBEARER takes its
//! tokens from a [`TokenSource`].

mod defaults;
mod refused;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use super::{RecordLimit, TokenSource};

/// The longer names of options that have two. librdkafka keeps one value for both, and which of
/// two would win is chance; so only these are used, and giving both is refused.
const ALIASES: [(&str, &str); 12] = [
    ("bootstrap.servers", "metadata.broker.list"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("retries", "message.send.max.retries"),
    ("compression.type", "compression.codec"),
    ("acks", "request.required.acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("enable.auto.commit", "auto.commit.enable"),
];

/// librdkafka's default of `message.max.bytes`.
const MESSAGE_MAX_BYTES: usize = 1_000_000;

/// Checked options of a Kafka client. Its `Debug` shows names only.
#[derive(Clone)]
pub struct ClientOptions {
    values: BTreeMap<String, String>,
    token: Option<TokenSource>,
    limit: RecordLimit,
    transaction_timeout: Duration,
}

/// A problem with one option; it never shows the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka.client option {key:?} {rule}: {way_out}")]
pub struct OptionProblem {
    /// The option as it was written.
    pub key: String,
    /// What is wrong with it, and why.
    pub rule: String,
    /// What to do instead.
    pub way_out: String,
}

/// What a client is for; each has options that must not be the operator's.
pub(super) enum Purpose<'a> {
    /// A producer of transactions.
    Transactions { id: &'a str },
    /// A producer without transactions, which repeats nothing by itself.
    Idempotent,
    /// Looks at topics and their ends; sends nothing.
    LookUp,
    /// Reads a state topic, committed transactions only.
    Reader { group: &'a str },
}

impl ClientOptions {
    /// Checks the options of `[kafka.client]`, in librdkafka's names. With a token source, the
    /// mechanism is OAUTHBEARER.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn new(
        given: BTreeMap<String, String>,
        token: Option<TokenSource>,
    ) -> Result<Self, Vec<OptionProblem>> {
        let mut problems = Vec::new();
        let mut values = BTreeMap::new();
        for (key, value) in given {
            problems.extend(problem_of(&key, &value));
            if values.insert(canonical(&key).to_owned(), value).is_some() {
                let rule = "is given by both of its names".to_owned();
                problems.push(OptionProblem { key, rule, way_out: "leave one of them".to_owned() });
            }
        }
        if !values.contains_key("metadata.broker.list") {
            problems.push(OptionProblem {
                key: "bootstrap.servers".to_owned(),
                rule: "is missing".to_owned(),
                way_out: "set it to one or more brokers, host:port by comma".to_owned(),
            });
        }
        problems.extend(mechanism_problem(&values, token.is_some()));
        if token.is_some() {
            values.entry("sasl.mechanisms".to_owned()).or_insert_with(|| "OAUTHBEARER".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let limit = RecordLimit(number(&values, "message.max.bytes").unwrap_or(MESSAGE_MAX_BYTES));
        make_room(&mut values, limit);
        let timeout = number(&values, "transaction.timeout.ms");
        let timeout = timeout.unwrap_or_else(|| number_of(&defaults::PRODUCER, "transaction"));
        let transaction_timeout = Duration::from_millis(timeout as u64);
        Ok(Self { values, token, limit, transaction_timeout })
    }

    /// Largest record that the client takes.
    #[must_use]
    pub fn record_limit(&self) -> RecordLimit {
        self.limit
    }

    /// How long a transaction may stay open before the broker aborts it.
    #[must_use]
    pub fn transaction_timeout(&self) -> Duration {
        self.transaction_timeout
    }

    pub(super) fn batch_bytes(&self) -> usize {
        let given = number(&self.values, "batch.size");
        given.unwrap_or_else(|| number_of(&defaults::PRODUCER, "batch.size"))
    }

    pub(super) fn token(&self) -> Option<&TokenSource> {
        self.token.as_ref()
    }

    /// The whole configuration of one client: our defaults, over them the operator's options, over
    /// them what the purpose cannot do without.
    pub(super) fn config(&self, purpose: &Purpose<'_>) -> ClientConfig {
        let mut config = ClientConfig::new();
        // The notice of a request that timed out puts a commit in doubt; see `context`.
        config.set_log_level(RDKafkaLogLevel::Info);
        let mut set = |options: &[(&str, &str)]| {
            for (key, value) in options {
                config.set(*key, *value);
            }
        };
        set(&defaults::ANY);
        match purpose {
            Purpose::Transactions { .. } | Purpose::Idempotent => set(&defaults::PRODUCER),
            Purpose::Reader { .. } => set(&defaults::CONSUMER),
            Purpose::LookUp => {}
        }
        for (key, value) in &self.values {
            config.set(key, value);
        }
        match purpose {
            Purpose::Transactions { id } => {
                config.set("transactional.id", *id);
            }
            Purpose::Idempotent => {
                config.set("enable.idempotence", "true");
                config.set("request.required.acks", "all");
                config.remove("transaction.timeout.ms");
            }
            // Its questions for the end of a partition mean the high watermark, whatever
            // transactions are open.
            Purpose::LookUp => {
                config.set("isolation.level", "read_uncommitted");
            }
            Purpose::Reader { group } => {
                config.set("group.id", *group);
                config.set("isolation.level", "read_committed");
                config.set("auto.commit.enable", "false");
                config.set("auto.offset.reset", "error");
                config.set("enable.partition.eof", "true");
            }
        }
        config
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.values.keys()).finish()
    }
}

/// The one name of an option that has two.
fn canonical(key: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name)
}

fn problem_of(key: &str, value: &str) -> Option<OptionProblem> {
    let problem = |rule: String, way_out: &str| OptionProblem {
        key: key.to_owned(),
        rule,
        way_out: way_out.to_owned(),
    };
    let rule = refused::RULES.iter().find(|rule| rule.key == canonical(key));
    if let Some(rule) = rule.filter(|rule| rule.refuses(value)) {
        return Some(problem(format!("is not allowed as given, since {}", rule.why), rule.way_out));
    }
    // librdkafka knows its names and values best. What it says may show the value, so it is not
    // repeated.
    let mut alone = ClientConfig::new();
    alone.set(key, value);
    match alone.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, text, ..)) if text.contains("No such") => {
            Some(problem("does not exist".to_owned(), "see librdkafka's CONFIGURATION.md"))
        }
        Err(_) => Some(problem(
            "has a value that librdkafka refuses".to_owned(),
            "see librdkafka's CONFIGURATION.md for its range",
        )),
    }
}

fn mechanism_problem(values: &BTreeMap<String, String>, token: bool) -> Option<OptionProblem> {
    let bearer = values.get("sasl.mechanisms").map(|it| it.eq_ignore_ascii_case("OAUTHBEARER"));
    let (rule, way_out) = match (bearer, token) {
        (Some(true), false) => {
            ("is OAUTHBEARER without a source of tokens", "name a command or a file for the token")
        }
        (Some(false), true) => {
            ("is not OAUTHBEARER, but a source of tokens is given", "leave one of them out")
        }
        (Some(true) | None, true) | (Some(false) | None, false) => return None,
    };
    let key = "sasl.mechanism".to_owned();
    Some(OptionProblem { key, rule: rule.to_owned(), way_out: way_out.to_owned() })
}

/// A queue that is smaller than the largest record would never take it: raises our own default,
/// never the operator's number.
fn make_room(values: &mut BTreeMap<String, String>, limit: RecordLimit) {
    let ours: usize = number_of(&defaults::PRODUCER, "queue.buffering.max.kbytes");
    let needed = limit.0.div_ceil(1024) + 1;
    if needed > ours {
        let key = "queue.buffering.max.kbytes".to_owned();
        values.entry(key).or_insert_with(|| needed.to_string());
    }
}

fn number(values: &BTreeMap<String, String>, key: &str) -> Option<usize> {
    values.get(key)?.trim().parse().ok()
}

fn number_of(table: &[(&str, &str)], prefix: &str) -> usize {
    let found = table.iter().find(|(key, _)| key.starts_with(prefix));
    found.and_then(|(_, value)| value.parse().ok()).expect("it stands in the table as a number")
}

#[cfg(test)]
mod tests;
