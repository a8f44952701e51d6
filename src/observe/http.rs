//! A small HTTP/1.1 server with a bound on everything: connections, header bytes, time.
//!
//! One request a connection: whoever holds a connection open without asking anything would
//! otherwise hold one of the few places. All connections are polled by the one future that
//! [`serve`] is, so none can outlive it and a panic in a handler is a panic of its task.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Open connections; further ones wait in the kernel's backlog. Two scrapers, an orchestrator's
/// probes and a person need a handful.
pub const CONNECTIONS_MAX: usize = 16;

/// Bytes of request line and headers: a browser with many cookies sends about this much.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// From the accepted connection to its complete header.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// From the accepted connection to the last byte of the answer: Prometheus gives up after 10 s too.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// After an accept that failed, usually for want of file descriptors: they do not come back by
/// asking again at once, and the work that holds them must not starve.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "{key}: cannot listen on {address}: {cause}; the address must be this machine's and the port \
     free: stop whoever has it (`ss -ltnp`), or set {key} to another one"
)]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    cause: io::Error,
}

/// Listens on `address`, which the configuration gave under `key`.
pub async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|cause| BindError { key, address, cause })
}

/// Answers requests until `stop`, then finishes those that have begun.
///
/// What has begun takes at most `CONNECTION_TIME` to end; dropping the future ends it at once.
/// A failed accept is logged and tried again: a process that has run out of descriptors has worse
/// troubles than its metrics.
pub async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let mut open = FuturesUnordered::new();
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = open.next(), if !open.is_empty() => {}
            accepted = accept(&listener, not_before), if open.len() < CONNECTIONS_MAX => {
                match accepted {
                    Ok(socket) => open.push(connection(socket, routes.clone(), stop.clone())),
                    Err(error) => {
                        tracing::warn!("cannot accept a connection, trying again soon: {error}");
                        not_before = Instant::now() + ACCEPT_PAUSE;
                    }
                }
            }
        }
    }
    // Whoever comes now is refused at once instead of waiting for nobody.
    drop(listener);
    while open.next().await.is_some() {}
}

/// Cancel safety: both waits are, so a connection is either returned or still in the backlog.
async fn accept(listener: &TcpListener, not_before: Instant) -> io::Result<TcpStream> {
    sleep_until(not_before).await;
    Ok(listener.accept().await?.0)
}

async fn connection(socket: TcpStream, routes: Router, stop: CancellationToken) {
    let served = async {
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(HEADER_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(socket), TowerToHyperService::new(routes))
        );
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    match timeout(CONNECTION_TIME, served).await {
        Ok(Ok(())) => {}
        // The peer's doing, and the peer is the one who sees it.
        Ok(Err(error)) => tracing::debug!("an http connection ended early: {error}"),
        Err(_) => tracing::debug!("an http connection took longer than {CONNECTION_TIME:?}"),
    }
}
