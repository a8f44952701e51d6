//! `postrider`: parses, loads the configuration, assembles, and maps the result to an exit code.
#![expect(clippy::print_stderr, reason = "a command's own output")]

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use postrider::config::arguments::{self, ArgumentsError, Flags};
use postrider::config::{Loaded, Problems, Settings, Sources, load};
use postrider::daemon::{self, Exit, chain};
use postrider::relay::command::{Command, ConfigFile, PREFIX, Postrider};
use postrider::relay::{self, InitError, Part, RunConfig};

fn main() -> ExitCode {
    let parsed = arguments::parse::<Postrider>(std::env::args_os());
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(ArgumentsError::Clap(error)) => {
            // Nothing can be said about a standard output that is gone.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
        Err(ArgumentsError::Problems(problems)) => return usage(&problems),
    };
    match arguments.command.command {
        Command::Run(file) => run(file, arguments.flags),
        Command::Init { part, apply, file } => match init(part, apply, file, arguments.flags) {
            Ok(()) => Exit::Clean.into(),
            Err(
                error @ (InitError::Configuration(_)
                | InitError::NotApplicable
                | InitError::OtherName(_)),
            ) => usage(&error),
            Err(error) => {
                eprintln!("postrider: {}", chain(&error));
                Exit::Failed.into()
            }
        },
    }
}

fn run(file: ConfigFile, flags: Flags) -> ExitCode {
    let print = file.print_config;
    let loaded = match settle::<RunConfig>(file.config, flags) {
        Ok(loaded) => loaded,
        Err(problems) => return usage(&problems),
    };
    if print {
        say(&loaded.effective);
        return Exit::Clean.into();
    }
    let (process, postgres, mappings, outbox) = loaded.settings;
    daemon::run("postrider", process, async |assembly| {
        relay::build(assembly, &postgres, &outbox, mappings)
    })
}

fn init(part: Part, apply: bool, file: ConfigFile, flags: Flags) -> Result<(), InitError> {
    if !apply && !file.print_config {
        flags.none_expected()?;
        say(part.text());
        return Ok(());
    }
    let loaded = settle::<RunConfig>(file.config, flags)?;
    if file.print_config {
        say(&loaded.effective);
        return Ok(());
    }
    let (_, postgres, mappings, _) = &loaded.settings;
    say(&format!("{}\n", relay::apply_once(part, postgres, mappings)?));
    Ok(())
}

fn settle<S: Settings>(file: Option<PathBuf>, flags: Flags) -> Result<Loaded<S>, Problems> {
    load(Sources::new(PREFIX).file(file).variables(std::env::vars_os()).flags(flags))
}

fn usage(error: &dyn Error) -> ExitCode {
    eprintln!("postrider: {error}");
    Exit::Usage.into()
}

/// To standard output. A reader that is gone, such as `head`, has seen enough.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}
