//! Configuration: TOML file, then environment variables, then flags; each later source wins.
//!
//! A module that needs settings declares a [`Section`]: its keys, and how a checked struct is read
//! from them. A role is a tuple of sections. [`load`] brings the three sources together, and either
//! returns the checked sections or *every* problem of all sources at once, so that an operator
//! mends them in one go. It knows no role and no section of its own.
//!
//! It refuses to guess: an unknown key, a number without a unit, an empty value, a secret that
//! others can read are problems, not defaults.
//!
//! ```text
//!   FILE.toml ──► file ─────────┐
//!   PREFIX__A__B ► environment ─┼─► Raw (text + origin) ─► Reader ─► checked section ─► Loaded
//!   --a.b=c ────► arguments ────┘          │                  │
//!                                          └──► Problems ◄────┘
//! ```
//!
//! Guarantee: no value reaches a section unchecked, and no secret reaches an error, a log or
//! `--print-config`.
//! Bounded by: [`FILE_BYTES_MAX`] for the file and [`SECRET_BYTES_MAX`] for a secret's file.
//! Tested by: `config/tests.rs` and the tests in each file.

pub mod arguments;
mod catalogue;
mod environment;
mod file;
mod nearest;
mod origin;
mod problem;
pub mod quantity;
mod reader;
mod redact;
mod render;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use arguments::Flags;
use catalogue::Catalogue;
pub use file::FILE_BYTES_MAX;
pub use origin::Origin;
use origin::Raw;
pub use problem::{Problem, Problems};
pub use reader::Reader;
pub use redact::redact;
pub use render::reference_table;
pub use secret::{SECRET_BYTES_MAX, Secret, SecretError};

/// One setting. Modules list theirs in [`Section::KEYS`].
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Absolute, like `postgres.url`: lower case words, parts joined by dots.
    pub path: &'static str,
    /// What a value must look like.
    pub kind: Kind,
    /// As an operator would write it. `None`: not set, or the section insists with
    /// [`Reader::require`].
    pub default: Option<&'static str>,
    /// One or two sentences for the reference table.
    pub help: &'static str,
}

/// What the value of a [`Key`] looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text but the empty one.
    Text,
    /// A text that is never shown. Key `x` brings a sibling `x_file` that names a file with it.
    Secret,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Bytes, like `64MB`: see [`quantity`].
    Size,
    /// A time span, like `1h30m`: see [`quantity`].
    Duration,
    /// The name of a file or folder. Relative names start at the working directory.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A part of a role's configuration: declares its keys, reads and checks them.
pub trait Section: Sized {
    /// Every key of the section. [`load`] refuses all that no section declares.
    const KEYS: &'static [Key];

    /// A part of a path whose keys may be given again under names of the operator's choice: with
    /// `outbox`, every key `outbox.x` also as `outbox.NAME.x`. A name inherits what it leaves out;
    /// see [`Reader::within`].
    const NAMED: Option<&'static str> = None;

    /// Reads and checks. Read *all* keys first and use `?` only in the final constructor, so that
    /// one bad value does not hide the next. `None` needs a recorded problem.
    fn read(raw: &mut Reader<'_>) -> Option<Self>;
}

/// What a role loads: a section, or a tuple of sections.
pub trait Settings: Sized {
    /// The keys of all sections, in order.
    fn keys() -> Vec<Key>;
    /// [`Section::NAMED`] of all sections.
    fn named() -> Vec<&'static str>;
    /// Reads every section, also after one of them failed.
    fn read(raw: &mut Reader<'_>) -> Option<Self>;
}

impl<S: Section> Settings for S {
    fn keys() -> Vec<Key> {
        S::KEYS.to_vec()
    }

    fn named() -> Vec<&'static str> {
        S::NAMED.into_iter().collect()
    }

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        Section::read(raw)
    }
}

macro_rules! settings_for_tuples {
    ($(($($section:ident $value:ident),+))+) => {$(
        impl<$($section: Section),+> Settings for ($($section,)+) {
            fn keys() -> Vec<Key> {
                [$($section::KEYS),+].concat()
            }

            fn named() -> Vec<&'static str> {
                [$($section::NAMED),+].into_iter().flatten().collect()
            }

            fn read(raw: &mut Reader<'_>) -> Option<Self> {
                $(let $value = $section::read(raw);)+
                Some(($($value?,)+))
            }
        }
    )+};
}

settings_for_tuples! {
    (A a)
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, F f)
    (A a, B b, C c, D d, E e, F f, G g)
    (A a, B b, C c, D d, E e, F f, G g, H h)
    (A a, B b, C c, D d, E e, F f, G g, H h, I i)
    (A a, B b, C c, D d, E e, F f, G g, H h, I i, J j)
}

/// Where settings come from. Nothing is taken from the process by itself: the binary passes its
/// environment and its arguments, so tests need neither.
#[derive(Debug)]
pub struct Sources {
    prefix: &'static str,
    file: FileSource,
    variables: redact::Hidden<Vec<(OsString, OsString)>>,
    flags: Flags,
}

#[derive(Debug)]
enum FileSource {
    None,
    Path(PathBuf),
    Text { name: String, toml: redact::Hidden<String> },
}

impl Sources {
    /// No source yet. `prefix` (like `POSTRIDER`) is what variables start with.
    #[must_use]
    pub fn new(prefix: &'static str) -> Self {
        let file = FileSource::None;
        let variables = redact::Hidden(Vec::new());
        Self { prefix, file, variables, flags: Flags::default() }
    }

    /// The file that `--config` names. It must exist: a named file that is missing is a problem.
    /// Without a name no file is read; there is no default place, so what runs is what was said.
    #[must_use]
    pub fn file(mut self, path: Option<PathBuf>) -> Self {
        self.file = path.map_or(FileSource::None, FileSource::Path);
        self
    }

    /// A file's content that is already at hand; `name` stands for it in messages.
    #[must_use]
    pub fn toml(mut self, name: &str, toml: &str) -> Self {
        let toml = redact::Hidden(toml.to_owned());
        self.file = FileSource::Text { name: name.to_owned(), toml };
        self
    }

    /// The environment: `std::env::vars_os()` in a binary.
    #[must_use]
    pub fn variables(
        mut self,
        all: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        let all = all.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.variables = redact::Hidden(all.collect());
        self
    }

    /// What [`arguments::parse`] split from the command line.
    #[must_use]
    pub fn flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }
}

/// Checked settings, and what `--print-config` shows of them.
#[derive(Debug)]
pub struct Loaded<S> {
    /// The sections.
    pub settings: S,
    /// The effective values as TOML, each with its origin as a comment, no secret among them.
    pub effective: String,
}

/// Brings the sources together and checks everything.
///
/// # Errors
///
/// Every problem of every source. Nothing may be started then; the exit code is 2.
pub fn load<S: Settings>(sources: Sources) -> Result<Loaded<S>, Problems> {
    let Sources { prefix, file, variables, flags } = sources;
    let catalogue = Catalogue::new(S::keys(), S::named());
    let mut problems = Problems::default();
    let mut values = catalogue.defaults();

    let from_file = match file {
        FileSource::None => file::Entries::default(),
        FileSource::Path(path) => file::read(&path),
        FileSource::Text { name, toml } => file::parse(&name, &toml.0),
    };
    // A source that was not understood may hold what then seems to be missing.
    let mut complete = from_file.problems.is_empty();
    problems.extend(from_file.problems);
    complete &= catalogue.admit(from_file.values, &mut values, &mut problems);
    complete &= environment::admit(prefix, &variables.0, &catalogue, &mut values, &mut problems);
    complete &= arguments::admit(flags, &catalogue, &mut values, &mut problems);

    let mut reader = Reader::new(&catalogue, &values, problems, complete);
    let settings = S::read(&mut reader);
    let (problems, unread) = reader.finish();
    match settings {
        Some(settings) if problems.is_empty() => {
            assert!(unread.is_empty(), "declared but never read: {unread:?}");
            Ok(Loaded { settings, effective: render::effective(&catalogue, &values) })
        }
        _ => {
            assert!(!problems.is_empty(), "a section gave no value and no problem");
            Err(problems)
        }
    }
}

/// Values by path. The last source that said something has the entry.
type Values = BTreeMap<String, Raw>;
