//! The independent checker: does Kafka hold what Postgres committed, no more and no less?
//!
//! It reads the outbox tables, the topics at both isolation levels and, if the writers left one,
//! their history; then it judges. It uses the client crates and nothing else of this package, not
//! even the header names: a checker that shares code with what it checks shares its mistakes.
//!
//! ```text
//!  tables ──┐
//!  topics ──┼─▶ Evidence ─▶ judge (pure) ─▶ Verdict ─▶ report: table or JSON, exit code
//!  history ─┘
//! ```
//!
//! Guarantee: a claim is called `holds` only if something was compared for it; what could not be
//! decided is `not_checked` with the reason, no rows at all is VACUOUS, unreadable evidence BROKEN.
//! Nothing is written anywhere.
//!
//! Bounded by: 64 bytes a row and a record plus each distinct key once; the drain timeout, 30 s
//! of silence from the brokers, eight witnesses a check.
//!
//! Tested by: `judge/tests` (planted faults, random mutations), `tests/services/check.rs` (the
//! same faults planted in a real Kafka).

pub mod arguments;
pub mod evidence;
pub mod history;
pub mod judge;
mod record;
pub mod report;
pub mod tables;
pub mod topics;
pub mod verdict;

use std::io::BufReader;

use anyhow::{Context as _, Result};

pub use arguments::CheckArgs;
pub use report::Report;
pub use verdict::Outcome;

use evidence::{Evidence, IdHeader};
use history::Told;

/// Checked when neither arguments nor history name a table.
const DEFAULT_TABLE: &str = "public.outbox";

/// Why there is no judgement.
enum Failure {
    Usage(String),
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Checks and prints the report; the caller turns the outcome into its exit code.
#[expect(clippy::print_stdout, reason = "the report is this command's output")]
pub async fn run(args: CheckArgs) -> Outcome {
    let json = args.json;
    let report = check(args).await;
    if json {
        println!("{}", report.to_json());
    } else {
        print!("{report}");
    }
    report.verdict.outcome
}

/// Checks, without printing: for drills that put the report into their own.
pub async fn check(args: CheckArgs) -> Report {
    let mode = args.mode;
    match gather(args).await {
        Ok(evidence) => Report::judged(mode, judge::judge(&evidence)),
        Err(Failure::Usage(error)) => Report::failed(mode, Outcome::Usage, error),
        Err(Failure::Broken(error)) => Report::failed(mode, Outcome::Broken, format!("{error:#}")),
    }
}

/// Tables first, topics second: a row read from the tables was committed before the topics were
/// looked at, so its record may be waited for. The opposite case, a record whose row came after
/// the tables were read, is settled by a second look.
async fn gather(args: CheckArgs) -> Result<Evidence, Failure> {
    let mut evidence = Evidence::new(args.mode);
    let told = read_history(&args, &mut evidence)?;
    let wanted = tables::Wanted {
        tables: tables_to_read(&args, told.as_ref()),
        topic_prefix: args.topic_prefix.clone(),
        payload: (!args.no_payload).then_some(args.payload_column),
    };
    let ca = args.postgres_ca.as_deref();
    let tables = tables::Tables::open(&args.postgres, ca, wanted, &mut evidence).await?;
    if let Some(told) = told {
        let read = |name: &String| evidence.tables.iter().any(|table| table.name == *name);
        if let Some(unread) = told.tables.iter().find(|name| !read(name)) {
            let hint = "its rows would all look lost; add --table";
            return Err(Failure::Usage(format!("the history speaks of table {unread}: {hint}")));
        }
        if told.history.torn {
            evidence.notes.push("the last line of the history is cut off".to_owned());
        }
        evidence.history = Some(told.history);
    }
    tables.read(&mut evidence).await?;
    let reading = topics::Reading {
        bootstrap: args.kafka,
        client: args.kafka_set,
        prefix: args.topics.is_empty().then_some(args.topic_prefix),
        topics: args.topics,
        rest: args.rest,
        drain: args.drain_timeout,
    };
    // librdkafka's calls block, so they get a thread of their own.
    let read = tokio::task::spawn_blocking(move || {
        topics::read(reading, &mut evidence).map(|()| evidence)
    });
    let mut evidence = read.await.context("read the topics")??;
    let strangers = strangers(&evidence);
    tables.look_again(strangers, &mut evidence).await?;
    Ok(evidence)
}

fn read_history(args: &CheckArgs, evidence: &mut Evidence) -> Result<Option<Told>> {
    let Some(path) = &args.history else { return Ok(None) };
    let reading = || format!("read history {}", path.display());
    let file = std::fs::File::open(path).with_context(reading)?;
    let told = history::read(BufReader::new(file), &mut evidence.keys).with_context(reading)?;
    Ok(Some(told))
}

fn tables_to_read(args: &CheckArgs, told: Option<&Told>) -> Vec<String> {
    match told {
        _ if !args.tables.is_empty() => args.tables.clone(),
        Some(told) => told.tables.clone(),
        None => vec![DEFAULT_TABLE.to_owned()],
    }
}

/// Ids that were seen in topics and are in no table.
fn strangers(evidence: &Evidence) -> Vec<u128> {
    let records = evidence.logs.iter().flat_map(|log| &log.records);
    let mut ids: Vec<u128> = records
        .filter(|record| record.id_header == IdHeader::Uuid)
        .map(|record| record.id)
        .filter(|&id| evidence.rows_of(id).is_empty())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
