//! From pairs to checked values, one small function a parameter. Every problem is collected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    CONNECT_TIMEOUT_DEFAULT, ChannelBinding, ClientIdentity, Environment, HOSTS_MAX, Keepalives,
    Passfile, Password, Place, Roots, Server, SettingProblem, Settings, SslMode, Target,
    TlsSettings,
};

/// Longer than anybody waits for a connection; a typo such as milliseconds for seconds ends up here.
const CONNECT_TIMEOUT_MAX: u64 = 600;

/// A day: the kernel's own default idle time is two hours.
const KEEPALIVE_SECONDS_MAX: u64 = 86_400;

/// What the kernel takes.
const KEEPALIVE_COUNT_MAX: u64 = 127;

pub(super) struct Values<'a> {
    given: BTreeMap<&'static str, String>,
    problems: &'a mut Vec<SettingProblem>,
}

impl<'a> Values<'a> {
    pub(super) fn new(
        given: BTreeMap<&'static str, String>,
        problems: &'a mut Vec<SettingProblem>,
    ) -> Self {
        Self { given, problems }
    }

    /// Reads everything. After a problem a harmless value stands in, and the caller drops the result.
    pub(super) fn settings(mut self, environment: &Environment) -> Settings {
        let servers = self.servers();
        let tls = self.tls(environment);
        let user = self.text("user").or_else(|| environment.user.clone()).unwrap_or_else(|| {
            self.problem("user", "missing; name the role to log in as");
            String::new()
        });
        Settings {
            servers,
            shuffle: self.word(
                "load_balance_hosts",
                &[("disable", false), ("random", true)],
                false,
            ),
            dbname: self.text("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: self.text("password").map(Password::new),
            passfile: match self.text("passfile") {
                Some(path) => Passfile::File(PathBuf::from(path)),
                None => Passfile::DefaultFile(in_home(environment, ".pgpass")),
            },
            tls,
            channel_binding: self.word(
                "channel_binding",
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
                ChannelBinding::Prefer,
            ),
            connect_timeout: self.connect_timeout(),
            application_name: self
                .text("application_name")
                .or_else(|| self.text("fallback_application_name")),
            options: self.text("options"),
            keepalives: self.keepalives(),
            target: self.target(),
        }
    }

    /// Empty means not given, as for libpq.
    fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).filter(|value| !value.is_empty())
    }

    fn problem(&mut self, parameter: &str, problem: impl Into<String>) {
        self.problems.push(SettingProblem { parameter: parameter.into(), problem: problem.into() });
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], otherwise: T) -> T {
        let Some(value) = self.text(name) else { return otherwise };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
            return *meaning;
        }
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.problem(name, format!("{value:?} is none of {}", words.join(", ")));
        otherwise
    }

    fn number(&mut self, name: &str, lowest: u64, highest: u64, unit: &str) -> Option<u64> {
        let value = self.text(name)?;
        let number = value.trim().parse().ok().filter(|n| (lowest..=highest).contains(n));
        if number.is_none() {
            self.problem(
                name,
                format!("{value:?} is not a number of {unit} from {lowest} to {highest}"),
            );
        }
        number
    }

    fn servers(&mut self) -> Vec<Server> {
        let lists = ["host", "hostaddr", "port"].map(|name| {
            let text = self.text(name).unwrap_or_default();
            text.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>()
        });
        let [hosts, addresses, ports] = lists;
        let given = |list: &[String]| list.iter().any(|one| !one.is_empty());
        let count = match (given(&hosts), given(&addresses)) {
            (false, false) => {
                self.problem(
                    "host",
                    "missing; name the server, or the directory of its socket such as /var/run/postgresql",
                );
                return Vec::new();
            }
            (true, true) if hosts.len() != addresses.len() => {
                let problem =
                    format!("{} for {} hosts; give one each", addresses.len(), hosts.len());
                self.problem("hostaddr", problem);
                return Vec::new();
            }
            (true, _) => hosts.len(),
            (false, true) => addresses.len(),
        };
        if count > HOSTS_MAX {
            self.problem("host", format!("{count} servers, at most {HOSTS_MAX}"));
            return Vec::new();
        }
        if ports.len() != 1 && ports.len() != count {
            self.problem(
                "port",
                format!("{} for {count} hosts; give one for all or one each", ports.len()),
            );
            return Vec::new();
        }
        let one = |list: &[String], index: usize| list.get(index).cloned().unwrap_or_default();
        (0..count)
            .filter_map(|index| {
                let port = ports.get(index).or(ports.first()).cloned().unwrap_or_default();
                self.server(one(&hosts, index), &one(&addresses, index), &port)
            })
            .collect()
    }

    fn server(&mut self, host: String, address: &str, port: &str) -> Option<Server> {
        let port = match port {
            "" => 5432,
            text => match text.parse().ok().filter(|&port: &u16| port > 0) {
                Some(port) => port,
                None => {
                    self.problem("port", "not a number from 1 to 65535");
                    return None;
                }
            },
        };
        if host.starts_with('/') {
            if !address.is_empty() {
                self.problem(
                    "hostaddr",
                    "a socket's directory has no address; leave it empty there",
                );
            }
            return Some(Server { place: Place::Unix(PathBuf::from(host)), port });
        }
        let known = match address {
            "" => None,
            text => match text.parse::<IpAddr>() {
                Ok(address) => Some(address),
                Err(_) => {
                    self.problem("hostaddr", "not an IP address; names belong in host");
                    return None;
                }
            },
        };
        if host.is_empty() && known.is_none() {
            self.problem("host", "one of the list is empty");
            return None;
        }
        // A piece of a password ends up here when its @ or / was not escaped: do not quote it.
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !host.chars().all(plain) && host.parse::<IpAddr>().is_err() {
            self.problem(
                "host",
                "one of the list is neither a name, an address nor an absolute path",
            );
            return None;
        }
        let name = if host.is_empty() { address.to_owned() } else { host };
        Some(Server { place: Place::Tcp { name, address: known }, port })
    }

    fn tls(&mut self, environment: &Environment) -> TlsSettings {
        let root = self.text("sslrootcert");
        let system = root.as_deref() == Some("system");
        let mode = match self.given.get("sslmode").map(String::as_str) {
            Some("allow") => {
                self.problem("sslmode", "allow tries without encryption first; use prefer");
                SslMode::Prefer
            }
            _ => self.word(
                "sslmode",
                &[
                    ("disable", SslMode::Disable),
                    ("prefer", SslMode::Prefer),
                    ("require", SslMode::Require),
                    ("verify-ca", SslMode::VerifyCa),
                    ("verify-full", SslMode::VerifyFull),
                ],
                if system { SslMode::VerifyFull } else { SslMode::Prefer },
            ),
        };
        // As in libpq: public authorities sign for anybody, so the name must be checked.
        if system && mode != SslMode::VerifyFull {
            self.problem(
                "sslmode",
                "sslrootcert=system trusts every public authority: use verify-full",
            );
        }
        let direct = self.word("sslnegotiation", &[("postgres", false), ("direct", true)], false);
        if direct && matches!(mode, SslMode::Disable | SslMode::Prefer) {
            self.problem("sslnegotiation", "direct needs TLS: use sslmode=require or stronger");
        }
        TlsSettings {
            mode,
            roots: match root {
                Some(_) if system => Roots::System,
                Some(path) => Roots::File(PathBuf::from(path)),
                None => Roots::DefaultFile(in_home(environment, ".postgresql/root.crt")),
            },
            identity: self.identity(environment),
            only_1_3: self.word(
                "ssl_min_protocol_version",
                &[("TLSv1.2", false), ("TLSv1.3", true)],
                false,
            ),
            direct,
        }
    }

    fn identity(&mut self, environment: &Environment) -> ClientIdentity {
        match (self.text("sslcert"), self.text("sslkey")) {
            (Some(certificate), Some(key)) => {
                ClientIdentity::Files { certificate: certificate.into(), key: key.into() }
            }
            (None, None) => ClientIdentity::DefaultFiles(in_home(environment, ".postgresql")),
            (Some(_), None) => {
                self.problem("sslkey", "missing; a certificate in sslcert needs its key");
                ClientIdentity::DefaultFiles(None)
            }
            (None, Some(_)) => {
                self.problem("sslcert", "missing; a key in sslkey needs its certificate");
                ClientIdentity::DefaultFiles(None)
            }
        }
    }

    fn connect_timeout(&mut self) -> Duration {
        self.number("connect_timeout", 1, CONNECT_TIMEOUT_MAX, "seconds")
            .map_or(CONNECT_TIMEOUT_DEFAULT, Duration::from_secs)
    }

    fn keepalives(&mut self) -> Keepalives {
        let mut seconds =
            |name| self.number(name, 1, KEEPALIVE_SECONDS_MAX, "seconds").map(Duration::from_secs);
        let (idle, interval) = (seconds("keepalives_idle"), seconds("keepalives_interval"));
        let count = self.number("keepalives_count", 1, KEEPALIVE_COUNT_MAX, "probes");
        let patience =
            self.number("tcp_user_timeout", 1, KEEPALIVE_SECONDS_MAX * 1000, "milliseconds");
        Keepalives {
            off: self.word("keepalives", &[("1", false), ("0", true)], false),
            idle,
            interval,
            count: count.and_then(|count| u32::try_from(count).ok()),
            user_timeout: patience.map(Duration::from_millis),
        }
    }

    fn target(&mut self) -> Target {
        self.word(
            "target_session_attrs",
            &[
                ("any", Target::Any),
                ("read-write", Target::ReadWrite),
                ("read-only", Target::ReadOnly),
                ("primary", Target::Primary),
                ("standby", Target::Standby),
                ("prefer-standby", Target::PreferStandby),
            ],
            Target::Any,
        )
    }
}

fn in_home(environment: &Environment, name: &str) -> Option<PathBuf> {
    environment.home.as_ref().map(|home| home.join(name))
}
