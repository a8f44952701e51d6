//! What the documents repeat from the code, they repeat exactly.

use crate::tree::{Finding, Tree};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(hops(tree));
    findings
}

/// The table of the six hops stands in README.md for users and in `src/lib.rs` for readers of the
/// code: one text.
fn hops(tree: &Tree) -> Vec<Finding> {
    let rows = |path: &str, prefix: &str| -> Vec<String> {
        let text = tree.files.get(path).map_or("", String::as_str);
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.filter(|line| is_hop(line)).map(str::to_owned).collect()
    };
    let (readme, library) = (rows("README.md", ""), rows("src/lib.rs", "//! "));
    if library.len() != 6 {
        return vec![Finding::new("src/lib.rs", format!("has {} hops, not six", library.len()))];
    }
    let differing = library.iter().filter(|row| !readme.contains(row));
    differing
        .map(|row| Finding::new("README.md", format!("lacks the hop as src/lib.rs has it: {row}")))
        .collect()
}

fn is_hop(line: &str) -> bool {
    let mut characters = line.trim_start_matches("| ").chars();
    line.starts_with("| ")
        && characters.next().is_some_and(|c| c.is_ascii_digit())
        && characters.next() == Some(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_that_reads_differently_is_found() {
        let rows: Vec<String> = (1..=6).map(|n| format!("| {n} hop | does {n} |")).collect();
        let library: String = rows.iter().map(|row| format!("//! {row}\n")).collect();
        let same = Tree::planted(&[("README.md", &rows.join("\n")), ("src/lib.rs", &library)]);
        assert_eq!(hops(&same), []);
        let readme = rows.join("\n").replace("does 3", "did 3");
        let differs = Tree::planted(&[("README.md", &readme), ("src/lib.rs", &library)]);
        assert_eq!(hops(&differs).len(), 1);
        assert_eq!(hops(&Tree::planted(&[])).len(), 1);
    }
}
