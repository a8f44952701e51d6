//! The house style as a test: what a reviewer would otherwise have to remember.
//!
//! It reads the repository as text, with the standard library alone, and takes well under a
//! second. Each rule is a function from a [`Tree`] to a list of [`Finding`]s; each module plants
//! the mistake it is there to find, so that a rule that has gone blind fails too.
//!
//! - [`layers`]: imports point one way.
//! - [`shape`]: file headers, sizes, function lengths, names, dead files.
//! - [`links`]: every link and every path that the documents name exists, every page can be reached.
//! - [`documented`]: configuration keys, metrics and the six hops read in the documents as in the code.

mod documented;
mod imports;
mod layers;
mod links;
mod masked;
mod shape;
mod tree;

use tree::{Finding, Tree};

/// Fails with every finding at once, one a line.
fn expect_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} finding(s):\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn imports_point_one_way() {
    expect_none(&layers::check(&Tree::of_repository()));
}

#[test]
fn files_keep_their_shape() {
    expect_none(&shape::check(&Tree::of_repository()));
}

#[test]
fn documents_name_what_exists() {
    expect_none(&links::check(&Tree::of_repository()));
}

#[test]
fn documents_say_what_the_code_says() {
    expect_none(&documented::check(&Tree::of_repository()));
}
