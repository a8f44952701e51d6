//! Any byte stream, cut into frames with small limits: frames or an error, never a panic.
#![no_main]
use postrider::replication::{Frames, Limits};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut frames = Frames::new();
    frames.expect_rows(Some(Limits { value_max: 64, row_max: 256 }));
    frames.space().extend_from_slice(data);
    while let Ok(Some(_)) = frames.cut() {}
});
