//! What Java does, as printed by `java.util.regex.Matcher` of JDK 17, and what ours does.

use super::*;

fn rule(regex: &str, replacement: &str) -> Result<TopicRule, PatternError> {
    TopicRule::pattern(regex)?.with_replacement(replacement)
}

#[test]
fn a_rule_does_what_java_does() {
    let default = ("(?<routedByValue>.*)", "outbox.event.${routedByValue}");
    for ((regex, replacement), text, expected) in [
        (default, "order", "outbox.event.order"),
        (default, "", "outbox.event."),
        (default, "größe", "outbox.event.größe"),
        // `.` stops at a line end, so the whole does not match and the text stays as it is.
        (default, "a\nb", "a\nb"),
        (default, "a\u{2028}b", "a\u{2028}b"),
        (("(.*)\\.(.*)", "$2.$1"), "a.b.c", "c.a.b"),
        (("(a)(b)?", "$1-$2"), "a", "a-"),
        (("(.)(.)", "$12"), "xy", "x2"),
        (("(.)", "$11"), "x", "x1"),
        (("(?<a>.*)", "$01"), "q", "q"),
        (("(?<a>.*)", "$0x"), "q", "qx"),
        // The whole matches by the second branch, then the first one is found.
        (("a|ab", "[$0]"), "ab", "[a]b"),
        (("a|ab", "T$0"), "ab", "Tab"),
        (("(?i)order", "o"), "ORDER", "o"),
        (("(?i)task(.*)", "t$1"), "tas\u{212a}1", "tas\u{212a}1"),
        (("(?i:o)rder", "o"), "ORDER", "ORDER"),
        (("(?i)[^a]+", "p"), "xyz", "p"),
        (("\\w+", "w"), "größe", "größe"),
        (("\\d+", "w"), "٣", "٣"),
        (("[^\\d]+", "p"), "ab", "p"),
        (("[\\w.]+", "p"), "a.b", "p"),
        (("\\S+\\b", "p"), "ab", "p"),
        (("order", "x"), "orders", "orders"),
        (("(.*)", "\\$1\\\\$1"), "q", "$1\\q"),
        (("[^.]+\\.(?<x>.+)", "$1-${x}"), "shop.order", "order-order"),
        (("", "p$0"), "x", "x"),
        (("", "p$0"), "", "p"),
        (("a$", "p"), "a\n", "a\n"),
        (("^a$", "p"), "a", "p"),
        (("a]}", "p"), "a]}", "p"),
        (("[a-]", "p"), "-", "p"),
        (("\\x41\\u0042\\t", "p"), "AB\t", "p"),
        (("(?<a1>x)(?<b>y)", "${b}${a1}"), "xy", "yx"),
        (("\\_\\-\\/\\.", "p"), "_-/.", "p"),
        (("(?:a|b){1,2}?c*?", "p"), "ab", "pb"),
        ((".*?", "x"), "ab", "xab"),
        (("(a)|b", "[$1]"), "b", "[]"),
        (("\\W\\D\\S", "x"), "ü-ä", "x"),
        (("\\s", "x"), "\u{b}", "x"),
    ] {
        let rule = rule(regex, replacement).unwrap_or_else(|error| panic!("{regex}: {error}"));
        assert_eq!(rule.apply(text), expected, "{regex} {replacement} {text:?}");
    }
}

#[test]
fn what_means_something_else_here_is_refused_by_name() {
    for (regex, says) in [
        ("(?=a)b", "look-ahead"),
        ("(?!a)b", "look-ahead"),
        ("(?<=a)b", "look-behind"),
        ("(?<!a)b", "look-behind"),
        ("(?>a)", "atomic"),
        ("x*+", "possessive"),
        ("x{2}+", "possessive"),
        ("(a)\\1", "back-references"),
        ("(?<a>b)\\k<a>", "back-references"),
        ("\\Qa.b\\E", "\\Q…\\E"),
        ("\\p{Alpha}+", "\\p"),
        ("\\h", "\\h"),
        ("\\B", "\\B"),
        ("(?m)a", "(?m"),
        ("(?P<a>b)", "(?P"),
        ("(?ix)a", "inline flags"),
        ("[a&&b]", "&&"),
        ("[a--b]", "--"),
        ("[a~~b]", "~~"),
        ("[]a]", "begins with ]"),
        ("[a[b]c]+", "inside of a class"),
        ("[[:alpha:]]", "inside of a class"),
        ("a{,2}", "followed by a number"),
        ("{", "followed by a number"),
        ("a{2", "no closing brace"),
        ("[a", "no closing bracket"),
        ("a\\", "backslash"),
        ("\\x4", "hex digits"),
        ("(a", "unclosed group"),
        ("(?<1a>b)", "capture group"),
        ("(?", "inside of a group"),
        ("*a", "repetition operator"),
    ] {
        let error = TopicRule::pattern(regex).unwrap_err().to_string();
        assert!(error.contains(says), "{regex}: {error}");
    }
}

#[test]
fn a_replacement_that_java_refuses_is_refused() {
    for (replacement, says) in [
        ("${nix}", "no group named \"nix\""),
        ("${1a}", "no group named"),
        ("${a", "closing brace"),
        ("$2", "no group 2: the regex has 1"),
        ("$", "lone $"),
        ("a$b", "lone $"),
        ("a\\", "backslash"),
    ] {
        let error = rule("(.*)", replacement).unwrap_err().to_string();
        assert!(error.contains(says), "{replacement}: {error}");
    }
}

#[test]
fn a_pattern_is_bounded() {
    let long = "a".repeat(PATTERN_BYTES_MAX + 1);
    assert!(TopicRule::pattern(&long).unwrap_err().to_string().contains("1024 bytes"));
    let huge = TopicRule::pattern("(((a{1000}){1000}){1000})").unwrap_err().to_string();
    assert!(huge.contains("size limit"), "{huge}");
}

/// Random patterns from Java's alphabet: a rule or a refusal, never a panic.
#[test]
fn any_pattern_gives_a_rule_or_a_refusal() {
    let parts = [
        "a",
        "(",
        ")",
        "[",
        "]",
        "^",
        "-",
        "\\",
        "d",
        "?",
        "<n>",
        "*",
        "+",
        "{",
        "1",
        ",",
        "}",
        "|",
        "$",
        ".",
        "&",
        ":",
        "i",
        "ü",
        "{n}",
        "\u{10ffff}",
        "0",
    ];
    for seed in crate::property::seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = |most| -> String {
            (0..random.usize(..most)).map(|_| parts[random.usize(..parts.len())]).collect()
        };
        let (regex, replacement, topic) = (text(12), text(6), text(6));
        if let Ok(rule) = rule(&regex, &replacement) {
            assert!(rule.apply(&topic).len() < 10_000);
        }
    }
}
