//! What the tasks of a proxy share: the script behind its lock, and the news that it changed.
//!
//! Promises that nobody misses a change: who waits looks at the script after marking the last
//! change as seen, so a change between the look and the wait wakes at once.
//!
//! Bounded by: every wait takes a limit, and a failed one shows the last [`EVENTS_SHOWN`] events.
//! Tested by: the tests of the proxy.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::script::Script;
use super::{Event, Protocol};

/// The events a failed wait shows.
const EVENTS_SHOWN: usize = 12;

/// A fact that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("the proxy did not see {what} within {limit:?}; its last events: {last}")]
pub struct NotSeen {
    pub(super) what: String,
    pub(super) limit: Duration,
    pub(super) last: String,
}

/// What the tasks of a proxy have in common.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) protocol: Protocol,
    pub(super) script: Mutex<Script>,
    pub(super) changed: watch::Sender<()>,
}

impl Stage {
    fn locked<T>(&self, use_it: impl FnOnce(&mut Script) -> T) -> T {
        // Nothing under the lock panics halfway through a change, so a poisoned one is whole.
        use_it(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the script and wakes everybody.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let answer = self.locked(change);
        self.changed.send_replace(());
        answer
    }

    /// Asks the script and moves bytes; wakes everybody only if that was an event.
    pub(super) fn decide<T>(&self, decide: impl FnOnce(&mut Script) -> T) -> T {
        let (answer, news) = self.locked(|script| {
            let before = script.events_noted;
            (decide(script), script.events_noted != before)
        });
        if news {
            self.changed.send_replace(());
        }
        answer
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Script) -> T) -> T {
        self.locked(|script| look(script))
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits for a fact; `None` when it does not come true in time.
    pub(super) async fn wait<T>(
        &self,
        limit: Duration,
        mut probe: impl FnMut(&Script) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes();
        let seen = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = self.look(&mut probe) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        timeout(limit, seen).await.ok().flatten()
    }

    pub(super) async fn wait_for(
        &self,
        limit: Duration,
        what: impl fmt::Display,
        mut is_it: impl FnMut(&Event) -> bool,
    ) -> Result<Event, NotSeen> {
        let found = self
            .wait(limit, |script| script.events.iter().find(|event| is_it(event)).cloned())
            .await;
        found.ok_or_else(|| NotSeen {
            what: what.to_string(),
            limit,
            last: self.look(|script| {
                let skipped = script.events.len().saturating_sub(EVENTS_SHOWN);
                format!("{:?}", script.events.iter().skip(skipped).collect::<Vec<_>>())
            }),
        })
    }
}
