//! A model of the brokers: transactions by id and epoch, fencing, stragglers, one progress log.
//!
//! Everything that counts is checked here, at the moment it becomes visible.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::postgres::{Committed, Row};
use crate::relay::progress::{Position, Progress};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Transaction {
    fate: Fate,
    since: u64,
    /// Rows and the offset of the first, in one partition that stands for all.
    rows: Vec<Row>,
    first_offset: u64,
    progress: Option<Progress>,
}

/// What a relay's producers have asked the brokers for, in its order.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Fence(RangeInclusive<u8>),
    With(u8, Ask),
}

#[derive(Clone, Debug)]
pub(super) enum Ask {
    Rows(Vec<Row>),
    Progress(Box<Progress>),
    Commit,
    Abort,
}

/// The producers of one attempt of one relay. They outlive it by what is in flight.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) node: usize,
    pub(super) attempt: u64,
    /// Whether anybody still listens to the answers.
    pub(super) heard: bool,
    epochs: [Option<u32>; 4],
    pub(super) requests: VecDeque<Request>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Fenced,
    Delivered(u64),
    Committed,
    Quiet,
    /// An old epoch, or no transaction: fatal to its producer.
    Refused,
}

#[derive(Debug)]
pub(super) struct Kafka {
    epochs: [u32; 4],
    open: [Option<usize>; 4],
    transactions: Vec<Transaction>,
    /// Transactions in the order of their progress records.
    progress: Vec<usize>,
    pub(super) channels: Vec<Channel>,
    offset: u64,
    committed_offset: u64,
    /// The next row that readers must see.
    next: Row,
    pub(super) timeout: u64,
    /// Planted bugs must show in what readers see, not in a broken intermediate rule.
    pub(super) effects_only: bool,
    pub(super) commits: u64,
    pub(super) splits: u64,
    pub(super) zombies_fenced: u64,
}

impl Kafka {
    pub(super) fn new(first: Progress, timeout: u64) -> Self {
        let founding = Transaction {
            fate: Fate::Committed,
            since: 0,
            rows: Vec::new(),
            first_offset: 0,
            progress: Some(first),
        };
        Self {
            epochs: [0; 4],
            open: [None; 4],
            transactions: vec![founding],
            progress: vec![0],
            channels: Vec::new(),
            offset: 0,
            committed_offset: 0,
            next: (0, 0),
            timeout,
            effects_only: false,
            commits: 0,
            splits: 0,
            zombies_fenced: 0,
        }
    }

    pub(super) fn channel(&mut self, node: usize, attempt: u64) -> usize {
        let (epochs, requests) = ([None; 4], VecDeque::new());
        self.channels.push(Channel { node, attempt, heard: true, epochs, requests });
        self.channels.len() - 1
    }

    /// Where the readers are: every transaction before it is complete.
    pub(super) fn reached(&self, log: &[Committed]) -> Row {
        skip_ended(self.next, log)
    }

    /// The last record that a reader sees without waiting.
    pub(super) fn read(&self) -> Progress {
        let open = |at: &&usize| self.transactions[**at].fate != Fate::Open;
        let stable = self.progress.iter().take_while(open);
        self.last_committed(stable)
    }

    pub(super) fn high_watermark(&self) -> usize {
        self.progress.len()
    }

    /// The same up to `high`, once nothing below it is open.
    pub(super) fn reread(&self, high: usize) -> Option<Progress> {
        let below = &self.progress[..high];
        let open = below.iter().any(|at| self.transactions[*at].fate == Fate::Open);
        (!open).then(|| self.last_committed(below.iter()))
    }

    fn last_committed<'a>(&self, records: impl Iterator<Item = &'a usize>) -> Progress {
        let committed = records.filter(|at| self.transactions[**at].fate == Fate::Committed);
        let last = committed.last().expect("the founding record is committed");
        self.transactions[*last].progress.clone().expect("it is listed for its record")
    }

    /// A broker aborts what is open for too long, and its producer is fenced.
    pub(super) fn expire(&mut self, now: u64) {
        for id in 0..4 {
            if let Some(at) = self.open[id]
                && now > self.transactions[at].since + self.timeout
            {
                self.abort(id);
                self.epochs[id] += 1;
            }
        }
    }

    fn abort(&mut self, id: usize) {
        if let Some(at) = self.open[id].take() {
            self.transactions[at].fate = Fate::Aborted;
        }
    }

    /// Carries out a request of a channel.
    pub(super) fn execute(
        &mut self,
        channel: usize,
        request: Request,
        log: &[Committed],
        now: u64,
    ) -> Result<Outcome, String> {
        match request {
            Request::Fence(ids) => {
                for id in ids.map(usize::from) {
                    self.abort(id);
                    self.epochs[id] += 1;
                    self.channels[channel].epochs[id] = Some(self.epochs[id]);
                }
                Ok(Outcome::Fenced)
            }
            Request::With(id, ask) => {
                let id = usize::from(id);
                if self.channels[channel].epochs[id] != Some(self.epochs[id]) {
                    self.zombies_fenced += 1;
                    return Ok(Outcome::Refused);
                }
                self.ask(id, ask, log, now)
            }
        }
    }

    fn ask(&mut self, id: usize, ask: Ask, log: &[Committed], now: u64) -> Result<Outcome, String> {
        match ask {
            Ask::Rows(rows) => {
                let bytes = 10 * u64::try_from(rows.len()).unwrap();
                let at = self.opened(id, now);
                self.transactions[at].rows.extend(rows);
                self.offset += 1;
                Ok(Outcome::Delivered(bytes))
            }
            Ask::Progress(progress) => {
                let at = self.opened(id, now);
                self.transactions[at].progress = Some(*progress);
                self.progress.push(at);
                Ok(Outcome::Quiet)
            }
            Ask::Commit => match self.open[id].take() {
                Some(at) => {
                    self.transactions[at].fate = Fate::Committed;
                    self.commits += 1;
                    self.judge(at, log)?;
                    Ok(Outcome::Committed)
                }
                None => Ok(Outcome::Refused),
            },
            Ask::Abort => {
                self.abort(id);
                Ok(Outcome::Quiet)
            }
        }
    }

    fn opened(&mut self, id: usize, now: u64) -> usize {
        *self.open[id].get_or_insert_with(|| {
            self.transactions.push(Transaction {
                fate: Fate::Open,
                since: now,
                rows: Vec::new(),
                first_offset: self.offset,
                progress: None,
            });
            self.transactions.len() - 1
        })
    }

    /// A transaction becomes visible to readers: its rows must be the next ones, all of them.
    fn judge(&mut self, at: usize, log: &[Committed]) -> Result<(), String> {
        let transaction = &self.transactions[at];
        if !transaction.rows.is_empty() {
            if transaction.first_offset < self.committed_offset {
                return Err("out of order: committed before rows that follow it".to_owned());
            }
            self.committed_offset = self.offset;
        }
        for row in &transaction.rows {
            self.next = skip_ended(self.next, log);
            if *row < self.next {
                return Err(format!("twice: {row:?}, readers are at {:?}", self.next));
            }
            if *row > self.next {
                return Err(format!("lost: {:?}, {row:?} came instead", self.next));
            }
            self.next.1 += 1;
        }
        self.next = skip_ended(self.next, log);
        if self.effects_only {
            return Ok(());
        }
        let Some(progress) = &transaction.progress else {
            return Err("a transaction without progress".to_owned());
        };
        let split = progress.index > 0;
        self.splits += u64::from(split);
        if !split && self.next.1 > 0 {
            return Err(format!("torn: readers see a part of {:?}", self.next));
        }
        let claimed = rows_before(progress.position(), log);
        if claimed != self.next {
            return Err(format!("progress claims {claimed:?}, readers are at {:?}", self.next));
        }
        Ok(())
    }
}

/// Past transactions that are complete, or empty.
fn skip_ended((mut at, mut row): Row, log: &[Committed]) -> Row {
    while log.get(at).is_some_and(|one| row >= one.rows) {
        (at, row) = (at + 1, 0);
    }
    (at, row)
}

/// The first row that a position does not cover.
pub(super) fn rows_before(position: Position, log: &[Committed]) -> Row {
    let at = log.partition_point(|one| one.commit_lsn < position.lsn.0);
    skip_ended((at, position.index), log)
}
