//! What an answer to COMMIT proves.
//!
//! The history may call a transaction failed only when it certainly did not commit, because the
//! checker then forbids its rows. Everything that leaves a doubt is *unknown*, which costs nothing:
//! the table decides afterwards. Before COMMIT is sent there is no doubt: a server never commits
//! what nobody asked it to, so an error there, or a lost connection, or our own timeout, is a fail.
//!
//! Guarantee: never *fail* for a transaction that may have committed.
//! Tested by: this module's tests; against real servers in `tests/services/load.rs`.

use tokio_postgres::error::Severity;

use crate::drill::history::Outcome;

/// Judges an error that came instead of the answer to COMMIT.
pub(super) fn after_commit_was_sent(error: &tokio_postgres::Error) -> Outcome {
    match error.as_db_error() {
        Some(refusal) => {
            // An old or foreign server that sends no untranslated severity leaves a doubt.
            let plain_error = refusal.parsed_severity() == Some(Severity::Error);
            judge(plain_error, refusal.code().code())
        }
        // The connection broke: the commit record may have been written before, or never.
        None => Outcome::Unknown,
    }
}

/// Judges by the server's severity and SQLSTATE.
fn judge(plain_error: bool, sqlstate: &str) -> Outcome {
    // FATAL and PANIC end the backend, and can come after the commit record was written: 57P01
    // during the wait for a synchronous standby says itself that the transaction "might already
    // have committed locally". 57P02 (crash of another backend) and the 08 class are of this kind.
    if !plain_error {
        return Outcome::Unknown;
    }
    match sqlstate {
        // By its definition: "statement completion unknown".
        "40003" => Outcome::Unknown,
        // 40: serialization failure and deadlock are raised before the commit record, and mean
        // that the transaction was rolled back. 23: a deferred constraint fails while COMMIT
        // runs its queued triggers, also before the commit record.
        code if code.starts_with("40") || code.starts_with("23") => Outcome::Fail,
        // Most others would be fails too (57014 in a deferred trigger, 53100 before the record is
        // written), but nothing promises that they cannot come later: the table decides.
        _ => Outcome::Unknown,
    }
}

/// A short name for an error, for counting: its SQLSTATE, or where it arose.
pub(super) fn name_of(error: &tokio_postgres::Error) -> String {
    match error.code() {
        Some(code) => code.code().to_owned(),
        None if error.is_closed() => "connection closed".to_owned(),
        None => "connection broken".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certain_rollback_is_a_fail() {
        for (sqlstate, outcome) in [
            ("40001", Outcome::Fail),
            ("40P01", Outcome::Fail),
            ("23505", Outcome::Fail),
            ("23503", Outcome::Fail),
            ("40003", Outcome::Unknown),
            ("57014", Outcome::Unknown),
            ("57P01", Outcome::Unknown),
            ("08006", Outcome::Unknown),
            ("53100", Outcome::Unknown),
            ("XX000", Outcome::Unknown),
        ] {
            assert_eq!(judge(true, sqlstate), outcome, "{sqlstate}");
        }
    }

    #[test]
    fn a_backend_that_dies_leaves_a_doubt_whatever_it_says() {
        for sqlstate in ["57P01", "57P02", "40001", "23505", "XX000"] {
            assert_eq!(judge(false, sqlstate), Outcome::Unknown, "{sqlstate}");
        }
    }
}
