//! Waiting for a fact, with a deadline, on a blocking thread.
//!
//! Promises that a wait ends: with the fact, with the probe's own error, or with an error that
//! says what was awaited and for how long.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to rest between two probes at first: a local server's facts change within this.
const FIRST_REST: Duration = Duration::from_millis(2);
/// The longest rest: a probe may cost a scan of `/proc`, so a long wait must not spin.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// Probes until the fact is there: `Ok(Some(fact))` ends the wait, `Ok(None)` means not yet, an
/// error ends it at once. `what` completes the sentence "waited 10s for ...".
pub fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    let mut rest = FIRST_REST;
    loop {
        if let Some(fact) = probe()? {
            return Ok(fact);
        }
        if started.elapsed() >= deadline {
            bail!("waited {deadline:?} for {what}, in vain");
        }
        pause(rest);
        rest = (rest * 3 / 2).min(LONGEST_REST);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one poll interval of this module's waits; each of them ends at a fact or a deadline"
)]
fn pause(rest: Duration) {
    std::thread::sleep(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_ends_the_wait_and_a_deadline_names_it() {
        let mut probes = 0;
        let seen = wait_until(Duration::from_secs(5), "three probes", || {
            probes += 1;
            Ok((probes == 3).then_some(probes))
        });
        assert_eq!(seen.unwrap(), 3);

        let late = wait_until::<()>(Duration::from_millis(5), "the moon", || Ok(None));
        assert_eq!(late.unwrap_err().to_string(), "waited 5ms for the moon, in vain");
    }
}
