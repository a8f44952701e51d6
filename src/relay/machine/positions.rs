//! How far the relay is, in one place: received, published, acknowledged.

use crate::lsn::Lsn;
use crate::relay::progress::Position;

/// `received >= published >= acked`, each monotone: broken is a bug, and stops the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    received: Lsn,
    published: Position,
    acked: Lsn,
}

impl Positions {
    /// At "go": what Kafka has, `published`, may be acknowledged at once; nothing is yet.
    pub(super) fn starting_at(published: Position, received: Lsn) -> Self {
        Self { received: received.max(published.lsn), published, acked: Lsn::ZERO }.asserted()
    }

    /// The furthest thing seen on this connection.
    #[must_use]
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// What Kafka has committed.
    #[must_use]
    pub fn published(&self) -> Position {
        self.published
    }

    /// What the server was told.
    #[must_use]
    pub fn acked(&self) -> Lsn {
        self.acked
    }

    /// A message went up to `lsn`. Older ones are normal: keepalives run below START for a while.
    pub(super) fn receive(&mut self, lsn: Lsn) {
        self.received = self.received.max(lsn);
        *self = self.asserted();
    }

    /// Must be called only once Kafka has committed `to`, without a doubt.
    pub(super) fn publish(&mut self, to: Position) {
        assert!(to >= self.published, "progress went back: {:?} to {to:?}", self.published);
        self.published = to;
        *self = self.asserted();
    }

    /// Must be called only when the server is told: gives what to tell it.
    pub(super) fn acknowledge(&mut self) -> Lsn {
        assert!(self.published.lsn >= self.acked, "an acknowledgement would go back");
        self.acked = self.published.lsn;
        *self = self.asserted();
        self.acked
    }

    fn asserted(self) -> Self {
        assert!(self.received >= self.published.lsn, "published what was never received: {self:?}");
        assert!(self.published.lsn >= self.acked, "acknowledged what Kafka may not have: {self:?}");
        self
    }
}
