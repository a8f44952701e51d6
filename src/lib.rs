//! skeleton

pub mod daemon;
pub mod observe;
