//! The harness's own client: topics, and the facts that readiness and health are made of.
//!
//! Promises that a topic it created can be written to and one it deleted is gone, as far as the
//! broker that answers knows. It comes in by the plaintext endpoint, where nobody asks for a name.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::drill::cluster::wait_until;

/// One request. A frozen broker is given up after it, and another one asked.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);
/// All tries of one operation: a new leader is there within 6 s of a `kill -9`.
const OPERATION_DEADLINE: Duration = Duration::from_secs(40);

/// librdkafka's words are of use to somebody who debugs; brokers die here on purpose.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

/// See the module.
pub(super) struct Admin {
    client: AdminClient<Quiet>,
    brokers: i32,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Admin {
    /// Connects when it is first used.
    pub(super) fn new(settings: Vec<(String, String)>, brokers: usize) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.extend(settings);
        // A broker that was started again is tried at once, one that is down is not asked for long.
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
        config.set("socket.connection.setup.timeout.ms", "2000");
        // librdkafka's own first rest between two metadata requests is 100 ms.
        config.set("retry.backoff.ms", "20");
        let client = config.create_with_context(Quiet).context("the harness's Kafka client")?;
        Ok(Self { client, brokers: i32::try_from(brokers)? })
    }

    /// Whether the cluster is ready: a controller leads, all brokers are registered with it and
    /// alive, and whom we ask knows them. Asked by having a topic checked, but not made, that needs
    /// a copy on each; a broker that merely accepts connections fails this for another second.
    pub(super) fn ready(&self) -> Result<Option<()>> {
        let all_listed = self.listed_brokers().len() == usize::try_from(self.brokers)?;
        Ok((all_listed && self.try_create("ready", 1, self.brokers, &[], true).is_ok())
            .then_some(()))
    }

    /// The ids of the brokers that the cluster counts as alive; none if nobody answers.
    pub(super) fn listed_brokers(&self) -> Vec<i32> {
        let metadata = self.client.inner().fetch_metadata(None, REQUEST_DEADLINE);
        metadata.map(|m| m.brokers().iter().map(|broker| broker.id()).collect()).unwrap_or_default()
    }

    /// Makes a topic and waits until each partition has a leader.
    pub(super) fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        copies: i32,
        config: &[(&str, &str)],
    ) -> Result<()> {
        let mut asked_before = false;
        wait_until(OPERATION_DEADLINE, &format!("topic {name} to be created"), || {
            match self.try_create(name, partitions, copies, config, false) {
                Ok(()) => Ok(Some(())),
                // The answer to an earlier request was lost, its effect was not.
                Err(RDKafkaErrorCode::TopicAlreadyExists) if asked_before => Ok(Some(())),
                Err(code) if passing(code) => {
                    asked_before = true;
                    Ok(None)
                }
                Err(code) => bail!("topic {name} was refused: {code}"),
            }
        })?;
        self.wait_for_topic(name, "all leaders", |topic| {
            i32::try_from(topic.partitions().len()) == Ok(partitions)
                && topic.partitions().iter().all(|partition| partition.leader() >= 0)
        })
    }

    /// Deletes a topic and waits until it is unknown.
    pub(super) fn delete_topic(&self, name: &str) -> Result<()> {
        let mut asked_before = false;
        wait_until(OPERATION_DEADLINE, &format!("topic {name} to be deleted"), || {
            match self.try_delete(name) {
                Ok(()) => Ok(Some(())),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) if asked_before => Ok(Some(())),
                Err(code) if passing(code) => {
                    asked_before = true;
                    Ok(None)
                }
                Err(code) => bail!("topic {name} was not deleted: {code}"),
            }
        })?;
        wait_until(OPERATION_DEADLINE, &format!("topic {name} to be unknown"), || {
            let gone = self.metadata(name).is_some_and(|metadata| {
                metadata.topics().iter().all(|topic| topic.partitions().is_empty())
            });
            Ok(gone.then_some(()))
        })
    }

    /// Waits until every copy of every partition is in sync.
    pub(super) fn wait_in_sync(&self, name: &str) -> Result<()> {
        self.wait_for_topic(name, "all copies in sync", |topic| {
            let partitions = topic.partitions();
            partitions.iter().all(|p| p.leader() >= 0 && p.isr().len() == p.replicas().len())
        })
    }

    /// The id of the broker that leads a partition; none while nobody does.
    pub(super) fn leader(&self, name: &str, partition: i32) -> Option<i32> {
        let metadata = self.metadata(name)?;
        let partitions = metadata.topics().first()?.partitions();
        let leader = partitions.iter().find(|found| found.id() == partition)?.leader();
        (leader >= 0).then_some(leader)
    }

    /// The ids of a partition's copies that are in sync.
    pub(super) fn in_sync(&self, name: &str, partition: i32) -> Vec<i32> {
        let metadata = self.metadata(name);
        let topics = metadata.iter().flat_map(Metadata::topics);
        let mut partitions = topics.flat_map(MetadataTopic::partitions);
        let found = partitions.find(|found| found.id() == partition);
        found.map(|found| found.isr().to_vec()).unwrap_or_default()
    }

    fn wait_for_topic(
        &self,
        name: &str,
        what: &str,
        good: impl Fn(&MetadataTopic) -> bool,
    ) -> Result<()> {
        wait_until(OPERATION_DEADLINE, &format!("topic {name} to have {what}"), || {
            let metadata = self.metadata(name);
            let topic = metadata.as_ref().and_then(|metadata| metadata.topics().first());
            let good =
                topic.is_some_and(|t| t.error().is_none() && !t.partitions().is_empty() && good(t));
            Ok(good.then_some(()))
        })
    }

    fn metadata(&self, topic: &str) -> Option<Metadata> {
        self.client.inner().fetch_metadata(Some(topic), REQUEST_DEADLINE).ok()
    }

    fn try_create(
        &self,
        name: &str,
        partitions: i32,
        copies: i32,
        config: &[(&str, &str)],
        only_check: bool,
    ) -> Result<(), RDKafkaErrorCode> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
        let topic = config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let options = options().validate_only(only_check);
        outcome(block_on(self.client.create_topics([&topic], &options)))
    }

    fn try_delete(&self, name: &str) -> Result<(), RDKafkaErrorCode> {
        outcome(block_on(self.client.delete_topics(&[name], &options())))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_DEADLINE))
        .operation_timeout(Some(REQUEST_DEADLINE))
}

/// The one topic's result, or that of the request as a whole.
fn outcome(
    answer: Result<Vec<rdkafka::admin::TopicResult>, KafkaError>,
) -> Result<(), RDKafkaErrorCode> {
    match answer {
        Ok(topics) => {
            topics.into_iter().try_for_each(|topic| topic.map(drop)).map_err(|(_, code)| code)
        }
        Err(error) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
    }
}

/// Whether an operation's error goes away by itself: a broker is away or has just come.
fn passing(code: RDKafkaErrorCode) -> bool {
    [
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::OperationTimedOut,
        RDKafkaErrorCode::MessageTimedOut,
        RDKafkaErrorCode::RequestTimedOut,
        RDKafkaErrorCode::NetworkException,
        RDKafkaErrorCode::NotController,
        RDKafkaErrorCode::BrokerNotAvailable,
        // Fewer brokers are alive than there shall be copies.
        RDKafkaErrorCode::InvalidReplicationFactor,
    ]
    .contains(&code)
}

/// Waits for a future of librdkafka's admin client on this thread. A tokio runtime's `block_on`
/// would panic in a test that is itself async; each request carries its own deadline.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = TaskContext::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_another_thread_completes_is_awaited() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let other = std::thread::spawn(move || sender.send(7).unwrap());
        assert_eq!(block_on(receiver).unwrap(), 7);
        other.join().unwrap();
    }
}
