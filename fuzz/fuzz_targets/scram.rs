//! Any list of mechanisms, first and last message: an exchange or an error, never a panic.
#![no_main]
use postrider::replication::{ChannelBinding, Scram};

libfuzzer_sys::fuzz_target!(|parts: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let _listed = Scram::choose(&parts.0.into(), "pw", ChannelBinding::Prefer, true, None);
    let offered = bytes::Bytes::from_static(b"SCRAM-SHA-256\0\0");
    let Ok(mut scram) = Scram::choose(&offered, "pw", ChannelBinding::Prefer, true, None) else { return };
    let _first = scram.update(&parts.1).and_then(|()| scram.finish(&parts.2));
});
