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
use super::nearest::{nearest, nearest_path};
use super::origin::{Origin, Raw};
use super::problem::{Problem, Problems};
use super::redact::{Hidden, redact};
use super::{Kind, Values};

/// For clap's `after_help`: how settings are given besides the file.
#[must_use]
pub fn help(prefix: &str) -> String {
    format!(
        "Every key of the configuration is also a flag, --section.key=value, and an environment \
         variable, {prefix}__SECTION__KEY. Flags win over variables, variables over the file. \
         Secrets come from variables and files only."
    )
}

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
        Problem::new(shown(&self.argument), "unknown argument", why)
    }
}

/// A word as it may be shown: without what is set by it, as in `password=…`, or a URL's password.
fn shown(word: &str) -> String {
    match (word.contains("://"), word.split_once('=')) {
        (false, Some((name, _))) => format!("{name}=…"),
        (true, _) | (false, None) => redact(word).into_owned(),
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
    let mut value_at: Option<usize> = None;
    // Each round takes at least one argument out or mends one, so the rounds end.
    loop {
        let error = match P::try_parse_from(&rest) {
            Ok(command) => return Ok(Arguments { command, flags }),
            Err(error) => error,
        };
        let value = value_at.take();
        let Some(argument) = culprit(&error) else { return Err(give_up(error, &rest, flags)) };
        if let Some(at) = value
            && (rest[at] == *argument
                || invalid_value(&error).is_some_and(|given| rest[at] == *given))
        {
            rest.remove(at);
            continue;
        }
        if let Some(meant) = misspelled_command::<P>(&error)
            && let Some(at) = position(&rest, &argument)
        {
            // What follows is parsed as what was probably meant, so that it is not hidden behind it.
            rest[at] = OsString::from(&meant);
            flags.unknown.push(Unknown { argument, meant: Some(meant) });
            continue;
        }
        let unknown = error.kind() == ErrorKind::UnknownArgument;
        let Some(at) = position(&rest, &argument).filter(|_| unknown) else {
            return Err(give_up(error, &rest, flags));
        };
        let glued = rest.remove(at).to_string_lossy().contains('=');
        let is_flag = argument.starts_with('-');
        let is_value = |next: &OsString| !next.to_string_lossy().starts_with('-');
        value_at = (is_flag && !glued && rest.get(at).is_some_and(is_value)).then_some(at);
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

/// The value that clap found wrong, if it was one.
fn invalid_value(error: &clap::Error) -> Option<String> {
    match (error.kind(), error.get(ContextKind::InvalidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::String(value))) => Some(value.clone()),
        _ => None,
    }
}

/// The command that an unknown one was probably meant to be. By our own measure: clap's takes `rnu`
/// for nothing.
fn misspelled_command<P: clap::CommandFactory>(error: &clap::Error) -> Option<String> {
    let ContextValue::String(given) = error.get(ContextKind::InvalidSubcommand)? else {
        return None;
    };
    let program = P::command();
    nearest(given, program.get_subcommands().map(clap::Command::get_name)).map(str::to_owned)
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
fn give_up(error: clap::Error, rest: &[OsString], flags: Flags) -> ArgumentsError {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let mut text = error.to_string();
    let mut as_is = true;
    for word in rest.iter().skip(1).filter_map(|word| word.to_str()) {
        let shown = shown(word);
        if shown != word && text.contains(word) {
            text = text.replace(word, &shown);
            as_is = false;
        }
    }
    if asked || (as_is && flags.is_faultless()) {
        return ArgumentsError::Clap(error);
    }
    let mut problems = Problems::default();
    problems.extend(flags.unknown.iter().map(|unknown| unknown.problem(None)));
    problems.extend(flags.problems);
    if error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The first paragraph: the rest is usage, which --help shows.
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

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use clap::Parser;

    use super::*;
    use crate::config::{Key, Sources, load};

    #[derive(Debug, Parser)]
    #[command(version = "1.2.3")]
    struct Cli {
        #[arg(long)]
        config: Option<String>,
        #[arg(short, long)]
        verbose: bool,
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Command {
        Run {
            #[arg(long)]
            once: bool,
        },
        Show {
            what: String,
        },
        Pick {
            #[arg(default_value = "a", value_parser = ["a", "b"])]
            which: String,
        },
    }

    fn parsed(words: &[&str]) -> Result<Arguments<Cli>, ArgumentsError> {
        parse(["app"].iter().chain(words).map(OsString::from))
    }

    fn report(words: &[&str]) -> String {
        match parsed(words) {
            Ok(arguments) => arguments.flags.none_expected().unwrap_err().to_string(),
            Err(ArgumentsError::Problems(problems)) => problems.to_string(),
            Err(ArgumentsError::Clap(error)) => panic!("clap: {error}"),
        }
    }

    struct Log;

    impl crate::config::Section for Log {
        const KEYS: &'static [Key] = &[
            Key { path: "log.level", kind: Kind::Text, default: Some("info"), help: "" },
            Key { path: "log.token", kind: Kind::Secret, default: None, help: "" },
        ];

        fn read(raw: &mut crate::config::Reader<'_>) -> Option<Self> {
            raw.text("log.level");
            raw.secret("log.token");
            Some(Self)
        }
    }

    /// What the configuration says to these arguments.
    fn loaded(words: &[&str]) -> Result<String, String> {
        let flags = parsed(words).unwrap().flags;
        let loaded = load::<Log>(Sources::new("APP").flags(flags));
        loaded.map(|loaded| loaded.effective).map_err(|problems| problems.to_string())
    }

    #[test]
    fn settings_may_stand_anywhere_in_both_forms() {
        for words in [
            &["--log.level=debug", "run", "--once"][..],
            &["run", "--once", "--log.level", "debug"],
            &["run", "--log.level", "debug", "--once"],
        ] {
            let arguments = parsed(words).unwrap();
            assert!(matches!(arguments.command.command, Command::Run { once: true }));
            assert!(loaded(words).unwrap().contains("level = \"debug\" # flag --log.level"));
        }
        // Values keep what looks like syntax.
        assert!(loaded(&["run", "--log.level=a=b"]).unwrap().contains("\"a=b\""));
        assert!(loaded(&["run", "--log.level", "-5"]).unwrap().contains("\"-5\""));
        assert!(loaded(&["run", "--log.level=--x"]).unwrap().contains("\"--x\""));
    }

    #[test]
    fn nothing_behind_a_lone_double_dash_is_ours() {
        let arguments = parsed(&["show", "--", "--log.level=x"]).unwrap();
        assert!(
            matches!(arguments.command.command, Command::Show { what } if what == "--log.level=x")
        );
        assert!(arguments.flags.none_expected().is_ok());
    }

    #[test]
    fn help_and_version_pass_straight_through() {
        for words in [&["--help"][..], &["--version"], &["--log.levl=x", "--verbos", "--help"]] {
            let Err(ArgumentsError::Clap(error)) = parsed(words) else { panic!("{words:?}") };
            assert_eq!(error.exit_code(), 0, "{words:?}");
        }
    }

    #[test]
    fn an_error_that_is_alone_stays_claps_own() {
        for words in [&[][..], &["zzz"], &["show"]] {
            let Err(ArgumentsError::Clap(error)) = parsed(words) else { panic!("{words:?}") };
            assert_eq!(error.exit_code(), 2, "{words:?}");
        }
    }

    #[test]
    fn all_unknown_arguments_come_out_together() {
        let said = report(&["--verbos", "-x", "-vq", "run", "--onc", "--zzz=1", "extra"]);
        for line in [
            "--verbos: unknown argument, did you mean --verbose?",
            "-x: unknown argument, no known argument is like it",
            "--onc: unknown argument, did you mean --once?",
            "--zzz: unknown argument",
            "-q: unknown argument",
            "extra: unknown argument",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
    }

    #[test]
    fn unknown_arguments_wait_for_the_configuration() {
        let said = loaded(&["--verbos", "run", "--log.levl=x", "--log-level", "x"]).unwrap_err();
        for line in [
            "3 problems",
            "--verbos: unknown argument, did you mean --verbose?",
            "--log.levl: unknown flag, did you mean --log.level?",
            "--log-level: unknown argument, did you mean --log.level?",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
    }

    #[test]
    fn the_value_of_an_unknown_flag_is_never_shown() {
        for words in [
            &["--pasword", "hunter2", "run"][..],
            &["--pasword=hunter2", "run"],
            &["run", "--pasword", "hunter2"],
            &["run", "-p", "hunter2"],
            &["run", "-phunter2"],
            &["run", "--log.tokn=hunter2"],
            &["run", "--log.tokn", "hunter2"],
            &["show", "--pasword", "hunter2"],
        ] {
            let said = report(words);
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.contains("1 problem"), "{said}");
            assert!(!format!("{:?}", parsed(words)).contains("\"hunter2\"") || words[0] == "show");
        }
        let said = loaded(&["run", "--log.token=hunter2"]).unwrap_err();
        assert!(said.contains("(secret), must not be given on the command line"), "{said}");
        assert!(said.contains("use --log.token_file, or a variable"), "{said}");
        assert!(!said.contains("hunter2"));
    }

    #[test]
    fn a_misspelled_command_does_not_hide_what_follows() {
        let said = loaded(&["rnu", "--onc", "--log.levl=x"]).unwrap_err();
        for line in [
            "3 problems",
            "rnu: unknown argument, did you mean run?",
            "--onc: unknown argument, did you mean --once?",
            "--log.levl: unknown flag, did you mean --log.level?",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_shown() {
        for words in [
            // Where only certain words are expected, its value comes out as a wrong one of them.
            &["pick", "--pasword", "hunter2"][..],
            &["run", "log.token=hunter2"],
            &["run", "APP__LOG__TOKEN=hunter2"],
            &["run", "x://u:hunter2@y"],
            &["pick", "x://u:hunter2@y"],
            &["pick", "log.token=hunter2"],
            &["x://u:hunter2@y"],
            &["log.token=hunter2", "run"],
        ] {
            let said = report(words);
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.contains("1 problem"), "{said}");
        }
        // A lone mistake of another kind: clap's words, which go to the terminal as they are.
        assert!(matches!(parsed(&["pick", "c"]), Err(ArgumentsError::Clap(_))));
    }

    #[test]
    fn a_flag_without_a_usable_value_is_a_problem() {
        let said = loaded(&["run", "--log.level"]).unwrap_err();
        assert!(said.contains("log.level: must have a value, write --log.level=value"), "{said}");
        let said = loaded(&["--log.level", "--verbose", "run"]).unwrap_err();
        assert!(said.contains("must have a value"), "{said}");
        let said = loaded(&["run", "--log.level="]).unwrap_err();
        assert!(said.contains("must not be empty"), "{said}");
        let said = loaded(&["run", "--log.level=a", "--log.level=b"]).unwrap_err();
        assert!(said.contains("must be given once"), "{said}");
        for bytes in [&[b"--log.level=\xff".to_vec()][..], &[b"--log.level".to_vec(), vec![0xff]]] {
            let argv = [b"app".to_vec(), b"run".to_vec()].into_iter().chain(bytes.iter().cloned());
            let flags = parse::<Cli>(argv.map(OsString::from_vec)).unwrap().flags;
            let said = flags.none_expected().unwrap_err().to_string();
            assert!(said.contains("log.level: must be UTF-8"), "{said}");
        }
    }

    #[test]
    fn a_command_without_configuration_refuses_settings() {
        let said = report(&["run", "--log.level=x"]);
        assert!(said.contains("--log.level: unknown argument, this command reads no"), "{said}");
    }

    #[test]
    fn another_error_joins_what_was_noted() {
        let said = report(&["--verbos", "show"]);
        assert!(said.contains("--verbos: unknown argument"), "{said}");
        assert!(said.contains("arguments: the following required arguments"), "{said}");
    }
}
