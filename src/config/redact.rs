//! Takes passwords out of connection strings before anybody sees them.
//!
//! It promises to hide the password of a URL and of `password=`-like settings, and prefers to hide
//! too much: a malformed string is hidden up to its end rather than shown by mistake.

use std::borrow::Cow;
use std::fmt;

/// What stands where a password was.
const MARK: &str = "***";

/// Settings of libpq (and of those who imitate it) whose value is secret. Matched at the end of a
/// name, so `sslpassword` is one, too.
const SECRET_SETTINGS: [&str; 5] = ["password", "passwd", "pwd", "secret", "token"];

/// The text without passwords: `postgres://app:***@db/shop`, `host=db password=***`.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let url = redact_url(text);
    match redact_settings(&url) {
        Some(redacted) => Cow::Owned(redacted),
        None => url,
    }
}

fn redact_url(text: &str) -> Cow<'_, str> {
    let Some(start) = text.find("://").map(|at| at + 3) else { return Cow::Borrowed(text) };
    // A raw password may hold any of `/?#@`, so everything up to the last `@` counts as login.
    let Some(end) = text[start..].rfind('@').map(|at| start + at) else {
        return Cow::Borrowed(text);
    };
    match text[start..end].find(':').map(|at| start + at + 1) {
        Some(password) => Cow::Owned(format!("{}{MARK}{}", &text[..password], &text[end..])),
        None => Cow::Borrowed(text),
    }
}

fn redact_settings(text: &str) -> Option<String> {
    // ASCII lower case keeps byte positions.
    let lower = text.to_ascii_lowercase();
    let mut out = String::new();
    let mut done = 0;
    let mut search = 0;
    while let Some((name_end, equals)) = next_secret_setting(&lower, search) {
        search = name_end;
        let Some(equals) = equals else { continue };
        let value = equals + 1 + leading_spaces(&lower[equals + 1..]);
        let end = value + value_length(&text[value..]);
        out.push_str(&text[done..value]);
        out.push_str(MARK);
        (done, search) = (end, end);
    }
    (done > 0).then(|| out + &text[done..])
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
                "postgres://db/shop?user=a&password=hunter2&x=1",
                "postgres://db/shop?user=a&password=***&x=1",
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
    fn what_has_no_password_is_left_alone() {
        for text in [
            "",
            "postgres://db/shop",
            "postgres://app@db/shop",
            "host=db user=a",
            "a:b@c",
            "the password",
        ] {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
