//! The text of replication commands, by server version. Pure.

use crate::lsn::Lsn;

/// From here on CREATE_REPLICATION_SLOT takes its options in parentheses.
const OPTIONS_IN_PARENTHESES: u32 = 15;
/// From here on a slot can be synchronised to standbys.
const FAILOVER: u32 = 17;

/// What happens to the snapshot that belongs to a new slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapshot {
    /// None is made.
    #[default]
    Nothing,
    /// It can be imported by name, until the next command on this connection.
    Export,
}

/// A slot to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSpec {
    /// Its name: `[a-z0-9_]{1,63}`.
    pub name: String,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Synchronised to standbys, so that it survives a failover (17 and later; before that it is
    /// left out, as nothing could be asked for).
    pub failover: bool,
    /// Gone when this connection ends.
    pub temporary: bool,
}

impl SlotSpec {
    /// A lasting slot without a snapshot.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            snapshot: Snapshot::Nothing,
            failover: false,
            temporary: false,
        }
    }

    pub(super) fn sql(&self, major: u32) -> String {
        let temporary = if self.temporary { " TEMPORARY" } else { "" };
        let options = if major >= OPTIONS_IN_PARENTHESES {
            let snapshot = match self.snapshot {
                Snapshot::Nothing => "nothing",
                Snapshot::Export => "export",
            };
            let failover = if self.failover && major >= FAILOVER { ", FAILOVER true" } else { "" };
            format!("(SNAPSHOT '{snapshot}'{failover})")
        } else {
            match self.snapshot {
                Snapshot::Nothing => "NOEXPORT_SNAPSHOT".to_owned(),
                Snapshot::Export => "EXPORT_SNAPSHOT".to_owned(),
            }
        };
        let name = identifier(&self.name);
        format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {options}")
    }
}

pub(super) fn drop_slot(name: &str) -> String {
    format!("DROP_REPLICATION_SLOT {}", identifier(name))
}

/// Where and how streaming begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The slot.
    pub slot: String,
    /// From here on, if the slot still has it. The server takes any position: one beyond the end of
    /// its log makes it skip every commit below without a word, so compare with
    /// [`super::System::position`] before.
    pub at: Lsn,
    /// The publications.
    pub publications: Vec<String>,
    /// Every column in binary (14 and later).
    pub binary: bool,
    /// With what `pg_logical_emit_message` wrote (14 and later).
    pub messages: bool,
}

impl Start {
    /// Text form, without logical messages: what every supported server can do.
    pub fn new(slot: &str, at: Lsn, publication: &str) -> Self {
        Self {
            slot: slot.to_owned(),
            at,
            publications: vec![publication.to_owned()],
            binary: false,
            messages: false,
        }
    }

    pub(super) fn sql(&self) -> String {
        let names: Vec<String> = self.publications.iter().map(|name| identifier(name)).collect();
        // The list of quoted names is itself a quoted text.
        let names = literal(&names.join(","));
        let binary = if self.binary { ", binary 'true'" } else { "" };
        let messages = if self.messages { ", messages 'true'" } else { "" };
        format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {names}{binary}{messages})",
            identifier(&self.slot),
            self.at
        )
    }
}

pub(super) fn timeline_history(timeline: u32) -> String {
    format!("TIMELINE_HISTORY {timeline}")
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// With `standard_conforming_strings`, which the login pins, a backslash is itself.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `17.10 (Debian 17.10-1)`, `18beta1`: the leading number.
pub(super) fn major_version(server_version: &str) -> Option<u32> {
    let end = server_version.find(|c: char| !c.is_ascii_digit()).unwrap_or(server_version.len());
    server_version.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_made_in_the_words_of_the_server() {
        let spec = SlotSpec { failover: true, ..SlotSpec::new("s1") };
        for (major, expected) in [
            (13, "CREATE_REPLICATION_SLOT \"s1\" LOGICAL pgoutput NOEXPORT_SNAPSHOT"),
            (15, "CREATE_REPLICATION_SLOT \"s1\" LOGICAL pgoutput (SNAPSHOT 'nothing')"),
            (
                17,
                "CREATE_REPLICATION_SLOT \"s1\" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)",
            ),
        ] {
            assert_eq!(spec.sql(major), expected);
        }
        let spec =
            SlotSpec { temporary: true, snapshot: Snapshot::Export, ..SlotSpec::new("s\"1") };
        assert_eq!(
            spec.sql(14),
            "CREATE_REPLICATION_SLOT \"s\"\"1\" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT"
        );
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let mut start = Start::new("s", Lsn(0x1_0000_0002), "it's \"mine\"");
        start.binary = true;
        assert_eq!(
            start.sql(),
            "START_REPLICATION SLOT \"s\" LOGICAL 1/2 (proto_version '1', \
             publication_names '\"it''s \"\"mine\"\"\"', binary 'true')"
        );
    }

    #[test]
    fn versions_are_read_as_servers_print_them() {
        for (text, major) in
            [("13.23", 13), ("15.18 (Debian 15.18-0+deb12u1)", 15), ("18beta1", 18)]
        {
            assert_eq!(major_version(text), Some(major));
        }
        assert_eq!(major_version("devel"), None);
    }
}
