//! Appending events: in the writer's transaction, in one round trip, refused before they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postrider::event::EventId;
use postrider::outbox::{AppendError, Event, Outbox, Payload, PayloadColumn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, Row};

use crate::harness::{Database, connect, postgres};

const TABLE: &str = include_str!("../../sql/outbox.sql");

async fn database(version: u16) -> (Database, Client) {
    let database = postgres(version).await;
    let client = database.connect().await;
    client.batch_execute(TABLE).await.unwrap();
    (database, client)
}

fn event(key: &str) -> Event {
    Event::new("order", key, "OrderPlaced", Payload::json_text(r#"{"b": 1.0,  "a": 2}"#).unwrap())
}

async fn keys(client: &Client) -> Vec<String> {
    let rows = client.query("select aggregateid from outbox order by seq", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn row(client: &Client, id: EventId) -> Row {
    let question = "select aggregatetype, aggregateid, type, payload::text, aggregateversion, \
                    traceparent, seq, txid::text, created_at is not null from outbox where id = $1";
    client.query_one(question, &[&id.as_uuid()]).await.unwrap()
}

#[tokio::test]
async fn what_is_appended_is_what_is_read() {
    for version in [13, 18] {
        let (_database, mut client) = database(version).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let full =
            Event { aggregate_version: Some(7), traceparent: Some(trace.into()), ..event("k1") };
        let transaction = client.transaction().await.unwrap();
        Outbox::default().append(&transaction, &full).await.unwrap();
        transaction.commit().await.unwrap();
        let row = row(&client, full.id).await;
        let texts: [&str; 3] = [row.get(0), row.get(1), row.get(2)];
        assert_eq!(texts, ["order", "k1", "OrderPlaced"]);
        assert_eq!(row.get::<_, &str>(3), r#"{"b": 1.0,  "a": 2}"#, "byte for byte");
        assert_eq!((row.get::<_, i64>(4), row.get::<_, &str>(5)), (7, trace));
        assert!(row.get::<_, bool>(8));
    }
}

#[tokio::test]
async fn an_event_shares_its_transactions_fate() {
    let (_database, mut client) = database(17).await;
    let outbox = Outbox::default();
    let transaction = client.transaction().await.unwrap();
    outbox.append(&transaction, &event("rolled back")).await.unwrap();
    transaction.rollback().await.unwrap();

    let mut transaction = client.transaction().await.unwrap();
    outbox.append(&transaction, &event("kept")).await.unwrap();
    let savepoint = transaction.savepoint("undone").await.unwrap();
    outbox.append_batch(&savepoint, &[event("undone 1"), event("undone 2")]).await.unwrap();
    savepoint.rollback().await.unwrap();
    let savepoint = transaction.savepoint("released").await.unwrap();
    let inside = event("inside a savepoint");
    outbox.append(&savepoint, &inside).await.unwrap();
    savepoint.commit().await.unwrap();
    let current = transaction.query_one("select pg_current_xact_id()::text", &[]).await.unwrap();
    transaction.commit().await.unwrap();

    assert_eq!(keys(&client).await, ["kept", "inside a savepoint"]);
    let txid = row(&client, inside.id).await.get::<_, String>(7);
    assert_eq!(txid, current.get::<_, &str>(0), "the top-level transaction's, not the savepoint's");
}

#[tokio::test]
async fn a_refusal_leaves_the_transaction_usable() {
    let (_database, mut client) = database(17).await;
    let outbox = Outbox::default().payload_max(50);
    let transaction = client.transaction().await.unwrap();
    let large = Event { payload: Payload::json(&"x".repeat(50)).unwrap(), ..event("large") };
    let error = outbox.append(&transaction, &large).await.unwrap_err();
    assert!(matches!(error, AppendError::Refused { .. }), "{error:?}");
    let error = outbox.append_batch(&transaction, &[event("fine"), large]).await.unwrap_err();
    assert!(error.to_string().starts_with("event 1 of the batch refused: payload: 52"), "{error}");
    outbox.append(&transaction, &event("after")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(keys(&client).await, ["after"]);
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_is_all_or_nothing() {
    let (_database, mut client) = database(17).await;
    let outbox = Outbox::default();
    let events: Vec<_> = (0..1000).map(|n| event(&format!("k{n}"))).collect();
    let transaction = client.transaction().await.unwrap();
    outbox.append_batch(&transaction, &events).await.unwrap();
    outbox.append_batch(&transaction, &[]).await.unwrap();
    transaction.commit().await.unwrap();
    let expected: Vec<_> = (0..1000).map(|n| format!("k{n}")).collect();
    assert_eq!(keys(&client).await, expected);
    let one = "select count(distinct txid), count(*) from outbox where payload is not null";
    let counts = client.query_one(one, &[]).await.unwrap();
    assert_eq!((counts.get::<_, i64>(0), counts.get::<_, i64>(1)), (1, 1000));

    let repeated = [event("new"), events[0].clone()];
    let transaction = client.transaction().await.unwrap();
    let error = outbox.append_batch(&transaction, &repeated).await.unwrap_err();
    assert!(format!("{error:?}").contains("23505"), "{error:?}");
    transaction.rollback().await.unwrap();
    assert_eq!(keys(&client).await.len(), 1000);
}

#[tokio::test]
async fn every_type_of_payload_column_is_written() {
    for (column, payload, text) in [
        (
            PayloadColumn::Json,
            Payload::json_text(r#"{"b":1, "a":"\u0000"}"#).unwrap(),
            r#"{"b":1, "a":"\u0000"}"#,
        ),
        (
            PayloadColumn::Jsonb,
            Payload::json_text(r#"{"b":1,"a":2}"#).unwrap(),
            r#"{"a": 2, "b": 1}"#,
        ),
        (PayloadColumn::Text, Payload::text("plain"), "plain"),
        (PayloadColumn::Bytea, Payload::bytes([0, 255]), r"\x00ff"),
        (PayloadColumn::Bytea, Payload::json(&1).unwrap(), r"\x31"),
    ] {
        let (_database, mut client) = database(17).await;
        // As Debezium's examples have it, without our checks and with short columns.
        let own = format!(
            "drop table outbox; create schema app; create table app.\"Out\" (id uuid primary key, \
             aggregatetype varchar(255), aggregateid varchar(255), type varchar(255), \
             payload {column}, aggregateversion bigint, traceparent text, n int generated always as identity)"
        );
        client.batch_execute(&own).await.unwrap();
        let outbox = Outbox::new("app.Out".parse().unwrap(), column);
        let transaction = client.transaction().await.unwrap();
        let one = Event { payload: payload.clone(), ..event("one") };
        let dead = Event { payload: Payload::tombstone(), ..event("dead") };
        outbox.append(&transaction, &one).await.unwrap();
        outbox.append(&transaction, &dead).await.unwrap();
        let again = |event: &Event| Event { id: EventId::new(), ..event.clone() };
        outbox.append_batch(&transaction, &[again(&one), again(&dead)]).await.unwrap();
        transaction.commit().await.unwrap();
        let rows =
            client.query("select payload::text from app.\"Out\" order by n", &[]).await.unwrap();
        let payloads: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
        let text = Some(text.to_owned());
        assert_eq!(payloads, [text.clone(), None, text, None], "{column}");
    }
}

#[tokio::test]
async fn json_that_a_column_does_not_take_is_refused_before_it_is_sent() {
    let (_database, mut client) = database(17).await;
    client
        .batch_execute(
            "create table b as table outbox with no data; \
                          alter table b alter payload type jsonb",
        )
        .await
        .unwrap();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, json, jsonb) in [
        (r#""\ud83d\ude00""#, true, true),
        (r#""\\ud800""#, true, true),
        (r#""\ud800""#, true, false),
        (r#""\ud800x""#, true, false),
        (r#""\udc00""#, true, false),
        (r#""\ud800\ud800""#, true, false),
        ("1e400", true, true),
        ("1e999999", true, false),
        ("-0.1e-99999", true, false),
        (deep.as_str(), false, false),
    ] {
        let payload = Payload::json_text(text);
        for (table, column, taken) in
            [("outbox", PayloadColumn::Json, json), ("b", PayloadColumn::Jsonb, jsonb)]
        {
            let shown = &text[..text.len().min(40)];
            let Ok(payload) = &payload else {
                assert!(!taken, "{shown}");
                continue;
            };
            let outbox = Outbox::new(table.parse().unwrap(), column);
            let transaction = client.transaction().await.unwrap();
            let one = Event { payload: payload.clone(), ..event("one") };
            match outbox.append(&transaction, &one).await {
                Ok(()) => assert!(taken, "{shown} into {column} was taken"),
                Err(AppendError::Refused { .. }) => assert!(!taken, "{shown} into {column}"),
                Err(error) => panic!("{shown} into {column}: {error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_insert_that_a_trigger_swallows_is_an_error() {
    let (_database, mut client) = database(17).await;
    let trigger = "create function swallow() returns trigger language plpgsql as \
                   'begin return case when new.aggregateid = ''lost'' then null else new end; end'; \
                   create trigger swallow before insert on outbox for each row execute function swallow()";
    client.batch_execute(trigger).await.unwrap();
    let outbox = Outbox::default();
    let transaction = client.transaction().await.unwrap();
    let error = outbox.append(&transaction, &event("lost")).await.unwrap_err();
    assert!(matches!(error, AppendError::Swallowed { written: 0, expected: 1, .. }), "{error:?}");
    let error = outbox.append_batch(&transaction, &[event("a"), event("lost")]).await.unwrap_err();
    assert!(matches!(error, AppendError::Swallowed { written: 1, expected: 2, .. }), "{error:?}");
}

/// Forwards one connection and counts how often the client speaks after the server has spoken: each
/// time it had to wait for an answer before it could go on.
async fn counting(upstream: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
        let (mut ask, mut answer) = ([0; 65536], [0; 65536]);
        let mut server_spoke = true;
        loop {
            tokio::select! {
                read = client.read(&mut ask) => {
                    let Ok(read @ 1..) = read else { return };
                    if std::mem::take(&mut server_spoke) {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                    server.write_all(&ask[..read]).await.unwrap();
                }
                read = server.read(&mut answer) => {
                    let Ok(read @ 1..) = read else { return };
                    server_spoke = true;
                    client.write_all(&answer[..read]).await.unwrap();
                }
            }
        }
    });
    (port, turns)
}

#[tokio::test]
async fn an_append_is_one_round_trip() {
    let (database, _client) = database(17).await;
    let direct = database.server.port();
    let (port, turns) = counting(direct).await;
    let url = database.url.replace(&format!(":{direct}/"), &format!(":{port}/"));
    let mut client = connect(&url).await.unwrap();
    let outbox = Outbox::default();
    let transaction = client.transaction().await.unwrap();
    let mut trips = turns.load(Ordering::SeqCst);
    let mut trip = |what| {
        let now = turns.load(Ordering::SeqCst);
        assert_eq!(now - std::mem::replace(&mut trips, now), 1, "{what}");
    };
    // The first one, too: nothing is prepared before it.
    outbox.append(&transaction, &event("1")).await.unwrap();
    trip("first append");
    outbox.append(&transaction, &event("2")).await.unwrap();
    trip("second append");
    outbox.append_batch(&transaction, &[event("3"), event("4"), event("5")]).await.unwrap();
    trip("batch");
    transaction.execute("select 1", &[]).await.unwrap();
    let prepared = turns.load(Ordering::SeqCst) - trips;
    assert!(prepared >= 2, "the counter counts: preparing first takes two trips, not {prepared}");
}
