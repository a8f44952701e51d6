//! The folder of one run and the warden that empties it.
//!
//! Promises that whatever runs in the folder is killed and the folder removed when the last handle
//! is dropped, and also when this process panics, is interrupted or killed with `kill -9`.
//!
//! The warden is a small `/bin/sh` that reads a pipe whose only writer we are. Our end, of whatever
//! kind, closes the pipe; the shell then kills every process whose working directory lies in the
//! folder (so servers are started in it), and removes it. Process groups would not do: Postgres'
//! backends start sessions of their own. Neither would `PR_SET_PDEATHSIG`: it follows the *thread*
//! that forked, and a test's or a runtime's thread ends long before its process.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::wait_until;

const WARDEN: &str = include_str!("warden.sh");
/// How long a drop waits for the warden. It needs some 50 ms plus the removal of the data; its own
/// rounds end after about 20 s, which only an uninterruptible process makes it use.
const WARDEN_DEADLINE: Duration = Duration::from_secs(30);

/// A short folder under `/tmp` for one run's servers; see the module for what it promises.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    account: Option<Account>,
    folders: AtomicU32,
    /// Binaries copied to where the servers' account can reach them, one copy at a time.
    copies: Mutex<()>,
    warden: Mutex<Child>,
}

/// The ordinary user that servers run as when we are root: Postgres refuses to run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The user's id.
    pub uid: u32,
    /// The id of the user's group.
    pub gid: u32,
}

impl RunDir {
    /// Makes the folder, `/tmp/pr-` and six characters: a unix socket's path must fit in 107 bytes,
    /// and another user must be able to enter it, which a home directory or `TMPDIR` may refuse.
    pub fn create() -> Result<Arc<Self>> {
        let path = tempfile::Builder::new()
            .prefix("pr-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .context("the run directory under /tmp could not be made")?
            .keep();
        // The mode given at creation is cut by the umask.
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        let warden = match start_warden(&path) {
            Ok(warden) => warden,
            Err(error) => {
                fs::remove_dir_all(&path).ok();
                return Err(error).context("the run directory's warden, /bin/sh, did not start");
            }
        };
        Ok(Arc::new(Self {
            path,
            account: geteuid().is_root().then(nobody),
            folders: AtomicU32::new(0),
            copies: Mutex::new(()),
            warden: Mutex::new(warden),
        }))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whom servers run as, if not as ourselves.
    pub fn account(&self) -> Option<Account> {
        self.account
    }

    /// Makes a new folder for one server, owned by the account it runs as: `name-1`, `name-2` ...
    pub fn server_folder(&self, name: &str) -> Result<PathBuf> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed) + 1;
        let folder = self.path.join(format!("{name}-{number}"));
        fs::create_dir(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        self.hand_over(&folder)?;
        Ok(folder)
    }

    /// Gives a file or folder to the account that servers run as.
    pub fn hand_over(&self, path: &Path) -> Result<()> {
        if let Some(Account { uid, gid }) = self.account {
            chown(path, Some(uid), Some(gid))
                .with_context(|| format!("{} cannot be given to a server", path.display()))?;
        }
        Ok(())
    }

    /// A folder of binaries as the servers' account can reach it: the folder itself, or a copy in
    /// the run directory if it lies in somebody's home that an ordinary user may not enter.
    pub fn reachable(&self, folder: &Path) -> Result<PathBuf> {
        let open_to_all =
            folder.ancestors().filter(|part| !part.as_os_str().is_empty()).all(|part| {
                fs::metadata(part).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
            });
        if self.account.is_none() || open_to_all {
            return Ok(folder.to_path_buf());
        }
        let _one_at_a_time = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let name = folder.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let copy = self.path.join("bin").join(name);
        if !copy.exists() {
            let copies = self.path.join("bin");
            fs::create_dir_all(&copies)?;
            fs::set_permissions(&copies, Permissions::from_mode(0o755))?;
            copy_tree(folder, &copy)?;
        }
        Ok(copy)
    }

    /// The processes of ours that work in `folder` (this run directory or a part of it), by pid.
    ///
    /// Somebody's shell that went there to look at a log is none of them: see `is_ours`.
    pub fn processes_in(folder: &Path) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            // A zombie has no working directory any more, so it does not count.
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
                    && is_ours(*pid)
            })
            .collect()
    }

    /// Kills (-9) whatever works in `folder` and waits until nothing does.
    ///
    /// A pid found by its working directory could in theory be reused before the signal; what is
    /// found is ours a microsecond ago and pids are handed out in turn, so we accept that.
    pub fn kill_all_in(folder: &Path) -> Result<()> {
        let what = format!("every process in {} to die", folder.display());
        wait_until(Duration::from_secs(20), &what, || {
            let alive = Self::processes_in(folder);
            for pid in alive.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                kill_process(pid, Signal::KILL).ok();
            }
            Ok(alive.is_empty().then_some(()))
        })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let warden = self.warden.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(warden.stdin.take());
        let ended = wait_until(WARDEN_DEADLINE, "the warden to clean up", || {
            Ok(warden.try_wait()?.map(drop))
        });
        // Somebody may have killed the warden; then its work is ours.
        if ended.is_err() || self.path.exists() {
            Self::kill_all_in(&self.path).ok();
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Whether a process in a run directory was started by us, as far as sessions tell: a server has no
/// terminal or shares our session; a shell leads a session with a terminal, and what it starts
/// belongs to that one. `warden.sh` has the same rule.
fn is_ours(pid: i32) -> bool {
    // (session, terminal): the fields behind the name, which may hold anything.
    let of = |pid: i32| -> Option<(i32, i32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(3);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let us = i32::try_from(std::process::id()).ok().and_then(of);
    let Some((session, terminal)) = of(pid) else { return false };
    terminal == 0 || (session != pid && us.is_some_and(|(ours, _)| ours == session))
}

/// Copies a tree with owners, modes, times and links; as a reflink where the file system can.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).output()?;
    anyhow::ensure!(
        output.status.success(),
        "cp -a {} {} failed: {}",
        from.display(),
        to.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn start_warden(path: &Path) -> io::Result<Child> {
    // As a file it is one short line in `ps`; the shell has read it whole when it removes it.
    let script = path.join("warden.sh");
    fs::write(&script, WARDEN)?;
    Command::new("/bin/sh")
        .args([script.as_path(), path])
        .current_dir("/")
        .stdin(Stdio::piped())
        // It must not keep our own output open: who reads that waits for its end.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A terminal sends Ctrl-C to our group.
        .process_group(0)
        .spawn()
}

/// The account `nobody`, which every system has; 65534 is its number nearly everywhere.
fn nobody() -> Account {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users
        .lines()
        .find_map(|line| {
            let mut fields = line.strip_prefix("nobody:")?.split(':').skip(1);
            Some(Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        })
        .unwrap_or(Account { uid: 65_534, gid: 65_534 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_kills_what_works_in_the_folder_and_removes_it() {
        let run = RunDir::create().unwrap();
        let path = run.path().to_path_buf();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        // A process of another session, and one that is stopped: a group or SIGTERM would miss them.
        let mut escaped =
            Command::new("setsid").args(["sleep", "600"]).current_dir(&path).spawn().unwrap();
        let mut frozen = Command::new("sleep").arg("600").current_dir(&path).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(frozen.id()).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        drop(run);
        assert!(!escaped.wait().unwrap().success());
        assert!(!frozen.wait().unwrap().success());
        assert!(!path.exists());
    }

    #[test]
    fn a_shell_that_looks_around_is_spared_by_warden_and_drop() {
        for warden_lives in [true, false] {
            let run = RunDir::create().unwrap();
            let looking = format!("cd {} && echo inside && exec sleep 600", run.path().display());
            // `script` gives its command a terminal and a session of its own.
            let mut script = Command::new("script")
                .args(["--quiet", "--command", &looking, "/dev/null"])
                .current_dir("/")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut inside = [0; 6];
            std::io::Read::read_exact(script.stdout.as_mut().unwrap(), &mut inside).unwrap();
            if !warden_lives {
                run.warden.lock().unwrap().kill().unwrap();
            }
            drop(run);
            assert!(script.try_wait().unwrap().is_none(), "warden lives: {warden_lives}");
            script.kill().unwrap();
            script.wait().unwrap();
        }
    }

    #[test]
    fn a_child_does_not_hold_the_wardens_pipe_open() {
        let run = RunDir::create().unwrap();
        let path = run.path().to_path_buf();
        // It works elsewhere, so it survives the run; if it had the pipe, the drop would time out.
        let mut bystander = Command::new("sleep").arg("600").current_dir("/").spawn().unwrap();
        let started = std::time::Instant::now();
        drop(run);
        assert!(!path.exists());
        assert!(started.elapsed() < WARDEN_DEADLINE / 2);
        assert!(bystander.try_wait().unwrap().is_none());
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }

    #[test]
    fn binaries_in_a_private_folder_are_copied_for_another_account() {
        let run = RunDir::create().unwrap();
        let home = tempfile::tempdir_in("/tmp").unwrap();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("server"), "x").unwrap();
        for path in [bin.as_path(), home.path()] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(run.reachable(&bin).unwrap(), bin, "anybody can enter it");
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        let reached = run.reachable(&bin).unwrap();
        assert_eq!(reached.starts_with(run.path()), run.account().is_some());
        assert!(reached.join("server").is_file());
        assert_eq!(run.reachable(&bin).unwrap(), reached, "copied once");
    }

    #[test]
    fn a_killed_warden_is_replaced_by_the_drop() {
        let run = RunDir::create().unwrap();
        let path = run.path().to_path_buf();
        run.warden.lock().unwrap().kill().unwrap();
        let mut left = Command::new("sleep").arg("600").current_dir(&path).spawn().unwrap();
        drop(run);
        assert!(!path.exists());
        assert!(!left.wait().unwrap().success());
    }
}
