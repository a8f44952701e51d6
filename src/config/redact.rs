//! Takes passwords out of connection strings before anybody sees them.
//!
//! It promises to hide the password of a URL and of `password=`-like settings, also where the text is
//! no proper connection string, and prefers to hide too much: what follows a password is shown only
//! where it cannot be a piece of it.

use std::borrow::Cow;
use std::fmt;

/// What stands where a password was.
const MARK: &str = "***";

/// Settings of libpq (and of those who imitate it) whose value is secret. Matched at the end of a
/// name, so `sslpassword` is one, too.
const SECRET_SETTINGS: [&str; 7] =
    ["password", "passwd", "pwd", "secret", "token", "client_key", "server_key"];

/// Settings that may be shown behind a password. A password that was not quoted or escaped may go
/// on behind what looks like its end, so nothing else is.
const PLAIN_SETTINGS: [&str; 13] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "application_name",
    "target_session_attrs",
    "channel_binding",
];

/// The text without passwords: `postgres://app:***@db/shop`, `host=db password=***`.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(text);
    for hide in [redact_login, redact_query, redact_settings] {
        if let Some(redacted) = hide(&shown) {
            shown = Cow::Owned(redacted);
        }
    }
    shown
}

/// The password before the last `@`, with or without a scheme: one letter of it may be missing.
fn redact_login(text: &str) -> Option<String> {
    let scheme = text.find("://").map(|at| at + 3);
    let start = scheme.unwrap_or(0);
    // A raw password may hold any of `/?#@`, so everything up to the last `@` counts as login.
    let Some(end) = text[start..].rfind('@').map(|at| start + at) else {
        return redact_port(text, scheme?);
    };
    let password = text[start..end].find(':').map(|at| start + at + 1)?;
    // The `@` may also be one of a password that is a setting, and what follows a piece of that.
    let before = &text[..end];
    let doubtful = redact_query(before).or_else(|| redact_settings(before)).is_some();
    let tail = if doubtful { "" } else { &text[end..] };
    Some(format!("{}{MARK}{tail}", &text[..password]))
}

/// A port that is none is a password whose `@` was forgotten.
fn redact_port(text: &str, start: usize) -> Option<String> {
    let end = text[start..].find(['/', '?']).map_or(text.len(), |at| start + at);
    let mut at = start;
    for host in text[start..end].split(',') {
        let name = host.find(']').unwrap_or(0);
        if let Some(colon) = host[name..].find(':').map(|colon| name + colon + 1) {
            let port = &host[colon..];
            if !port.is_empty() && port.parse::<u16>().is_err() {
                return Some(format!("{}{MARK}", &text[..at + colon]));
            }
        }
        at += host.len() + 1;
    }
    None
}

/// Settings of a URL: here a name may be percent-encoded, and nothing but `&` ends a value.
fn redact_query(text: &str) -> Option<String> {
    let scheme = text.find("://")?;
    let query = text[scheme..].find('?').map(|at| scheme + at + 1)?;
    let mut at = query;
    for part in text[query..].split('&') {
        if let Some((name, _)) = part.split_once('=')
            && is_secret(&decoded(name))
        {
            let value = at + name.len() + 1;
            return Some(format!("{}{MARK}{}", &text[..value], tail(&text[at + part.len()..])));
        }
        at += part.len() + 1;
    }
    None
}

fn redact_settings(text: &str) -> Option<String> {
    // ASCII lower case keeps byte positions.
    let lower = text.to_ascii_lowercase();
    let mut search = 0;
    while let Some((name_end, equals)) = next_secret_setting(&lower, search) {
        search = name_end;
        let Some(equals) = equals else { continue };
        let value = equals + 1 + leading_spaces(&lower[equals + 1..]);
        let end = value + value_length(&text[value..]);
        return Some(format!("{}{MARK}{}", &text[..value], tail(&text[end..])));
    }
    None
}

/// What may be shown of a text behind a password's value; secrets in it are hidden, too.
fn tail(text: &str) -> String {
    let separator = |c: char| c.is_whitespace() || c == '&';
    let plain = |part: &str| {
        part.split_once('=').is_some_and(|(name, value)| {
            let name = decoded(name);
            !value.contains(['\'', '\\']) && (is_secret(&name) || PLAIN_SETTINGS.contains(&&*name))
        })
    };
    if !text.starts_with(separator) || !text.split(separator).all(|p| p.is_empty() || plain(p)) {
        return String::new();
    }
    let mut shown = String::new();
    for part in text.split_inclusive(separator) {
        match part.split_once('=') {
            Some((name, value)) if is_secret(&decoded(name)) => {
                let end = value.find(separator).unwrap_or(value.len());
                shown.push_str(&format!("{name}={MARK}{}", &value[end..]));
            }
            Some(_) | None => shown.push_str(part),
        }
    }
    shown
}

fn is_secret(name: &str) -> bool {
    SECRET_SETTINGS.iter().any(|secret| name.ends_with(secret))
}

/// A name as the reader of a URL sees it, in lower case. Broken escapes stay as they are.
fn decoded(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            Some(_) | None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).to_lowercase()
}

/// The end of the next secret name from `from` on, and its equals sign if it has one.
fn next_secret_setting(lower: &str, from: usize) -> Option<(usize, Option<usize>)> {
    let found = SECRET_SETTINGS
        .iter()
        .filter_map(|name| lower[from..].find(name).map(|at| from + at + name.len()))
        .min()?;
    let equals = found + leading_spaces(&lower[found..]);
    Some((found, lower[equals..].starts_with('=').then_some(equals)))
}

fn leading_spaces(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Bytes of a libpq value: quoted (with backslash escapes), or up to a space or `&`.
fn value_length(text: &str) -> usize {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(usize::from(quoted)) {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if quoted && character == '\'' {
            return at + 1;
        } else if !quoted && (character.is_whitespace() || character == '&') {
            return at;
        }
    }
    text.len()
}

/// Holds something whose `Debug` must not show.
pub(super) struct Hidden<T>(pub(super) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        for (text, shown) in [
            ("postgres://app:hunter2@db:5432/shop", "postgres://app:***@db:5432/shop"),
            ("postgres://app:hun/t@er?2@db/shop", "postgres://app:***@db/shop"),
            ("postgres://:hunter2@db", "postgres://:***@db"),
            (
                "postgres://db/shop?user=a&password=hunter2&sslmode=require&x=1",
                "postgres://db/shop?user=a&password=***",
            ),
            (
                "postgres://db/shop?user=a&password=hunter2&sslmode=require&sslpassword=hunter2",
                "postgres://db/shop?user=a&password=***&sslmode=require&sslpassword=***",
            ),
            ("host=db password=hunter2 user=a", "host=db password=*** user=a"),
            ("host=db PASSWORD = 'hun ter\\'2' user=a", "host=db PASSWORD = *** user=a"),
            ("password='hunter2", "password=***"),
            ("password=hun\\ ter2 user=a", "password=*** user=a"),
            ("sslpassword=hunter2 password=hunter2", "sslpassword=*** password=***"),
            ("password=", "password=***"),
            ("pässword password=hunter2", "pässword password=***"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    #[test]
    fn what_may_be_a_piece_of_a_password_is_hidden_with_it() {
        for (text, shown) in [
            // Accepted, and misread by whoever looks for libpq's plain spelling alone.
            ("postgres://u@db/shop?pass%77ord=hunter2", "postgres://u@db/shop?pass%77ord=***"),
            ("postgres://u@db/shop?password='a'hunter2", "postgres://u@db/shop?password=***"),
            ("postgres://u@db/shop?password=a hunter2", "postgres://u@db/shop?password=***"),
            ("postgres://u:p@db:1/shop?password=x@hunter2", "postgres://u:***"),
            ("postgres://u@db:1/shop?password=x@hunter2", "postgres://u@db:***"),
            ("host=db password=a&hunter2", "host=db password=***"),
            ("user=u password=a://b?hunter2", "user=u password=***"),
            ("scram_client_key=hunter2", "scram_client_key=***"),
            // Refused, and shown with the reason.
            ("host=db password=my hunter2=3 x", "host=db password=***"),
            ("host=db password='my'hunter2'", "host=db password=***"),
            ("host=db password='my' hunter2'", "host=db password=***"),
            ("postgres:/u:hunter2@db/shop", "postgres:***@db/shop"),
            ("u:hunter2@db/shop", "u:***@db/shop"),
            ("postgres://u:hunter2/shop", "postgres://u:***"),
            ("postgres://[::1]:1,u:hunter2", "postgres://[::1]:1,u:***"),
            ("host=db;password=hunter2;user=a", "host=db;password=***"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    #[test]
    fn what_has_no_password_is_left_alone() {
        for text in [
            "",
            "postgres://db/shop",
            "postgres://app@db/shop",
            "host=db user=a",
            "postgres://[::1]:5432,db:1/shop?sslmode=require",
            "x@c",
            "info,a::b=debug",
            "the password",
        ] {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
