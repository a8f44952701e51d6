//! The shape of a file: its header, its size, the length of its functions, its name, its use.

use std::collections::BTreeSet;

use crate::masked::{masked, without_tests};
use crate::tree::{Finding, Tree, line_of};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Names that say nothing of what is inside, and so attract everything.
const BANNED_MODULES: [&str; 12] = [
    "util", "utils", "common", "misc", "types", "core", "base", "helper", "helpers", "shared",
    "manager", "stuff",
];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let masked = masked(text);
        findings.extend(header(path, text));
        findings.extend(size(path, without_tests(&masked)));
        findings.extend(functions(path, &masked));
        findings.extend(name(path));
        findings.extend(leftovers(path, text));
    }
    findings.extend(dead_files(tree));
    findings
}

fn header(path: &str, text: &str) -> Option<Finding> {
    let what = "must start with `//!`: what it promises, what it refuses, why it exists";
    (!text.starts_with("//! ")).then(|| Finding::new(path, what))
}

fn code_lines(masked: &str) -> usize {
    masked.lines().filter(|line| !line.trim().is_empty()).count()
}

fn size(path: &str, code: &str) -> Option<Finding> {
    let lines = code_lines(code);
    let what =
        format!("{lines} code lines, {FILE_LINES_MAX} at most: it has two subjects, split it");
    (lines > FILE_LINES_MAX).then(|| Finding::new(path, what))
}

fn functions(path: &str, masked: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (start, _) in masked.match_indices("fn ") {
        let begins_a_word = masked[..start].ends_with(|c: char| !c.is_alphanumeric() && c != '_');
        if start > 0 && !begins_a_word {
            continue;
        }
        let Some(body) = body_of(masked, start) else { continue };
        // As the compiler's own lint counts: what stands between the braces.
        let lines = code_lines(body);
        if lines > FUNCTION_LINES_MAX {
            let name: String = masked[start + 3..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let place = format!("{path}:{}", line_of(masked, start));
            let what =
                format!("function {name} has {lines} code lines, {FUNCTION_LINES_MAX} at most");
            findings.push(Finding::new(place, what));
        }
    }
    findings
}

/// Between the braces of the function that starts here; `None` for a declaration or a type.
fn body_of(masked: &str, start: usize) -> Option<&str> {
    let open = start + masked[start..].find(['{', ';'])?;
    if masked[open..].starts_with(';') {
        return None;
    }
    let mut depth = 0;
    for (offset, character) in masked[open..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&masked[open + 1..open + offset]);
        }
    }
    None
}

fn name(path: &str) -> Option<Finding> {
    let parts = path.trim_end_matches(".rs").split('/');
    let banned = parts.into_iter().find(|part| BANNED_MODULES.contains(part))?;
    Some(Finding::new(path, format!("`{banned}` is not a module name: say what is inside")))
}

fn leftovers(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Spelled apart, so that this file does not find itself.
    for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        for (byte, _) in text.match_indices(mark) {
            let place = format!("{path}:{}", line_of(text, byte));
            findings.push(Finding::new(place, format!("{mark}: do it, or say what is so and why")));
        }
    }
    findings
}

/// A file that no `mod` leads to is not compiled, not tested and not true.
fn dead_files(tree: &Tree) -> Vec<Finding> {
    let is_root = |path: &str| {
        matches!(path, "src/lib.rs" | "build.rs")
            || path.starts_with("src/bin/")
            || path.starts_with("benches/")
            || path.starts_with("fuzz/fuzz_targets/")
            || (path.starts_with("tests/") && path.ends_with("/main.rs"))
    };
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> =
        tree.ending(".rs").map(|(path, _)| path.to_owned()).filter(|path| is_root(path)).collect();
    while let Some(path) = open.pop() {
        let Some(text) = tree.files.get(&path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        open.extend(declared_modules(&path, &masked(text)));
    }
    let what = "is a dead file: no `mod` leads to it";
    let dead = tree.ending(".rs").filter(|(path, _)| !reached.contains(*path));
    dead.map(|(path, _)| Finding::new(path, what)).collect()
}

/// Where the modules that a file declares may stand; one of the two exists.
fn declared_modules(path: &str, masked: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let owns_its_folder = ["/mod.rs", "/lib.rs", "/main.rs"].iter().any(|end| path.ends_with(end));
    let folder =
        if owns_its_folder { folder.to_owned() } else { path.trim_end_matches(".rs").into() };
    let mut paths = Vec::new();
    for line in masked.lines() {
        let Some(name) = line.trim().strip_suffix(';').and_then(|line| {
            let (before, name) = line.rsplit_once("mod ")?;
            (before.is_empty() || before.starts_with("pub")).then_some(name)
        }) else {
            continue;
        };
        paths.push(format!("{folder}/{name}.rs"));
        paths.push(format!("{folder}/{name}/mod.rs"));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::planted(files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_overlong_function_is_found_and_comments_are_free() {
        let long = format!("//! x\nfn long() {{\n{}}}\n", "    step();\n".repeat(71));
        assert_eq!(
            found(&[("src/lib.rs", &long)]),
            ["src/lib.rs:2: function long has 71 code lines, 70 at most"]
        );
        let explained = format!(
            "//! x\nfn short() {{\n{}{}}}\n",
            "    step();\n".repeat(70),
            "    // why {\n".repeat(40)
        );
        assert_eq!(found(&[("src/lib.rs", &explained)]), [""; 0]);
    }

    #[test]
    fn an_overlong_file_is_found_and_its_tests_are_free() {
        let long = format!("//! x\n{}", "static X: u8 = 1;\n".repeat(401));
        assert_eq!(found(&[("src/lib.rs", &long)]).len(), 1);
        let tested =
            format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "static X: u8 = 1;\n".repeat(500));
        assert_eq!(found(&[("src/lib.rs", &tested)]), [""; 0]);
    }

    #[test]
    fn a_dead_file_is_found_and_nested_modules_are_reached() {
        let files = [
            ("src/lib.rs", "//! x\npub mod a;\nmod b;\n"),
            ("src/a/mod.rs", "//! x\nmod inner;\n"),
            ("src/a/inner.rs", "//! x\n"),
            ("src/b.rs", "//! x\npub(crate) mod c;\n"),
            ("src/b/c.rs", "//! x\n"),
            ("src/a/left.rs", "//! x\n"),
            ("tests/services/main.rs", "//! x\nmod relay;\n"),
            ("tests/services/relay.rs", "//! x\n"),
        ];
        assert_eq!(found(&files), ["src/a/left.rs: is a dead file: no `mod` leads to it"]);
    }

    #[test]
    fn a_missing_header_a_junk_drawer_and_a_leftover_are_found() {
        assert_eq!(found(&[("src/lib.rs", "fn f() {}\n")]).len(), 1);
        let drawer = [("src/lib.rs", "//! x\nmod utils;\n"), ("src/utils.rs", "//! x\n")];
        assert_eq!(
            found(&drawer),
            ["src/utils.rs: `utils` is not a module name: say what is inside"]
        );
        let leftover = format!("//! x\n// {}: later\n", concat!("TO", "DO"));
        assert_eq!(found(&[("src/lib.rs", &leftover)]).len(), 1);
    }
}
