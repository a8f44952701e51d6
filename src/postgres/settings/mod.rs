//! Connection settings: what psql would take, checked before anything is connected.
//!
//! Pure: text and environment in, [`Settings`] or every problem out. It promises that a text which is
//! accepted here means what libpq means by it, and refuses by name what it cannot honour: an unknown
//! parameter, a known one that is not supported, a value out of its range. No secret is in any error
//! or `Debug`. Files are named here and read later.

mod parameters;
mod text;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use parameters::Treatment;
pub use text::TextError;

/// The default of libpq is for ever; every wait of ours ends.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Servers tried in turn. Nobody has more; a list is tried one after the other, so it bounds the wait.
pub const HOSTS_MAX: usize = 32;

/// A password. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps `text` as a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the server alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where one server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By name or address; `address` spares the look-up, the name still counts for TLS.
    Tcp {
        /// The name, or the address as text.
        name: String,
        /// The address, when it was given.
        address: Option<IpAddr>,
    },
    /// A directory with a unix socket.
    Unix(PathBuf),
}

/// One server of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub place: Place,
    /// Its port; also part of a socket's name.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Place::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            Place::Unix(directory) => {
                write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port)
            }
        }
    }
}

/// How much TLS, in libpq's words and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// When the server has it; in the clear only when it says that it has not.
    Prefer,
    /// Always; whom one talks to is checked only if a root certificate is given.
    Require,
    /// Always, with a certificate that a given root has signed, whatever its name.
    VerifyCa,
    /// Always, with a certificate of a given root and for the host's name.
    VerifyFull,
}

/// Which roots may have signed the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The file that was named; it must be there.
    File(PathBuf),
    /// `~/.postgresql/root.crt`, if it is there.
    DefaultFile(Option<PathBuf>),
    /// Those of the system.
    System,
}

/// The certificate with which the client shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdentity {
    /// The files that were named; they must be there.
    Files {
        /// The chain, leaf first, PEM.
        certificate: PathBuf,
        /// The key, PEM, not encrypted.
        key: PathBuf,
    },
    /// `~/.postgresql/postgresql.crt` and `.key`, if the former is there.
    DefaultFiles(Option<PathBuf>),
}

/// Everything about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// How much of it.
    pub mode: SslMode,
    /// Whom to trust.
    pub roots: Roots,
    /// Who we are.
    pub identity: ClientIdentity,
    /// TLS 1.3 at least, instead of 1.2.
    pub only_1_3: bool,
    /// Begin with TLS at once instead of asking for it (servers from 17 on).
    pub direct: bool,
}

/// Whether SCRAM is bound to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server can.
    Prefer,
    /// Or not at all.
    Require,
}

/// What kind of server is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Whichever answers.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that takes none.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// One that is in recovery; if there is none, whichever answers.
    PreferStandby,
}

/// When the kernel looks whether the other side is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keepalives {
    /// `keepalives=0`.
    pub off: bool,
    /// Silence before the first probe.
    pub idle: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
    /// Probes without an answer before the connection counts as lost.
    pub count: Option<u32>,
    /// How long sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// Where the password comes from when the text has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passfile {
    /// The file that was named; it must be there.
    File(PathBuf),
    /// `~/.pgpass`, if it is there.
    DefaultFile(Option<PathBuf>),
}

/// Checked settings of a connection. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The servers, tried in this order. Never empty.
    pub servers: Vec<Server>,
    /// Begin with a random one.
    pub shuffle: bool,
    /// The role.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// The password, if it was given.
    pub password: Option<Password>,
    /// Where it is looked up otherwise.
    pub passfile: Passfile,
    /// TLS.
    pub tls: TlsSettings,
    /// SCRAM's tie to TLS.
    pub channel_binding: ChannelBinding,
    /// For each server, from the look-up to the first answer.
    pub connect_timeout: Duration,
    /// What pg_stat_activity shows.
    pub application_name: Option<String>,
    /// Passed to the server at start, like `-c statement_timeout=5s`.
    pub options: Option<String>,
    /// The kernel's probes.
    pub keepalives: Keepalives,
    /// What kind of server.
    pub target: Target,
}

/// What the process brings along: libpq's variables, and who runs it.
#[derive(Clone, Default)]
pub struct Environment {
    /// The home directory, where libpq's default files are.
    pub home: Option<PathBuf>,
    /// Who runs the process: the default role.
    pub user: Option<String>,
    values: BTreeMap<&'static str, String>,
    /// Variable, parameter and value of what is taken only in part, or not at all.
    judged: Vec<(&'static str, &'static str, String)>,
}

/// `PGPASSWORD` is among the values.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<_> = self.values.keys().collect();
        f.debug_struct("Environment").field("set", &set).finish_non_exhaustive()
    }
}

impl Environment {
    /// Nothing: what the text does not say is not said.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Takes from variables what libpq would take: `PGHOST`, `PGSSLMODE` and so on, `HOME`, `USER`.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let all: BTreeMap<String, String> =
            variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let values = parameters::PARAMETERS
            .iter()
            .filter_map(|&(name, treatment)| match treatment {
                Treatment::Taken { variable: Some(variable) } => {
                    Some((name, all.get(variable)?.clone()))
                }
                Treatment::Taken { variable: None }
                | Treatment::Only { .. }
                | Treatment::Refused { .. } => None,
            })
            .collect();
        let user = all.get("USER").or_else(|| all.get("LOGNAME")).cloned();
        let judged = parameters::JUDGED_VARIABLES
            .iter()
            .filter_map(|&(variable, name)| Some((variable, name, all.get(variable)?.clone())))
            .collect();
        Self { home: all.get("HOME").map(PathBuf::from), user, values, judged }
    }

    /// The variables of this process. One that is not UTF-8 is none of libpq's.
    #[must_use]
    pub fn of_process() -> Self {
        Self::from_variables(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }
}

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {problem}")]
pub struct SettingProblem {
    /// The parameter, as written; the variable, if it is from there.
    pub parameter: String,
    /// The rule and the way out.
    pub problem: String,
}

/// Why there are no settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The text is neither a URL nor keywords.
    #[error("connection string cannot be read: {0}")]
    Text(TextError),
    /// It can be read, and these parts of it are wrong. Never empty.
    #[error("connection string: {}", list(.0))]
    Values(Vec<SettingProblem>),
}

fn list(problems: &[SettingProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Settings {
    /// Reads a connection string, in either spelling, on top of the environment.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, SettingsError> {
        let mut problems = Vec::new();
        let mut given = environment.values.clone();
        let mut written = Vec::new();
        let mut after_password = false;
        for (number, (name, value)) in (1..).zip(text::pairs(text).map_err(SettingsError::Text)?) {
            match known(&name, &value) {
                Ok(name) => {
                    after_password |= name == "password";
                    written.push(name);
                    given.insert(name, value);
                }
                Err(_) if !nameable(&name, after_password) => problems.push(unnamed(number)),
                Err(problem) => problems.push(SettingProblem { parameter: name, problem }),
            }
        }
        let mut found = Vec::new();
        let settings = values::Values::new(given, &mut found).settings(environment);
        for problem in &mut found {
            let parameter = problem.parameter.as_str();
            // Whoever reads it should not look for it in the text.
            if environment.values.contains_key(parameter) && !written.contains(&parameter) {
                problem.parameter = parameters::variable_of(parameter).unwrap_or(parameter).into();
            }
        }
        problems.append(&mut found);
        for (variable, name, value) in &environment.judged {
            if let Err(problem) = known(name, value)
                && !written.contains(name)
            {
                problems.push(SettingProblem { parameter: (*variable).to_owned(), problem });
            }
        }
        if problems.is_empty() {
            return Ok(settings);
        }
        Err(SettingsError::Values(problems))
    }
}

/// Whether an unknown name can be no piece of a password: one that has spaces and is not quoted goes
/// on behind what looks like its end, and separators that are none leave all in one name.
fn nameable(name: &str, after_password: bool) -> bool {
    let known = || parameters::PARAMETERS.iter().any(|(known, _)| *known == name);
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    known() || (!after_password && name.bytes().all(word))
}

fn unnamed(number: usize) -> SettingProblem {
    SettingProblem {
        parameter: format!("parameter number {number}"),
        problem:
            "unknown, and not shown since it may be a piece of the password: quote a password \
                  that has spaces, password='…', and in a URL write & as %26"
                .into(),
    }
}

/// The parameter's name for good, or what is wrong with naming it.
fn known(name: &str, value: &str) -> Result<&'static str, String> {
    let entry = parameters::PARAMETERS.iter().find(|(known, _)| *known == name);
    let Some(&(name, treatment)) = entry else {
        return Err(match parameters::nearest(name) {
            Some(near) => format!("unknown parameter; did you mean {near}?"),
            None => "unknown parameter; libpq's names are expected, such as host or sslmode".into(),
        });
    };
    match treatment {
        Treatment::Taken { .. } => Ok(name),
        Treatment::Only { values, .. } if values.contains(&value) => Ok(name),
        Treatment::Only { values, why } => Err(format!("only {} works: {why}", values[0])),
        Treatment::Refused { why } => Err(why.to_owned()),
    }
}

#[cfg(test)]
mod tests;
