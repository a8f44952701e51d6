//! The configuration as an operator meets it: sources, order, and the one complete report.

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
