//! Planted bugs: one for each step of the safety argument, to show that the simulation sees it.
//!
//! Outside of tests there is no way to switch one on, and the compiler removes them.

/// A step left out or done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// The server is told before Kafka has committed.
    AcknowledgeBeforeCommit,
    /// Fencing does not wait for the slot.
    FenceBeforeSlot,
    /// `<=` in the skip rule.
    SkipRule,
    /// An id that only the relay before us was configured to use is left to it.
    OneIdNotFenced,
    /// Progress is read before fencing only.
    ReadBeforeFence,
    /// A keepalive is confirmed although something before it is not committed.
    FollowBusy,
    /// The slot is looked at without asking whether it is still ours.
    InspectUnheld,
    /// Answers of forgotten attempts are taken for new ones.
    HearForgotten,
    /// A commit that failed is taken for one that worked.
    TrustDoubt,
}

/// Which bug is on, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Switch {
    #[cfg(test)]
    pub(super) on: Option<Planted>,
}

impl Switch {
    #[cfg(test)]
    pub(super) fn is(self, bug: Planted) -> bool {
        self.on == Some(bug)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the test build looks into it")]
    pub(super) const fn is(self, _bug: Planted) -> bool {
        false
    }
}
