//! The stream: rows one way, positions the other, until either side ends it.
//!
//! ```text
//!   start ─▶ Streaming ──(server: CopyDone, or COPY 0 at its shutdown)──▶ Ended
//!               │  └─────(an error, a lost row, silence)────────────────▶ Failed
//!               └────────(finish: our CopyDone, theirs, ready)──────────▶ a Connection again
//! ```
//!
//! The caller reads events and queues statuses; neither blocks the other. The position to confirm is
//! the caller's alone, within one rule kept here: nothing beyond what has been received, because the
//! server believes it and would skip every commit below.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use postgres_protocol::message::frontend;

use super::Payload;
use super::answer::{self, ServerError};
use super::command::Start;
use super::connection::Connection;
use super::cursor::{Broken, Cursor, Fault};
use super::error::Error;
use super::frame::{Frame, READ_SIZE};
use super::pause::Pause;
use super::pgoutput::UnixMicros;
use crate::lsn::Lsn;

const START: &str = "start streaming";
const STREAM: &str = "stream";
const FINISH: &str = "end the stream";

const XLOG_DATA: u8 = b'w';
const KEEPALIVE: u8 = b'k';
const STATUS: u8 = b'r';

/// From 1970 to 2000 in microseconds, to write the time as the server counts it.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// What comes from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One pgoutput message.
    Data {
        /// Where it is in the log; 0/0 for relations, and not in order across transactions: never
        /// a measure of progress.
        at: Lsn,
        /// When it was sent, by the server's clock.
        sent: UnixMicros,
        /// The message.
        payload: Payload,
    },
    /// The server is there, and this far.
    Keepalive {
        /// Everything committed up to here has been sent before. May be confirmed if and only if
        /// all that was received before it is durable.
        wal_end: Lsn,
        /// When it was sent, by the server's clock.
        sent: UnixMicros,
        /// It wants a status now, or will think that we are gone.
        reply_requested: bool,
    },
    /// The server has something to say; [`Error::PublicationSkipped`] is not among it.
    Notice(Box<ServerError>),
    /// A parameter of the session changed.
    Parameter {
        /// Its name.
        name: String,
        /// Its new value.
        value: String,
    },
    /// The server ends the stream in an orderly way: it shuts down.
    End,
}

/// What we say to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Everything before this is durable on our side, and may be forgotten. 0/0 confirms nothing.
    pub flush: Lsn,
    /// The server shall answer with a keepalive.
    pub reply_requested: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Streaming,
    Ended,
    Failed,
}

/// A running stream.
pub struct Stream {
    connection: Connection,
    state: State,
    /// The last position that the server has shown us, or the one where we began.
    received: Lsn,
    confirmed: Lsn,
    /// The newest status not yet in the output; an older one that never left is of no use.
    queued: Option<Status>,
    behind: bool,
    pause: Pause,
}

/// The server did not start the stream.
#[derive(Debug)]
pub struct Refused {
    /// Why; 55006 means that another process has the slot.
    pub error: Error,
    /// The connection, if it is still good for another try.
    pub connection: Option<Box<Connection>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("backend", self.backend()).finish_non_exhaustive()
    }
}

impl Connection {
    /// `START_REPLICATION`. When it returns a stream, the slot is ours until the stream is gone.
    ///
    /// Cancel safety: dropped, the connection is closed with it.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the connection if the server only said no.
    pub async fn start(mut self, start: &Start) -> Result<Stream, Refused> {
        let after = self.settings.command_timeout;
        let begun = tokio::time::timeout(after, self.begin(start)).await;
        let outcome = begun.unwrap_or(Err(Error::Timeout { doing: START, after }));
        let pause = Pause::new().map_err(|source| Error::Timer { source });
        match (outcome, pause) {
            (Ok(()), Ok(pause)) => Ok(Stream {
                connection: self,
                state: State::Streaming,
                received: start.at,
                confirmed: Lsn::ZERO,
                queued: None,
                behind: false,
                pause,
            }),
            (Err(error), _) | (Ok(()), Err(error)) => {
                let connection = (!self.busy).then(|| Box::new(self));
                Err(Refused { error, connection })
            }
        }
    }

    async fn begin(&mut self, start: &Start) -> Result<(), Error> {
        self.send(START, &start.sql()).await?;
        loop {
            let frame = self.wire.frame(START).await?;
            match frame.tag {
                b'W' => {
                    copy_both(&frame.body).map_err(|fault| Error::Malformed {
                        doing: START,
                        tag: frame.tag,
                        fault,
                    })?;
                    self.wire.frames.expect_rows(Some(self.settings.limits));
                    return Ok(());
                }
                b'E' => {
                    let error = server_error(START, &frame)?;
                    // The rest of a refusal is "ready", which frees the connection.
                    self.results(START).await?;
                    return Err(Error::Server { doing: START, error: Box::new(error) });
                }
                b'N' => lost_rows(&server_error(START, &frame)?)?,
                _ if self.aside(START, &frame)? => {}
                tag => return Err(Error::Unexpected { doing: START, tag }),
            }
        }
    }
}

impl Stream {
    /// The next event.
    ///
    /// Cancel safety: dropped at any point, it has lost nothing; the next call goes on.
    ///
    /// # Errors
    ///
    /// Any error ends the stream; what was received before it is whole.
    pub async fn next(&mut self) -> Result<Event, Error> {
        if self.queued.is_some() {
            // Events that are here already must not hold a status up; nor does a full socket hold
            // the events up.
            self.arm();
            let outcome = self.connection.wire.offer(STREAM).await;
            self.fatal(outcome)?;
        }
        loop {
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            let outcome = self.read().await;
            self.fatal(outcome)?;
        }
    }

    /// The next event if it has been received already: to take a chunk without waiting.
    ///
    /// # Errors
    ///
    /// As [`Stream::next`].
    pub fn take(&mut self) -> Result<Option<Event>, Error> {
        match self.state {
            State::Streaming => {}
            State::Ended => return Ok(Some(Event::End)),
            State::Failed => return Err(Error::Abandoned { doing: STREAM }),
        }
        loop {
            let outcome = match self.connection.wire.frames.cut() {
                Ok(Some(frame)) => self.event(frame).map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error.into()),
            };
            let event = self.fatal(outcome)?;
            if !event.as_ref().is_some_and(says_nothing) {
                return Ok(event);
            }
        }
    }

    /// Reads once; before that, while behind, lets rows gather if the last read brought few.
    async fn read(&mut self) -> Result<(), Error> {
        self.arm();
        let timer = |source| Error::Timer { source };
        let settings = &self.connection.settings;
        let last = std::mem::replace(&mut self.connection.wire.last_read, 0);
        if self.behind && last > 0 && last < READ_SIZE / 2 {
            self.pause.begin(settings.read_pause).map_err(timer)?;
        }
        self.pause.end().await.map_err(timer)?;
        self.connection.wire.fill_within(STREAM, self.connection.settings.silence_max).await
    }

    /// Says whether there is a backlog. While there is, reads are paced for throughput; otherwise
    /// each row is taken as it comes. Judge by the age of commits.
    pub fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// Queues a status; it leaves with the next [`Stream::next`] or [`Stream::flush`]. Only the
    /// newest is kept. `write` is filled in with what was received: a server that sees the old
    /// position there asks again and again.
    ///
    /// # Errors
    ///
    /// [`Error::ConfirmBeyond`] for a position that the server has not shown us.
    pub fn status(&mut self, status: Status) -> Result<(), Error> {
        if status.flush > self.received {
            return Err(Error::ConfirmBeyond { flush: status.flush, received: self.received });
        }
        self.confirmed = self.confirmed.max(status.flush);
        let asked = self.queued.is_some_and(|queued| queued.reply_requested);
        self.queued = Some(Status { reply_requested: status.reply_requested || asked, ..status });
        Ok(())
    }

    /// Sends the queued status without reading, for a caller that has no room for more rows.
    ///
    /// Cancel safety: as [`Stream::next`].
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.arm();
        let outcome = self.connection.wire.flush(STREAM).await;
        self.fatal(outcome)
    }

    /// The last position that the server has shown us.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// The connection's facts: backend, version, parameters.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Ends the stream in order: the queued status, our CopyDone, whatever the server still sends
    /// (it comes again from the slot), its CopyDone. The slot is free when this returns.
    ///
    /// Cancel safety: dropped, the connection is closed with it, and the server frees the slot when
    /// it notices.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after `within`: a server in the middle of a large transaction sends it to
    /// its end first.
    pub async fn finish(mut self, within: Duration) -> Result<Connection, Error> {
        let late = Error::Timeout { doing: FINISH, after: within };
        tokio::time::timeout(within, self.drain()).await.unwrap_or(Err(late))?;
        self.connection.wire.frames.expect_rows(None);
        self.connection.busy = false;
        Ok(self.connection)
    }

    async fn drain(&mut self) -> Result<(), Error> {
        match self.state {
            State::Streaming => {}
            State::Ended => return Err(Error::Closed { doing: FINISH }),
            State::Failed => return Err(Error::Abandoned { doing: FINISH }),
        }
        // A half-sent status is finished first, then the newest goes out.
        self.connection.wire.flush(FINISH).await?;
        self.arm();
        frontend::copy_done(&mut self.connection.wire.out);
        loop {
            let frame = self.connection.wire.frame(FINISH).await?;
            match frame.tag {
                // Rows and keepalives on their way, the server's CopyDone, its COPY 0 (twice).
                b'd' | b'c' | b'C' => {}
                b'Z' => return Ok(()),
                b'E' => {
                    let error = server_error(FINISH, &frame)?;
                    return Err(Error::Server { doing: FINISH, error: Box::new(error) });
                }
                _ if self.connection.aside(FINISH, &frame)? => {}
                tag => return Err(Error::Unexpected { doing: FINISH, tag }),
            }
        }
    }

    /// An error is the last thing that comes.
    fn fatal<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_err() {
            self.state = State::Failed;
        }
        outcome
    }

    /// Moves the queued status to the output, once an earlier one has left it: so a peer that does
    /// not read costs us one message of memory.
    fn arm(&mut self) {
        if !self.connection.wire.out.is_empty() {
            return;
        }
        let Some(status) = self.queued.take() else { return };
        let write = self.received.max(self.confirmed);
        encode_status(status, write, self.confirmed, &mut self.connection.wire.out);
    }

    fn event(&mut self, frame: Frame) -> Result<Event, Error> {
        let tag = frame.tag;
        let malformed = |fault| Error::Malformed { doing: STREAM, tag, fault };
        match tag {
            b'd' => {
                let (event, shown) = copy_data(frame).map_err(malformed)?;
                self.received = self.received.max(shown);
                Ok(event)
            }
            b'N' => {
                let notice = server_error(STREAM, &frame)?;
                lost_rows(&notice)?;
                Ok(Event::Notice(Box::new(notice)))
            }
            b'S' => {
                let (name, value) = answer::parameter(&frame.body).map_err(malformed)?;
                self.connection.note_parameter(&name, &value);
                Ok(Event::Parameter { name, value })
            }
            b'E' => {
                let error = Box::new(server_error(STREAM, &frame)?);
                Err(Error::Server { doing: STREAM, error })
            }
            // CopyDone, or without it the COPY 0 of a server that shuts down.
            b'c' | b'C' => {
                self.state = State::Ended;
                Ok(Event::End)
            }
            tag => Err(Error::Unexpected { doing: STREAM, tag }),
        }
    }
}

/// Every version writes an empty message in place of `O` when decoding does not see the origin's name,
/// such as in the transaction that made the origin: there is nothing to say, and nothing is wrong.
fn says_nothing(event: &Event) -> bool {
    matches!(event, Event::Data { payload, .. } if payload.bytes.is_empty())
}

/// The overall format must be text and there are no columns: it is not a table that is copied.
fn copy_both(body: &Bytes) -> Result<(), Fault> {
    let mut cursor = Cursor::new(body);
    cursor.u8("copy format")?;
    let columns = cursor.u16("column count")?;
    cursor.take(usize::from(columns).saturating_mul(2), "column formats")?;
    cursor.finish()
}

/// The event in a CopyData message, and the position it shows.
fn copy_data(frame: Frame) -> Result<(Event, Lsn), Fault> {
    let mut cursor = Cursor::new(&frame.body);
    match cursor.u8("kind of copy data")? {
        XLOG_DATA => {
            let at = cursor.u64("start position").map(Lsn)?;
            let end = cursor.u64("end position").map(Lsn)?;
            let sent = UnixMicros::from_postgres(cursor.i64("time")?);
            let header = cursor.offset();
            let mut bytes = frame.body;
            bytes.advance(header);
            let payload = Payload { bytes, abridged: frame.abridged };
            Ok((Event::Data { at, sent, payload }, end.max(at)))
        }
        KEEPALIVE => {
            let wal_end = cursor.u64("end position").map(Lsn)?;
            let sent = UnixMicros::from_postgres(cursor.i64("time")?);
            let reply_requested = cursor.u8("reply requested")? != 0;
            cursor.finish()?;
            Ok((Event::Keepalive { wal_end, sent, reply_requested }, wal_end))
        }
        found => {
            let what = Broken::Unknown { field: "kind of copy data", found, expected: "w k" };
            Err(Fault { offset: 0, what })
        }
    }
}

fn encode_status(status: Status, write: Lsn, flush: Lsn, out: &mut bytes::BytesMut) {
    out.put_u8(b'd');
    // The length counts itself: 4, and 34 of status.
    out.put_u32(38);
    out.put_u8(STATUS);
    out.put_u64(write.0);
    out.put_u64(flush.0);
    out.put_u64(flush.0);
    out.put_i64(now().0.saturating_sub(POSTGRES_EPOCH));
    out.put_u8(u8::from(status.reply_requested));
}

fn now() -> UnixMicros {
    // A clock before 1970 is of no use to anybody; the server only shows this time.
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn server_error(doing: &'static str, frame: &Frame) -> Result<ServerError, Error> {
    ServerError::parse(&frame.body).map_err(|fault| Error::Malformed {
        doing,
        tag: frame.tag,
        fault,
    })
}

fn lost_rows(notice: &ServerError) -> Result<(), Error> {
    if notice.loses_rows() {
        return Err(Error::PublicationSkipped { notice: Box::new(notice.clone()) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
