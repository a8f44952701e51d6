//! What was read and is not published: transactions by size, and which of their rows to skip.
//!
//! The rows themselves are in the loop's queue, in the same order.

use std::collections::VecDeque;
use std::time::Duration;

use super::input::Message;
use super::planted::{Planted, Switch};
use super::stop::Stop;
use crate::lsn::Lsn;
use crate::relay::progress::Position;

/// What a transaction costs beside its rows, so that empty ones are bounded too.
const TRANSACTION_BYTES: u64 = 64;

/// Why a message of the stream was not accepted.
#[derive(Debug)]
pub(super) enum Unfit {
    /// Out of order: the connection is not to be trusted any more.
    Order,
    /// See the reason.
    Stop(Stop),
}

#[derive(Debug)]
struct Transaction {
    commit_lsn: Lsn,
    /// Present once it is complete.
    end_lsn: Option<Lsn>,
    /// Raw rows that came.
    seen: u64,
    /// Of these, rows that are no longer in the queue: skipped, or published.
    gone: u64,
    /// Raw rows from its start that are published, by the progress that we started from.
    skip: u64,
    bytes: u64,
}

impl Transaction {
    fn kept(&self) -> u64 {
        self.seen - self.gone
    }

    /// Takes `rows` from its front, with their share of the bytes.
    fn take(&mut self, rows: u64) -> u64 {
        let kept = self.kept();
        if kept == 0 {
            return 0;
        }
        let share = u128::from(self.bytes) * u128::from(rows) / u128::from(kept);
        let bytes = u64::try_from(share).expect("a share of a 64-bit number is one");
        self.gone += rows;
        self.bytes -= bytes;
        bytes
    }
}

/// Complete transactions, to be published together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) end_lsn: Lsn,
}

/// The unfinished transaction's rows that can be published now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inflow {
    transactions: VecDeque<Transaction>,
    /// Rows before it are published.
    start: Position,
    last_end: Lsn,
    /// Of all of `transactions`, kept beside them because every message asks for it.
    bytes: u64,
    pub(super) received: Lsn,
    /// Since when the loop has been told not to read.
    pub(super) stalled: Option<Duration>,
    planted: Switch,
}

impl Inflow {
    pub(super) fn new(start: Position, planted: Switch) -> Self {
        Self {
            transactions: VecDeque::new(),
            start,
            last_end: Lsn::ZERO,
            bytes: 0,
            received: Lsn::ZERO,
            stalled: None,
            planted,
        }
    }

    /// Takes a message in; for rows, says how many of them to skip.
    pub(super) fn accept(&mut self, message: Message) -> Result<Option<u64>, Unfit> {
        match message {
            Message::Begin { xid: _, commit_lsn } => self.begin(commit_lsn).map(|()| None),
            Message::Rows { count, bytes } => self.rows(count, bytes).map(Some),
            Message::Commit { commit_lsn, end_lsn } => {
                self.commit(commit_lsn, end_lsn).map(|()| None)
            }
            Message::Keepalive { wal_end, reply_requested: _ } => {
                self.received = self.received.max(wal_end);
                Ok(None)
            }
        }
    }

    /// Raw rows to skip of the transaction whose commit record starts at `commit_lsn`.
    ///
    /// Reason 9, the skip rule: a transaction is skipped if and only if its commit record *starts*
    /// strictly below progress. The next commit record may start exactly at the last one's end, so
    /// `<=` would lose it. A split transaction's position is its own commit record's start: it
    /// comes again, whole, and just its published rows are skipped.
    fn published_of(&self, commit_lsn: Lsn) -> u64 {
        let wrongly = self.planted.is(Planted::SkipRule) && self.start.index == 0;
        if commit_lsn < self.start.lsn || wrongly && commit_lsn == self.start.lsn {
            u64::MAX
        } else if commit_lsn == self.start.lsn {
            self.start.index
        } else {
            0
        }
    }

    fn begin(&mut self, commit_lsn: Lsn) -> Result<(), Unfit> {
        if self.partial().is_some() || commit_lsn < self.last_end {
            return Err(Unfit::Order);
        }
        self.received = self.received.max(commit_lsn);
        self.bytes += TRANSACTION_BYTES;
        let skip = self.published_of(commit_lsn);
        self.transactions.push_back(Transaction {
            commit_lsn,
            end_lsn: None,
            seen: 0,
            gone: 0,
            skip,
            bytes: 0,
        });
        Ok(())
    }

    fn rows(&mut self, count: u64, bytes: u64) -> Result<u64, Unfit> {
        let partial = self.partial_mut().ok_or(Unfit::Order)?;
        let skip = partial.skip.saturating_sub(partial.seen).min(count);
        partial.seen += count;
        partial.bytes += bytes;
        // `take` also takes the bytes' share; what it is taken from includes all older rows, so it
        // is a share of the new rows only when nothing else is kept, and that is so: rows are
        // skipped before the first one is kept.
        let skipped = partial.take(skip);
        self.bytes = self.bytes + bytes - skipped;
        Ok(skip)
    }

    fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<(), Unfit> {
        let partial = self.partial_mut().ok_or(Unfit::Order)?;
        if partial.commit_lsn != commit_lsn || end_lsn <= commit_lsn {
            return Err(Unfit::Order);
        }
        partial.end_lsn = Some(end_lsn);
        let (seen, skip) = (partial.seen, partial.skip);
        if skip == u64::MAX {
            self.transactions.pop_back();
            self.bytes -= TRANSACTION_BYTES;
        } else if seen < skip {
            let stop = Stop::Shrunk { at: commit_lsn, rows: seen, published: skip };
            return Err(Unfit::Stop(stop));
        }
        self.last_end = end_lsn;
        self.received = self.received.max(end_lsn);
        Ok(())
    }

    /// At "go": progress as read after fencing may be further than where we started. Gives the rows
    /// to discard from the queue's front.
    ///
    /// Must be called before anything is published; `start` only moves forward (reason 6).
    pub(super) fn restart_at(&mut self, start: Position) -> Result<u64, Unfit> {
        assert!(start >= self.start, "the start went back from {:?} to {start:?}", self.start);
        self.start = start;
        let mut discarded = 0;
        let mut transactions = std::mem::take(&mut self.transactions);
        for transaction in &mut transactions {
            transaction.skip = self.published_of(transaction.commit_lsn);
            let skip = transaction.skip.min(transaction.seen);
            let rows = skip.saturating_sub(transaction.gone);
            self.bytes -= transaction.take(rows);
            discarded += rows;
            if transaction.end_lsn.is_some()
                && transaction.skip != u64::MAX
                && transaction.seen < transaction.skip
            {
                let (at, rows) = (transaction.commit_lsn, transaction.seen);
                return Err(Unfit::Stop(Stop::Shrunk { at, rows, published: transaction.skip }));
            }
        }
        let before = transactions.len();
        transactions.retain(|one| one.end_lsn.is_none() || one.skip != u64::MAX);
        let removed = u64::try_from(before - transactions.len()).expect("a length is 64 bits");
        self.bytes -= removed * TRANSACTION_BYTES;
        self.transactions = transactions;
        Ok(discarded)
    }

    /// All complete transactions, if any. They may have no rows at all.
    pub(super) fn take_whole(&mut self) -> Option<Whole> {
        let mut whole: Option<Whole> = None;
        while let Some(end_lsn) = self.transactions.front().and_then(|first| first.end_lsn) {
            let first = self.transactions.pop_front().expect("it was just looked at");
            self.bytes -= first.bytes + TRANSACTION_BYTES;
            let before = whole.unwrap_or(Whole { rows: 0, bytes: 0, end_lsn });
            whole = Some(Whole {
                rows: before.rows + first.kept(),
                bytes: before.bytes + first.bytes,
                end_lsn,
            });
        }
        whole
    }

    pub(super) fn has_whole(&self) -> bool {
        self.transactions.front().is_some_and(|first| first.end_lsn.is_some())
    }

    /// What there is of the unfinished transaction, when it is next and is at least `floor` bytes.
    pub(super) fn take_part(&mut self, floor: u64) -> Option<Part> {
        if self.has_whole() {
            return None;
        }
        let partial = self.partial_mut()?;
        let rows = partial.kept();
        if rows == 0 || partial.bytes < floor {
            return None;
        }
        let bytes = partial.take(rows);
        self.bytes -= bytes;
        Some(Part { rows, bytes })
    }

    /// Where the unfinished transaction is split: all its rows so far are published.
    pub(super) fn split_position(&self) -> Option<Position> {
        let partial = self.partial()?;
        assert_eq!(partial.kept(), 0, "a split counts rows that were not sent");
        Some(Position { lsn: partial.commit_lsn, index: partial.seen })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn partial(&self) -> Option<&Transaction> {
        self.transactions.back().filter(|last| last.end_lsn.is_none())
    }

    fn partial_mut(&mut self) -> Option<&mut Transaction> {
        self.transactions.back_mut().filter(|last| last.end_lsn.is_none())
    }
}
