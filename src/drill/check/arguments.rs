//! What `drill check` is told on the command line.

use std::path::PathBuf;
use std::time::Duration;

use super::evidence::Mode;

/// Compares outbox tables with the topics they were relayed to. Reads only; a group or an offset
/// is never touched, so it may be run against a live system.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 pass, 1 violated, 2 usage, 3 vacuous (nothing to check), \
                        4 broken (the evidence could not be read).")]
pub struct CheckArgs {
    /// Database with the outbox tables: a URL or key=value pairs. The password may be in PGPASSWORD
    #[arg(long, value_name = "URL")]
    pub postgres: String,
    /// Root certificates for Postgres, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub postgres_ca: Option<PathBuf>,
    /// Kafka brokers, host:port[,host:port...]
    #[arg(long, value_name = "BROKERS")]
    pub kafka: String,
    /// A Kafka client setting such as security.protocol=SSL; may be repeated
    #[arg(long = "kafka-set", value_name = "KEY=VALUE", value_parser = setting)]
    pub kafka_set: Vec<(String, String)>,
    /// An outbox table; may be repeated [default: those of the history, else public.outbox]
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// A topic to read besides those the rows belong to; may be repeated
    /// [default: all that start with the prefix]
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// A row belongs to the topic with this and its aggregatetype as name
    #[arg(long, value_name = "PREFIX", default_value = "outbox.event.")]
    pub topic_prefix: String,
    /// The column whose bytes are the record's value
    #[arg(long, value_name = "COLUMN", default_value = "payload")]
    pub payload_column: String,
    /// Do not compare payloads, for relays told to change them
    #[arg(long)]
    pub no_payload: bool,
    /// What the writers wrote down (history.ndjson)
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// What the relay promises
    #[arg(long, value_enum, default_value = "exactly-once")]
    pub mode: Mode,
    /// How long to wait for missing rows and open transactions, e.g. 30s
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// The topics must not have grown for this long
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub rest: Duration,
    /// Print the report as JSON, for machines
    #[arg(long)]
    pub json: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give it as KEY=VALUE")?;
    // The reader depends on these; another value would falsify the evidence.
    const OURS: [&str; 7] = [
        "bootstrap.servers",
        "isolation.level",
        "enable.partition.eof",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "allow.auto.create.topics",
    ];
    if OURS.contains(&key) {
        return Err(format!("{key} is the checker's own to set"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Longer waits are a mistake in the unit.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u32 = digits.parse().map_err(|_| "give it as 250ms, 30s or 5m".to_owned())?;
    let unit = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err("give it as 250ms, 30s or 5m".to_owned()),
    };
    let time = unit.saturating_mul(number);
    if time > WAIT_MAX { Err("the longest wait is 24 hours".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        check: CheckArgs,
    }

    fn parse(more: &[&str]) -> Result<CheckArgs, clap::Error> {
        let given = ["check", "--postgres", "host=x", "--kafka", "y:1"];
        let all = given.iter().chain(more);
        Command::try_parse_from(all).map(|command| command.check)
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.mode, Mode::ExactlyOnce);
        assert_eq!(args.drain_timeout, Duration::from_secs(30));
        assert_eq!(args.topic_prefix, "outbox.event.");
        <Command as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn settings_and_times_are_refused_by_name() {
        for (bad, expected) in [
            (["--kafka-set", "x"], "KEY=VALUE"),
            (["--kafka-set", "isolation.level=read_committed"], "checker's own"),
            (["--rest", "1"], "250ms"),
            (["--rest", "1h"], "250ms"),
            (["--rest", "2000m"], "24 hours"),
        ] {
            let error = parse(&bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let args = parse(&["--kafka-set", "a=b=c", "--rest", "250ms"]).unwrap();
        assert_eq!(args.kafka_set, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(args.rest, Duration::from_millis(250));
    }
}
