//! Standbys: a promoted one has every replayed row on a new timeline; failover slots arrive.

use std::time::Duration;

use postrider::drill::cluster::{
    POSTGRES_VERSIONS, Postgres, PostgresOptions, RunDir, StandbyOptions, wait_until,
};

use crate::harness::blocking;

const DEADLINE: Duration = Duration::from_secs(60);

fn primary(version: u16) -> Postgres {
    let run = RunDir::create().unwrap();
    let primary = Postgres::start(&run, PostgresOptions::version(version)).unwrap();
    primary.sql("postgres", "create table t (n int); insert into t values (1)").unwrap();
    primary
}

fn timeline(server: &Postgres) -> String {
    let question = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    server.ask("postgres", question).unwrap()
}

fn promoted_standby(version: u16) {
    let primary = primary(version);
    let standby = primary.standby(StandbyOptions::default()).unwrap();
    assert_eq!(standby.ask("postgres", "select pg_is_in_recovery()").unwrap(), "t");
    assert_eq!(timeline(&primary), "00000001");
    primary.sql("postgres", "insert into t select generate_series(2, 1000)").unwrap();
    standby.wait_replayed(&primary.wal_position().unwrap(), DEADLINE).unwrap();

    primary.kill().unwrap();
    standby.promote().unwrap();
    assert_eq!(timeline(&standby), "00000002");
    let count = standby.ask("postgres", "select count(*) from t").unwrap();
    assert_eq!(count, "1000");
    standby.sql("postgres", "insert into t values (1001)").unwrap();
}

#[tokio::test]
async fn a_promoted_standby_has_every_row_on_timeline_2() {
    for version in POSTGRES_VERSIONS {
        blocking(move || promoted_standby(version)).await;
    }
}

fn failover_slot(version: u16) {
    let primary = primary(version);
    let options = StandbyOptions { failover_slots: true, ..StandbyOptions::default() };
    let standby = primary.standby(options).unwrap();
    primary.sql("postgres", "create publication p for table t with (publish = 'insert')").unwrap();
    let slot = "select pg_create_logical_replication_slot('relay', 'pgoutput', false, false, true)";
    primary.sql("postgres", slot).unwrap();
    let consume = "select count(*) from pg_logical_slot_get_binary_changes('relay', null, null,
         'proto_version', '1', 'publication_names', 'p')";
    let synced = "select synced and not temporary and invalidation_reason is null
         from pg_replication_slots where slot_name = 'relay'";
    // The copy is kept once the slot on the primary has moved past what the standby holds.
    wait_until(DEADLINE, "the slot to be synchronised", || {
        primary.sql("postgres", "insert into t values (2); select pg_log_standby_snapshot()")?;
        primary.sql("postgres", consume)?;
        let rows = standby.sql("postgres", synced)?;
        Ok((rows == [[Some("t".to_owned())]]).then_some(()))
    })
    .unwrap();
    let waits_for = primary.ask("postgres", "show synchronized_standby_slots").unwrap();
    assert_eq!(waits_for, "standby");

    primary.sql("postgres", "insert into t values (1001)").unwrap();
    standby.wait_replayed(&primary.wal_position().unwrap(), DEADLINE).unwrap();
    primary.kill().unwrap();
    standby.promote().unwrap();
    standby.sql("postgres", "insert into t values (1002)").unwrap();
    let changes: u32 = standby.ask("postgres", consume).unwrap().parse().unwrap();
    assert!(changes >= 2 * 3, "two transactions of begin, insert and commit: {changes}");
}

#[tokio::test]
async fn failover_slots_reach_the_standby_on_17() {
    blocking(|| failover_slot(17)).await;
}

#[tokio::test]
async fn failover_slots_reach_the_standby_on_18() {
    blocking(|| failover_slot(18)).await;
}

#[tokio::test]
async fn failover_slots_are_refused_before_17() {
    blocking(|| {
        let options = StandbyOptions { failover_slots: true, ..StandbyOptions::default() };
        let refused = primary(16).standby(options).unwrap_err().to_string();
        assert!(refused.contains("17 or newer"), "{refused}");
    })
    .await;
}
