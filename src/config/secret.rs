//! A password or the like: it can be used, and read again, but not printed.
//!
//! It promises that no formatting shows the value: no `Display`, no `Serialize`, and a `Debug`
//! without it. It refuses a secret's file that other users can read, by the rule that libpq has for
//! private keys: no rights for group and others, except that a file of root's may be readable by
//! its group (mounted Kubernetes secrets and systemd credentials look like that). libpq ignores a
//! password file that is more open; we stop, since what follows would be a refused login.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::origin::Origin;

/// Largest file of a secret. Room for a token or a key; a wrong path is noticed.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A secret that remembers where it came from.
#[derive(Clone)]
pub struct Secret {
    value: String,
    origin: Origin,
    file: Option<PathBuf>,
}

/// Why a secret's file was refused. None of the messages shows its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system would not give it.
    #[error("secret file {file:?} cannot be read: {error}")]
    Unreadable {
        /// Its name.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("secret file {file:?} is not a regular file")]
    NotAFile {
        /// Its name.
        file: PathBuf,
    },
    /// Others can read it.
    #[error(
        "secret file {file:?} is open to other users (mode {mode:04o}): chmod 0600, or 0640 when root owns it"
    )]
    TooOpen {
        /// Its name.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Larger than [`SECRET_BYTES_MAX`].
    #[error("secret file {file:?} has more than {SECRET_BYTES_MAX} bytes: is it the right file?")]
    TooLarge {
        /// Its name.
        file: PathBuf,
    },
    /// Not text.
    #[error("secret file {file:?} is not UTF-8")]
    NotUtf8 {
        /// Its name.
        file: PathBuf,
    },
    /// Nothing in it but a line break.
    #[error("secret file {file:?} is empty")]
    Empty {
        /// Its name.
        file: PathBuf,
    },
}

impl Secret {
    /// A secret that was given as such.
    #[must_use]
    pub fn new(value: impl Into<String>, origin: Origin) -> Self {
        Self { value: value.into(), origin, file: None }
    }

    /// Reads a secret from a file; one trailing line break is not part of it. `origin` is where the
    /// file was named.
    ///
    /// # Errors
    ///
    /// See [`SecretError`].
    pub fn read(file: PathBuf, origin: Origin) -> Result<Self, SecretError> {
        let unreadable = |error| SecretError::Unreadable { file: file.clone(), error };
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let about = std::fs::metadata(&file).map_err(unreadable)?;
        if !about.is_file() {
            return Err(SecretError::NotAFile { file });
        }
        let opened = std::fs::File::open(&file).map_err(unreadable)?;
        // The rights of what was opened, which a rename cannot change any more.
        let about = opened.metadata().map_err(unreadable)?;
        if too_open(about.uid(), about.mode()) {
            return Err(SecretError::TooOpen { file, mode: about.mode() & 0o7777 });
        }
        let mut bytes = Vec::new();
        let size = opened.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if size as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge { file });
        }
        let Ok(mut value) = String::from_utf8(bytes) else {
            return Err(SecretError::NotUtf8 { file });
        };
        if value.ends_with('\n') {
            value.truncate(value.len() - if value.ends_with("\r\n") { 2 } else { 1 });
        }
        if value.is_empty() {
            return Err(SecretError::Empty { file });
        }
        Ok(Self { value, origin, file: Some(file) })
    }

    /// The value, for the moment it is needed. Do not keep or format it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Reads the file again, for SIGHUP. A secret that was given as a value stays as it is: a
    /// process cannot see its environment change. It blocks for the read of one small file.
    ///
    /// # Errors
    ///
    /// As [`Secret::read`]; the old secret is then still good to use.
    pub fn reload(&self) -> Result<Self, SecretError> {
        match &self.file {
            Some(file) => Self::read(file.clone(), self.origin.clone()),
            None => Ok(self.clone()),
        }
    }

    /// Where it, or its file, was named.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({})", self.origin)
    }
}

/// libpq's rule for private keys.
fn too_open(owner: u32, mode: u32) -> bool {
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn private(file: &Path, content: impl AsRef<[u8]>) {
        write(file, content).unwrap();
        set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    }

    fn read(file: &Path) -> Result<Secret, SecretError> {
        Secret::read(file.to_owned(), Origin::Flag("--a.b_file".to_owned()))
    }

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (content, value) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter2\r\n", "hunter2"),
            ("hunter2\n\n", "hunter2\n"),
            (" hunter2 \n", " hunter2 "),
        ] {
            private(&file, content);
            assert_eq!(read(&file).unwrap().expose(), value, "{content:?}");
        }
    }

    #[test]
    fn debug_shows_the_origin_only() {
        let secret = Secret::new("hunter2", Origin::Variable("A__B".to_owned()));
        assert_eq!(format!("{secret:?}"), "Secret(variable A__B)");
    }

    #[test]
    fn a_file_is_read_again_and_a_value_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        private(&file, "old\n");
        let secret = read(&file).unwrap();
        // A rename, as secret managers do it.
        let next = folder.path().join("next");
        private(&next, "new\n");
        std::fs::rename(&next, &file).unwrap();
        let reloaded = secret.reload().unwrap();
        assert_eq!((secret.expose(), reloaded.expose()), ("old", "new"));
        assert_eq!(reloaded.origin(), secret.origin());
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(reloaded.reload(), Err(SecretError::Unreadable { .. })));
        let given = Secret::new("x", Origin::Default);
        assert_eq!(given.reload().unwrap().expose(), "x");
    }

    #[test]
    fn others_must_not_read_it() {
        for (owner, mode, refused) in [
            (1000, 0o100_600, false),
            (1000, 0o100_400, false),
            (1000, 0o100_640, true),
            (1000, 0o100_604, true),
            (0, 0o100_640, false),
            (0, 0o100_660, true),
            (0, 0o100_644, true),
        ] {
            assert_eq!(too_open(owner, mode), refused, "{owner} {mode:o}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        private(&file, "hunter2");
        set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("open to other users (mode 0644): chmod 0600"), "{error}");
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn what_is_no_secret_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(SecretError::NotAFile { .. })));
        let file = folder.path().join("secret");
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("secret\" cannot be read: No such file"), "{error}");
        for content in ["", "\n", "\r\n"] {
            private(&file, content);
            assert!(matches!(read(&file), Err(SecretError::Empty { .. })), "{content:?}");
        }
        private(&file, b"hunter2\xff");
        let error = read(&file).unwrap_err();
        assert!(matches!(error, SecretError::NotUtf8 { .. }));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        private(&file, "x".repeat(64 * 1024));
        assert_eq!(read(&file).unwrap().expose().len(), 64 * 1024);
        private(&file, "x".repeat(64 * 1024 + 1));
        assert!(matches!(read(&file), Err(SecretError::TooLarge { .. })));
    }
}
