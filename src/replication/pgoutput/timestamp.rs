//! Reads the text of a timestamp as the server writes it with `DateStyle = ISO`.
//!
//! Only moments are read: `infinity` and years before Christ are refused. A text without a zone is
//! UTC, which is what the connection pins.

use super::UnixMicros;

const DAY_SECONDS: i64 = 86_400;
const MICROS: i64 = 1_000_000;

/// `2026-11-30 22:29:52.123456+01:30` and its shorter forms.
pub(super) fn parse(text: &str) -> Option<UnixMicros> {
    let (date, clock) = text.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let days = days_since_1970(year, month, day)?;
    let (clock, offset) = match clock.find(['+', '-']) {
        Some(at) => (clock.get(..at)?, zone(clock.get(at..)?)?),
        None => (clock, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if fraction.len() > 6 {
        return None;
    }
    let micros = digits(&format!("{fraction:0<6}"))?;
    let seconds = days.checked_mul(DAY_SECONDS)?.checked_add(clock_seconds(clock)?)?;
    let seconds = seconds.checked_sub(offset)?;
    seconds.checked_mul(MICROS)?.checked_add(micros).map(UnixMicros)
}

/// Digits only: `parse` alone would accept a sign.
fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn clock_seconds(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    // 24:00:00 is a valid end of a day, and :60 a leap second that the server rounds away.
    let valid = hour <= 24 && minute <= 59 && second <= 60;
    valid.then_some(hour * 3600 + minute * 60 + second)
}

/// `+01`, `-03:30`, `+00:19:32`: seconds east of Greenwich.
fn zone(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let mut seconds = 0;
    for (part, unit) in text.get(1..)?.split(':').zip([3600, 60, 1]) {
        seconds += digits(part).filter(|part| *part <= 59)? * unit;
    }
    Some(sign * seconds)
}

/// Days in the proleptic Gregorian calendar, with the year counted from March, so that the leap
/// day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    // The server's own range ends in 294276.
    let valid =
        (1..=294_276).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    // Day 0 of this count is 0000-03-01; 1970-01-01 is 719,468 days later.
    Some(year * 365 + leap_days + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_to_the_microsecond() {
        for (text, micros) in [
            ("1970-01-01 00:00:00+00", 0),
            ("2000-01-01 00:00:00", 946_684_800_000_000),
            ("2026-11-30 22:29:52.123456+00", 1_796_077_792_123_456),
            ("2026-11-30 22:29:52.5+00", 1_796_077_792_500_000),
            ("2024-02-29 23:59:59.000001+00", 1_709_251_199_000_001),
            ("1969-12-31 23:59:59.999999+00", -1),
            ("1970-01-01 05:30:00+05:30", 0),
            ("1969-12-31 20:30:00-03:30", 0),
        ] {
            assert_eq!(parse(text), Some(UnixMicros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_moment_is_refused() {
        for text in [
            "infinity",
            "-infinity",
            "",
            "2026-11-30",
            "2026-13-01 00:00:00",
            "0044-03-15 00:00:00 BC",
            "2026-11-30 22:29",
            "2026-11-30 22:61:00",
            "2026-11-30 22:29:52.1234567",
            "2026-+1-30 22:29:52",
            "11/30/2026 22:29:52",
            "2026-11-30 22:29:52+x",
            "999999999999999999-01-01 00:00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
