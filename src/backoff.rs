//! How long to wait before the next attempt: doubling from `min` up to `max`, less a random part.
//!
//! It promises a delay that is never above `max`, and refuses settings that would spin or never
//! wait. It is pure: it sleeps nowhere and reads no clock, so a seed replays a whole sequence.
//!
//! Guarantee: every delay but a requested immediate first one is in `min * (1 - jitter) ..= max`.
//! Bounded by: `max` for one delay; the number of attempts is the caller's bound.
//! Tested by: the tests at the end of this file.

use std::time::Duration;

/// A checked policy. One policy starts any number of [`Delays`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
    immediate_first: bool,
}

/// Why a policy was refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BackoffError {
    /// A zero minimum never grows, whatever it is doubled.
    #[error("the shortest delay is zero: retries would spin; give at least a millisecond")]
    ZeroMin,
    /// The range is empty.
    #[error("the shortest delay {min:?} is longer than the longest {max:?}: swap them")]
    MinAboveMax {
        /// As given.
        min: Duration,
        /// As given.
        max: Duration,
    },
    /// Not a share. At 1 a delay could be zero.
    #[error("jitter {jitter} is not a share: it must be at least 0 and below 1, like 0.3")]
    Jitter {
        /// As given.
        jitter: f64,
    },
}

impl Backoff {
    /// A policy of delays from `min` doubling to `max`, each shortened by a random share of at most
    /// `jitter`. Shortening, not lengthening, keeps `max` a true bound.
    pub fn try_new(min: Duration, max: Duration, jitter: f64) -> Result<Self, BackoffError> {
        if min.is_zero() {
            return Err(BackoffError::ZeroMin);
        }
        if min > max {
            return Err(BackoffError::MinAboveMax { min, max });
        }
        // The negated form also refuses NaN.
        if !(0.0..1.0).contains(&jitter) {
            return Err(BackoffError::Jitter { jitter });
        }
        Ok(Self { min, max, jitter, immediate_first: false })
    }

    /// The first delay is zero: for a peer that is usually back at once. The second is `min`.
    #[must_use]
    pub fn immediate_first(mut self) -> Self {
        self.immediate_first = true;
        self
    }

    /// Starts a sequence. The same seed gives the same delays; take `fastrand::u64(..)` in
    /// production, so that processes which failed together do not return together.
    #[must_use]
    pub fn delays(self, seed: u64) -> Delays {
        Delays { policy: self, attempts: 0, random: fastrand::Rng::with_seed(seed) }
    }
}

/// An endless sequence of delays. The caller bounds it, by attempts or by a deadline.
#[derive(Clone, Debug)]
pub struct Delays {
    policy: Backoff,
    attempts: u32,
    random: fastrand::Rng,
}

impl Delays {
    /// Delays handed out since the start or the last [`reset`](Self::reset).
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// After a success: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let Backoff { min, max, jitter, immediate_first } = self.policy;
        let attempt = self.attempts;
        self.attempts = attempt.saturating_add(1);
        if immediate_first && attempt == 0 {
            return Duration::ZERO;
        }
        let doublings = attempt - u32::from(immediate_first);
        let factor = 2u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let full = min.saturating_mul(factor).min(max);
        full.mul_f64(1.0 - jitter * self.random.f64()).min(max)
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.next_delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let delays = Backoff::try_new(ms(100), ms(1_000), 0.0).unwrap().delays(7);
        let seen: Vec<_> = delays.take(6).collect();
        assert_eq!(seen, [ms(100), ms(200), ms(400), ms(800), ms(1_000), ms(1_000)]);
    }

    #[test]
    fn the_first_delay_is_zero_on_request() {
        let policy = Backoff::try_new(ms(100), ms(1_000), 0.0).unwrap().immediate_first();
        let mut delays = policy.delays(7);
        let seen: Vec<_> = delays.by_ref().take(3).collect();
        assert_eq!(seen, [Duration::ZERO, ms(100), ms(200)]);
        assert_eq!(delays.attempts(), 3);
        delays.reset();
        assert_eq!(delays.next_delay(), Duration::ZERO);
    }

    #[test]
    fn jitter_only_shortens_and_a_seed_replays() {
        let policy = Backoff::try_new(ms(100), ms(1_000), 0.5).unwrap();
        let seen: Vec<_> = policy.delays(1).take(1_000).collect();
        assert!(seen.iter().all(|delay| (ms(50)..=ms(1_000)).contains(delay)));
        assert!(seen[10..].iter().any(|delay| *delay < ms(600)), "jitter has no effect");
        assert_eq!(seen, policy.delays(1).take(1_000).collect::<Vec<_>>());
        assert_ne!(seen, policy.delays(2).take(1_000).collect::<Vec<_>>());
    }

    #[test]
    fn extremes_neither_overflow_nor_pass_the_longest() {
        let policy = Backoff::try_new(Duration::from_nanos(1), Duration::MAX, 0.0).unwrap();
        let mut delays = policy.delays(0);
        delays.attempts = u32::MAX;
        assert!(delays.next_delay() <= Duration::MAX);
        assert_eq!(delays.attempts(), u32::MAX);
        let policy = Backoff::try_new(Duration::MAX, Duration::MAX, 0.9).unwrap();
        assert!(policy.delays(0).take(100).all(|delay| delay <= Duration::MAX));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        assert_eq!(Backoff::try_new(ms(0), ms(1), 0.0), Err(BackoffError::ZeroMin));
        let error = Backoff::try_new(ms(2), ms(1), 0.0).unwrap_err().to_string();
        assert_eq!(error, "the shortest delay 2ms is longer than the longest 1ms: swap them");
        for jitter in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            let refused = Backoff::try_new(ms(1), ms(2), jitter);
            assert!(matches!(refused, Err(BackoffError::Jitter { .. })), "{jitter}");
        }
    }
}
