//! Sizes and time spans as people write them, and back.
//!
//! Sizes: whole bytes (`4096`), or with a unit as Postgres has them, all powers of 1024: `B`, `kB`,
//! `MB`, `GB`, `TB`. **1MB is 1024 * 1024 bytes**, as in `postgresql.conf`, so that one number means
//! the same in both files; `KiB`, `MiB`, `GiB`, `TiB` are other names of the same units.
//!
//! Time spans: one or more whole numbers with a unit, largest first: `250ms`, `10s`, `1h30m`. Units
//! are `us`, `ms`, `s`, `m`, `h`, `d`. The unit is never left out, not even for zero: `0s`.
//!
//! It promises that what it writes, it reads back, and refuses fractions, signs, spaces and
//! misspelled units instead of rounding or guessing.

use std::time::Duration;

use super::nearest::nearest;

/// Bytes of each unit, largest first. The first name of a size is the one that is written.
const SIZES: [(&str, u64); 9] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
    ("B", 1),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// Microseconds of each unit, largest first.
const SPANS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Why a text is not a size or a time span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// A sign.
    #[error("it has a sign")]
    Sign,
    /// A decimal point or comma.
    #[error("it has a fraction: take a smaller unit")]
    Fraction,
    /// A blank.
    #[error("it has a space: write number and unit together")]
    Space,
    /// Anything else than a digit comes first.
    #[error("it does not start with a number")]
    Number,
    /// A number without a unit.
    #[error("{0} has no unit")]
    NoUnit(String),
    /// Not a unit.
    #[error("{unit:?} is not a unit{}", meant.map(|unit| format!(", did you mean {unit}?")).unwrap_or_default())]
    Unit {
        /// As given.
        unit: String,
        /// What was probably meant.
        meant: Option<&'static str>,
    },
    /// `30m1h`, `1s1s`.
    #[error("units must go from large to small, each once")]
    Order,
    /// More than 64 bits hold.
    #[error("it is too large to count")]
    TooLarge,
}

/// Reads a size into bytes.
///
/// # Errors
///
/// See [`QuantityError`].
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let (digits, unit, rest) = next_part(text)?;
    if rest.starts_with(|next: char| next.is_ascii_digit()) {
        return Err(QuantityError::Unit { unit: short(&format!("{unit}{rest}")), meant: None });
    }
    let factor = if unit.is_empty() { 1 } else { unit_of(unit, &SIZES)? };
    number(digits)?.checked_mul(factor).ok_or(QuantityError::TooLarge)
}

/// Reads a time span.
///
/// # Errors
///
/// See [`QuantityError`].
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    let mut rest = text;
    loop {
        let (digits, unit, after) = next_part(rest)?;
        if unit.is_empty() {
            return Err(QuantityError::NoUnit(short(digits)));
        }
        let factor = unit_of(unit, &SPANS)?;
        if factor >= smallest {
            return Err(QuantityError::Order);
        }
        smallest = factor;
        let part = number(digits)?.checked_mul(factor).ok_or(QuantityError::TooLarge)?;
        total = total.checked_add(part).ok_or(QuantityError::TooLarge)?;
        if after.is_empty() {
            return Ok(Duration::from_micros(total));
        }
        rest = after;
    }
}

/// Splits `12ab3..` into `12`, `ab` and the rest.
fn next_part(text: &str) -> Result<(&str, &str, &str), QuantityError> {
    let digits_end = text.find(|next: char| !next.is_ascii_digit()).unwrap_or(text.len());
    let (digits, after) = text.split_at(digits_end);
    match after.chars().next() {
        None if digits.is_empty() => return Err(QuantityError::Empty),
        Some('-' | '+') if digits.is_empty() => return Err(QuantityError::Sign),
        Some('.' | ',') => return Err(QuantityError::Fraction),
        Some(next) if next.is_whitespace() => return Err(QuantityError::Space),
        Some(_) if digits.is_empty() => return Err(QuantityError::Number),
        Some(_) | None => {}
    }
    let unit_end = after.find(|next: char| next.is_ascii_digit()).unwrap_or(after.len());
    let (unit, rest) = after.split_at(unit_end);
    if unit.contains(char::is_whitespace) {
        return Err(QuantityError::Space);
    }
    Ok((digits, unit, rest))
}

/// The first word, for a message. Not more: a value in the wrong place may be anything, also a URL
/// with a password.
fn short(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter();
    first.chain(letters.take_while(|letter| letter.is_alphanumeric()).take(20)).collect()
}

fn number(digits: &str) -> Result<u64, QuantityError> {
    // Only digits come here, so the one possible failure is size.
    digits.parse().map_err(|_| QuantityError::TooLarge)
}

fn unit_of(unit: &str, units: &[(&'static str, u64)]) -> Result<u64, QuantityError> {
    if let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) {
        return Ok(*factor);
    }
    // What people write elsewhere. `nearest` alone cannot know that `min` is not a misspelled `m`.
    let meant = match unit.to_lowercase().as_str() {
        "min" | "mins" | "minute" | "minutes" => Some("m"),
        "sec" | "secs" | "second" | "seconds" => Some("s"),
        "hour" | "hours" | "hr" => Some("h"),
        "day" | "days" => Some("d"),
        "k" | "kb" => Some("kB"),
        "mb" => Some("MB"),
        "g" => Some("GB"),
        "t" => Some("TB"),
        lower => nearest(lower, units.iter().map(|(name, _)| *name)),
    };
    // `m` of sizes and of time spans differ, so a suggestion must be a unit of this table.
    let meant = units.iter().map(|(name, _)| *name).find(|name| Some(*name) == meant);
    Err(QuantityError::Unit { unit: short(unit), meant })
}

/// Writes bytes in the largest unit that loses nothing: `64MB`, `1000B`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let exact = SIZES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    exact.map_or_else(|| "0B".to_owned(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// Writes a time span: `1h30m`, `250ms`. What is below a microsecond is dropped.
#[must_use]
pub fn format_duration(span: Duration) -> String {
    let mut rest = span.as_micros();
    let mut text = String::new();
    for (unit, factor) in SPANS {
        let count = rest / u128::from(factor);
        rest %= u128::from(factor);
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn sizes_mean_what_they_mean_to_postgres() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1B", 1),
            ("8kB", 8 << 10),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1GB", 1 << 30),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
            ("007kB", 7 << 10),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn spans_add_up() {
        for (text, microseconds) in [
            ("0s", 0),
            ("1us", 1),
            ("250ms", 250_000),
            ("10s", 10_000_000),
            ("5m", 300_000_000),
            ("1h30m", 5_400_000_000),
            ("1d2h3m4s5ms6us", 93_784_005_006),
            ("90m", 5_400_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(microseconds)), "{text}");
        }
    }

    #[test]
    fn guesses_are_refused() {
        for (text, size, span) in [
            ("", "it is empty", "it is empty"),
            ("-1s", "it has a sign", "it has a sign"),
            ("+1MB", "it has a sign", "it has a sign"),
            (
                "1.5MB",
                "it has a fraction: take a smaller unit",
                "it has a fraction: take a smaller unit",
            ),
            (
                "1,5s",
                "it has a fraction: take a smaller unit",
                "it has a fraction: take a smaller unit",
            ),
            (
                "1 MB",
                "it has a space: write number and unit together",
                "it has a space: write number and unit together",
            ),
            (
                "10s ",
                "it has a space: write number and unit together",
                "it has a space: write number and unit together",
            ),
            ("MB", "it does not start with a number", "it does not start with a number"),
        ] {
            assert_eq!(parse_size(text).unwrap_err().to_string(), size, "{text}");
            assert_eq!(parse_duration(text).unwrap_err().to_string(), span, "{text}");
        }
        let cases = [
            ("64mb", "\"mb\" is not a unit, did you mean MB?"),
            ("1KB", "\"KB\" is not a unit, did you mean kB?"),
            ("1Mib", "\"Mib\" is not a unit, did you mean MiB?"),
            ("1g", "\"g\" is not a unit, did you mean GB?"),
            ("1parsec", "\"parsec\" is not a unit"),
            ("1MB2", "\"MB2\" is not a unit"),
            ("18446744073709551616", "it is too large to count"),
            ("16777216TB", "it is too large to count"),
        ];
        for (text, why) in cases {
            assert_eq!(parse_size(text).unwrap_err().to_string(), why, "{text}");
        }
        let cases = [
            ("10", "10 has no unit"),
            ("0", "0 has no unit"),
            ("1h30", "30 has no unit"),
            ("5min", "\"min\" is not a unit, did you mean m?"),
            ("5sec", "\"sec\" is not a unit, did you mean s?"),
            ("5S", "\"S\" is not a unit, did you mean s?"),
            ("5MB", "\"MB\" is not a unit"),
            ("30m1h", "units must go from large to small, each once"),
            ("1s1s", "units must go from large to small, each once"),
            ("213503983d", "it is too large to count"),
            ("99999999999999999999s", "it is too large to count"),
            ("213503982d23h", "it is too large to count"),
        ];
        for (text, why) in cases {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), why, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_short() {
        assert_eq!(format_size(0), "0B");
        assert_eq!(format_size(1000), "1000B");
        assert_eq!(format_size(64 << 20), "64MB");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(format_duration(Duration::from_nanos(1_001)), "1us");
    }

    const LETTERS: [char; 21] = [
        '0', '1', '9', ' ', '.', '-', '+', 'm', 's', 'u', 'h', 'd', 'k', 'K', 'M', 'G', 'T', 'i',
        'B', '\u{e9}', '\0',
    ];

    #[test]
    fn what_is_written_is_read_back() {
        for seed in crate::property::seeds() {
            let mut random = fastrand::Rng::with_seed(seed);
            // Shifted both ways, so that small, large and round numbers all come up.
            let number = random.u64(..) >> random.u32(..64) << random.u32(..64);
            assert_eq!(parse_size(&format_size(number)), Ok(number));
            let span = Duration::from_micros(number);
            assert_eq!(parse_duration(&format_duration(span)), Ok(span));
            // Anything else is refused or read, but never a panic.
            let garbage: String =
                (0..random.usize(..8)).map(|_| random.choice(LETTERS).unwrap_or('x')).collect();
            if let Ok(span) = parse_duration(&garbage) {
                assert_eq!(parse_duration(&format_duration(span)), Ok(span), "{garbage:?}");
            }
            if let Ok(size) = parse_size(&garbage) {
                assert_eq!(parse_size(&format_size(size)), Ok(size), "{garbage:?}");
            }
        }
    }
}
