//! Kafka's jars by Maven, and what makes a broker start fast.
//!
//! Promises exactly the jars whose checksums stand in `jars.sha256`: a changed, an additional and a
//! missing one are refused by name. Maven asks its own local repository first, so a fetch that was
//! cut off goes on where it was.
//!
//! The pins are renewed by raising the version in `pom.xml`, then
//! `mvn dependency:copy-dependencies -DoutputDirectory=jars` and `cd jars && sha256sum *.jar`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::installation::{ARCHIVE, BOOTSTRAP, Installation, Java, jar_names};
use super::{Kafka, warm_up};
use crate::drill::cluster::fetch::{Item, Progress, Tool, check_sha256};
use crate::drill::cluster::{Origin, RunDir};

const POM: &str = include_str!("pom.xml");
const PINNED: &str = include_str!("jars.sha256");
/// The newest version that is complete in Maven Central with its tools.
const VERSION: &str = "4.3.1";
/// The jars' folder in the services folder.
pub(super) const JARS_FOLDER: &str = "kafka/4.3.1";

const MAVEN: Tool = Tool { program: "mvn", way_out: "install the Debian package maven" };

/// A registry that says nothing for a minute is given up; Maven's own patience is half an hour. The
/// first is Maven 3.8's setting, the second that of 3.9 and later.
const QUICK_TO_GIVE_UP: [&str; 2] =
    ["-Dmaven.wagon.rto=60000", "-Daether.connector.requestTimeout=60000"];

/// A Java's own warm folder in the services folder: an archive is good for one Java only.
pub(super) fn warm_folder(java: &Java) -> PathBuf {
    format!("kafka/{VERSION}-warm-java-{}", java.version).into()
}

/// The jars of a broker.
#[derive(Debug)]
pub struct Jars;

impl Item for Jars {
    fn name(&self) -> String {
        format!("kafka {VERSION}")
    }

    fn folder(&self) -> PathBuf {
        JARS_FOLDER.into()
    }

    fn fill(&self, into: &Path, progress: Progress<'_>) -> Result<()> {
        // Before the download: what is fetched would be of no use without it.
        Java::find()?;
        let project = tempfile::tempdir().context("a folder for Maven's project")?;
        fs::write(project.path().join("pom.xml"), POM)?;
        progress(&format!("{} jars by Maven, 44 MB", pinned().len()));
        let mut maven = MAVEN.command()?;
        maven.args(["-q", "-B", "dependency:copy-dependencies"]).current_dir(project.path());
        maven.args(QUICK_TO_GIVE_UP);
        maven.arg(format!("-DoutputDirectory={}", into.display()));
        MAVEN.run(&mut maven)?;
        Ok(())
    }

    fn verify(&self, folder: &Path) -> Result<()> {
        let pinned = pinned();
        let found = jar_names(folder)?;
        if let Some(extra) = found.iter().find(|name| !pinned.contains_key(name.as_str())) {
            bail!("{extra} is not among the pinned jars");
        }
        for (name, checksum) in pinned {
            check_sha256(&folder.join(name), checksum)?;
        }
        Ok(())
    }
}

/// File name to SHA-256, from the lines of `sha256sum`.
fn pinned() -> BTreeMap<&'static str, &'static str> {
    PINNED.lines().filter_map(|line| line.split_once("  ")).map(|(sum, name)| (name, sum)).collect()
}

/// A first broker's memory of what it loaded, for all brokers after it.
///
/// One boot more, 4 s and 50 MB, which the third start after it has earned back: 1.0 s instead of
/// 1.9 s a broker, 0.4 s instead of 0.9 s for `StorageTool`, and that one is hardly needed any
/// more, as its outcome is kept too. It also proves, when it is fetched, that this Kafka starts.
#[derive(Debug)]
pub struct Warmth {
    java: Java,
    services: PathBuf,
}

impl Warmth {
    /// The item for the Java of this machine and the [`Jars`] in a services folder.
    pub fn new(services: &Path) -> Result<Self> {
        Ok(Self { java: Java::find()?, services: services.to_path_buf() })
    }
}

impl Item for Warmth {
    fn name(&self) -> String {
        format!("kafka {VERSION}: first start with Java {}", self.java.version)
    }

    fn folder(&self) -> PathBuf {
        warm_folder(&self.java)
    }

    fn fill(&self, into: &Path, progress: Progress<'_>) -> Result<()> {
        let installation = Installation {
            version: VERSION.to_owned(),
            jars: self.services.join(JARS_FOLDER),
            origin: Origin::Fetched,
            warm: None,
            java: self.java.clone(),
        };
        let run = RunDir::create()?;
        let kafka: Kafka = warm_up::start(&run, installation)?;
        progress("it works; its loaded classes are written down");
        let kept = warm_up::finish(kafka)?;
        for name in [ARCHIVE, BOOTSTRAP] {
            fs::copy(kept.join(name), into.join(name))
                .with_context(|| format!("the first start left no {name}"))?;
        }
        Ok(())
    }

    fn verify(&self, folder: &Path) -> Result<()> {
        for name in [ARCHIVE, BOOTSTRAP] {
            let length = fs::metadata(folder.join(name)).map(|meta| meta.len()).unwrap_or(0);
            ensure!(length > 0, "{name} is missing or empty");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pom_and_the_pins_speak_of_one_version() {
        assert!(POM.contains(&format!("<version>{VERSION}</version>")));
        assert!(JARS_FOLDER.ends_with(VERSION));
        assert!(pinned().contains_key(format!("kafka_2.13-{VERSION}.jar").as_str()));
        assert_eq!(pinned().len(), PINNED.lines().count());
        assert!(pinned().values().all(|sum| sum.len() == 64));
    }

    #[test]
    fn a_changed_an_extra_and_a_missing_jar_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refuse = || format!("{:#}", Jars.verify(folder.path()).unwrap_err());
        let first = *pinned().keys().next().unwrap();
        assert!(refuse().contains(first), "missing: {}", refuse());
        fs::write(folder.path().join(first), "changed").unwrap();
        assert!(refuse().contains("pinned is"), "{}", refuse());
        fs::write(folder.path().join("extra.jar"), "").unwrap();
        assert!(refuse().contains("extra.jar"), "{}", refuse());
    }
}
