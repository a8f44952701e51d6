//! A TCP proxy that does to a connection what networks do, on command.
//!
//! It listens on 127.0.0.1, forwards to one target, and is told live: [`cut`](Proxy::cut),
//! [`refuse`](Proxy::refuse), [`freeze`](Proxy::freeze), [`delay`](Proxy::delay),
//! [`drop_after`](Proxy::drop_after), and, in Kafka's protocol, [`hold`](Proxy::hold) one request
//! by its kind. A command that has returned holds for every byte from then on. Everything it did
//! is in its event log, so that a test can assert that the fault happened.
//!
//! A Kafka client goes to the addresses its broker advertises, and nothing is rewritten on the way:
//! either start the broker with `advertised.listeners` set to [`address`](Proxy::address), or
//! [`bind_on`](Proxy::bind_on) the port it advertises; then [`forward_to`](Proxy::forward_to) the
//! port it listens on.
//!
//! ```text
//!  client ─▶ [ socket ] ─▶ frames ─▶ queue ─▶ may it pass? ─▶ [ socket ] ─▶ target
//!                                                  │
//!                                        script (one lock): rules, traps, counts, events
//! ```
//!
//! Guarantee: no byte is lost, changed or reordered on a connection that is not cut.
//! Bounded by: [`CONNECTIONS_MAX`] connections, 1 MiB a direction each; dropping the proxy ends all.
//! Tested by: `proxy/tests.rs`.

mod fault;
mod frames;
mod link;
mod listener;
mod script;
mod socket;
mod stage;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use fault::{RequestFault, RequestKind};
pub use script::Counts;
use script::{Fate, Script};
pub use stage::NotSeen;
use stage::Stage;

/// Connections at a time; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 1_000;
/// The listener's task answers in microseconds, unless the runtime is stuck.
const LISTENER_LIMIT: Duration = Duration::from_secs(10);

/// Where the proxy forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket, such as Postgres' `.s.PGSQL.5432`.
    Unix(PathBuf),
}

/// What the proxy understands of what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes.
    Opaque,
    /// Kafka's requests and responses, without TLS.
    Kafka,
}

/// One way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target: requests.
    ToTarget,
    /// From the target to the client: responses.
    ToClient,
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST: both sides get "connection reset", and bytes on their way may be lost.
    Reset,
    /// FIN: both sides read to the end of what was sent.
    Finish,
}

/// What happened. Connections and traps are numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields repeat: connection, trap, direction")]
pub enum Event {
    /// A client was accepted.
    Opened { connection: u64 },
    /// The target was reached, too: from here on a cut concerns both sides.
    Reached { connection: u64 },
    /// The target could not be reached; the client was reset.
    Unreachable { connection: u64, reason: String },
    /// The proxy decided to end the connection.
    Cut { connection: u64 },
    /// The connection is over, however it ended.
    Closed { connection: u64 },
    /// Bytes, or the end of them, wait at a frozen direction.
    Stalled { connection: u64, direction: Direction },
    /// The last byte that [`Proxy::drop_after`] let pass has gone.
    FuseBlown { connection: u64, direction: Direction },
    /// A trap has its request.
    Caught { connection: u64, trap: u64, api_key: i16, correlation_id: i32 },
    /// A caught request was let go.
    Delivered { connection: u64, trap: u64 },
    /// A caught request was thrown away, and its connection cut.
    Discarded { connection: u64, trap: u64 },
    /// The response to a delivered request came, and the connection was cut instead.
    Withheld { connection: u64, correlation_id: i32 },
    /// What passes is not Kafka's protocol: no trap can catch anything on this connection.
    NotKafka { connection: u64, direction: Direction },
    /// The listener could not be opened again.
    ListenFailed { reason: String },
}

/// A running proxy. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    stage: Arc<Stage>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Takes a free port of 127.0.0.1. Until [`forward_to`](Self::forward_to), clients are reset.
    ///
    /// Must be called in a tokio runtime; not async, so that a port is known before anything else.
    pub fn bind(protocol: Protocol) -> io::Result<Self> {
        Self::bind_on(0, protocol)
    }

    /// Like [`bind`](Self::bind), on a port that something already tells its clients to come to.
    pub fn bind_on(port: u16, protocol: Protocol) -> io::Result<Self> {
        // A socket that is bound but does not listen keeps the port ours while connections are
        // refused: with SO_REUSEADDR on both, Linux lets the listener share it, and nobody else
        // is given it.
        let reserved = TcpSocket::new_v4()?;
        reserved.set_reuseaddr(true)?;
        reserved.bind((Ipv4Addr::LOCALHOST, port).into())?;
        let address = reserved.local_addr()?;
        let listener = listener::open(address)?;
        let (changed, _) = watch::channel(());
        let stage = Arc::new(Stage { protocol, script: Mutex::new(Script::new()), changed });
        let mut tasks = JoinSet::new();
        tasks.spawn(listener::listen(stage.clone(), reserved, address, listener));
        Ok(Self { address, stage, _tasks: tasks })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the target of connections that come from now on.
    pub fn forward_to(&self, target: Target) {
        self.stage.change(|script| script.target = Some(target));
    }

    /// Cuts all connections there are; returns how many. New ones are accepted.
    pub fn cut(&self, how: Cut) -> usize {
        self.stage.change(|script| {
            let open: Vec<u64> = script.links.keys().copied().collect();
            open.into_iter().filter(|connection| script.cut(*connection, how)).count()
        })
    }

    /// Closes the port: clients get "connection refused". Connections there are go on.
    pub async fn refuse(&self) -> Result<(), NotSeen> {
        self.set_refusing(true).await
    }

    /// Opens the port again.
    pub async fn accept(&self) -> Result<(), NotSeen> {
        self.set_refusing(false).await
    }

    async fn set_refusing(&self, refusing: bool) -> Result<(), NotSeen> {
        self.stage.change(|script| script.refusing = refusing);
        let done = |script: &Script| (script.listening != refusing).then_some(());
        let what = if refusing { "its port closed" } else { "its port open" };
        self.stage.wait(LISTENER_LIMIT, done).await.ok_or_else(|| NotSeen {
            what: what.to_owned(),
            limit: LISTENER_LIMIT,
            last: self.stage.look(|script| format!("{:?}", script.events.back())),
        })
    }

    /// Stops reading in both directions: nothing arrives, nothing is closed, and TCP holds the
    /// senders back once its buffers are full.
    pub fn freeze(&self) {
        self.stage.change(|script| {
            *script.frozen.get_mut(Direction::ToTarget) = true;
            *script.frozen.get_mut(Direction::ToClient) = true;
        });
    }

    /// Like [`freeze`](Self::freeze), in one direction.
    pub fn freeze_one(&self, direction: Direction) {
        self.stage.change(|script| *script.frozen.get_mut(direction) = true);
    }

    /// Ends every freeze; what has waited goes through.
    pub fn thaw(&self) {
        self.stage.change(|script| {
            *script.frozen.get_mut(Direction::ToTarget) = false;
            *script.frozen.get_mut(Direction::ToClient) = false;
        });
    }

    /// Makes what is read from now on arrive this much later, in order; zero ends it.
    pub fn delay(&self, direction: Direction, by: Duration) {
        self.stage.change(|script| *script.delay.get_mut(direction) = by);
    }

    /// Cuts the connection that carries the last of exactly this many more bytes, all connections
    /// counted together.
    pub fn drop_after(&self, direction: Direction, bytes: u64) {
        if bytes == 0 {
            self.cut(Cut::Finish);
        } else {
            self.stage.change(|script| *script.fuse.get_mut(direction) = Some(bytes));
        }
    }

    /// Holds the next request of this kind, and what follows it on its connection.
    pub fn hold(&self, kind: RequestKind) -> RequestFault {
        self.trap(kind, Fate::Hold)
    }

    /// Cuts the connection instead of delivering the next request of this kind.
    pub fn discard(&self, kind: RequestKind) -> RequestFault {
        self.trap(kind, Fate::Discard)
    }

    /// Delivers the next request of this kind, and cuts the connection when its response arrives:
    /// it worked, and its sender is not told.
    pub fn deliver_and_cut(&self, kind: RequestKind) -> RequestFault {
        self.trap(kind, Fate::WithholdResponse)
    }

    fn trap(&self, kind: RequestKind, fate: Fate) -> RequestFault {
        assert!(
            self.stage.protocol == Protocol::Kafka,
            "requests have kinds in Kafka's protocol only; bind the proxy with Protocol::Kafka"
        );
        let trap = self.stage.change(|script| script.trap(kind.0, fate));
        let trap = trap.expect("nobody needs more traps at a time than TRAPS_MAX");
        RequestFault { stage: self.stage.clone(), trap, kind }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.stage.look(|script| script.counts)
    }

    /// The events so far, the oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.stage.look(|script| script.events.iter().cloned().collect())
    }

    /// Waits for an event; one that has happened already counts.
    pub async fn wait_for(
        &self,
        limit: Duration,
        what: impl fmt::Display,
        is_it: impl FnMut(&Event) -> bool,
    ) -> Result<Event, NotSeen> {
        self.stage.wait_for(limit, what, is_it).await
    }
}
