//! One producer of librdkafka's, with calls that do what their names say and nothing else.
//!
//! Promises a commit without the 100 ms step of the client's own flush: [`Producer::drain`] is woken
//! by the last delivery report. Promises that every call ends by its deadline, and that dropping
//! one never blocks its owner for longer than [`DROP_TIMEOUT`].
//!
//! An abort is a courtesy to readers, who need not wait for the timeout; it is no recovery. After
//! an abort that follows a failed record, the next, perfectly good transaction may fail with
//! skipped sequence numbers. So whoever gets a failure from here drops the producer.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::ClientOptions;
use super::chunk::{Header, Record};
use super::context::Context;
use super::deliveries::Undelivered;
use super::failure::{Failure, Verdict, Why, classify, is_aftermath, is_too_large, of_code};
use super::options::Purpose;

/// How long one call into librdkafka may block before we look at the deadline and at what it told
/// us meanwhile.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A call that says "again" at once is not made again at once.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long the abort after a failure may take. Without it readers wait for the timeout, which is
/// not much longer.
const ABORT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the owner of a dropped producer waits for it to go. librdkafka joins its threads, and
/// one of them may be waiting for a broker; it then ends in the background, fenced as it is.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// How much of the queue must be free before a full one is filled again, as a part of what is in
/// it: waking for each record costs more than it gives.
const REFILL_DIVISOR: usize = 8;

/// A producer, with a thread that takes its delivery reports.
pub(super) struct Producer {
    name: String,
    transactional: bool,
    batch_bytes: usize,
    /// Taken out by the drop.
    inner: Option<ThreadedProducer<Context>>,
}

/// How sure a commit was that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Certainty {
    /// It went through at once.
    Sure,
    /// It succeeded, but something was left without an answer on the way; the producer must be
    /// renewed before the next transaction. Why, in words.
    Disturbed(String),
}

impl Producer {
    /// Makes a client. It connects by itself, later.
    pub(super) fn create(options: &ClientOptions, purpose: &Purpose<'_>) -> Result<Self, Failure> {
        let name = match purpose {
            Purpose::Transactions { id } => (*id).to_owned(),
            Purpose::Idempotent => "the idempotent producer".to_owned(),
            Purpose::LookUp => "the look-up client".to_owned(),
            Purpose::Reader { group } => (*group).to_owned(),
        };
        let context = Context::new(&name, options.token());
        let created = options.config(purpose).create_with_context(context);
        let inner = created.map_err(|error| final_of(&format!("making {name}"), &error))?;
        let transactional = matches!(purpose, Purpose::Transactions { .. });
        Ok(Self { name, transactional, batch_bytes: options.batch_bytes(), inner: Some(inner) })
    }

    pub(super) fn inner(&self) -> &ThreadedProducer<Context> {
        self.inner.as_ref().expect("only the drop takes it out")
    }

    pub(super) fn context(&self) -> &Context {
        self.inner().client().context()
    }

    /// Fences: raises the id's epoch, so that nothing of an older producer of this id is taken any
    /// more, and completes or aborts what that one had open.
    pub(super) fn init(&self, deadline: Instant) -> Result<(), Failure> {
        let doing = format!("fencing {}", self.name);
        self.again(&doing, deadline, |timeout| self.inner().init_transactions(timeout))?;
        Ok(())
    }

    /// Opens a transaction. This is no call to a broker.
    pub(super) fn begin(&self) -> Result<(), Failure> {
        let begun = self.inner().begin_transaction();
        begun.map_err(|error| self.failed("beginning a transaction of", &error))
    }

    /// Puts a record into the queue; waits for room in it until the deadline.
    pub(super) fn enqueue(
        &self,
        record: &Record,
        headers: &[Header],
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut next = BaseRecord {
            topic: record.topic.name(),
            partition: record.partition,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: record.timestamp_ms,
            headers: prepare(headers),
            delivery_opaque: record.tag.0,
        };
        loop {
            self.context().deliveries().sent();
            let (error, refused) = match self.inner().send(next) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let deliveries = self.context().deliveries();
            deliveries.unsent();
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) => {
                    let in_flight = deliveries.in_flight();
                    let room = in_flight - in_flight.div_ceil(REFILL_DIVISOR);
                    deliveries
                        .wait(room, deadline)
                        .map_err(|late| self.undrained(late.in_flight, "with the queue full"))?;
                    if deliveries.any_failed() {
                        return Err(self.undelivered());
                    }
                    next = refused;
                }
                Some(code) if is_too_large(code) => {
                    let size = record.value.as_ref().map_or(0, Bytes::len);
                    let topic = record.topic.name();
                    let fact = format!("a record of {size} bytes is too large for topic {topic}");
                    return Err(Failure::Quarantine { records: vec![record.tag], fact });
                }
                Some(_) | None => return Err(self.failed("sending with", &error)),
            }
        }
    }

    /// Waits until Kafka has every record, or says which it does not take.
    pub(super) fn drain(&self, deadline: Instant) -> Result<(), Failure> {
        let deliveries = self.context().deliveries();
        let waited = deliveries.wait(0, deadline);
        if deliveries.any_failed() {
            return Err(self.undelivered());
        }
        waited.map_err(|late| self.undrained(late.in_flight, "before the commit"))?;
        // The last report counts as on the way until its callback has returned and its event is
        // freed, a few microseconds. A commit that comes before falls into the flush's step of
        // 100 ms. The poll thread may have lost its core just then: give it ours.
        while self.inner().in_flight_count() > 0 {
            if Instant::now() >= deadline {
                return Err(self.undrained(1, "though each was reported"));
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// Commits what was sent and drained since the begin at `begun`.
    pub(super) fn commit(&self, begun: Instant, deadline: Instant) -> Result<Certainty, Failure> {
        let doing = format!("committing a transaction of {}", self.name);
        let commit = |timeout| self.inner().commit_transaction(timeout);
        let retried = self.again(&doing, deadline, commit)?;
        // REASON 8. A request without an answer may still be carried out by a broker later, and
        // until KIP-890 nothing tells the broker that it belongs to an older transaction of the
        // same epoch. So this producer begins no other one.
        let disturbance = self.context().disturbance_since(begun).or(retried);
        Ok(disturbance.map_or(Certainty::Sure, Certainty::Disturbed))
    }

    /// Aborts, so that readers need not wait for the timeout. Whether it worked does not matter:
    /// the producer is dropped, and the next fencing aborts what is open.
    pub(super) fn abort(&self) {
        if let Err(error) = self.inner().abort_transaction(ABORT_TIMEOUT) {
            tracing::debug!(client = self.name, %error, "the abort of a spent transaction failed");
        }
    }

    /// Makes one call until it is done or is not to be made again. Answers why it was made more
    /// than once, if it was.
    fn again(
        &self,
        doing: &str,
        deadline: Instant,
        call: impl Fn(Duration) -> Result<(), KafkaError>,
    ) -> Result<Option<String>, Failure> {
        let mut retried = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Err(error) = call(left.min(CALL_TIMEOUT)) else { return Ok(retried) };
            if let Some((code, reason)) = self.context().denied() {
                return Err(of_code(code, format!("{doing} failed: {reason}")));
            }
            match classify(doing, &error) {
                Verdict::Final(failure) => return Err(self.root_of(failure)),
                Verdict::Retry(fact) if Instant::now() >= deadline => {
                    return Err(Failure::restart(Why::Unreachable, format!("{fact}, to the last")));
                }
                Verdict::Retry(fact) => retried = Some(fact),
            }
            thread::park_timeout(RETRY_PAUSE);
        }
    }

    fn failed(&self, doing: &str, error: &KafkaError) -> Failure {
        self.root_of(final_of(&format!("{doing} {}", self.name), error))
    }

    /// The first fatal error of a producer explains all later ones.
    fn root_of(&self, failure: Failure) -> Failure {
        self.fatal().unwrap_or(failure)
    }

    fn fatal(&self) -> Option<Failure> {
        let (code, reason) = self.inner().client().fatal_error()?;
        Some(of_code(code, format!("{} is dead: {reason}", self.name)))
    }

    fn undrained(&self, in_flight: usize, when: &str) -> Failure {
        let fact = format!("{in_flight} records of {} did not reach kafka {when}", self.name);
        Failure::restart(Why::Unreachable, fact)
    }

    /// What the failed records mean, or a transaction that failed without one. Aborts, since only
    /// then every record is reported, and the failed ones of a batch are known together.
    fn undelivered(&self) -> Failure {
        // A producer whose transaction has failed answers a begin with the reason of that.
        let reason = self.transactional.then(|| self.inner().begin_transaction().err()).flatten();
        // Asked now, for the abort of a transaction that no partition was added to is a fatal error
        // of its own.
        let fatal = self.fatal();
        if self.transactional {
            self.abort();
        }
        let deliveries = self.context().deliveries();
        // If it ends by its deadline, what was reported has to do.
        let settled = deliveries.settle(Instant::now() + ABORT_TIMEOUT);
        let failures = deliveries.failures();
        let telling = failures.first().filter(|first| !is_aftermath(first.code));
        if let Some(fatal) = fatal {
            return fatal;
        }
        match (telling, reason) {
            (Some(first), _) if is_too_large(first.code) && settled.is_ok() => {
                too_large(&failures, self.batch_bytes)
            }
            (Some(Undelivered { topic, tag, code, .. }), _) => {
                let fact = format!("topic {topic} did not take record {}: {code}", tag.0);
                of_code(*code, fact)
            }
            (None, Some(error)) => {
                let topics: BTreeSet<_> = failures.iter().map(|it| it.topic.as_str()).collect();
                let topics = topics.into_iter().collect::<Vec<_>>().join(", ");
                let doing = format!("sending to {topics} in a transaction of {}", self.name);
                final_of(&doing, &error)
            }
            (None, None) => {
                let fact = format!("records of {} were thrown away", self.name);
                Failure::restart(Why::Doubt, fact)
            }
        }
    }
}

/// What an error means that is not to be tried again.
fn final_of(doing: &str, error: &KafkaError) -> Failure {
    match classify(doing, error) {
        Verdict::Final(failure) => failure,
        Verdict::Retry(fact) => Failure::restart(Why::Doubt, fact),
    }
}

/// Which of the records that were refused for their size can never be sent.
///
/// A broker measures a batch, and librdkafka, unlike Java's client, does not split one that is too
/// large. So a record is to blame only if it was alone, or does not fit into a batch by itself;
/// otherwise innocent ones would be set aside.
fn too_large(failures: &[Undelivered], batch_bytes: usize) -> Failure {
    let refused: Vec<_> = failures.iter().filter(|record| is_too_large(record.code)).collect();
    let to_blame = |record: &&&Undelivered| refused.len() == 1 || record.bytes >= batch_bytes;
    let records: Vec<_> = refused.iter().filter(to_blame).map(|record| record.tag).collect();
    let (topic, bytes) = (&refused[0].topic, refused[0].bytes);
    if records.is_empty() {
        return Failure::stop(
            format!("topic {topic} takes no batch of {batch_bytes} bytes"),
            "lower batch.size in [kafka.client] below the topic's max.message.bytes, or raise that",
        );
    }
    let fact = format!("a record of {bytes} bytes is larger than topic {topic} takes");
    Failure::Quarantine { records, fact }
}

fn prepare(headers: &[Header]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let room = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.iter().fold(room, |prepared, header| {
        let value = header.value.as_deref();
        prepared.insert(KafkaHeader { key: header.name.as_str(), value })
    }))
}

impl Drop for Producer {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let (send, done) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("kafka-drop".to_owned());
        let started = thread.spawn(move || {
            drop(inner);
            drop(send);
        });
        let ended = done.recv_timeout(DROP_TIMEOUT);
        if started.is_err() || ended == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::debug!(client = self.name, "a dropped client ends in the background");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Tag;

    fn refused(tag: usize, bytes: usize) -> Undelivered {
        let code = Code::MessageSizeTooLarge;
        Undelivered { tag: Tag(tag), topic: "t".to_owned(), code, bytes }
    }

    #[test]
    fn only_a_record_that_is_too_large_by_itself_is_set_aside() {
        let tags = |failures: &[_]| match too_large(failures, 1000) {
            Failure::Quarantine { records, .. } => records,
            Failure::Restart { .. } | Failure::Stop { .. } => Vec::new(),
        };
        assert_eq!(tags(&[refused(1, 10)]), [Tag(1)]);
        assert_eq!(tags(&[refused(1, 10), refused(2, 2000)]), [Tag(2)]);
        assert_eq!(tags(&[refused(1, 10), refused(2, 20)]), []);
    }
}
