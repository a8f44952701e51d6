//! The replication client against real servers: every version, every way in, and the bad days.

use std::future::pending;
use std::time::Duration;

use postrider::lsn::Lsn;
use postrider::replication::pgoutput::{Field, Kind, Message, Relations, Value, decode};
use postrider::replication::{
    Connection, Encryption, Endpoint, Error, Event, Limits, Login, Settings, SlotSpec, Start,
    Status, Stream,
};

use crate::harness::{Database, blocking, connect, postgres, wait_until};

pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn slot_name(database: &Database) -> String {
    format!("slot_{}", database.name)
}

pub(crate) fn login(database: &Database) -> Login {
    let port = database.server.port();
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), address: None, port };
    Login::new(endpoint, Encryption::Disable, "postgres", &database.name)
}

pub(crate) async fn open(database: &Database) -> Connection {
    Connection::open(login(database), Settings::default()).await.unwrap()
}

pub(crate) async fn make_slot(connection: &mut Connection, name: &str) {
    connection.create_slot(&SlotSpec::new(name), SOON, pending()).await.unwrap();
}

/// A table, its publication and a slot.
async fn outbox(version: u16) -> (Database, tokio_postgres::Client, String) {
    let database = postgres(version).await;
    let client = database.connect().await;
    client
        .batch_execute(
            "create table outbox (id int primary key, payload text);
             create publication p for table outbox",
        )
        .await
        .unwrap();
    let slot = slot_name(&database);
    make_slot(&mut open(&database).await, &slot).await;
    (database, client, slot)
}

async fn next(stream: &mut Stream) -> Event {
    tokio::time::timeout(SOON, stream.next()).await.expect("an event comes").unwrap()
}

/// The next pgoutput message of a transaction that is not empty.
async fn message(stream: &mut Stream) -> Message {
    loop {
        match next(stream).await {
            Event::Data { payload, .. } => return decode(&payload).unwrap(),
            Event::Keepalive { .. } | Event::Notice(_) | Event::Parameter { .. } => {}
            Event::End => panic!("the server ended the stream"),
        }
    }
}

/// Ids of rows up to a number of them, and the end of the last commit.
async fn rows(stream: &mut Stream, count: usize) -> (Vec<i64>, Lsn) {
    let mut relations = Relations::new();
    let mut ids = Vec::new();
    loop {
        match message(stream).await {
            Message::Relation(relation) => {
                relations.describe(relation).unwrap();
            }
            Message::Insert(insert) => {
                let relation = relations.of_row(insert.relation, &insert.new).unwrap();
                let place = relation.column("id").unwrap();
                let id = Kind::Int4.read(insert.new.value(place).unwrap()).unwrap();
                let Field::Integer(id) = id else { panic!("{id:?}") };
                ids.push(id);
            }
            Message::Commit(commit) if ids.len() >= count => return (ids, commit.end),
            Message::Begin(_)
            | Message::Commit(_)
            | Message::Origin(_)
            | Message::Type(_)
            | Message::Update(_)
            | Message::Delete(_)
            | Message::Truncate(_)
            | Message::Logical(_) => {}
        }
    }
}

pub(crate) async fn slot_count(database: &Database, name: &str) -> i64 {
    let client = database.connect().await;
    let sql = "select count(*) from pg_replication_slots where slot_name = $1";
    client.query_one(sql, &[&name]).await.unwrap().get(0)
}

/// Rows out, position back, end in order.
async fn stream_rows(version: u16) {
    let (database, client, slot) = outbox(version).await;
    let mut connection = open(&database).await;
    assert_eq!(connection.major_version(), u32::from(version));
    let system = connection.identify_system().await.unwrap();
    assert_eq!((system.timeline, system.database.as_str()), (1, database.name.as_str()));
    assert!(!system.id.is_empty() && system.position > Lsn::ZERO);
    // No history on the first timeline, and the refusal leaves the connection usable.
    let none = connection.timeline_history(1).await.unwrap_err();
    assert_eq!(none.sqlstate(), Some("58P01"), "{none}");
    let started: bool = client
        .query_one(
            "select backend_start = $2::text::timestamptz from pg_stat_activity where pid = $1",
            &[&connection.backend().pid, &connection.backend().started],
        )
        .await
        .unwrap()
        .get(0);
    assert!(started, "{:?}", connection.backend());

    let mut stream = connection.start(&Start::new(&slot, Lsn::ZERO, "p")).await.unwrap();
    let pid: i32 = client
        .query_one("select active_pid from pg_replication_slots where slot_name = $1", &[&slot])
        .await
        .unwrap()
        .get(0);
    assert_eq!(pid, stream.connection().backend().pid);
    client
        .batch_execute(
            "begin; insert into outbox values (1, 'a');
             savepoint s; insert into outbox values (99, 'rolled back'); rollback to s;
             insert into outbox values (2, 'b'); commit;
             insert into outbox values (3, 'c')",
        )
        .await
        .unwrap();
    let (ids, end) = rows(&mut stream, 3).await;
    assert_eq!(ids, [1, 2, 3]);

    stream.status(Status { flush: end, reply_requested: true }).unwrap();
    loop {
        if let Event::Keepalive { wal_end, .. } = next(&mut stream).await {
            assert!(wal_end >= end);
            break;
        }
    }
    wait_until(SOON, "the position to be confirmed", async || {
        let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
        let confirmed: String = client.query_one(sql, &[&slot]).await.unwrap().get(0);
        (confirmed.parse::<Lsn>().unwrap() >= end).then_some(())
    })
    .await;

    let mut connection = stream.finish(SOON).await.unwrap();
    // The slot is free and the connection works: it even drops the slot.
    connection.drop_slot(&slot).await.unwrap();
    assert_eq!(slot_count(&database, &slot).await, 0);
    let rows =
        connection.query("ask", "select 1 as one, null as none; select 'x' as x").await.unwrap();
    assert_eq!(
        (rows[0].first("one"), rows[0].first("none"), rows[1].first("x")),
        (Some("1"), None, Some("x"))
    );
}

#[tokio::test]
async fn version_13_streams_rows() {
    stream_rows(13).await;
}

#[tokio::test]
async fn version_14_streams_rows() {
    stream_rows(14).await;
}

#[tokio::test]
async fn version_15_streams_rows() {
    stream_rows(15).await;
}

#[tokio::test]
async fn version_16_streams_rows() {
    stream_rows(16).await;
}

#[tokio::test]
async fn version_17_streams_rows() {
    stream_rows(17).await;
}

#[tokio::test]
async fn version_18_streams_rows() {
    stream_rows(18).await;
}

#[tokio::test]
async fn a_unix_socket_serves_as_well_and_a_missing_one_is_named() {
    let database = postgres(17).await;
    let mut login = login(&database);
    let folder = database.server.socket_folder().to_owned();
    login.endpoint =
        Endpoint::Unix { path: folder.join(format!(".s.PGSQL.{}", database.server.port())) };
    let mut connection = Connection::open(login.clone(), Settings::default()).await.unwrap();
    connection.identify_system().await.unwrap();
    login.endpoint = Endpoint::Unix { path: folder.join(".s.PGSQL.1") };
    let error = Connection::open(login, Settings::default()).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.to_string().contains(".s.PGSQL.1"));
}

#[tokio::test]
async fn a_slot_in_use_is_refused_and_taken_over_once_free() {
    let (database, client, slot) = outbox(17).await;
    let start = Start::new(&slot, Lsn::ZERO, "p");
    let holder = open(&database).await.start(&start).await.unwrap();
    let refused = open(&database).await.start(&start).await.err().unwrap();
    assert_eq!(refused.error.sqlstate(), Some("55006"), "{}", refused.error);
    let waiting = *refused.connection.unwrap();
    holder.finish(SOON).await.unwrap();
    let mut stream = waiting.start(&start).await.unwrap();
    client.batch_execute("insert into outbox values (1, 'a')").await.unwrap();
    assert_eq!(rows(&mut stream, 1).await.0, [1]);
}

/// Rows written before their publication exists.
async fn unpublished(version: u16, role: &str) -> Error {
    let database = postgres(version).await;
    let client = database.connect().await;
    client
        .batch_execute(&format!(
            "create table outbox (id int primary key);
             create role {role} login replication;
             alter role {role} set client_min_messages = error;"
        ))
        .await
        .unwrap();
    let slot = slot_name(&database);
    let mut login = login(&database);
    login.user = role.to_owned();
    let mut connection = Connection::open(login, Settings::default()).await.unwrap();
    make_slot(&mut connection, &slot).await;
    client
        .batch_execute("insert into outbox values (1); create publication p for table outbox")
        .await
        .unwrap();
    let mut stream = connection.start(&Start::new(&slot, Lsn::ZERO, "p")).await.unwrap();
    let error = async {
        loop {
            match stream.next().await {
                Ok(Event::Data { payload, .. }) => {
                    let message = decode(&payload).unwrap();
                    assert!(!matches!(message, Message::Insert(_)), "{message:?}");
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    tokio::time::timeout(SOON, error).await.expect("the gap is an error")
}

#[tokio::test]
async fn a_publication_that_did_not_exist_then_is_an_error_on_every_version() {
    for version in 13..=17 {
        let error = unpublished(version, &format!("quiet_{version}")).await;
        assert_eq!(error.sqlstate(), Some("42704"), "{version}: {error}");
        let context = error.server().unwrap().context.as_deref().unwrap();
        assert!(context.contains("associated LSN"), "{context}");
    }
    // 18 goes on without the rows; even a role that wants no warnings must get this one.
    let error = unpublished(18, "quiet_18").await;
    assert!(matches!(error, Error::PublicationSkipped { .. }), "{error}");
    assert_eq!(error.sqlstate(), Some("55000"));
    assert_eq!(error.server().unwrap().file.as_deref(), Some("pgoutput.c"));
}

#[tokio::test]
async fn a_large_value_is_read_through_and_its_row_arrives_without_it() {
    let (database, client, slot) = outbox(17).await;
    let limits = Limits { value_max: 1 << 20, row_max: 2 << 20 };
    let settings = Settings { limits, ..Settings::default() };
    let connection = Connection::open(login(&database), settings).await.unwrap();
    let mut stream = connection.start(&Start::new(&slot, Lsn::ZERO, "p")).await.unwrap();
    client
        .batch_execute(
            "insert into outbox values (1, repeat('x', 40000000));
             insert into outbox values (2, repeat('y', 1048576));
             insert into outbox values (3, 'small')",
        )
        .await
        .unwrap();
    let mut found = Vec::new();
    while found.len() < 3 {
        if let Message::Insert(insert) = message(&mut stream).await {
            found.push((insert.new.value(0).unwrap(), insert.new.value(1).unwrap()));
        }
    }
    let id = |text: &'static str| Value::Text(text.into());
    assert_eq!(found[0], (id("1"), Value::Skipped { size: 40_000_000 }));
    assert_eq!(found[1].0, id("2"));
    assert!(matches!(&found[1].1, Value::Text(kept) if kept.len() == 1 << 20));
    assert_eq!(found[2], (id("3"), Value::Text("small".into())));
}

#[tokio::test]
async fn reads_cut_short_lose_no_row() {
    let (database, client, slot) = outbox(18).await;
    let mut stream = open(&database).await.start(&Start::new(&slot, Lsn::ZERO, "p")).await.unwrap();
    stream.set_behind(true);
    client
        .batch_execute(
            "insert into outbox select n, repeat('p', n % 300) from generate_series(1, 20000) n",
        )
        .await
        .unwrap();
    let (mut expected, mut cuts) = (1, 0);
    while expected <= 20_000 {
        let polled = tokio::select! {
            biased;
            event = stream.next() => Some(event.unwrap()),
            // Ready at once: each `next` that has to wait is dropped after its first poll.
            () = tokio::task::yield_now() => None,
        };
        let Some(Event::Data { payload, .. }) = polled else {
            cuts += i32::from(polled.is_none());
            continue;
        };
        if let Message::Insert(insert) = decode(&payload).unwrap() {
            let Some(Value::Text(id)) = insert.new.value(0) else { panic!("no id") };
            assert_eq!(id, expected.to_string());
            let Some(Value::Text(payload)) = insert.new.value(1) else { panic!("no payload") };
            assert_eq!(payload.len(), expected % 300);
            expected += 1;
        }
    }
    assert!(cuts > 0, "the test must cut to prove anything");
}

#[tokio::test]
async fn binary_where_the_version_has_it_and_a_named_refusal_where_not() {
    let (database, _client, slot) = outbox(13).await;
    let start = Start { binary: true, ..Start::new(&slot, Lsn::ZERO, "p") };
    let refused = open(&database).await.start(&start).await.err().unwrap();
    let text = refused.error.to_string();
    assert!(text.contains("unrecognized pgoutput option: binary"), "{text}");
    assert!(refused.connection.is_some());
}

#[tokio::test]
async fn a_role_without_replication_and_a_missing_database_are_told_apart() {
    let database = postgres(17).await;
    let client = database.connect().await;
    client.batch_execute("create role plain_17 login").await.unwrap();
    let mut plain = login(&database);
    plain.user = "plain_17".to_owned();
    let error = Connection::open(plain, Settings::default()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"), "{error}");
    let mut nowhere = login(&database);
    nowhere.database = "nowhere".to_owned();
    let error = Connection::open(nowhere, Settings::default()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"), "{error}");
    let mut closed = login(&database);
    let port = blocking(|| postrider::drill::cluster::free_port().unwrap()).await;
    closed.endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), address: None, port };
    let error = Connection::open(closed, Settings::default()).await.unwrap_err();
    assert!(
        matches!(error, Error::Connect { .. }) && error.to_string().contains(&port.to_string())
    );
}

#[tokio::test]
async fn settings_of_the_login_win_and_those_of_a_role_do_not_change_the_text() {
    let database = postgres(15).await;
    let client = database.connect().await;
    client
        .batch_execute(
            "create role odd_15 login replication;
             alter role odd_15 set DateStyle = 'German'; alter role odd_15 set TimeZone = 'Asia/Tokyo';
             alter role odd_15 set bytea_output = 'escape'; alter role odd_15 set extra_float_digits = -5",
        )
        .await
        .unwrap();
    let mut login = login(&database);
    login.user = "odd_15".to_owned();
    login.options = Some("-c wal_sender_timeout=1000 -c work_mem=1MB".to_owned());
    login.settings.push(("wal_sender_timeout".to_owned(), "7s".to_owned()));
    let mut connection = Connection::open(login, Settings::default()).await.unwrap();
    let sql = "select '2026-11-30 12:00:00.5+00'::timestamptz::text as at, '\\x00ff'::bytea::text as raw,
        (0.1::float8 + 0.2::float8)::text as float, current_setting('wal_sender_timeout') as timeout,
        current_setting('work_mem') as memory";
    let rows = connection.query("ask", sql).await.unwrap();
    let value = |name| rows[0].first(name).unwrap();
    assert_eq!(value("at"), "2026-11-30 12:00:00.5+00");
    assert_eq!((value("raw"), value("float")), ("\\x00ff", "0.30000000000000004"));
    assert_eq!((value("timeout"), value("memory")), ("7s", "1MB"));
}

/// The connection's own process, ended by the same pid and start: what a stale one is ended by.
#[tokio::test]
async fn a_terminated_walsender_is_an_error_with_its_code() {
    let (database, client, slot) = outbox(16).await;
    let mut stream = open(&database).await.start(&Start::new(&slot, Lsn::ZERO, "p")).await.unwrap();
    let backend = stream.connection().backend().clone();
    let ended: bool = client
        .query_one(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where pid = $1 and backend_start = $2::text::timestamptz",
            &[&backend.pid, &backend.started],
        )
        .await
        .unwrap()
        .get(0);
    assert!(ended);
    let error = async {
        loop {
            if let Err(error) = stream.next().await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(SOON, error).await.expect("the stream ends");
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    // Sure that the slot is free: the server has it no longer in use.
    wait_until(SOON, "the slot to be free", async || {
        let free = "select not active from pg_replication_slots where slot_name = $1";
        let client = connect(&database.url).await.unwrap();
        client.query_one(free, &[&slot]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
}

/// A transaction that makes its own origin: the decoder does not see the name yet, and the server
/// writes an empty message in its place.
#[tokio::test]
async fn rows_of_an_origin_without_a_name_arrive_all_the_same() {
    for version in [13, 15, 18] {
        let (database, client, slot) = outbox(version).await;
        let origin = &database.name;
        client
            .batch_execute(&format!(
                "select pg_replication_origin_create('{origin}');
                 select pg_replication_origin_session_setup('{origin}');
                 begin;
                 select pg_replication_origin_xact_setup('0/AB', now());
                 insert into outbox values (1, 'foreign');
                 commit;
                 select pg_replication_origin_session_reset();
                 select pg_replication_origin_drop('{origin}');
                 insert into outbox values (2, 'ours')"
            ))
            .await
            .unwrap();
        let connection = open(&database).await;
        let mut stream = connection.start(&Start::new(&slot, Lsn::ZERO, "p")).await.unwrap();
        assert_eq!(rows(&mut stream, 2).await.0, [1, 2], "{version}");
    }
}
