//! The workers of the load, from start to drained.
//!
//! Promises that the load outlives Postgres: a worker without a connection tries again, and every
//! other worker does not notice. Ends by count, by duration or on request; then runs what is due,
//! within `drain_timeout`, and says what it did not begin.
//!
//! Guarantee: dropping a [`Load`] ends its workers.
//! Bounded by: the limits in [`Options`].
//! Tested by: `tests/services/load.rs`.

use std::ops::Range;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;

use super::pace::{Arrival, Arrivals};
use super::session::{Job, Session, connect};
use super::tables::setup;
use super::{Options, Plan, Summary, Tally};
use crate::backoff::Backoff;
use crate::drill::history::{FORMAT_VERSION, History, Run, Writer, now_us};

/// The pauses before connecting again. The longest is short enough that the load is back soon after
/// Postgres is: the load is there to press.
const RECONNECT_PAUSE: Range<Duration> = Duration::from_millis(10)..Duration::from_millis(500);
/// So that the workers do not all come back in the same millisecond.
const RECONNECT_JITTER: f64 = 0.5;
/// A million keys of each type take less than a minute; a frozen server would take for ever.
const SETUP_LIMIT: Duration = Duration::from_secs(300);
/// More connections than a test server grants.
const WORKERS_MAX: u32 = 1_000;
/// Faster than any server this load is meant for.
const RATE_MAX: f64 = 1_000_000.0;
/// Counting what was due but not begun ends here, at a million.
const NOT_STARTED_COUNTED_MAX: usize = 1_000_000;

struct Shared {
    plan: Plan,
    config: Config,
    options: Options,
    history: History,
    start: Instant,
    arrivals: Mutex<Arrivals>,
    tally: Mutex<Tally>,
    stop: CancellationToken,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<anyhow::Result<()>>,
    writer: Writer,
}

impl Options {
    /// Refuses what no load could be made of: the user's mistakes, before anything is touched.
    ///
    /// # Errors
    ///
    /// What is wrong, and the rule.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.rate > 0.0 && self.rate <= RATE_MAX,
            "rate is {}, but it must be above 0 and at most {RATE_MAX} transactions a second",
            self.rate
        );
        ensure!(
            (1..=WORKERS_MAX).contains(&self.workers),
            "workers is {}, but it must be 1 to {WORKERS_MAX}, a connection each",
            self.workers
        );
        self.mix.check()?;
        Config::from_str(&self.postgres).context("read the database's URL")?;
        Ok(())
    }
}

/// Runs a load to its end, or until `stop` is cancelled.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<Summary> {
    Load::start(options, stop).await?.finish().await
}

impl Load {
    /// Sets up the tables, creates the history and starts the workers.
    pub async fn start(options: Options, stop: CancellationToken) -> anyhow::Result<Self> {
        options.check()?;
        let plan = Plan::new(options.seed, options.mix.clone())?;
        let mut config = Config::from_str(&options.postgres).context("read the database's URL")?;
        config.application_name("drill load");
        let (client, driver) = connect(&config).await.context("connect to Postgres")?;
        timeout(SETUP_LIMIT, setup(&client, &plan))
            .await
            .with_context(|| format!("no answer within {SETUP_LIMIT:?}"))
            .flatten()
            .context("set up the tables of the load")?;
        drop((client, driver));

        let run = Run {
            seed: options.seed,
            started_at_us: now_us(),
            tables: options.mix.tables.iter().map(|table| table.name.clone()).collect(),
            version: FORMAT_VERSION,
        };
        let (history, writer) = History::create(&options.history, &run)?;
        let arrivals = Arrivals::new(options.seed, options.rate, options.count, options.duration);
        let shared = Arc::new(Shared {
            plan,
            config,
            history,
            start: Instant::now(),
            arrivals: Mutex::new(arrivals),
            tally: Mutex::default(),
            stop: stop.child_token(),
            options,
        });
        let mut workers = JoinSet::new();
        for number in 0..shared.options.workers {
            workers.spawn(work(number, shared.clone()));
        }
        Ok(Self { shared, workers, writer })
    }

    /// What has been counted so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally(|tally| tally.clone())
    }

    /// Takes no more from the plan; what is running goes on to its end.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Waits for the end by count, duration or [`stop`](Self::stop), then for what is running.
    pub async fn finish(mut self) -> anyhow::Result<Summary> {
        let shared = self.shared.clone();
        let drain = shared.options.drain_timeout;
        // Without a duration only the count, a request or an error ends the load.
        let end = shared.options.duration.map(|duration| shared.start + duration + drain);
        let ended = tokio::select! {
            ended = join(&mut self.workers) => Some(ended),
            () = shared.stop.cancelled() => None,
            () = until(end) => None,
        };
        let stopped_after = shared.start.elapsed();
        shared.stop.cancel();
        let ended = match ended {
            Some(ended) => ended,
            // An aborted worker drops its connection; its begin line stays without an end.
            None => timeout(drain, join(&mut self.workers)).await.unwrap_or(Ok(())),
        };
        self.workers.shutdown().await;
        let elapsed = shared.start.elapsed();
        let not_started = shared.not_started(stopped_after);
        let about = (shared.options.seed, shared.options.rate);
        let summary =
            Summary::new(about, shared.tally(|tally| tally.clone()), elapsed, not_started);
        drop((shared, self.shared));
        let written = self.writer.finish().await;
        ended?;
        written?;
        Ok(summary)
    }
}

impl Shared {
    fn tally<T>(&self, use_it: impl FnOnce(&mut Tally) -> T) -> T {
        // Counting cannot panic halfway, so a poisoned lock still guards whole counts.
        use_it(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn next(&self) -> Option<Arrival> {
        if self.stop.is_cancelled() {
            return None;
        }
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// What was due before the load was stopped, and was left: what no worker took from the plan.
    fn not_started(&self, stopped_after: Duration) -> u64 {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let due = arrivals.take_while(|arrival| arrival.due <= stopped_after);
        due.take(NOT_STARTED_COUNTED_MAX).count() as u64
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}

/// Cancel safety: a worker that has been joined is out of the set, the rest stays in it.
async fn join(workers: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker of the load panicked")??;
    }
    Ok(())
}

/// Takes one arrival after the other until there are none, or the load is stopped.
async fn work(number: u32, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut session = None;
    let mut connected_before = false;
    while let Some(arrival) = shared.next() {
        let due = shared.start + arrival.due;
        let due_now = tokio::select! {
            () = sleep_until(due.into()) => true,
            () = shared.stop.cancelled() => false,
        };
        if !due_now {
            break;
        }
        let mut live = match session.take() {
            Some(live) => live,
            None => {
                let Some(live) = reconnect(&shared, number).await? else {
                    shared.tally(|tally| tally.not_started += 1);
                    break;
                };
                shared.tally(|tally| tally.reconnects += u64::from(connected_before));
                connected_before = true;
                live
            }
        };
        let begun = Instant::now();
        shared.tally(|tally| tally.started += 1);
        let transaction = shared.plan.transaction(arrival.op);
        let job = Job {
            worker: number,
            mix: shared.plan.mix(),
            history: &shared.history,
            limit: shared.options.operation_timeout,
        };
        let ran = live.run(&job, &transaction).await?;
        let late = begun.saturating_duration_since(due);
        let intent = transaction.intent;
        shared.tally(|tally| tally.ended(intent, &ran, late, begun.elapsed()));
        if ran.error.is_none() {
            session = Some(live);
        }
    }
    Ok(())
}

/// Tries until there is a connection; `None` when the load is stopped meanwhile.
async fn reconnect(shared: &Shared, number: u32) -> anyhow::Result<Option<Session>> {
    let since = Instant::now();
    let Range { start, end } = RECONNECT_PAUSE;
    let backoff = Backoff::try_new(start, end, RECONNECT_JITTER);
    let mut pauses = backoff.expect("the constants make a range").delays(number.into());
    loop {
        let attempt = tokio::select! {
            attempt = Session::open(&shared.config) => attempt,
            () = shared.stop.cancelled() => return Ok(None),
        };
        let error = match attempt {
            Ok(session) => return Ok(Some(session)),
            Err(error) => error,
        };
        shared.tally(|tally| tally.refused += 1);
        let limit = shared.options.outage_limit;
        if since.elapsed() > limit {
            bail!(
                error
                    .context(format!("no connection to Postgres for {limit:?}, the load gives up"))
            );
        }
        tokio::select! {
            () = sleep(pauses.next_delay()) => {}
            () = shared.stop.cancelled() => return Ok(None),
        }
    }
}
