//! Moments: from the server's two forms, and to the text that Debezium writes.
//!
//! The connection pins `DateStyle = ISO` and UTC, so a text without a zone is UTC. `infinity` and
//! years before Christ are no moments here: `None`.

use std::fmt::Write as _;

const DAY_SECONDS: i64 = 86_400;
const MICROS: i64 = 1_000_000;

/// From 1970-01-01 to 2000-01-01, where the server's count begins.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The days from 0000-03-01, where the count below begins, to 1970-01-01.
const UNIX_EPOCH_DAYS: i64 = 719_468;

/// The Gregorian calendar repeats after so many days: 400 years.
const ERA_DAYS: i64 = 146_097;

/// The server's own range.
const YEAR_MAX: i64 = 294_276;

/// Microseconds since 1970 of the server's binary form. Its infinities are the ends of the range.
pub(super) fn of_wire(since_2000: i64) -> Option<i64> {
    let finite = since_2000 != i64::MIN && since_2000 != i64::MAX;
    since_2000.checked_add(POSTGRES_EPOCH_MICROS).filter(|_| finite)
}

/// Microseconds since 1970 of `2026-11-30 22:29:52.123456+01:30` and its shorter forms.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, east) = match clock.find(['+', '-']) {
        Some(at) => (&clock[..at], zone(&clock[at..])?),
        None => (clock, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let possible = (1..=YEAR_MAX).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour <= 24
        && minute <= 59
        && second <= 60
        && fraction.len() <= 6;
    if !possible {
        return None;
    }
    let micros = digits(fraction)? * 10_i64.pow(6 - u32::try_from(fraction.len()).ok()?);
    let seconds = days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second - east;
    // The server's last years are beyond 64 bits when counted from 1970.
    seconds.checked_mul(MICROS)?.checked_add(micros)
}

/// Digits only: `parse` alone would accept a sign. Six are enough for a year and for a fraction.
fn digits(text: &str) -> Option<i64> {
    let plain = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// `+01`, `-03:30`, `+00:19:32`: seconds east of Greenwich.
fn zone(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let mut seconds = 0;
    let mut parts = text.get(1..)?.split(':');
    for (unit, part) in [3600, 60, 1].into_iter().zip(parts.by_ref()) {
        seconds += digits(part).filter(|part| *part <= 59)? * unit;
    }
    parts.next().is_none().then_some(sign * seconds)
}

/// Days since 1970. The year begins in March, so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - UNIX_EPOCH_DAYS
}

/// Year, month and day of a day since 1970.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + UNIX_EPOCH_DAYS;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    // Whole years: 1460 is the last day of a leap cycle, 36524 of a century, 146096 of the era.
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// `2026-11-30T22:29:52.123456Z` with so many digits of the fraction, the rest cut off.
pub(super) fn iso(micros: i64, fraction_digits: usize) -> String {
    let seconds = micros.div_euclid(MICROS);
    let (year, month, day) = date(seconds.div_euclid(DAY_SECONDS));
    let clock = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let mut text = String::with_capacity(32);
    // Java marks a year of more than four digits with a sign.
    let sign = if year > 9999 { "+" } else { "" };
    let written =
        write!(text, "{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    written.expect("a String takes any text");
    if fraction_digits > 0 {
        let fraction = format!("{:06}", micros.rem_euclid(MICROS));
        text.push('.');
        text.push_str(&fraction[..fraction_digits.min(6)]);
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_to_the_microsecond() {
        for (text, micros) in [
            ("1970-01-01 00:00:00+00", 0),
            ("2000-01-01 00:00:00", POSTGRES_EPOCH_MICROS),
            ("2026-11-30 22:29:52.123456+00", 1_796_077_792_123_456),
            ("2026-11-30 22:29:52.5+00", 1_796_077_792_500_000),
            ("2024-02-29 23:59:59.000001+00", 1_709_251_199_000_001),
            ("1969-12-31 23:59:59.999999+00", -1),
            ("1970-01-01 05:30:00+05:30", 0),
            ("1969-12-31 20:30:00-03:30", 0),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
        }
        // 64 bits reach this year when counted from 2000, as the server does, but not from 1970.
        assert_eq!(parse("294276-12-31 23:59:59.999999+00"), None);
        assert_eq!(of_wire(0), Some(POSTGRES_EPOCH_MICROS));
        assert_eq!((of_wire(i64::MIN), of_wire(i64::MAX)), (None, None));
    }

    #[test]
    fn what_is_no_moment_is_not_read() {
        for text in [
            "",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00 BC",
            "2026-13-01 00:00:00",
            "2026-01-01",
            "2026-01-01 25:00:00",
            "2026-01-01 00:00:00.1234567",
            "2026-01-01 00:00:00+1:2:3:4",
            "2026-01-01 00:00:00+",
            "+026-01-01 00:00:00",
            "99999999-01-01 00:00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_is_written_as_java_writes_it() {
        for (micros, digits, text) in [
            (0, 6, "1970-01-01T00:00:00.000000Z"),
            (1_796_077_792_123_456, 6, "2026-11-30T22:29:52.123456Z"),
            (1_796_077_792_500_000, 3, "2026-11-30T22:29:52.500Z"),
            (1_796_077_792_000_000, 0, "2026-11-30T22:29:52Z"),
            (1_709_251_199_000_001, 6, "2024-02-29T23:59:59.000001Z"),
            (-1, 6, "1969-12-31T23:59:59.999999Z"),
            (253_402_300_800_000_000, 6, "+10000-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(iso(micros, digits), text);
        }
    }

    #[test]
    fn every_day_is_read_back() {
        for day in (-719_162..3_000_000).step_by(17) {
            let micros = day * DAY_SECONDS * MICROS;
            let text = iso(micros, 6).replace('T', " ").replace('Z', "+00").replace("+1", "1");
            assert_eq!(parse(&text), Some(micros), "{text}");
        }
    }
}
