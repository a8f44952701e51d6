//! The golden files of `tests/golden/pgoutput` are what servers 13 to 18 still send.
//!
//! With `POSTRIDER_RECORD_GOLDEN=1` the files are written anew first; then read the diff.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use postrider::replication::pgoutput::{Message, OldTuple, decode};
use postrider::replication::{Connection, Event, SlotSpec, Start};

use crate::harness::{Database, postgres};
use crate::replication::{open, slot_name};

const TABLES: &str = "
    create type mood as enum ('calm', 'loud');
    create table golden (id uuid primary key, aggregatetype varchar(40), word text, letter char(3),
        n2 smallint, n4 integer, n8 bigint, yes boolean, at timestamptz, plain timestamp, tx xid8,
        doc json, docb jsonb, raw bytea, mood mood);
    create table golden_toast (id integer primary key, n integer, big text);
    alter table golden_toast alter big set storage external;
    create table golden_full (id serial primary key, v text);
    alter table golden_full replica identity full;
    create publication golden for table golden, golden_toast, golden_full;";

/// One statement a transaction, so that each is in the stream by itself.
const STORY: [&str; 13] = [
    "insert into golden values ('01234567-89ab-cdef-0123-456789abcdef', 'order', 'naïve', 'ab', -2,
        70000, -9000000000, true, '2026-11-30 22:29:52.123456+00', '2026-11-30 22:29:52',
        '4294967297', '{ \"a\": 1 }', '{\"b\": [2]}', '\\x00ff27', 'loud')",
    "insert into golden (id) values ('fedcba98-7654-3210-fedc-ba9876543210')",
    "update golden set word = 'changed' where aggregatetype is null",
    "update golden set id = '00000000-0000-0000-0000-000000000001' where aggregatetype is null",
    "delete from golden where aggregatetype is null",
    "insert into golden_toast values (1, 1, repeat('b', 5000))",
    "update golden_toast set n = 2",
    "insert into golden_full (v) values ('one')",
    "update golden_full set v = 'two'",
    "delete from golden_full",
    "truncate golden, golden_full restart identity cascade",
    "truncate golden_toast",
    "insert into golden values ('00000000-0000-0000-0000-000000000002')",
];

/// Larger ones prove nothing more and make a large repository.
const FILE_MAX: usize = 1024;

fn label(message: &Message) -> &'static str {
    match message {
        Message::Begin(_) => "begin",
        Message::Commit(_) => "commit",
        Message::Origin(_) => "origin",
        Message::Relation(_) => "relation",
        Message::Type(_) => "type",
        Message::Insert(_) => "insert",
        Message::Update(update) => match update.old {
            None => "update",
            Some(OldTuple::Key(_)) => "update-key",
            Some(OldTuple::Full(_)) => "update-full",
        },
        Message::Delete(delete) => match delete.old {
            OldTuple::Key(_) => "delete-key",
            OldTuple::Full(_) => "delete-full",
        },
        Message::Truncate(_) => "truncate",
        Message::Logical(_) => "logical",
    }
}

/// What must be the same in every run: all but positions, times and ids.
fn lasting(message: &Message) -> String {
    let label = label(message);
    match message {
        Message::Begin(_) | Message::Commit(_) | Message::Origin(_) => label.to_owned(),
        Message::Relation(relation) => {
            let built_in = |oid: u32| if oid < 16384 { oid } else { 0 };
            let columns: Vec<_> = relation
                .columns
                .iter()
                .map(|column| {
                    (&column.name, built_in(column.type_oid), column.modifier, column.key)
                })
                .collect();
            format!("{label} {} {:?} {columns:?}", relation.full_name(), relation.identity)
        }
        Message::Type(named) => format!("{label} {}.{}", named.schema, named.name),
        Message::Insert(insert) => format!("{label} {:?}", insert.new),
        Message::Update(update) => format!("{label} {:?} {:?}", update.old, update.new),
        Message::Delete(delete) => format!("{label} {:?}", delete.old),
        Message::Truncate(truncate) => format!(
            "{label} {} {} {}",
            truncate.cascade,
            truncate.restart_identity,
            truncate.relations.len()
        ),
        Message::Logical(logical) => format!("{label} {} {:?}", logical.prefix, logical.content),
    }
}

/// The story's messages, each kind of description once; transactions of others left out.
async fn told(version: u16, binary: bool) -> Vec<Bytes> {
    let database = postgres(version).await;
    let client = database.connect().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut connection = open(&database).await;
    let slot = slot_name(&database);
    let spec = SlotSpec::new(&slot);
    connection.create_slot(&spec, Duration::from_secs(30), std::future::pending()).await.unwrap();
    tell(&database, version).await;
    let start = Start {
        binary,
        messages: version >= 14,
        ..Start::new(&slot, postrider::lsn::Lsn::ZERO, "golden")
    };
    let found = collect(connection, &start).await;
    open(&database).await.drop_slot(&slot).await.unwrap();
    // Only now: the stream names an origin only while it exists.
    let origin = format!("select pg_replication_origin_drop('{}')", database.name);
    client.batch_execute(&origin).await.unwrap();
    found
}

async fn tell(database: &Database, version: u16) {
    let client = database.connect().await;
    for statement in STORY {
        client.batch_execute(statement).await.unwrap();
    }
    if version >= 14 {
        let emit = "select pg_logical_emit_message(true, 'greeting', 'hello')";
        client.batch_execute(emit).await.unwrap();
    }
    // As if it came from another server; the origin's name is the database's, for it is the cluster's.
    let origin = &database.name;
    // In a transaction of its own: one that makes its origin is sent without the name.
    let create = format!("select pg_replication_origin_create('{origin}')");
    client.batch_execute(&create).await.unwrap();
    let foreign = format!(
        "select pg_replication_origin_session_setup('{origin}');
         begin;
         select pg_replication_origin_xact_setup('0/AB', '2026-11-30 22:29:52+00');
         insert into golden_full (v) values ('foreign');
         commit;
         select pg_replication_origin_session_reset();"
    );
    client.batch_execute(&foreign).await.unwrap();
}

async fn collect(connection: Connection, start: &Start) -> Vec<Bytes> {
    let mut stream = connection.start(start).await.unwrap();
    let mut once = BTreeSet::new();
    let mut found = Vec::new();
    let mut last = false;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), stream.next()).await;
        let Event::Data { payload, .. } = next.expect("the story comes").unwrap() else { continue };
        let message = decode(&payload).unwrap();
        last |= matches!(message, Message::Origin(_));
        let described = match &message {
            Message::Relation(relation) => Some(relation.full_name()),
            Message::Begin(_) | Message::Commit(_) | Message::Type(_) => {
                Some(label(&message).into())
            }
            Message::Origin(_)
            | Message::Insert(_)
            | Message::Update(_)
            | Message::Delete(_)
            | Message::Truncate(_)
            | Message::Logical(_) => None,
        };
        let is_new = described.is_none_or(|name| once.insert(name));
        let end = last && matches!(message, Message::Commit(_));
        if is_new && payload.bytes.len() <= FILE_MAX {
            found.push(payload.bytes);
        }
        if end {
            stream.finish(Duration::from_secs(10)).await.unwrap();
            return found;
        }
    }
}

fn folder(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/pgoutput/{version}"))
}

fn files(version: u16, form: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(version))
        .unwrap_or_else(|error| panic!("{}: {error}", folder(version).display()))
        .map(|file| file.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(form))
        .collect();
    files.sort();
    files
}

fn record(version: u16, form: &str, messages: &[Bytes]) {
    std::fs::create_dir_all(folder(version)).unwrap();
    for (number, bytes) in messages.iter().enumerate() {
        let name = label(&decode(&bytes.clone().into()).unwrap());
        let path = folder(version).join(format!("{form}-{:02}-{name}.bin", number + 1));
        std::fs::write(path, bytes).unwrap();
    }
}

async fn compare(version: u16) {
    let forms: &[&str] = if version == 13 { &["text"] } else { &["text", "binary"] };
    for form in forms {
        let messages = told(version, *form == "binary").await;
        if std::env::var_os("POSTRIDER_RECORD_GOLDEN").is_some() {
            record(version, form, &messages);
        }
        let read = |bytes: Bytes| lasting(&decode(&bytes.into()).unwrap());
        let now: Vec<String> = messages.into_iter().map(read).collect();
        let kept = files(version, form).into_iter().map(|path| std::fs::read(path).unwrap().into());
        let kept: Vec<String> = kept.map(read).collect();
        assert_eq!(now, kept, "{version} {form}");
    }
}

#[tokio::test]
async fn servers_still_send_what_was_recorded() {
    for version in 13..=18 {
        compare(version).await;
    }
}
