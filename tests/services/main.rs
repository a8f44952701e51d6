//! Tests against real servers, one module a topic.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers panic and print as its body does"
)]

mod cluster_kafka;
mod cluster_postgres;
mod harness;
