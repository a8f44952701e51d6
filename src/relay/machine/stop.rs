//! Why the relay stops until an operator acts, and what the operator can do.

use crate::lsn::Lsn;

/// A reason to stop. Its text says what is, and by which rule that is refused; [`Stop::advice`]
/// says the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The record is another relay's.
    #[error("progress belongs to relay {found}, this is relay {own}")]
    Relay {
        /// In the record.
        found: String,
        /// Configured.
        own: String,
    },
    /// The record names a slot that is not ours, or not the one of its generation.
    #[error("progress names slot {found} as generation {generation}, which would be {own}")]
    Slot {
        /// In the record.
        found: String,
        /// In the record.
        generation: u32,
        /// By the configuration.
        own: String,
    },
    /// The rows were last read from the table.
    #[error("progress was written by a relay that polls the table, this one reads the slot")]
    Mode,
    /// Another database cluster.
    #[error("progress belongs to system {found}, the server is system {server}")]
    System {
        /// In the record.
        found: String,
        /// The server's.
        server: String,
    },
    /// The server is older than the record.
    #[error(
        "progress is of timeline {found}, the server is on {server} and does not descend from it"
    )]
    Timeline {
        /// In the record.
        found: u32,
        /// The server's.
        server: u32,
    },
    /// The failover lost what was published.
    #[error(
        "progress is at {at}, but timeline {timeline} ended at {switch}: the new primary lost \
         commits that were published"
    )]
    BeyondSwitch {
        /// In the record.
        at: Lsn,
        /// In the record.
        timeline: u32,
        /// Where it ended.
        switch: Lsn,
    },
    /// The server's log is shorter than the record says: from there it would silently skip commits.
    #[error(
        "progress is at {at}, the server's log ends at {xlogpos}: the server was restored from a \
         backup, or is another one"
    )]
    Ahead {
        /// In the record.
        at: Lsn,
        /// The server's.
        xlogpos: Lsn,
    },
    /// Somebody acknowledged what Kafka does not have.
    #[error(
        "slot {slot} is confirmed up to {confirmed}, Kafka has {at}: rows between them may be lost"
    )]
    SlotAhead {
        /// The slot.
        slot: String,
        /// Its `confirmed_flush_lsn`.
        confirmed: Lsn,
        /// In the record.
        at: Lsn,
    },
    /// Progress went back, or vanished, while we looked.
    #[error(
        "progress was at {before} and is now at {}",
        .now.map_or_else(|| "nothing".to_owned(), |lsn| lsn.to_string())
    )]
    WentBack {
        /// At the first reading.
        before: Lsn,
        /// At the second.
        now: Option<Lsn>,
    },
    /// A split transaction came back with fewer rows than were published of it.
    #[error(
        "transaction committing at {at} came with {rows} rows, {published} of it are published"
    )]
    Shrunk {
        /// Its commit record.
        at: Lsn,
        /// Rows that came.
        rows: u64,
        /// Rows that Kafka has.
        published: u64,
    },
    /// Found outside of the machine.
    #[error("{reason}")]
    Outside {
        /// What is.
        reason: String,
        /// What to do.
        advice: String,
    },
}

impl Stop {
    /// What the operator can do.
    #[must_use]
    pub fn advice(&self) -> &str {
        match self {
            Self::Relay { .. } => {
                "give each relay a name of its own, or move the progress with `postrider progress \
                 export` and `set`"
            }
            Self::Slot { .. } => {
                "configure the slot that progress names, or set progress with `postrider progress \
                 set`"
            }
            Self::Mode => {
                "run it with mode = \"polling\", or stop the other relay and set progress"
            }
            Self::System { .. } | Self::Ahead { .. } => {
                "point the relay at the right server; if this one is meant to replace it, see the \
                 runbook for restored backups, then `postrider progress set`"
            }
            Self::Timeline { .. } => "point the relay at the current primary",
            Self::BeyondSwitch { .. } => {
                "compare the table with the topics, then `postrider progress set` to the switch \
                 point"
            }
            Self::SlotAhead { .. } => {
                "find who acknowledged or advanced the slot, or what happened to the progress \
                 topic; compare the table with the topics, `postrider republish` what is missing, \
                 then `postrider progress set`"
            }
            Self::WentBack { .. } => {
                "the progress topic was truncated or deleted: check its cleanup policy and \
                 retention, then `postrider progress set`"
            }
            Self::Shrunk { .. } => {
                "the publication or its tables changed inside a split transaction: restore the \
                 publication, then resume"
            }
            Self::Outside { advice, .. } => advice,
        }
    }
}
