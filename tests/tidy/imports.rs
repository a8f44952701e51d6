//! Every path of our own crate that a file names, whether imported or written out.

/// A path such as `["drill", "cluster"]`, from the crate's root, and the byte where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: Vec<String>,
    pub(crate) byte: usize,
}

/// Paths that start at `crate`, `postrider`, `super` or `self`, with the groups of a `use` expanded.
///
/// `module` is the file's own module path; `source` is masked text.
pub(crate) fn named_paths(source: &str, module: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = next_word(source, &mut at) {
        let starts_a_path = matches!(word.text, "crate" | "super" | "postrider" | "self")
            && source[word.end..].trim_start().starts_with("::")
            && !source[..word.start].trim_end().ends_with("::");
        if !starts_a_path {
            continue;
        }
        let mut trees = Vec::new();
        at = tree(source, word.start, &[], &mut trees);
        for path in trees {
            if let Some(path) = from_root(&path, module) {
                found.push(Named { path, byte: word.start });
            }
        }
    }
    found
}

struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The next identifier from `at` on; moves `at` behind it.
fn next_word<'a>(source: &'a str, at: &mut usize) -> Option<Word<'a>> {
    let start = *at + source[*at..].find(is_name)?;
    let end = source[start..].find(|c| !is_name(c)).map_or(source.len(), |length| start + length);
    *at = end;
    Some(Word { text: &source[start..end], start, end })
}

/// Reads one path or group from `at`, adding each whole path; returns the byte behind it.
fn tree(source: &str, at: usize, before: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let skip = |at: usize| at + source[at..].len() - source[at..].trim_start().len();
    let mut at = skip(at);
    if source[at..].starts_with('{') {
        at += 1;
        loop {
            at = skip(at);
            match source[at..].chars().next() {
                Some('}') => return at + 1,
                Some(',') => at += 1,
                Some(_) => {
                    let next = tree(source, at, before, out);
                    at = if next > at { next } else { at + 1 };
                }
                None => return at,
            }
        }
    }
    let mut end = at;
    let Some(word) = next_word(source, &mut end).filter(|word| word.start == at) else {
        // `*` or something that is no path: what stands before is the whole of it.
        out.push(before.to_vec());
        return at + usize::from(source[at..].starts_with('*'));
    };
    let mut path = before.to_vec();
    path.push(word.text.to_owned());
    let behind = skip(end);
    if source[behind..].starts_with("::") && !source[behind + 2..].starts_with('<') {
        return tree(source, behind + 2, &path, out);
    }
    out.push(path);
    let mut alias = behind;
    if next_word(source, &mut alias).is_some_and(|word| word.text == "as" && word.start == behind) {
        next_word(source, &mut alias);
        return alias;
    }
    end
}

/// Turns `crate::a`, `super::a`, `self::a` into the path from the root; `None` for other crates.
fn from_root(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut base: Vec<String> = module.to_vec();
    let mut rest = path;
    loop {
        match rest.first().map(String::as_str) {
            Some("crate" | "postrider") => base.clear(),
            Some("super") => {
                base.pop()?;
            }
            Some("self") => {}
            _ => break,
        }
        rest = &rest[1..];
    }
    base.extend(rest.iter().filter(|part| *part != "self").cloned());
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
        named_paths(source, &module).into_iter().map(|named| named.path.join("::")).collect()
    }

    #[test]
    fn groups_nested_groups_globs_and_aliases_are_expanded() {
        let source = "use crate::{a::{b, c::*}, d as e, f::{self, g}};";
        assert_eq!(paths(source, &["x"]), ["a::b", "a::c", "d", "f", "f::g"]);
    }

    #[test]
    fn written_out_paths_count_too() {
        let source = "fn f() -> crate::a::B { postrider::c::d::<X>(); other::crate_a::b() }";
        assert_eq!(paths(source, &["x"]), ["a::B", "c::d"]);
    }

    #[test]
    fn relative_paths_are_resolved() {
        assert_eq!(paths("use super::y; use self::z;", &["a", "b"]), ["a::y", "a::b::z"]);
        assert_eq!(paths("use super::super::{relay, kafka};", &["a", "b"]), ["relay", "kafka"]);
    }
}
