//! Reads one large row through without keeping its large values.
//!
//! A row of 500 MB must not stop the relay, nor cost it 500 MB: its key and id are wanted, its
//! payload is not. So a frame above the limit is parsed while it arrives. What is small is copied;
//! of a value over the limit only the size stays, behind a marker that no server sends and that the
//! decoder accepts in abridged frames alone.
//!
//! Inserts, updates and deletes are abridged value by value, logical messages lose prefix and
//! content; any other message must be small, and is kept whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::{CONTROL_MAX, FrameError, Limits};

/// In place of `t`: a text value was here, its size (u32) follows.
pub(super) const SKIPPED_TEXT: u8 = 1;
/// In place of `b`: a binary value was here, its size (u32) follows.
pub(super) const SKIPPED_BINARY: u8 = 2;

/// The headers of `w`: type, start, end, time; then the pgoutput message begins.
const XLOG_HEADER: usize = 25;
const XLOG_DATA: u8 = b'w';

/// What comes next in the frame. Every step either needs a few bytes, which wait in the buffer
/// until they are all there, or a run of bytes that is taken as it arrives.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Header of the row data and the tag of the message in it.
    Head,
    /// The relation's oid.
    Oid,
    /// `N` before the new row (the last), `K` or `O` before the old one.
    Side { deleting: bool },
    /// The number of columns.
    Count { more: bool },
    /// The kind of a value, and its length if it has one.
    Kind { left: u16, more: bool },
    /// The bytes of a value.
    Value { bytes: usize, keep: bool, left: u16, more: bool },
    /// Flags and position of a logical message.
    Message,
    /// The rest, all kept or all passed over.
    Rest { keep: bool },
}

/// One frame on its way through.
pub(super) struct Abridger {
    length: usize,
    /// Bytes of the frame that have not been taken yet.
    ahead: usize,
    kept: BytesMut,
    limits: Limits,
    step: Step,
}

impl Abridger {
    /// For a frame whose body has `length` bytes.
    pub(super) fn new(length: usize, limits: Limits) -> Self {
        Self { length, ahead: length, kept: BytesMut::new(), limits, step: Step::Head }
    }

    /// Takes what has arrived; the abridged body when the frame is through.
    pub(super) fn feed(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        while self.ahead > 0 {
            if !self.advance(buffer)? {
                return Ok(None);
            }
        }
        let complete = match self.step {
            Step::Rest { .. } => true,
            Step::Kind { left, more } => left == 0 && !more,
            Step::Value { bytes, left, more, .. } => bytes == 0 && left == 0 && !more,
            Step::Head | Step::Oid | Step::Side { .. } | Step::Count { .. } | Step::Message => {
                false
            }
        };
        if complete {
            return Ok(Some(std::mem::take(&mut self.kept).freeze()));
        }
        Err(self.fault("it ends inside a field"))
    }

    /// One step; false when it needs bytes that have not arrived.
    fn advance(&mut self, buffer: &mut BytesMut) -> Result<bool, FrameError> {
        match self.step {
            Step::Head => {
                let Some([kind, .., tag]) = self.small::<{ XLOG_HEADER + 1 }>(buffer)? else {
                    return Ok(false);
                };
                if kind != XLOG_DATA {
                    return Err(self.fault("only row data (`w`) may be this large"));
                }
                self.step = match tag {
                    b'I' | b'U' | b'D' => Step::Oid,
                    b'M' => Step::Message,
                    _ if self.length <= CONTROL_MAX => Step::Rest { keep: true },
                    _ => return Err(self.fault("only rows and logical messages may be this large")),
                };
            }
            Step::Oid => {
                let Some(_oid) = self.small::<4>(buffer)? else { return Ok(false) };
                // The message's tag stands before the oid that was just kept.
                let deleting = self.kept.get(XLOG_HEADER) == Some(&b'D');
                self.step = Step::Side { deleting };
            }
            Step::Side { deleting } => {
                let Some([side]) = self.small::<1>(buffer)? else { return Ok(false) };
                self.step = match side {
                    b'N' if !deleting => Step::Count { more: false },
                    b'K' | b'O' => Step::Count { more: !deleting },
                    _ => return Err(self.fault("neither a new nor an old row begins here")),
                };
            }
            Step::Count { more } => {
                let Some(count) = self.small::<2>(buffer)? else { return Ok(false) };
                self.step = Step::Kind { left: u16::from_be_bytes(count), more };
            }
            Step::Kind { left: 0, more: true } => self.step = Step::Side { deleting: false },
            Step::Kind { left: 0, more: false } => {
                return Err(self.fault("bytes are left after the last column"));
            }
            Step::Kind { left, more } => return self.kind(buffer, left, more),
            Step::Value { bytes: 0, left, more, .. } => self.step = Step::Kind { left, more },
            Step::Value { bytes, keep, left, more } => {
                let taken = self.run(buffer, bytes, keep);
                self.step = Step::Value { bytes: bytes.saturating_sub(taken), keep, left, more };
                return Ok(taken > 0);
            }
            Step::Message => {
                let Some(_head) = self.small::<9>(buffer)? else { return Ok(false) };
                // Prefix and content go together: either may be the large one.
                self.kept.put_u8(SKIPPED_BINARY);
                self.kept.put_u32(u32::try_from(self.ahead).unwrap_or(u32::MAX));
                self.step = Step::Rest { keep: false };
            }
            Step::Rest { keep } => return Ok(self.run(buffer, self.ahead, keep) > 0),
        }
        Ok(true)
    }

    fn kind(&mut self, buffer: &mut BytesMut, left: u16, more: bool) -> Result<bool, FrameError> {
        let Some(kind) = buffer.first().copied() else { return Ok(false) };
        let left = left.saturating_sub(1);
        match kind {
            b'n' | b'u' => {
                let Some(_kind) = self.small::<1>(buffer)? else { return Ok(false) };
                self.step = Step::Kind { left, more };
            }
            b't' | b'b' => {
                let Some([_kind, length @ ..]) = self.peek::<5>(buffer)? else { return Ok(false) };
                let bytes = usize::try_from(i32::from_be_bytes(length))
                    .ok()
                    .filter(|bytes| *bytes <= self.ahead)
                    .ok_or_else(|| self.fault("a value is longer than the frame"))?;
                let room = self.limits.row_max.saturating_sub(self.kept.len());
                let keep = bytes <= self.limits.value_max && bytes <= room;
                self.kept.put_u8(match (keep, kind) {
                    (true, kind) => kind,
                    (false, b't') => SKIPPED_TEXT,
                    (false, _) => SKIPPED_BINARY,
                });
                self.kept.extend_from_slice(&length);
                self.step = Step::Value { bytes, keep, left, more };
            }
            _ => return Err(self.fault("a column is neither null, unchanged, text nor binary")),
        }
        Ok(true)
    }

    /// Takes and keeps `N` bytes once they are all there.
    fn small<const N: usize>(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<[u8; N]>, FrameError> {
        let found = self.peek::<N>(buffer)?;
        if let Some(bytes) = &found {
            self.kept.extend_from_slice(bytes);
        }
        Ok(found)
    }

    /// Takes `N` bytes once they are all there.
    fn peek<const N: usize>(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<[u8; N]>, FrameError> {
        if self.ahead < N {
            return Err(self.fault("it ends inside a field"));
        }
        let found = buffer.first_chunk::<N>().copied();
        if found.is_some() {
            buffer.advance(N);
            self.ahead = self.ahead.saturating_sub(N);
        }
        Ok(found)
    }

    /// Takes as much of the next `bytes` as has arrived.
    fn run(&mut self, buffer: &mut BytesMut, bytes: usize, keep: bool) -> usize {
        let taken = bytes.min(buffer.len()).min(self.ahead);
        if keep {
            self.kept.extend_from_slice(buffer.get(..taken).unwrap_or_default());
        }
        buffer.advance(taken);
        self.ahead = self.ahead.saturating_sub(taken);
        taken
    }

    fn fault(&self, what: &'static str) -> FrameError {
        FrameError::Abridge { length: self.length, what }
    }
}

#[cfg(test)]
mod tests;
