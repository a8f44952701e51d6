//! Large rows, cut anywhere: what is small stays, what is large leaves its size, nothing panics.

use super::super::Payload;
use super::super::frame::Frames;
use super::super::pgoutput::{Content, Message, OldTuple, Tuple, Value, decode};
use super::*;

const LIMITS: Limits = Limits { value_max: 100, row_max: 400 };

fn tuple(values: &[(u8, usize)]) -> Vec<u8> {
    let mut bytes = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for (kind, size) in values {
        bytes.push(*kind);
        if matches!(kind, b't' | b'b') {
            bytes.extend_from_slice(&u32::try_from(*size).unwrap().to_be_bytes());
            bytes.extend(std::iter::repeat_n(b'v', *size));
        }
    }
    bytes
}

/// A CopyData frame around a pgoutput message.
fn framed(message: &[&[u8]]) -> Vec<u8> {
    let body = [&[XLOG_DATA][..], &[0; 24], &message.concat()].concat();
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&b"d"[..], &length, &body].concat()
}

/// Feeds the bytes in steps; every way of cutting must give the same.
fn read(stream: &[u8]) -> Message {
    let mut seen = None;
    for step in [1, 2, 3, 7, 64, stream.len()] {
        let mut frames = Frames::new();
        frames.expect_rows(Some(LIMITS));
        let mut found = None;
        for part in stream.chunks(step) {
            assert_eq!(found, None, "came before its last byte");
            frames.space().extend_from_slice(part);
            found = frames.cut().unwrap();
        }
        let frame = found.unwrap();
        assert!(frame.abridged);
        let payload = Payload { bytes: frame.body.slice(XLOG_HEADER..), abridged: true };
        let message = decode(&payload).unwrap();
        assert_eq!(*seen.get_or_insert_with(|| message.clone()), message);
        assert_eq!(frames.buffered(), 0);
    }
    seen.unwrap()
}

fn sizes(tuple: &Tuple) -> Vec<String> {
    let name = |value| match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Text(bytes) => format!("text {}", bytes.len()),
        Value::Binary(bytes) => format!("binary {}", bytes.len()),
        Value::Skipped { size } => format!("skipped {size}"),
    };
    tuple.values().map(name).collect()
}

#[test]
fn a_value_over_the_limit_leaves_its_size_and_the_others_stay() {
    let row = tuple(&[(b't', 36), (b'b', 5000), (b'n', 0), (b't', 100), (b't', 101), (b'u', 0)]);
    let Message::Insert(insert) = read(&framed(&[b"I\0\0\0\x07N", &row])) else {
        panic!("not an insert")
    };
    assert_eq!(insert.relation, 7);
    assert_eq!(
        sizes(&insert.new),
        ["text 36", "skipped 5000", "null", "text 100", "skipped 101", "unchanged"]
    );
    assert_eq!(insert.new.size(), 36 + 5000 + 100 + 101);
}

#[test]
fn many_small_values_are_bounded_together() {
    let row = tuple(&[(b't', 90); 8]);
    let Message::Insert(insert) = read(&framed(&[b"I\0\0\0\x07N", &row])) else {
        panic!("not an insert")
    };
    let kept = insert.new.values().filter(|value| matches!(value, Value::Text(_))).count();
    assert!((2..=4).contains(&kept), "{kept}");
    assert_eq!(insert.new.len(), 8);
}

#[test]
fn updates_and_deletes_are_read_through_on_both_sides() {
    let (old, new) = (tuple(&[(b't', 300)]), tuple(&[(b'b', 7), (b'b', 300)]));
    let Message::Update(update) = read(&framed(&[b"U\0\0\0\x07O", &old, b"N", &new])) else {
        panic!("not an update")
    };
    let Some(OldTuple::Full(before)) = &update.old else { panic!("no old row") };
    assert_eq!(sizes(before), ["skipped 300"]);
    assert_eq!(sizes(&update.new), ["binary 7", "skipped 300"]);
    let Message::Update(update) = read(&framed(&[b"U\0\0\0\x07N", &new])) else {
        panic!("not an update")
    };
    assert_eq!(update.old, None);
    let Message::Delete(delete) = read(&framed(&[b"D\0\0\0\x07K", &old])) else {
        panic!("not a delete")
    };
    let OldTuple::Key(key) = &delete.old else { panic!("not a key") };
    assert_eq!(sizes(key), ["skipped 300"]);
}

#[test]
fn a_large_logical_message_is_no_poison() {
    let content = [7_u8; 500];
    let head = b"M\x01\0\0\0\0\0\0\0\x09";
    let stream = framed(&[head, b"prefix\0", &500_u32.to_be_bytes(), &content]);
    let Message::Logical(message) = read(&stream) else { panic!("not a logical message") };
    assert!(message.transactional);
    assert_eq!(message.at.0, 9);
    assert_eq!(message.content, Content::Skipped { size: 7 + 4 + 500 });
}

#[test]
fn other_messages_over_the_limit_stay_whole_while_they_are_small() {
    let mut relation = b"R\0\0\0\x07public\0outbox\0d\0\x14".to_vec();
    for column in 0..20 {
        relation.extend_from_slice(&[0, b'a' + column, 0, 0, 0, 0, 25, 255, 255, 255, 255]);
    }
    let Message::Relation(relation) = read(&framed(&[&relation])) else { panic!("not a relation") };
    assert_eq!(relation.columns.len(), 20);
    let mut frames = Frames::new();
    frames.expect_rows(Some(LIMITS));
    frames.space().extend_from_slice(&framed(&[b"R", &vec![0; CONTROL_MAX]]));
    assert!(matches!(frames.cut(), Err(FrameError::Abridge { .. })));
}

#[test]
fn markers_are_believed_only_where_we_put_them() {
    let row = [&[0, 1, SKIPPED_TEXT][..], &[0, 0, 0, 9]].concat();
    let bytes = Bytes::from([&b"I\0\0\0\x07N"[..], &row].concat());
    assert!(decode(&bytes.into()).is_err());
    // Nor does the abridger take them from the wire.
    let mut frames = Frames::new();
    frames.expect_rows(Some(LIMITS));
    let stream = framed(&[b"I\0\0\0\x07N\0\x02", &row[2..], &tuple(&[(b't', 300)])]);
    frames.space().extend_from_slice(&stream);
    assert!(frames.cut().is_err());
}

#[test]
fn a_row_that_lies_about_its_lengths_is_an_error() {
    let row = tuple(&[(b't', 36), (b'b', 500)]);
    let whole = framed(&[b"I\0\0\0\x07N", &row]);
    for at in 5..whole.len().min(100) {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            let mut frames = Frames::new();
            frames.expect_rows(Some(LIMITS));
            frames.space().extend_from_slice(&flipped);
            if let Ok(Some(frame)) = frames.cut() {
                let bytes = frame.body.slice(XLOG_HEADER.min(frame.body.len())..);
                let _either = decode(&Payload { bytes, abridged: frame.abridged });
            }
        }
    }
    let longer = framed(&[b"I\0\0\0\x07N", &row, b"x"]);
    let mut frames = Frames::new();
    frames.expect_rows(Some(LIMITS));
    frames.space().extend_from_slice(&longer);
    let error = frames.cut().unwrap_err().to_string();
    assert!(error.contains("after the last column"), "{error}");
}

#[test]
fn memory_follows_what_is_kept_not_what_comes() {
    let size = 64 << 20;
    let mut head = tuple(&[(b't', 10), (b'b', 0)]);
    head.truncate(head.len() - 4);
    head.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
    let mut stream = framed(&[b"I\0\0\0\x07N", &head]);
    let length = u32::try_from(stream.len() - 1 + size).unwrap();
    stream[1..5].copy_from_slice(&length.to_be_bytes());
    let mut frames = Frames::new();
    frames.expect_rows(Some(LIMITS));
    frames.space().extend_from_slice(&stream);
    let part = vec![1; 1 << 16];
    for _ in 0..(size >> 16) - 1 {
        assert_eq!(frames.cut().unwrap(), None);
        frames.space().extend_from_slice(&part);
        assert!(frames.space().capacity() < 1 << 20);
    }
    assert_eq!(frames.cut().unwrap(), None);
    frames.space().extend_from_slice(&part);
    assert_eq!(frames.cut().unwrap().unwrap().body.len(), stream.len() - 5);
}
