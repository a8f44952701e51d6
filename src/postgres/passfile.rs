//! Passwords from a file in the form of `~/.pgpass`: `host:port:database:user:password`.
//!
//! The look-up is pure and follows libpq: the first line that matches counts, `*` matches anything,
//! `\:` and `\\` stand for the character itself, lines that begin with `#` are comments. A file that
//! others may read is refused by name; libpq would ignore it and then fail for want of a password.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::settings::{Password, Place, Server};

/// Far more lines than anybody keeps; a wrong path to something huge ends here.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a password file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PassfileError {
    /// It cannot be read.
    #[error("password file {} cannot be read: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Group or others have rights on it.
    #[error("password file {0} can be used by others (mode {mode:03o}): chmod 600 {0}", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// It is no list of passwords.
    #[error("password file {} is no password file: {rule}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        rule: &'static str,
    },
}

/// Reads the file, if it may be used. `Ok(None)`: there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, PassfileError> {
    let unreadable = |error| PassfileError::Unreadable { path: path.to_owned(), error };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(unreadable)?,
    };
    let form = |rule| Err(PassfileError::Form { path: path.to_owned(), rule });
    if !metadata.is_file() {
        return form("not a plain file");
    }
    if metadata.len() > FILE_BYTES_MAX {
        return form("larger than 1 MiB");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PassfileError::Exposed { path: path.to_owned(), mode });
    }
    match String::from_utf8(std::fs::read(path).map_err(unreadable)?) {
        Ok(content) => Ok(Some(content)),
        Err(_) => form("not UTF-8"),
    }
}

/// A file that was named, and is not there.
pub(super) fn gone(path: &Path) -> PassfileError {
    PassfileError::Unreadable { path: path.to_owned(), error: io::ErrorKind::NotFound.into() }
}

/// The password of the first line that matches.
pub(super) fn find(content: &str, server: &Server, dbname: &str, user: &str) -> Option<Password> {
    let host = match &server.place {
        Place::Tcp { name, .. } => name.clone(),
        // libpq's rule: its default directory is called localhost. The default differs between
        // builds, so both usual ones are taken.
        Place::Unix(path)
            if ["/tmp", "/var/run/postgresql"].iter().any(|d| path == Path::new(d)) =>
        {
            "localhost".to_owned()
        }
        Place::Unix(path) => path.display().to_string(),
    };
    let port = server.port.to_string();
    let wanted = [host.as_str(), port.as_str(), dbname, user];
    let password = content.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for value in wanted {
            let field;
            (field, rest) = next_field(rest)?;
            if field != "*" && unescape(field) != value {
                return None;
            }
        }
        Some(unescape(rest))
    })?;
    // Nothing after the fourth colon says that there is none, whatever later lines say.
    (!password.is_empty()).then(|| Password::new(password))
}

/// Splits at the next colon that no backslash precedes.
fn next_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        match character {
            // A lone backslash at the end stands for itself.
            '\\' => plain.push(characters.next().unwrap_or('\\')),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content: &str, host: &str) -> Option<String> {
        let place = match host.starts_with('/') {
            true => Place::Unix(host.into()),
            false => Place::Tcp { name: host.into(), address: None },
        };
        let server = Server { place, port: 5432 };
        find(content, &server, "shop", "app").map(|password| password.expose().to_owned())
    }

    #[test]
    fn the_first_matching_line_counts() {
        let file =
            "# db:5432:shop:app:comment\n\ndb:1:shop:app:no\ndb:*:shop:app:first\n*:*:*:*:last\n";
        assert_eq!(found(file, "db").unwrap(), "first");
        assert_eq!(found(file, "other").unwrap(), "last");
        assert_eq!(found("db:5432:shop:other:no", "db"), None);
        assert_eq!(found("db:5432:shop", "db"), None);
        assert_eq!(found("db:5432:shop:app:\n*:*:*:*:last", "db"), None);
    }

    #[test]
    fn colons_and_backslashes_can_be_escaped() {
        assert_eq!(found(r"db:*:*:*:a\:b\\c", "db").unwrap(), r"a:b\c");
        assert_eq!(found(r"db:*:*:*:a:b", "db").unwrap(), "a:b");
        assert_eq!(found(r"\:\:1:*:*:*:six", "::1").unwrap(), "six");
        assert_eq!(found(r"\*:*:*:*:a star by name", "db"), None);
    }

    #[test]
    fn a_socket_is_named_by_its_directory() {
        assert_eq!(found("localhost:*:*:*:default", "/tmp").unwrap(), "default");
        assert_eq!(found("localhost:*:*:*:default", "/var/run/postgresql").unwrap(), "default");
        assert_eq!(found("/run/pg:*:*:*:own", "/run/pg").unwrap(), "own");
        assert_eq!(found("localhost:*:*:*:default", "/run/pg"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        assert!(read(&path).unwrap().is_none());
        std::fs::write(&path, "*:*:*:*:pw").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("(mode 640): chmod 600 /"), "{error}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), "*:*:*:*:pw");
        assert!(read(folder.path()).unwrap_err().to_string().contains("not a plain file"));
    }
}
