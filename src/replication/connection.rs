//! A connection that runs commands: checks in plain SQL, and the commands of replication.
//!
//! One command at a time, each within [`Settings::command_timeout`]. A command that was given up
//! half-way (its future was dropped, or its time was over) leaves the connection unusable, and every
//! later command says so; nothing is guessed about what the server did with it.

use std::collections::BTreeMap;
use std::time::Duration;

use postgres_protocol::message::frontend;

use super::answer::{self, Rows, ServerError};
use super::command;
use super::endpoint::Login;
use super::error::Error;
use super::frame::{Frame, Limits};
use super::login::{self, LoggedIn};
use super::transport::Transport;
use super::wire::Wire;
use crate::lsn::Lsn;

/// A check reads a few rows; a timeline's history is a few kilobytes.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// How long to wait for what, and how much to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For the answer to a command.
    pub command_timeout: Duration,
    /// On the stream, nothing at all for this long means that nobody is there. The server sends a
    /// keepalive after half its `wal_sender_timeout`, so this must be longer than that half.
    pub silence_max: Duration,
    /// While behind, the pause after a read that brought little; zero for none.
    pub read_pause: Duration,
    /// What is kept of a row.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_secs(30),
            silence_max: Duration::from_secs(60),
            read_pause: Duration::from_micros(200),
            limits: Limits::default(),
        }
    }
}

/// The server's process behind a connection. A pid alone may be somebody else's by now; with its
/// start time it is this one, so that our own stale process can be ended later, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Process id.
    pub pid: i32,
    /// `backend_start` of `pg_stat_activity`, in UTC, as text that `timestamptz` reads back.
    pub started: String,
}

/// What `IDENTIFY_SYSTEM` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The cluster, made once by initdb; as text, for it is no number to compute with.
    pub id: String,
    /// The timeline: a promotion begins a new one.
    pub timeline: u32,
    /// Up to here the log is flushed.
    pub position: Lsn,
    /// The database of this connection.
    pub database: String,
}

/// A timeline's history, as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    /// Such as `00000002.history`.
    pub file: String,
    /// Each earlier timeline and the position where it was left.
    pub switches: Vec<(u32, Lsn)>,
}

/// A logged-in replication connection.
pub struct Connection {
    pub(super) wire: Wire<Transport>,
    pub(super) settings: Settings,
    pub(super) login: Login,
    backend: Backend,
    secret: i32,
    major: u32,
    parameters: BTreeMap<String, String>,
    notices: Vec<ServerError>,
    /// A command's answer has not been read to its end.
    pub(super) busy: bool,
}

impl Connection {
    /// Connects, logs in and asks when the server's process was started.
    ///
    /// # Errors
    ///
    /// [`Error`]: the address, TLS, the login, or an answer that cannot be read.
    pub async fn open(login: Login, settings: Settings) -> Result<Self, Error> {
        let LoggedIn { wire, greeting } = login::connect(&login).await?;
        let version = greeting.parameters.get("server_version").cloned().unwrap_or_default();
        let major = command::major_version(&version).ok_or_else(|| Error::Incomplete {
            doing: "log in",
            field: "server_version",
            version: version.clone(),
        })?;
        let backend = Backend { pid: greeting.pid, started: String::new() };
        let mut connection = Self {
            wire,
            settings,
            login,
            backend,
            secret: greeting.secret,
            major,
            parameters: greeting.parameters,
            notices: greeting.notices,
            busy: false,
        };
        let doing = "read when the backend started";
        let sql = "select backend_start::text from pg_stat_activity where pid = pg_backend_pid()";
        let rows = connection.one(doing, sql).await?;
        connection.backend.started = connection.need(doing, &rows, "backend_start")?.to_owned();
        Ok(connection)
    }

    /// The server's process.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The server's major version.
    pub fn major_version(&self) -> u32 {
        self.major
    }

    /// Whether there is TLS.
    pub fn encrypted(&self) -> bool {
        self.wire.transport().encrypted()
    }

    /// What the server last said of a parameter, such as `server_version` or `in_hot_standby`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Takes the notices that came with commands, oldest first.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.notices)
    }

    /// Runs SQL as the simple protocol does; one result for each statement. A replication
    /// connection speaks nothing else.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] leaves the connection usable; any other does not.
    pub async fn query(&mut self, doing: &'static str, sql: &str) -> Result<Vec<Rows>, Error> {
        let after = self.settings.command_timeout;
        match tokio::time::timeout(after, self.run(doing, sql)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Timeout { doing, after }),
        }
    }

    /// `IDENTIFY_SYSTEM`.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`], and [`Error::Incomplete`].
    pub async fn identify_system(&mut self) -> Result<System, Error> {
        let doing = "identify the system";
        let rows = self.one(doing, "IDENTIFY_SYSTEM").await?;
        Ok(System {
            id: self.need(doing, &rows, "systemid")?.to_owned(),
            timeline: self.read(doing, &rows, "timeline")?,
            position: self.read(doing, &rows, "xlogpos")?,
            database: self.need(doing, &rows, "dbname")?.to_owned(),
        })
    }

    /// `TIMELINE_HISTORY`: where each timeline before this one was left. The first timeline has no
    /// history, and the server says so with an error (58P01).
    ///
    /// # Errors
    ///
    /// As [`Connection::query`], and [`Error::Incomplete`].
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<TimelineHistory, Error> {
        let doing = "read the timeline's history";
        let rows = self.one(doing, &command::timeline_history(timeline)).await?;
        let file = self.need(doing, &rows, "filename")?.to_owned();
        let content = self.need(doing, &rows, "content")?;
        let switches = switches(content).ok_or_else(|| self.incomplete(doing, "content"))?;
        Ok(TimelineHistory { file, switches })
    }

    /// `DROP_REPLICATION_SLOT`, without waiting for a process that uses it (55006).
    ///
    /// # Errors
    ///
    /// As [`Connection::query`].
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), Error> {
        self.query("drop the slot", &command::drop_slot(name)).await.map(|_| ())
    }

    pub(super) async fn one(&mut self, doing: &'static str, sql: &str) -> Result<Rows, Error> {
        Ok(self.query(doing, sql).await?.into_iter().next().unwrap_or_default())
    }

    pub(super) fn need<'a>(
        &self,
        doing: &'static str,
        rows: &'a Rows,
        field: &'static str,
    ) -> Result<&'a str, Error> {
        rows.first(field).ok_or_else(|| self.incomplete(doing, field))
    }

    pub(super) fn read<T: std::str::FromStr>(
        &self,
        doing: &'static str,
        rows: &Rows,
        field: &'static str,
    ) -> Result<T, Error> {
        let text = self.need(doing, rows, field)?;
        text.parse().map_err(|_| self.incomplete(doing, field))
    }

    fn incomplete(&self, doing: &'static str, field: &'static str) -> Error {
        let version = self.parameter("server_version").unwrap_or_default().to_owned();
        Error::Incomplete { doing, field, version }
    }

    /// Sends a command; from here until "ready" the connection is busy.
    pub(super) async fn send(&mut self, doing: &'static str, sql: &str) -> Result<(), Error> {
        if self.busy {
            return Err(Error::Abandoned { doing });
        }
        frontend::query(sql, &mut self.wire.out)
            .map_err(|_| Error::ZeroByte { what: "a command" })?;
        self.busy = true;
        self.wire.flush(doing).await
    }

    /// Without a time limit of its own.
    ///
    /// Cancel safety: none; dropped, it leaves the connection busy for ever.
    pub(super) async fn run(&mut self, doing: &'static str, sql: &str) -> Result<Vec<Rows>, Error> {
        self.send(doing, sql).await?;
        self.results(doing).await
    }

    /// Reads a command's results to "ready".
    ///
    /// Cancel safety: none, as [`Connection::run`].
    pub(super) async fn results(&mut self, doing: &'static str) -> Result<Vec<Rows>, Error> {
        let mut results = Vec::new();
        let mut open: Option<Rows> = None;
        let mut failed = None;
        let mut size = 0_usize;
        loop {
            let frame = self.wire.frame(doing).await?;
            size = size.saturating_add(frame.body.len());
            if size > ANSWER_MAX {
                return Err(Error::AnswerTooLarge { doing, limit: ANSWER_MAX });
            }
            let fault = |fault| Error::Malformed { doing, tag: frame.tag, fault };
            match frame.tag {
                b'T' => {
                    let columns = answer::row_description(&frame.body).map_err(fault)?;
                    open = Some(Rows { columns, rows: Vec::new() });
                }
                b'D' => {
                    let row = answer::data_row(&frame.body).map_err(fault)?;
                    let rows = open.as_mut().ok_or(Error::Unexpected { doing, tag: b'D' })?;
                    rows.rows.push(row);
                }
                b'C' | b'I' => results.push(open.take().unwrap_or_default()),
                b'E' => failed = Some(ServerError::parse(&frame.body).map_err(fault)?),
                b'Z' => {
                    self.busy = false;
                    return match failed {
                        None => Ok(results),
                        Some(error) => Err(Error::Server { doing, error: Box::new(error) }),
                    };
                }
                _ if self.aside(doing, &frame)? => {}
                tag => return Err(Error::Unexpected { doing, tag }),
            }
            // A FATAL error is the last word before the connection closes: there is no "ready".
            if let Some(error) =
                failed.take_if(|error| matches!(error.severity.as_str(), "FATAL" | "PANIC"))
            {
                return Err(Error::Server { doing, error: Box::new(error) });
            }
        }
    }

    /// Takes what may come at any time: notices, parameters, notifications.
    pub(super) fn aside(&mut self, doing: &'static str, frame: &Frame) -> Result<bool, Error> {
        let fault = |fault| Error::Malformed { doing, tag: frame.tag, fault };
        match frame.tag {
            b'N' => {
                // The oldest say most about what went wrong first.
                if self.notices.len() < NOTICES_MAX {
                    self.notices.push(ServerError::parse(&frame.body).map_err(fault)?);
                }
            }
            b'S' => {
                let (name, value) = answer::parameter(&frame.body).map_err(fault)?;
                self.note_parameter(&name, &value);
            }
            b'A' => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A server may report new values, hardly new names.
    pub(super) fn note_parameter(&mut self, name: &str, value: &str) {
        if let Some(known) = self.parameters.get_mut(name) {
            value.clone_into(known);
        } else if self.parameters.len() < PARAMETERS_MAX {
            self.parameters.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Pid and secret for a request to cancel.
    pub(super) fn cancel_key(&self) -> (i32, i32) {
        (self.backend.pid, self.secret)
    }
}

const NOTICES_MAX: usize = 64;
const PARAMETERS_MAX: usize = 256;

/// Lines of timeline, position and reason, between comments and empty lines.
fn switches(content: &str) -> Option<Vec<(u32, Lsn)>> {
    let lines = content.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_line_by_line() {
        let content = "1\t0/3000148\tno recovery target specified\n\n# comment\n2\t1/AB\treason\n";
        assert_eq!(switches(content), Some(vec![(1, Lsn(0x300_0148)), (2, Lsn(0x1_0000_00AB))]));
        assert_eq!(switches(""), Some(vec![]));
        assert_eq!(switches("1\tnowhere\n"), None);
    }
}
