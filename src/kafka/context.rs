//! What librdkafka tells us of its own accord: log lines, errors, statistics, delivery reports, and
//! its wish for a token.
//!
//! It promises that a lost connection or a request that timed out is remembered, since either puts
//! a running commit in doubt; that a refused login is remembered, since librdkafka itself only
//! tries again; and that log lines come out through tracing. librdkafka calls errors what mends
//! itself; so its lines are warnings at most, and what is an error is said by whoever gives up.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use serde::Deserialize;

use super::deliveries::{Deliveries, Undelivered};
use super::{Tag, TokenSource};

/// librdkafka keeps back a broker's second failure with the same words for so long; within it, a
/// failure may have had a twin that nobody saw.
const SUPPRESSED_FOR: Duration = Duration::from_secs(30);

/// How long a refused login explains a call that fails. It is reported again at least every
/// [`SUPPRESSED_FOR`] while it lasts.
const DENIED_FOR: Duration = Duration::from_secs(45);

/// Listens to one client.
#[derive(Debug)]
pub(super) struct Context {
    /// Who the client is, for log lines: a transactional id, or what it is for.
    name: String,
    token: Option<TokenSource>,
    deliveries: Deliveries,
    disturbance: Mutex<Option<(Instant, String)>>,
    denied: Mutex<Option<(Instant, Code, String)>>,
    statistics: Arc<ClientStatistics>,
}

/// What a producer's queue holds, as of its last statistics.
#[derive(Debug, Default)]
pub struct ClientStatistics {
    queue_records: AtomicU64,
    queue_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl ClientStatistics {
    /// Records in the client's queue or on the way.
    #[must_use]
    pub fn queue_records(&self) -> u64 {
        self.queue_records.load(Ordering::Relaxed)
    }

    /// Bytes of the values of these records.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.load(Ordering::Relaxed)
    }

    /// Bytes sent to brokers since the client was made, compressed and with all overhead.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    fn update(&self, json: &[u8]) -> serde_json::Result<()> {
        /// The fields that we keep; the others are skipped without being stored.
        #[derive(Deserialize)]
        struct Totals {
            msg_cnt: u64,
            msg_size: u64,
            tx_bytes: u64,
        }
        let totals: Totals = serde_json::from_slice(json)?;
        self.queue_records.store(totals.msg_cnt, Ordering::Relaxed);
        self.queue_bytes.store(totals.msg_size, Ordering::Relaxed);
        self.sent_bytes.store(totals.tx_bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Context {
    pub(super) fn new(name: &str, token: Option<&TokenSource>) -> Self {
        Self {
            name: name.to_owned(),
            token: token.cloned(),
            deliveries: Deliveries::default(),
            disturbance: Mutex::default(),
            denied: Mutex::default(),
            statistics: Arc::default(),
        }
    }

    pub(super) fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    pub(super) fn statistics(&self) -> &Arc<ClientStatistics> {
        &self.statistics
    }

    /// What disturbed the connection while a transaction was open that began then; or shortly
    /// before it, when it may have hidden its twin.
    pub(super) fn disturbance_since(&self, begun: Instant) -> Option<String> {
        let disturbance = self.disturbance.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, line) = disturbance.as_ref()?;
        (*at >= begun || at.elapsed() < SUPPRESSED_FOR).then(|| line.clone())
    }

    /// The login or the encryption that was refused, if so. librdkafka reports it once and then
    /// tries for ever, so that only a timeout would be seen.
    pub(super) fn denied(&self) -> Option<(Code, String)> {
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, code, reason) = denied.as_ref()?;
        (at.elapsed() < DENIED_FOR).then(|| (*code, reason.clone()))
    }

    fn refused(&self, code: Code, reason: String) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        *denied = Some((Instant::now(), code, reason));
    }

    fn disturbed(&self, line: String) {
        let mut disturbance = self.disturbance.lock().unwrap_or_else(PoisonError::into_inner);
        *disturbance = Some((Instant::now(), line));
    }
}

/// Whether a log line tells of something that leaves a request of ours unanswered: executed or not,
/// nobody knows. A connection that could never be made, as to the one dead broker of three, had no
/// request of ours.
fn is_disturbance(facility: &str, line: &str) -> bool {
    match facility {
        "REQTMOUT" => true,
        "FAIL" => line.contains("in state UP"),
        _ => false,
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let client = &self.name;
        if is_disturbance(facility, line) {
            self.disturbed(line.to_owned());
        }
        // "Current transaction failed": said at once, long before the records time out.
        if facility == "TXNERR" {
            self.deliveries.transaction_broke();
        }
        // One table of options serves producers and consumers; that some are for one kind only is
        // no news.
        if facility == "CONFWARN" {
            tracing::debug!(client, facility, "{line}");
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(client, facility, "{line}"),
            RDKafkaLogLevel::Notice => tracing::info!(client, facility, "{line}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(client, facility, "{line}");
            }
        }
    }

    fn stats_raw(&self, json: &[u8]) {
        if let Err(error) = self.statistics.update(json) {
            tracing::debug!(client = self.name, %error, "statistics of kafka's client not read");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code @ (Code::Authentication | Code::SSL)) = error.rdkafka_error_code() {
            self.refused(code, reason.to_owned());
        }
        tracing::debug!(client = self.name, %error, "{reason}");
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let source = self.token.as_ref().ok_or("no source of tokens is configured")?;
        source.token().map_err(|error| {
            // librdkafka asks again in ten seconds; meanwhile its error is that of a login.
            tracing::warn!(client = self.name, "{error}");
            self.refused(Code::Authentication, error.to_string());
            Box::from(error)
        })
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    /// The record's tag, as a number: a report allocates nothing.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        match result {
            Ok(_) => self.deliveries.reported(),
            Err((error, record)) => {
                let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
                self.deliveries.failed(Undelivered {
                    tag: Tag(tag),
                    topic: record.topic().to_owned(),
                    code: error.rdkafka_error_code().unwrap_or(Code::Unknown),
                    bytes: length(record.key()) + length(record.payload()),
                });
            }
        }
    }
}

impl fmt::Display for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> Context {
        Context::new("postrider.test-0", None)
    }

    #[test]
    fn a_lost_connection_is_a_disturbance_and_one_never_made_is_not() {
        let begun = Instant::now();
        let lost = "b:9092/1: Disconnected (after 512ms in state UP)";
        let refused = "b:9092/1: Connect failed: Connection refused (after 0ms in state CONNECT)";
        let context = listening();
        context.log(RDKafkaLogLevel::Error, "FAIL", refused);
        assert_eq!(context.disturbance_since(begun), None);
        context.log(RDKafkaLogLevel::Info, "FAIL", lost);
        assert_eq!(context.disturbance_since(begun).as_deref(), Some(lost));
    }

    #[test]
    fn a_request_without_an_answer_is_a_disturbance() {
        let context = listening();
        let begun = Instant::now();
        context.log(RDKafkaLogLevel::Notice, "REQTMOUT", "Timed out EndTxnRequest in flight");
        assert!(context.disturbance_since(begun).is_some());
        // Its twin would not be logged, so the next transaction is in doubt too.
        assert!(context.disturbance_since(Instant::now()).is_some());
    }

    #[test]
    fn a_refused_login_is_remembered() {
        let context = listening();
        context.error(KafkaError::Global(Code::BrokerTransportFailure), "down");
        assert_eq!(context.denied(), None);
        context.error(KafkaError::Global(Code::Authentication), "wrong password");
        assert_eq!(context.denied(), Some((Code::Authentication, "wrong password".to_owned())));
    }

    #[test]
    fn statistics_keep_the_queue() {
        let context = listening();
        context.stats_raw(br#"{"name":"x","msg_cnt":3,"msg_size":120,"tx_bytes":999,"topics":{}}"#);
        let statistics = context.statistics();
        assert_eq!((statistics.queue_records(), statistics.queue_bytes()), (3, 120));
    }
}
