//! What the documents repeat from the code, they repeat exactly.

use postrider::config::{Settings as _, reference_table};
use postrider::observe::metrics;
use postrider::relay::RunConfig;

use crate::tree::{Finding, Tree};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(hops(tree));
    findings.extend(table(tree, "docs/configuration.md", &reference_table(&RunConfig::keys())));
    findings.extend(table(tree, "docs/metrics.md", &metrics::reference_table()));
    findings
}

/// A page holds exactly the rows of a table that the code renders: none missing, none left over.
fn table(tree: &Tree, page: &str, rendered: &str) -> Vec<Finding> {
    let text = tree.files.get(page).map_or("", String::as_str);
    let rows = |text: &str| -> Vec<String> {
        // A key or a metric has a dot or an underscore in its name; other tables are not ours to judge.
        let named = |line: &&str| {
            let name = line.strip_prefix("| `").and_then(|rest| rest.split('`').next());
            name.is_some_and(|name| name.contains(['.', '_']))
        };
        text.lines().filter(named).map(str::to_owned).collect()
    };
    let (written, rendered) = (rows(text), rows(rendered));
    let missing = rendered.iter().filter(|row| !written.contains(row));
    let left_over = written.iter().filter(|row| !rendered.contains(row));
    missing
        .map(|row| Finding::new(page, format!("lacks the row {row}")))
        .chain(
            left_over.map(|row| Finding::new(page, format!("has a row the code does not: {row}"))),
        )
        .collect()
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
    fn a_missing_and_a_left_over_row_are_found() {
        let rendered = "| key | what |\n|---|---|\n| `a.b` | one |\n| `a.c` | two |\n";
        let same = Tree::planted(&[("docs/x.md", rendered)]);
        assert_eq!(table(&same, "docs/x.md", rendered), []);
        let differs = Tree::planted(&[("docs/x.md", "| `a.b` | one |\n| `a.c` | three |\n")]);
        assert_eq!(table(&differs, "docs/x.md", rendered).len(), 2);
    }

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
