//! Rust source with comments, strings and characters blanked out, byte for byte.
//!
//! Braces, semicolons and paths can then be counted without being fooled by text. Not a parser:
//! it knows just enough of the lexical grammar, and its tests hold the cases that matter.

/// `source` with every byte of a comment or a literal's inside replaced by a space; line ends stay.
pub(crate) fn masked(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !follows_name(bytes, at) => raw_string_end(bytes, at).unwrap_or(at),
            b'b' if !follows_name(bytes, at) && bytes.get(at + 1) == Some(&b'r') => {
                raw_string_end(bytes, at + 1).unwrap_or(at)
            }
            b'\'' => character_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end > at {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(out).expect("whole literals were blanked, so what is left is UTF-8")
}

/// The part before the file's test module: what the size and layer rules are about.
pub(crate) fn without_tests(masked: &str) -> &str {
    masked.find("#[cfg(test)]\nmod ").map_or(masked, |start| &masked[..start])
}

fn follows_name(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `start` is at the `r` of `r"`, `r#"` and so on; `None` when it only looks like it.
fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = [b'"'].into_iter().chain(std::iter::repeat_n(b'#', hashes)).collect();
    let length = bytes[open + 1..].windows(close.len()).position(|window| window == close)?;
    Some(open + 1 + length + close.len())
}

/// A character literal, not a lifetime: `'x'` or `'\…'`.
fn character_end(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start + 1) == Some(&b'\\') {
        let length = bytes[start + 3..].iter().position(|byte| *byte == b'\'')?;
        return Some(start + 3 + length + 1);
    }
    let rest = std::str::from_utf8(&bytes[start + 1..]).ok()?;
    let width = rest.chars().next()?.len_utf8();
    (bytes.get(start + 1 + width) == Some(&b'\'')).then_some(start + width + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_literals_and_comments_is_blanked() {
        let source =
            "a(\"{ \\\" }\"); // }\n/* { /* } */ { */ r#\"} \" }\"#; '{'; '\\''; 'a: loop {}\n";
        let masked = masked(source);
        assert_eq!(masked.len(), source.len());
        assert_eq!(masked.matches('{').count(), 1, "{masked}");
        assert_eq!(masked.matches('}').count(), 1, "{masked}");
        assert_eq!(masked.matches('\n').count(), 2);
        assert!(masked.contains("'a: loop"), "a lifetime is code: {masked}");
    }

    #[test]
    fn a_name_that_ends_in_r_is_not_a_raw_string() {
        assert_eq!(masked("for \"x\""), "for    ");
        assert_eq!(masked("attr#"), "attr#");
    }
}
