//! Documents: every link leads somewhere, every path they name exists, every page can be reached.

use std::collections::BTreeSet;

use crate::tree::{Finding, Tree, line_of};

/// A path in a code span counts as a claim when it starts in one of these.
const OUR_FOLDERS: [&str; 11] = [
    "src/",
    "tests/",
    "docs/",
    "sql/",
    "config/",
    "docker/",
    "runbooks/",
    "benches/",
    "fuzz/",
    "tools/",
    ".ci/",
];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        for link in links(text) {
            findings.extend(broken(tree, path, text, &link));
        }
        for (byte, span) in code_spans(text) {
            if is_path(span) && !tree.holds(span) {
                let place = format!("{path}:{}", line_of(text, byte));
                findings.push(Finding::new(place, format!("names {span}, which does not exist")));
            }
        }
    }
    findings.extend(unreachable(tree));
    findings
}

struct Link {
    byte: usize,
    target: String,
}

/// The targets of `[text](target)`, outside code blocks.
fn links(text: &str) -> Vec<Link> {
    let prose = without_fences(text);
    let mut links = Vec::new();
    for (byte, _) in prose.match_indices("](") {
        let rest = &prose[byte + 2..];
        if let Some(end) = rest.find([')', '\n']) {
            links.push(Link { byte, target: rest[..end].to_owned() });
        }
    }
    links
}

/// Fenced code blanked out, so that bytes keep their places.
fn without_fences(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let fence = line.trim_start().starts_with("```");
        if inside || fence {
            out.extend(line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(line);
        }
        inside ^= fence;
    }
    out
}

fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let prose = without_fences(text);
    let ticks: Vec<usize> = prose.match_indices('`').map(|(byte, _)| byte).collect();
    ticks.chunks_exact(2).map(|pair| (pair[0], &text[pair[0] + 1..pair[1]])).collect()
}

fn is_path(span: &str) -> bool {
    OUR_FOLDERS.iter().any(|folder| span.starts_with(folder))
        && !span.contains(|c: char| c.is_whitespace() || "*<>{}$(:".contains(c))
}

fn broken(tree: &Tree, path: &str, text: &str, link: &Link) -> Option<Finding> {
    let place = format!("{path}:{}", line_of(text, link.byte));
    if link.target.starts_with("https://") {
        return None;
    }
    let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
    let target = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
    if !tree.holds(&target) {
        return Some(Finding::new(place, format!("links to {target}, which does not exist")));
    }
    let known = anchor.is_empty()
        || tree.files.get(&target).is_some_and(|text| anchors(text).contains(anchor));
    (!known).then(|| Finding::new(place, format!("links to {target}#{anchor}: no such heading")))
}

/// `file` as seen from the folder of `from`.
fn resolve(from: &str, file: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Headings as a forge makes anchors of them.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = without_fences(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// A page that no other page leads to is not read.
fn unreachable(tree: &Tree) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    let mut open = vec!["README.md".to_owned()];
    while let Some(path) = open.pop() {
        let Some(text) = tree.files.get(&path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        for link in links(text) {
            let file = link.target.split('#').next().unwrap_or_default();
            if !file.starts_with("https://") && !file.is_empty() {
                open.push(resolve(&path, file));
            }
        }
    }
    let pages = tree.ending(".md").map(|(path, _)| path);
    let lost = pages.filter(|path| !reached.contains(*path) && !path.starts_with("fuzz/"));
    lost.map(|path| Finding::new(path, "no page links to it, from README.md on")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::planted(files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_dead_link_a_dead_anchor_and_a_dead_path_are_found() {
        let readme =
            "# Top\n[a](docs/a.md) [b](docs/b.md#two-words) [c](docs/b.md#none)\n`src/x.rs` `src/`";
        let files = [
            ("README.md", readme),
            ("docs/b.md", "## Two words!\n[up](../README.md#top)"),
            ("src/lib.rs", ""),
        ];
        assert_eq!(
            found(&files),
            [
                "README.md:2: links to docs/a.md, which does not exist",
                "README.md:2: links to docs/b.md#none: no such heading",
                "README.md:3: names src/x.rs, which does not exist",
            ]
        );
    }

    #[test]
    fn code_blocks_patterns_and_the_web_are_left_alone() {
        let readme = "```\n[a](b.md) `src/x.rs`\n```\n`src/*.rs` `tests/<name>` [w](https://kafka.apache.org/)";
        assert_eq!(found(&[("README.md", readme)]), [""; 0]);
    }

    #[test]
    fn a_page_that_nobody_links_to_is_found() {
        let files = [("README.md", "[a](docs/a.md)"), ("docs/a.md", ""), ("docs/lost.md", "")];
        assert_eq!(found(&files), ["docs/lost.md: no page links to it, from README.md on"]);
    }
}
