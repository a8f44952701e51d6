//! Making replication slots: in time, or not at all, and never one that nobody wanted.

use std::future::pending;
use std::time::Duration;

use postrider::lsn::Lsn;
use postrider::replication::{Error, SlotSpec};

use crate::harness::{Database, postgres, wait_until};
use crate::replication::{SOON, make_slot, open, slot_count, slot_name};

/// A transaction that was open when creation began.
async fn open_transaction(database: &Database) -> tokio_postgres::Client {
    let writer = database.connect().await;
    writer.batch_execute("begin; create table left_open (id int)").await.unwrap();
    writer
}

#[tokio::test]
async fn a_slot_under_an_open_transaction_times_out_and_is_gone() {
    for version in [13, 15, 18] {
        let database = postgres(version).await;
        let writer = open_transaction(&database).await;
        let (mut connection, slot) = (open(&database).await, slot_name(&database));
        let within = Duration::from_millis(300);
        let created = connection.create_slot(&SlotSpec::new(&slot), within, pending()).await;
        let error = created.unwrap_err();
        assert!(matches!(error, Error::SlotTimeout { .. }), "{version}: {error}");
        assert_eq!(error.sqlstate(), Some("55P03"));
        assert_eq!(slot_count(&database, &slot).await, 0, "{version}");
        // The connection goes on, with the role's own lock_timeout, and can make the slot later.
        writer.batch_execute("rollback").await.unwrap();
        make_slot(&mut connection, &slot).await;
        let rows = connection.query("ask", "show lock_timeout").await.unwrap();
        assert_eq!(rows[0].first("lock_timeout"), Some("0"));
        connection.drop_slot(&slot).await.unwrap();
    }
}

#[tokio::test]
async fn a_cancelled_creation_leaves_no_slot() {
    for version in [13, 18] {
        let database = postgres(version).await;
        let writer = open_transaction(&database).await;
        let (mut connection, slot) = (open(&database).await, slot_name(&database));
        // Told to stop only when the slot is there, so that there is something to be left behind.
        let stop = wait_until(SOON, "the slot to appear", async || {
            (slot_count(&database, &slot).await == 1).then_some(())
        });
        let error = connection.create_slot(&SlotSpec::new(&slot), SOON, stop).await.unwrap_err();
        assert!(matches!(error, Error::SlotCancelled { .. }), "{version}: {error}");
        assert_eq!(slot_count(&database, &slot).await, 0, "{version}");
        connection.identify_system().await.unwrap();
        drop(writer);
    }
}

#[tokio::test]
async fn a_stop_that_comes_too_late_drops_the_slot_again() {
    let database = postgres(16).await;
    let slot = slot_name(&database);
    for _ in 0..20 {
        let mut connection = open(&database).await;
        // Nothing is waited for: creation takes milliseconds, and the stop comes in the middle.
        let stop = tokio::time::sleep(Duration::from_millis(fastrand::u64(0..8)));
        match connection.create_slot(&SlotSpec::new(&slot), SOON, stop).await {
            Ok(created) => connection.drop_slot(&created.name).await.unwrap(),
            Err(error) => assert!(matches!(error, Error::SlotCancelled { .. }), "{error}"),
        }
        assert_eq!(slot_count(&database, &slot).await, 0);
    }
}

#[tokio::test]
async fn slots_are_made_as_each_version_can() {
    for version in [14, 16, 17] {
        let database = postgres(version).await;
        let client = database.connect().await;
        let (mut connection, slot) = (open(&database).await, slot_name(&database));
        let spec = SlotSpec { failover: true, ..SlotSpec::new(&slot) };
        let created = connection.create_slot(&spec, SOON, pending()).await.unwrap();
        assert_eq!((created.name.as_str(), &created.snapshot), (slot.as_str(), &None));
        assert!(created.consistent_point > Lsn::ZERO);
        let sql =
            "select to_jsonb(s) ->> 'failover' from pg_replication_slots s where slot_name = $1";
        let failover: Option<String> = client.query_one(sql, &[&slot]).await.unwrap().get(0);
        assert_eq!(failover.as_deref(), (version >= 17).then_some("true"));
        let again = connection.create_slot(&spec, SOON, pending()).await.unwrap_err();
        assert_eq!(again.sqlstate(), Some("42710"), "{again}");
        connection.drop_slot(&slot).await.unwrap();
        let gone = connection.drop_slot(&slot).await.unwrap_err();
        assert_eq!(gone.sqlstate(), Some("42704"), "{gone}");

        let snapshot = postrider::replication::Snapshot::Export;
        let spec = SlotSpec { snapshot, temporary: true, ..SlotSpec::new(&slot) };
        let created = connection.create_slot(&spec, SOON, pending()).await.unwrap();
        let import = format!(
            "begin isolation level repeatable read read only; set transaction snapshot '{}'",
            created.snapshot.unwrap()
        );
        client.batch_execute(&import).await.unwrap();
    }
}
