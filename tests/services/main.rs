//! Tests against real servers, one module a topic.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers panic and print as its body does"
)]

mod cluster_postgres;
mod cluster_standby;
mod cluster_tls;
mod cluster_warden;
mod golden;
mod harness;
mod replication;
mod replication_access;
mod replication_slots;
