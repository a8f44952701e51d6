//! Breaking and counting: real servers, load, faults and the judge of what arrived.
//!
//! [`cluster`] starts real servers, [`load`] writes to the outbox at a rate that does not wait for
//! answers, [`history`] keeps what it knows of each transaction, and [`proxy`] breaks the network
//! between any two processes.
//!
//! Guarantee: a drill starts and breaks only processes of its own, on loopback.
//! Bounded by: every wait in here has a deadline, and every process a warden.

pub mod check;
pub mod cluster;
pub mod command;
pub mod history;
pub mod load;
pub mod proxy;
pub mod up;
