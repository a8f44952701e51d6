//! What the server answers outside the stream: errors and notices, rows as text, parameters.

use std::fmt;

use bytes::Bytes;

use super::cursor::{Broken, Cursor, Fault};

/// An error or notice of the server, with everything it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `WARNING`, ...; never translated.
    pub severity: String,
    /// The SQLSTATE: decide by this, never by the text.
    pub code: String,
    /// What happened.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the server's work it happened.
    pub context: Option<String>,
    /// The server's source file.
    pub file: Option<String>,
    /// The server's function.
    pub routine: Option<String>,
}

impl ServerError {
    /// Reads the body of an `E` or `N` message.
    pub(super) fn parse(body: &Bytes) -> Result<Self, Fault> {
        let mut cursor = Cursor::new(body);
        let mut found = Self::default();
        let mut translated = String::new();
        loop {
            let field = cursor.u8("field type")?;
            if field == 0 {
                break;
            }
            // The server may quote bytes that are not UTF-8 (before the encoding is agreed), and an
            // error is worth more than its encoding.
            let text = cursor.raw_text("error field")?;
            let text = String::from_utf8_lossy(text).into_owned();
            match field {
                b'V' => found.severity = text,
                b'S' => translated = text,
                b'C' => found.code = text,
                b'M' => found.message = text,
                b'D' => found.detail = Some(text),
                b'H' => found.hint = Some(text),
                b'W' => found.context = Some(text),
                b'F' => found.file = Some(text),
                b'R' => found.routine = Some(text),
                // Other fields name tables and lines; the protocol says to ignore unknown ones.
                _ => {}
            }
        }
        if found.severity.is_empty() {
            found.severity = translated;
        }
        cursor.finish().map(|()| found)
    }

    /// Postgres 18 goes on after a missing publication, and every row until it exists is gone. The
    /// text may be translated, so the source file counts too: a warning from the plugin that reads
    /// our rows is never harmless.
    pub(super) fn loses_rows(&self) -> bool {
        let from_plugin = self.file.as_deref() == Some("pgoutput.c");
        let warning = !matches!(self.severity.as_str(), "NOTICE" | "INFO" | "LOG" | "DEBUG");
        warning && (from_plugin || self.message.starts_with("skipped loading publication"))
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code, self.message)?;
        let parts = [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)];
        for (name, text) in parts {
            if let Some(text) = text {
                write!(f, "; {name}: {text}")?;
            }
        }
        Ok(())
    }
}

/// The result of one statement, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows; `None` is null.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// A value of the first row, by its column's name.
    pub fn first(&self, column: &str) -> Option<&str> {
        let place = self.columns.iter().position(|name| name == column)?;
        self.rows.first()?.get(place)?.as_deref()
    }
}

/// Reads the body of a `T` message: the columns' names.
pub(super) fn row_description(body: &Bytes) -> Result<Vec<String>, Fault> {
    let mut cursor = Cursor::new(body);
    let count = cursor.u16("column count").map(usize::from)?;
    // A name's zero byte and 18 bytes of fixed fields.
    let count = cursor.count(count, 19, "column count")?;
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        names.push(cursor.text("column name")?.to_owned());
        cursor.take(18, "column description")?;
    }
    cursor.finish().map(|()| names)
}

/// Reads the body of a `D` message.
pub(super) fn data_row(body: &Bytes) -> Result<Vec<Option<String>>, Fault> {
    let mut cursor = Cursor::new(body);
    let count = cursor.u16("value count").map(usize::from)?;
    let count = cursor.count(count, 4, "value count")?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let start = cursor.offset();
        let length = cursor.i32("value length")?;
        if length == -1 {
            values.push(None);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| Fault {
            offset: start,
            what: Broken::Negative { field: "value", length },
        })?;
        let bytes = body.slice(cursor.take(length, "value")?);
        // A timeline's history file is sent as bytea; its text is ASCII.
        values.push(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    cursor.finish().map(|()| values)
}

/// Reads the body of an `S` message: a parameter's name and value.
pub(super) fn parameter(body: &Bytes) -> Result<(String, String), Fault> {
    let mut cursor = Cursor::new(body);
    let name = cursor.text("parameter name")?.to_owned();
    let value = cursor.text("parameter value")?.to_owned();
    cursor.finish().map(|()| (name, value))
}

/// Reads the body of a `K` message: the backend's pid and the secret to cancel it.
pub(super) fn backend_key(body: &Bytes) -> Result<(i32, i32), Fault> {
    let mut cursor = Cursor::new(body);
    let pid = cursor.i32("backend pid")?;
    let secret = cursor.i32("cancel secret")?;
    cursor.finish().map(|()| (pid, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKIPPED: &[u8] = b"SWARNUNG\0VWARNING\0C55000\0Mxyz \"p\"\0Da detail\0Hhint\0Wcontext\0\
        Fpgoutput.c\0L1780\0RLoadPublications\0\0";

    #[test]
    fn an_error_keeps_all_that_the_server_said() {
        let error = ServerError::parse(&Bytes::from_static(SKIPPED)).unwrap();
        assert_eq!(
            error.to_string(),
            "WARNING 55000: xyz \"p\"; detail: a detail; hint: hint; context: context"
        );
        assert_eq!(error.routine.as_deref(), Some("LoadPublications"));
    }

    #[test]
    fn a_skipped_publication_is_known_in_any_language() {
        let translated = ServerError::parse(&Bytes::from_static(SKIPPED)).unwrap();
        assert!(translated.loses_rows());
        let stripped = ServerError {
            severity: "WARNING".to_owned(),
            message: "skipped loading publication \"p\"".to_owned(),
            ..ServerError::default()
        };
        assert!(stripped.loses_rows());
        let other = ServerError { file: Some("guc.c".to_owned()), ..stripped.clone() };
        assert!(other.loses_rows());
        let harmless = ServerError { message: "checkpoints are frequent".to_owned(), ..other };
        assert!(!harmless.loses_rows());
    }

    #[test]
    fn every_prefix_of_every_answer_is_an_error_not_a_panic() {
        for cut in 0..SKIPPED.len() {
            assert!(ServerError::parse(&Bytes::from_static(&SKIPPED[..cut])).is_err());
        }
        let row: &[u8] = b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff";
        let full = data_row(&Bytes::from_static(row)).unwrap();
        assert_eq!(full, [Some("ab".to_owned()), None]);
        for cut in 0..row.len() {
            assert!(data_row(&Bytes::from_static(&row[..cut])).is_err());
        }
        let described: &[u8] = b"\0\x01a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(row_description(&Bytes::from_static(described)).unwrap(), ["a"]);
        for cut in 0..described.len() {
            assert!(row_description(&Bytes::from_static(&described[..cut])).is_err());
        }
        assert!(data_row(&Bytes::from_static(b"\0\x01\xff\xff\xff\xfe")).is_err());
    }
}
