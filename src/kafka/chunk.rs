//! Records on their way to Kafka, many at a time, without copies.
//!
//! A [`Chunk`] is the unit that moves between threads. Keys, values and headers are slices of the
//! buffer they were received in; librdkafka copies them once, when a record enters its queue. All
//! headers of a chunk stand in one list, so that a record costs no allocation of its own here.
//!
//! It refuses a record that librdkafka would refuse for its size, before anything is sent: the
//! transaction stays clean, and something smaller can go in its place.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Topic;

/// What librdkafka counts for a record beside its key, value and headers, at most.
const RECORD_OVERHEAD: usize = 36;

/// What it counts for a header, beside name and value: two lengths of up to five bytes.
const HEADER_OVERHEAD: usize = 10;

/// The caller's name for a record, by which a failure names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub usize);

/// The name of a header, made once and used by many records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// Prepares a name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A header; without a value it is a null, which is not the same as empty.
#[derive(Debug, Clone)]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: Option<Bytes>,
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record {
    /// By what a failure names it.
    pub tag: Tag,
    /// Where it goes; see [`super::Topics::get`].
    pub topic: Topic,
    /// The partition, if not the one that follows from the key.
    pub partition: Option<i32>,
    /// The key; records of one key stay in order.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its time in milliseconds since 1970; the time of sending if not given.
    pub timestamp_ms: Option<i64>,
}

/// Largest record that the client takes: `message.max.bytes`, as it counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimit(pub usize);

/// A record that is larger than the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a record of {size} bytes is larger than message.max.bytes = {limit}: raise it in \
     [kafka.client], and max.message.bytes of the topic with it"
)]
pub struct TooLarge {
    /// What it would take, as librdkafka counts.
    pub size: usize,
    /// What is allowed.
    pub limit: usize,
}

/// Records in order.
#[derive(Debug)]
pub struct Chunk {
    records: Vec<(Record, Range<usize>)>,
    headers: Vec<Header>,
    bytes: usize,
    limit: RecordLimit,
}

impl Chunk {
    /// An empty one, with room for a number of records.
    #[must_use]
    pub fn with_capacity(records: usize, limit: RecordLimit) -> Self {
        Self { records: Vec::with_capacity(records), headers: Vec::new(), bytes: 0, limit }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// It is larger than the client takes; the chunk is as it was.
    pub fn push(
        &mut self,
        record: Record,
        headers: impl IntoIterator<Item = Header>,
    ) -> Result<(), TooLarge> {
        let begin = self.headers.len();
        self.headers.extend(headers);
        let size = size(&record, &self.headers[begin..]);
        if size > self.limit.0 {
            self.headers.truncate(begin);
            return Err(TooLarge { size, limit: self.limit.0 });
        }
        self.bytes += size;
        self.records.push((record, begin..self.headers.len()));
        Ok(())
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What the records take, as librdkafka counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Record, &[Header])> {
        self.records.iter().map(|(record, headers)| (record, &self.headers[headers.clone()]))
    }
}

fn size(record: &Record, headers: &[Header]) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let header = |it: &Header| HEADER_OVERHEAD + it.name.0.len() + length(&it.value);
    let headers = headers.iter().map(header).sum::<usize>();
    RECORD_OVERHEAD + length(&record.key) + length(&record.value) + headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: usize) -> Record {
        Record {
            tag: Tag(0),
            topic: Topic::new("t", 1),
            partition: None,
            key: None,
            value: Some(vec![0; value].into()),
            timestamp_ms: None,
        }
    }

    #[test]
    fn each_record_has_its_own_headers() {
        let mut chunk = Chunk::with_capacity(2, RecordLimit(1000));
        let name = HeaderName::new("id");
        for values in [vec!["a"], vec![], vec!["b", "c"]] {
            let headers = values.into_iter().map(|value| Header {
                name: name.clone(),
                value: Some(Bytes::from_static(value.as_bytes())),
            });
            chunk.push(record(1), headers).unwrap();
        }
        let counts: Vec<_> = chunk.iter().map(|(_, headers)| headers.len()).collect();
        assert_eq!(counts, [1, 0, 2]);
        assert_eq!(chunk.iter().last().unwrap().1[1].value.as_deref(), Some(b"c".as_slice()));
    }

    #[test]
    fn a_record_that_is_too_large_leaves_the_chunk_as_it_was() {
        let mut chunk = Chunk::with_capacity(2, RecordLimit(100));
        chunk.push(record(64), []).unwrap();
        let header = || Header { name: HeaderName::new("x"), value: None };
        let refused = chunk.push(record(64), [header()]).unwrap_err();
        assert_eq!(refused, TooLarge { size: 111, limit: 100 });
        assert_eq!((chunk.len(), chunk.bytes(), chunk.headers.len()), (1, 100, 0));
    }
}
