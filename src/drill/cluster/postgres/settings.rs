//! The configuration files of a test server: what every one has, and what a caller changes.
//!
//! Promises the settings that logical replication needs, a small footprint, and listening on
//! loopback only.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Who may connect over TCP, and how. Through the unix socket everybody is trusted: whoever can
/// reach it could read the files as well, and the harness needs a way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Everybody from loopback, without a password.
    #[default]
    Trust,
    /// With a password, SCRAM-SHA-256.
    Scram,
    /// With a password and only over TLS.
    ScramOverTls,
    /// Only over TLS with a client certificate whose common name is the user.
    Certificate,
}

/// Setting name to value, unquoted.
pub(super) type Settings = BTreeMap<String, String>;

/// What every server starts from; each line that is not plain has its reason.
const DEFAULTS: [(&str, &str); 22] = [
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("max_connections", "100"),
    ("max_prepared_transactions", "10"),
    ("shared_buffers", "32MB"),
    ("min_wal_size", "32MB"),
    // `kill -9` of a server loses no page that it gave to the kernel; only a power cut would.
    ("fsync", "off"),
    // In the data directory, so that a killed server leaves nothing in /dev/shm.
    ("dynamic_shared_memory_type", "mmap"),
    ("huge_pages", "off"),
    ("unix_socket_permissions", "0777"),
    ("password_encryption", "scram-sha-256"),
    // A standby looks for its primary this often.
    ("wal_retrieve_retry_interval", "200ms"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    ("log_line_prefix", "%m [%p] %q%a "),
    // Faults are read from the log afterwards: who streamed, from where, and when it checkpointed.
    ("log_replication_commands", "on"),
    ("log_checkpoints", "on"),
    ("log_min_messages", "warning"),
];

/// The defaults with a caller's settings over them.
pub(super) fn merged<'a>(over: impl IntoIterator<Item = (&'a str, &'a str)>) -> Settings {
    let mut settings = Settings::new();
    for (name, value) in DEFAULTS.into_iter().chain(over) {
        settings.insert(name.to_owned(), value.to_owned());
    }
    settings
}

/// The text of `postgresql.conf`.
pub(super) fn file(settings: &Settings) -> String {
    settings.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name} = '{}'", value.replace('\'', "''")).ok();
        text
    })
}

/// The text of `pg_hba.conf`. A logical walsender matches its database's name; `replication` is
/// for standbys.
pub(super) fn access_file(access: Access) -> String {
    let (kind, method) = match access {
        Access::Trust => ("host", "trust"),
        Access::Scram => ("host", "scram-sha-256"),
        Access::ScramOverTls => ("hostssl", "scram-sha-256"),
        Access::Certificate => ("hostssl", "cert"),
    };
    format!(
        "local all all trust\nlocal replication all trust\n\
         {kind} all all 127.0.0.1/32 {method}\n{kind} replication all 127.0.0.1/32 {method}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_settings_win_and_are_quoted() {
        let settings = merged([("fsync", "on"), ("log_line_prefix", "it's ")]);
        let text = file(&settings);
        assert!(text.contains("fsync = 'on'\n") && text.contains("wal_level = 'logical'\n"));
        assert!(text.contains("log_line_prefix = 'it''s '\n"), "{text}");
    }

    #[test]
    fn nobody_enters_over_plain_tcp_where_tls_is_asked_for() {
        for access in [Access::ScramOverTls, Access::Certificate] {
            let text = access_file(access);
            assert!(!text.contains("\nhost ") && text.contains("\nhostssl all all 127.0.0.1/32 "));
        }
    }
}
