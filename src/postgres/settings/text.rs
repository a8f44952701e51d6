//! The two spellings of a connection: `key=value …` and `postgresql://…`, read into pairs.
//!
//! Pure. It knows the grammar and no parameter's meaning. Its errors never quote the text, because
//! any part of a misread one may be a piece of the password; they say where and what was expected.

/// Why a text could not be read into pairs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A keyword without a value.
    #[error("keyword at byte {at} has no value: expected keyword=value")]
    NoValue {
        /// Where the keyword begins.
        at: usize,
    },
    /// A quote that is not closed, or a backslash at the end.
    #[error("value at byte {at} does not end: close the quote, and write a quote in it as \\'")]
    Unterminated {
        /// Where the value begins.
        at: usize,
    },
    /// A URL of something else.
    #[error("a URL begins with postgresql:// or postgres://")]
    Scheme,
    /// A `%` that is not followed by two hexadecimal digits, or that decodes to no text.
    #[error(
        "%-escape in the {part} is broken: expected % and two hexadecimal digits, UTF-8, not %00"
    )]
    Escape {
        /// Which part of the URL.
        part: &'static str,
    },
    /// An `@` outside the login.
    #[error("@ where none is expected: in a URL write @ as %40, / as %2F and ? as %3F")]
    At,
    /// A bracket of an IPv6 address that is not closed.
    #[error("host with [ but without ]: write an IPv6 address as [::1]")]
    Bracket,
    /// A parameter of the query without `=`.
    #[error("parameter number {number} after the ? has no value: expected keyword=value")]
    QueryValue {
        /// Counted from 1.
        number: usize,
    },
}

/// Keyword and value in the order of the text; where a keyword repeats, the last one counts.
pub(super) type Pairs = Vec<(String, String)>;

/// Reads either spelling, as libpq tells them apart: by the scheme.
pub(super) fn pairs(text: &str) -> Result<Pairs, TextError> {
    let start = text.trim_start();
    match ["postgresql://", "postgres://"].iter().find_map(|scheme| start.strip_prefix(scheme)) {
        Some(rest) => url(rest.trim_end()),
        // Read as keywords it would be one long name, with the password in it.
        None if start.split(['=', ' ']).next().is_some_and(|word| word.contains("://")) => {
            Err(TextError::Scheme)
        }
        None => keywords(text),
    }
}

/// What C's `isspace` takes; other spaces are part of a value.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn keywords(text: &str) -> Result<Pairs, TextError> {
    let mut pairs = Pairs::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return Ok(pairs);
        }
        let at = text.len() - rest.len();
        let end = rest.find(|c: char| c == '=' || is_space(c)).unwrap_or(rest.len());
        let name = &rest[..end];
        let value = rest[end..].trim_start_matches(is_space).strip_prefix('=');
        let value = value.ok_or(TextError::NoValue { at })?;
        if name.is_empty() {
            return Err(TextError::NoValue { at });
        }
        let value = value.trim_start_matches(is_space);
        let at = text.len() - value.len();
        let (value, after) = keyword_value(value).ok_or(TextError::Unterminated { at })?;
        pairs.push((name.to_owned(), value));
        rest = after;
    }
}

/// A value and what follows it. A backslash takes the next character as it is, quoted or not.
fn keyword_value(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            space if !quoted && is_space(space) => return Some((value, &text[at..])),
            other => value.push(other),
        }
    }
    (!quoted).then_some((value, ""))
}

/// `[user[:password]@][host[:port][,…]][/dbname][?keyword=value[&…]]`, the scheme taken off.
fn url(text: &str) -> Result<Pairs, TextError> {
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, database) = text.split_once('/').unwrap_or((text, ""));
    let mut pairs = Pairs::new();
    let mut push = |name: &str, text: &str, part| {
        if !text.is_empty() {
            pairs.push((name.to_owned(), decode(text, part)?));
        }
        Ok(())
    };

    let hosts = match authority.split_once('@') {
        None => authority,
        Some((user, hosts)) => {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            push("user", user, "user")?;
            push("password", password, "password")?;
            hosts
        }
    };
    // An @ further on means that a password with @, / or ? was not escaped, and that pieces of it are
    // about to be taken for hosts, a database and parameters, which errors do name.
    let login = authority.len() > hosts.len();
    if hosts.contains('@') || database.contains('@') || (!login && query.contains('@')) {
        return Err(TextError::At);
    }
    let (hosts, ports) = hosts_and_ports(hosts)?;
    push("host", &hosts, "host")?;
    push("port", &ports, "port")?;
    push("dbname", database, "dbname")?;

    for (index, parameter) in query.split('&').filter(|part| !part.is_empty()).enumerate() {
        let number = index + 1;
        let (name, value) = parameter.split_once('=').ok_or(TextError::QueryValue { number })?;
        let (name, value) = (decode(name, "query")?, decode(value, "query")?);
        // The spelling of JDBC, which libpq takes too.
        pairs.push(match (name.as_str(), value.as_str()) {
            ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
            _ => (name, value),
        });
    }
    Ok(pairs)
}

/// Splits `host:port,host:port` into the two lists that the parameters `host` and `port` take.
fn hosts_and_ports(text: &str) -> Result<(String, String), TextError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(TextError::Bracket)?;
                (host, after.strip_prefix(':').unwrap_or(after))
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    let list = |all: Vec<&str>| match all.iter().all(|one| one.is_empty()) {
        true => String::new(),
        false => all.join(","),
    };
    Ok((list(hosts), list(ports)))
}

fn decode(text: &str, part: &'static str) -> Result<String, TextError> {
    let wrong = || TextError::Escape { part };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
        let byte = u8::try_from(high * 16 + low).map_err(|_| wrong())?;
        if byte == 0 {
            return Err(wrong());
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let pairs = pairs(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let shown: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        shown.join("|")
    }

    #[test]
    fn keywords_are_read_as_libpq_reads_them() {
        assert_eq!(read("host=a port = 5433"), "host=a|port=5433");
        assert_eq!(read(r"password='it\'s \\ fine' user=x"), r"password=it's \ fine|user=x");
        assert_eq!(read(r"password=a\ b"), "password=a b");
        assert_eq!(read(r"password=a\ "), "password=a ");
        assert_eq!(read("password=a\u{a0}b user=x "), "password=a\u{a0}b|user=x");
        assert_eq!(read("dbname='' user=x"), "dbname=|user=x");
        assert_eq!(read(""), "");
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        assert_eq!(read("postgresql://"), "");
        assert_eq!(read("postgres://h/d"), "host=h|dbname=d");
        assert_eq!(
            read("postgresql://u%40x:p%3Aw@h1:1,h2,[::1]:3/my%20db?sslmode=require&ssl=true"),
            "user=u@x|password=p:w|host=h1,h2,::1|port=1,,3|dbname=my db|sslmode=require|sslmode=require"
        );
        assert_eq!(read("postgresql:///d?host=/run/pg"), "dbname=d|host=/run/pg");
        assert_eq!(read("postgresql://%2Frun%2Fpg/d"), "host=/run/pg|dbname=d");
        assert_eq!(read("postgresql://u@"), "user=u");
    }

    #[test]
    fn errors_say_what_was_expected_and_quote_nothing() {
        for (text, words) in [
            ("host", "keyword at byte 0"),
            ("user=x =hunter2", "keyword at byte 7"),
            ("password='hunter2", "close the quote"),
            ("password=hunter2\\", "close the quote"),
            ("postgresql://u:hunter2@x@h/d", "%40"),
            ("postgresql://u:1/hunter2@h/d", "%2F"),
            ("postgresql://u:1?hunter2=@h/d", "%3F"),
            ("postgresql://u:hunter2%4@h/d", "%-escape in the password"),
            ("postgresql://u:hunter2%zz@h/d", "%-escape in the password"),
            ("postgresql://[::1/d", "without ]"),
            ("postgre://u:hunter2@h/d?sslmode=require", "begins with postgresql://"),
            ("jdbc:postgresql://h/d?user=u&password=hunter2", "begins with postgresql://"),
            ("postgresql://h/d?hunter2", "parameter number 1"),
        ] {
            let error = pairs(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
