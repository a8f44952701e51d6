//! The tools a fetch is made with: found by name, run to an end, and blamed by name.
//!
//! Promises that a missing tool, a failing one and a changed download are three different errors,
//! each with its way out.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// How many lines of a failing tool's last words go into the error.
const LAST_WORDS: usize = 12;

/// A command-line tool, with the way to get it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The program's name on PATH.
    pub program: &'static str,
    /// What to do when it is missing: `install the Debian package npm`.
    pub way_out: &'static str,
}

impl Tool {
    /// Whether it is on PATH.
    pub fn is_there(&self) -> bool {
        find_on_path(self.program).is_some()
    }

    /// A command that runs it, or an error that names it and its package.
    pub fn command(&self) -> Result<Command> {
        match find_on_path(self.program) {
            Some(path) => Ok(Command::new(path)),
            None => bail!("{} is not on PATH: {}", self.program, self.way_out),
        }
    }

    /// Runs a command of this tool to its end; the error of a failure holds its last words.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        let output =
            command.output().with_context(|| format!("{} could not be run", self.program))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n    ");
        bail!("{} failed ({}):\n    {last}", self.program, output.status)
    }
}

/// The full path of an executable found on PATH.
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| is_executable(path))
}

pub(in super::super) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("{} is not there", path.display()))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An error unless the file has the pinned SHA-256.
pub fn check_sha256(path: &Path, pinned: &str) -> Result<()> {
    let actual = sha256_of(path)?;
    if actual != pinned {
        bail!(
            "{} has sha256 {actual}, pinned is {pinned}: the download is damaged or was replaced; \
             try again, and if it stays, compare with the publisher before changing the pin",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_compared_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.tgz");
        std::fs::write(&file, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check_sha256(&file, abc).unwrap();
        std::fs::write(&file, "abd").unwrap();
        let error = check_sha256(&file, abc).unwrap_err().to_string();
        assert!(error.contains("a.tgz") && error.contains(abc), "{error}");
    }

    #[test]
    fn missing_and_failing_tools_are_told_apart() {
        let missing = Tool { program: "no-such-tool", way_out: "install the package nst" };
        let error = missing.command().unwrap_err().to_string();
        assert_eq!(error, "no-such-tool is not on PATH: install the package nst");
        let shell = Tool { program: "sh", way_out: "" };
        let mut command = shell.command().unwrap();
        let error = shell.run(command.args(["-c", "echo no luck >&2; exit 4"])).unwrap_err();
        assert!(error.to_string().contains("no luck"), "{error}");
    }
}
