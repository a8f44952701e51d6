//! skeleton

pub mod backoff;
pub mod config;
pub mod lsn;
