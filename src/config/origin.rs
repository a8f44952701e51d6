//! A value as it was said, and where: the raw half of the configuration.
//!
//! It promises that a value never loses its origin, and refuses to be printed: a raw value may be a
//! secret, so its `Debug` shows only where it came from.

use std::fmt;
use std::sync::Arc;

/// Where a value came from. Displays as what an operator looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The key's own default.
    Default,
    /// The configuration file.
    File {
        /// As it was named.
        name: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from outside: a line break or an escape sequence must not reach a terminal.
        match self {
            Self::Default => out.write_str("default"),
            Self::File { name, line } => write!(out, "{}:{line}", name.escape_debug()),
            Self::Variable(name) => write!(out, "variable {}", name.escape_debug()),
            Self::Flag(name) => write!(out, "flag {}", name.escape_debug()),
        }
    }
}

/// What the source's own syntax made of the value. Only TOML has types of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A variable, a flag or a default: text that any kind may parse.
    Words,
    /// A TOML string.
    TomlText,
    /// A TOML integer.
    TomlInteger,
    /// A TOML boolean.
    TomlBoolean,
    /// A TOML value that no kind takes, by its name.
    Foreign(&'static str),
}

/// A value as it was said.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// The words. Empty for a foreign shape.
    pub(super) text: String,
    pub(super) shape: Shape,
    pub(super) origin: Origin,
}

impl Raw {
    pub(super) fn words(text: impl Into<String>, origin: Origin) -> Self {
        Self { text: text.into(), shape: Shape::Words, origin }
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Raw({})", self.origin)
    }
}
