//! A position in the Postgres write-ahead log: ordered, and written `X/Y` as Postgres writes it.
//!
//! It promises that text → position → text keeps the position, and refuses text that Postgres itself
//! would not print. There is no arithmetic: positions are compared and handed on, never computed.
//!
//! Guarantee: order is the log's order; parsing never panics and never guesses.
//! Bounded by: 64 bits, as in the server.
//! Tested by: the tests at the end of this file.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A log position. `Lsn(0)` ([`Lsn::ZERO`]) is what Postgres calls invalid: before all records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record. Postgres never gives this position to one.
    pub const ZERO: Self = Self(0);
}

impl From<u64> for Lsn {
    fn from(position: u64) -> Self {
        Self(position)
    }
}

impl From<Lsn> for u64 {
    fn from(position: Lsn) -> Self {
        position.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padding (`{:>20}`) is wanted in tables, so the text is made first.
        out.pad(&format!("{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF))
    }
}

/// Why a text is not a log position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LsnError {
    /// There is no slash, or more than one.
    #[error(
        "{text:?} is not a log position: expected two hexadecimal numbers around one slash, like 16/B374D848"
    )]
    Slash {
        /// What was given.
        text: String,
    },
    /// One half is empty, too long, or not hexadecimal.
    #[error(
        "{text:?} is not a log position: {half:?} must be 1 to 8 hexadecimal digits, as in 16/B374D848"
    )]
    Half {
        /// What was given.
        text: String,
        /// The half at fault.
        half: String,
    },
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let halves = text.split_once('/').filter(|(_, low)| !low.contains('/'));
        let Some((high, low)) = halves else {
            return Err(LsnError::Slash { text: text.to_owned() });
        };
        let half = |digits: &str| {
            // `from_str_radix` alone would accept a leading plus sign.
            let plain = (1..=8).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            plain
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
                .ok_or_else(|| LsnError::Half { text: text.to_owned(), half: digits.to_owned() })
        };
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Lsn;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a log position like \"16/B374D848\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Lsn, E> {
                text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_postgres_prints() {
        for (position, text) in
            [(0, "0/0"), (0x16_B374_D848, "16/B374D848"), (u64::MAX, "FFFFFFFF/FFFFFFFF")]
        {
            assert_eq!(Lsn(position).to_string(), text);
            assert_eq!(text.parse(), Ok(Lsn(position)));
        }
        assert_eq!(format!("{:>6}|", Lsn(1)), "   0/1|");
    }

    #[test]
    fn lower_case_and_leading_zeros_are_read() {
        assert_eq!("16/b374d848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!("0/0000001A".parse(), Ok(Lsn(0x1A)));
    }

    #[test]
    fn order_is_the_order_of_the_log() {
        assert!(Lsn(0xFFFF_FFFF) < "1/0".parse().unwrap());
        assert!(Lsn::ZERO < Lsn(1));
    }

    #[test]
    fn what_is_not_a_position_is_refused_by_name() {
        for text in ["", "16", "1/2/3"] {
            assert!(matches!(text.parse::<Lsn>(), Err(LsnError::Slash { .. })), "{text}");
        }
        for text in ["/", "1/", "/1", "+1/2", "1/-2", "1/G", "123456789/0", "0/123456789", " 1/2"] {
            let error = text.parse::<Lsn>().unwrap_err();
            assert!(matches!(error, LsnError::Half { .. }), "{text}");
            assert!(error.to_string().contains("hexadecimal"), "{error}");
        }
    }

    #[test]
    fn serde_uses_the_text() {
        let json = serde_json::to_string(&Lsn(0x1_0000_0002)).unwrap();
        assert_eq!(json, "\"1/2\"");
        assert_eq!(serde_json::from_str::<Lsn>(&json).unwrap(), Lsn(0x1_0000_0002));
        let error = serde_json::from_str::<Lsn>("\"12\"").unwrap_err().to_string();
        assert!(error.contains("16/B374D848"), "{error}");
        assert!(serde_json::from_str::<Lsn>("12").is_err());
    }
}
