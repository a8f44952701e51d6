//! What is in effect, for `--print-config`, and the reference table of the documentation.
//!
//! It promises valid TOML, an origin beside every value and no secret, and refuses nothing: it is
//! called with what was already checked.

use super::catalogue::{Catalogue, file_sibling};
use super::origin::{Raw, Shape};
use super::redact::redact;
use super::{Key, Kind, Values};

/// Stands for a secret that was given.
const SET: &str = "\"(set)\"";

/// The effective values as TOML. Passwords within a URL are hidden, too.
pub(super) fn effective(catalogue: &Catalogue, values: &Values) -> String {
    let mut text = String::new();
    for (section, keys) in by_section(catalogue.keys()) {
        text.push_str(&format!("{}[{section}]\n", if text.is_empty() { "" } else { "\n" }));
        for key in keys {
            let word = last_word(key.path);
            match values.get(key.path) {
                Some(raw) => {
                    let value = shown(key.kind, raw);
                    text.push_str(&format!("{word} = {value} # {}\n", raw.origin));
                }
                None => match values.get(&file_sibling(key.path)) {
                    Some(raw) if key.kind == Kind::Secret => {
                        let value = shown(Kind::Path, raw);
                        text.push_str(&format!("{word}_file = {value} # {}\n", raw.origin));
                    }
                    _ => text.push_str(&format!("# {word} is not set\n")),
                },
            }
        }
    }
    // What a name leaves out it inherits, so only its own values are shown.
    let mut section = String::new();
    for (path, raw) in values {
        let (Some(named), Some(kind)) = (catalogue.named_path(path), catalogue.kind(path)) else {
            continue;
        };
        let of_name = format!("{}.{}", named.section, named.name);
        if of_name != section {
            text.push_str(&format!("\n[{of_name}]\n"));
            section = of_name;
        }
        text.push_str(&format!("{} = {} # {}\n", named.word, shown(kind, raw), raw.origin));
    }
    text
}

fn shown(kind: Kind, raw: &Raw) -> String {
    let plain = match kind {
        Kind::Secret => return SET.to_owned(),
        Kind::Boolean | Kind::Integer => true,
        Kind::Size => raw.shape == Shape::TomlInteger,
        Kind::Text | Kind::Duration | Kind::Path | Kind::Choice(_) => false,
    };
    // A checked number may still be written in a way that TOML has not: `+007`.
    match raw.text.parse::<i128>() {
        Ok(number) if plain => number.to_string(),
        Err(_) if plain => raw.text.clone(),
        Ok(_) | Err(_) => toml::Value::String(redact(&raw.text).into_owned()).to_string(),
    }
}

/// The reference table of a role's keys in Markdown, one part a section.
#[must_use]
pub fn reference_table(keys: &[Key]) -> String {
    let mut text = String::new();
    for (section, keys) in by_section(keys) {
        text.push_str(&format!(
            "{}### `[{section}]`\n\n| key | value | default | what it does |\n|---|---|---|---|\n",
            if text.is_empty() { "" } else { "\n" }
        ));
        for key in keys {
            let default = key.default.map_or_else(|| "–".to_owned(), |word| format!("`{word}`"));
            let help = key.help.replace('|', "\\|").replace('\n', " ");
            let kind = kind_in_words(key.kind);
            text.push_str(&format!("| `{}` | {kind} | {default} | {help} |\n", key.path));
        }
    }
    text
}

fn kind_in_words(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Secret => "secret, or `_file`".to_owned(),
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Integer => "whole number".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::Duration => "time span".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
    }
}

/// Sections in the order of their first key: TOML opens each only once.
fn by_section(keys: &[Key]) -> Vec<(&str, Vec<&Key>)> {
    let mut sections: Vec<(&str, Vec<&Key>)> = Vec::new();
    for key in keys {
        let section = key.path.rsplit_once('.').map_or("", |(section, _)| section);
        match sections.iter_mut().find(|(known, _)| *known == section) {
            Some((_, keys)) => keys.push(key),
            None => sections.push((section, vec![key])),
        }
    }
    sections
}

fn last_word(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
