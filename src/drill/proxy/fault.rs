//! One Kafka request, caught by its kind: held, thrown away, or delivered without its answer.
//!
//! Guarantee: a held request is delivered when its fault is dropped, so a test that panics does
//! not leave a client hanging.
//! Bounded by: every wait takes a limit.
//! Tested by: the tests of the proxy.

use std::sync::Arc;
use std::time::Duration;

use super::Event;
use super::script::Fate;
use super::stage::{NotSeen, Stage};

/// The kind of a Kafka request: its api key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKind(pub i16);

impl RequestKind {
    /// Produce
    pub const PRODUCE: Self = Self(0);
    /// Fetch
    pub const FETCH: Self = Self(1);
    /// Metadata
    pub const METADATA: Self = Self(3);
    /// OffsetCommit
    pub const OFFSET_COMMIT: Self = Self(8);
    /// FindCoordinator
    pub const FIND_COORDINATOR: Self = Self(10);
    /// InitProducerId
    pub const INIT_PRODUCER_ID: Self = Self(22);
    /// AddPartitionsToTxn
    pub const ADD_PARTITIONS_TO_TXN: Self = Self(24);
    /// EndTxn
    pub const END_TXN: Self = Self(26);
}

/// A fault that waits for one Kafka request, or has it. Dropping it releases a held request, and
/// gives up one that has not come.
#[derive(Debug)]
#[must_use = "dropping it lets the request pass"]
pub struct RequestFault {
    pub(super) stage: Arc<Stage>,
    pub(super) trap: u64,
    pub(super) kind: RequestKind,
}

impl RequestFault {
    /// Waits until the request has come.
    pub async fn caught(&self, limit: Duration) -> Result<(), NotSeen> {
        let what = format!("a request of api key {}", self.kind.0);
        let this = self.trap;
        let is_it = |event: &Event| matches!(event, Event::Caught { trap, .. } if *trap == this);
        self.stage.wait_for(limit, what, is_it).await.map(|_| ())
    }

    /// Waits until the request was delivered or thrown away.
    pub async fn decided(&self, limit: Duration) -> Result<(), NotSeen> {
        let what = format!("what became of a request of api key {}", self.kind.0);
        let this = self.trap;
        let is_it = |event: &Event| matches!(event, Event::Delivered { trap, .. } | Event::Discarded { trap, .. } if *trap == this);
        self.stage.wait_for(limit, what, is_it).await.map(|_| ())
    }

    /// Waits until the response of a request that was delivered has come and was withheld.
    pub async fn withheld(&self, limit: Duration) -> Result<(), NotSeen> {
        let this = self.trap;
        let mut request = None;
        let is_it = |event: &Event| {
            if let Event::Caught { connection, trap, correlation_id, .. } = event
                && *trap == this
            {
                request = Some((*connection, *correlation_id));
            }
            matches!(event, Event::Withheld { connection, correlation_id }
                if request == Some((*connection, *correlation_id)))
        };
        let what = format!("the response to a request of api key {}", self.kind.0);
        self.stage.wait_for(limit, what, is_it).await.map(|_| ())
    }

    /// Lets the request pass.
    pub fn release(&self) {
        self.stage.change(|script| script.decide(self.trap, Fate::Deliver));
    }

    /// Cuts the connection instead of delivering the request.
    pub fn discard(&self) {
        self.stage.change(|script| script.decide(self.trap, Fate::Discard));
    }

    /// Delivers the request, and cuts the connection when its response arrives.
    pub fn deliver_and_cut(&self) {
        self.stage.change(|script| script.decide(self.trap, Fate::WithholdResponse));
    }
}

impl Drop for RequestFault {
    fn drop(&mut self) {
        self.stage.change(|script| script.disarm(self.trap));
    }
}
