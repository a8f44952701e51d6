//! What is wrong with a configuration, said once and completely.
//!
//! It promises one line a problem, `path: value, rule, why [origin]`, and refuses to show a secret:
//! values reach it only through [`Problem::with_value`], which hides passwords and control
//! characters and cuts what is long.

use std::fmt;

use super::origin::Origin;
use super::redact::redact;

/// Characters of a value that a message shows. Enough to recognise it, short enough for a line.
const VALUE_CHARS_MAX: usize = 60;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: String,
    value: Option<String>,
    rule: String,
    why: String,
    origin: Option<Origin>,
}

impl Problem {
    /// `path` breaks `rule`; `why` explains, or says the way out. Neither may hold a secret.
    pub fn new(path: impl Into<String>, rule: impl Into<String>, why: impl Into<String>) -> Self {
        let (path, rule, why) = (path.into(), rule.into(), why.into());
        Self { path, value: None, rule, why, origin: None }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Shows the value. Never call it for a secret or for an unknown key, which may be a
    /// misspelled secret.
    #[must_use]
    pub fn with_value(mut self, value: &str) -> Self {
        let safe = redact(value);
        let mut shown: String = safe.chars().take(VALUE_CHARS_MAX).collect();
        if shown.len() < safe.len() {
            shown.push('…');
        }
        self.value = Some(format!("{shown:?}"));
        self
    }

    /// Says what stands in the place of a value, in our own words.
    #[must_use]
    pub(super) fn with_note(mut self, note: &str) -> Self {
        self.value = Some(note.to_owned());
        self
    }

    /// The key, variable, flag or file it is about.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it was said, if it was.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.path.escape_debug())?;
        if let Some(value) = &self.value {
            write!(out, "{value}, ")?;
        }
        out.write_str(&self.rule)?;
        if !self.why.is_empty() {
            write!(out, ", {}", self.why)?;
        }
        match &self.origin {
            Some(origin) => write!(out, " [{origin}]"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong. As an error it is the whole report, ready to print; exit code 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One by one, in the order of the sources: file, environment, flags, checks.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl Extend<Problem> for Problems {
    fn extend<T: IntoIterator<Item = Problem>>(&mut self, more: T) {
        self.0.extend(more);
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(out, "1 problem in the configuration, nothing was started:")?,
            many => writeln!(out, "{many} problems in the configuration, nothing was started:")?,
        }
        for problem in &self.0 {
            writeln!(out, "  {problem}")?;
        }
        let them = if self.0.len() == 1 { "it" } else { "them" };
        write!(
            out,
            "correct {them} and start again; docs/configuration.md describes every key, \
             --help the arguments"
        )
    }
}

impl std::error::Error for Problems {}
