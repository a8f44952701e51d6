//! Real servers on loopback, without Docker and without root, for tests, drills and the demo.
//!
//! A [`RunDir`] is a short folder under `/tmp` that holds everything one run leaves on disk, with a
//! warden that empties it whatever becomes of us. A [`Process`] is a server in it that can be
//! killed, frozen and thawed. [`fetch()`] brings the servers' binaries, once.
//!
//! All of it blocks: processes are started and awaited the same way from a test, from a `static`
//! that outlives a test's runtime, and from a plain `main`. An async caller that must not stall
//! its own tasks wraps a call in `spawn_blocking`.
//!
//! Guarantee: no process and no folder outlives the process that made them, also after a panic,
//! Ctrl-C or `kill -9` of it.
//! Bounded by: every wait takes a deadline and fails naming what it waited for.
//! Tested by: `tests/services/cluster_postgres.rs`, `tests/services/cluster_kafka.rs` and
//! `tests/services/cluster_warden.rs`.

pub mod certificates;
pub mod fetch;
pub mod kafka;
mod port;
mod postgres;
mod process;
mod run_dir;
mod services;
mod wait;

pub use certificates::{Certificates, Identity};
pub use kafka::{Kafka, KafkaOptions};
pub use port::free_port;
pub use postgres::{
    Access, PASSWORD, Postgres, PostgresOptions, Rows, ServerTls, Shutdown, StandbyOptions,
};
pub use process::{Launch, Process};
pub use run_dir::{Account, RunDir};
pub use services::{Origin, POSTGRES_VERSIONS, PostgresBinaries, Services, fetch, listing};
pub use wait::wait_until;
