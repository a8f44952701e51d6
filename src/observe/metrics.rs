//! Every metric postrider has: name, kind, labels, unit and help, as data, in this file only.
//!
//! [`METRICS`] is what documents, dashboards and alert rules are checked against. [`Metrics`] is
//! built from the same data and hands out what other modules may write; they never see a registry.
//! Figures that are cheaper to read than to keep (pools, the process) are sampled at each scrape.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{Counter, Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::process;

/// One metric's declaration.
#[derive(Debug)]
pub struct Metric {
    /// The full name, as on `/metrics`.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// What one counts; the name's ending says it too.
    pub unit: Unit,
    /// Label names, in the order of their values.
    pub labels: &'static [&'static str],
    /// One sentence for somebody who sees the name for the first time.
    pub help: &'static str,
}

/// How a metric's value may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; starts at zero with the process.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Base units only, so that no panel has to convert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things, or a yes and no (1 and 0).
    Count,
    /// Bytes.
    Bytes,
    /// Seconds; a timestamp counts them from 1970.
    Seconds,
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Gauge, unit, labels, help }
}

const fn counter(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Counter, unit, labels, help }
}

const BUILD_INFO: Metric = gauge(
    "postrider_build_info",
    Unit::Count,
    &["version", "commit"],
    "Always 1; the labels say which build runs (commit is empty when the build did not name one).",
);
const READY: Metric = gauge(
    "postrider_ready",
    Unit::Count,
    &[],
    "1 while /ready answers 200, else 0; /ready says which condition objects and why.",
);
const RELOADS: Metric = counter(
    "postrider_reloads_total",
    Unit::Count,
    &["what", "outcome"],
    "Reloads by SIGHUP of one thing (certificates, passwords); outcome is ok or failed, and a \
     failed one keeps the old value.",
);
const POOL_CONNECTIONS: Metric = gauge(
    "postrider_pool_connections",
    Unit::Count,
    &["pool", "state"],
    "Open Postgres connections of a pool; state is idle or used.",
);
const CPU_SECONDS: Metric = counter(
    "process_cpu_seconds_total",
    Unit::Seconds,
    &[],
    "CPU time of this process, user and system.",
);
const RESIDENT_BYTES: Metric = gauge(
    "process_resident_memory_bytes",
    Unit::Bytes,
    &[],
    "Memory of this process that is in RAM.",
);
const VIRTUAL_BYTES: Metric = gauge(
    "process_virtual_memory_bytes",
    Unit::Bytes,
    &[],
    "Address space of this process, in RAM or not.",
);
const THREADS: Metric =
    gauge("process_threads", Unit::Count, &[], "Operating system threads of this process.");
const OPEN_FDS: Metric =
    gauge("process_open_fds", Unit::Count, &[], "File descriptors this process has open.");
const MAX_FDS: Metric =
    gauge("process_max_fds", Unit::Count, &[], "File descriptors this process may open.");
const START_TIME: Metric = gauge(
    "process_start_time_seconds",
    Unit::Seconds,
    &[],
    "When this process started, in seconds since 1970.",
);

/// Every metric there is. Documents and rules are checked against this list.
pub const METRICS: &[Metric] = &[
    BUILD_INFO,
    READY,
    RELOADS,
    POOL_CONNECTIONS,
    CPU_SECONDS,
    RESIDENT_BYTES,
    VIRTUAL_BYTES,
    THREADS,
    OPEN_FDS,
    MAX_FDS,
    START_TIME,
];

/// [`METRICS`] as a Markdown table, as `docs/metrics.md` has it.
pub fn reference_table() -> String {
    let mut text =
        "| metric | kind | labels | unit | what it says |\n|---|---|---|---|---|\n".to_owned();
    for Metric { name, kind, unit, labels, help } in METRICS {
        let kind = format!("{kind:?}").to_lowercase();
        let unit = format!("{unit:?}").to_lowercase();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        text.push_str(&format!("| `{name}` | {kind} | {labels} | {unit} | {help} |\n"));
    }
    text
}

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// What the build tells us of itself, if it was told: a version control commit.
const COMMIT: Option<&str> = option_env!("POSTRIDER_COMMIT");

/// How many connections a pool has, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Open and waiting for somebody.
    pub idle: usize,
    /// Open and lent out.
    pub used: usize,
}

/// The process's metrics, built once and passed on by `Arc`.
pub struct Metrics {
    registry: Registry,
    ready: IntGauge,
    reloads: IntCounterVec,
    pool_connections: IntGaugeVec,
    process: ProcessMetrics,
    // One scrape at a time samples, or a counter could be moved twice by the same difference.
    samplers: Mutex<Vec<Sampler>>,
}

type Sampler = Box<dyn Fn(&Metrics) + Send>;

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, so that two roles in one process, or two tests, do not meet.
    pub fn new() -> Self {
        let registry = Registry::new();
        let build_info = gauge_vec(&registry, &BUILD_INFO);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("")]).set(1);
        Self {
            ready: int_gauge(&registry, &READY),
            reloads: counter_vec(&registry, &RELOADS),
            pool_connections: gauge_vec(&registry, &POOL_CONNECTIONS),
            process: ProcessMetrics::new(),
            samplers: Mutex::new(Vec::new()),
            registry,
        }
    }

    /// Samples `pool` at each scrape. The closure must not block: it answers an HTTP request.
    pub fn watch_pool(
        &self,
        pool: &'static str,
        sample: impl Fn() -> PoolUse + Send + Sync + 'static,
    ) {
        self.at_scrape(move |metrics| {
            let now = sample();
            for (state, count) in [("idle", now.idle), ("used", now.used)] {
                let gauge = metrics.pool_connections.with_label_values(&[pool, state]);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        });
    }

    /// Samples readiness at each scrape.
    pub fn watch_readiness(&self, readiness: &super::Readiness) {
        let readiness = readiness.clone();
        self.at_scrape(move |metrics| metrics.ready.set(i64::from(readiness.is_ready())));
    }

    /// Counts one reload of `what`.
    pub fn count_reload(&self, what: &str, succeeded: bool) {
        let outcome = if succeeded { "ok" } else { "failed" };
        self.reloads.with_label_values(&[what, outcome]).inc();
    }

    /// Names a thing that SIGHUP reloads, so that its counters are zero before the first reload
    /// instead of missing: a rule on their increase would not see the first one.
    pub fn expect_reloads(&self, what: &str) {
        for outcome in ["ok", "failed"] {
            self.reloads.with_label_values(&[what, outcome]);
        }
    }

    /// Everything in Prometheus' text format, sampled now.
    pub fn text(&self) -> String {
        let samplers = self.samplers.lock().unwrap_or_else(PoisonError::into_inner);
        samplers.iter().for_each(|sample| sample(self));
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        drop(samplers);
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("a registry that checked every name at its registration encodes")
    }

    fn at_scrape(&self, sample: impl Fn(&Metrics) + Send + 'static) {
        self.samplers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(sample));
    }
}

/// Which figure of a reading a gauge shows.
type Figure = fn(&process::Reading) -> Option<i64>;

/// Kept out of the registry: a figure the system does not give must be missing, not zero.
struct ProcessMetrics {
    cpu_seconds: Counter,
    gauges: [(IntGauge, Figure); 5],
    start_time: Gauge,
}

impl ProcessMetrics {
    fn new() -> Self {
        let single = |metric: &Metric| {
            IntGauge::with_opts(opts(metric)).expect("a name checked by this file's tests")
        };
        let cpu_seconds =
            Counter::with_opts(opts(&CPU_SECONDS)).expect("a name checked by this file's tests");
        let start_time =
            Gauge::with_opts(opts(&START_TIME)).expect("a name checked by this file's tests");
        // The metrics are made when the process starts; `/proc` knows the exact instant only
        // through the boot time, which a hardened unit hides.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        start_time.set(since_1970.as_secs_f64());
        Self {
            cpu_seconds,
            gauges: [
                (single(&RESIDENT_BYTES), |reading| reading.resident_bytes),
                (single(&VIRTUAL_BYTES), |reading| reading.virtual_bytes),
                (single(&THREADS), |reading| reading.threads),
                (single(&OPEN_FDS), |reading| reading.open_fds),
                (single(&MAX_FDS), |reading| reading.max_fds),
            ],
            start_time,
        }
    }

    fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        let reading = process::read();
        let mut families = self.start_time.collect();
        if let Some(seconds) = reading.cpu_seconds {
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
            families.extend(self.cpu_seconds.collect());
        }
        for (gauge, figure) in &self.gauges {
            if let Some(value) = figure(&reading) {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

fn opts(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

fn gauge_vec(registry: &Registry, metric: &Metric) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(opts(metric), metric.labels))
}

fn counter_vec(registry: &Registry, metric: &Metric) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(metric), metric.labels))
}

fn int_gauge(registry: &Registry, metric: &Metric) -> IntGauge {
    register(registry, IntGauge::with_opts(opts(metric)))
}

fn register<C>(registry: &Registry, made: prometheus::Result<C>) -> C
where
    C: Collector + Clone + 'static,
{
    let collector = made.expect("a name and labels checked by this file's tests");
    registry
        .register(Box::new(collector.clone()))
        .expect("each name once, checked by this file's tests");
    collector
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::observe::Readiness;

    /// Every metric has a value once each writer has written once.
    fn exercised() -> (Metrics, Readiness) {
        let metrics = Metrics::new();
        let readiness = Readiness::new();
        metrics.watch_readiness(&readiness);
        metrics.watch_pool("main", || PoolUse { idle: 3, used: 2 });
        metrics.expect_reloads("certificates");
        metrics.count_reload("certificates", false);
        (metrics, readiness)
    }

    #[test]
    fn what_is_exposed_is_what_is_declared() {
        let text = exercised().0.text();
        let exposed: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(ToOwned::to_owned)
            .collect();
        let declared: BTreeSet<String> = METRICS
            .iter()
            .map(|metric| format!("{} {:?}", metric.name, metric.kind).to_lowercase())
            .collect();
        assert_eq!(exposed, declared);
        assert_eq!(declared.len(), METRICS.len(), "a name is declared twice");
    }

    #[test]
    fn the_document_has_the_table_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let document = std::fs::read_to_string(path).unwrap();
        let table = reference_table();
        assert!(document.contains(&table), "docs/metrics.md must contain\n\n{table}");
    }

    #[test]
    fn names_say_their_kind_and_unit() {
        for metric in METRICS {
            let name = metric.name;
            assert!(name.starts_with("postrider_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            let stem = name.strip_suffix("_total").unwrap_or(name);
            let ending = match metric.unit {
                Unit::Count => "",
                Unit::Bytes => "_bytes",
                Unit::Seconds => "_seconds",
            };
            assert!(stem.ends_with(ending), "{name} must end in {ending}");
            assert!(metric.help.ends_with('.'), "the help of {name} is a sentence");
        }
    }

    #[test]
    fn sampled_figures_are_those_of_the_scrape() {
        let (metrics, readiness) = exercised();
        let text = metrics.text();
        for line in [
            "postrider_pool_connections{pool=\"main\",state=\"idle\"} 3",
            "postrider_pool_connections{pool=\"main\",state=\"used\"} 2",
            "postrider_reloads_total{outcome=\"ok\",what=\"certificates\"} 0",
            "postrider_reloads_total{outcome=\"failed\",what=\"certificates\"} 1",
            "postrider_ready 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
        let _postgres = readiness.condition("postgres", "lost");
        assert!(metrics.text().contains("\npostrider_ready 0\n"));
    }
}
