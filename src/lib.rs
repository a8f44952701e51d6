//! postrider relays a Postgres outbox table into Kafka: each committed row exactly once, whole
//! transactions, in commit order. This page is the map of its code.
//!
//! # The six hops
//!
//! An order, or any event, travels six hops from the write to the eye. Each is a promise with one
//! defence, and one place in the code.
//!
//! | hop | promise | defence | in the code |
//! |---|---|---|---|
//! | 1 write | the change and its event commit together or not at all | one Postgres transaction | `outbox` |
//! | 2 publish | every committed row reaches Kafka once, transactions whole, in commit order | a Kafka transaction that carries its own progress record | not yet |
//! | 3 route | all events of a key are in one partition, in order | the key is the aggregate's id, hashed as Java does | not yet |
//! | 4 process | the effect of each event happens once | inbox row, effect and next event in one transaction | not yet |
//! | 5 quarantine | a poison event stops nobody else and is never lost | a retry budget, parked keys, a ledger and replay | not yet |
//! | 6 display | the page never shows more than is true | pending states and a versioned read model | not yet |
//!
//! # Layers
//!
//! Imports point down, never up or sideways; `tests/tidy` holds the table and fails otherwise.
//!
//! ```text
//!   bin          postrider, drill: parse, assemble, map the result to an exit code
//!   drill        real servers on loopback, load, faults, and the checker that judges
//!   relay        the role of `postrider run`; the machine and the routing of the relay to come
//!   outbox       hop 1 for Rust writers
//!   kafka        the transactional publisher, fencing, progress topics: wait for their relay
//!   replication  the replication connection and its decoder: wait for their relay
//!   postgres     ordinary SQL: settings, TLS, pool, migrations
//!   daemon       one order of starting and stopping, signals, tasks, exit codes
//!   observe      logs, metrics, GET /live /ready /metrics
//!   config       file, environment, flags; every problem at once; secrets
//!   ground       lsn, backoff, event: import nothing of ours
//! ```
//!
//! `drill::check`, the checker, uses the ground and the client crates only: one that shared code
//! with what it judges would prove nothing.
//!
//! # Where to start reading
//!
//! `event` (the contract on the wire), `outbox` (how an event enters the table), `drill::check`
//! (what must be true afterwards), then `daemon` (the life of every process).

pub mod backoff;
pub mod config;
pub mod daemon;
pub mod drill;
pub mod event;
pub mod kafka;
pub mod lsn;
pub mod observe;
pub mod outbox;
pub mod postgres;
#[cfg(test)]
mod property;
pub mod relay;
pub mod replication;
