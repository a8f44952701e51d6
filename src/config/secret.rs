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
        let forbidden = if about.uid() == 0 { 0o037 } else { 0o077 };
        if about.mode() & forbidden != 0 {
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
