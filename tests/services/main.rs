//! Tests against real servers, one module a topic.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers panic and print as its body does"
)]

mod check;
mod cluster_kafka;
mod cluster_postgres;
mod cluster_standby;
mod cluster_tls;
mod cluster_warden;
mod end_to_end;
mod golden;
mod harness;
mod inspect;
mod kafka_access;
mod kafka_fence;
mod kafka_publisher;
mod kafka_relayed;
mod kafka_topics;
mod load;
mod migrations;
mod outbox;
mod outbox_sql;
mod pool;
mod postgres;
mod postgres_tls;
mod proxy;
mod replication;
mod replication_access;
mod replication_slots;
mod run;
mod shipped;
mod up;
