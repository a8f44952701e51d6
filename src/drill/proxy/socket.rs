//! A TCP or unix socket whose reads and writes never wait, so that they can be done under a lock.
//!
//! Bounded by: [`CONNECT_LIMIT`].
//! Tested by: the tests of the proxy.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Target;

/// On loopback a connection is made at once, or its backlog is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What one read forgets.
const UNREAD_CHUNK: usize = 64 * 1024;
/// 16 MiB are more than a socket's buffer holds; a sender that never stops is reset.
const UNREAD_CHUNKS_MAX: usize = 256;

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn connect(target: &Target) -> io::Result<Self> {
        let connect = async {
            match target {
                Target::Tcp(address) => TcpStream::connect(address).await.map(Self::tcp),
                Target::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            }
        };
        timeout(CONNECT_LIMIT, connect).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    pub(super) fn tcp(stream: TcpStream) -> Self {
        // A proxy must not add the wait for a fuller packet. Where it fails nothing else changes.
        stream.set_nodelay(true).ok();
        Self::Tcp(stream)
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
        .map(|_| ())
    }

    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            Self::Unix(stream) => stream.try_read(into),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Whether a read would give anything, be it bytes, their end or an error; reads nothing.
    pub(super) fn has_news(&self) -> bool {
        let mut one = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let looked = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || {
                Ok(rustix::net::recv(stream, &mut one[..], flags).map(|_| ())?)
            }),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || {
                Ok(rustix::net::recv(stream, &mut one[..], flags).map(|_| ())?)
            }),
        };
        !matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says that no more bytes will be written.
    pub(super) fn finish(&self) {
        // A peer that is gone already needs no notice.
        match self {
            Self::Tcp(stream) => rustix::net::shutdown(stream, Shutdown::Write),
            Self::Unix(stream) => rustix::net::shutdown(stream, Shutdown::Write),
        }
        .ok();
    }

    /// Reads and forgets what has arrived: closing a TCP socket over unread bytes is a reset.
    pub(super) fn forget_unread(&self) {
        let mut chunk = vec![0_u8; UNREAD_CHUNK];
        let mut read = || match self {
            Self::Tcp(stream) => rustix::net::recv(stream, &mut chunk[..], RecvFlags::DONTWAIT),
            Self::Unix(stream) => rustix::net::recv(stream, &mut chunk[..], RecvFlags::DONTWAIT),
        };
        // An error is "nothing there", or a peer that is gone: either way there is no more.
        (0..UNREAD_CHUNKS_MAX).take_while(|_| read().is_ok_and(|(bytes, _)| bytes > 0)).count();
    }

    /// Makes the coming close a reset: what was not delivered yet is thrown away.
    pub(super) fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => {
                stream.set_zero_linger().ok();
            }
            // Unix sockets know no reset; closing with unread bytes reads as one.
            Self::Unix(_) => {}
        }
    }
}
