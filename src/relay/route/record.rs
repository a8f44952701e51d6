//! A record, ready to be sent: names that were made once, and slices of what was received.

use std::sync::Arc;

use bytes::Bytes;

use super::murmur2::partition;
use super::refusal::{Reason, Refusal};

/// What a row becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic; the same `Arc` for all records of a topic of one plan.
    pub topic: Arc<str>,
    /// The key; `None` is Kafka's null, not the empty key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, the event's id first.
    pub headers: Headers,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The partition, if a column says it.
    pub partition: Option<i32>,
}

/// Headers: names shared by all records of a plan, and the values of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    names: Arc<[Arc<str>]>,
    values: Vec<HeaderValue>,
}

/// The value behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderValue {
    /// This record has no such header.
    Absent,
    /// It has, without a value.
    Null,
    Bytes(Bytes),
}

impl Headers {
    pub(super) fn new(names: Arc<[Arc<str>]>, values: Vec<HeaderValue>) -> Self {
        debug_assert_eq!(names.len(), values.len(), "each name has its value");
        Self { names, values }
    }

    /// Each header's name and value, in order; `None` is a header without a value.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Option<&Bytes>)> {
        self.names.iter().zip(&self.values).filter_map(|(name, value)| match value {
            HeaderValue::Absent => None,
            HeaderValue::Null => Some((name, None)),
            HeaderValue::Bytes(bytes) => Some((name, Some(bytes))),
        })
    }

    /// How many a record has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.iter().count()
    }
}

impl Record {
    /// The event's id: the value of the first header.
    #[must_use]
    pub fn id(&self) -> Option<&Bytes> {
        self.headers.iter().next().and_then(|(_, id)| id)
    }

    /// Bytes of key, value and headers: what a limit counts.
    #[must_use]
    pub fn size(&self) -> usize {
        let length = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + length(value));
        length(self.key.as_ref()) + length(self.value.as_ref()) + headers.sum::<usize>()
    }

    /// The partition in a topic that has so many; `None` where the producer is free to choose.
    #[must_use]
    pub fn partition_of(&self, partitions: i32) -> Option<i32> {
        self.partition.or_else(|| partition(self.key.as_deref(), partitions))
    }

    /// The record, if its topic has the partition that it asks for. Kafka's clients wait for a
    /// partition beyond the last one, in case it comes; that would hold up everything behind it.
    ///
    /// # Errors
    ///
    /// [`Reason::Partition`].
    pub fn within(self, table: &Arc<str>, partitions: i32) -> Result<Self, Box<Refusal>> {
        match self.partition {
            Some(wanted) if wanted >= partitions => {
                let topic = &self.topic;
                let detail = format!(
                    "it asks for partition {wanted} of {topic}, which has {partitions}, from 0: add \
                     partitions or correct the column"
                );
                Err(self.refused(table, Reason::Partition, detail, None))
            }
            Some(_) | None => Ok(self),
        }
    }

    /// A refusal by those who come after routing: the topic's limit, the broker's answer.
    #[must_use]
    pub fn refused(
        &self,
        table: &Arc<str>,
        reason: Reason,
        detail: String,
        size: Option<usize>,
    ) -> Box<Refusal> {
        let (id, key) = (self.id().cloned(), self.key.clone());
        Box::new(Refusal { reason, table: Arc::clone(table), id, key, detail, size })
    }
}
