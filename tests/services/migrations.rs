//! Migrations against real servers: once, in order, whole, and never silently different.

use std::time::Duration;

use postrider::postgres::migrations::{
    Migration, MigrationError, Migrations, OUTBOX, Patience, migrate,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
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
async fn two_parts_that_begin_at_once_share_the_schema() {
    let database = postgres(17).await;
    let (mut first, mut second) = (database.connect().await, database.connect().await);
    // The one creates the schema and then takes its time; the other one meets it there.
    const STEP: Migration = Migration { number: 1, name: "slow.sql", sql: "select pg_sleep(0.5)" };
    const ONE_PART: Migrations = Migrations { part: "one", steps: &[STEP] };
    const OTHER_PART: Migrations = Migrations { part: "other", steps: &[STEP] };
    let observer = database.connect().await;
    let met = async || {
        let waiting = "select count(*) from pg_stat_activity \
                       where datname = current_database() and wait_event_type = 'Lock'";
        (count(&observer, waiting).await > 0).then_some(())
    };
    let (one, two, ()) = tokio::join!(
        migrate(&mut first, &ONE_PART, Patience::default()),
        migrate(&mut second, &OTHER_PART, Patience::default()),
        wait_until(Duration::from_secs(5), "one to wait for the other", met),
    );
    assert_eq!((one.unwrap().now, two.unwrap().now), (vec!["slow.sql"], vec!["slow.sql"]));
}

#[tokio::test]
async fn the_one_that_waited_sees_what_was_done_at_any_isolation() {
    let database = postgres(17).await;
    let admin = database.connect().await;
    let isolation = format!(
        "alter database {} set default_transaction_isolation = 'repeatable read'",
        database.name
    );
    admin.batch_execute(&isolation).await.unwrap();
    let mut holder = database.connect().await;
    migrate(&mut holder, &FIRST, Patience::default()).await.unwrap();
    const SLOW: Migrations = Migrations {
        part: "test",
        steps: &[
            ONE,
            Migration {
                number: 2,
                name: "two.sql",
                sql: "create table two (); select pg_sleep(0.5)",
            },
        ],
    };
    let (mut first, mut second) = (database.connect().await, database.connect().await);
    let met = async || {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                       and database = (select oid from pg_database where datname = current_database())";
        (count(&admin, waiting).await > 0).then_some(())
    };
    let (one, two, ()) = tokio::join!(
        migrate(&mut first, &SLOW, Patience::default()),
        migrate(&mut second, &SLOW, Patience::default()),
        wait_until(Duration::from_secs(5), "one to wait for the other", met),
    );
    assert_eq!(one.unwrap().now.len() + two.unwrap().now.len(), 1);
}

/// Forwards one connection up to the client's COMMIT, which reaches the server or does not, and
/// whose answer never comes back.
async fn cutting_at_commit(upstream: u16, reaches: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
        let (mut ask, mut answer) = ([0; 65536], [0; 65536]);
        loop {
            tokio::select! {
                read = client.read(&mut ask) => {
                    let read = read.unwrap();
                    let commits = ask[..read].windows(7).any(|word| word == b"COMMIT\0");
                    if reaches || !commits {
                        server.write_all(&ask[..read]).await.unwrap();
                    }
                    if commits {
                        // The server's answer says that it is done; ours never leaves.
                        if reaches {
                            assert!(server.read(&mut answer).await.unwrap() > 0);
                        }
                        return;
                    }
                }
                read = server.read(&mut answer) => {
                    client.write_all(&answer[..read.unwrap()]).await.unwrap();
                }
            }
        }
    });
    port
}

#[tokio::test]
async fn an_answer_lost_at_commit_is_not_called_a_failure() {
    for reaches in [true, false] {
        let database = postgres(17).await;
        let direct = database.server.port();
        let port = cutting_at_commit(direct, reaches).await;
        let url = database.url.replace(&format!(":{direct}/"), &format!(":{port}/"));
        let mut client = crate::harness::connect(&url).await.unwrap();
        let error = migrate(&mut client, &FIRST, Patience::default()).await.unwrap_err();
        assert!(matches!(error, MigrationError::Unknown { .. }), "{error:?}");
        assert!(error.to_string().contains("applied or it is not: start again"), "{error}");

        let again = migrate(&mut database.connect().await, &FIRST, Patience::default()).await;
        let before = usize::from(reaches);
        assert_eq!(again.unwrap().before, before, "what the test cut is what it meant to cut");
    }
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
