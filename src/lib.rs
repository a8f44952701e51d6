//! skeleton

pub mod drill;
