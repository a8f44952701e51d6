//! What we set where librdkafka's default does not fit, each with its reason. The operator's value
//! wins over all of these.

/// For every client.
pub(super) const ANY: [(&str, &str); 5] = [
    // Small requests go out at once; a commit is a chain of them.
    ("socket.nagle.disable", "true"),
    // A peer that vanished without a word is noticed while the outbox is idle.
    ("socket.keepalive.enable", "true"),
    // After an outage the first new connection is tried within a second, not within ten.
    ("reconnect.backoff.max.ms", "1000"),
    // Never makes a topic by looking at it.
    ("allow.auto.create.topics", "false"),
    // Queue lengths and round trips; read on the poll thread, so not more often than a scrape.
    ("statistics.interval.ms", "5000"),
];

/// For producers.
pub(super) const PRODUCER: [(&str, &str); 8] = [
    // Readers wait this long, and ten seconds more, for the transaction of a relay that died and
    // has no successor. It must outlive a change of leaders, seen to take 6 to 12 s.
    ("transaction.timeout.ms", "15000"),
    // It is paid by each commit (5 ms of linger: 7.5 ms instead of 4.3), and batches form without
    // it, since whole chunks are put into the queue.
    ("queue.buffering.max.ms", "0"),
    // Below the broker's default max.message.bytes (1 048 588), so that only a record that is too
    // large by itself is ever refused for its size.
    ("batch.size", "1000000"),
    ("batch.num.messages", "10000"),
    // Raised throughput by half against none: bytes are the broker's cost. zstd is smaller on
    // disk at a fifth more CPU.
    ("compression.codec", "lz4"),
    // What Java producers use, so that both put a key into the same partition.
    ("partitioner", "murmur2_random"),
    // The queue is the publisher's memory: bounded by bytes of values, and by a number of records
    // for what librdkafka does not count (keys, headers, some 200 bytes of its own for each).
    ("queue.buffering.max.kbytes", "32768"),
    ("queue.buffering.max.messages", "50000"),
];

/// For the consumer that reads a state topic and goes.
pub(super) const CONSUMER: [(&str, &str); 3] = [
    // The end of the partition is reported with an empty answer; the broker may hold that one back
    // for so long, by default for half a second of each start.
    ("fetch.wait.max.ms", "10"),
    // A consumer keeps up to 64 MiB by default; records of state are small.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.error.backoff.ms", "100"),
];
