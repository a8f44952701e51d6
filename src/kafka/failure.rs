//! What a failure of Kafka means for whoever publishes: one function decides, by one table.
//!
//! It promises that every error becomes one of four answers: the same call again, the whole
//! start-up path again, a record that can never be sent, or an operator's work with the next step
//! in words. It refuses to guess: what it does not know is a doubt, and a doubt restarts.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::Tag;

/// Why a publisher or a read gave up. Whatever it is, the producers are spent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Drop everything and take the start-up path from its top.
    #[error("{fact}")]
    Restart {
        /// What kind of trouble it was.
        why: Why,
        /// What happened, while what was being done.
        fact: String,
    },
    /// These records can never be sent as they are; take the start-up path and set them aside.
    #[error("{fact}")]
    Quarantine {
        /// The tags of the records, at least one.
        records: Vec<Tag>,
        /// What happened.
        fact: String,
    },
    /// Trying again does not help until somebody has done something.
    #[error("{fact}: {remedy}")]
    Stop {
        /// What happened.
        fact: String,
        /// What the operator has to do.
        remedy: String,
        /// Whether somebody may be at it already, so that waiting a while is worth it: a topic that
        /// is still to be created, a right that is still to be granted.
        may_heal: bool,
    },
}

/// Why everything has to start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Another relay has our transactional ids now, or our transaction took longer than its
    /// timeout; librdkafka cannot tell the two apart.
    Fenced,
    /// Nobody knows whether the last transaction was committed; only the progress record does.
    Doubt,
    /// No broker answered in time.
    Unreachable,
}

/// What to do after one failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Make the same call again, and no other.
    Retry(String),
    /// Give up, so.
    Final(Failure),
}

impl Failure {
    pub(super) fn restart(why: Why, fact: impl Into<String>) -> Self {
        Self::Restart { why, fact: fact.into() }
    }

    pub(super) fn stop(fact: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Stop { fact: fact.into(), remedy: remedy.into(), may_heal: false }
    }

    /// A thread of ours could not be started, or ended before it answered.
    pub(super) fn thread(doing: &str) -> Self {
        Self::restart(Why::Doubt, format!("the thread for {doing} ended without an answer"))
    }
}

/// Decides what an error means. `doing` is what was tried, as a phrase that names the thing:
/// "committing a transaction of postrider.orders-0".
pub(super) fn classify(doing: &str, error: &KafkaError) -> Verdict {
    let fact = format!("{doing} failed: {error}");
    if let KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) = error {
        // The message of a refused option shows its value, which may be a password.
        let fact = format!("{doing} failed: the client refuses its options");
        let remedy = "see librdkafka's log line above, and correct [kafka.client]";
        return Verdict::Final(Failure::stop(fact, remedy));
    }
    // rdkafka keeps the code of an administrator's request to itself.
    let code = if let KafkaError::AdminOp(code) = error {
        Some(*code)
    } else {
        error.rdkafka_error_code()
    };
    let code = code.unwrap_or(Code::Unknown);
    // The flush inside of a commit is not reported as a transaction's error, yet the commit must be
    // called again, and nothing else may.
    let flush = matches!(error, KafkaError::Flush(Code::OperationTimedOut));
    let retriable = matches!(error, KafkaError::Transaction(it) if it.is_retriable()) || flush;
    let fatal = matches!(error, KafkaError::Transaction(it) if it.is_fatal());
    if retriable && !fatal {
        return Verdict::Retry(fact);
    }
    Verdict::Final(of_code(code, fact))
}

/// The table: what a code means that will not go away by the same call.
pub(super) fn of_code(code: Code, fact: String) -> Failure {
    if let Some((remedy, may_heal)) = remedy(code) {
        return Failure::Stop { fact, remedy: remedy.to_owned(), may_heal };
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "librdkafka has 200 codes, and more with each version: the unknown is a doubt"
    )]
    let why = match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Why::Fenced,
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::RequestTimedOut
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::NetworkException => Why::Unreachable,
        _ => Why::Doubt,
    };
    Failure::Restart { why, fact }
}

/// What an operator has to do, where only one can help; and whether one may be at it.
fn remedy(code: Code) -> Option<(&'static str, bool)> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every code that is not an operator's work is the caller's"
    )]
    Some(match code {
        Code::TransactionalIdAuthorizationFailed => (
            "grant Write on the transactional ids, as a prefixed resource: the product fences ids \
             0 to 3 whatever number is configured",
            true,
        ),
        Code::TopicAuthorizationFailed => {
            ("grant Write on it, and Read too if it is the progress or quarantine topic", true)
        }
        Code::GroupAuthorizationFailed => (
            "grant Read on the consumer group: no group is joined, but librdkafka looks for its \
             coordinator all the same",
            true,
        ),
        Code::ClusterAuthorizationFailed => ("grant the right on the cluster", true),
        Code::Authentication | Code::SaslAuthenticationFailed => {
            ("check user, password or token and the mechanism in [kafka.client]", true)
        }
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            ("set sasl.mechanism in [kafka.client] to one that the broker's listener offers", false)
        }
        Code::SSL => (
            "check ssl.ca.location, the name in the broker's certificate and the validity of both \
             certificates",
            true,
        ),
        Code::InvalidTransactionTimeout => (
            "lower transaction.timeout.ms in [kafka.client] to the broker's \
             transaction.max.timeout.ms or below",
            false,
        ),
        Code::UnsupportedFeature | Code::UnsupportedVersion => (
            "the broker has no transactions as they are needed: use Kafka 2.5 or newer, or choose \
             delivery = \"at-least-once\"",
            false,
        ),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            ("create the topic, or let create_topics do it", true)
        }
        Code::InvalidTopic => ("give the topic a name that Kafka accepts", false),
        Code::InvalidRecord => (
            "the topic refuses the record for what it is: a compacted topic takes none without a \
             key",
            false,
        ),
        Code::PolicyViolation
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor => {
            ("create the topic by hand, by the rules of this cluster", false)
        }
        _ => return None,
    })
}

/// Whether a broker or librdkafka refused a record for its size.
pub(super) fn is_too_large(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge
    )
}

/// Whether a code says only that a record was thrown away because of something else.
pub(super) fn is_aftermath(code: Code) -> bool {
    matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::Inconsistent)
        || matches!(code, Code::State | Code::OutOfOrderSequenceNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(error: KafkaError) -> Failure {
        match classify("testing", &error) {
            Verdict::Final(failure) => failure,
            Verdict::Retry(fact) => panic!("retried: {fact}"),
        }
    }

    #[test]
    fn a_timed_out_flush_is_the_same_call_again() {
        let error = KafkaError::Flush(Code::OperationTimedOut);
        assert!(matches!(classify("committing", &error), Verdict::Retry(_)));
    }

    #[test]
    fn what_is_not_known_is_a_doubt() {
        let failure = verdict(KafkaError::Global(Code::Unknown));
        assert!(matches!(failure, Failure::Restart { why: Why::Doubt, .. }), "{failure:?}");
    }

    #[test]
    fn fenced_and_unreachable_are_told_apart() {
        for code in [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch] {
            let failure = verdict(KafkaError::Global(code));
            assert!(matches!(failure, Failure::Restart { why: Why::Fenced, .. }), "{failure:?}");
        }
        let failure = verdict(KafkaError::MetadataFetch(Code::BrokerTransportFailure));
        assert!(matches!(failure, Failure::Restart { why: Why::Unreachable, .. }));
    }

    #[test]
    fn a_stop_says_what_to_do_and_a_missing_right_may_heal() {
        let failure = verdict(KafkaError::MessageProduction(Code::TopicAuthorizationFailed));
        let Failure::Stop { remedy, may_heal, .. } = &failure else { panic!("{failure:?}") };
        assert!(remedy.contains("grant Write") && *may_heal, "{failure}");
        let failure = verdict(KafkaError::Global(Code::InvalidTransactionTimeout));
        assert!(matches!(failure, Failure::Stop { may_heal: false, .. }), "{failure:?}");
    }

    #[test]
    fn an_option_that_is_refused_is_not_shown() {
        let error = KafkaError::ClientCreation("sasl.password hunter2".to_owned());
        assert!(!verdict(error).to_string().contains("hunter2"));
    }
}
