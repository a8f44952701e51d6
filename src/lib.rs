//! skeleton

pub mod event;
pub mod outbox;
pub mod postgres;
