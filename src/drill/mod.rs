//! Breaking and counting: load, faults and the independent checker that judges the outcome.

pub mod check;
