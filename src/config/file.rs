//! The first source: a TOML file, taken apart into dotted paths and raw values with their lines.
//!
//! It promises to report every syntax error that the parser can tell apart, and what the rest of
//! the file says besides. It refuses to quote the file in a message: a line may hold a secret.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::{Origin, Raw, Shape};
use super::problem::Problem;

/// Largest configuration file. Ours have a few kilobytes; this keeps a wrong path (a log, a device)
/// from being read into memory.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a file says, in the order of its lines.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) values: Vec<(String, Raw)>,
    pub(super) problems: Vec<Problem>,
}

/// Reads and takes apart.
pub(super) fn read(path: &Path) -> Entries {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let (rule, why) = match (read, String::from_utf8(bytes)) {
        (Err(error), _) => {
            ("must be a readable file", format!("{error}; correct --config or create it"))
        }
        (Ok(size), _) if size as u64 > FILE_BYTES_MAX => {
            ("must have at most 1MB", "it is larger: is it the right file?".to_owned())
        }
        (Ok(_), Err(_)) => ("must be UTF-8", "it is not: is it the right file?".to_owned()),
        (Ok(_), Ok(toml)) => return parse(&name, &toml),
    };
    Entries { values: Vec::new(), problems: vec![Problem::new(name, rule, why)] }
}

/// Takes apart. `name` stands for the file in messages.
pub(super) fn parse(name: &str, toml: &str) -> Entries {
    let lines = Lines { name: name.into(), toml };
    let (table, errors) = DeTable::parse_recoverable(toml);
    let mut problems: Vec<_> = errors
        .iter()
        .map(|error| {
            let at = error.span().map_or(toml.len(), |span| span.start);
            (at, Problem::new(name, "must be TOML", error.message()).at(lines.origin(at)))
        })
        .collect();
    problems.sort_by_key(|(at, _)| *at);

    let mut found = Vec::new();
    flatten("", table.get_ref(), &lines, &mut found);
    found.sort_by_key(|(at, ..)| *at);
    // What the parser made of a line with an error is a guess.
    let broken: Vec<_> = problems.iter().map(|(at, _)| lines.origin(*at)).collect();
    let values = found.into_iter().map(|(_, path, raw)| (path, raw));
    Entries {
        values: values.filter(|(_, raw)| !broken.contains(&raw.origin)).collect(),
        problems: problems.into_iter().map(|(_, problem)| problem).collect(),
    }
}

struct Lines<'a> {
    name: Arc<str>,
    toml: &'a str,
}

impl Lines<'_> {
    fn origin(&self, at: usize) -> Origin {
        let before = &self.toml.as_bytes()[..at.min(self.toml.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Origin::File { name: self.name.clone(), line }
    }
}

fn flatten(
    section: &str,
    table: &DeTable<'_>,
    lines: &Lines<'_>,
    found: &mut Vec<(usize, String, Raw)>,
) {
    for (key, value) in table {
        // A quoted key with a dot is one word, not a path. Left in quotes it cannot be mistaken.
        let word = key.get_ref();
        let word = if word.contains('.') { format!("{word:?}") } else { word.to_string() };
        let path = if section.is_empty() { word } else { format!("{section}.{word}") };
        if let Some(inner) = value.get_ref().as_table() {
            // An empty section sets nothing, so there is nothing to check in it.
            flatten(&path, inner, lines, found);
        } else {
            let at = key.span().start;
            found.push((at, path, raw(value, lines.origin(at))));
        }
    }
}

fn raw(value: &Spanned<DeValue<'_>>, origin: Origin) -> Raw {
    let (text, shape) = match value.get_ref() {
        DeValue::String(text) => (text.to_string(), Shape::TomlText),
        DeValue::Boolean(value) => (value.to_string(), Shape::TomlBoolean),
        DeValue::Integer(integer) => {
            let digits = i128::from_str_radix(integer.as_str(), integer.radix());
            let text = digits.map_or_else(|_| integer.to_string(), |number| number.to_string());
            (text, Shape::TomlInteger)
        }
        DeValue::Float(_) => (String::new(), Shape::Foreign("a number with a fraction")),
        DeValue::Datetime(_) => (String::new(), Shape::Foreign("a date or time")),
        DeValue::Array(_) => (String::new(), Shape::Foreign("a list")),
        DeValue::Table(_) => (String::new(), Shape::Foreign("a section")),
    };
    Raw { text, shape, origin }
}
