//! Gives a section its values, checked, and collects what is wrong with them.
//!
//! It promises that every refusal is recorded with the value's origin, and refuses (by panicking)
//! to read a key that is not declared or is of another kind: a mistake in our own code.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::catalogue::{Catalogue, file_sibling};
use super::nearest::nearest;
use super::origin::{Raw, Shape};
use super::problem::{Problem, Problems};
use super::quantity::{format_duration, format_size, parse_duration, parse_size};
use super::{Kind, Secret, Values};

/// The values of all sections. Every method returns `None` for a key that is not set, and for one
/// whose value was refused; in the latter case the loading fails whatever the section returns.
#[derive(Debug)]
pub struct Reader<'a> {
    catalogue: &'a Catalogue,
    values: &'a Values,
    problems: Problems,
    /// Whether all sources were understood: see [`Reader::require`].
    complete: bool,
    read: BTreeSet<&'static str>,
    /// The name whose keys are being read: see [`Reader::within`].
    within: Option<(&'static str, String)>,
}

/// A rule, and why a value breaks it.
struct Fault {
    rule: String,
    why: String,
}

impl Fault {
    fn new(rule: impl Into<String>, why: impl Into<String>) -> Self {
        Self { rule: rule.into(), why: why.into() }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        catalogue: &'a Catalogue,
        values: &'a Values,
        problems: Problems,
        complete: bool,
    ) -> Self {
        Self { catalogue, values, problems, complete, read: BTreeSet::new(), within: None }
    }

    /// All problems, and the keys that no section has asked for.
    pub(super) fn finish(self) -> (Problems, Vec<&'static str>) {
        let keys = self.catalogue.keys().iter().map(|key| key.path);
        let unread = keys.filter(|path| !self.read.contains(path)).collect();
        (self.problems, unread)
    }

    /// The names under which keys of `section` were given, in the order of the alphabet.
    #[must_use]
    pub fn names(&self, section: &'static str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let paths = self.values.keys().filter_map(|path| self.catalogue.named_path(path));
        for path in paths.filter(|path| path.section == section) {
            // Values are sorted by path, so a name's keys stand together.
            if names.last().is_none_or(|last| last != path.name) {
                names.push(path.name.to_owned());
            }
        }
        names
    }

    /// Reads the keys of one name: inside `read`, `section.x` is `section.NAME.x`, and what the name
    /// leaves out is what `section.x` says.
    pub fn within<T>(
        &mut self,
        section: &'static str,
        name: &str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let outer = self.within.replace((section, name.to_owned()));
        let value = read(self);
        self.within = outer;
        value
    }

    /// Whether a source gave the key under the name that is being read, so that it is not inherited.
    #[must_use]
    pub fn is_own(&self, path: &str) -> bool {
        self.own(path).is_some_and(|own| self.is_set_at(&own))
    }

    /// The path of a key under the name that is being read.
    fn own(&self, path: &str) -> Option<String> {
        let (section, name) = self.within.as_ref()?;
        let word = path.strip_prefix(section)?.strip_prefix('.')?;
        Some(format!("{section}.{name}.{word}"))
    }

    /// Where a key's value stands: under the name if it is set there, else where it was declared.
    fn place(&self, path: &str) -> String {
        self.own(path).filter(|own| self.is_set_at(own)).unwrap_or_else(|| path.to_owned())
    }

    fn is_set_at(&self, path: &str) -> bool {
        let secret = self.catalogue.kind(path) == Some(Kind::Secret);
        self.values.contains_key(path) || (secret && self.values.contains_key(&file_sibling(path)))
    }

    /// An inherited value is read once for each name, but is wrong only once.
    fn record(&mut self, problem: Problem) {
        if self.problems.iter().all(|known| *known != problem) {
            self.problems.push(problem);
        }
    }

    /// A text that is not empty.
    pub fn text(&mut self, path: &'static str) -> Option<String> {
        self.checked(path, "text", |kind| kind == Kind::Text, |text| Ok(text.to_owned()))
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, path: &'static str) -> Option<bool> {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Fault::new("must be true or false", "it is neither")),
        };
        self.checked(path, "boolean", |kind| kind == Kind::Boolean, parse)
    }

    /// A whole number in a range, in the caller's own integer type.
    pub fn integer<T>(&mut self, path: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + PartialOrd + Display + TryFrom<i128>,
    {
        let (least, greatest) = (*range.start(), *range.end());
        let rule = format!("must be a whole number from {least} to {greatest}");
        let parse = |text: &str| {
            let Ok(number) = text.parse::<i128>() else {
                return Err(Fault::new(&rule, "it is not a whole number"));
            };
            match T::try_from(number) {
                Ok(number) if range.contains(&number) => Ok(number),
                Ok(number) if number < least => Err(Fault::new(&rule, "it is too small")),
                Err(_) if number < 0 => Err(Fault::new(&rule, "it is too small")),
                Ok(_) | Err(_) => Err(Fault::new(&rule, "it is too large")),
            }
        };
        self.checked(path, "integer", |kind| kind == Kind::Integer, parse)
    }

    /// Bytes in a range.
    pub fn size(&mut self, path: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let rule = "must be a size like 512kB, 64MB or 1GB";
        let rule = bounded(rule, &range, u64::MAX, format_size);
        let parse = |text: &str| match parse_size(text) {
            Ok(size) => within(size, &range, &rule),
            Err(error) => Err(Fault::new(&rule, error.to_string())),
        };
        self.checked(path, "size", |kind| kind == Kind::Size, parse)
    }

    /// A time span in a range.
    pub fn duration(
        &mut self,
        path: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let rule = "must be a time span like 250ms, 10s or 1h30m";
        let rule = bounded(rule, &range, Duration::MAX, format_duration);
        let parse = |text: &str| match parse_duration(text) {
            Ok(span) => within(span, &range, &rule),
            Err(error) => Err(Fault::new(&rule, error.to_string())),
        };
        self.checked(path, "duration", |kind| kind == Kind::Duration, parse)
    }

    /// The name of a file or folder. Whether it exists is the section's business.
    pub fn path(&mut self, path: &'static str) -> Option<PathBuf> {
        self.checked(path, "path", |kind| kind == Kind::Path, |text| Ok(PathBuf::from(text)))
    }

    /// One of the words of the key.
    pub fn choice(&mut self, path: &'static str) -> Option<&'static str> {
        let Some(Kind::Choice(words)) = self.catalogue.kind(path) else {
            panic!("key {path} is read as a choice, but not declared as one")
        };
        let parse = |text: &str| {
            words.iter().copied().find(|word| *word == text).ok_or_else(|| {
                let why = match nearest(text, words.iter().copied()) {
                    Some(word) => format!("did you mean {word}?"),
                    None => "it is none of them".to_owned(),
                };
                Fault::new(format!("must be one of {}", words.join(", ")), why)
            })
        };
        self.checked(path, "choice", |kind| matches!(kind, Kind::Choice(_)), parse)
    }

    /// A secret: from its own key, or from the file that `<path>_file` names. Reads that file.
    pub fn secret(&mut self, path: &'static str) -> Option<Secret> {
        self.declared(path, "secret", |kind| kind == Kind::Secret);
        let place = self.place(path);
        let place = place.as_str();
        let sibling = file_sibling(place);
        let (value, file) = (self.values.get(place), self.values.get(&sibling));
        let (at, fault) = match (value, file) {
            (None, None) => return None,
            (Some(value), Some(file)) => {
                let why = format!("{sibling} is set as well [{}]: remove one", file.origin);
                ((place, value), Fault::new("must be given only once", why))
            }
            (Some(value), None) => match shape_fault(Kind::Secret, value) {
                None => return Some(Secret::new(value.text.clone(), value.origin.clone())),
                Some(fault) => ((place, value), fault),
            },
            (None, Some(file)) => match self.secret_from(file) {
                Ok(secret) => return Some(secret),
                Err(fault) => ((sibling.as_str(), file), fault),
            },
        };
        let ((path, raw), Fault { rule, why }) = (at, fault);
        let problem = Problem::new(path, rule, why).at(raw.origin.clone());
        // The name of a file is no secret and says which one to look at.
        self.record(match value {
            Some(_) => problem.with_note("(secret)"),
            None => problem.with_value(&raw.text),
        });
        None
    }

    fn secret_from(&self, file: &Raw) -> Result<Secret, Fault> {
        if let Some(fault) = shape_fault(Kind::Path, file) {
            return Err(fault);
        }
        Secret::read(PathBuf::from(&file.text), file.origin.clone()).map_err(|error| {
            Fault::new("must be a private file with the secret", error.to_string())
        })
    }

    /// Whether a source, or a default, gives the key a value.
    #[must_use]
    pub fn is_set(&self, path: &str) -> bool {
        self.is_set_at(&self.place(path))
    }

    /// Records a problem when the key is not set. It keeps quiet when a source was not understood:
    /// what is missing may be what was misspelled.
    pub fn require(&mut self, path: &'static str) {
        if self.complete && !self.is_set(path) {
            let kind = self.catalogue.kind(path);
            let or_file = if kind == Some(Kind::Secret) { " (or its _file)" } else { "" };
            let why =
                format!("it has no default: set it{or_file} in the file, environment or flags");
            self.record(Problem::new(path, "must be set", why).with_note("not set"));
        }
    }

    /// Like [`Reader::require`] for a key that a name must give itself, since to inherit it would
    /// make the name the same thing again.
    pub fn require_own(&mut self, path: &'static str) {
        let Some(own) = self.own(path).filter(|_| self.complete && !self.is_own(path)) else {
            return;
        };
        let why = format!("a name needs its own, {path} is another one");
        self.record(Problem::new(own, "must be set", why).with_note("not set"));
    }

    /// Records what a section finds wrong with a value that is fine by itself. The value and its
    /// origin are added here; `rule` and `why` must not hold a secret.
    pub fn problem(&mut self, path: &'static str, rule: impl Into<String>, why: impl Into<String>) {
        let kind = self.catalogue.kind(path);
        assert!(kind.is_some(), "a problem with {path}, which is not declared");
        let place = self.place(path);
        let mut problem = Problem::new(place.as_str(), rule, why);
        if let Some(raw) = self.values.get(&place) {
            problem = problem.at(raw.origin.clone());
            problem = match kind {
                Some(Kind::Secret) => problem.with_note("(secret)"),
                _ => problem.with_value(&raw.text),
            };
        }
        self.record(problem);
    }

    fn declared(&mut self, path: &'static str, reader: &str, fits: impl Fn(Kind) -> bool) -> Kind {
        let kind = self.catalogue.kind(path);
        let kind = kind.unwrap_or_else(|| panic!("key {path} is read but not declared"));
        assert!(fits(kind), "key {path} is declared as {kind:?} but read as {reader}");
        self.read.insert(path);
        kind
    }

    fn checked<T>(
        &mut self,
        path: &'static str,
        reader: &str,
        fits: impl Fn(Kind) -> bool,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let kind = self.declared(path, reader, fits);
        let place = self.place(path);
        let raw = self.values.get(&place)?;
        let Fault { rule, why } = match shape_fault(kind, raw) {
            Some(fault) => fault,
            None => match parse(&raw.text) {
                Ok(value) => return Some(value),
                Err(fault) => fault,
            },
        };
        let problem = Problem::new(place, rule, why).at(raw.origin.clone());
        self.record(match raw.shape {
            Shape::Foreign(what) => problem.with_note(what),
            Shape::TomlInteger | Shape::TomlBoolean => problem.with_note(&raw.text),
            Shape::Words | Shape::TomlText => problem.with_value(&raw.text),
        });
        None
    }
}

/// What is wrong with a value before its kind has parsed it.
fn shape_fault(kind: Kind, raw: &Raw) -> Option<Fault> {
    let rule = match kind {
        Kind::Text | Kind::Secret | Kind::Path => "must be text in quotes",
        Kind::Choice(_) => "must be a word in quotes",
        Kind::Boolean => "must be true or false, without quotes",
        Kind::Integer => "must be a whole number, without quotes",
        Kind::Size => "must be a number of bytes, or a size in quotes like \"64MB\"",
        Kind::Duration => "must be a time span in quotes like \"10s\"",
    };
    let fits = match raw.shape {
        Shape::Words => true,
        Shape::TomlText => !matches!(kind, Kind::Boolean | Kind::Integer),
        Shape::TomlInteger => matches!(kind, Kind::Integer | Kind::Size),
        Shape::TomlBoolean => kind == Kind::Boolean,
        Shape::Foreign(_) => false,
    };
    if !fits {
        let what = match raw.shape {
            Shape::TomlInteger => "a number",
            Shape::TomlBoolean => "a boolean",
            Shape::Words | Shape::TomlText => "text",
            Shape::Foreign(what) => what,
        };
        return Some(Fault::new(rule, format!("it is {what}")));
    }
    // An empty variable is usually an unset one that a template has filled in. Taking it for a
    // value, or for the default, would both be guesses.
    let empty = raw.text.is_empty();
    empty.then(|| Fault::new("must not be empty", "leave the key out instead"))
}

fn bounded<T: PartialEq + Copy>(
    rule: &str,
    range: &RangeInclusive<T>,
    unbounded: T,
    format: impl Fn(T) -> String,
) -> String {
    let least = format(*range.start());
    if *range.end() == unbounded {
        format!("{rule}, at least {least}")
    } else {
        format!("{rule}, from {least} to {}", format(*range.end()))
    }
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>, rule: &str) -> Result<T, Fault> {
    if value < *range.start() {
        Err(Fault::new(rule, "it is too small"))
    } else if value > *range.end() {
        Err(Fault::new(rule, "it is too large"))
    } else {
        Ok(value)
    }
}
