//! The replication connection to Postgres: one socket, our own client, no thread and no task.
//!
//! ```text
//!   Login ──▶ Connection ──────────────▶ Stream ───────────▶ Connection
//!            simple queries, slots     START_REPLICATION     CopyDone both ways
//!                                      events ▼   ▲ status
//!                                        pgoutput::decode
//! ```
//!
//! It is written by hand on `postgres-protocol` because no client in the registry speaks CopyBoth:
//! [`Login`] says where and as whom, [`Connection`] runs commands, [`Stream`] carries rows one way
//! and positions the other, [`pgoutput`] reads what is in the rows. It knows no outbox and no Kafka,
//! and never decides what may be confirmed.
//!
//! It refuses: passwords in the clear or as md5 unless allowed, a server that answers TLS with more
//! than TLS, a frame that says it is longer than the limit, and — whatever it comes as — the notice
//! by which Postgres 18 says that it has skipped a missing publication.
//!
//! Guarantee: bytes are received once and in order however often a future is dropped; every error
//! of the server keeps its SQLSTATE, detail, hint and context; a slot that was not wanted any more
//! does not stay behind.
//! Bounded by: [`Limits`] for rows, 1 MiB for any other message, one queued status, a deadline on
//! each command, [`Settings::silence_max`] on the stream.
//! Tested by: tests in each file; `fuzz/`; `tests/services/replication.rs` on servers 13–18.

#![deny(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::cast_lossless
)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        reason = "a test that indexes wrongly fails, which is its work"
    )
)]

mod abridge;
mod answer;
mod authentication;
mod certificate;
mod command;
mod connection;
mod cursor;
mod endpoint;
mod error;
mod frame;
mod login;
mod pause;
pub mod pgoutput;
mod scram;
mod slot;
mod stream;
mod transport;
mod wire;

use bytes::Bytes;

pub use self::answer::{Rows, ServerError};
pub use self::command::{SlotSpec, Snapshot, Start};
pub use self::connection::{Backend, Connection, Settings, System, TimelineHistory};
pub use self::cursor::{Broken, Fault};
pub use self::endpoint::{ChannelBinding, Encryption, Endpoint, Login, Weak};
pub use self::error::Error;
pub use self::frame::{Frame, FrameError, Frames, Limits};
pub use self::scram::{Scram, ScramError};
pub use self::slot::CreatedSlot;
pub use self::stream::{Event, Refused, Status, Stream};

/// The bytes of one pgoutput message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The message, tag first.
    pub bytes: Bytes,
    /// Large values were replaced by markers, which are valid only then.
    pub abridged: bool,
}

impl From<Bytes> for Payload {
    /// As a server sends it.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, abridged: false }
    }
}
