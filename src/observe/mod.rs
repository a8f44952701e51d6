//! What a running process says about itself: its log, its metrics, whether it is ready.
//!
//! Nothing in here knows a role. `daemon` starts the log first and the admin endpoints before any
//! work; every other module only gets a handle: `tracing`'s macros, a [`Condition`] of
//! [`Readiness`], a method of [`Metrics`].
//!
//! Guarantee: every metric that can appear on `/metrics` stands in [`METRICS`]; a panic on any
//! thread is logged once with its place; `/ready` answers 200 only while no condition objects.
//! Bounded by: [`http`]'s limits on connections, header bytes and time; one text of metrics a
//! scrape; one reason a condition.
//! Tested by: the unit tests of each file, the endpoints over a real loopback socket.

pub mod admin;
pub mod http;
pub mod log;
pub mod metrics;
pub mod panics;
mod process;
pub mod readiness;

pub use admin::AdminConfig;
pub use log::{LogConfig, LogFormat, LogLevel};
pub use metrics::{METRICS, Metrics, PoolUse};
pub use readiness::{Condition, Readiness};
