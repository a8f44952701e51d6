//! Cuts the server's byte stream into frames: owns the bytes, does no I/O.
//!
//! Bytes go into [`Frames::space`], whole frames come out of [`Frames::cut`]; what is between lives in
//! this value, so a reading future can be dropped anywhere and nothing is lost or read twice. A
//! frame's announced length is checked against a limit before it sizes anything, and the buffer
//! grows with what has arrived, not with what was announced.

use bytes::{Buf, Bytes, BytesMut};

use super::abridge::Abridger;

/// One read asks for this much: a full socket buffer of rows in one system call.
pub(super) const READ_SIZE: usize = 64 * 1024;

/// Messages of the login and of commands. The server's longest, an error with its context, is a few
/// kilobytes; a relation with 1,600 columns about 130 KB.
pub(super) const CONTROL_MAX: usize = 1024 * 1024;

const COPY_DATA: u8 = b'd';
/// Tag and length, before the body.
const HEADER: usize = 5;

/// What may be kept of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A column value above this is read through and not kept: its size arrives in its place.
    pub value_max: usize,
    /// All values of one row together; those that would pass it are not kept either.
    pub row_max: usize,
}

impl Default for Limits {
    /// 16 MiB a value, 32 MiB a row: far above what a Kafka broker takes by default (1 MiB).
    fn default() -> Self {
        Self { value_max: 16 << 20, row_max: 32 << 20 }
    }
}

/// One message of the server, cut from the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message's type, as in the protocol's table of messages.
    pub tag: u8,
    /// What follows the length.
    pub body: Bytes,
    /// Values over the limit were replaced by their size; only row data can be abridged.
    pub abridged: bool,
}

/// The stream cannot be cut: nothing after this point is trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length that cannot be: the length counts itself.
    #[error("frame {:?} announces a length of {length}: the stream is out of step or not Postgres", char::from(*.tag))]
    Length {
        /// The frame's type.
        tag: u8,
        /// As announced.
        length: i32,
    },
    /// Longer than the limit, and not row data that could be abridged.
    #[error("frame {:?} announces {length} bytes, the limit is {limit}", char::from(*.tag))]
    TooLarge {
        /// The frame's type.
        tag: u8,
        /// As announced.
        length: usize,
        /// What we take.
        limit: usize,
    },
    /// A row too large to be kept whole does not have the form of a row.
    #[error("row data of {length} bytes cannot be read through: {what}")]
    Abridge {
        /// The frame's size.
        length: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// The owner of the received bytes.
pub struct Frames {
    buffer: BytesMut,
    /// `None` while the login and commands run: then every frame is a small one.
    rows: Option<Limits>,
    /// A frame that is being read through.
    open: Option<Abridger>,
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// Nothing received yet; row data is not expected yet.
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), rows: None, open: None }
    }

    /// From here on row data may come (`Some`), or no longer (`None`).
    pub fn expect_rows(&mut self, rows: Option<Limits>) {
        self.rows = rows;
    }

    /// Bytes that came and are not yet part of a frame.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Where the next received bytes go, with room for one read.
    pub fn space(&mut self) -> &mut BytesMut {
        // Growth follows what has arrived: at most twice as much, whatever a header announced.
        self.buffer.reserve(READ_SIZE.max(self.buffer.len().min(self.missing())));
        &mut self.buffer
    }

    /// How much the frame at the front still lacks.
    fn missing(&self) -> usize {
        let announced = match (self.buffer.get(1..HEADER), &self.open) {
            (Some(length), None) => length.first_chunk::<4>().map(|raw| u32::from_be_bytes(*raw)),
            _ => None,
        };
        let announced = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        announced.saturating_sub(self.buffer.len())
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the connection is of no further use.
    pub fn cut(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.open.is_none() && !self.begin()? {
            return Ok(None);
        }
        if let Some(open) = &mut self.open {
            let Some(body) = open.feed(&mut self.buffer)? else { return Ok(None) };
            self.open = None;
            return Ok(Some(Frame { tag: COPY_DATA, body, abridged: true }));
        }
        let length = self.announced()?.map_or(0, |(_, length)| length);
        let mut whole = self.buffer.split_to(length.saturating_add(1));
        let tag = whole.get_u8();
        whole.advance(4);
        Ok(Some(Frame { tag, body: whole.freeze(), abridged: false }))
    }

    /// Looks at the frame in front: true if it can be taken, whole or in part.
    fn begin(&mut self) -> Result<bool, FrameError> {
        let Some((tag, length)) = self.announced()? else { return Ok(false) };
        match self.rows {
            Some(limits) if tag == COPY_DATA && length > limits.value_max => {
                self.buffer.advance(HEADER);
                self.open = Some(Abridger::new(length.saturating_sub(4), limits));
                return Ok(true);
            }
            Some(_) if tag == COPY_DATA => {}
            Some(_) | None if length > CONTROL_MAX => {
                return Err(FrameError::TooLarge { tag, length, limit: CONTROL_MAX });
            }
            Some(_) | None => {}
        }
        Ok(self.buffer.len() > length)
    }

    /// Type and length (which counts itself, not the type) of the frame in front.
    fn announced(&self) -> Result<Option<(u8, usize)>, FrameError> {
        let Some([tag, length @ ..]) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        match usize::try_from(length) {
            Ok(size) if size >= 4 => Ok(Some((*tag, size))),
            Ok(_) | Err(_) => Err(FrameError::Length { tag: *tag, length }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let stream = [frame(b'Z', b"I"), frame(b'd', b"krow"), frame(b'N', b"")].concat();
        for step in 1..=stream.len() {
            let mut frames = Frames::new();
            let mut found = Vec::new();
            for part in stream.chunks(step) {
                frames.space().extend_from_slice(part);
                while let Some(frame) = frames.cut().unwrap() {
                    found.push((frame.tag, frame.body));
                }
            }
            let expected: Vec<(u8, Bytes)> =
                vec![(b'Z', "I".into()), (b'd', "krow".into()), (b'N', "".into())];
            assert_eq!(found, expected, "cut every {step} bytes");
            assert_eq!(frames.buffered(), 0);
        }
    }

    #[test]
    fn a_length_is_bounded_before_it_sizes_anything() {
        for length in [-1_i32, 0, 3, i32::MIN] {
            let mut frames = Frames::new();
            frames.space().extend_from_slice(b"E");
            frames.space().extend_from_slice(&length.to_be_bytes());
            assert_eq!(frames.cut(), Err(FrameError::Length { tag: b'E', length }));
        }
        let mut frames = Frames::new();
        frames.expect_rows(Some(Limits::default()));
        frames.space().extend_from_slice(b"E\x7f\xff\xff\xff");
        let error = frames.cut().unwrap_err();
        assert_eq!(error.to_string(), "frame 'E' announces 2147483647 bytes, the limit is 1048576");
    }

    #[test]
    fn the_buffer_grows_with_what_arrived_not_with_what_was_announced() {
        let mut frames = Frames::new();
        frames.expect_rows(Some(Limits { value_max: 1 << 30, row_max: 1 << 30 }));
        frames.space().extend_from_slice(b"d\x3f\xff\xff\xff");
        assert_eq!(frames.cut(), Ok(None));
        assert!(frames.space().capacity() <= 2 * READ_SIZE);
        for arrived in 1..=32 {
            frames.space().extend_from_slice(&[0; READ_SIZE]);
            assert_eq!(frames.cut(), Ok(None));
            assert!(frames.space().capacity() <= 4 * (arrived + 1) * READ_SIZE);
        }
    }
}
