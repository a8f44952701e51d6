//! What a look at the outbox finds: nothing where all is well, and each defect by its name, on every
//! version.

use postrider::drill::cluster::{POSTGRES_VERSIONS, Postgres, PostgresOptions, RunDir};
use postrider::outbox::{Defect, TableName, inspect};
use tokio_postgres::Client;

use crate::harness::{blocking, connect, postgres};

const PLAIN: &str = include_str!("../../sql/outbox.sql");
const PARTITIONED: &str = include_str!("../../sql/outbox_partitioned.sql");
const COLUMNS: &str = "id uuid, aggregatetype text, aggregateid text, type text, payload json";

fn name(table: &str) -> TableName {
    table.parse().unwrap()
}

const ROUTED: [&str; 5] = ["id", "aggregatetype", "aggregateid", "type", "payload"];

async fn found(client: &Client, table: &str) -> Vec<Defect> {
    inspect(client, &name(table), &ROUTED)
        .await
        .unwrap_or_else(|error| panic!("{table}: {error:?}"))
}

/// What is found after `sql` in a database of its own.
async fn after(version: u16, sql: &str, table: &str) -> Vec<Defect> {
    let client = postgres(version).await.connect().await;
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{version} {sql}: {error:?}"));
    found(&client, table).await
}

#[tokio::test]
async fn an_outbox_that_is_well_has_no_defect() {
    let nested = format!(
        "create table o ({COLUMNS}, day int) partition by range (day); \
         create table o_1 partition of o for values from (0) to (9) partition by range (day); \
         create table o_1_1 partition of o_1 for values from (0) to (5); "
    );
    let plain = format!("create schema app; create table app.\"O x\" ({COLUMNS}); ");
    for version in POSTGRES_VERSIONS {
        let mut cases = vec![
            (PLAIN.to_owned(), "public.outbox"),
            (PLAIN.to_owned(), "outbox"),
            (PARTITIONED.to_owned(), "public.outbox"),
            (format!("{plain} create publication x for all tables"), "app.O x"),
            (format!("{plain} create publication x for table app.\"O x\""), "app.O x"),
            // Changes may go by the partitions' names or by the root's; a relay can take either.
            (format!("{nested} create publication x for table o"), "public.o"),
            (
                format!(
                    "{nested} create publication x for table o with (publish_via_partition_root)"
                ),
                "public.o",
            ),
            (format!("{nested} create publication x for table o_1"), "public.o"),
            (format!("{nested} create publication x for table o"), "public.o_1_1"),
            // Before its first partition.
            (
                format!(
                    "create table o ({COLUMNS}) partition by range (id); create publication x for table o"
                ),
                "public.o",
            ),
        ];
        if version >= 15 {
            cases.extend([
                (format!("{plain} create publication x for tables in schema app"), "app.O x"),
                (format!("{nested} create publication x for tables in schema public"), "public.o"),
                (
                    format!(
                        "{plain} create publication x for table app.\"O x\" \
                         (id, aggregatetype, aggregateid, type, payload)"
                    ),
                    "app.O x",
                ),
            ]);
        }
        for (sql, table) in cases {
            assert_eq!(after(version, &sql, table).await, [], "{version}: {sql}");
        }
    }
}

#[tokio::test]
async fn a_table_whose_inserts_are_not_published_is_found() {
    let plain = format!("create table o ({COLUMNS}); create table other (); ");
    let parts = format!(
        "create table o ({COLUMNS}, day int) partition by range (day); \
         create table o_1 partition of o for values from (0) to (1); \
         create table o_2 partition of o for values from (1) to (2); "
    );
    for version in POSTGRES_VERSIONS {
        let mut cases = vec![
            (plain.clone(), vec![]),
            (format!("{plain} create publication x for table other"), vec![]),
            (format!("{plain} create publication x for table o with (publish = 'delete')"), vec![]),
            (
                format!("{plain} create publication x for all tables with (publish = 'update')"),
                vec![],
            ),
            (
                format!(
                    "{plain} create schema a; create table a.o (); create publication x for table a.o"
                ),
                vec![],
            ),
            (parts.clone(), vec![]),
            (format!("{parts} create publication x for table o_1"), vec!["o_2"]),
        ];
        if version >= 15 {
            cases.extend([
                (format!("{plain} create publication x for table o where (type = 'a')"), vec![]),
                (format!("{plain} create publication x for table o (id, type)"), vec![]),
                (
                    format!("{plain} create schema a; create publication x for tables in schema a"),
                    vec![],
                ),
            ]);
        }
        for (sql, partitions) in cases {
            let partitions = partitions.into_iter().map(str::to_owned).collect();
            let expected = [Defect::NotPublished(name("public.o"), partitions)];
            assert_eq!(after(version, &sql, "public.o").await, expected, "{version}: {sql}");
        }
    }
}

#[tokio::test]
async fn the_way_out_of_a_missing_publication_leads_out() {
    let client = postgres(13).await.connect().await;
    client.batch_execute(&format!("create table \"O x\" ({COLUMNS})")).await.unwrap();
    let text = found(&client, "public.O x").await[0].to_string();
    assert!(text.starts_with("no publication has the inserts of public.O x ("), "{text}");
    client.batch_execute(text.split('`').nth(1).unwrap()).await.unwrap();
    assert_eq!(found(&client, "public.O x").await, []);
}

#[tokio::test]
async fn what_is_not_in_the_log_is_found() {
    let all = "create publication x for all tables; ";
    let parts = format!(
        "{all} create table o ({COLUMNS}, day int) partition by range (day); \
         create table o_1 partition of o for values from (0) to (1); "
    );
    for version in POSTGRES_VERSIONS {
        let unlogged = format!("{all} create unlogged table o ({COLUMNS})");
        let expected = [Defect::NotLogged(name("public.o"), vec![])];
        assert_eq!(after(version, &unlogged, "public.o").await, expected, "{version}");

        let part =
            format!("{parts} create unlogged table o_2 partition of o for values from (1) to (2)");
        let expected = [Defect::NotLogged(name("public.o"), vec!["o_2".to_owned()])];
        let defects = after(version, &part, "public.o").await;
        assert_eq!(defects, expected, "{version}");
        assert!(defects[0].to_string().contains("`alter table o_2 set logged`"), "{}", defects[0]);

        let temporary = format!("{all} create temporary table o ({COLUMNS})");
        let expected = [Defect::NotLogged(name("o"), vec![])];
        assert_eq!(after(version, &temporary, "o").await, expected, "{version}");

        for sql in [
            format!("create table t ({COLUMNS}); create view o as select * from t"),
            format!("create table t ({COLUMNS}); create materialized view o as select * from t"),
            "create sequence o".to_owned(),
        ] {
            let expected = [Defect::NotATable(name("public.o"))];
            assert_eq!(after(version, &sql, "public.o").await, expected, "{version}: {sql}");
        }
    }
}

#[tokio::test]
async fn a_missing_table_and_missing_columns_are_found_by_name() {
    for version in POSTGRES_VERSIONS {
        let client = postgres(version).await.connect().await;
        for table in ["public.outbox", "nowhere.outbox", "outbox", "Outbox"] {
            assert_eq!(found(&client, table).await, [Defect::Missing(name(table))], "{version}");
        }
        let wrong = "create table o (id uuid, aggregate_type text, aggregateid text, \"Type\" text, \
                     payload json, dropped int); alter table o drop column dropped; \
                     create publication x for table o";
        client.batch_execute(wrong).await.unwrap();
        let lacking = Defect::LacksColumns(
            name("public.o"),
            vec!["aggregatetype".to_owned(), "type".to_owned()],
        );
        assert_eq!(found(&client, "public.o").await, [lacking], "{version}");
    }
    let other = Defect::Missing(name("app.events")).to_string();
    assert!(!other.contains("--apply"), "which makes a table called outbox alone: {other}");
}

#[tokio::test]
async fn looking_needs_no_right_on_the_table_or_its_schema() {
    let database = postgres(16).await;
    let admin = database.connect().await;
    let sql = format!(
        "create role inspect_guest login; create schema app; create table app.outbox ({COLUMNS}); \
         create publication x for table app.outbox"
    );
    admin.batch_execute(&sql).await.unwrap();
    let url = database.url.replace("postgres@", "inspect_guest@");
    let guest = connect(&url).await.unwrap();
    guest.batch_execute("select 1 from app.outbox").await.unwrap_err();
    assert_eq!(found(&guest, "app.outbox").await, []);
}

#[tokio::test]
async fn a_server_without_a_logical_log_is_found() {
    for version in [13, 18] {
        let run = RunDir::create().unwrap();
        let server = blocking(move || {
            let options = PostgresOptions::version(version).set("wal_level", "replica");
            Postgres::start(&run, options).unwrap()
        })
        .await;
        let client = connect(&server.url("postgres")).await.unwrap();
        client.batch_execute(PLAIN).await.unwrap();
        let defects = found(&client, "public.outbox").await;
        assert_eq!(defects, [Defect::WalLevel("replica".to_owned())], "{version}");
        assert!(defects[0].to_string().contains("then restart the server"));
    }
}
