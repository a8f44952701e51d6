//! The progress record: the relay's only checkpoint, written last in every Kafka transaction.
//!
//! It promises that every form ever written stays readable, and refuses a form newer than this
//! program: an older relay that guessed at a newer record could skip rows. It is JSON, so that an
//! operator can read it with any Kafka tool.
//!
//! Guarantee: text → record → text keeps every field; a newer version is an error, never a guess.
//! Bounded by: one record a Kafka transaction, a few hundred bytes and the names of the tables.
//! Tested by: the tests at the end of this file.

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// The form this program writes. It reads this one and every older one.
pub const VERSION: u32 = 1;

/// How far the published rows go. Ordered: first by log position, then inside a transaction.
///
/// With `index` 0, `lsn` is the end of the last published commit record, or of the log as a
/// keepalive reported it: every transaction whose commit record *starts* below it is published, and
/// no other. With `index` above 0, `lsn` is the start of the commit record of a split transaction
/// whose first `index` raw rows are published, counted before routing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// See above.
    pub lsn: Lsn,
    /// Raw Insert messages published of the transaction that commits at `lsn`.
    pub index: u64,
}

/// Where rows are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From the replication slot.
    Cdc,
    /// From the table.
    Polling,
}

/// One progress record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The form, [`VERSION`] when written by this program.
    pub v: u32,
    /// The relay's name; its topic and its transactional ids carry it too.
    pub relay: String,
    /// Where the rows came from.
    pub mode: Mode,
    /// Which of the relay's slots: 1 is the first; a lost slot is followed by the next generation.
    pub generation: u32,
    /// The server's system identifier. Text, because JSON readers lose digits of such numbers.
    pub system_id: String,
    /// The server's timeline.
    pub timeline: u32,
    /// The slot's name.
    pub slot: String,
    /// The tables that are relayed, as `schema.table`.
    pub tables: Vec<String>,
    /// See [`Position::lsn`].
    pub lsn: Lsn,
    /// See [`Position::index`].
    pub index: u64,
    /// The snapshot text of the newest watermark, where the table allows exact recovery.
    pub watermark: Option<String>,
    /// Milliseconds since 1970, by the clock of the relay that sent it. For people only.
    pub at: u64,
    /// An operator paused the relay. Standbys honour it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// Why a record was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// Not JSON, or a field is missing or of another type.
    #[error(
        "progress record cannot be read: {0}; was something else written to the progress topic? \
         see `postrider progress show`"
    )]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error(
        "progress record has form {found}, this program knows forms 1 to {VERSION}: a newer \
         postrider wrote it; run that version, or a later one"
    )]
    Newer {
        /// Its version.
        found: u32,
    },
    /// A version that never was.
    #[error("progress record has form 0, which never existed: the progress topic is damaged")]
    Zero,
}

impl Progress {
    /// Reads a record's value.
    ///
    /// # Errors
    ///
    /// What is not a record of a known form.
    pub fn from_json(json: &[u8]) -> Result<Self, ProgressError> {
        // The version first: a newer form may lack what this one requires, and "field missing"
        // would send an operator the wrong way.
        #[derive(Deserialize)]
        struct Form {
            v: u32,
        }
        let Form { v } = serde_json::from_slice(json)?;
        match v {
            0 => Err(ProgressError::Zero),
            1..=VERSION => Ok(serde_json::from_slice(json)?),
            found => Err(ProgressError::Newer { found }),
        }
    }

    /// The record's value.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and flags always have a JSON form")
    }

    /// How far it goes.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { lsn: self.lsn, index: self.index }
    }

    /// The record that follows this one at `position`; `at` is stamped by whoever sends it.
    #[must_use]
    pub fn moved_to(&self, position: Position) -> Self {
        Self { v: VERSION, lsn: position.lsn, index: position.index, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As written by the first version. Never edit it: records of this form are in topics.
    const FORM_1: &str = r#"{"v":1,"relay":"orders","mode":"cdc","generation":2,"system_id":"7388392391823918239","timeline":3,"slot":"orders_2","tables":["public.outbox"],"lsn":"16/B374D848","index":4,"watermark":"700:702:700","at":1796000000123}"#;

    fn form_1() -> Progress {
        Progress {
            v: 1,
            relay: "orders".to_owned(),
            mode: Mode::Cdc,
            generation: 2,
            system_id: "7388392391823918239".to_owned(),
            timeline: 3,
            slot: "orders_2".to_owned(),
            tables: vec!["public.outbox".to_owned()],
            lsn: Lsn(0x16_B374_D848),
            index: 4,
            watermark: Some("700:702:700".to_owned()),
            at: 1_796_000_000_123,
            paused: false,
        }
    }

    #[test]
    fn every_older_form_stays_readable() {
        assert_eq!(Progress::from_json(FORM_1.as_bytes()).unwrap(), form_1());
    }

    #[test]
    fn a_record_survives_the_way_through_text() {
        assert_eq!(String::from_utf8(form_1().to_json()).unwrap(), FORM_1);
        let paused = Progress { paused: true, watermark: None, ..form_1() };
        assert_eq!(Progress::from_json(&paused.to_json()).unwrap(), paused);
    }

    #[test]
    fn a_newer_form_is_refused_by_number_even_when_nothing_else_fits() {
        let error = Progress::from_json(br#"{"v":2,"position":[1,2]}"#).unwrap_err();
        assert!(matches!(error, ProgressError::Newer { found: 2 }), "{error}");
        assert!(matches!(Progress::from_json(br#"{"v":0}"#), Err(ProgressError::Zero)));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in ["", "null", "{}", r#"{"v":1}"#, "\u{0}"] {
            let error = Progress::from_json(text.as_bytes()).unwrap_err();
            assert!(matches!(error, ProgressError::Malformed(_)), "{text:?}: {error}");
        }
    }

    #[test]
    fn positions_are_ordered_first_by_the_log_then_inside_a_transaction() {
        let at = |lsn, index| Position { lsn: Lsn(lsn), index };
        assert!(at(5, 0) < at(5, 1) && at(5, 9) < at(6, 0));
        assert_eq!(form_1().moved_to(at(7, 0)).position(), at(7, 0));
    }
}
