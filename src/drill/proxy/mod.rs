//! A TCP proxy that does to a connection what networks do, on command.
//!
//! It listens on 127.0.0.1, forwards to one target, and is told live: [`cut`](Proxy::cut),
//! [`refuse`](Proxy::refuse), [`freeze`](Proxy::freeze), [`delay`](Proxy::delay),
//! [`drop_after`](Proxy::drop_after), and, in Kafka's protocol, [`hold`](Proxy::hold) one request
//! by its kind. A command that has returned holds for every byte from then on. Everything it did
//! is in its event log, so that a test can assert that the fault happened.
//!
//! A Kafka client goes to the addresses its broker advertises: bind the proxy first, start the
//! broker with `advertised.listeners` set to [`address`](Proxy::address), then call
//! [`forward_to`](Proxy::forward_to). Nothing is rewritten on the way.
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

mod frames;
mod link;
mod script;
mod socket;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use script::Counts;
use script::{Fate, Script};
use socket::Socket;

/// Connections at a time; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 1_000;
/// When the process has no file descriptor left, a connection ends before long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// The listener's task answers in microseconds, unless the runtime is stuck.
const LISTENER_LIMIT: Duration = Duration::from_secs(10);
/// The events a failed wait shows.
const EVENTS_SHOWN: usize = 12;

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

/// A fact that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("the proxy did not see {what} within {limit:?}; its last events: {last}")]
pub struct NotSeen {
    what: String,
    limit: Duration,
    last: String,
}

/// What the tasks of a proxy have in common.
#[derive(Debug)]
struct Stage {
    protocol: Protocol,
    script: Mutex<Script>,
    changed: watch::Sender<()>,
}

impl Stage {
    fn locked<T>(&self, use_it: impl FnOnce(&mut Script) -> T) -> T {
        // Nothing under the lock panics halfway through a change, so a poisoned one is whole.
        use_it(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the script and wakes everybody.
    fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let answer = self.locked(change);
        self.changed.send_replace(());
        answer
    }

    /// Asks the script and moves bytes; wakes everybody only if that was an event.
    fn decide<T>(&self, decide: impl FnOnce(&mut Script) -> T) -> T {
        let (answer, news) = self.locked(|script| {
            let before = script.events_noted;
            (decide(script), script.events_noted != before)
        });
        if news {
            self.changed.send_replace(());
        }
        answer
    }

    fn look<T>(&self, look: impl FnOnce(&Script) -> T) -> T {
        self.locked(|script| look(script))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits for a fact; `None` when it does not come true in time.
    async fn wait<T>(
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

    async fn wait_for(
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
        // A socket that is bound but does not listen keeps the port ours while connections are
        // refused: with SO_REUSEADDR on both, Linux lets the listener share it, and nobody else
        // is given it.
        let reserved = TcpSocket::new_v4()?;
        reserved.set_reuseaddr(true)?;
        reserved.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reserved.local_addr()?;
        let listener = open(address)?;
        let (changed, _) = watch::channel(());
        let stage = Arc::new(Stage { protocol, script: Mutex::new(Script::new()), changed });
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(stage.clone(), reserved, address, listener));
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

/// A fault that waits for one Kafka request, or has it. Dropping it releases a held request.
#[derive(Debug)]
#[must_use = "dropping it lets the request pass"]
pub struct RequestFault {
    stage: Arc<Stage>,
    trap: u64,
    kind: RequestKind,
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

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Owns the port and the connections. Ends with the proxy, which aborts it.
async fn listen(
    stage: Arc<Stage>,
    _reserved: TcpSocket,
    address: SocketAddr,
    listener: TcpListener,
) {
    let mut listener = Some(listener);
    let mut changes = stage.changes();
    let mut links = JoinSet::new();
    loop {
        changes.borrow_and_update();
        let refusing = stage.look(|script| script.refusing);
        if refusing && listener.take().is_some() {
            stage.change(|script| script.listening = false);
        } else if !refusing && listener.is_none() {
            match open(address) {
                Ok(opened) => listener = Some(opened),
                Err(error) => {
                    let reason = error.to_string();
                    stage.change(|script| script.note(Event::ListenFailed { reason }));
                }
            }
            stage.change(|script| script.listening = listener.is_some());
        }
        let room = links.len() < CONNECTIONS_MAX;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            accepted = next_client(listener.as_ref()), if room => match accepted {
                Ok(client) => {
                    let connection = stage.change(Script::open);
                    links.spawn(serve(stage.clone(), connection, client));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = links.join_next(), if !links.is_empty() => {}
        }
    }
}

async fn next_client(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

async fn serve(stage: Arc<Stage>, connection: u64, client: TcpStream) {
    let client = Socket::tcp(client);
    let reached = match stage.look(|script| script.target.clone()) {
        Some(target) => tokio::select! {
            reached = Socket::connect(&target) => reached.map_err(|error| error.to_string()),
            () = until_cut(&stage, connection) => Err("cut while connecting".to_owned()),
        },
        None => Err("it has no target yet".to_owned()),
    };
    match reached {
        Ok(target) => {
            stage.change(|script| script.note(Event::Reached { connection }));
            link::carry(&stage, connection, client, target).await;
        }
        Err(reason) => {
            client.reset_on_close();
            drop(client);
            stage.change(|script| {
                script.note(Event::Unreachable { connection, reason });
                script.close(connection);
            });
        }
    }
}

async fn until_cut(stage: &Stage, connection: u64) {
    let mut changes = stage.changes();
    loop {
        changes.borrow_and_update();
        if stage.look(|script| script.is_cut(connection)) || changes.changed().await.is_err() {
            return;
        }
    }
}
