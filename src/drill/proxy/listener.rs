//! The proxy's port, and the connections that come in by it.
//!
//! Guarantee: all connections end with the task that listens.
//! Bounded by: [`CONNECTIONS_MAX`].
//! Tested by: the tests of the proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::script::Script;
use super::socket::Socket;
use super::stage::Stage;
use super::{CONNECTIONS_MAX, Event, link};

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 1024;
/// When the process has no file descriptor left, a connection ends before long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Owns the port and the connections. Ends with the proxy, which aborts it.
pub(super) async fn listen(
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
