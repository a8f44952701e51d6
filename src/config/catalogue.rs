//! The keys that a role knows, and what is said about a name that is not among them.
//!
//! It promises that nothing unknown gets past, in any source, and refuses a wrong declaration by
//! panicking: that is a mistake in our own code, and the first test that loads the role finds it.

use super::nearest::nearest_path;
use super::origin::{Origin, Raw};
use super::problem::{Problem, Problems};
use super::{Key, Kind, Values};

/// The keys of a role, and the `_file` siblings of its secrets.
#[derive(Debug)]
pub(super) struct Catalogue {
    keys: Vec<Key>,
    /// In the order of declaration.
    known: Vec<(String, Kind)>,
    /// Parts of a path whose keys may be given again under a name.
    named: Vec<&'static str>,
}

/// The parts of `outbox.NAME.key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamedPath<'a> {
    pub(super) section: &'static str,
    pub(super) name: &'a str,
    pub(super) word: &'a str,
}

/// A path must be the same in a file, a variable and a flag, so it has neither upper case nor two
/// underscores in a row.
fn is_word(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
        && !word.contains("__")
        && word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

impl Catalogue {
    /// # Panics
    ///
    /// On a declaration that could not work: see the messages.
    pub(super) fn new(keys: Vec<Key>, named: Vec<&'static str>) -> Self {
        let mut known: Vec<(String, Kind)> = Vec::new();
        for Key { path, kind, default, .. } in &keys {
            assert!(
                path.contains('.') && path.split('.').all(is_word),
                "key {path} must be section.key in lower case words"
            );
            known.push(((*path).to_owned(), *kind));
            if *kind == Kind::Secret {
                assert!(default.is_none(), "secret {path} must not have a default");
                known.push((file_sibling(path), Kind::Path));
            }
        }
        for (at, (path, _)) in known.iter().enumerate() {
            assert!(known[..at].iter().all(|(other, _)| other != path), "{path} declared twice");
        }
        for section in &named {
            let inside =
                |path: &str| path.strip_prefix(section).is_some_and(|p| p.starts_with('.'));
            assert!(
                known.iter().any(|(path, _)| inside(path)),
                "{section} is named but has no key"
            );
        }
        Self { keys, known, named }
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub(super) fn kind(&self, path: &str) -> Option<Kind> {
        self.declared(path).or_else(|| {
            let NamedPath { section, name, word } = self.named_path(path)?;
            // A name that is also a key would make `section.name` mean two things.
            let free = self.declared(&format!("{section}.{name}")).is_none();
            let kind = self.declared(&format!("{section}.{word}"))?;
            (free && is_word(name)).then_some(kind)
        })
    }

    fn declared(&self, path: &str) -> Option<Kind> {
        self.known.iter().find(|(known, _)| known == path).map(|(_, kind)| *kind)
    }

    /// Takes a path apart that has a name in it, whether or not name and key are good ones.
    pub(super) fn named_path<'a>(&self, path: &'a str) -> Option<NamedPath<'a>> {
        self.named.iter().find_map(|section| {
            let (name, word) = path.strip_prefix(section)?.strip_prefix('.')?.split_once('.')?;
            (!word.contains('.')).then_some(NamedPath { section, name, word })
        })
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> + Clone {
        self.known.iter().map(|(path, _)| path.as_str())
    }

    /// What holds when no source says anything.
    pub(super) fn defaults(&self) -> Values {
        let default = |key: &Key| {
            let raw = Raw::words(key.default?, Origin::Default);
            Some((key.path.to_owned(), raw))
        };
        self.keys.iter().filter_map(default).collect()
    }

    /// Takes the values of the file, and says whether all were known.
    pub(super) fn admit(
        &self,
        entries: Vec<(String, Raw)>,
        values: &mut Values,
        problems: &mut Problems,
    ) -> bool {
        let mut all_known = true;
        for (path, raw) in entries {
            if self.kind(&path).is_some() {
                values.insert(path, raw);
            } else {
                let why = self.unknown(&path, |known| format!("`{known}`"));
                problems.push(Problem::new(path, "unknown key", why).at(raw.origin));
                all_known = false;
            }
        }
        all_known
    }

    /// What to say about an unknown path; `spell` writes a known one as its source does.
    pub(super) fn unknown(&self, path: &str, spell: impl Fn(&str) -> String) -> String {
        let inside = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
        };
        if let Some(key) = self.paths().find(|known| inside(known, path)) {
            return format!("{} is a value, it has no keys inside", spell(key));
        }
        if let Some(first) = self.paths().find(|known| inside(path, known)) {
            return format!("it is a section: set its keys, like {}", spell(first));
        }
        if let Some(NamedPath { section, name, word }) = self.named_path(path) {
            if !is_word(name) {
                return format!(
                    "{name:?} cannot be a name: use lower case letters, digits and single \
                     underscores, a letter first"
                );
            }
            let plain = format!("{section}.{word}");
            let meant = nearest_path(&plain, self.paths())
                .and_then(|known| known.strip_prefix(section)?.strip_prefix('.'));
            return match meant {
                Some(word) => {
                    format!("did you mean {}?", spell(&format!("{section}.{name}.{word}")))
                }
                None => format!("no key of {section} is like it"),
            };
        }
        match nearest_path(path, self.paths()) {
            Some(known) => format!("did you mean {}?", spell(known)),
            None => "no known key is like it".to_owned(),
        }
    }
}

/// The key that names a file with the secret `path`.
pub(super) fn file_sibling(path: &str) -> String {
    format!("{path}_file")
}
