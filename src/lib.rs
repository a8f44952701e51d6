//! skeleton
pub mod drill;
