//! Bringing the servers' binaries into the services folder, once.
//!
//! Promises that a folder of an item is whole or absent: it is filled beside its place, verified
//! and renamed. What is there is not fetched again; two fetches at once take turns; a fetch that
//! was cut off goes on with the item it was at.
//!
//! A new kind of thing implements [`Item`] and is listed where [`bring`] is called.

mod debian;
mod postgres;
mod tool;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

pub use debian::{DEBIAN_PROGRAMS, DebianProgram};
pub use postgres::{PINNED, PinnedPostgres};
pub(super) use tool::is_executable;
pub use tool::{Tool, check_sha256, find_on_path, sha256_of};

const CHMOD: Tool = Tool { program: "chmod", way_out: "install the Debian package coreutils" };

/// Where a fetch tells a person what it is doing, one line a call.
pub type Progress<'a> = &'a dyn Fn(&str);

/// One thing that is fetched once and kept in a folder of its own.
pub trait Item {
    /// What progress and errors call it: `postgres 17.10`.
    fn name(&self) -> String;

    /// Its folder, relative to the services folder. It names the pinned version, so that a new pin
    /// is a new folder: `postgres/17.10.0-beta.17`.
    fn folder(&self) -> PathBuf;

    /// Fills the empty folder `into`. An error names the way out.
    fn fill(&self, into: &Path, progress: Progress<'_>) -> Result<()>;

    /// Whether the folder is whole: the files that its users need are there and run.
    fn verify(&self, folder: &Path) -> Result<()>;
}

/// The services folder: `POSTRIDER_SERVICES`, else `.services` in the repository.
pub fn services_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("POSTRIDER_SERVICES").filter(|value| !value.is_empty()) {
        return std::path::absolute(PathBuf::from(&folder)).unwrap_or_else(|_| folder.into());
    }
    // The repository this was built from; a binary that moved elsewhere uses where it is called.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    if repository.is_dir() { repository.join(".services") } else { PathBuf::from(".services") }
}

/// Fetches every item that is not there yet.
pub fn bring(services: &Path, items: &[&dyn Item], progress: Progress<'_>) -> Result<()> {
    fs::create_dir_all(services)
        .with_context(|| format!("the services folder {} cannot be made", services.display()))?;
    let _lock = lock(services, progress)?;
    for (index, item) in items.iter().enumerate() {
        let name = item.name();
        let step = format!("[{}/{}] {name}", index + 1, items.len());
        let folder = services.join(item.folder());
        if folder.is_dir() {
            progress(&format!("{step}: there"));
            continue;
        }
        progress(&format!("{step}: fetching"));
        let started = Instant::now();
        bring_one(&folder, *item, progress).with_context(|| format!("{name} was not fetched"))?;
        progress(&format!("{step}: done in {:.1} s", started.elapsed().as_secs_f32()));
    }
    Ok(())
}

fn bring_one(folder: &Path, item: &dyn Item, progress: Progress<'_>) -> Result<()> {
    let parent = folder.parent().context("an item needs a folder of its own")?;
    let name = folder.file_name().context("an item needs a folder of its own")?;
    let partial = parent.join(format!(".partial-{}", name.to_string_lossy()));
    // What an interrupted fetch left; the lock says that nobody is filling it now.
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(&partial)?;
    item.fill(&partial, progress)?;
    // Servers may run as another account, whatever our umask.
    CHMOD.run(CHMOD.command()?.args(["-R", "u=rwX,go=rX"]).arg(&partial))?;
    item.verify(&partial).context("what was fetched is not whole")?;
    fs::rename(&partial, folder)?;
    Ok(())
}

/// Taken for the whole fetch and given back by the kernel, however we end.
fn lock(services: &Path, progress: Progress<'_>) -> Result<File> {
    let file = File::create(services.join(".lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress("another fetch is at work: waiting for it to end");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    struct Fake {
        fills: Cell<u32>,
        whole: Cell<bool>,
    }

    impl Item for Fake {
        fn name(&self) -> String {
            "fake 1".to_owned()
        }
        fn folder(&self) -> PathBuf {
            "fake/1".into()
        }
        fn fill(&self, into: &Path, _: Progress<'_>) -> Result<()> {
            self.fills.set(self.fills.get() + 1);
            assert_eq!(fs::read_dir(into)?.count(), 0, "it starts empty");
            fs::write(into.join("part"), "x")?;
            Ok(())
        }
        fn verify(&self, _: &Path) -> Result<()> {
            anyhow::ensure!(self.whole.get(), "a file is missing");
            Ok(())
        }
    }

    #[test]
    fn an_item_is_whole_or_absent_and_fetched_once() {
        let services = tempfile::tempdir().unwrap();
        let fake = Fake { fills: Cell::new(0), whole: Cell::new(false) };
        let error = bring(services.path(), &[&fake], &|_| {}).unwrap_err();
        assert!(format!("{error:#}").starts_with("fake 1 was not fetched: "), "{error:#}");
        assert!(!services.path().join("fake/1").exists());

        fake.whole.set(true);
        let said = RefCell::new(Vec::new());
        let progress = |line: &str| said.borrow_mut().push(line.to_owned());
        bring(services.path(), &[&fake], &progress).unwrap();
        bring(services.path(), &[&fake], &progress).unwrap();
        assert!(services.path().join("fake/1/part").exists());
        assert_eq!(fake.fills.get(), 2);
        assert_eq!(said.borrow().last().unwrap(), "[1/1] fake 1: there");
    }

    #[test]
    fn two_fetches_take_turns() {
        let services = tempfile::tempdir().unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        let held = lock(services.path(), &|_| {}).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let fake = Fake { fills: Cell::new(0), whole: Cell::new(true) };
                bring(services.path(), &[&fake], &|line| said.send(line.to_owned()).unwrap())
            });
            assert!(heard.recv().unwrap().contains("another fetch is at work"));
            assert!(!services.path().join("fake").exists());
            drop(held);
            second.join().unwrap().unwrap();
        });
        assert!(services.path().join("fake/1").exists());
    }
}
