//! Frames in, bytes out, over one transport: the only place that reads or writes the socket.
//!
//! Received bytes live in [`Frames`], bytes to send in `out`; both survive a dropped future. One
//! poll moves both directions, so a peer that waits for our status while we wait for its rows cannot
//! hold us up.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::error::Error;
use super::frame::{Frame, Frames};

/// The socket and both its buffers.
pub(super) struct Wire<S> {
    transport: S,
    pub(super) frames: Frames,
    pub(super) out: BytesMut,
    /// TLS has taken bytes that may not be on their way yet.
    unflushed: bool,
    /// Since when the peer has had nothing for us; `None` while bytes come.
    quiet_since: Option<Instant>,
    /// How much the last read brought.
    pub(super) last_read: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(transport: S) -> Self {
        Self {
            transport,
            frames: Frames::new(),
            out: BytesMut::new(),
            unflushed: false,
            quiet_since: None,
            last_read: 0,
        }
    }

    pub(super) fn transport(&self) -> &S {
        &self.transport
    }

    /// The next frame.
    ///
    /// Cancel safety: dropped at any point, it has lost nothing; the next call goes on.
    pub(super) async fn frame(&mut self, doing: &'static str) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.frames.cut()? {
                return Ok(frame);
            }
            self.fill(doing).await?;
        }
    }

    /// Reads once, and meanwhile writes what there is to write.
    ///
    /// Cancel safety: as [`Wire::frame`].
    pub(super) async fn fill(&mut self, doing: &'static str) -> Result<(), Error> {
        let read = poll_fn(|cx| self.poll_fill(cx)).await;
        match read.map_err(|source| broken(doing, source))? {
            0 => Err(Error::Closed { doing }),
            _ => Ok(()),
        }
    }

    /// As [`Wire::fill`], but gives up when nothing at all has come for this long. The time counts
    /// from when the peer was first found silent, so time that we spent elsewhere is not held
    /// against it.
    pub(super) async fn fill_within(
        &mut self,
        doing: &'static str,
        silence_max: Duration,
    ) -> Result<(), Error> {
        let since = *self.quiet_since.get_or_insert_with(Instant::now);
        match tokio::time::timeout_at(since + silence_max, self.fill(doing)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Silent { after: silence_max }),
        }
    }

    /// Sends all there is to send.
    ///
    /// Cancel safety: what was not sent is sent by the next call that touches the socket.
    pub(super) async fn flush(&mut self, doing: &'static str) -> Result<(), Error> {
        poll_fn(|cx| self.poll_send(cx)).await.map_err(|source| broken(doing, source))
    }

    /// Sends what the socket takes now, without waiting.
    ///
    /// Cancel safety: as [`Wire::flush`].
    pub(super) async fn offer(&mut self, doing: &'static str) -> Result<(), Error> {
        let sent = poll_fn(|cx| match self.poll_send(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        sent.await.map_err(|source| broken(doing, source))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A full send buffer does not stop the reading: the peer may be waiting for just that.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        let read = ready!(self.poll_read(cx))?;
        self.quiet_since = None;
        self.last_read = read;
        Poll::Ready(Ok(read))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // `read_buf` keeps no state between polls, so polling a new one is one attempt at reading.
        std::pin::pin!(self.transport.read_buf(self.frames.space())).poll(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(doing: &'static str, source: io::Error) -> Error {
    // A TLS peer that goes without a farewell is a closed connection too.
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return Error::Closed { doing };
    }
    Error::Broken { doing, source }
}
