//! The records that a producer has taken and Kafka has not: how many, and which of them failed.
//!
//! The poll thread counts down as reports come in; the sending thread waits on a condition for a
//! number, not for a time. This replaces librdkafka's own flush, which looks every 100 ms and makes
//! that the duration of each commit.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::Tag;
use super::failure::is_aftermath;

/// How many failed records are remembered; it is the first ones that tell why.
const REMEMBERED: usize = 32;

/// One producer's records on the way.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    in_flight: AtomicUsize,
    /// The number that somebody waits for, plus one; zero if nobody does.
    awaited: AtomicUsize,
    failures: Mutex<Vec<Undelivered>>,
    failed: AtomicUsize,
    /// The transaction has failed; what is on the way may stay there for long.
    broken: AtomicBool,
    changed: Condvar,
    /// Belongs to the condition; it guards no data, the counters are atomic.
    gate: Mutex<()>,
}

/// A record that Kafka did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Undelivered {
    pub(super) tag: Tag,
    pub(super) topic: String,
    pub(super) code: Code,
    /// Its key and value.
    pub(super) bytes: usize,
}

/// The wait ended by its deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) in_flight: usize,
}

impl Deliveries {
    /// Counts a record, before it is handed over: its report may come before the call returns.
    pub(super) fn sent(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes back a count: the record was refused at once, and no report will come.
    pub(super) fn unsent(&self) {
        self.reported();
    }

    /// A record arrived.
    pub(super) fn reported(&self) {
        let left = self.in_flight.fetch_sub(1, Ordering::SeqCst) - 1;
        // Either the waiting thread wrote its number before it looked at the count, and it is seen
        // here; or it looks after the count went down, and sees that.
        if left < self.awaited.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// The transaction has failed as a whole, which ends every wait: a partition that could not be
    /// added to it keeps its records in the queue until they time out.
    pub(super) fn transaction_broke(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// A record did not arrive.
    pub(super) fn failed(&self, record: Undelivered) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        // What says why goes in front of what says only that something was thrown away.
        let telling = failures.iter().filter(|known| !is_aftermath(known.code)).count();
        let place = if is_aftermath(record.code) { failures.len() } else { telling };
        failures.insert(place, record);
        failures.truncate(REMEMBERED);
        drop(failures);
        self.failed.fetch_add(1, Ordering::SeqCst);
        self.reported();
    }

    /// How many are on the way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Whether any record failed, or the transaction as a whole; cheap enough for each chunk.
    pub(super) fn any_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst) > 0 || self.broken.load(Ordering::SeqCst)
    }

    /// The failed records, those that tell why in front.
    pub(super) fn failures(&self) -> Vec<Undelivered> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until at most so many are on the way, or until the transaction broke.
    pub(super) fn wait(&self, at_most: usize, deadline: Instant) -> Result<(), Late> {
        self.wait_unless(&self.broken, at_most, deadline)
    }

    /// Waits for the reports of all that an abort has thrown away.
    pub(super) fn settle(&self, deadline: Instant) -> Result<(), Late> {
        self.wait_unless(&AtomicBool::new(false), 0, deadline)
    }

    fn wait_unless(
        &self,
        broken: &AtomicBool,
        at_most: usize,
        deadline: Instant,
    ) -> Result<(), Late> {
        if self.in_flight() <= at_most {
            return Ok(());
        }
        self.awaited.store(at_most + 1, Ordering::SeqCst);
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let result = loop {
            let in_flight = self.in_flight();
            if in_flight <= at_most || broken.load(Ordering::SeqCst) {
                break Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(Late { in_flight });
            }
            let woken = self.changed.wait_timeout(gate, left);
            gate = woken.unwrap_or_else(PoisonError::into_inner).0;
        };
        self.awaited.store(0, Ordering::SeqCst);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn undelivered(tag: usize, code: Code) -> Undelivered {
        Undelivered { tag: Tag(tag), topic: "t".to_owned(), code, bytes: 1 }
    }

    #[test]
    fn the_last_report_wakes_the_one_who_waits() {
        let deliveries = Arc::new(Deliveries::default());
        for _ in 0..200 {
            for _ in 0..10 {
                deliveries.sent();
            }
            let reporter = Arc::clone(&deliveries);
            let thread = thread::spawn(move || (0..10).for_each(|_| reporter.reported()));
            assert_eq!(deliveries.wait(0, soon()), Ok(()));
            thread.join().unwrap();
        }
        assert_eq!(deliveries.in_flight(), 0);
    }

    #[test]
    fn a_wait_for_room_ends_before_the_queue_is_empty() {
        let deliveries = Deliveries::default();
        (0..4).for_each(|_| deliveries.sent());
        thread::scope(|scope| {
            scope.spawn(|| deliveries.reported());
            assert_eq!(deliveries.wait(3, soon()), Ok(()));
        });
        assert_eq!(deliveries.in_flight(), 3);
    }

    #[test]
    fn a_broken_transaction_ends_the_wait_and_is_a_failure() {
        let deliveries = Deliveries::default();
        deliveries.sent();
        thread::scope(|scope| {
            scope.spawn(|| deliveries.transaction_broke());
            assert_eq!(deliveries.wait(0, soon()), Ok(()));
        });
        assert!(deliveries.any_failed());
        assert_eq!(deliveries.settle(Instant::now()), Err(Late { in_flight: 1 }));
    }

    #[test]
    fn a_wait_ends_by_its_deadline() {
        let deliveries = Deliveries::default();
        deliveries.sent();
        assert_eq!(deliveries.wait(0, Instant::now()), Err(Late { in_flight: 1 }));
    }

    #[test]
    fn the_cause_stands_before_its_aftermath_and_both_are_bounded() {
        let deliveries = Deliveries::default();
        for tag in 0..100 {
            deliveries.sent();
            deliveries.failed(undelivered(tag, Code::PurgeQueue));
        }
        deliveries.sent();
        deliveries.failed(undelivered(100, Code::MessageSizeTooLarge));
        let failures = deliveries.failures();
        assert_eq!((failures.len(), failures[0].tag), (REMEMBERED, Tag(100)));
        assert!(deliveries.any_failed());
        assert_eq!(deliveries.in_flight(), 0);
    }
}
