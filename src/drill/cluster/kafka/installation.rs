//! Where a broker's jars and the Java that runs them are, and how a JVM is told to start fast.
//!
//! Promises one choice, made the same way everywhere: `KAFKA_HOME`, then a `kafka-server-start.sh`
//! on PATH, then what `make services` fetched. Refuses a Kafka older than 4 and a Java older than
//! 17 by name, before anything is started.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::fetch::{JARS_FOLDER, warm_folder};
use crate::drill::cluster::Origin;
use crate::drill::cluster::fetch::{find_on_path, services_folder};

/// Kafka 4's classes are compiled for it.
const OLDEST_JAVA: u32 = 17;
/// Older ones may need ZooKeeper, another log backend and other settings.
const OLDEST_KAFKA: u32 = 4;

/// Flags of every JVM. Measured on 2 cores, start until the broker says STARTED: 2.5 s and 4.1 s of
/// CPU with Java's defaults, 1.9 s and 2.4 s with these, 1.0 s and 1.3 s with the archive of
/// [`Installation::warm`] too. Resident memory falls from 350 MB to 165 MB.
const JVM: &[&str] = &[
    // The optimising compiler works on code that a short-lived broker hardly repeats.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xms64m",
    "-Xmx256m",
    // No files in /tmp/hsperfdata_*, which would stay there after kill -9.
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    // Relative to the broker's folder: native libraries are unpacked in the run directory.
    "-Djava.io.tmpdir=tmp",
    "-Dlog4j2.configurationFile=log4j2.properties",
];

/// The name of the link to the jars in each broker's folder.
pub(super) const LIBS: &str = "libs";
/// The archive of loaded classes in the warm folder.
pub(super) const ARCHIVE: &str = "classes.jsa";
/// The first metadata of a new cluster in the warm folder and in a formatted data folder.
pub(super) const BOOTSTRAP: &str = "bootstrap.checkpoint";

/// A Kafka that can be started.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Kafka's version: `4.3.1`.
    pub version: String,
    /// The folder of jars.
    pub jars: PathBuf,
    /// Why this one.
    pub origin: Origin,
    /// What makes a start faster: an archive of loaded classes (AppCDS) and the outcome of
    /// `StorageTool format`. Absent for a Kafka that `make services` did not fetch.
    pub warm: Option<PathBuf>,
    /// The `java` that runs it.
    pub java: Java,
}

/// A Java of sufficient age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Java {
    /// The program.
    pub program: PathBuf,
    /// As it says it: `17.0.15`.
    pub version: String,
}

impl Installation {
    /// Looks in all places.
    pub fn find() -> Result<Self> {
        match Self::given()? {
            Some(given) => Ok(given),
            None => Self::fetched(&services_folder()),
        }
    }

    /// What this machine brings itself, by `KAFKA_HOME` or on PATH; it is not fetched then.
    pub fn given() -> Result<Option<Self>> {
        let named = std::env::var_os("KAFKA_HOME").filter(|value| !value.is_empty());
        Self::look(named, find_on_path("kafka-server-start.sh"))
    }

    fn look(named: Option<OsString>, on_path: Option<PathBuf>) -> Result<Option<Self>> {
        if let Some(home) = named {
            let jars = std::path::absolute(Path::new(&home).join("libs"))?;
            let version = kafka_version(&jars).context("KAFKA_HOME is of no use")?;
            let origin = Origin::Named;
            return Ok(Some(Self { version, jars, origin, warm: None, java: Java::find()? }));
        }
        // `<home>/bin/kafka-server-start.sh`, perhaps through a link. Nobody promised that it fits.
        let script = on_path.and_then(|script| script.canonicalize().ok());
        let home = script.as_deref().and_then(Path::parent).and_then(Path::parent);
        if let Some(jars) = home.map(|home| home.join("libs"))
            && let Ok(version) = kafka_version(&jars)
        {
            let origin = Origin::Path;
            return Ok(Some(Self { version, jars, origin, warm: None, java: Java::find()? }));
        }
        Ok(None)
    }

    fn fetched(services: &Path) -> Result<Self> {
        let jars = services.join(JARS_FOLDER);
        let Ok(version) = kafka_version(&jars) else {
            bail!(
                "no Kafka on this machine: run `make services`, or name a distribution in \
                 KAFKA_HOME (looked there, on PATH and in {})",
                services.display()
            )
        };
        let java = Java::find()?;
        let warm = Some(services.join(warm_folder(&java))).filter(|folder| folder.is_dir());
        Ok(Self { version, jars, origin: Origin::Fetched, warm, java })
    }

    /// Arguments of `java` up to the class to run, for a process in a broker's folder.
    ///
    /// The class path is relative and goes through the link [`LIBS`]: an archive of classes is
    /// valid only for the same class path, letter by letter, wherever the jars are today.
    pub(super) fn java_arguments(&self, archive: Option<&Path>) -> Result<Vec<OsString>> {
        let jars = jar_names(&self.jars)?;
        let class_path: Vec<String> = jars.iter().map(|jar| format!("{LIBS}/{jar}")).collect();
        let mut arguments: Vec<OsString> = JVM.iter().map(OsString::from).collect();
        if let Some(archive) = archive {
            let mut flag = OsString::from("-XX:SharedArchiveFile=");
            flag.push(archive);
            // An archive of another Java is passed over with a warning in the log.
            arguments.extend([OsString::from("-Xshare:auto"), flag]);
        }
        arguments.extend([OsString::from("-cp"), class_path.join(":").into()]);
        Ok(arguments)
    }
}

impl Java {
    /// `JAVA_HOME`, else PATH.
    pub fn find() -> Result<Self> {
        let home = std::env::var_os("JAVA_HOME").filter(|value| !value.is_empty());
        let program = match home {
            Some(home) => PathBuf::from(home).join("bin/java"),
            None => find_on_path("java").context(
                "java is not on PATH: install a Java 17 or newer, Debian's openjdk-17-jre-headless",
            )?,
        };
        let output = Command::new(&program)
            .arg("-version")
            .output()
            .with_context(|| format!("{} does not run (see JAVA_HOME)", program.display()))?;
        // It answers on standard error.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let version = java_version(&said).with_context(|| {
            format!("{} -version said {:?}, not a version", program.display(), said.trim())
        })?;
        ensure!(
            leading_number(&version) >= Some(OLDEST_JAVA),
            "{} is Java {version} and Kafka 4 needs {OLDEST_JAVA} or newer: install Debian's \
             openjdk-17-jre-headless, or name another one in JAVA_HOME",
            program.display()
        );
        Ok(Self { program, version })
    }
}

/// `openjdk version "17.0.15" 2025-04-15`, in any line: JAVA_TOOL_OPTIONS adds one before it.
fn java_version(said: &str) -> Option<String> {
    let (_, rest) = said.split_once(" version \"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

fn leading_number(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The version of the broker in a folder of jars.
fn kafka_version(jars: &Path) -> Result<String> {
    let names = jar_names(jars)?;
    let version = names.iter().find_map(|name| {
        let version = name.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?;
        // Distributions also bring `kafka_2.13-4.3.1-sources.jar` and the like.
        version.chars().all(|c| c.is_ascii_digit() || c == '.').then(|| version.to_owned())
    });
    let version =
        version.with_context(|| format!("{} holds no kafka_2.13-*.jar", jars.display()))?;
    ensure!(
        leading_number(&version) >= Some(OLDEST_KAFKA),
        "{} holds Kafka {version}; {OLDEST_KAFKA}.0 or newer is needed",
        jars.display()
    );
    Ok(version)
}

/// The jars in a folder, sorted.
pub(super) fn jar_names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut names: Vec<String> =
        entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".jar"));
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(root: &Path, home: &str, version: &str) -> PathBuf {
        let libs = root.join(home).join("libs");
        fs::create_dir_all(&libs).unwrap();
        fs::write(libs.join(format!("kafka_2.13-{version}.jar")), "").unwrap();
        fs::write(libs.join(format!("kafka_2.13-{version}-sources.jar")), "").unwrap();
        root.join(home)
    }

    #[test]
    fn what_is_named_wins_then_path_then_what_was_fetched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let named = distribution(root, "mine", "4.1.0");
        let on_path = distribution(root, "path", "4.2.0").join("bin/kafka-server-start.sh");
        fs::create_dir_all(on_path.parent().unwrap()).unwrap();
        fs::write(&on_path, "").unwrap();
        let fetched = root.join(JARS_FOLDER);
        fs::create_dir_all(&fetched).unwrap();
        fs::write(fetched.join("kafka_2.13-4.3.1.jar"), "").unwrap();

        let given = |named: Option<&Path>, on_path: Option<&PathBuf>| {
            let named = named.map(|path| path.as_os_str().to_owned());
            let found = Installation::look(named, on_path.cloned()).unwrap();
            found.map(|found| (found.version, found.origin))
        };
        let named = given(Some(&named), Some(&on_path));
        assert_eq!(named, Some(("4.1.0".to_owned(), Origin::Named)));
        assert_eq!(given(None, Some(&on_path)), Some(("4.2.0".to_owned(), Origin::Path)));
        assert_eq!(given(None, None), None);
        assert_eq!(Installation::fetched(root).unwrap().version, "4.3.1");
    }

    #[test]
    fn a_kafka_that_is_old_or_missing_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let old = distribution(root.path(), "old", "3.9.1");
        let refuse = |home: PathBuf| {
            let refused = Installation::look(Some(home.into_os_string()), None);
            format!("{:#}", refused.unwrap_err())
        };
        let error = refuse(old);
        assert!(error.contains("KAFKA_HOME") && error.contains("3.9.1"), "{error}");
        let error = refuse(root.path().join("nothing"));
        assert!(error.contains("nothing/libs"), "{error}");
        let error = Installation::fetched(root.path()).unwrap_err().to_string();
        assert!(error.contains("make services"), "{error}");
    }

    #[test]
    fn java_tells_its_version_in_two_styles() {
        let said = "Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"17.0.15\" 2025-04-15\n";
        assert_eq!(java_version(said).as_deref(), Some("17.0.15"));
        assert_eq!(leading_number("17.0.15"), Some(17));
        // Java 8 called itself 1.8.
        assert_eq!(leading_number("1.8.0_402"), Some(1));
        assert_eq!(java_version("command not found"), None);
    }
}
