//! The pool's bounds, and that it hands out nothing broken.

use std::time::{Duration, Instant};

use postrider::postgres::{
    Connector, Environment, Pool, PoolError, PoolOptions, PoolStatus, SessionLimits, Settings,
};

use crate::harness::{Database, postgres};

fn pool(database: &Database, size: usize, limits: SessionLimits) -> Pool {
    let settings = Settings::parse(&database.url, &Environment::empty()).unwrap();
    let connector = Connector::new(settings, limits, None).unwrap();
    Pool::new("test", connector, PoolOptions { size, wait: Duration::from_millis(200) })
}

async fn backend(client: &tokio_postgres::Client) -> i32 {
    client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn its_size_is_a_bound_and_so_is_its_patience() {
    let database = postgres(17).await;
    let pool = pool(&database, 2, SessionLimits::default());
    assert_eq!(pool.status(), PoolStatus { max: 2, idle: 0, in_use: 0, waiting: 0 });
    let (first, second) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!(pool.status(), PoolStatus { max: 2, idle: 0, in_use: 2, waiting: 0 });

    let started = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, PoolError::Exhausted { size: 2, .. }), "{error}");
    assert!(error.to_string().contains("all 2 connections of pool test stayed in use"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));

    let pid = backend(&second).await;
    drop(second);
    assert_eq!(pool.status(), PoolStatus { max: 2, idle: 1, in_use: 1, waiting: 0 });
    assert_eq!(backend(&pool.get().await.unwrap()).await, pid, "an idle connection is used again");
    drop(first);
}

#[tokio::test]
async fn what_a_user_left_in_a_transaction_is_not_handed_on() {
    let database = postgres(17).await;
    let pool = pool(&database, 1, SessionLimits::default());
    for left in ["begin", "begin; select 1 / 0"] {
        let dirty = pool.get().await.unwrap();
        let pid = backend(&dirty).await;
        // The second one fails by intent: an aborted transaction is left, too.
        dirty.batch_execute(left).await.ok();
        drop(dirty);
        let clean = pool.get().await.unwrap();
        assert_ne!(backend(&clean).await, pid, "{left}");
        clean.batch_execute("select 1").await.unwrap();
    }
}

#[tokio::test]
async fn a_dead_connection_is_replaced() {
    let database = postgres(17).await;
    let pool = pool(&database, 1, SessionLimits::default());
    let client = pool.get().await.unwrap();
    let pid = backend(&client).await;
    drop(client);
    let admin = database.connect().await;
    let killed = admin.query_one("select pg_terminate_backend($1, 5000)", &[&pid]).await;
    assert!(killed.unwrap().get::<_, bool>(0));
    assert_ne!(backend(&pool.get().await.unwrap()).await, pid);
    assert_eq!(pool.status().in_use + pool.status().idle, 1);
}

#[tokio::test]
async fn limits_hold_on_the_server() {
    let database = postgres(13).await;
    let limits = SessionLimits {
        statement_timeout: Some(Duration::from_millis(50)),
        lock_timeout: Some(Duration::from_secs(2)),
        idle_in_transaction_timeout: Some(Duration::from_secs(3)),
    };
    let pool = pool(&database, 1, limits);
    let client = pool.get().await.unwrap();
    let error = client.batch_execute("select pg_sleep(10)").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
    for (name, value) in [("lock_timeout", "2s"), ("idle_in_transaction_session_timeout", "3s")] {
        let row = client.query_one("select current_setting($1)", &[&name]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value);
    }
}

#[tokio::test]
async fn a_closed_pool_leaves_no_connection_behind() {
    let database = postgres(17).await;
    let pool = pool(&database, 2, SessionLimits::default());
    let (idle, busy) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(idle);
    assert_eq!(pool.close(Duration::from_millis(100)).await, 1, "one was in use and is cut");
    assert!(busy.batch_execute("select 1").await.is_err());
    assert!(matches!(pool.get().await, Err(PoolError::Closed { pool: "test" })));
    drop(busy);

    let admin = database.connect().await;
    let left = "select count(*) from pg_stat_activity where datname = current_database() \
                and pid <> pg_backend_pid()";
    let gone =
        async || (admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(());
    crate::harness::wait_until(Duration::from_secs(10), "the backends to end", gone).await;
}

#[tokio::test]
async fn a_connection_that_is_being_made_does_not_outlive_the_pool() {
    let database = postgres(17).await;
    // Holds the server's words back until it is told otherwise.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let upstream = database.server.port();
    let text = database.url.replace(&format!(":{upstream}/"), &format!(":{port}/"));
    let settings = Settings::parse(&text, &Environment::empty()).unwrap();
    let connector = Connector::new(settings, SessionLimits::default(), None).unwrap();
    let options = PoolOptions { size: 1, wait: Duration::from_secs(1) };
    let pool = Pool::new("test", connector, options);
    let holding = async {
        let (mut client, _) = listener.accept().await.unwrap();
        assert_eq!(pool.close(Duration::from_secs(1)).await, 0, "nothing is there to be cut");
        let mut server = tokio::net::TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
    };
    let getting = async { pool.get().await.is_ok() };
    let (got, ()) = tokio::join!(getting, holding);
    assert!(!got, "a closed pool gave a connection out");
}
