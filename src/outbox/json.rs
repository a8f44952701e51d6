//! What valid JSON Postgres does not take, so that it is refused before it aborts a transaction.
//!
//! Pure, one pass over a text that is valid JSON already. `json` keeps any text that is not nested
//! too deep; `jsonb` reads it, and so refuses what its own strings and numbers cannot hold.

/// Postgres descends by recursion, and gives up at its `max_stack_depth`: with the default of 2 MB
/// at some thousands. Consumers give up far earlier, many at 128.
const DEPTH_MAX: usize = 1000;

/// `numeric` ends at 16383 digits behind the point and 131072 before it. What is left out between
/// the two is nobody's number.
const DIGITS_MAX: usize = 16_000;

/// Why Postgres would not take `text`, which must be valid JSON, and the way out.
pub(super) fn fault(text: &str, jsonb: bool) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Some(
                        "it is nested deeper than 1000 levels: use a bytea or text column",
                    );
                }
            }
            b']' | b'}' => depth -= 1,
            b'"' => {
                let end = string_end(bytes, at + 1);
                if jsonb && let Some(fault) = string_fault(&text[at + 1..end]) {
                    return Some(fault);
                }
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let rest = &text[at..];
                let inside = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
                let number = &rest[..rest.find(|c| !inside(c)).unwrap_or(rest.len())];
                if jsonb && is_out_of_range(number) {
                    return Some("a number has more than 16000 digits: use a json column");
                }
                at += number.len() - 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where a string's closing quote stands.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at.min(bytes.len())
}

fn string_fault(string: &str) -> Option<&'static str> {
    const SURROGATE: &str = "half of a surrogate pair: json and bytea columns keep it";
    let mut rest = string;
    let mut high = false;
    while let Some(at) = rest.find('\\') {
        if high && at > 0 {
            return Some(SURROGATE);
        }
        let escape = &rest[at + 1..];
        let unit = escape.strip_prefix('u').and_then(|digits| digits.get(..4));
        let unit = unit.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        high = match unit {
            Some(0) => return Some("\\u0000, a NUL character: json and bytea columns keep it"),
            Some(0xdc00..=0xdfff) if high => false,
            Some(0xd800..=0xdbff) if !high => true,
            Some(0xd800..=0xdfff) => return Some(SURROGATE),
            Some(_) | None if high => return Some(SURROGATE),
            Some(_) | None => false,
        };
        // What follows a backslash in valid JSON is one ASCII character.
        rest = escape.get(1..).unwrap_or_default();
        if unit.is_some() {
            rest = rest.get(4..).unwrap_or_default();
        }
    }
    high.then_some(SURROGATE)
}

fn is_out_of_range(number: &str) -> bool {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent = exponent.parse::<i64>().map_or(u64::MAX, i64::unsigned_abs);
    exponent.saturating_add(digits.len() as u64) > DIGITS_MAX as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jsonb_refuses_what_it_cannot_hold() {
        for (text, words) in [
            (r#""\u0000""#, "NUL"),
            (r#"{"a\\":"b\\\u0000"}"#, "NUL"),
            (r#""\ud800""#, "surrogate"),
            (r#""\ud800x\udc00""#, "surrogate"),
            (r#""\ud800\n""#, "surrogate"),
            (r#""\udc00""#, "surrogate"),
            (r#""\ud800\ud800\udc00""#, "surrogate"),
            ("[1, 1E+16000]", "16000 digits"),
            ("-1e-99999999999999999999", "16000 digits"),
        ] {
            assert!(fault(text, true).is_some_and(|fault| fault.contains(words)), "{text}");
            assert_eq!(fault(text, false), None, "{text}");
        }
        let long = "9".repeat(16_001);
        assert!(fault(&long, true).is_some());
    }

    #[test]
    fn what_only_looks_so_is_taken() {
        for text in [
            r#""\\u0000""#,
            r#""\\ud800""#,
            r#""\ud83d\ude00\n""#,
            r#"{"1e99999": "[[[", "\"": 1e-400, "é\"": [-0, 1.5E+3]}"#,
            "",
        ] {
            assert_eq!(fault(text, true), None, "{text}");
        }
    }

    #[test]
    fn depth_has_a_bound_in_either_column() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let wide = format!("[{}1]", "[],{},".repeat(DEPTH_MAX));
        for jsonb in [false, true] {
            assert_eq!(fault(&nested(DEPTH_MAX), jsonb), None);
            assert_eq!(fault(&wide, jsonb), None);
            assert!(fault(&nested(DEPTH_MAX + 1), jsonb).is_some());
        }
    }
}
