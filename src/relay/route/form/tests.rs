//! Every type, in both forms, against the bytes that Debezium writes.

use super::*;

const TYPES: [(&str, u32); 12] = [
    ("text", 25),
    ("varchar", 1043),
    ("json", 114),
    ("jsonb", 3802),
    ("bytea", 17),
    ("uuid", 2950),
    ("smallint", 21),
    ("integer", 23),
    ("bigint", 20),
    ("xid8", 5069),
    ("boolean", 16),
    ("timestamptz", 1184),
];

fn form(name: &str) -> Form {
    let oid = TYPES.iter().find(|(known, _)| *known == name).unwrap().1;
    Form::of(oid, -1)
}

fn text(text: &'static str) -> Value {
    Value::Text(Bytes::from_static(text.as_bytes()))
}

fn binary(bytes: &'static [u8]) -> Value {
    Value::Binary(Bytes::from_static(bytes))
}

fn written(form: Form, value: Value) -> Option<Bytes> {
    form.bytes(value, &mut Ink::default()).unwrap()
}

#[test]
fn both_forms_of_a_value_are_written_alike() {
    let uuid = "018f6b1e-7c3a-7d21-9b1f-2f0a6c1d4e5f";
    let uuid_bytes = b"\x01\x8f\x6b\x1e\x7c\x3a\x7d\x21\x9b\x1f\x2f\x0a\x6c\x1d\x4e\x5f";
    for (name, as_text, as_binary, expected) in [
        ("text", "größe", "größe".as_bytes(), "größe".as_bytes()),
        ("text", "", b"", b""),
        ("varchar", " a ", b" a ", b" a "),
        ("json", "{ \"a\" : 1 }", b"{ \"a\" : 1 }", b"{ \"a\" : 1 }"),
        ("json", "null", b"null", b"null"),
        ("jsonb", "{\"a\": 1}", b"\x01{\"a\": 1}", b"{\"a\": 1}"),
        ("bytea", "\\x00ff80", b"\x00\xff\x80", b"\x00\xff\x80"),
        ("bytea", "\\x", b"", b""),
        ("uuid", uuid, uuid_bytes, uuid.as_bytes()),
        ("smallint", "-2", b"\xff\xfe", b"-2"),
        ("integer", "7", b"\0\0\0\x07", b"7"),
        ("bigint", "-9223372036854775808", b"\x80\0\0\0\0\0\0\0", b"-9223372036854775808"),
        (
            "xid8",
            "18446744073709551615",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"18446744073709551615",
        ),
        ("boolean", "t", b"\x01", b"true"),
        ("boolean", "f", b"\x00", b"false"),
        (
            "timestamptz",
            "2000-01-01 01:00:01.5+01",
            b"\0\0\0\0\0\x16\xe3\x60",
            b"2000-01-01T00:00:01.500000Z",
        ),
    ] {
        assert_eq!(written(form(name), text(as_text)).unwrap(), expected, "{name} as text");
        assert_eq!(written(form(name), binary(as_binary)).unwrap(), expected, "{name} in binary");
    }
}

#[test]
fn a_timestamp_has_the_digits_of_its_column() {
    let moment = "2026-11-30 22:29:52.123456";
    for (oid, modifier, expected) in [
        (1114, -1, "1796077792123456"),
        (1114, 6, "1796077792123456"),
        (1114, 4, "1796077792123456"),
        (1114, 3, "1796077792123"),
        (1114, 0, "1796077792123"),
        (1184, -1, "2026-11-30T22:29:52.123456Z"),
        (1184, 3, "2026-11-30T22:29:52.123Z"),
        (1184, 0, "2026-11-30T22:29:52Z"),
    ] {
        assert_eq!(written(Form::of(oid, modifier), text(moment)).unwrap(), expected, "{oid}");
    }
}

#[test]
fn what_is_passed_through_is_not_copied() {
    let buffer = Bytes::from_static(b"....payload....");
    for name in ["text", "json", "jsonb", "uuid", "bigint"] {
        let value = Value::Text(buffer.slice(4..11));
        let passed = written(form(name), value).unwrap();
        assert_eq!(passed.as_ptr(), buffer[4..].as_ptr(), "{name}");
    }
    let passed = written(form("bytea"), Value::Binary(buffer.slice(4..11))).unwrap();
    assert_eq!(passed.as_ptr(), buffer[4..].as_ptr());
}

#[test]
fn null_is_null_and_faults_are_faults() {
    let ink = &mut Ink::default();
    for (name, oid) in TYPES {
        let form = Form::of(oid, -1);
        assert_eq!(form.bytes(Value::Null, ink), Ok(None), "{name}");
        assert_eq!(form.bytes(Value::Unchanged, ink), Err(Fault::Absent), "{name}");
        let skipped = Value::Skipped { size: 7 };
        assert_eq!(form.bytes(skipped, ink), Err(Fault::Skipped { size: 7 }), "{name}");
    }
    for (name, wrong) in [
        ("bytea", text("00ff")),
        ("bytea", text("\\x0")),
        ("bytea", text("\\x0g")),
        ("jsonb", binary(b"\x02{}")),
        ("jsonb", binary(b"")),
        ("uuid", binary(b"short")),
        ("integer", binary(b"\0\0")),
        ("boolean", text("true")),
        ("boolean", binary(b"\x02")),
        ("timestamptz", text("infinity")),
        ("timestamptz", binary(b"\x7f\xff\xff\xff\xff\xff\xff\xff")),
    ] {
        assert_eq!(form(name).bytes(wrong, ink), Err(Fault::Malformed), "{name}");
    }
    assert_eq!(Form::TextOnly.bytes(binary(b"x"), ink), Err(Fault::Malformed));
    assert_eq!(written(Form::of(1700, -1), text("1.50")).unwrap(), "1.50");
}

#[test]
fn a_header_has_bytea_in_base64() {
    let ink = &mut Ink::default();
    let header = form("bytea").header(text("\\x00ff80"), ink).unwrap().unwrap();
    assert_eq!(header, "AP+A");
    assert_eq!(form("text").header(text("a"), ink).unwrap().unwrap(), "a");
    assert_eq!(form("bytea").header(Value::Null, ink), Ok(None));
}

#[test]
fn ink_keeps_what_was_written() {
    let ink = &mut Ink::default();
    let many: Vec<_> = (0..10_000_u64).map(|number| ink.number(number)).collect();
    for (number, bytes) in many.iter().enumerate() {
        assert_eq!(*bytes, number.to_string());
    }
    let long = "x".repeat(INK_BLOCK_BYTES + 1);
    assert_eq!(ink.write(&long), long);
    assert_eq!(ink.lsn(crate::lsn::Lsn(u64::MAX)), "FFFFFFFF/FFFFFFFF");
}
