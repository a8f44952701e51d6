//! When each transaction is due, and how long things took.
//!
//! The load is open: a transaction is due when its time has come, whether or not the ones before it
//! have been answered. A load that waits for answers sends less exactly while the system is slow,
//! and so hides the slowness it was built to show (coordinated omission). What starts after it was
//! due is late, and the lateness is part of the response time.
//!
//! Guarantee: arrivals depend on seed and rate only.
//! Bounded by: one open arrival; a histogram of fixed size.
//! Tested by: this module's tests.

use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

use super::plan::scramble;

/// The sequence of arrivals needs a generator of its own, next to those of the transactions.
const ARRIVALS: u64 = u64::MAX - 1;

/// One arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The number of the transaction.
    pub op: u64,
    /// When it is due, counted from the start of the load.
    pub due: Duration,
}

/// Arrivals as from many independent clients: the gaps are exponentially distributed (a Poisson
/// process), so bursts and pauses come by themselves.
#[derive(Debug, Clone)]
pub struct Arrivals {
    rng: Rng,
    gap_mean_seconds: f64,
    next: Arrival,
    op_end: u64,
    due_end: Duration,
}

impl Arrivals {
    /// Arrivals at `rate` a second, until `count` have come or `duration` has passed.
    pub fn new(seed: u64, rate: f64, count: Option<u64>, duration: Option<Duration>) -> Self {
        Self {
            rng: Rng::with_seed(scramble(seed, ARRIVALS)),
            gap_mean_seconds: 1.0 / rate,
            next: Arrival { op: 0, due: Duration::ZERO },
            op_end: count.unwrap_or(u64::MAX),
            due_end: duration.unwrap_or(Duration::MAX),
        }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let due_now = self.next;
        if due_now.op >= self.op_end || due_now.due >= self.due_end {
            return None;
        }
        let gap = -(1.0 - self.rng.f64()).ln() * self.gap_mean_seconds;
        self.next = Arrival {
            op: due_now.op + 1,
            due: due_now.due.saturating_add(Duration::try_from_secs_f64(gap).unwrap_or_default()),
        };
        Some(due_now)
    }
}

/// Each power of two is cut in this many steps: a quantile is at most 1/16 too high.
const STEPS: usize = 16;
/// Powers of two of microseconds: up to 2^36, which is 19 hours.
const POWERS: usize = 36;

/// A histogram of durations, of fixed size.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * POWERS], total: 0, max: Duration::ZERO }
    }
}

/// The usual quantiles, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half were faster.
    pub p50_ms: f64,
    /// 99 of 100 were faster.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        self.total += 1;
        self.max = self.max.max(took);
    }

    /// The duration that `share` (0 to 1) of all stayed within; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut left = (self.total as f64 * share).ceil() as u64;
        for (index, count) in self.counts.iter().enumerate() {
            if *count >= left && left > 0 {
                return bucket_end(index).min(self.max);
            }
            left -= left.min(*count);
        }
        self.max
    }

    /// The usual three.
    pub fn quantiles(&self) -> Quantiles {
        let ms = |took: Duration| took.as_secs_f64() * 1e3;
        Quantiles {
            p50_ms: ms(self.quantile(0.5)),
            p99_ms: ms(self.quantile(0.99)),
            max_ms: ms(self.max),
        }
    }
}

/// The first 16 microseconds have a bucket each, then every power of two has 16.
fn bucket(took: Duration) -> usize {
    let us = usize::try_from(took.as_micros()).unwrap_or(usize::MAX);
    if us < STEPS {
        return us;
    }
    let power = us.ilog2() as usize;
    let step = (us >> (power - 4)) - STEPS;
    ((power - 3) * STEPS + step).min(STEPS * POWERS - 1)
}

fn bucket_end(index: usize) -> Duration {
    let us = if index < STEPS {
        index as u64 + 1
    } else {
        let (power, step) = (index / STEPS + 3, index % STEPS);
        ((STEPS + step + 1) as u64) << (power - 4)
    };
    Duration::from_micros(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_depend_on_the_seed_and_keep_the_rate() {
        let arrivals = |seed| Arrivals::new(seed, 1000.0, Some(20_000), None).collect::<Vec<_>>();
        let first = arrivals(7);
        assert_eq!(first, arrivals(7));
        assert_ne!(first, arrivals(8));
        let seconds = first.last().unwrap().due.as_secs_f64();
        assert!((19.0..21.0).contains(&seconds), "{seconds}");
        assert!(first.windows(2).all(|two| two[0].due <= two[1].due && two[0].op + 1 == two[1].op));
    }

    #[test]
    fn a_duration_ends_the_arrivals() {
        let last = Arrivals::new(1, 500.0, None, Some(Duration::from_secs(2))).last().unwrap();
        assert!(last.due < Duration::from_secs(2));
        assert!((800..1200).contains(&last.op), "{}", last.op);
    }

    #[test]
    fn a_quantile_is_at_most_a_sixteenth_too_high() {
        let mut latencies = Latencies::default();
        for us in 1..=10_000 {
            latencies.add(Duration::from_micros(us));
        }
        for (share, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = latencies.quantile(share).as_secs_f64() * 1e6;
            assert!(found >= exact && found <= exact * 1.0626, "{share}: {found}");
        }
        assert_eq!(latencies.quantiles().max_ms, 10.0);
    }

    #[test]
    fn the_longest_and_the_shortest_have_a_bucket() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        latencies.add(Duration::ZERO);
        latencies.add(Duration::MAX);
        assert_eq!(latencies.quantile(0.5), Duration::from_micros(1));
        // Each bucket begins where the one before it ends.
        for index in 0..STEPS * POWERS - 1 {
            assert_eq!(bucket(bucket_end(index)), index + 1);
        }
    }
}
