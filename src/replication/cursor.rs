//! A checked reader over received bytes: no index, no cast, and nothing is sized by what it reads.
//!
//! Every step either moves forward inside the bytes or returns a [`Fault`] with the offset where it
//! stood. Values are ranges of the one buffer, so reading copies nothing.

use std::ops::Range;

use bytes::Bytes;

/// What is wrong with the bytes, and at which offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {what}")]
pub struct Fault {
    /// Counted from the first byte of the message.
    pub offset: usize,
    /// The rule that was broken.
    pub what: Broken,
}

/// The rules that received bytes can break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The message ends inside a field.
    #[error("needs {needed} bytes for {field}, has {left}")]
    Short {
        /// The field that is cut.
        field: &'static str,
        /// Its size.
        needed: usize,
        /// What the message still has.
        left: usize,
    },
    /// A text has no terminating zero byte.
    #[error("{field} has no terminating zero byte")]
    Unterminated {
        /// The text's name.
        field: &'static str,
    },
    /// A length is negative.
    #[error("length of {field} is {length}")]
    Negative {
        /// Whose length.
        field: &'static str,
        /// As received.
        length: i32,
    },
    /// A name is not UTF-8, though client_encoding is UTF8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The text's name.
        field: &'static str,
    },
    /// A byte that selects a form selects none that we know.
    #[error("{field} is {:?}, expected one of {expected}", char::from(*.found))]
    Unknown {
        /// What the byte selects.
        field: &'static str,
        /// As received.
        found: u8,
        /// The forms that exist.
        expected: &'static str,
    },
    /// A count says more than the message can hold.
    #[error("{field} says {count}, but only {left} bytes follow")]
    Count {
        /// What is counted.
        field: &'static str,
        /// As received.
        count: usize,
        /// What the message still has.
        left: usize,
    },
    /// Bytes are left after the last field.
    #[error("{left} bytes are left after the last field")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// Where the reading stands in one message.
pub(super) struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn fault(&self, what: Broken) -> Fault {
        Fault { offset: self.at, what }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Fault> {
        let Some(found) = self.rest().first_chunk::<N>() else {
            return Err(self.fault(Broken::Short { field, needed: N, left: self.left() }));
        };
        self.at = self.at.saturating_add(N);
        Ok(*found)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Fault> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Fault> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Fault> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, Fault> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, Fault> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, Fault> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// A length: an int32 that must not be negative, and no more than what follows.
    pub(super) fn length(&mut self, field: &'static str) -> Result<usize, Fault> {
        let start = self.at;
        let length = self.i32(field)?;
        usize::try_from(length)
            .map_err(|_| Fault { offset: start, what: Broken::Negative { field, length } })
    }

    /// The range of the next `length` bytes, which must be there.
    pub(super) fn take(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<Range<usize>, Fault> {
        if length > self.left() {
            return Err(self.fault(Broken::Short { field, needed: length, left: self.left() }));
        }
        let start = self.at;
        self.at = start.saturating_add(length);
        Ok(start..self.at)
    }

    /// Everything that is left.
    pub(super) fn take_rest(&mut self) -> Range<usize> {
        let start = self.at;
        self.at = self.bytes.len();
        start..self.at
    }

    /// A zero-terminated text, without its zero.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        let start = self.at;
        std::str::from_utf8(self.raw_text(field)?)
            .map_err(|_| Fault { offset: start, what: Broken::NotUtf8 { field } })
    }

    /// A zero-terminated text in no particular encoding, without its zero.
    pub(super) fn raw_text(&mut self, field: &'static str) -> Result<&'a [u8], Fault> {
        let rest = self.rest();
        let Some(raw) = rest.split(|byte| *byte == 0).next().filter(|raw| raw.len() < rest.len())
        else {
            return Err(self.fault(Broken::Unterminated { field }));
        };
        self.at = self.at.saturating_add(raw.len()).saturating_add(1);
        Ok(raw)
    }

    /// A count of things that take at least `each` bytes: bounded by what follows, so that it may
    /// size an allocation.
    pub(super) fn count(
        &mut self,
        count: usize,
        each: usize,
        field: &'static str,
    ) -> Result<usize, Fault> {
        if count.saturating_mul(each) > self.left() {
            return Err(self.fault(Broken::Count { field, count, left: self.left() }));
        }
        Ok(count)
    }

    /// The message must be read to its end: what we did not understand, we do not pass over.
    pub(super) fn finish(self) -> Result<(), Fault> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.fault(Broken::Trailing { left })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_checked_and_says_where() {
        let bytes = Bytes::from_static(b"\x01ab\0\xff\xff\xff\xff");
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.u8("tag"), Ok(1));
        assert_eq!(cursor.text("name"), Ok("ab"));
        assert_eq!(
            cursor.length("value").unwrap_err().to_string(),
            "at byte 4: length of value is -1"
        );
        let fault = cursor.u16("count").unwrap_err();
        assert_eq!(fault.to_string(), "at byte 8: needs 2 bytes for count, has 0");
        assert_eq!(cursor.finish(), Ok(()));
    }

    #[test]
    fn a_text_needs_its_end_and_its_encoding() {
        let open = Bytes::from_static(b"abc");
        let fault = Cursor::new(&open).text("name").unwrap_err();
        assert_eq!(fault.what, Broken::Unterminated { field: "name" });
        let empty = Bytes::new();
        assert!(Cursor::new(&empty).text("name").is_err());
        let latin = Bytes::from_static(b"\xe9\0");
        assert_eq!(
            Cursor::new(&latin).text("name").unwrap_err().what,
            Broken::NotUtf8 { field: "name" }
        );
        let nothing = Bytes::from_static(b"\0");
        assert_eq!(Cursor::new(&nothing).text("name"), Ok(""));
    }

    #[test]
    fn a_count_never_sizes_more_than_what_follows() {
        let bytes = Bytes::from_static(b"abc");
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.count(3, 1, "columns"), Ok(3));
        assert!(cursor.count(4, 1, "columns").is_err());
        assert!(cursor.count(usize::MAX, usize::MAX, "columns").is_err());
        assert!(cursor.take(4, "value").is_err());
        assert_eq!(cursor.take(2, "value"), Ok(0..2));
        assert_eq!(
            cursor.finish().unwrap_err(),
            Fault { offset: 2, what: Broken::Trailing { left: 1 } }
        );
    }
}
