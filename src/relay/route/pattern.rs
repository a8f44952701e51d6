//! A topic rule written for Java, and what Java would make of it.
//!
//! `route.topic.regex` and its replacement are Java's. A pattern is translated into the `regex`
//! crate's language where that means the same for every text, and refused by the name of the
//! construct where it would not, or where the crate has no such thing (look-around, back-references).
//! The differences that are translated away: `.` stops at five line ends, not one; `\d`, `\w`, `\s`
//! and `(?i)` are ASCII; `(?<name>…)`.
//!
//! A rule is applied as Kafka's `RegexRouter` does: the *whole* text must match, else it is left as
//! it is; then the *first* match is replaced, which need not be the whole (`a|ab` finds `a` in `ab`).
//!
//! Guarantee: no text makes it panic; time is linear in the text.
//! Bounded by: [`PATTERN_BYTES_MAX`], [`COMPILED_BYTES_MAX`].
//! Tested by: results printed by Java's own `Matcher`, below.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// A pattern for topic names has some dozen characters.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// What a compiled pattern may take: `(a{1000}){1000}` is short to write.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// All that Java's `.` does not match.
const NOT_A_LINE_END: &str = r"(?u:[^\n\r\u{85}\u{2028}\u{2029}])";

/// Why a rule is refused; the text says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

fn refuse<T>(what: impl Into<String>) -> Result<T, PatternError> {
    Err(PatternError(what.into()))
}

/// From the routing column's text to the topic.
#[derive(Debug, Clone)]
pub struct TopicRule {
    whole: Regex,
    first: Regex,
    replacement: Replacement,
}

impl TopicRule {
    /// Translates and compiles a pattern.
    ///
    /// # Errors
    ///
    /// What Java would refuse, and what cannot be translated.
    pub fn pattern(java: &str) -> Result<Pattern, PatternError> {
        if java.len() > PATTERN_BYTES_MAX {
            return refuse(format!("it has more than {PATTERN_BYTES_MAX} bytes"));
        }
        let translated = Translator::new(java).translate()?;
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| {
                // The last line of a syntax error says what is wrong; the others draw a picture.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or("it is not a pattern").trim();
                PatternError(last.strip_prefix("error: ").unwrap_or(last).to_owned())
            })
        };
        let first = compile(&translated)?;
        let whole = compile(&format!(r"\A(?:{translated})\z"))?;
        Ok(Pattern { whole, first })
    }

    /// The topic, or the text itself if the pattern does not match all of it.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        if !self.whole.is_match(text) {
            return text.to_owned();
        }
        let Some(groups) = self.first.captures(text) else { return text.to_owned() };
        let Some(found) = groups.get(0) else { return text.to_owned() };
        let mut topic = text[..found.start()].to_owned();
        for piece in &self.replacement.0 {
            match piece {
                Piece::Literal(literal) => topic.push_str(literal),
                // A group that took no part is empty, as in Java.
                Piece::Group(group) => {
                    topic.push_str(groups.get(*group).map_or("", |g| g.as_str()));
                }
            }
        }
        topic.push_str(&text[found.end()..]);
        topic
    }
}

/// A compiled pattern that has no replacement yet: the two are separate keys of the configuration.
#[derive(Debug, Clone)]
pub struct Pattern {
    whole: Regex,
    first: Regex,
}

impl Pattern {
    /// Adds what a match is replaced with.
    ///
    /// # Errors
    ///
    /// What Java would refuse when it compiles the replacement, or at the first row.
    pub fn with_replacement(self, java: &str) -> Result<TopicRule, PatternError> {
        let replacement = Replacement::parse(java, &self.first)?;
        Ok(TopicRule { whole: self.whole, first: self.first, replacement })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Replacement(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Group(usize),
}

impl Replacement {
    fn parse(java: &str, pattern: &Regex) -> Result<Self, PatternError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = java.chars().peekable();
        while let Some(next) = rest.next() {
            let group = match next {
                '\\' => match rest.next() {
                    Some(escaped) => {
                        literal.push(escaped);
                        continue;
                    }
                    None => return refuse("it ends with a backslash: write two for one"),
                },
                '$' => reference(&mut rest, pattern)?,
                plain => {
                    literal.push(plain);
                    continue;
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Group(group));
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }
}

/// What stands behind a `$`: a group's name in braces, or its number.
fn reference(rest: &mut Peekable<Chars<'_>>, pattern: &Regex) -> Result<usize, PatternError> {
    let groups = pattern.captures_len() - 1;
    if rest.next_if_eq(&'{').is_some() {
        let mut name = String::new();
        loop {
            match rest.next() {
                Some('}') => break,
                Some(letter) => name.push(letter),
                None => return refuse("${ has no closing brace"),
            }
        }
        let named = pattern.capture_names().position(|group| group == Some(name.as_str()));
        return named.map_or_else(
            || refuse(format!("the regex has no group named {name:?}: name one with (?<{name}>…)")),
            Ok,
        );
    }
    let digit = |next: &char| next.is_ascii_digit();
    let Some(first) = rest.next_if(digit) else {
        return refuse("a lone $: write \\$ for the character, $1 or ${name} for a group");
    };
    let value = |digit: char| digit.to_digit(10).map_or(0, |digit| digit as usize);
    let mut group = value(first);
    // More digits belong to the number only as long as there is such a group: `$12` with two groups
    // is group 1 and a 2.
    while let Some(next) = rest.peek().copied().filter(char::is_ascii_digit) {
        let longer = group * 10 + value(next);
        if longer > groups {
            break;
        }
        group = longer;
        rest.next();
    }
    if group > groups {
        return refuse(format!("there is no group {group}: the regex has {groups}"));
    }
    Ok(group)
}

/// Walks a Java pattern and writes the same for the `regex` crate.
struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
}

impl<'a> Translator<'a> {
    fn new(java: &'a str) -> Self {
        Self { rest: java.chars().peekable(), out: String::with_capacity(java.len() * 2) }
    }

    fn translate(mut self) -> Result<String, PatternError> {
        while let Some(next) = self.rest.next() {
            match next {
                '\\' => self.escape(false)?,
                '.' => self.out.push_str(NOT_A_LINE_END),
                '[' => self.class()?,
                '(' => self.group()?,
                '*' | '+' | '?' => {
                    self.out.push(next);
                    self.quantified()?;
                }
                '{' => self.repetition()?,
                // Java's also stands before a line end that ends the text; the whole must match, so
                // that nothing could follow it.
                '$' => self.out.push_str(r"\z"),
                plain => self.out.push(plain),
            }
        }
        Ok(self.out)
    }

    /// Behind a quantifier: `+` would make it possessive.
    fn quantified(&mut self) -> Result<(), PatternError> {
        match self.rest.peek() {
            Some('+') => {
                refuse("a possessive quantifier (*+ ++ ?+ }+) is not supported: leave its + out")
            }
            _ => Ok(()),
        }
    }

    fn repetition(&mut self) -> Result<(), PatternError> {
        self.out.push('{');
        if !self.rest.peek().is_some_and(char::is_ascii_digit) {
            return refuse(
                "{ must be followed by a number, as in {1,3}: write \\{ for the character",
            );
        }
        for next in self.rest.by_ref() {
            self.out.push(next);
            if next == '}' {
                return self.quantified();
            }
        }
        refuse("{ has no closing brace")
    }

    fn group(&mut self) -> Result<(), PatternError> {
        if self.rest.next_if_eq(&'?').is_none() {
            self.out.push('(');
            return Ok(());
        }
        match self.rest.next() {
            Some(':') => self.out.push_str("(?:"),
            Some('<') => match self.rest.peek() {
                Some('=' | '!') => return refuse("look-behind (?<= (?<! is not supported"),
                _ => self.out.push_str("(?<"),
            },
            Some('=' | '!') => return refuse("look-ahead (?= (?! is not supported"),
            Some('>') => return refuse("an atomic group (?> is not supported: write (?:"),
            // ASCII letters alone, as in Java; with Unicode, `k` would also be the Kelvin sign.
            Some('i') => match self.rest.next() {
                Some(end @ (')' | ':')) => {
                    self.out.push_str("(?i-u");
                    self.out.push(end);
                }
                _ => return refuse("of the inline flags only (?i) and (?i:…) are supported"),
            },
            Some(flag) => {
                return refuse(format!(
                    "(?{flag} is not supported: of the inline flags only (?i) is"
                ));
            }
            None => return refuse("it ends inside of a group"),
        }
        Ok(())
    }

    /// `[…]`: the same in both, but for what only one of them gives a meaning to.
    fn class(&mut self) -> Result<(), PatternError> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        // A negated class takes in all of Unicode, even where the rest is ASCII.
        self.out.push_str(if negated { "(?u:[^" } else { "[" });
        if self.rest.peek() == Some(&']') {
            return refuse("a class that begins with ] is not supported: write \\]");
        }
        loop {
            let Some(next) = self.rest.next() else { return refuse("[ has no closing bracket") };
            match next {
                ']' => break,
                '[' => {
                    return refuse("a class inside of a class is not supported: write \\[ for [");
                }
                '\\' => self.escape(true)?,
                '&' | '-' | '~' if self.rest.peek() == Some(&next) => {
                    return refuse(format!("{next}{next} in a class is not supported"));
                }
                plain => self.out.push(plain),
            }
        }
        self.out.push_str(if negated { "])" } else { "]" });
        Ok(())
    }

    fn escape(&mut self, in_class: bool) -> Result<(), PatternError> {
        let Some(escaped) = self.rest.next() else { return refuse("it ends with a backslash") };
        let not = |class: &str| {
            if in_class { format!("[^{class}]") } else { format!("(?u:[^{class}])") }
        };
        const DIGIT: &str = "0-9";
        const WORD: &str = "0-9A-Za-z_";
        const SPACE: &str = r" \t\n\x0B\x0C\r";
        let text = match escaped {
            'd' => format!("[{DIGIT}]"),
            'w' => format!("[{WORD}]"),
            's' => format!("[{SPACE}]"),
            'D' => not(DIGIT),
            'W' => not(WORD),
            'S' => not(SPACE),
            't' | 'n' | 'r' | 'f' | 'a' => format!("\\{escaped}"),
            'A' | 'z' if !in_class => format!("\\{escaped}"),
            'b' if !in_class => r"(?-u:\b)".to_owned(),
            'x' => self.code_point(2)?,
            'u' => self.code_point(4)?,
            '1'..='9' | 'k' => return refuse("back-references (\\1, \\k) are not supported"),
            'Q' | 'E' => return refuse("\\Q…\\E is not supported: put \\ before each character"),
            'p' | 'P' => return refuse("\\p is not supported: list the characters, as in [a-z]"),
            letter if letter.is_alphanumeric() => {
                return refuse(format!("\\{letter} is not supported"));
            }
            character => regex::escape(character.encode_utf8(&mut [0; 4])),
        };
        self.out.push_str(&text);
        Ok(())
    }

    fn code_point(&mut self, digits: usize) -> Result<String, PatternError> {
        let mut text = String::from(r"\x{");
        for _ in 0..digits {
            match self.rest.next_if(char::is_ascii_hexdigit) {
                Some(digit) => text.push(digit),
                None => return refuse("\\x needs two hex digits, \\u four"),
            }
        }
        text.push('}');
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
