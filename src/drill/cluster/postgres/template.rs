//! An empty database cluster, made once and copied from then on: `initdb` takes a second or more,
//! a copy some 50 ms.
//!
//! Promises that the cache is never half a cluster: it is filled aside and renamed into place.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::super::run_dir::copy_tree;
use super::super::services::PostgresBinaries;
use super::super::{Launch, Process, RunDir};

/// `initdb` takes 1 to 3 s; on a machine that is busy with a build, much more.
const INITDB_DEADLINE: Duration = Duration::from_secs(120);
/// The superuser of every server of ours.
pub(super) const SUPERUSER: &str = "postgres";
/// The locale C is the only one that every machine has.
const OPTIONS: [&str; 6] = ["-U", SUPERUSER, "-A", "trust", "-N", "--locale=C"];

/// Makes `folder/data`, owned by the account that runs the server.
pub(super) fn make_data(
    run: &Arc<RunDir>,
    services: &Path,
    binaries: &PostgresBinaries,
    bin: &Path,
    folder: &Path,
) -> Result<()> {
    let data = folder.join("data");
    let cache = services.join("templates").join(key(run, binaries));
    if cache.is_dir() {
        return copy_tree(&cache, &data);
    }
    initdb(run, binaries, bin, folder)?;
    // A services folder that cannot be written costs time at each start, nothing else.
    keep(&data, &cache).ok();
    Ok(())
}

fn initdb(run: &Arc<RunDir>, binaries: &PostgresBinaries, bin: &Path, folder: &Path) -> Result<()> {
    let mut arguments = vec!["-D".into(), folder.join("data").into(), "-E".into(), "UTF8".into()];
    arguments.extend(OPTIONS.map(Into::into));
    let process = Process::spawn(
        run,
        Launch {
            name: format!("initdb {}", binaries.major),
            program: bin.join("initdb"),
            arguments,
            environment: vec![],
            folder: folder.to_path_buf(),
            log: folder.join("initdb.log"),
        },
    )?;
    let status = process.wait_exit(INITDB_DEADLINE)?;
    ensure!(status.success(), "initdb failed ({status}); {}", process.log_tail());
    Ok(())
}

/// What a cached cluster depends on: the programs, how they were called, and who owns the files.
fn key(run: &RunDir, binaries: &PostgresBinaries) -> String {
    let account = run.account();
    let mut hash = Sha256::new();
    hash.update(format!("{} {} {OPTIONS:?} {account:?}", binaries.version, binaries.bin.display()));
    let digest = hash.finalize();
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("postgres-{}-{short}", binaries.major)
}

fn keep(data: &Path, cache: &Path) -> Result<()> {
    let parent = cache.parent().context("the cache has a parent")?;
    fs::create_dir_all(parent)?;
    let aside = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent)?;
    copy_tree(data, &aside.path().join("data"))?;
    // Loses against another process that did the same; theirs is as good.
    fs::rename(aside.path().join("data"), cache)?;
    Ok(())
}
