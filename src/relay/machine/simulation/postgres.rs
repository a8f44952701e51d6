//! A model of the server: a log of commits, one slot, walsenders, and what goes wrong with them.

use std::collections::VecDeque;

use crate::lsn::Lsn;
use crate::relay::machine::{Identity, Message, SlotReport};

/// A row: its transaction's place in the log, and its number in it.
pub(super) type Row = (usize, u64);

#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    pub(super) commit_lsn: u64,
    pub(super) end_lsn: u64,
    pub(super) rows: u64,
}

/// A message on its way to the relay, with the rows that it stands for.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) message: Message,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
enum Stage {
    Between,
    Inside { row: u64 },
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) node: usize,
    /// As the relay will find out once it has read what is in transit.
    pub(super) alive: bool,
    pub(super) granted: bool,
    next: usize,
    stage: Stage,
    sent: u64,
    pub(super) transit: VecDeque<Sent>,
    pub(super) statuses: VecDeque<Lsn>,
}

#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) log: Vec<Committed>,
    pub(super) end: u64,
    pub(super) confirmed: u64,
    /// What of `confirmed` survives a restart.
    persisted: u64,
    pub(super) active: Option<usize>,
    pub(super) connections: Vec<Connection>,
    timeline: u32,
    pub(super) ended: Vec<(u32, Lsn)>,
}

impl Postgres {
    pub(super) fn new(start: u64) -> Self {
        Self {
            log: Vec::new(),
            end: start,
            confirmed: start,
            persisted: start,
            active: None,
            connections: Vec::new(),
            timeline: 1,
            ended: Vec::new(),
        }
    }

    /// A transaction commits. Often its commit record starts where the last one ended.
    pub(super) fn write(&mut self, random: &mut fastrand::Rng) {
        let commit_lsn = self.end + if random.bool() { 0 } else { random.u64(1..20) };
        let end_lsn = commit_lsn + random.u64(1..10);
        let rows = match random.u8(0..20) {
            0 => 0,
            1 => random.u64(20..60),
            _ => random.u64(1..4),
        };
        self.log.push(Committed { commit_lsn, end_lsn, rows });
        self.end = end_lsn;
    }

    /// Something that is not for us: rolled back, another table, another database.
    pub(super) fn write_other(&mut self, random: &mut fastrand::Rng) {
        self.end += random.u64(1..30);
    }

    pub(super) fn identity(&self) -> Identity {
        Identity { system_id: "7".to_owned(), timeline: self.timeline, xlogpos: Lsn(self.end) }
    }

    pub(super) fn report(&self, asking: Option<usize>) -> SlotReport {
        SlotReport {
            ours: self.active.is_some() && self.active == asking,
            confirmed_flush: Lsn(self.confirmed),
            xlogpos: Lsn(self.end),
        }
    }

    pub(super) fn connect(&mut self, node: usize) -> usize {
        self.connections.push(Connection {
            node,
            alive: true,
            granted: false,
            next: 0,
            stage: Stage::Between,
            sent: 0,
            transit: VecDeque::new(),
            statuses: VecDeque::new(),
        });
        self.connections.len() - 1
    }

    /// START_REPLICATION: whether the slot was free.
    pub(super) fn start(&mut self, id: usize, at: Lsn, random: &mut fastrand::Rng) -> bool {
        if self.active.is_some() {
            return false;
        }
        self.active = Some(id);
        let from = at.0.max(self.confirmed);
        let connection = &mut self.connections[id];
        connection.granted = true;
        connection.next = self.log.partition_point(|one| one.commit_lsn < from);
        // Decoding starts below, so that the first keepalives do too.
        connection.sent = random.u64(from.saturating_sub(50)..=from);
        true
    }

    /// The walsender sends one message, if it has one.
    pub(super) fn send(&mut self, id: usize, random: &mut fastrand::Rng) {
        let connection = &mut self.connections[id];
        if !connection.alive || !connection.granted {
            return;
        }
        let next = self.log.get(connection.next).copied();
        let limit = next.map_or(self.end, |one| one.commit_lsn);
        if next.is_none() || random.u8(0..8) == 0 {
            connection.sent = connection.sent.max(random.u64(connection.sent.min(limit)..=limit));
            if next.is_none() && random.bool() {
                connection.sent = limit;
            }
            let wal_end = Lsn(connection.sent);
            let message = Message::Keepalive { wal_end, reply_requested: random.bool() };
            connection.transit.push_back(Sent { message, rows: Vec::new() });
            return;
        }
        let Some(one) = next else { return };
        let (commit_lsn, end_lsn) = (Lsn(one.commit_lsn), Lsn(one.end_lsn));
        let mut rows = Vec::new();
        let message = match connection.stage {
            Stage::Between => {
                connection.stage = Stage::Inside { row: 0 };
                let xid = u32::try_from(connection.next).unwrap();
                Message::Begin { xid, commit_lsn }
            }
            Stage::Inside { row } if row < one.rows => {
                let count = random.u64(1..=(one.rows - row).min(5));
                rows.extend((row..row + count).map(|row| (connection.next, row)));
                connection.stage = Stage::Inside { row: row + count };
                Message::Rows { count, bytes: count * 10 }
            }
            Stage::Inside { .. } => {
                connection.stage = Stage::Between;
                connection.next += 1;
                connection.sent = connection.sent.max(one.end_lsn);
                Message::Commit { commit_lsn, end_lsn }
            }
        };
        connection.transit.push_back(Sent { message, rows });
    }

    /// A status update arrives.
    pub(super) fn confirm(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        if let Some(flush) = connection.statuses.pop_front()
            && connection.alive
            && self.active == Some(id)
        {
            self.confirmed = self.confirmed.max(flush.0);
        }
    }

    pub(super) fn checkpoint(&mut self) {
        self.persisted = self.confirmed;
    }

    /// The connection is gone. The walsender may not have noticed: then it still has the slot.
    pub(super) fn cut(&mut self, id: usize, noticed: bool, random: &mut fastrand::Rng) {
        let connection = &mut self.connections[id];
        connection.alive = false;
        // What was in transit may arrive yet, or not.
        let arrives = random.usize(0..=connection.transit.len());
        connection.transit.truncate(arrives);
        let arrives = random.usize(0..=connection.statuses.len());
        connection.statuses.truncate(arrives);
        if noticed {
            self.notice(id);
        }
    }

    pub(super) fn notice(&mut self, id: usize) {
        if self.active == Some(id) && !self.connections[id].alive {
            self.active = None;
        }
    }

    /// Restarted: every connection is gone, and `confirmed_flush` may have gone back. Sometimes it is
    /// a standby that was promoted.
    pub(super) fn restart(&mut self, random: &mut fastrand::Rng) {
        for id in 0..self.connections.len() {
            if self.connections[id].alive {
                self.cut(id, true, random);
            }
        }
        self.active = None;
        self.confirmed = random.u64(self.persisted..=self.confirmed);
        self.persisted = self.confirmed;
        if random.u8(0..3) == 0 {
            self.ended.push((self.timeline, Lsn(self.end)));
            self.timeline += 1;
        }
    }
}
