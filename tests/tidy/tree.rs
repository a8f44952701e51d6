//! The repository's text files, as one value that a test can also make up.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Files by their path from the repository's root, with `/` between parts.
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, String>,
}

/// One breach of a rule, at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) place: String,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// What is built, fetched or kept by git is not ours to judge.
const NOT_OURS: [&str; 4] = [".git", "target", ".services", "corpus"];

impl Tree {
    /// Every readable text file of this checkout.
    pub(crate) fn of_repository() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder)
                .unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
            for entry in entries {
                let path = entry.expect("read an entry").path();
                let name =
                    path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
                if NOT_OURS.contains(&name.as_str()) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(text) = std::fs::read_to_string(&path) {
                    let relative = path.strip_prefix(root).expect("the walk stays below the root");
                    files.insert(relative.to_string_lossy().replace('\\', "/"), text);
                }
            }
        }
        Self { files }
    }

    /// A made-up tree.
    pub(crate) fn planted(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { files: files.collect() }
    }

    /// The files whose path ends so.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(end))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Is there a file or a folder of this path?
    pub(crate) fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let inside = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&inside))
    }
}

/// The line, from 1, on which a byte stands.
pub(crate) fn line_of(text: &str, byte: usize) -> usize {
    text[..byte].matches('\n').count() + 1
}
