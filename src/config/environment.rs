//! The second source: environment variables `PREFIX__SECTION__KEY`.
//!
//! It promises that every variable that starts with the prefix and two underscores is either a
//! known key or a problem, and refuses to touch others, except to point out one that was evidently
//! meant for us (`PREFIX_LOG_LEVEL`).

use std::ffi::OsString;

use super::Values;
use super::catalogue::Catalogue;
use super::nearest::nearest;
use super::origin::{Origin, Raw};
use super::problem::{Problem, Problems};

/// Two underscores: one may be part of a word.
const SEPARATOR: &str = "__";

/// The variable of a key.
pub(super) fn variable(prefix: &str, path: &str) -> String {
    format!("{prefix}{SEPARATOR}{}", path.replace('.', SEPARATOR).to_uppercase())
}

/// Takes the variables that are ours, and says whether all were understood.
pub(super) fn admit(
    prefix: &str,
    variables: &[(OsString, OsString)],
    catalogue: &Catalogue,
    values: &mut Values,
    problems: &mut Problems,
) -> bool {
    let mut understood = true;
    // An environment has no order of its own; reports should.
    let mut ours: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.to_string_lossy(), value))
        .filter(|(name, _)| name.starts_with(&format!("{prefix}_")))
        .collect();
    ours.sort();
    for (name, value) in ours {
        let known = known(prefix, &name, catalogue);
        let problem = match (known, value.to_str()) {
            (Some(path), Some(value)) => {
                values.insert(path, Raw::words(value, Origin::Variable(name.into())));
                continue;
            }
            (Some(path), None) => Problem::new(path, "must be UTF-8", "the variable is not")
                .at(Origin::Variable(name.into())),
            (None, _) => match unknown(prefix, &name, catalogue) {
                Some(problem) => problem,
                None => continue,
            },
        };
        problems.push(problem);
        understood = false;
    }
    understood
}

/// The key that a variable means.
fn known(prefix: &str, name: &str, catalogue: &Catalogue) -> Option<String> {
    let listed = catalogue.paths().find(|path| variable(prefix, path) == name).map(str::to_owned);
    // Keys under a name are not listed: any name will do.
    listed.or_else(|| {
        let path = name.strip_prefix(&format!("{prefix}{SEPARATOR}"))?;
        let path = path.replace(SEPARATOR, ".").to_lowercase();
        let known = catalogue.kind(&path).is_some() && variable(prefix, &path) == name;
        known.then_some(path)
    })
}

fn unknown(prefix: &str, name: &str, catalogue: &Catalogue) -> Option<Problem> {
    if let Some(path) = name.strip_prefix(&format!("{prefix}{SEPARATOR}")) {
        let path = path.replace(SEPARATOR, ".").to_lowercase();
        let why = catalogue.unknown(&path, |known| variable(prefix, known));
        return Some(Problem::new(name, "unknown variable", why));
    }
    // With one underscore it may be somebody else's. Only the same letters, give or take a typo,
    // make it ours.
    let letters = |name: &str| name.replace('_', "").to_uppercase();
    let known: Vec<_> = catalogue.paths().map(|path| variable(prefix, path)).collect();
    let squeezed: Vec<_> = known.iter().map(|variable| letters(variable)).collect();
    let own = letters(name);
    let near = |candidate: &str| strsim::damerau_levenshtein(&own, candidate) <= TYPOS_MAX;
    let meant = nearest(&own, squeezed.iter().map(String::as_str).filter(|c| near(c)))?;
    let at = squeezed.iter().position(|candidate| candidate == meant)?;
    let why = format!("parts are joined by two underscores: did you mean {}?", known[at]);
    Some(Problem::new(name, "unknown variable", why))
}

/// Letters by which a variable with one underscore may differ from one of ours. Two is a swapped or
/// doubled letter; with more, `PREFIX_PG_BIN` could become a key.
const TYPOS_MAX: usize = 2;
