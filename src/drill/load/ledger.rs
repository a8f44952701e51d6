//! What a running transaction has written so far, and which version each key is at.
//!
//! Postgres undoes rows and versions together at ROLLBACK TO SAVEPOINT; this is the load's own
//! copy of that rule, so that the history can name what stands and what was undone.
//!
//! Guarantee: what stands, and its versions, is what COMMIT would make visible.
//! Bounded by: the rows of one transaction.
//! Tested by: this module's tests.

use std::collections::HashMap;

use uuid::Uuid;

use crate::drill::history::Row;

/// The rows of one transaction.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    versions: HashMap<String, i64>,
    standing: Vec<Row>,
    undone: Vec<Uuid>,
    /// For each open savepoint, how many rows stood when it was opened.
    savepoints: Vec<usize>,
}

impl Ledger {
    /// Notes the version a key is at, read under its row lock.
    pub(super) fn locked(&mut self, key: String, version: i64) {
        self.versions.insert(key, version);
    }

    /// The version of the next row of this key; `None` if the key was never locked.
    pub(super) fn next_version(&mut self, key: &str) -> Option<i64> {
        let version = self.versions.get_mut(key)?;
        *version += 1;
        Some(*version)
    }

    /// Notes a row, before its INSERT is sent: a row that may exist is never missing here.
    pub(super) fn insert(&mut self, row: Row) {
        self.standing.push(row);
    }

    /// Opens a savepoint and returns its depth, from 1.
    pub(super) fn open(&mut self) -> usize {
        self.savepoints.push(self.standing.len());
        self.savepoints.len()
    }

    /// Undoes what was written since the innermost savepoint and closes it; returns its depth.
    pub(super) fn undo(&mut self) -> usize {
        let depth = self.savepoints.len();
        let standing = self.savepoints.pop().unwrap_or(0);
        for row in self.standing.drain(standing..).rev() {
            // Each row took one version, so giving back one for each restores the count.
            if let Some(version) = self.versions.get_mut(&row.key) {
                *version -= 1;
            }
            self.undone.push(row.id);
        }
        depth
    }

    /// Closes the innermost savepoint and keeps what was written; returns its depth.
    pub(super) fn close(&mut self) -> usize {
        let depth = self.savepoints.len();
        self.savepoints.pop();
        depth
    }

    /// What stands, and what was undone.
    pub(super) fn into_rows(self) -> (Vec<Row>, Vec<Uuid>) {
        (self.standing, self.undone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(ledger: &mut Ledger, id: u128) -> i64 {
        let version = ledger.next_version("k").unwrap();
        ledger.insert(Row {
            id: Uuid::from_u128(id),
            table: "public.outbox".to_owned(),
            topic: "t".to_owned(),
            key: "k".to_owned(),
            version,
        });
        version
    }

    #[test]
    fn an_undone_row_gives_its_version_back() {
        let mut ledger = Ledger::default();
        ledger.locked("k".to_owned(), 4);
        assert_eq!(insert(&mut ledger, 1), 5);
        assert_eq!(ledger.open(), 1);
        assert_eq!(insert(&mut ledger, 2), 6);
        assert_eq!(ledger.open(), 2);
        assert_eq!(insert(&mut ledger, 3), 7);
        assert_eq!(ledger.undo(), 2);
        assert_eq!(insert(&mut ledger, 4), 7);
        assert_eq!(ledger.close(), 1);
        let (standing, undone) = ledger.into_rows();
        let standing: Vec<_> = standing.iter().map(|row| (row.id.as_u128(), row.version)).collect();
        assert_eq!(standing, [(1, 5), (2, 6), (4, 7)]);
        assert_eq!(undone, [Uuid::from_u128(3)]);
    }

    #[test]
    fn a_key_that_was_not_locked_has_no_version() {
        assert_eq!(Ledger::default().next_version("k"), None);
    }
}
