//! Properties in tests: random cases for a time, not for a number, each from a seed of its own.
//!
//! `POSTRIDER_PROPERTY_SECONDS` makes every property run longer (`make test-full` does), and
//! `POSTRIDER_PROPERTY_SEED` repeats the one case that failed.

use std::time::{Duration, Instant};

/// Short enough for a test that runs at every change; millions of cases come from running often.
const USUAL: Duration = Duration::from_millis(200);

/// Seeds to try, for as long as there is time; always at least one.
pub(crate) fn seeds() -> Seeds {
    let given = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let only = given("POSTRIDER_PROPERTY_SEED");
    let time = given("POSTRIDER_PROPERTY_SECONDS").map_or(USUAL, Duration::from_secs);
    Seeds { only, end: Instant::now() + time, last: None }
}

/// An iterator that names its last seed when the test around it fails.
pub(crate) struct Seeds {
    only: Option<u64>,
    end: Instant,
    last: Option<u64>,
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.last.is_some() && (self.only.is_some() || Instant::now() >= self.end) {
            return None;
        }
        self.last = Some(self.only.unwrap_or_else(|| fastrand::u64(..)));
        self.last
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        if let Some(seed) = self.last.filter(|_| std::thread::panicking()) {
            eprintln!("to repeat this case: POSTRIDER_PROPERTY_SEED={seed}");
        }
    }
}
