//! Publishing to Kafka exactly once: bytes, topics, headers and an opaque progress.
//!
//! It knows no outbox, no order and no Postgres. Records go out in Kafka transactions, and each
//! transaction carries the progress that it makes, as its last record; so the progress that can be
//! read is exactly what readers can see, and a relay that starts goes on from there.
//!
//! ```text
//!   ClientOptions ──▶ StateTopic::open ──▶ peek             anybody, any time: fences nobody
//!        │                                                  (then the caller gets hold of the slot)
//!        ▼
//!      fence ──▶ Fenced ──▶ read_progress ──▶ Publisher ──▶ send … commit, send … commit
//!        ▲                                        │
//!        └──── any failure, any doubt: drop it ───┘
//! ```
//!
//! # Why it is safe
//!
//! The reasons are numbered, and stand beside the steps that they protect.
//!
//! | # | reason | where |
//! |---|---|---|
//! | 1 | an older publisher's records and commit carry an old epoch | `fence` |
//! | 2 | all ids that can exist are fenced, not those configured | `fence` |
//! | 3 | what an older publisher has begun to commit is completed before fencing returns | `fence` |
//! | 4 | progress is read to the uncommitted high watermark | `state_topic` |
//! | 5 | and by position, for markers have offsets and are no records | `state_topic` |
//! | 6 | the progress is the last record of its transaction | `driver` |
//! | 7 | the next transaction begins after the last commit has returned | `driver` |
//! | 8 | after anything without an answer, the producer begins no other transaction | `producer` |
//!
//! Whoever fences us between our fence and our first commit may have been overlooked by our read;
//! then that commit fails, and nothing of it is ever visible. A commit that failed may have worked
//! all the same: it is never believed either way, the next read of the progress tells.
//!
//! # Failures
//!
//! [`Failure`] has three answers for the caller, and `failure` is the one place that gives them.
//! There is no recovery but the whole path: librdkafka cannot go on after a fenced, timed out or
//! partly failed transaction, and what it could retry it has retried.
//!
//! Guarantee: a committed record is visible with the progress that covers it, or neither is.
//! Bounded by: bytes in every queue, a deadline on every call.
//! Tested by: `tests/services/kafka_publisher.rs`, `kafka_fence.rs`, `kafka_topics.rs`, `kafka_access.rs`.

mod admin;
mod chunk;
mod context;
mod deliveries;
mod driver;
mod failure;
mod fence;
mod oauth;
mod options;
mod producer;
mod publisher;
mod state_topic;
mod threads;
mod topics;

pub use chunk::{Chunk, Header, HeaderName, Record, RecordLimit, Tag, TooLarge};
pub use context::ClientStatistics;
pub use failure::{Failure, Why};
pub use fence::{Delivery, Fenced, IDS, PublisherOptions, fence};
pub use oauth::TokenSource;
pub use options::{ClientOptions, OptionProblem};
pub use publisher::{Committed, PROGRESS_TAG, Publisher};
pub use state_topic::{Extent, Records, StateTopic, StateTopicOptions};
pub use topics::{CreateTopics, Topic, Topics};
