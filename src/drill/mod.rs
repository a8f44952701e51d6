//! Breaking and counting: real servers, load, faults and the judge of what arrived.
//!
//! Guarantee: a drill starts and breaks only processes of its own, on loopback.
//! Bounded by: every wait in here has a deadline, and every process a warden.

pub mod check;
pub mod cluster;
