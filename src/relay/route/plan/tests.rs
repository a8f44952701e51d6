//! Rows of all kinds against the records that Debezium makes of them, and what becomes of the rest.

use bytes::Bytes;

use super::*;
use crate::config::{Sources, load};
use crate::lsn::Lsn;
use crate::relay::route::{Column, Mappings};

const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const JSON: u32 = 114;
const JSONB: u32 = 3802;
const BYTEA: u32 = 17;
const UUID: u32 = 2950;
const INT4: u32 = 23;
const INT8: u32 = 20;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;

const WIRE: Wire = Wire { binary: false, record_bytes_max: 1000 };
const ID: &str = "018f6b1e-7c3a-7d21-9b1f-2f0a6c1d4e5f";
const PLACE: Place = Place {
    commit: Lsn(0x16_B374_D848),
    committed_micros: 1_796_077_792_123_456,
    xid: 4_000_000_000,
    index: 12,
};

fn mapping(toml: &str) -> Mapping {
    let sources = Sources::new("POSTRIDER").toml("t", &format!("[outbox]\n{toml}"));
    load::<Mappings>(sources).unwrap().settings.all()[0].clone()
}

fn table(columns: &[(&str, u32)]) -> Table {
    let columns = columns.iter().map(|(name, type_oid)| Column {
        name: (*name).into(),
        type_oid: *type_oid,
        modifier: -1,
    });
    Table { schema: "public".into(), name: "outbox".into(), columns: columns.collect() }
}

/// Debezium's table with a payload of this type, and further columns.
fn debezium(payload: u32, further: &[(&str, u32)]) -> Table {
    let own = [
        ("id", UUID),
        ("aggregatetype", VARCHAR),
        ("aggregateid", VARCHAR),
        ("type", VARCHAR),
        ("payload", payload),
    ];
    table(&[&own[..], further].concat())
}

fn text(text: &str) -> Value {
    Value::Text(Bytes::copy_from_slice(text.as_bytes()))
}

fn row(payload: Value, further: &[Value]) -> Vec<Value> {
    let own = [text(ID), text("order"), text("order-1"), text("OrderPlaced"), payload];
    [&own[..], further].concat()
}

fn plan(table: &Table, toml: &str) -> Plan {
    Plan::compile(table, &mapping(toml), WIRE).unwrap()
}

fn headers(record: &Record) -> Vec<(String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    record.headers.iter().map(|(name, value)| (name.to_string(), value.map(text))).collect()
}

fn header(name: &str, value: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(value.to_owned()))
}

#[test]
fn a_default_row_is_debeziums_record() {
    let mut plan = plan(&debezium(JSONB, &[]), "");
    let record = plan.route(&row(text("{\"a\": 1}"), &[])[..], PLACE).unwrap();
    assert_eq!(&*record.topic, "outbox.event.order");
    assert_eq!(record.key.as_deref(), Some(&b"order-1"[..]));
    assert_eq!(record.value.as_deref(), Some(&b"{\"a\": 1}"[..]));
    assert_eq!(headers(&record), [header("id", ID)]);
    assert_eq!((record.partition, record.timestamp_ms), (None, 1_796_077_792_123));
    // As kafka-clients has it.
    assert_eq!(record.partition_of(6), Some(4));
}

#[test]
fn payloads_of_every_type() {
    for (payload, value, expected) in [
        (TEXT, text("größe"), Some("größe".as_bytes())),
        (VARCHAR, text(""), Some(b"")),
        (JSON, text("{ \"b\":1,  \"a\":2 }"), Some(b"{ \"b\":1,  \"a\":2 }")),
        (JSON, text("null"), Some(b"null")),
        (JSONB, text("[]"), Some(b"[]")),
        (JSONB, Value::Binary(Bytes::from_static(b"\x01[]")), Some(b"[]")),
        (UUID, text(ID), Some(ID.as_bytes())),
        (INT4, text("-7"), Some(b"-7")),
        (INT8, Value::Binary(Bytes::from_static(b"\0\0\0\0\0\0\0\x09")), Some(b"9")),
        (NUMERIC, text("1.50"), Some(b"1.50")),
        // Framed for a schema registry: magic byte, schema 7, body.
        (BYTEA, text("\\x0000000007c0ffee"), Some(b"\0\0\0\0\x07\xc0\xff\xee")),
        (BYTEA, Value::Binary(Bytes::from_static(b"\0\0\0\0\x07\xff")), Some(b"\0\0\0\0\x07\xff")),
        (BYTEA, text("\\x"), Some(b"")),
        // A tombstone without being asked for.
        (TEXT, Value::Null, None),
        (BYTEA, Value::Null, None),
    ] {
        let record = plan(&debezium(payload, &[]), "").route(&row(value, &[])[..], PLACE).unwrap();
        assert_eq!(record.value.as_deref(), expected, "type {payload}");
    }
}

#[test]
fn an_empty_payload_is_a_tombstone_on_request() {
    for (payload, value, tombstone) in [
        (TEXT, "", true),
        (TEXT, " \t\n", true),
        (TEXT, "\u{a0}", false),
        (JSON, "{}", false),
        (BYTEA, "\\x", true),
        (BYTEA, "\\x20", false),
    ] {
        let mut plan = plan(&debezium(payload, &[]), "tombstone_on_empty_payload = true");
        let record = plan.route(&row(text(value), &[])[..], PLACE).unwrap();
        assert_eq!(record.value.is_none(), tombstone, "{value:?}");
    }
}

#[test]
fn keys_of_every_type() {
    for (kind, value, expected) in [
        (VARCHAR, text("k"), Some("k")),
        (TEXT, text(""), Some("")),
        (UUID, text(ID), Some(ID)),
        (INT8, text("42"), Some("42")),
        (TEXT, Value::Null, None),
    ] {
        let table = debezium(TEXT, &[("k", kind)]);
        let mut plan = plan(&table, "column_key = 'k'");
        let record = plan.route(&row(text("p"), &[value])[..], PLACE).unwrap();
        assert_eq!(record.key.as_deref(), expected.map(str::as_bytes));
        assert_eq!(record.partition_of(6).is_some(), expected.is_some());
    }
}

#[test]
fn columns_are_found_by_name_wherever_they_stand() {
    let table =
        table(&[("body", TEXT), ("junk", NUMERIC), ("kind", TEXT), ("k", TEXT), ("event", TEXT)]);
    let toml = "column_id = 'event'\ncolumn_key = 'k'\ncolumn_payload = 'body'\nroute_by = 'kind'\n\
                topic_regex = '(.*)\\.v\\d+'\ntopic_replacement = 'events.$1'";
    let mut plan = plan(&table, toml);
    let values = [text("b"), Value::Unchanged, text("order.v2"), text("key"), text("e1")];
    let record = plan.route(&values[..], PLACE).unwrap();
    assert_eq!(&*record.topic, "events.order");
    assert_eq!(
        (record.key.as_deref(), record.value.as_deref()),
        (Some(&b"key"[..]), Some(&b"b"[..]))
    );
    assert_eq!(headers(&record), [header("id", "e1")]);
    // What the pattern does not match is the topic, unprefixed.
    let values = [text("b"), Value::Null, text("order"), text("key"), text("e1")];
    assert_eq!(&*plan.route(&values[..], PLACE).unwrap().topic, "order");
}

#[test]
fn further_columns_become_headers_in_the_order_of_the_list() {
    let further =
        [("n", INT4), ("at", TIMESTAMP), ("atz", TIMESTAMPTZ), ("raw", BYTEA), ("none", TEXT)];
    let toml =
        "placement = 'none:header,type:header:eventType,atz:header,at:header,raw:header,n:header'";
    let mut plan = plan(&debezium(TEXT, &further), toml);
    let moment = "2026-11-30 22:29:52.123456";
    let values =
        [text("7"), text(moment), text(&format!("{moment}+00")), text("\\x00ff80"), Value::Null];
    let record = plan.route(&row(text("p"), &values)[..], PLACE).unwrap();
    let expected = [
        header("id", ID),
        // A null is a header without a value, not a missing header.
        ("none".to_owned(), None),
        header("eventType", "OrderPlaced"),
        header("atz", "2026-11-30T22:29:52.123456Z"),
        header("at", "1796077792123456"),
        header("raw", "AP+A"),
        header("n", "7"),
    ];
    assert_eq!(headers(&record), expected);
}

#[test]
fn headers_on_request() {
    let further = [("traceparent", TEXT), ("aggregateversion", INT8), ("created_at", TIMESTAMPTZ)];
    let toml = "header_trace = true\nheader_version = true\nheader_created_at = true\nheader_position = true";
    let mut plan = plan(&debezium(TEXT, &further), toml);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let values = [text(trace), text("3"), text("2026-11-30 22:29:52+00")];
    let record = plan.route(&row(text("p"), &values)[..], PLACE).unwrap();
    let position = [
        header("postrider-lsn", "16/B374D848"),
        header("postrider-xid", "4000000000"),
        header("postrider-index", "12"),
    ];
    let own = [
        header("id", ID),
        header("traceparent", trace),
        header("aggregateversion", "3"),
        header("created_at", "2026-11-30T22:29:52.000000Z"),
    ];
    assert_eq!(headers(&record), [&own[..], &position].concat());
    // Null is no header here.
    let record = plan.route(&row(text("p"), &[Value::Null, Value::Null, Value::Null])[..], PLACE);
    assert_eq!(headers(&record.unwrap()), [&own[..1], &position].concat());
}

#[test]
fn a_column_says_the_partition() {
    let mut plan = plan(&debezium(TEXT, &[("shard", INT4)]), "placement = 'shard:partition'");
    let mut route = |value| plan.route(&row(text("p"), &[value])[..], PLACE);
    let table = Arc::from("public.outbox");
    let record = route(text("5")).unwrap();
    assert_eq!((record.partition, record.partition_of(6)), (Some(5), Some(5)));
    assert!(record.clone().within(&table, 6).is_ok());
    let refused = record.within(&table, 5).unwrap_err();
    assert_eq!((refused.reason, refused.id.as_deref()), (Reason::Partition, Some(ID.as_bytes())));
    assert!(
        refused.to_string().contains("partition 5 of outbox.event.order, which has 5"),
        "{refused}"
    );
    assert_eq!(route(Value::Null).unwrap().partition, None);
    assert_eq!(route(text("-1")).unwrap_err().reason, Reason::Partition);
    assert_eq!(route(text("x")).unwrap_err().reason, Reason::Value);
}

#[test]
fn a_column_says_the_time() {
    for (kind, value, expected) in [
        (TIMESTAMP, text("2026-11-30 22:29:52.999999"), Ok(1_796_077_792_999)),
        (TIMESTAMPTZ, text("2026-11-30 23:29:52.5+01"), Ok(1_796_077_792_500)),
        (TIMESTAMPTZ, Value::Null, Ok(1_796_077_792_123)),
        (TIMESTAMP, text("1969-12-31 23:59:59"), Err(Reason::Value)),
        (TIMESTAMP, text("infinity"), Err(Reason::Value)),
    ] {
        let mut plan = plan(&debezium(TEXT, &[("at", kind)]), "column_timestamp = 'at'");
        let record = plan.route(&row(text("p"), &[value])[..], PLACE);
        let found = record.map(|record| record.timestamp_ms).map_err(|refused| refused.reason);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_row_that_cannot_be_sent_is_refused_and_named() {
    let table = debezium(TEXT, &[]);
    let with = |at: usize, value: Value| {
        let mut values = row(text("p"), &[]);
        values[at] = value;
        values
    };
    for (values, reason, says) in [
        (with(0, Value::Null), Reason::Id, "column id is null or empty"),
        (with(0, text("")), Reason::Id, "column id is null or empty"),
        (with(1, Value::Null), Reason::Topic, "column aggregatetype is null"),
        (with(1, text("")), Reason::Value, ""),
        (with(1, text("a b")), Reason::Topic, "aggregatetype = \"a b\" makes the topic"),
        (with(4, Value::Skipped { size: 5000 }), Reason::TooLarge, "column payload has 5000 bytes"),
        (with(4, text(&"x".repeat(1000))), Reason::TooLarge, "the record has 1045 bytes, 1000"),
        (with(4, Value::Unchanged), Reason::Value, "was not sent"),
        (row(text("p"), &[])[..3].to_vec(), Reason::Value, "was not sent"),
    ] {
        let routed = plan(&table, "").route(&values[..], PLACE);
        if says.is_empty() {
            // The prefix alone is a name that Kafka takes, and Debezium sends it.
            assert_eq!(&*routed.unwrap().topic, "outbox.event.");
            continue;
        }
        let refused = routed.unwrap_err();
        assert_eq!(refused.reason, reason);
        assert!(refused.to_string().contains(says), "{refused}");
        assert_eq!(refused.id.is_some(), reason != Reason::Id);
        assert_eq!(refused.key.is_some(), reason != Reason::Id);
        assert_eq!(refused.size.is_some(), reason == Reason::TooLarge);
    }
}

#[test]
fn a_table_that_does_not_fit_is_refused_with_all_that_is_wrong() {
    let table = table(&[("id", UUID), ("aggregatetype", TEXT), ("at", TEXT), ("shard", TEXT)]);
    let toml = "column_timestamp = 'at'\nplacement = 'shard:partition,nix:header'";
    let unfit = Plan::compile(&table, &mapping(toml), WIRE).unwrap_err();
    let said = unfit.to_string();
    for says in [
        "table public.outbox does not fit [outbox]",
        "no column aggregateid (outbox.column_key) is published",
        "no column payload (outbox.column_payload)",
        "column at (outbox.column_timestamp) must be timestamp or timestamptz, it is text",
        "column shard (outbox.placement) must be smallint, integer or bigint",
        "no column nix (outbox.placement)",
    ] {
        assert!(said.contains(says), "{says}\nin {said}");
    }
    assert_eq!(unfit.faults.len(), 5);
}

#[test]
fn a_missing_further_column_is_ignored_on_request() {
    let toml = "placement = 'nix:header,type:header'\nplacement_missing = 'ignore'";
    let mut plan = plan(&debezium(TEXT, &[]), toml);
    let record = plan.route(&row(text("p"), &[])[..], PLACE).unwrap();
    assert_eq!(headers(&record), [header("id", ID), header("type", "OrderPlaced")]);
}

#[test]
fn a_type_without_a_known_binary_form_is_refused_in_binary_alone() {
    let table = debezium(NUMERIC, &[("price", NUMERIC)]);
    assert!(Plan::compile(&table, &mapping(""), WIRE).is_ok());
    let wire = Wire { binary: true, ..WIRE };
    let unfit = Plan::compile(&table, &mapping(""), wire).unwrap_err();
    assert!(
        unfit
            .to_string()
            .contains("column payload (outbox.column_payload) has the type with oid 1700")
    );
    // A column that no mapping names may have any type.
    assert!(Plan::compile(&debezium(TEXT, &[("price", NUMERIC)]), &mapping(""), wire).is_ok());
}

#[test]
fn what_is_received_is_passed_on_without_a_copy() {
    let mut plan = plan(&debezium(JSON, &[]), "");
    let values = row(text("{\"large\": true}"), &[]);
    let record = plan.route(&values[..], PLACE).unwrap();
    let Value::Text(received) = &values[4] else { panic!("text") };
    assert_eq!(record.value.unwrap().as_ptr(), received.as_ptr());
    let again = plan.route(&values[..], PLACE).unwrap();
    assert!(Arc::ptr_eq(&record.topic, &again.topic));
}

/// Any bytes in any column of any type: a record or a refusal.
#[test]
fn no_row_panics() {
    let toml = "placement = 'a:header,n:partition'\ncolumn_timestamp = 't'\nheader_position = true\n\
                tombstone_on_empty_payload = true";
    let mapping = mapping(toml);
    let (mut sent, mut refused) = (0_u64, 0_u64);
    for seed in crate::property::seeds() {
        let mut random = fastrand::Rng::with_seed(seed);
        // So many tables that even a single seed meets both outcomes.
        for _ in 0..300 {
            let (ok, not) = one_table(&mapping, &mut random);
            (sent, refused) = (sent + ok, refused + not);
        }
    }
    assert!(sent > 0 && refused > 0, "{sent} sent, {refused} refused");
}

/// Rows of a random table: how many were sent, and how many refused.
fn one_table(mapping: &Mapping, random: &mut fastrand::Rng) -> (u64, u64) {
    let any = [TEXT, JSONB, BYTEA, UUID, INT4, INT8, TIMESTAMP, TIMESTAMPTZ, NUMERIC, 16, 21, 5069];
    let mut kind = |of: &[u32]| of[random.usize(..of.len())];
    let columns = [
        ("id", kind(&any)),
        ("aggregatetype", kind(&any)),
        ("aggregateid", kind(&any)),
        ("payload", kind(&any)),
        ("a", kind(&any)),
        ("n", kind(&[21, INT4, INT8])),
        ("t", kind(&[TIMESTAMP, TIMESTAMPTZ])),
    ];
    let wire = Wire { binary: random.bool(), record_bytes_max: 200 };
    let Ok(mut plan) = Plan::compile(&table(&columns), mapping, wire) else { return (0, 0) };
    let (mut sent, mut refused) = (0, 0);
    for _ in 0..20 {
        let count = if random.u8(..10) == 0 { random.usize(..7) } else { columns.len() };
        let values: Vec<Value> =
            columns[..count].iter().map(|(_, kind)| any_value(*kind, random)).collect();
        let place = Place { committed_micros: random.i64(..), index: random.u64(..), ..PLACE };
        match plan.route(&values[..], place) {
            Ok(_) => sent += 1,
            Err(_) => refused += 1,
        }
    }
    (sent, refused)
}

/// Three of four are values of the column's type, so that most rows get far.
fn any_value(kind: u32, random: &mut fastrand::Rng) -> Value {
    if random.u8(..4) > 0 {
        return text(match kind {
            INT4 | INT8 | 21 | 5069 | NUMERIC => "7",
            16 => "t",
            BYTEA => "\\x00ff",
            UUID => ID,
            TIMESTAMP | TIMESTAMPTZ => "2026-11-30 22:29:52.1+01",
            JSONB => "{}",
            _ => "order",
        });
    }
    let bytes: Vec<u8> = match random.u8(..3) {
        0 => (0..random.usize(..20)).map(|_| random.u8(..)).collect(),
        1 => vec![random.u8(..); [1, 2, 4, 8, 16][random.usize(..5)]],
        _ => ["", "-1", "infinity", "\\x0"][random.usize(..4)].as_bytes().to_vec(),
    };
    match random.u8(..8) {
        0 => Value::Null,
        1 => Value::Unchanged,
        2 => Value::Skipped { size: random.usize(..) },
        3..5 => Value::Text(bytes.into()),
        _ => Value::Binary(bytes.into()),
    }
}
