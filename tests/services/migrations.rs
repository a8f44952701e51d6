//! Migrations against real servers: once, in order, whole, and never silently different.

use std::time::Duration;

use postrider::postgres::migrations::{
    Migration, MigrationError, Migrations, OUTBOX, Patience, migrate,
};
use tokio_postgres::Client;

use crate::harness::{postgres, wait_until};

const ONE: Migration = Migration { number: 1, name: "one.sql", sql: "create table one (a int)" };
const TWO: Migration = Migration { number: 2, name: "two.sql", sql: "alter table one add b int" };

const FIRST: Migrations = Migrations { part: "test", steps: &[ONE] };
const BOTH: Migrations = Migrations { part: "test", steps: &[ONE, TWO] };

async fn count(client: &Client, question: &str) -> i64 {
    client.query_one(question, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn steps_are_applied_once_and_in_order() {
    let mut client = postgres(17).await.connect().await;
    let applied = migrate(&mut client, &FIRST, Patience::default()).await.unwrap();
    assert_eq!((applied.now, applied.before), (vec!["one.sql"], 0));
    let applied = migrate(&mut client, &BOTH, Patience::default()).await.unwrap();
    assert_eq!((applied.now, applied.before), (vec!["two.sql"], 1));
    let applied = migrate(&mut client, &BOTH, Patience::default()).await.unwrap();
    assert_eq!((applied.now.len(), applied.before), (0, 2));
    let who = "select count(*) from postrider.migration where applied_by = current_user";
    assert_eq!(count(&client, who).await, 2);
}

#[tokio::test]
async fn of_two_processes_one_applies_and_the_other_finds_it_done() {
    let database = postgres(17).await;
    // Slow enough that the other one must meet it, which is asserted below.
    const SLOW: Migrations = Migrations {
        part: "test",
        steps: &[Migration {
            number: 1,
            name: "slow.sql",
            sql: "create table slow (); select pg_sleep(0.5)",
        }],
    };
    let (mut first, mut second) = (database.connect().await, database.connect().await);
    let observer = database.connect().await;
    let met = async || {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                       and database = (select oid from pg_database where datname = current_database())";
        (count(&observer, waiting).await > 0).then_some(())
    };
    let (one, two, ()) = tokio::join!(
        migrate(&mut first, &SLOW, Patience::default()),
        migrate(&mut second, &SLOW, Patience::default()),
        wait_until(Duration::from_secs(5), "one to wait for the other", met),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.now.len() + two.now.len(), 1);
    assert_eq!(one.before + two.before, 1);
}

#[tokio::test]
async fn waiting_ends_and_leaves_nothing() {
    let database = postgres(17).await;
    let mut holder = database.connect().await;
    migrate(&mut holder, &FIRST, Patience::default()).await.unwrap();
    let transaction = holder.transaction().await.unwrap();
    transaction.batch_execute("insert into one values (1)").await.unwrap();

    let mut client = database.connect().await;
    let patience = Patience(Duration::from_millis(100));
    let error = migrate(&mut client, &BOTH, patience).await.unwrap_err();
    assert!(matches!(error, MigrationError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains("migration test/2 two.sql waited 100ms"), "{error}");
    transaction.commit().await.unwrap();
    assert_eq!(migrate(&mut client, &BOTH, patience).await.unwrap().now, ["two.sql"]);
}

#[tokio::test]
async fn a_changed_step_is_refused_by_name() {
    let mut client = postgres(13).await.connect().await;
    migrate(&mut client, &BOTH, Patience::default()).await.unwrap();
    const EDITED: Migrations = Migrations {
        part: "test",
        steps: &[ONE, Migration { number: 2, name: "two.sql", sql: "alter table one add c int" }],
    };
    let error = migrate(&mut client, &EDITED, Patience::default()).await.unwrap_err();
    assert!(matches!(error, MigrationError::Changed { number: 2, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("test/2 two.sql was changed after it had been applied"), "{text}");
}

#[tokio::test]
async fn an_older_program_refuses_a_newer_schema() {
    let mut client = postgres(18).await.connect().await;
    migrate(&mut client, &BOTH, Patience::default()).await.unwrap();
    let error = migrate(&mut client, &FIRST, Patience::default()).await.unwrap_err();
    assert!(matches!(error, MigrationError::Newer { number: 2, newest: 1, .. }), "{error:?}");

    client.batch_execute("delete from postrider.migration where number = 1").await.unwrap();
    let error = migrate(&mut client, &BOTH, Patience::default()).await.unwrap_err();
    assert!(matches!(error, MigrationError::Gap { missing: 1, later: 2, .. }), "{error:?}");
}

#[tokio::test]
async fn a_failed_step_leaves_nothing() {
    let mut client = postgres(17).await.connect().await;
    const BROKEN: Migrations = Migrations {
        part: "test",
        steps: &[
            ONE,
            Migration { number: 2, name: "broken.sql", sql: "create table two (); select 1 / 0" },
        ],
    };
    let error = migrate(&mut client, &BROKEN, Patience::default()).await.unwrap_err();
    assert!(error.to_string().contains("migration test/2 broken.sql failed"), "{error}");
    assert!(format!("{error:?}").contains("division by zero"), "{error:?}");
    let rows = "select count(*) from postrider.migration";
    assert_eq!(count(&client, rows).await, 1, "the step before it stays");
    let tables = "select count(*) from pg_class where relname = 'two'";
    assert_eq!(count(&client, tables).await, 0);

    // The very first one failing leaves not even our schema.
    let mut client = postgres(17).await.connect().await;
    const FIRST_BROKEN: Migrations = Migrations {
        part: "test",
        steps: &[Migration { number: 1, name: "broken.sql", sql: "select 1 / 0" }],
    };
    migrate(&mut client, &FIRST_BROKEN, Patience::default()).await.unwrap_err();
    let schemas = "select count(*) from pg_namespace where nspname = 'postrider'";
    assert_eq!(count(&client, schemas).await, 0);
}

#[tokio::test]
async fn a_role_with_few_rights_can_look_but_not_begin() {
    let database = postgres(17).await;
    let mut admin = database.connect().await;
    admin.batch_execute("create role migration_guest login").await.unwrap();
    let url = database.url.replace("postgres@", "migration_guest@");
    let mut guest = crate::harness::connect(&url).await.unwrap();
    let error = migrate(&mut guest, &FIRST, Patience::default()).await.unwrap_err();
    assert!(matches!(error, MigrationError::Forbidden { .. }), "{error:?}");
    assert!(error.to_string().contains("grant create on database"), "{error}");

    migrate(&mut admin, &FIRST, Patience::default()).await.unwrap();
    let rights = "grant usage on schema postrider to migration_guest; \
                  grant select on postrider.migration to migration_guest";
    admin.batch_execute(rights).await.unwrap();
    assert_eq!(migrate(&mut guest, &FIRST, Patience::default()).await.unwrap().before, 1);
}

#[tokio::test]
async fn parts_do_not_see_each_other_and_the_outbox_is_one() {
    let mut client = postgres(13).await.connect().await;
    migrate(&mut client, &FIRST, Patience::default()).await.unwrap();
    let applied = migrate(&mut client, &OUTBOX, Patience::default()).await.unwrap();
    assert_eq!((applied.now, applied.before), (vec!["outbox.sql"], 0));
    assert_eq!(count(&client, "select count(*) from outbox").await, 0);
}
