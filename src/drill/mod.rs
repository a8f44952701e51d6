//! Breaking and counting: what drives the system, what breaks it, and what judges it.
//!
//! [`load`] writes to the outbox at a rate that does not wait for answers, [`history`] keeps what
//! it knows of each transaction, [`proxy`] breaks the network between any two processes.
//! None of them shares code with what they test.

pub mod history;
pub mod load;
pub mod proxy;
