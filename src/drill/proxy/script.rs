//! What the proxy has been told, what it has seen, and the decisions between the two.
//!
//! All of it is behind one lock, and a byte is forwarded while the lock is held: so a command that
//! has returned holds for every byte from then on, and an event in the log has happened. No I/O
//! that can wait happens here.
//!
//! Guarantee: each trap catches one request, the first of its kind.
//! Bounded by: [`EVENTS_MAX`], [`TRAPS_MAX`].
//! Tested by: the tests of the proxy.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::frames::Head;
use super::{Cut, Direction, Event, Target};

/// Events kept for [`wait_for`](super::Proxy::wait_for); the oldest goes first.
const EVENTS_MAX: usize = 10_000;
/// Traps that wait for their request, or hold one.
pub(super) const TRAPS_MAX: usize = 64;

/// What shall happen to a caught request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Keep it, and everything behind it, until told otherwise.
    Hold,
    Deliver,
    /// Cut the connection in its place: it never happened.
    Discard,
    /// Deliver it, and cut when its response arrives: it happened, and nobody was told.
    WithholdResponse,
}

#[derive(Debug)]
struct Trap {
    id: u64,
    api_key: i16,
    fate: Fate,
    caught: Option<(u64, i32)>,
}

/// A connection that is open.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) cut: Option<Cut>,
    /// Requests whose responses must not arrive.
    withhold: Vec<i32>,
}

/// Numbers that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub opened: u64,
    /// Connections cut by the proxy, for whatever reason.
    pub cut: u64,
    /// Requests held.
    pub held: u64,
    /// Bytes forwarded to the target.
    pub bytes_to_target: u64,
    /// Bytes forwarded to the client.
    pub bytes_to_client: u64,
    /// Bytes that were forwarded after a delay.
    pub bytes_delayed: u64,
}

#[derive(Debug)]
pub(super) struct Script {
    pub(super) target: Option<Target>,
    pub(super) refusing: bool,
    /// Set by the listener's task, which is the one to know.
    pub(super) listening: bool,
    pub(super) frozen: PerDirection<bool>,
    pub(super) delay: PerDirection<Duration>,
    pub(super) fuse: PerDirection<Option<u64>>,
    pub(super) links: HashMap<u64, Link>,
    pub(super) counts: Counts,
    pub(super) events: VecDeque<Event>,
    /// Counts up, also when an old event goes.
    pub(super) events_noted: u64,
    traps: Vec<Trap>,
    next_id: u64,
}

/// One value for each direction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PerDirection<T> {
    to_target: T,
    to_client: T,
}

impl<T> PerDirection<T> {
    pub(super) fn get(&self, direction: Direction) -> &T {
        match direction {
            Direction::ToTarget => &self.to_target,
            Direction::ToClient => &self.to_client,
        }
    }

    pub(super) fn get_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::ToTarget => &mut self.to_target,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

impl Script {
    pub(super) fn new() -> Self {
        Self {
            target: None,
            refusing: false,
            listening: true,
            frozen: PerDirection::default(),
            delay: PerDirection::default(),
            fuse: PerDirection::default(),
            links: HashMap::new(),
            counts: Counts::default(),
            events: VecDeque::new(),
            events_noted: 0,
            traps: Vec::new(),
            next_id: 0,
        }
    }

    pub(super) fn note(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.events_noted += 1;
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn open(&mut self) -> u64 {
        let connection = self.next_id();
        self.links.insert(connection, Link::default());
        self.counts.opened += 1;
        self.note(Event::Opened { connection });
        connection
    }

    /// Cuts a connection that is open and not yet cut.
    pub(super) fn cut(&mut self, connection: u64, how: Cut) -> bool {
        match self.links.get_mut(&connection) {
            Some(link) if link.cut.is_none() => link.cut = Some(how),
            Some(_) | None => return false,
        }
        self.counts.cut += 1;
        self.note(Event::Cut { connection });
        true
    }

    pub(super) fn is_cut(&self, connection: u64) -> bool {
        self.links.get(&connection).is_none_or(|link| link.cut.is_some())
    }

    /// How a connection was cut, if it was.
    pub(super) fn how_cut(&self, connection: u64) -> Option<Cut> {
        self.links.get(&connection).and_then(|link| link.cut)
    }

    /// Forgets a connection and whatever was held on it.
    pub(super) fn close(&mut self, connection: u64) {
        self.links.remove(&connection);
        self.traps.retain(|trap| trap.caught.is_none_or(|(at, _)| at != connection));
        self.note(Event::Closed { connection });
    }

    /// Sets a trap; `None` when there are too many.
    pub(super) fn trap(&mut self, api_key: i16, fate: Fate) -> Option<u64> {
        if self.traps.len() == TRAPS_MAX {
            return None;
        }
        let id = self.next_id();
        self.traps.push(Trap { id, api_key, fate, caught: None });
        Some(id)
    }

    /// Decides what a trap does with its request, whether or not it has caught it yet.
    pub(super) fn decide(&mut self, id: u64, fate: Fate) {
        if let Some(trap) = self.traps.iter_mut().find(|trap| trap.id == id) {
            trap.fate = fate;
        }
    }

    /// Takes a trap away that has caught nothing, or holds what it caught: that is delivered. A
    /// request whose fate is decided meets it.
    pub(super) fn disarm(&mut self, id: u64) {
        let decided = |trap: &Trap| trap.caught.is_some() && trap.fate != Fate::Hold;
        self.traps.retain(|trap| trap.id != id || decided(trap));
    }

    /// Whether the message may be forwarded now. May cut its connection.
    pub(super) fn may_pass(&mut self, connection: u64, head: Head) -> bool {
        match head.api_key {
            Some(api_key) => self.request_may_pass(connection, api_key, head.correlation_id),
            None => self.response_may_pass(connection, head.correlation_id),
        }
    }

    fn request_may_pass(&mut self, connection: u64, api_key: i16, correlation_id: i32) -> bool {
        let this = Some((connection, correlation_id));
        let found = self.traps.iter().position(|trap| trap.caught == this).or_else(|| {
            self.traps.iter().position(|trap| trap.caught.is_none() && trap.api_key == api_key)
        });
        let Some(at) = found else { return true };
        let (trap, fate) = (self.traps[at].id, self.traps[at].fate);
        if self.traps[at].caught.is_none() {
            self.traps[at].caught = this;
            self.note(Event::Caught { connection, trap, api_key, correlation_id });
            self.counts.held += u64::from(fate == Fate::Hold);
        }
        if fate == Fate::Hold {
            return false;
        }
        self.traps.remove(at);
        match fate {
            Fate::Hold | Fate::Deliver => self.note(Event::Delivered { connection, trap }),
            Fate::Discard => {
                self.note(Event::Discarded { connection, trap });
                self.cut(connection, Cut::Reset);
            }
            Fate::WithholdResponse => {
                self.note(Event::Delivered { connection, trap });
                if let Some(link) = self.links.get_mut(&connection) {
                    link.withhold.push(correlation_id);
                }
            }
        }
        fate != Fate::Discard
    }

    fn response_may_pass(&mut self, connection: u64, correlation_id: i32) -> bool {
        let link = self.links.get(&connection);
        if link.is_none_or(|link| !link.withhold.contains(&correlation_id)) {
            return true;
        }
        self.note(Event::Withheld { connection, correlation_id });
        self.cut(connection, Cut::Reset);
        false
    }

    /// How many of `wanted` bytes may go; none when the direction is frozen.
    pub(super) fn allowance(&self, direction: Direction, wanted: usize) -> usize {
        if *self.frozen.get(direction) {
            return 0;
        }
        match self.fuse.get(direction) {
            Some(left) => wanted.min(usize::try_from(*left).unwrap_or(usize::MAX)),
            None => wanted,
        }
    }

    /// Counts bytes that have gone, and cuts when they were the last that might.
    pub(super) fn forwarded(&mut self, connection: u64, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        match direction {
            Direction::ToTarget => self.counts.bytes_to_target += bytes,
            Direction::ToClient => self.counts.bytes_to_client += bytes,
        }
        let fuse = self.fuse.get_mut(direction);
        *fuse = fuse.map(|left| left.saturating_sub(bytes));
        if *fuse == Some(0) {
            *fuse = None;
            self.note(Event::FuseBlown { connection, direction });
            // Not a reset: that could overtake the bytes that were still to arrive.
            self.cut(connection, Cut::Finish);
        }
    }
}
