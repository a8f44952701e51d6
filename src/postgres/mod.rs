//! x

mod passfile;
pub mod settings;
