//! Looking at an outbox: each defect is found, on every version, and nothing else is called one.

use postrider::drill::cluster::{POSTGRES_VERSIONS, Postgres, PostgresOptions, RunDir};
use postrider::outbox::{Defect, TableName, inspect};

use crate::harness::{Database, blocking, connect, postgres};

const ROUTED: [&str; 5] = ["id", "aggregatetype", "aggregateid", "type", "payload"];

const COLUMNS: &str = "(id uuid, aggregatetype text, aggregateid text, type text, payload json)";

async fn defects(database: &Database, table: &str) -> Vec<Defect> {
    let client = database.connect().await;
    inspect(&client, &table.parse::<TableName>().unwrap(), &ROUTED).await.unwrap()
}

async fn run(database: &Database, sql: &str) {
    database.connect().await.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn what_is_published_in_any_way_is_fine() {
    for version in POSTGRES_VERSIONS {
        let database = postgres(version).await;
        // A schema that must be quoted, and a publication that has nothing to do with us.
        run(
            &database,
            "create schema \"Strange Name\"; create table \"Strange Name\".t (id int);
            create publication other for table \"Strange Name\".t",
        )
        .await;
        for (table, sql) in [
            (
                "public.named",
                format!("create table named {COLUMNS}; create publication a for table named"),
            ),
            (
                "public.parted",
                format!(
                    "create table parted {COLUMNS} partition by list (type);
                     create publication b for table parted"
                ),
            ),
            (
                "public.root",
                format!(
                    "create table root {COLUMNS} partition by list (type);
                     create table leaf partition of root default;
                     create publication c for table root with (publish_via_partition_root = true)"
                ),
            ),
            (
                "Strange Name.Outbox",
                format!(
                    "create table \"Strange Name\".\"Outbox\" {COLUMNS};
                     create publication d for table \"Strange Name\".\"Outbox\""
                ),
            ),
        ] {
            run(&database, &sql).await;
            assert_eq!(defects(&database, table).await, [], "{table} on {version}");
        }
        if version >= 15 {
            run(&database, &format!("create schema s; create table s.t {COLUMNS}; create publication e for tables in schema s")).await;
            assert_eq!(defects(&database, "s.t").await, [], "{version}");
        }
        run(
            &database,
            &format!("create table late {COLUMNS}; create publication f for all tables"),
        )
        .await;
        assert_eq!(defects(&database, "public.late").await, [], "{version}");
    }
}

#[tokio::test]
async fn each_defect_is_found_by_itself() {
    for version in POSTGRES_VERSIONS {
        let database = postgres(version).await;
        run(
            &database,
            &format!(
                "create table alone {COLUMNS};
                 create table deletes {COLUMNS};
                 create publication d for table deletes with (publish = 'delete');
                 create view seen as select * from alone;
                 create table few (id uuid, payload json, type text);
                 create publication f for table few;
                 create unlogged table light {COLUMNS}"
            ),
        )
        .await;
        let name = |table: &str| format!("public.{table}").parse::<TableName>().unwrap();
        let lacking = ["aggregatetype", "aggregateid"].map(str::to_owned).to_vec();
        for (table, expected) in [
            ("none", vec![Defect::Missing(name("none"))]),
            ("alone", vec![Defect::NotPublished(name("alone"))]),
            ("deletes", vec![Defect::NotPublished(name("deletes"))]),
            ("seen", vec![Defect::NotATable(name("seen"))]),
            ("few", vec![Defect::LacksColumns(name("few"), lacking)]),
            ("light", vec![Defect::NotLogged(name("light")), Defect::NotPublished(name("light"))]),
        ] {
            let found = defects(&database, &format!("public.{table}")).await;
            assert_eq!(found, expected, "{table} on {version}");
            // The way out is part of each.
            assert!(found.iter().all(|defect| defect.to_string().len() > 40));
        }
    }
}

#[tokio::test]
async fn a_server_without_a_logical_log_is_told_how_to_get_one() {
    let server = blocking(|| {
        let run = RunDir::create().unwrap();
        Postgres::start(&run, PostgresOptions::version(18).set("wal_level", "replica")).unwrap()
    })
    .await;
    let client = connect(&server.url("postgres")).await.unwrap();
    let table = "public.none".parse::<TableName>().unwrap();
    let found = inspect(&client, &table, &ROUTED).await.unwrap();
    assert_eq!(found, [Defect::WalLevel("replica".into()), Defect::Missing(table)]);
    assert!(found[0].to_string().contains("alter system set wal_level = 'logical'"));
}
