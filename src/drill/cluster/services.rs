//! Where the servers' binaries are.
//!
//! Promises that the same choice is made everywhere and can be read (`drill services list`):
//!
//! 1. `POSTRIDER_PG_BIN`, one or more `bin` folders separated by `:`; each answers for the major
//!    version it is. A folder without a server is an error, as somebody meant it.
//! 2. A `postgres` on PATH, for its major version: also said on purpose, as distributions keep
//!    their servers off PATH.
//! 3. The pinned ones in the services folder (`make services`), so that two machines that say
//!    nothing test the same.
//! 4. Debian's `/usr/lib/postgresql/<major>/bin`, for a machine that fetched nothing: it comes last,
//!    or an unrelated `apt upgrade` would change what is tested.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::fetch::{
    DEBIAN_PROGRAMS, Item, PINNED, Progress, bring, find_on_path, is_executable, services_folder,
};
use super::kafka;

/// The major versions that postrider works with.
pub const POSTGRES_VERSIONS: [u16; 6] = [13, 14, 15, 16, 17, 18];

/// What was found on this machine.
#[derive(Debug, Clone)]
pub struct Services {
    folder: PathBuf,
    postgres: BTreeMap<u16, PostgresBinaries>,
}

/// The server programs of one major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresBinaries {
    /// `17`.
    pub major: u16,
    /// As the server says it: `17.10`, with a distribution's words behind.
    pub version: String,
    /// The folder that holds `postgres` and `initdb`.
    pub bin: PathBuf,
    /// Why this one.
    pub origin: Origin,
}

/// Where binaries come from, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An environment variable names them.
    Named,
    /// They are on PATH.
    Path,
    /// They were fetched into the services folder.
    Fetched,
    /// They are where Debian installs them.
    Debian,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "named by an environment variable",
            Self::Path => "on PATH",
            Self::Fetched => "fetched",
            Self::Debian => "installed by Debian",
        })
    }
}

/// Fetches what this machine lacks: what `make services` does.
pub fn fetch(progress: Progress<'_>) -> Result<()> {
    let services = Services::find()?;
    // What is named or on PATH is not fetched; Debian's own does not stand for the pinned one.
    let given = |major| {
        let found = services.postgres.get(&major);
        found.is_some_and(|found| matches!(found.origin, Origin::Named | Origin::Path))
    };
    let mut items: Vec<&dyn Item> = Vec::new();
    for pinned in &PINNED {
        if given(pinned.major) {
            progress(&format!("postgres {}: not fetched, this machine has one", pinned.major));
        } else {
            items.push(pinned);
        }
    }
    // Before anything is fetched: without a Java of sufficient age Kafka would be of no use.
    let warmth = kafka::Warmth::new(&services.folder)?;
    match kafka::Installation::given()? {
        Some(given) => progress(&format!("kafka: not fetched, this machine has {}", given.version)),
        None => items.extend([&kafka::Jars as &dyn Item, &warmth]),
    }
    bring(&services.folder, &items, progress)?;
    // Last, as they may fail on a machine that is no Debian; the servers are there by then.
    for program in &DEBIAN_PROGRAMS {
        program.bring(&services.folder, progress)?;
    }
    Ok(())
}

/// What [`Services::find`] finds, a line each, for people.
///
/// # Errors
///
/// A folder that somebody named is not what it should be.
pub fn listing() -> Result<String> {
    let services = Services::find()?;
    let mut lines = vec![format!("services folder: {}", services.folder().display())];
    for postgres in services.all_postgres() {
        let (version, origin) = (&postgres.version, postgres.origin);
        lines.push(format!("postgres {version}: {} ({origin})", postgres.bin.display()));
    }
    lines.push(match kafka::Installation::find() {
        Ok(kafka::Installation { version, jars, origin, warm, java }) => {
            let warm = if warm.is_some() { "" } else { ", without its first start's archive" };
            let java = format!("Java {} at {}", java.version, java.program.display());
            format!("kafka {version}: {} ({origin}{warm}), {java}", jars.display())
        }
        Err(error) => format!("kafka: {error:#}"),
    });
    for program in &DEBIAN_PROGRAMS {
        lines.push(match services.program(program.program) {
            Ok(path) => format!("{}: {}", program.program, path.display()),
            Err(error) => format!("{error:#}"),
        });
    }
    Ok(lines.join("\n"))
}

/// Where to look.
struct Places {
    named: Option<std::ffi::OsString>,
    on_path: Option<PathBuf>,
    services: PathBuf,
    debian: PathBuf,
}

impl Services {
    /// Looks. What is missing is reported when it is asked for.
    pub fn find() -> Result<Self> {
        Self::look(&Places {
            named: std::env::var_os("POSTRIDER_PG_BIN"),
            on_path: find_on_path("postgres"),
            services: services_folder(),
            debian: "/usr/lib/postgresql".into(),
        })
    }

    /// The services folder: fetched binaries and caches.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server of a major version, or an error that says how to get it.
    pub fn postgres(&self, major: u16) -> Result<&PostgresBinaries> {
        self.postgres.get(&major).with_context(|| {
            format!(
                "no Postgres {major} on this machine: run `make services`, or name its bin folder \
                 in POSTRIDER_PG_BIN (looked there, on PATH, in {} and /usr/lib/postgresql)",
                self.folder.display()
            )
        })
    }

    /// A program that comes from Debian (`psql`, `promtool`), or an error that names its package.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let known = DEBIAN_PROGRAMS.iter().find(|known| known.program == name);
        let known = known.with_context(|| format!("{name} is not among what we fetch"))?;
        known.find(&self.folder).with_context(|| {
            format!("{name} is not here: run `make services`, or {}", known.way_out())
        })
    }

    /// All servers that were found, oldest first.
    pub fn all_postgres(&self) -> impl Iterator<Item = &PostgresBinaries> {
        self.postgres.values()
    }

    fn look(places: &Places) -> Result<Self> {
        let mut postgres = BTreeMap::new();
        let mut add = |bin: &Path, origin| -> Result<()> {
            let PostgresVersion { major, version } = postgres_version(bin)?;
            let binaries = PostgresBinaries { major, version, bin: bin.to_path_buf(), origin };
            postgres.entry(major).or_insert(binaries);
            Ok(())
        };
        for bin in places.named.iter().flat_map(std::env::split_paths) {
            if !bin.as_os_str().is_empty() {
                add(&bin, Origin::Named).context("POSTRIDER_PG_BIN names a folder of no use")?;
            }
        }
        // From here on nobody promised that it works: what cannot be asked is not there.
        if let Some(program) = &places.on_path {
            // PATH often holds a link; initdb and the libraries lie beside the program itself.
            let program = program.canonicalize().unwrap_or_else(|_| program.clone());
            program.parent().and_then(|bin| add(bin, Origin::Path).ok());
        }
        for pinned in PINNED {
            let bin = places.services.join(pinned.folder()).join("bin");
            if bin.is_dir() {
                add(&bin, Origin::Fetched).ok();
            }
        }
        for major in POSTGRES_VERSIONS {
            let bin = places.debian.join(major.to_string()).join("bin");
            if bin.is_dir() {
                add(&bin, Origin::Debian).ok();
            }
        }
        Ok(Self { folder: places.services.clone(), postgres })
    }
}

/// What a server program says it is.
pub(super) struct PostgresVersion {
    pub(super) major: u16,
    pub(super) version: String,
}

/// Asks `postgres --version` in a bin folder, which must hold `initdb` too.
pub(super) fn postgres_version(bin: &Path) -> Result<PostgresVersion> {
    for program in ["postgres", "initdb"] {
        if !is_executable(&bin.join(program)) {
            bail!("{} holds no {program} that can be run", bin.display());
        }
    }
    let program = bin.join("postgres");
    let output = Command::new(&program)
        .arg("--version")
        .output()
        .with_context(|| format!("{} does not run", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    let version = said.split_once("(PostgreSQL) ").map(|(_, version)| version.to_owned());
    let major = version.as_deref().and_then(|version| {
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok()
    });
    match (version, major) {
        (Some(version), Some(major)) => Ok(PostgresVersion { major, version }),
        _ => bail!(
            "{} --version said {said:?} and {:?}, not a version",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with programs that claim to be a version.
    fn fake(root: &Path, folder: &str, version: &str) -> PathBuf {
        let bin = root.join(folder);
        fs::create_dir_all(&bin).unwrap();
        for program in ["postgres", "initdb"] {
            let path = bin.join(program);
            let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin
    }

    #[test]
    fn what_is_named_wins_then_path_then_what_was_fetched_then_debian() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let named = fake(root, "mine", "16.99");
        let on_path = fake(root, "path", "17.98");
        for pinned in PINNED.iter().filter(|pinned| pinned.major > 14) {
            let folder = Path::new("services").join(pinned.folder()).join("bin");
            fake(root, folder.to_str().unwrap(), &format!("{}.97", pinned.major));
        }
        fake(root, "debian/14/bin", "14.96 (Debian 14.96-1)");
        fake(root, "debian/15/bin", "15.96");
        let found = Services::look(&Places {
            named: Some(named.clone().into_os_string()),
            on_path: Some(on_path.join("postgres")),
            services: root.join("services"),
            debian: root.join("debian"),
        })
        .unwrap();
        let got: Vec<_> = found.all_postgres().map(|p| (p.version.as_str(), p.origin)).collect();
        assert_eq!(
            got,
            [
                ("14.96 (Debian 14.96-1)", Origin::Debian),
                ("15.97", Origin::Fetched),
                ("16.99", Origin::Named),
                ("17.98", Origin::Path),
                ("18.97", Origin::Fetched),
            ]
        );
        let missing = found.postgres(13).unwrap_err().to_string();
        assert!(missing.contains("make services"), "{missing}");
    }

    #[test]
    fn a_named_folder_without_a_server_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let error = Services::look(&Places {
            named: Some(root.path().join("nothing").into_os_string()),
            on_path: None,
            services: root.path().into(),
            debian: root.path().into(),
        })
        .unwrap_err();
        assert!(format!("{error:#}").contains("holds no postgres"), "{error:#}");
    }
}
