//! One connection through the proxy: two sockets, and a lane for each direction.
//!
//! A lane reads chunks into a queue and writes them out when they are due. It asks the script
//! before it reads and before it writes, under the lock, and waits for three things only: bytes,
//! room, or a change of the script.
//!
//! Guarantee: bytes keep their order; none is made up.
//! Bounded by: [`QUEUE_BYTES_MAX`] a lane; then it stops reading, and TCP holds the sender back.
//! Tested by: the tests of the proxy.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tokio::io::Interest;
use tokio::time::{Instant, sleep_until};

use super::frames::{Frames, Head, Piece, Side};
use super::socket::Socket;
use super::stage::Stage;
use super::{Cut, Direction, Event, Protocol};

/// What a lane keeps while it is told to delay or to hold.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// One read.
const CHUNK_BYTES: usize = 16 * 1024;

struct Chunk {
    due: Instant,
    delayed: bool,
    /// Until the script has let the message pass.
    head: Option<Head>,
    bytes: Bytes,
}

/// What a lane can do next.
enum Step {
    Read,
    Write,
    ReadOrWrite,
    /// The first chunk is due later; there may be room to read meanwhile.
    Until {
        due: Instant,
        read: bool,
    },
    /// Nothing before the script changes.
    Wait,
    /// All bytes of a sender that has finished are through.
    Finish,
    Cut,
}

struct Lane<'a> {
    stage: &'a Arc<Stage>,
    connection: u64,
    direction: Direction,
    from: &'a Socket,
    to: &'a Socket,
    frames: Frames,
    queue: VecDeque<Chunk>,
    queued_bytes: usize,
    finished: bool,
    /// A freeze that has stopped bytes is noted once.
    stall_noted: bool,
    opaque_noted: bool,
}

/// Carries a connection until both sides have finished, one is gone, or it is cut.
pub(super) async fn carry(stage: &Arc<Stage>, connection: u64, client: Socket, target: Socket) {
    let lane = |direction, from, to, side| Lane {
        stage,
        connection,
        direction,
        from,
        to,
        frames: match stage.protocol {
            Protocol::Kafka => Frames::new(side),
            Protocol::Opaque => Frames::opaque(),
        },
        queue: VecDeque::new(),
        queued_bytes: 0,
        finished: false,
        stall_noted: false,
        opaque_noted: stage.protocol == Protocol::Opaque,
    };
    let there = lane(Direction::ToTarget, &client, &target, Side::Request);
    let back = lane(Direction::ToClient, &target, &client, Side::Response);
    // A broken lane breaks the connection; two that have finished close it.
    let broken = tokio::try_join!(there.run(), back.run()).is_err();
    let reset = match stage.look(|script| script.how_cut(connection)) {
        Some(Cut::Reset) => true,
        Some(Cut::Finish) => {
            for socket in [&client, &target] {
                socket.finish();
                socket.forget_unread();
            }
            false
        }
        // A side that was reset, or is gone: the other one learns of it in the same way.
        None => broken,
    };
    if reset {
        client.reset_on_close();
        target.reset_on_close();
    }
    drop((client, target));
    stage.change(|script| script.close(connection));
}

impl Lane<'_> {
    async fn run(mut self) -> io::Result<()> {
        let mut changes = self.stage.changes();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            // Marked as seen before the script is asked: a change after the answer wakes us.
            changes.borrow_and_update();
            let (from, to) = (self.from, self.to);
            let (read, write, due) = match self.next() {
                Step::Read => (true, false, None),
                Step::Write => (false, true, None),
                Step::ReadOrWrite => (true, true, None),
                Step::Until { due, read } => (read, false, Some(due)),
                Step::Wait => (false, false, None),
                Step::Finish => {
                    to.finish();
                    return Ok(());
                }
                Step::Cut => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            // Every branch only waits; the bytes move below, under the lock, so nothing is lost
            // when another branch is first.
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                ready = from.ready(Interest::READABLE), if read => {
                    ready?;
                    self.read(&mut buffer)?;
                }
                ready = to.ready(Interest::WRITABLE), if write => {
                    ready?;
                    self.write()?;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                // Frozen: the bytes stay where they are, but that they are there is worth a note.
                ready = from.ready(Interest::READABLE), if self.watches_stall() => {
                    ready?;
                    self.note_stall();
                }
            }
        }
    }

    fn next(&mut self) -> Step {
        let (connection, direction) = (self.connection, self.direction);
        let read = !self.finished && self.queued_bytes < QUEUE_BYTES_MAX;
        let head = self.queue.front().map(|chunk| (chunk.due, chunk.head));
        let finished = self.finished;
        let step = self.stage.decide(|script| {
            if script.is_cut(connection) {
                return Step::Cut;
            }
            if *script.frozen.get(direction) {
                return Step::Wait;
            }
            match head {
                None if finished => Step::Finish,
                None => Step::Read,
                Some((due, _)) if due > Instant::now() => Step::Until { due, read },
                Some((_, Some(message))) if !script.may_pass(connection, message) => {
                    match (script.is_cut(connection), read) {
                        (true, _) => Step::Cut,
                        (false, true) => Step::Read,
                        (false, false) => Step::Wait,
                    }
                }
                Some(_) if read => Step::ReadOrWrite,
                Some(_) => Step::Write,
            }
        });
        if matches!(step, Step::Write | Step::ReadOrWrite) {
            // Asked once: a message that has begun to go is not asked for again.
            if let Some(chunk) = self.queue.front_mut() {
                chunk.head = None;
            }
        }
        if !matches!(step, Step::Wait) {
            self.stall_noted = false;
        }
        step
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let (direction, from) = (self.direction, self.from);
        let got = self.stage.decide(|script| {
            let delay = *script.delay.get(direction);
            (!*script.frozen.get(direction)).then(|| (delay, from.try_read(buffer)))
        });
        let Some((delay, got)) = got else { return Ok(()) };
        let pieces = match got {
            Ok(0) => {
                self.finished = true;
                vec![Piece { head: None, bytes: self.frames.rest() }]
            }
            Ok(count) => self.frames.push(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // What a sender sent before it was killed is on the network already, and arrives.
            Err(_) if !self.queue.is_empty() => {
                self.finished = true;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        if self.frames.is_opaque() && !self.opaque_noted {
            self.opaque_noted = true;
            let connection = self.connection;
            self.stage.change(|script| script.note(Event::NotKafka { connection, direction }));
        }
        let due = Instant::now() + delay;
        for piece in pieces.into_iter().filter(|piece| !piece.bytes.is_empty()) {
            self.queued_bytes += piece.bytes.len();
            let delayed = !delay.is_zero();
            self.queue.push_back(Chunk { due, delayed, head: piece.head, bytes: piece.bytes });
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(chunk) = self.queue.front_mut() else { return Ok(()) };
        let (connection, direction, to) = (self.connection, self.direction, self.to);
        let gone: io::Result<usize> = self.stage.decide(|script| {
            if script.is_cut(connection) {
                return Ok(0);
            }
            let allowed = script.allowance(direction, chunk.bytes.len());
            if allowed == 0 {
                return Ok(0);
            }
            let gone = to.try_write(&chunk.bytes[..allowed])?;
            script.forwarded(connection, direction, gone);
            script.counts.bytes_delayed += if chunk.delayed { gone as u64 } else { 0 };
            Ok(gone)
        });
        match gone {
            Ok(gone) => {
                chunk.bytes.advance(gone);
                self.queued_bytes -= gone;
                if chunk.bytes.is_empty() {
                    self.queue.pop_front();
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn watches_stall(&self) -> bool {
        let frozen = self.stage.look(|script| *script.frozen.get(self.direction));
        frozen && !self.stall_noted && !self.finished
    }

    fn note_stall(&mut self) {
        // Readiness may be left over from before; looking clears it then.
        if self.from.has_news() {
            self.stall_noted = true;
            let (connection, direction) = (self.connection, self.direction);
            self.stage.change(|script| script.note(Event::Stalled { connection, direction }));
        }
    }
}
