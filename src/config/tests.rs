//! The configuration as an operator meets it: sources, order, and the one complete report.

mod leaks;

use std::time::Duration;

use super::*;

const APP: &str = "POSTRIDER";

#[derive(Debug, PartialEq)]
struct Log {
    level: String,
    format: &'static str,
}

impl Section for Log {
    const KEYS: &'static [Key] = &[
        Key { path: "log.level", kind: Kind::Text, default: Some("info"), help: "How much." },
        Key {
            path: "log.format",
            kind: Kind::Choice(&["auto", "human", "json"]),
            default: Some("auto"),
            help: "For whom: a | b.",
        },
    ];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let level = raw.text("log.level");
        let format = raw.choice("log.format");
        Some(Self { level: level?, format: format? })
    }
}

#[derive(Debug)]
struct Store {
    url: String,
    password: Option<Secret>,
    pool_size: u16,
    cache: u64,
    timeout: Duration,
    tls: bool,
    root: Option<PathBuf>,
}

impl Section for Store {
    const KEYS: &'static [Key] = &[
        Key { path: "store.url", kind: Kind::Text, default: None, help: "Where it is." },
        Key { path: "store.password", kind: Kind::Secret, default: None, help: "The password." },
        Key { path: "store.pool_size", kind: Kind::Integer, default: Some("10"), help: "Many." },
        Key { path: "store.cache", kind: Kind::Size, default: Some("64MB"), help: "Memory." },
        Key { path: "store.timeout", kind: Kind::Duration, default: Some("10s"), help: "Wait." },
        Key { path: "store.tls", kind: Kind::Boolean, default: Some("true"), help: "Whether." },
        Key { path: "store.root", kind: Kind::Path, default: None, help: "Certificates." },
    ];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        raw.require("store.url");
        let url = raw.text("store.url");
        let password = raw.secret("store.password");
        let pool_size = raw.integer("store.pool_size", 1..=1000);
        let cache = raw.size("store.cache", 1024..=1 << 40);
        let timeout =
            raw.duration("store.timeout", Duration::from_millis(1)..=Duration::from_secs(3600));
        let tls = raw.boolean("store.tls");
        let root = raw.path("store.root");
        if url.as_deref().is_some_and(|url| !url.contains("://")) {
            raw.problem("store.url", "must be a URL", "write scheme://host");
        }
        Some(Self {
            url: url?,
            password,
            pool_size: pool_size?,
            cache: cache?,
            timeout: timeout?,
            tls: tls?,
            root,
        })
    }
}

type Role = (Log, Store);

fn sources(toml: &str) -> Sources {
    Sources::new(APP).toml("app.toml", toml)
}

fn flags(words: &[&str]) -> Flags {
    #[derive(clap::Parser)]
    struct Nothing {}
    let argv = ["app"].iter().chain(words).map(OsString::from);
    arguments::parse::<Nothing>(argv).expect("only settings").flags
}

#[test]
fn every_source_is_read_and_the_later_one_wins() {
    let toml = "[log]\nlevel = 'file'\n[store]\nurl = 'x://file'\npool_size = 1\ncache = '1MB'\n";
    let variables = [("POSTRIDER__LOG__LEVEL", "variable"), ("POSTRIDER__STORE__POOL_SIZE", "2")];
    let flags = flags(&["--log.level=flag", "--store.timeout", "1m30s"]);
    let sources = sources(toml).variables(variables).flags(flags);
    let (log, store) = load::<Role>(sources).unwrap().settings;
    assert_eq!(log, Log { level: "flag".to_owned(), format: "auto" });
    assert_eq!((store.url.as_str(), store.pool_size), ("x://file", 2));
    assert_eq!((store.cache, store.timeout), (1 << 20, Duration::from_secs(90)));
    assert!(store.tls && store.password.is_none() && store.root.is_none());
}

fn refused(sources: Sources) -> String {
    load::<Role>(sources).unwrap_err().to_string()
}

/// A faultless start; tests add to it.
const GOOD: &str = "[store]\nurl = 'x://y'\n";

fn assert_says(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.contains(line), "missing: {line}\nin: {said}");
    }
    let count = said.lines().filter(|line| line.starts_with("  ")).count();
    assert_eq!(count, lines.len(), "{said}");
}

#[test]
fn a_typo_in_every_source_comes_out_in_one_report() {
    let sources =
        sources("[store]\nurl = 'x://y'\npool_size = 0\nlevel = 'debug'\n[lgo]\nformat = 'x'\n")
            .variables([
                ("POSTRIDER__STORE__POOLSIZE", "3"),
                ("POSTRIDER__STORE__CACHE", "64mb"),
                ("POSTRIDER_LOG_LEVEL", "debug"),
                ("POSTRIDER_PG_BIN", "/usr/bin"),
                ("PATH", "/bin"),
            ])
            .flags(flags(&[
                "--store.timeout",
                "3",
                "--log.levl=x",
                "--vrbose",
                "--log.format=jsno",
            ]));
    let said = refused(sources);
    assert_says(
        &said,
        &[
            "  store.level: unknown key, did you mean `log.level`? [app.toml:4]",
            "  lgo.format: unknown key, did you mean `log.format`? [app.toml:6]",
            "  POSTRIDER_LOG_LEVEL: unknown variable, parts are joined by two underscores: did you mean POSTRIDER__LOG__LEVEL?",
            "  POSTRIDER__STORE__POOLSIZE: unknown variable, did you mean POSTRIDER__STORE__POOL_SIZE?",
            "  --log.levl: unknown flag, did you mean --log.level?",
            "  --vrbose: unknown argument, no known argument is like it",
            "  log.format: \"jsno\", must be one of auto, human, json, did you mean json? [flag --log.format]",
            "  store.pool_size: 0, must be a whole number from 1 to 1000, it is too small [app.toml:3]",
            "  store.cache: \"64mb\", must be a size like 512kB, 64MB or 1GB, from 1kB to 1TB, \"mb\" is not a unit, did you mean MB? [variable POSTRIDER__STORE__CACHE]",
            "  store.timeout: \"3\", must be a time span like 250ms, 10s or 1h30m, from 1ms to 1h, 3 has no unit [flag --store.timeout]",
        ],
    );
    assert!(said.starts_with("10 problems in the configuration, nothing was started:\n"));
    assert!(said.ends_with("--help the arguments"));
}

#[test]
fn an_unset_required_key_is_named_unless_a_typo_may_be_it() {
    let set_it = "store.url: not set, must be set, it has no default: set it in the file";
    assert_says(&refused(sources("")), &[set_it]);
    assert_says(&refused(sources("store.ulr = 'x://y'")), &["store.ulr: unknown key"]);
}

#[test]
fn ranges_hold_at_both_ends() {
    for (line, problem) in [
        ("pool_size = 1000", None),
        ("pool_size = 1001", Some("1001, must be a whole number from 1 to 1000, it is too large")),
        ("pool_size = -1", Some("-1, must be a whole number from 1 to 1000, it is too small")),
        ("pool_size = 0x1_0", None),
        ("pool_size = 99999999999999999999", Some("it is too large")),
        ("cache = 1024", None),
        ("cache = '1023B'", Some("\"1023B\", must be a size")),
        ("cache = '2TB'", Some("it is too large")),
        (
            "cache = -5",
            Some("-5, must be a size like 512kB, 64MB or 1GB, from 1kB to 1TB, it has a sign"),
        ),
        ("timeout = '1h'", None),
        ("timeout = '1h1us'", Some("it is too large")),
        ("timeout = '0s'", Some("it is too small")),
    ] {
        let loaded = load::<Role>(sources(&format!("{GOOD}{line}")));
        match problem {
            None => assert!(loaded.is_ok(), "{line}"),
            Some(problem) => assert_says(&loaded.unwrap_err().to_string(), &[problem]),
        }
    }
}

#[test]
fn a_wrong_toml_type_is_named() {
    for (line, problem) in [
        (
            "pool_size = '10'",
            "store.pool_size: \"10\", must be a whole number, without quotes, it is text",
        ),
        ("pool_size = 1.5", "store.pool_size: a number with a fraction, must be a whole number"),
        ("tls = 'true'", "store.tls: \"true\", must be true or false, without quotes, it is text"),
        ("tls = 1", "store.tls: 1, must be true or false"),
        (
            "timeout = 10",
            "store.timeout: 10, must be a time span in quotes like \"10s\", it is a number",
        ),
        ("root = ['a']", "store.root: a list, must be text in quotes, it is a list"),
        ("root = 2026-01-01", "store.root: a date or time, must be text in quotes"),
        ("cache = true", "store.cache: true, must be a number of bytes, or a size in quotes"),
        ("password = 12345", "store.password: (secret), must be text in quotes, it is a number"),
        ("tls.x = 1", "store.tls.x: unknown key, `store.tls` is a value, it has no keys inside"),
        ("\"a.b\" = 1", "store.\\\"a.b\\\": unknown key, no known key is like it"),
        (
            "[[log]]\nlevel = 'x'",
            "log: unknown key, it is a section: set its keys, like `log.level`",
        ),
    ] {
        let said = refused(sources(&format!("{GOOD}{line}")));
        assert_says(&said, &[problem]);
        assert!(!said.contains("12345"));
    }
}

#[test]
fn a_broken_file_says_where_and_the_rest_is_still_checked() {
    let toml = "[store]\nurl = x://y\ntls = maybe\npool_size = 0\n[log]\nlevle = 'x'\n";
    assert_says(
        &refused(sources(toml)),
        &[
            "app.toml: must be TOML, string values must be quoted, expected literal string [app.toml:2]",
            "app.toml: must be TOML, string values must be quoted, expected literal string [app.toml:3]",
            "store.pool_size: 0, must be",
            "log.levle: unknown key",
        ],
    );
    let twice = format!("{GOOD}url = 'z://z'\n");
    assert_says(&refused(sources(&twice)), &["app.toml: must be TOML, duplicate key [app.toml:3]"]);
    let twice = format!("{GOOD}[store]\ntls = true\n");
    assert_says(&refused(sources(&twice)), &["must be TOML, duplicate key [app.toml:3]"]);
}

#[test]
fn inline_tables_dotted_keys_and_crlf_are_plain_toml() {
    for toml in ["store = { url = 'x://y' }", "store.url = 'x://y'", "[store]\r\nurl = 'x://y'\r\n"]
    {
        assert_eq!(load::<Role>(sources(toml)).unwrap().settings.1.url, "x://y", "{toml}");
    }
}

#[test]
fn empty_values_are_refused_in_every_source() {
    let said = refused(sources("store.url = ''").variables([("POSTRIDER__LOG__LEVEL", "")]));
    assert_says(
        &said,
        &[
            "store.url: \"\", must not be empty, leave the key out instead [app.toml:1]",
            "log.level: \"\", must not be empty, leave the key out instead [variable POSTRIDER__LOG__LEVEL]",
        ],
    );
    let said = refused(sources(GOOD).variables([("POSTRIDER__STORE__PASSWORD", "")]));
    assert_says(&said, &["store.password: (secret), must not be empty"]);
}

#[test]
fn variables_that_are_not_utf8_or_oddly_spelled_are_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let sources = sources(GOOD).variables([
        (bytes(b"POSTRIDER__LOG__LEVEL"), bytes(b"hunter2\xff")),
        (bytes(b"POSTRIDER__LOG\xff__X"), bytes(b"x")),
        (bytes(b"POSTRIDER__log__format"), bytes(b"x")),
        (bytes(b"POSTRIDER__"), bytes(b"x")),
        (bytes(b"POSTRIDER___LOG__FORMAT"), bytes(b"x")),
        (bytes(b"OTHER\xff"), bytes(b"\xff")),
    ]);
    let said = refused(sources);
    assert!(said.contains("log.level: must be UTF-8, the variable is not"), "{said}");
    assert!(said.contains(
        "POSTRIDER__log__format: unknown variable, did you mean POSTRIDER__LOG__FORMAT?"
    ));
    assert!(said.starts_with("5 problems") && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_named_file_must_be_there_and_be_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.toml");
    let load = || load::<Role>(Sources::new(APP).file(Some(file.clone())));
    assert_says(&load().unwrap_err().to_string(), &["must be a readable file, No such file"]);
    std::fs::write(&file, GOOD).unwrap();
    assert!(load().unwrap().effective.contains(&format!("# {}:2\n", file.display())));
    std::fs::write(&file, b"a = '\xff'").unwrap();
    assert_says(&load().unwrap_err().to_string(), &["must be UTF-8"]);
    std::fs::write(&file, " ".repeat(1024 * 1024 + 1)).unwrap();
    assert_says(&load().unwrap_err().to_string(), &["must have at most 1MB"]);
    let said = refused(Sources::new(APP).file(Some(folder.path().to_owned())));
    assert_says(&said, &["must be a readable file, Is a directory"]);
    // Without a name there is no file, and that is no problem of its own.
    assert_says(&refused(Sources::new(APP).file(None)), &["store.url: not set"]);
}

/// A section whose keys may be given again under names.
#[derive(Debug)]
struct Shops(Vec<Shop>);

#[derive(Debug)]
struct Shop {
    name: String,
    place: Option<String>,
    token: Option<Secret>,
    size: Option<u16>,
}

impl Section for Shops {
    const NAMED: Option<&'static str> = Some("shop");

    const KEYS: &'static [Key] = &[
        Key { path: "shop.place", kind: Kind::Text, default: Some("here"), help: "" },
        Key { path: "shop.token", kind: Kind::Secret, default: None, help: "" },
        Key { path: "shop.size", kind: Kind::Integer, default: None, help: "" },
    ];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        let read = |raw: &mut Reader<'_>, name: &str| Shop {
            name: name.to_owned(),
            place: raw.text("shop.place"),
            token: raw.secret("shop.token"),
            size: raw.integer("shop.size", 1..=9),
        };
        let mut shops = vec![read(raw, "")];
        for name in raw.names("shop") {
            shops.push(raw.within("shop", &name, |raw| {
                raw.require_own("shop.place");
                read(raw, &name)
            }));
        }
        Some(Self(shops))
    }
}

#[test]
fn a_name_inherits_what_it_leaves_out_from_every_source() {
    let toml =
        "[shop]\nsize = 3\ntoken = 'all'\n[shop.a]\nplace = 'A'\n[shop.b]\nplace = 'x'\nsize = 4\n";
    let variables = [("POSTRIDER__SHOP__B__PLACE", "B"), ("POSTRIDER__SHOP__B_2__PLACE", "B2")];
    let flags = flags(&["--shop.b.size=5", "--shop.c.place", "C"]);
    let loaded = load::<Shops>(sources(toml).variables(variables).flags(flags)).unwrap();
    let read: Vec<_> = loaded
        .settings
        .0
        .iter()
        .map(|Shop { name, place, token, size }| {
            let token = token.as_ref().map(|token| token.expose().to_owned());
            (name.as_str(), place.as_deref().unwrap(), token.unwrap(), size.unwrap())
        })
        .collect();
    let all = || "all".to_owned();
    let expected = [
        ("", "here", all(), 3),
        ("a", "A", all(), 3),
        ("b", "B", all(), 5),
        ("b_2", "B2", all(), 3),
        ("c", "C", all(), 3),
    ];
    assert_eq!(read, expected);
    let shown = "[shop.b]\nplace = \"B\" # variable POSTRIDER__SHOP__B__PLACE\nsize = 5 # flag --shop.b.size\n";
    assert!(loaded.effective.contains(shown), "{}", loaded.effective);
    assert!(!loaded.effective.contains("all"), "{}", loaded.effective);
}

#[test]
fn a_name_is_checked_like_everything_else() {
    let refused = |toml: &str| load::<Shops>(sources(toml)).unwrap_err().to_string();
    assert_says(&refused("[shop]\nsize = 30\n[shop.a]\nplace = 'A'"), &["shop.size: 30, must be"]);
    assert_says(&refused("[shop.a]\nsize = 3"), &["shop.a.place: not set, must be set"]);
    assert_says(&refused("[shop.a]\nplace = 'A'\nsize = 30"), &["shop.a.size: 30, must be"]);
    assert_says(&refused("[shop.a]\nplce = 'A'"), &["did you mean `shop.a.place`?"]);
    assert_says(&refused("[shop.A]\nplace = 'A'"), &["\"A\" cannot be a name"]);
    assert_says(&refused("[shop.size]\nplace = 'A'"), &["`shop.size` is a value"]);
    let secret = refused("[shop.a]\nplace = 'A'\ntoken = 'hush'\ntoken_file = 'f'");
    assert_says(&secret, &["shop.a.token: (secret), must be given only once"]);
    let variables = [("POSTRIDER__SHOP__A__PLCE", "A")];
    let said = load::<Shops>(sources("").variables(variables)).unwrap_err().to_string();
    assert_says(&said, &["did you mean POSTRIDER__SHOP__A__PLACE?"]);
    let said =
        load::<Shops>(sources("").flags(flags(&["--shop.a.token=x"]))).unwrap_err().to_string();
    assert_says(&said, &["must not be given on the command line"]);
}

#[test]
fn the_reference_table_has_every_key() {
    let table = reference_table(&Role::keys());
    for row in [
        "### `[log]`",
        "| `log.format` | `auto`, `human`, `json` | `auto` | For whom: a \\| b. |",
        "| `store.password` | secret, or `_file` | – | The password. |",
        "| `store.cache` | size | `64MB` | Memory. |",
    ] {
        assert!(table.contains(row), "{row}\n{table}");
    }
}

/// A section whose declaration or reading is wrong.
macro_rules! wrong_section {
    ($name:ident, $keys:expr, $read:expr) => {
        struct $name;
        impl Section for $name {
            const KEYS: &'static [Key] = $keys;
            fn read(raw: &mut Reader<'_>) -> Option<Self> {
                let read: fn(&mut Reader<'_>) = $read;
                read(raw);
                Some(Self)
            }
        }
    };
}

const ONE: Key = Key { path: "a.b", kind: Kind::Text, default: Some("x"), help: "" };

#[test]
#[should_panic(expected = "a.b declared twice")]
fn declaring_a_key_twice_panics() {
    wrong_section!(Twice, &[ONE, ONE], |_| {});
    drop(load::<Twice>(Sources::new(APP)));
}

#[test]
#[should_panic(expected = "declared but never read: [\"a.b\"]")]
fn a_key_that_nobody_reads_panics() {
    wrong_section!(Unread, &[ONE], |_| {});
    drop(load::<Unread>(Sources::new(APP)));
}

#[test]
#[should_panic(expected = "key a.b is declared as Text but read as boolean")]
fn reading_another_kind_panics() {
    wrong_section!(Other, &[ONE], |raw| assert_eq!(raw.boolean("a.b"), None));
    drop(load::<Other>(Sources::new(APP)));
}
