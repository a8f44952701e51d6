//! Who is not ready yet, and why: named conditions, each with a reason that may change.
//!
//! A process is ready while no condition objects. It may become unready again (Postgres was lost)
//! and ready again. A dropped [`Condition`] keeps its last word: whoever dies while not ready must
//! not make the process look ready.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// All conditions of one process; a clone sees the same ones.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<Vec<Entry>>>);

/// One condition's right to say whether it is ready; held by whoever knows.
#[derive(Debug)]
pub struct Condition {
    index: usize,
    all: Readiness,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: &'static str,
    objection: Option<String>,
}

/// A condition that objects; reads `postgres: connection refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// The condition's name.
    pub name: &'static str,
    /// Why it is not ready, as its holder said last.
    pub reason: String,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No conditions yet, therefore ready.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }

    /// Adds a condition that is not ready, for `reason`. A name used twice is two conditions.
    pub fn condition(&self, name: &'static str, reason: impl Into<String>) -> Condition {
        let mut index = 0;
        self.0.send_modify(|entries| {
            index = entries.len();
            entries.push(Entry { name, objection: Some(reason.into()) });
        });
        Condition { index, all: self.clone() }
    }

    /// Everything that objects now, in the order the conditions were made; empty means ready.
    pub fn objections(&self) -> Vec<NotReady> {
        objections(&self.0.borrow())
    }

    /// Whether nothing objects.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().iter().all(|entry| entry.objection.is_none())
    }

    /// Follows the objections; see [`Changes::next`].
    pub fn changes(&self) -> Changes {
        Changes { entries: self.0.subscribe(), last: None }
    }
}

impl Condition {
    /// This condition no longer objects.
    pub fn ready(&self) {
        self.set(None);
    }

    /// This condition objects, or objects for another reason than before.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, objection: Option<String>) {
        self.all.0.send_if_modified(|entries| {
            // Entries are never removed, so the index stays ours.
            let ours = &mut entries[self.index].objection;
            let changed = *ours != objection;
            *ours = objection;
            changed
        });
    }
}

/// A follower of [`Readiness`] that never misses the newest state (it may miss states between).
#[derive(Debug)]
pub struct Changes {
    entries: watch::Receiver<Vec<Entry>>,
    last: Option<Vec<NotReady>>,
}

impl Changes {
    /// The objections, at once on the first call, later as soon as they differ from what was
    /// returned last. Cancel safety: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Vec<NotReady> {
        loop {
            let now = objections(&self.entries.borrow_and_update());
            if self.last.as_ref() != Some(&now) {
                self.last = Some(now.clone());
                return now;
            }
            if self.entries.changed().await.is_err() {
                // Every holder is gone: there is nothing left that could change.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn objections(entries: &[Entry]) -> Vec<NotReady> {
    entries
        .iter()
        .filter_map(|entry| {
            let reason = entry.objection.clone()?;
            Some(NotReady { name: entry.name, reason })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(readiness: &Readiness) -> Vec<String> {
        readiness.objections().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ready_needs_every_condition_and_may_be_lost_again() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let postgres = readiness.condition("postgres", "not connected yet");
        let kafka = readiness.condition("kafka", "not connected yet");
        assert_eq!(texts(&readiness), ["postgres: not connected yet", "kafka: not connected yet"]);
        postgres.ready();
        assert_eq!(texts(&readiness), ["kafka: not connected yet"]);
        kafka.ready();
        assert!(readiness.is_ready());
        postgres.not_ready("connection lost");
        assert_eq!(texts(&readiness), ["postgres: connection lost"]);
        postgres.not_ready("connection refused");
        assert_eq!(texts(&readiness), ["postgres: connection refused"]);
    }

    #[test]
    fn a_dropped_condition_keeps_its_last_word() {
        let readiness = Readiness::new();
        drop(readiness.condition("slot", "held by another relay"));
        assert_eq!(texts(&readiness), ["slot: held by another relay"]);
    }

    #[tokio::test]
    async fn changes_report_the_first_state_and_then_only_differences() {
        let readiness = Readiness::new();
        let mut changes = readiness.changes();
        assert_eq!(changes.next().await, []);
        let postgres = readiness.condition("postgres", "a");
        postgres.not_ready("a");
        assert_eq!(changes.next().await[0].reason, "a");
        // Away and back while nobody looked is no change.
        postgres.ready();
        postgres.not_ready("a");
        let looked =
            tokio::time::timeout(std::time::Duration::from_millis(10), changes.next()).await;
        assert!(looked.is_err());
        postgres.ready();
        assert_eq!(changes.next().await, []);
    }
}
