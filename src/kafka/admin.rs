//! The two requests that change or describe a topic, each with a client of its own that goes
//! afterwards: they are made at a start, and hardly ever.
//!
//! It refuses OAUTHBEARER: the admin client of rdkafka takes no tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::ClientOptions;
use super::context::Context;
use super::failure::{Failure, Verdict, Why, classify, of_code};
use super::options::Purpose;

/// How long a request may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A topic to be made.
pub(super) struct NewTopic<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: i32,
    pub(super) replication: Option<i32>,
    pub(super) config: BTreeMap<&'a str, &'a str>,
}

/// Makes a topic; that somebody else did meanwhile is as good.
pub(super) fn create(options: &ClientOptions, topic: &NewTopic<'_>) -> Result<(), Failure> {
    let doing = format!("creating topic {}", topic.name);
    if options.token().is_some() {
        return Err(Failure::stop(
            format!("{doing} is not possible with OAUTHBEARER"),
            "create it by hand",
        ));
    }
    let replication = TopicReplication::Fixed(topic.replication.unwrap_or(-1));
    let mut new = rdkafka::admin::NewTopic::new(topic.name, topic.partitions, replication);
    for (key, value) in &topic.config {
        new = new.set(key, value);
    }
    let how = limits().operation_timeout(Some(TIMEOUT));
    let results = with_client(options, &doing, |admin| admin.create_topics([&new], &how))?;
    match results.into_iter().next() {
        Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed))) => {
            Err(Failure::Stop {
                fact: format!("{doing} is not allowed"),
                remedy: "grant Create on it, or create it by hand".to_owned(),
                may_heal: true,
            })
        }
        Some(Err((_, code))) => Err(of_code(code, format!("{doing} failed: {code}"))),
        None => Err(Failure::restart(Why::Doubt, format!("{doing} had no answer"))),
    }
}

/// The configuration of a topic, defaults included; none if we may not see it.
pub(super) fn describe(
    options: &ClientOptions,
    topic: &str,
) -> Result<Option<BTreeMap<String, String>>, Failure> {
    if options.token().is_some() {
        return Ok(None);
    }
    let doing = format!("reading the configuration of topic {topic}");
    let which = [ResourceSpecifier::Topic(topic)];
    let how = limits();
    let results = with_client(options, &doing, |admin| admin.describe_configs(&which, &how))?;
    match results.into_iter().next() {
        // rdkafka gives an empty configuration where the broker denies it.
        Some(Ok(found)) if found.entries.is_empty() => Ok(None),
        Some(Ok(found)) => {
            let entries = found.entries.into_iter();
            Ok(Some(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()))
        }
        Some(Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => Ok(None),
        Some(Err(code)) => Err(of_code(code, format!("{doing} failed: {code}"))),
        None => Err(Failure::restart(Why::Doubt, format!("{doing} had no answer"))),
    }
}

fn limits() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT))
}

/// Makes a request and waits for its answer, on a thread that may block.
fn with_client<T, F: Future<Output = Result<T, KafkaError>>>(
    options: &ClientOptions,
    doing: &str,
    request: impl FnOnce(&AdminClient<Context>) -> F,
) -> Result<T, Failure> {
    let failed = |error: &KafkaError| match classify(doing, error) {
        Verdict::Final(failure) => failure,
        Verdict::Retry(fact) => Failure::restart(Why::Unreachable, fact),
    };
    let config = options.config(&Purpose::LookUp);
    let client = config.create_with_context(Context::new("the admin client", None));
    let client: AdminClient<Context> = client.map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|_| Failure::thread(doing))?;
    runtime.block_on(request(&client)).map_err(|error| failed(&error))
}
