//! Finds the known name that a misspelled one was meant to be.
//!
//! It promises a suggestion only when it is near enough to be believed: a wrong one sends an
//! operator the wrong way.

/// Share of characters that may differ. At a third, `tabel` still finds `table`, and `role` no
/// longer finds `rule_set`.
const DISTANCE_MAX: f64 = 0.34;

/// The candidate nearest to `name`, if one is near enough.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let like = strsim::normalized_damerau_levenshtein(&lower, &candidate.to_lowercase());
            (candidate, 1.0 - like)
        })
        .filter(|(_, distance)| *distance <= DISTANCE_MAX)
        .min_by(|(_, left), (_, right)| left.total_cmp(right))
        .map(|(candidate, _)| candidate)
}

/// The dotted path nearest to `path`: near as a whole, or the same last word in another section.
pub(super) fn nearest_path<'a>(
    path: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_lowercase();
    // A key in the wrong section is only a hint when a single section has such a key.
    let mut same_word = candidates.clone().into_iter().filter(|known| last(known) == last(path));
    let moved = same_word.next().filter(|_| same_word.next().is_none());
    // A misspelled word in the right section is nearer than it looks: the section's own letters
    // must not make every key of the section look alike.
    let section = path.rsplit_once('.').map(|(section, _)| section);
    let siblings = candidates
        .clone()
        .into_iter()
        .filter(|known| known.rsplit_once('.').map(|(section, _)| section) == section);
    let words: Vec<_> =
        siblings.map(|known| (known, known.rsplit('.').next().unwrap_or(known))).collect();
    let word = nearest(&last(path), words.iter().map(|(_, word)| *word));
    let sibling = words.iter().find(|(_, known)| Some(*known) == word).map(|(known, _)| *known);
    if section.is_some() && !words.is_empty() {
        return sibling.or(moved);
    }
    nearest(path, candidates).or(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = [
        "log.level",
        "log.format",
        "outbox.table",
        "postgres.url",
        "postgres.pool_size",
        "postgres.password",
    ];

    #[test]
    fn typos_find_what_was_meant() {
        for (typo, meant) in [
            ("log.levle", "log.level"),
            ("outbox.tabel", "outbox.table"),
            ("postgre.url", "postgres.url"),
            ("postgres.poolsize", "postgres.pool_size"),
            ("postgres.pasword", "postgres.password"),
            ("POSTGRES.URL", "postgres.url"),
            ("level", "log.level"),
            ("postgres.table", "outbox.table"),
        ] {
            assert_eq!(nearest_path(typo, KNOWN), Some(meant), "{typo}");
        }
    }

    #[test]
    fn what_is_far_suggests_nothing() {
        for name in ["", "kafka.bootstrap", "postgres.x", "log.rotation", "zzz"] {
            assert_eq!(nearest_path(name, KNOWN), None, "{name}");
        }
        assert_eq!(nearest("jsno", ["auto", "human", "json"]), Some("json"));
        assert_eq!(nearest("xml", ["auto", "human", "json"]), None);
    }
}
