//! The SQL files as an operator runs them: by psql, twice, on the oldest and the newest server.

use std::path::Path;
use std::process::Command;

use postrider::drill::cluster::Services;
use postrider::outbox::{Event, Outbox, Payload, PayloadColumn};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::harness::{Database, blocking, connect, postgres};

/// Runs files from `sql` through psql; `-1` is for those that may run in one transaction.
async fn psql(database: &Database, options: &[&str], files: &[&str]) {
    let mut command = Command::new(Services::find().unwrap().program("psql").unwrap());
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &database.url]).args(options);
    for file in files {
        command.arg("-f").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(file));
    }
    let output = blocking(move || command.output().unwrap()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{files:?}: {said}");
}

async fn text(client: &Client, question: &str) -> String {
    let row = client.query_one(question, &[]).await.unwrap_or_else(|e| panic!("{question}: {e:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// A client that may do what a role may do. Roles are the cluster's, so several tests share one.
async fn acting_as(database: &Database, role: &str) -> Client {
    let client = connect(&database.url).await.unwrap();
    client.batch_execute(&format!("set role {role}")).await.unwrap();
    client
}

async fn denied(client: &Client, statement: &str) {
    match client.batch_execute(statement).await {
        Ok(()) => panic!("{statement} was allowed"),
        Err(error) => {
            assert_eq!(
                error.code(),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                "{statement}: {error:?}"
            );
        }
    }
}

const INSERT: &str = "insert into outbox (id, aggregatetype, aggregateid, type, payload) \
                      values (gen_random_uuid(), 'order', 'k', 't', '{}')";

/// Roles belong to the whole server, and two tests that make them at once would meet.
static ROLES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn the_table_can_be_made_twice_on_every_version() {
    for version in postrider::drill::cluster::POSTGRES_VERSIONS {
        let database = postgres(version).await;
        for _ in 0..2 {
            psql(&database, &["-1"], &["outbox.sql"]).await;
        }
        let client = database.connect().await;
        let publication = "select string_agg(p.pubname || ' ' || p.pubinsert || ' ' || \
            (p.pubupdate or p.pubdelete or p.pubtruncate) || ' ' || t.tablename, ',') \
            from pg_publication p join pg_publication_tables t using (pubname)";
        assert_eq!(text(&client, publication).await, "postrider true false outbox", "{version}");
    }
}

#[tokio::test]
async fn a_publication_that_is_there_already_is_used_or_refused() {
    for version in [13, 18] {
        for (file, table) in [
            ("outbox.sql", "outbox"),
            ("outbox_partitioned.sql", "outbox"),
            ("adopt_debezium.sql", "outboxevent"),
        ] {
            let database = postgres(version).await;
            let client = database.connect().await;
            let debezium = "create table outboxevent (id uuid primary key, aggregatetype text, \
                            aggregateid text, type text, payload jsonb)";
            client.batch_execute(debezium).await.unwrap();
            client.batch_execute("create publication postrider for all tables").await.unwrap();
            psql(&database, &[], &[file]).await;
            let told =
                postrider::outbox::inspect(&client, &table.parse().unwrap(), &["id", "payload"])
                    .await
                    .unwrap();
            assert_eq!(told, [], "{version} {file}");

            let silent = "drop publication postrider; \
                          create publication postrider for all tables with (publish = 'delete')";
            client.batch_execute(silent).await.unwrap();
            let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(file);
            let sql = std::fs::read_to_string(sql).unwrap().replace("concurrently", "");
            let refused = client.batch_execute(&sql).await.unwrap_err();
            let words = refused.as_db_error().unwrap().message();
            assert!(words.contains("is there already and publishes no inserts"), "{file}: {words}");
        }
    }
}

#[tokio::test]
async fn rights_are_the_least_that_do() {
    for version in [13, 18] {
        let database = postgres(version).await;
        let _roles = ROLES.lock().await;
        for _ in 0..2 {
            psql(&database, &["-1"], &["outbox.sql", "outbox_roles.sql"]).await;
        }
        let writer = acting_as(&database, "outbox_writer").await;
        writer.batch_execute(INSERT).await.unwrap();
        let set = |column: &str, value: &str| {
            INSERT
                .replace("payload)", &format!("payload, {column})"))
                .replace("'{}')", &format!("'{{}}', {value})"))
        };
        denied(&writer, &set("txid", "'3'")).await;
        denied(&writer, &set("created_at", "now()")).await;
        let seq = set("seq", "3").replace(" values", " overriding system value values");
        denied(&writer, &seq).await;
        for statement in [
            "select 1 from outbox",
            "delete from outbox",
            "update outbox set type = 'x'",
            "truncate outbox",
        ] {
            denied(&writer, statement).await;
        }
        let relay = acting_as(&database, "outbox_relay").await;
        relay.batch_execute("select * from outbox").await.unwrap();
        for statement in [INSERT, "delete from outbox", "truncate outbox", "drop table outbox"] {
            denied(&relay, statement).await;
        }
        let owner = acting_as(&database, "outbox_owner").await;
        owner.batch_execute("alter table outbox add column more text").await.unwrap();

        // The Rust writer needs no more than the role has.
        let mut writer = writer;
        let transaction = writer.transaction().await.unwrap();
        let event = Event::new("order", "k", "t", Payload::tombstone());
        Outbox::default().append(&transaction, &event).await.unwrap();
        Outbox::default()
            .append_batch(&transaction, &[Event { id: postrider::event::EventId::new(), ..event }])
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
}

#[tokio::test]
async fn rows_that_cannot_be_routed_are_refused_by_the_table() {
    let database = postgres(13).await;
    psql(&database, &["-1"], &["outbox.sql"]).await;
    let client = database.connect().await;
    client.batch_execute(INSERT).await.unwrap();
    for (good, bad, constraint) in [
        ("'order'", "''", "outbox_aggregatetype_routable"),
        ("'order'", "'an order'", "outbox_aggregatetype_routable"),
        ("'order'", "repeat('a', 237)", "outbox_aggregatetype_routable"),
        ("'k'", "''", "outbox_aggregateid_size"),
        ("'k'", "repeat('k', 1025)", "outbox_aggregateid_size"),
        ("'t'", "''", "outbox_type_size"),
        ("'{}'", "to_json(repeat('x', 983040))", "outbox_payload_size"),
    ] {
        let error = client.batch_execute(&INSERT.replace(good, bad)).await.unwrap_err();
        let refused = error.as_db_error().unwrap();
        assert_eq!(refused.constraint(), Some(constraint), "{bad}: {refused:?}");
    }
    // Just within: the Rust writer's limits and the table's are the same numbers.
    let largest = INSERT
        .replace("'order'", "repeat('a', 236)")
        .replace("'k'", "repeat('k', 1024)")
        .replace("'{}'", "to_json(repeat('x', 983038))");
    client.batch_execute(&largest).await.unwrap();
}

#[tokio::test]
async fn the_indexes_serve_the_queries_they_are_for() {
    let database = postgres(17).await;
    psql(&database, &["-1"], &["outbox.sql"]).await;
    let client = database.connect().await;
    let fill = "insert into outbox (id, aggregatetype, aggregateid, type, payload) \
                select gen_random_uuid(), 'order', n::text, 't', '{}' from generate_series(1, 20000) n";
    client.batch_execute(&format!("{fill}; analyze outbox")).await.unwrap();
    for (query, index) in [
        (
            "select 1 from outbox where txid >= pg_snapshot_xmax(pg_current_snapshot()) \
          or txid = any ('{1,2}'::xid8[])",
            "outbox_txid",
        ),
        ("select 1 from outbox where created_at < now() - interval '1 day'", "outbox_created_at"),
    ] {
        let rows = client.query(&format!("explain {query}"), &[]).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
    }
}

#[tokio::test]
async fn a_debezium_table_is_adopted_without_being_rewritten() {
    for version in [13, 18] {
        let database = postgres(version).await;
        let client = database.connect().await;
        let debezium = "create table outboxevent (id uuid not null primary key, \
             aggregatetype varchar(255) not null, aggregateid varchar(255) not null, \
             type varchar(255) not null, payload jsonb); \
             insert into outboxevent select gen_random_uuid(), 'order', n::text, 't', '{}' \
             from generate_series(1, 1000) n";
        client.batch_execute(debezium).await.unwrap();
        let role = format!("legacy_writer_{version}");
        let grants = format!("create role {role}; grant insert on outboxevent to {role}");
        client.batch_execute(&grants).await.unwrap();
        let files = "select relfilenode::text || pg_relation_size(oid) from pg_class \
                     where oid = 'outboxevent'::regclass";
        let before = text(&client, files).await;
        for _ in 0..2 {
            psql(&database, &[], &["adopt_debezium.sql"]).await;
        }
        assert_eq!(text(&client, files).await, before, "{version}: the table was rewritten");

        // The writer that was there goes on without a new grant, and its rows are stamped.
        let legacy = acting_as(&database, &role).await;
        let insert = "insert into outboxevent (id, aggregatetype, aggregateid, type, payload) \
                      values (gen_random_uuid(), 'order', 'new', 't', '{}')";
        legacy.batch_execute(insert).await.unwrap();
        let stamped = "select string_agg(aggregateid || (seq > 0) || (created_at is not null), ',') \
                       from outboxevent where txid is not null";
        assert_eq!(text(&client, stamped).await, "newtruetrue");
        let old = "select count(*)::text from outboxevent where txid is null and seq = 0";
        assert_eq!(text(&client, old).await, "1000");
        let unstamped =
            insert.replace("payload)", "payload, txid)").replace("'{}')", "'{}', null)");
        let refused = client.batch_execute(&unstamped).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::CHECK_VIOLATION));
        let valid = "select (indisvalid and indisready)::text from pg_index \
                     where indexrelid = 'outboxevent_txid'::regclass";
        assert_eq!(text(&client, valid).await, "true");

        // Our writer, too.
        let mut client = client;
        let transaction = client.transaction().await.unwrap();
        let outbox = Outbox::new("outboxevent".parse().unwrap(), PayloadColumn::Jsonb);
        let event = Event::new("order", "rust", "t", Payload::json(&1).unwrap());
        outbox.append(&transaction, &event).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

#[tokio::test]
async fn partitions_take_the_rows_and_the_parent_is_published() {
    for version in [13, 18] {
        let database = postgres(version).await;
        let _roles = ROLES.lock().await;
        for _ in 0..2 {
            psql(&database, &["-1"], &["outbox_partitioned.sql", "outbox_roles.sql"]).await;
        }
        let mut writer = acting_as(&database, "outbox_writer").await;
        let transaction = writer.transaction().await.unwrap();
        let events: Vec<_> = (0..3)
            .map(|n| Event::new("order", n.to_string(), "t", Payload::json(&n).unwrap()))
            .collect();
        Outbox::default().append(&transaction, &events[0]).await.unwrap();
        Outbox::default().append_batch(&transaction, &events[1..]).await.unwrap();
        transaction.commit().await.unwrap();

        let client = database.connect().await;
        let places = "select string_agg(distinct (tableoid::regclass::text = 'outbox_' || \
                      to_char(now() at time zone 'UTC', 'YYYYMMDD'))::text, ',') || max(seq) from outbox";
        assert_eq!(text(&client, places).await, "true3");
        let published = "select string_agg(tablename, ',') from pg_publication_tables where pubname = 'postrider'";
        assert_eq!(text(&client, published).await, "outbox");

        let owner = acting_as(&database, "outbox_owner").await;
        assert_eq!(
            text(&owner, "select outbox_add_partitions(15)").await.len(),
            "outbox_20261215".len()
        );
        // What the file's first comment promises: no default partition stands in the way.
        let leaf = text(&owner, "select outbox_add_partitions(16)").await;
        if version >= 14 {
            owner
                .batch_execute(&format!("alter table outbox detach partition {leaf} concurrently"))
                .await
                .unwrap();
        } else {
            owner
                .batch_execute(&format!("alter table outbox detach partition {leaf}"))
                .await
                .unwrap();
        }
        owner.batch_execute(&format!("drop table {leaf}")).await.unwrap();
        let direct = format!(
            "insert into outbox_{} (id, aggregatetype, aggregateid, type) \
                              values (gen_random_uuid(), 'order', 'k', 't')",
            text(&client, "select to_char(now() at time zone 'UTC', 'YYYYMMDD')").await
        );
        let direct = client.batch_execute(&direct).await;
        let refused = direct.err().map(|error| error.code() == Some(&SqlState::NOT_NULL_VIOLATION));
        assert_eq!(refused, (version < 17).then_some(true), "{version}");
    }
}

#[tokio::test]
async fn the_reference_settings_are_understood() {
    let reference = include_str!("../../config/postgresql.conf");
    let names: Vec<&str> = reference
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(" = ").unwrap().0)
        .collect();
    assert!(names.len() > 8);
    for version in [13, 18] {
        let client = postgres(version).await.connect().await;
        let known = "select count(*) from pg_settings where name = any ($1)";
        let count: i64 = client.query_one(known, &[&names]).await.unwrap().get(0);
        assert_eq!(usize::try_from(count), Ok(names.len()), "{version}");
    }
}
