//! Programs that come from Debian by name: `psql` and `promtool`.
//!
//! Promises that nothing starts to listen: `postgresql-client` is refused if it would bring a
//! server, and `prometheus` is always unpacked, never installed, as its installation starts a
//! server on every address of the machine.
//!
//! On PATH: used. As root: installed. Else: downloaded and unpacked into the services folder, with
//! the libraries that the machine lacks. Else: an error that names the package.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;

use super::{Item, Progress, Tool, bring, find_on_path};

const DPKG: Tool = Tool { program: "dpkg", way_out: "it comes with Debian" };
/// Somebody else may be installing: wait for them this many seconds.
const APT_LOCK: &str = "DPkg::Lock::Timeout=120";

/// A program of a Debian package.
#[derive(Debug, Clone, Copy)]
pub struct DebianProgram {
    /// The program: `psql`.
    pub program: &'static str,
    /// The package: `postgresql-client`.
    pub package: &'static str,
    /// Whether root may install the package; otherwise it is unpacked in any case.
    installable: bool,
    /// Where the program lies in the unpacked package or in one that it needs; `*` is any folder.
    inside: &'static str,
}

/// What the tests and drills call.
pub const DEBIAN_PROGRAMS: [DebianProgram; 2] = [
    DebianProgram {
        program: "psql",
        package: "postgresql-client",
        installable: true,
        // `/usr/bin/psql` is a wrapper of Debian's that works only where it is installed.
        inside: "usr/lib/postgresql/*/bin/psql",
    },
    DebianProgram {
        program: "promtool",
        package: "prometheus",
        installable: false,
        inside: "usr/bin/promtool",
    },
];

impl DebianProgram {
    /// Makes it available, or fails naming the package.
    pub fn bring(&self, services: &Path, progress: Progress<'_>) -> Result<()> {
        let name = self.name();
        if let Some(path) = find_on_path(self.program) {
            progress(&format!("{name}: there, {}", path.display()));
            return Ok(());
        }
        if self.installable && geteuid().is_root() && self.apt().is_there() {
            progress(&format!("{name}: installing"));
            return self.install().with_context(|| self.way_out());
        }
        bring(services, &[self], progress)
    }

    /// Where it is: on PATH or unpacked.
    pub fn find(&self, services: &Path) -> Option<PathBuf> {
        find_on_path(self.program).or_else(|| {
            let unpacked = services.join(self.folder()).join("bin").join(self.program);
            unpacked.is_file().then_some(unpacked)
        })
    }

    /// What a person does when we cannot.
    pub fn way_out(&self) -> String {
        format!(
            "install the Debian package {} or put {} on PATH by other means",
            self.package, self.program
        )
    }

    fn install(&self) -> Result<()> {
        self.missing_packages()?;
        let apt = self.apt();
        let mut command = apt.command()?;
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", APT_LOCK]);
        apt.run(command.args(["install", "-y", "--no-install-recommends", self.package]))?;
        ensure!(find_on_path(self.program).is_some(), "{} is still not on PATH", self.program);
        Ok(())
    }

    /// The packages that an installation would add, found by letting apt simulate it.
    fn missing_packages(&self) -> Result<Vec<String>> {
        let apt = self.apt();
        let simulate = || -> Result<String> {
            let mut command = apt.command()?;
            apt.run(command.args(["-s", "install", "--no-install-recommends", self.package]))
        };
        let plan = match simulate() {
            Ok(plan) => plan,
            // A fresh machine's lists of packages are empty; only root may fill them.
            Err(_) if geteuid().is_root() => {
                apt.run(apt.command()?.args(["-o", APT_LOCK, "update"]))?;
                simulate()?
            }
            Err(error) => {
                return Err(error.context("apt knows no such package: has `apt-get update` run?"));
            }
        };
        let planned = planned_packages(&plan);
        if let Some((server, _)) = planned.iter().find(|(package, _)| is_a_server(package)) {
            bail!("installing {} would install or restart the server {server}", self.package);
        }
        let missing = planned.into_iter().filter(|(_, plan)| *plan == Plan::Install);
        Ok(missing.map(|(package, _)| package).collect())
    }

    fn apt(&self) -> Tool {
        Tool { program: "apt-get", way_out: "this machine is no Debian" }
    }
}

impl Item for DebianProgram {
    fn name(&self) -> String {
        format!("{} (Debian package {})", self.program, self.package)
    }

    fn folder(&self) -> PathBuf {
        Path::new("debian").join(self.program)
    }

    fn fill(&self, into: &Path, _progress: Progress<'_>) -> Result<()> {
        self.unpack(into).with_context(|| self.way_out())
    }

    fn verify(&self, folder: &Path) -> Result<()> {
        let tool = Tool { program: self.program, way_out: "" };
        let program = folder.join("bin").join(self.program);
        tool.run(std::process::Command::new(program).arg("--version")).map(drop)
    }
}

impl DebianProgram {
    fn unpack(&self, into: &Path) -> Result<()> {
        let packages = if self.installable {
            let mut packages = self.missing_packages()?;
            packages.retain(|package| package != self.package);
            packages.push(self.package.to_owned());
            packages
        } else {
            // A Go program needs no library, and the package's other needs are the server's.
            vec![self.package.to_owned()]
        };
        let debs = into.join("debs");
        fs::create_dir(&debs)?;
        let apt = self.apt();
        let download = || -> Result<String> {
            let mut command = apt.command()?;
            // apt lowers its own rights, and then may not write here.
            command.args(["-o", "APT::Sandbox::User=root", "download"]);
            apt.run(command.args(&packages).current_dir(&debs))
        };
        if download().is_err() {
            if geteuid().is_root() {
                apt.run(apt.command()?.args(["-o", APT_LOCK, "update"]))?;
            }
            download()?;
        }
        for deb in fs::read_dir(&debs)? {
            DPKG.run(DPKG.command()?.arg("-x").arg(deb?.path()).arg(into))?;
        }
        fs::remove_dir_all(&debs)?;
        let program = resolve(into, self.inside)
            .with_context(|| format!("{} is not in {packages:?}", self.inside))?;
        let start = start_script(&program);
        fs::create_dir(into.join("bin"))?;
        let script = into.join("bin").join(self.program);
        fs::write(&script, start)?;
        fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}

/// A script in `bin` that finds the unpacked libraries, wherever the folder was moved to.
fn start_script(program: &Path) -> String {
    format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")/..\n\
         LD_LIBRARY_PATH=$(echo \"$here\"/usr/lib/*-linux-gnu)${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\n\
         export LD_LIBRARY_PATH\nexec \"$here/{}\" \"$@\"\n",
        program.display()
    )
}

/// The relative path that a pattern with `*` for whole folders stands for.
fn resolve(root: &Path, pattern: &str) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for part in pattern.split('/') {
        if part == "*" {
            let entry = fs::read_dir(root.join(&found)).ok()?.flatten().next()?;
            found.push(entry.file_name());
        } else {
            found.push(part);
        }
    }
    root.join(&found).is_file().then_some(found)
}

/// What apt would do with a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Install,
    Upgrade,
}

/// The packages of a simulated installation: `Inst libpq5 (15.18-0 Debian [amd64])`. One that is
/// there already has its version in brackets first: `Inst libpq5 [15.17-0] (15.18-0 ...)`.
fn planned_packages(plan: &str) -> Vec<(String, Plan)> {
    plan.lines()
        .filter_map(|line| {
            let (package, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            let plan = if rest.starts_with('[') { Plan::Upgrade } else { Plan::Install };
            Some((package.to_owned(), plan))
        })
        .collect()
}

fn is_a_server(package: &str) -> bool {
    let rest = package.strip_prefix("postgresql-").unwrap_or_default();
    package == "postgresql" || rest.chars().next().is_some_and(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_and_a_server_in_it_noticed() {
        let plan = "Reading package lists...\nInst libpq5 (15.18-0+deb12u1 Debian [amd64])\n\
                    Inst libssl3 [3.0.1] (3.0.2 Debian [amd64]) []\n\
                    Inst postgresql-client-15 (15.18 Debian [amd64])\nConf libpq5 (15.18)\n";
        let planned = planned_packages(plan);
        let names: Vec<_> = planned.iter().map(|(name, plan)| (name.as_str(), *plan)).collect();
        assert_eq!(
            names,
            [
                ("libpq5", Plan::Install),
                ("libssl3", Plan::Upgrade),
                ("postgresql-client-15", Plan::Install)
            ]
        );
        assert!(!names.iter().any(|(name, _)| is_a_server(name)));
        assert!(is_a_server("postgresql") && is_a_server("postgresql-17"));
        assert!(!is_a_server("postgresql-common"));
    }

    #[test]
    fn an_unpacked_program_is_started_with_its_libraries() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/lib/postgresql/15/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(root.path().join("usr/lib/x86_64-linux-gnu")).unwrap();
        fs::create_dir_all(root.path().join("bin")).unwrap();
        let script = |path: PathBuf, text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        script(bin.join("psql"), "#!/bin/sh\necho \"$1 $LD_LIBRARY_PATH\"\n");
        let found = resolve(root.path(), "usr/lib/postgresql/*/bin/psql").unwrap();
        assert_eq!(found, Path::new("usr/lib/postgresql/15/bin/psql"));
        script(root.path().join("bin/psql"), &start_script(&found));
        let output =
            std::process::Command::new(root.path().join("bin/psql")).arg("hi").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("hi ") && said.contains("usr/lib/x86_64-linux-gnu"), "{said}");
    }
}
