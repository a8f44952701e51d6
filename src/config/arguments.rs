//! The third source: flags `--section.key=value`, split from a command line that clap parses.
//!
//! It promises that a misspelled argument does not hide a misspelled setting: clap's first unknown
//! argument would end the process before the file is read. So unknown arguments are noted, taken
//! out, and clap is asked again; [`load`](super::load) reports them with everything else. `--help`
//! and `--version` pass straight through. It refuses secrets as flags, since every user of a
//! machine can list the arguments of its processes.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::catalogue::Catalogue;
use super::nearest::nearest_path;
use super::origin::{Origin, Raw};
use super::problem::{Problem, Problems};
use super::redact::Hidden;
use super::{Kind, Values};

/// For clap's `after_help`.
pub const HELP: &str = "Every key of the configuration is also a flag (--section.key=value) and an \
environment variable (POSTRIDER__SECTION__KEY). Flags win over variables, variables over the file.";

/// A parsed command line.
#[derive(Debug)]
pub struct Arguments<P> {
    /// What clap made of the rest.
    pub command: P,
    /// To be handed to [`Sources::flags`](super::Sources::flags), or to [`Flags::none_expected`].
    pub flags: Flags,
}

/// Settings on the command line, and what was wrong with it.
#[derive(Debug, Default)]
#[must_use = "it may hold unknown arguments, which nobody has reported yet"]
pub struct Flags {
    given: Vec<(String, Hidden<String>)>,
    unknown: Vec<Unknown>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Unknown {
    argument: String,
    meant: Option<String>,
}

/// Why a command line ends here.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsError {
    /// Help, version, or an error that clap words best: `error.print()`, `error.exit_code()`.
    #[error("{0}")]
    Clap(clap::Error),
    /// More than one thing is wrong; exit code 2.
    #[error("{0}")]
    Problems(Problems),
}

impl Flags {
    /// For a command that reads no configuration.
    ///
    /// # Errors
    ///
    /// The unknown arguments, and every setting that was given in vain.
    pub fn none_expected(self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for (path, _) in &self.given {
            let why = "this command reads no configuration";
            problems.push(Problem::new(format!("--{path}"), "unknown argument", why));
        }
        problems.extend(self.unknown.iter().map(|unknown| unknown.problem(None)));
        problems.extend(self.problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn is_faultless(&self) -> bool {
        self.unknown.is_empty() && self.problems.is_empty()
    }
}

impl Unknown {
    fn problem(&self, catalogue: Option<&Catalogue>) -> Problem {
        // `--log-level` is how other programs would call `--log.level`.
        let path = self.argument.trim_start_matches('-').replacen('-', ".", 1).replace('-', "_");
        let flag = catalogue
            .filter(|_| self.argument.starts_with("--"))
            .and_then(|catalogue| nearest_path(&path, catalogue.paths()))
            .map(|known| format!("--{known}"));
        let why = match self.meant.clone().or(flag) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "no known argument is like it".to_owned(),
        };
        Problem::new(self.argument.clone(), "unknown argument", why)
    }
}

/// Splits settings from arguments, and lets clap parse the rest. `argv` starts with the program.
///
/// # Errors
///
/// See [`ArgumentsError`]. Unknown arguments alone are no error here: they wait in the flags.
pub fn parse<P: clap::Parser>(
    argv: impl IntoIterator<Item = OsString>,
) -> Result<Arguments<P>, ArgumentsError> {
    let (mut rest, mut flags) = split(argv);
    // The word after an unknown flag is probably its value, and possibly a secret: when clap
    // stumbles over it next, it goes without being shown.
    let mut value_of_unknown: Option<OsString> = None;
    // Each round takes at least one argument out, so the rounds end.
    loop {
        let error = match P::try_parse_from(&rest) {
            Ok(command) => return Ok(Arguments { command, flags }),
            Err(error) => error,
        };
        let Some(argument) = culprit(&error) else { return Err(give_up(error, flags)) };
        if let Some(value) = value_of_unknown.take_if(|value| *value == *argument)
            && let Some(at) = rest.iter().rposition(|word| *word == value)
        {
            rest.remove(at);
            continue;
        }
        let unknown = error.kind() == ErrorKind::UnknownArgument;
        let Some(at) = position(&rest, &argument).filter(|_| unknown) else {
            return Err(give_up(error, flags));
        };
        let glued = rest.remove(at).to_string_lossy().contains('=');
        let is_flag = argument.starts_with("--");
        value_of_unknown = rest.get(at).filter(|_| is_flag && !glued).cloned();
        flags.unknown.push(Unknown { argument, meant: suggestion(&error) });
    }
}

/// Takes `--a.b=c` and `--a.b c` out. Nothing behind a lone `--` is touched.
fn split(argv: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Flags) {
    let mut argv = argv.into_iter().peekable();
    let mut rest: Vec<OsString> = argv.next().into_iter().collect();
    let mut flags = Flags::default();
    while let Some(word) = argv.next() {
        if word == "--" {
            rest.push(word);
            rest.extend(argv);
            break;
        }
        let lossy = word.to_string_lossy();
        let (name, glued) = match lossy.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&*lossy, None),
        };
        let Some(path) = name.strip_prefix("--").filter(|path| path.contains('.')) else {
            rest.push(word);
            continue;
        };
        let is_value = |next: &OsString| !next.to_string_lossy().starts_with("--");
        let value = match glued {
            Some(value) if word.to_str().is_some() => Some(Some(value.to_owned())),
            Some(_) => Some(None),
            None => argv.next_if(is_value).map(|value| value.into_string().ok()),
        };
        match value {
            Some(Some(value)) => flags.given.push((path.to_owned(), Hidden(value))),
            Some(None) => {
                let problem = Problem::new(path, "must be UTF-8", "the flag's value is not");
                flags.problems.push(problem.at(Origin::Flag(name.to_owned())));
            }
            None => {
                let why = format!("write {name}=value");
                let problem = Problem::new(path, "must have a value", why);
                flags.problems.push(problem.at(Origin::Flag(name.to_owned())));
            }
        }
    }
    (rest, flags)
}

/// The argument that clap stumbled over.
fn culprit(error: &clap::Error) -> Option<String> {
    let subcommand = error.kind() == ErrorKind::InvalidSubcommand;
    let kind = if subcommand { ContextKind::InvalidSubcommand } else { ContextKind::InvalidArg };
    match error.get(kind) {
        Some(ContextValue::String(argument)) => Some(argument.clone()),
        _ => None,
    }
}

fn suggestion(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(meant)) => Some(meant.clone()),
        _ => None,
    }
}

/// Where clap's argument stands: alone, before a glued value, or in a group of short ones.
fn position(rest: &[OsString], argument: &str) -> Option<usize> {
    if !argument.starts_with('-') {
        // A word too many: the last one, as the first may be the subcommand of that name.
        return rest.iter().rposition(|word| *word == *argument);
    }
    let short = argument.strip_prefix('-').filter(|short| !short.starts_with('-'));
    let glued = format!("{argument}=");
    rest.iter().position(|word| {
        let word = word.to_string_lossy();
        let group = word.strip_prefix('-').filter(|group| !group.starts_with('-'));
        let grouped = short.zip(group).is_some_and(|(short, group)| group.contains(short));
        word == argument || word.starts_with(&glued) || grouped
    })
}

/// Ends with clap's error, together with what was noted before it.
fn give_up(error: clap::Error, flags: Flags) -> ArgumentsError {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || flags.is_faultless() {
        return ArgumentsError::Clap(error);
    }
    let mut problems = Problems::default();
    problems.extend(flags.unknown.iter().map(|unknown| unknown.problem(None)));
    problems.extend(flags.problems);
    if error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The first paragraph: the rest is usage, which --help shows.
        let text = error.to_string();
        let first = text.split("\n\n").next().unwrap_or(&text);
        let first: Vec<_> = first.lines().map(str::trim).collect();
        let first = first.join(" ");
        let rule = first.strip_prefix("error: ").unwrap_or(&first);
        problems.push(Problem::new("arguments", rule, "see --help"));
    }
    ArgumentsError::Problems(problems)
}

/// Takes the flags, and says whether all were understood.
pub(super) fn admit(
    flags: Flags,
    catalogue: &Catalogue,
    values: &mut Values,
    problems: &mut Problems,
) -> bool {
    let before = problems.iter().count();
    for (at, (path, value)) in flags.given.iter().enumerate() {
        let flag = format!("--{path}");
        let again = flags.given[..at].iter().any(|(other, _)| other == path);
        match catalogue.kind(path) {
            None => {
                let why = catalogue.unknown(path, |known| format!("--{known}"));
                problems.push(Problem::new(flag, "unknown flag", why));
            }
            Some(Kind::Secret) => {
                let why = format!("other users can list it: use --{path}_file, or a variable");
                let rule = "must not be given on the command line";
                let problem = Problem::new(path.clone(), rule, why).with_note("(secret)");
                problems.push(problem.at(Origin::Flag(flag)));
            }
            Some(_) if again => {
                let problem = Problem::new(path.clone(), "must be given once", "it is repeated");
                problems.push(problem.with_value(&value.0).at(Origin::Flag(flag)));
            }
            Some(_) => {
                values.insert(path.clone(), Raw::words(value.0.clone(), Origin::Flag(flag)));
            }
        }
    }
    problems.extend(flags.problems);
    problems.extend(flags.unknown.iter().map(|unknown| unknown.problem(Some(catalogue))));
    problems.iter().count() == before
}
