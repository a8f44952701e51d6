//! Any message, abridged or not: a value or an error, never a panic.
#![no_main]
use postrider::replication::{Payload, pgoutput};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for abridged in [false, true] {
        let bytes = bytes::Bytes::copy_from_slice(data);
        let _either = pgoutput::decode(&Payload { bytes, abridged });
    }
});
