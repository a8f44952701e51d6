//! Reads the topics at both isolation levels, from the first offset to the end.
//!
//! Promises: every partition is read by `assign`, so no consumer group is touched; the end is the
//! high watermark once the topics have come to rest; a transaction left open is reported with the
//! offset that hides it and never waited for longer than the drain timeout.
//!
//! "The end" is never inferred from record offsets: control records and aborted records take up
//! offsets no reader is shown. A partition is read when librdkafka says so (partition EOF), and as
//! that event names the partition but not the topic, topics are read one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode;

use super::evidence::{Evidence, IdHeader, Names, PartitionLog, TopicId};
use super::record::{id_of, record};

/// librdkafka wants a group even from a reader that only assigns; nothing is committed to it. The
/// name matters to clusters with ACLs.
const GROUP: &str = "postrider-drill-check";

/// With no message and no progress for this long the evidence counts as unreadable. Longer than a
/// broker restart takes clients to notice.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long a single request to the brokers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How brokers answer who may not even know that a topic exists.
const DENIED: RDKafkaErrorCode = RDKafkaErrorCode::TopicAuthorizationFailed;

/// How long one poll waits; bounds how late silence is noticed.
const POLL: Duration = Duration::from_millis(100);

/// How often a topic that has not come to rest is looked at.
const REST_POLL: Duration = Duration::from_millis(200);

/// What to read and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// `bootstrap.servers`.
    pub bootstrap: String,
    /// Further client settings, TLS and SASL above all.
    pub client: Vec<(String, String)>,
    /// These topics, besides those the rows belong to.
    pub topics: Vec<String>,
    /// All topics that start so; none if topics are listed.
    pub prefix: Option<String>,
    /// The topics are at rest when they have not grown for this long.
    pub rest: Duration,
    /// How long missing rows and open transactions are waited for.
    pub drain: Duration,
}

/// One partition on its way into the evidence.
struct Progress {
    log: PartitionLog,
    next: [i64; 2],
    /// Since when an open transaction has kept readers at the same offset.
    blocked_since: Option<Instant>,
    /// Offsets seen at read_committed.
    committed: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Uncommitted,
    Committed,
}

struct Reader {
    reading: Reading,
    uncommitted: BaseConsumer,
    committed: BaseConsumer,
    topics: BTreeMap<TopicId, (String, BTreeMap<i32, Progress>)>,
    /// The topics that rows belong to, and those that were asked for.
    wanted: BTreeSet<String>,
    /// A topic that was listed with an error at the last look, and the error.
    unreadable: Option<String>,
}

/// Reads all topics into the evidence; blocks, so it belongs on a thread of its own.
///
/// # Errors
/// When brokers or partitions cannot be read.
pub fn read(reading: Reading, evidence: &mut Evidence) -> Result<()> {
    let uncommitted = consumer(&reading, "read_uncommitted")?;
    let committed = consumer(&reading, "read_committed")?;
    let mut wanted: BTreeSet<String> = reading.topics.iter().cloned().collect();
    let of_rows: BTreeSet<TopicId> = evidence.rows.iter().map(|row| row.topic).collect();
    wanted.extend(of_rows.into_iter().map(|topic| evidence.topics.text(topic)));
    let topics = BTreeMap::new();
    let mut reader = Reader { reading, uncommitted, committed, topics, wanted, unreadable: None };
    reader.drain(evidence)?;
    reader.account_for_missing(evidence)?;
    let drain = reader.reading.drain;
    for (name, partitions) in reader.topics.into_values() {
        for progress in partitions.into_values() {
            let log = progress.finish(drain).with_context(|| format!("read topic {name}"))?;
            evidence.logs.push(log);
        }
    }
    Ok(())
}

fn consumer(reading: &Reading, level: &str) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    for (key, value) in &reading.client {
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", &reading.bootstrap)
        .set("group.id", GROUP)
        .set("client.id", format!("drill-check-{level}"))
        .set("isolation.level", level)
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Asking for a topic that is missing must not make it.
        .set("allow.auto.create.topics", "false")
        // Records that retention takes away while we read are gone for everybody.
        .set("auto.offset.reset", "earliest")
        // The checker's memory goes to evidence, not to read-ahead (the default is 64 MiB each).
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.wait.max.ms", "50")
        .create()
        .context("set up a Kafka consumer")
}

impl Reader {
    /// Adds the topics and partitions that have appeared since the last look: the first event of a
    /// type makes its topic, and that may be while we wait for it.
    fn find_topics(&mut self, evidence: &mut Evidence) -> Result<()> {
        let metadata = self.uncommitted.fetch_metadata(None, REQUEST_TIMEOUT);
        let metadata =
            metadata.with_context(|| format!("list topics at {}", self.reading.bootstrap))?;
        self.unreadable = None;
        for topic in metadata.topics() {
            let name = topic.name();
            let by_prefix = self.reading.prefix.as_deref().is_some_and(|it| name.starts_with(it));
            if !by_prefix && !self.wanted.contains(name) {
                continue;
            }
            if let Some(error) = topic.error() {
                // One that is being made has no leader yet; it counts if it still has none at the
                // end.
                self.unreadable = Some(format!("topic {name} cannot be read: {error:?}"));
                continue;
            }
            let id = evidence.topics.intern(name.as_bytes());
            let (_, known) =
                self.topics.entry(id).or_insert_with(|| (name.to_owned(), BTreeMap::new()));
            for partition in topic.partitions() {
                let partition = partition.id();
                known.entry(partition).or_insert_with(|| Progress::new(id, partition));
            }
        }
        Ok(())
    }

    /// A topic that rows belong to and that does not exist is no error: its rows are lost. One
    /// that we may not see looks the same in a list, so it is asked for by name.
    fn account_for_missing(&self, evidence: &mut Evidence) -> Result<()> {
        if let Some(unreadable) = &self.unreadable {
            bail!("{unreadable}");
        }
        let found = |name: &String| self.topics.values().any(|(known, _)| known == name);
        for name in self.wanted.iter().filter(|name| !found(name)) {
            let asked = self.uncommitted.fetch_metadata(Some(name), REQUEST_TIMEOUT);
            let asked = asked.with_context(|| format!("ask for topic {name}"))?;
            let mut errors = asked.topics().iter().filter_map(|topic| topic.error());
            if errors.any(|error| RDKafkaErrorCode::from(error) == DENIED) {
                bail!("topic {name} cannot be read: this user may not see it; allow it Read");
            }
            evidence.notes.push(format!("topic {name} does not exist"));
        }
        Ok(())
    }

    /// Reads until nothing is missing and the topics rest, or the drain timeout is over.
    fn drain(&mut self, evidence: &mut Evidence) -> Result<()> {
        let mut missing = Missing::of(evidence);
        let mut deadline = None;
        let mut at_rest_since = Instant::now();
        loop {
            self.find_topics(evidence)?;
            let grown = self.look_at_ends()?;
            self.read_round(Level::Uncommitted, evidence, &mut missing)?;
            self.read_round(Level::Committed, evidence, &mut missing)?;
            let now = Instant::now();
            // Counted from the end of the first pass: a long topic takes as long as it takes.
            let deadline = *deadline.get_or_insert(now + self.reading.drain);
            if grown {
                at_rest_since = now;
            }
            let rests = now.duration_since(at_rest_since) >= self.reading.rest;
            let complete = missing.count == 0 && !self.partitions().any(Progress::blocked);
            if rests && complete {
                return Ok(());
            }
            if now >= deadline {
                if !rests {
                    evidence.notes.push("the topics were still growing when judged".to_owned());
                }
                return Ok(());
            }
            pause(REST_POLL.min(deadline - now));
        }
    }

    fn partitions(&self) -> impl Iterator<Item = &Progress> {
        self.topics.values().flat_map(|(_, partitions)| partitions.values())
    }

    /// Takes the ends to read up to; says whether any has moved.
    fn look_at_ends(&mut self) -> Result<bool> {
        let mut grown = false;
        for (name, partitions) in self.topics.values_mut() {
            for (&partition, progress) in partitions.iter_mut() {
                let asking = || format!("ask for the end of {name}/{partition}");
                let (start, end) = self
                    .uncommitted
                    .fetch_watermarks(name, partition, REQUEST_TIMEOUT)
                    .with_context(asking)?;
                // At read_committed the broker answers with the last stable offset.
                let (_, stable) = self
                    .committed
                    .fetch_watermarks(name, partition, REQUEST_TIMEOUT)
                    .with_context(asking)?;
                grown |= end != progress.log.end;
                progress.log.start = start;
                progress.take_ends(stable.min(end), end);
                progress.next.iter_mut().for_each(|next| *next = start.max(*next));
            }
        }
        Ok(grown)
    }

    fn read_round(
        &mut self,
        level: Level,
        evidence: &mut Evidence,
        missing: &mut Missing,
    ) -> Result<()> {
        let consumer = match level {
            Level::Uncommitted => &self.uncommitted,
            Level::Committed => &self.committed,
        };
        for (name, partitions) in self.topics.values_mut() {
            read_topic(consumer, name, partitions, level, evidence, missing)
                .with_context(|| format!("read topic {name}"))?;
        }
        Ok(())
    }
}

/// Reads one topic up to the ends taken before.
fn read_topic(
    consumer: &BaseConsumer,
    name: &str,
    partitions: &mut BTreeMap<i32, Progress>,
    level: Level,
    evidence: &mut Evidence,
    missing: &mut Missing,
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    for (&partition, progress) in partitions.iter().filter(|(_, it)| it.unread(level)) {
        let from = Offset::Offset(progress.next[level as usize]);
        assignment.add_partition_offset(name, partition, from)?;
    }
    let mut unread = assignment.count();
    if unread == 0 {
        return Ok(());
    }
    // A fresh assignment also discards events of the one before, so that every end-of-partition
    // event below belongs to this topic and was raised after its end was taken.
    consumer.assign(&assignment)?;
    let mut last_error = None;
    let mut heard = Instant::now();
    while unread > 0 {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                debug_assert_eq!(message.topic(), name);
                let Some(progress) = partitions.get_mut(&message.partition()) else { continue };
                // What lies beyond the end is not in the evidence yet, so it is still missing.
                let taken = progress.take(&message, level, &mut evidence.keys);
                if taken && level == Level::Committed {
                    missing.found(evidence, progress.log.topic, &message);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                let Some(progress) = partitions.get_mut(&partition) else { continue };
                if progress.unread(level) {
                    progress.next[level as usize] = progress.target(level);
                    unread -= 1;
                }
            }
            // librdkafka reconnects by itself; what matters is whether records come.
            Some(Err(error)) => last_error = Some(error),
            None => {}
        }
        if heard.elapsed() > SILENCE_MAX {
            let cause = last_error.map_or_else(|| anyhow!("no error was reported"), Into::into);
            return Err(cause.context(format!("{unread} partitions were silent for 30 s")));
        }
    }
    consumer.unassign()?;
    Ok(())
}

impl Progress {
    fn new(topic: TopicId, partition: i32) -> Self {
        let records = Vec::new();
        let (start, end, stable, moving) = (0, 0, 0, false);
        let log = PartitionLog { topic, partition, start, end, stable, moving, records };
        Self { log, next: [0; 2], blocked_since: None, committed: Vec::new() }
    }

    fn take_ends(&mut self, stable: i64, end: i64) {
        if stable == end {
            self.blocked_since = None;
        } else if stable != self.log.stable || self.blocked_since.is_none() {
            self.blocked_since = Some(Instant::now());
        }
        self.log.stable = stable;
        self.log.end = end;
    }

    fn target(&self, level: Level) -> i64 {
        match level {
            Level::Uncommitted => self.log.end,
            Level::Committed => self.log.stable,
        }
    }

    fn unread(&self, level: Level) -> bool {
        self.next[level as usize] < self.target(level)
    }

    fn blocked(&self) -> bool {
        self.log.stable < self.log.end
    }

    /// Keeps a message, unless it lies beyond the end taken: the next round, if there is one,
    /// starts exactly there and sees it again. Says whether it was kept.
    fn take(&mut self, message: &BorrowedMessage<'_>, level: Level, keys: &mut Names) -> bool {
        let offset = message.offset();
        if offset >= self.target(level) {
            return false;
        }
        match level {
            Level::Uncommitted => self.log.records.push(record(message, keys)),
            Level::Committed => self.committed.push(offset),
        }
        true
    }

    /// Marks the records that read_committed shows too. One that it shows alone was lost on the
    /// way here, and evidence with a hole is no evidence.
    fn finish(mut self, drain: Duration) -> Result<PartitionLog> {
        // On a live system some transaction is nearly always open; only one that stays is a fault.
        self.log.moving = self.blocked_since.is_some_and(|since| since.elapsed() < drain);
        let mut committed = self.committed.into_iter().peekable();
        for record in &mut self.log.records {
            record.committed = committed.next_if_eq(&record.offset).is_some();
        }
        match committed.next() {
            None => Ok(self.log),
            Some(offset) => bail!(
                "partition {} shows offset {offset} at read_committed and not at read_uncommitted",
                self.log.partition
            ),
        }
    }
}

/// Which rows no read_committed reader has shown yet: what draining waits for.
struct Missing {
    seen: Vec<bool>,
    count: usize,
}

impl Missing {
    fn of(evidence: &Evidence) -> Self {
        let rows = evidence.rows.len();
        Self { seen: vec![false; rows], count: rows }
    }

    fn found(&mut self, evidence: &Evidence, topic: TopicId, message: &BorrowedMessage<'_>) {
        let (id, IdHeader::Uuid) = id_of(message) else { return };
        let mut rows = evidence.rows_of(id);
        let exact = rows.clone().find(|&row| evidence.rows[row].topic == topic);
        let Some(row) = exact.or_else(|| rows.next()) else { return };
        if !std::mem::replace(&mut self.seen[row], true) {
            self.count -= 1;
        }
    }
}

/// Waits on this thread, which exists for nothing else.
fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
