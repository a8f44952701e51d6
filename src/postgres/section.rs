//! The `postgres` section of a configuration: a connection string, and what does not belong into one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::settings::{Environment, Passfile, Password, Settings, SettingsError};
use super::{Connector, MaterialError, PasswordSource, Pool, PoolOptions, SessionLimits};
use crate::config::{Key, Kind, Reader, Secret, Section};

/// More connections than this are a mistake on every server that has not been told otherwise.
const POOL_SIZE_MAX: usize = 200;

/// Limits of a session that are longer are none.
const LIMIT_MAX: Duration = Duration::from_secs(86_400);

/// Everything that is configured about ordinary SQL.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    settings: Settings,
    limits: SessionLimits,
    pool: PoolOptions,
    password: Option<Secret>,
}

impl PostgresConfig {
    /// What was understood of the connection string.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Makes connections; reads certificates and passwords, and again on each reload.
    pub fn connector(&self) -> Result<Connector, MaterialError> {
        let source = self.password.clone().map(|secret| {
            let read = move || match secret.reload() {
                Ok(secret) => Ok(Password::new(secret.expose())),
                Err(error) => Err(error.to_string()),
            };
            Arc::new(read) as PasswordSource
        });
        Connector::new(self.settings.clone(), self.limits, source)
    }

    /// A pool of the configured size.
    pub fn pool(&self, name: &'static str) -> Result<Pool, MaterialError> {
        Ok(Pool::new(name, self.connector()?, self.pool))
    }
}

const fn key(
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    help: &'static str,
) -> Key {
    Key { path, kind, default, help }
}

impl Section for PostgresConfig {
    const KEYS: &'static [Key] = &[
        key(
            "postgres.url",
            Kind::Text,
            None,
            "Where the database is, as psql takes it: postgresql://user@host/db?sslmode=verify-full, or \
             keywords. libpq's variables such as PGSSLMODE fill in what it leaves out.",
        ),
        key(
            "postgres.password",
            Kind::Secret,
            None,
            "The role's password, if neither the URL nor a password file has it. A file is read again on \
             reload.",
        ),
        key(
            "postgres.passfile",
            Kind::Path,
            None,
            "A password file in the form of ~/.pgpass, instead of that one.",
        ),
        key(
            "postgres.application_name",
            Kind::Text,
            Some("postrider"),
            "What pg_stat_activity shows, unless the URL says it.",
        ),
        key(
            "postgres.connect_timeout",
            Kind::Duration,
            None,
            "How long each server may take to answer; the URL's connect_timeout otherwise, or 10s.",
        ),
        key(
            "postgres.pool_size",
            Kind::Integer,
            Some("5"),
            "The most connections for ordinary SQL at once; replication has one of its own.",
        ),
        key(
            "postgres.pool_wait",
            Kind::Duration,
            Some("5s"),
            "How long to wait for a connection while all of them are in use.",
        ),
        key(
            "postgres.statement_timeout",
            Kind::Duration,
            Some("1m"),
            "The server ends a statement of ours that runs longer.",
        ),
        key(
            "postgres.lock_timeout",
            Kind::Duration,
            Some("10s"),
            "The server ends a statement of ours that waits longer for a lock.",
        ),
        key(
            "postgres.idle_in_transaction_timeout",
            Kind::Duration,
            Some("1m"),
            "The server ends a session of ours that sits in a transaction and does nothing for longer.",
        ),
    ];

    fn read(raw: &mut Reader<'_>) -> Option<Self> {
        Self::read_with(raw, &Environment::of_process())
    }
}

impl PostgresConfig {
    fn read_with(raw: &mut Reader<'_>, environment: &Environment) -> Option<Self> {
        let second = Duration::from_secs(1);
        let moment = Duration::from_millis(1);
        raw.require("postgres.url");
        let url = raw.text("postgres.url");
        let password = raw.secret("postgres.password");
        let passfile = raw.path("postgres.passfile");
        let application_name = raw.text("postgres.application_name");
        let connect_timeout =
            raw.duration("postgres.connect_timeout", second..=Duration::from_secs(600));
        let size = raw.integer("postgres.pool_size", 1..=POOL_SIZE_MAX);
        let wait = raw.duration("postgres.pool_wait", moment..=Duration::from_secs(600));
        let statement_timeout = raw.duration("postgres.statement_timeout", moment..=LIMIT_MAX);
        let lock_timeout = raw.duration("postgres.lock_timeout", moment..=LIMIT_MAX);
        let idle_in_transaction_timeout =
            raw.duration("postgres.idle_in_transaction_timeout", moment..=LIMIT_MAX);

        let settings = url.and_then(|url| parse(raw, &url, environment));
        check_passwords(raw, settings.as_ref(), password.as_ref(), passfile.as_ref());
        let mut settings = settings?;
        settings.application_name = settings.application_name.or(application_name);
        settings.connect_timeout = connect_timeout.unwrap_or(settings.connect_timeout);
        if let Some(path) = passfile {
            settings.passfile = Passfile::File(path);
        }
        Some(Self {
            settings,
            limits: SessionLimits { statement_timeout, lock_timeout, idle_in_transaction_timeout },
            pool: PoolOptions { size: size?, wait: wait? },
            password,
        })
    }
}

fn parse(raw: &mut Reader<'_>, url: &str, environment: &Environment) -> Option<Settings> {
    const RULE: &str = "must be a connection string that psql takes";
    match Settings::parse(url, environment) {
        Ok(settings) => Some(settings),
        Err(SettingsError::Text(error)) => {
            raw.problem("postgres.url", RULE, error.to_string());
            None
        }
        Err(SettingsError::Values(problems)) => {
            for problem in problems {
                raw.problem("postgres.url", RULE, problem.to_string());
            }
            None
        }
    }
}

/// Two places for one password: whichever won, somebody would change the other and wonder.
fn check_passwords(
    raw: &mut Reader<'_>,
    settings: Option<&Settings>,
    password: Option<&Secret>,
    passfile: Option<&PathBuf>,
) {
    const RULE: &str = "must be the only place of the password";
    let in_url = settings.is_some_and(|settings| settings.password.is_some());
    if password.is_some() && in_url {
        raw.problem("postgres.password", RULE, "postgres.url or PGPASSWORD has one, too");
    }
    if passfile.is_some() && (in_url || password.is_some()) {
        raw.problem("postgres.passfile", RULE, "a password is given, too, and would win");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    /// The same section without this process's environment.
    #[derive(Debug)]
    struct Bare(PostgresConfig);

    impl Section for Bare {
        const KEYS: &'static [Key] = PostgresConfig::KEYS;

        fn read(raw: &mut Reader<'_>) -> Option<Self> {
            PostgresConfig::read_with(raw, &Environment::empty()).map(Self)
        }
    }

    fn read(toml: &str) -> Result<PostgresConfig, String> {
        let loaded = load::<Bare>(Sources::new("TEST").toml("test.toml", toml));
        loaded.map(|loaded| loaded.settings.0).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_url_is_enough() {
        let config = read("[postgres]\nurl = 'postgresql://app@db/shop'").unwrap();
        assert_eq!(config.settings().application_name.as_deref(), Some("postrider"));
        assert_eq!(config.pool, PoolOptions { size: 5, wait: Duration::from_secs(5) });
        assert_eq!(config.limits.lock_timeout, Some(Duration::from_secs(10)));
        assert_eq!(config.settings().connect_timeout, Duration::from_secs(10));
    }

    #[test]
    fn keys_add_to_the_url() {
        let config = read(
            "[postgres]\nurl = 'postgresql://app@db/shop?application_name=x&connect_timeout=3'\n\
             connect_timeout = '2s'\npassfile = '/p'\npool_size = 7",
        )
        .unwrap();
        assert_eq!(config.settings().application_name.as_deref(), Some("x"));
        assert_eq!(config.settings().connect_timeout, Duration::from_secs(2));
        assert_eq!(config.settings().passfile, Passfile::File("/p".into()));
        assert_eq!(config.pool.size, 7);
    }

    #[test]
    fn every_problem_of_the_url_is_reported() {
        let problems =
            read("[postgres]\nurl = 'host=db sslmod=require port=0'\npool_size = 0").unwrap_err();
        for words in
            ["sslmod: unknown parameter", "port: not a number", "user: missing", "pool_size"]
        {
            assert!(problems.contains(words), "{problems}");
        }
        assert!(read("").unwrap_err().contains("postgres.url"));
        let twice = "[postgres]\nurl = 'host=db'\npassword = 'x'\npassfile = '/p'";
        assert!(read(twice).unwrap_err().contains("postgres.passfile"), "whatever else is wrong");
    }

    #[test]
    fn a_password_has_one_place() {
        let problems =
            read("[postgres]\nurl = 'postgresql://app:hunter2@db/shop'\npassword = 'hunter2'\npassfile = '/p'")
                .unwrap_err();
        assert!(problems.contains("postgres.password"), "{problems}");
        assert!(problems.contains("postgres.passfile"), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn the_passwords_file_is_read_again() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "one\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let toml = format!(
            "[postgres]\nurl = 'postgresql://app@db/shop?sslmode=disable'\npassword_file = '{}'",
            path.display()
        );
        let connector = read(&toml).unwrap().connector().unwrap();
        assert!(connector.reload().is_ok());
        std::fs::remove_file(&path).unwrap();
        let error = connector.reload().unwrap_err().to_string();
        assert!(error.contains("password cannot be read again"), "{error}");
    }
}
