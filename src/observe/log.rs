//! The log: one event a line to standard error, for people on a terminal, as JSON otherwise.
//!
//! Standard output stays a command's own. A filter that would silently match nothing is refused:
//! `tracing`'s own parser takes the typo `inof` for a module's name.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

use super::panics;
use crate::config::{Key, Kind, Reader, Section, redact};

/// How and how much is logged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogConfig {
    /// Form of a line.
    pub format: LogFormat,
    /// What is logged.
    pub level: LogLevel,
}

/// Form of a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Human when standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Aligned text, coloured on a terminal unless `NO_COLOR` is set.
    Human,
    /// One object a line, for whatever collects logs.
    Json,
}

/// Most directives a filter may have; a longer one is a mistake, not a wish.
const DIRECTIVES_MAX: usize = 64;

/// What a filter must look like, as a refusal says it.
const LEVEL_RULE: &str = "must be off, error, warn, info, debug or trace, with module=level for \
                          single modules after a comma";

/// A checked filter: a level for everything, then levels for single modules.
///
/// `info`, or `warn,postrider::postgres=debug,rdkafka=off`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLevel(Targets);

/// Why a filter was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// Not one of the six words.
    #[error("`{0}` is not a level")]
    Level(String),
    /// A module without a name, as in `=debug`.
    #[error("`{0}` names no module before the `=`")]
    Module(String),
    /// Two levels for everything, of which one would be ignored.
    #[error("`{0}` is a second level for everything: keep one")]
    Second(String),
    /// More directives than anybody can mean.
    #[error("it has more than {DIRECTIVES_MAX} parts")]
    TooMany,
}

/// The log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Somebody else in this process took the place.
    #[error("the log was started twice in one process: start it once, before anything is logged")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
}

impl Section for LogConfig {
    const KEYS: &'static [Key] = &[
        Key {
            path: "log.format",
            kind: Kind::Choice(&["auto", "human", "json"]),
            default: Some("auto"),
            help: "Form of a line of the log, which goes to standard error. `auto` is `human` on a \
                   terminal and `json` elsewhere. `NO_COLOR` is honoured.",
        },
        Key {
            path: "log.level",
            kind: Kind::Text,
            default: Some("info"),
            help: "`off`, `error`, `warn`, `info`, `debug` or `trace`; for single modules \
                   `module=level` after it, as in `info,postrider::postgres=debug`.",
        },
    ];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let format = raw.choice("log.format").map(|word| match word {
            "human" => LogFormat::Human,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        });
        let level = raw.text("log.level").and_then(|text| {
            let refuse = |why: LevelError| {
                // It quotes what it found, and that may be a URL in the wrong place.
                raw.problem("log.level", LEVEL_RULE, redact(&why.to_string()));
            };
            text.parse().map_err(refuse).ok()
        });
        Some(Self { format: format?, level: level? })
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self(Targets::new().with_default(LevelFilter::INFO))
    }
}

impl FromStr for LogLevel {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let mut everything = None;
        let mut filter = Targets::new();
        for (index, directive) in text.split(',').map(str::trim).enumerate() {
            if index == DIRECTIVES_MAX {
                return Err(LevelError::TooMany);
            }
            match directive.split_once('=') {
                Some(("", _)) => return Err(LevelError::Module(directive.to_owned())),
                Some((module, level)) => filter = filter.with_target(module, word(level)?),
                None => {
                    if everything.replace(word(directive)?).is_some() {
                        return Err(LevelError::Second(directive.to_owned()));
                    }
                }
            }
        }
        // Someone who asks for one module's details still wants to hear the rest.
        Ok(Self(filter.with_default(everything.unwrap_or(LevelFilter::INFO))))
    }
}

fn word(level: &str) -> Result<LevelFilter, LevelError> {
    match level.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(LevelError::Level(level.to_owned())),
    }
}

/// Starts the process's log on standard error and sends panics through it.
///
/// Libraries that use the `log` crate are heard too. To be called once, before any other thread.
pub fn start(config: &LogConfig) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let style = Style::choose(
        config.format,
        std::io::stderr().is_terminal(),
        std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
    );
    Registry::default()
        .with(lines(style, std::io::stderr).with_filter(config.level.0.clone()))
        .try_init()
        .map_err(LogError::Taken)?;
    panics::log_panics();
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Coloured,
    Json,
}

impl Style {
    fn choose(format: LogFormat, terminal: bool, no_color: bool) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Auto if !terminal => Self::Json,
            LogFormat::Auto | LogFormat::Human if terminal && !no_color => Self::Coloured,
            LogFormat::Auto | LogFormat::Human => Self::Plain,
        }
    }
}

fn lines<W>(style: Style, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match style {
        Style::Plain => layer.with_ansi(false).boxed(),
        Style::Coloured => layer.with_ansi(true).boxed(),
        // Fields beside the message, not below it: what people query is one level deep. The span
        // is the task that speaks.
        Style::Json => {
            layer.json().flatten_event(true).with_span_list(false).with_ansi(false).boxed()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
