//! `postrider run` and `postrider init` as an operator meets them, on real servers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use postrider::drill::cluster::{
    Access, PASSWORD, Postgres, PostgresOptions, RunDir, Services, Shutdown,
};
use rustix::process::Signal;

use crate::harness::{blocking, postgres};
use crate::shipped::{DEADLINE, Daemon, drill, folder, postrider, said};

fn run(url: &str) -> Command {
    let mut command = postrider(&["run", "--outbox.check_interval=100ms"]);
    command.env("POSTRIDER__POSTGRES__URL", url);
    command
}

fn apply(url: &str) -> (Option<i32>, String, String) {
    let mut command = postrider(&["init", "--apply"]);
    said(&command.env("POSTRIDER__POSTGRES__URL", url).output().unwrap())
}

#[tokio::test]
async fn a_typo_in_file_variable_and_flag_is_one_error_and_nothing_is_bound() {
    let (_keep, folder) = folder();
    let file = folder.join("postrider.toml");
    fs::write(&file, "[postgres]\nurl = 'postgres://u:hunter2@h/d'\n[outbox]\ntabel = 'x'\n")
        .unwrap();
    // Bound by us, so that a process that bound before it checked would say "in use" instead.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--admin.listen={}", taken.local_addr().unwrap());
    let mut command =
        postrider(&["run", "--config", file.to_str().unwrap(), &listen, "--prnt-config"]);
    command.env("POSTRIDER__POSTGRES__POOLSIZE", "3");
    let (code, out, errors) = said(&command.output().unwrap());
    assert_eq!((code, out.as_str()), (Some(2), ""), "{errors}");
    for words in [
        "3 problems",
        "outbox.tabel: unknown key, did you mean `outbox.table`?",
        "POSTRIDER__POSTGRES__POOLSIZE: unknown variable, did you mean POSTRIDER__POSTGRES__POOL_SIZE?",
        "--prnt-config: unknown argument, did you mean --print-config?",
    ] {
        assert!(errors.contains(words), "{words:?} is missing in: {errors}");
    }
    assert!(!errors.contains("hunter2") && !errors.contains("in use"), "{errors}");
}

#[tokio::test]
async fn a_url_in_the_wrong_place_shows_no_password() {
    let url = "postgres://u:hunter2@db.example.com/d";
    let flags = ["log.level", "log.format", "admin.listen", "outbox.table", "postgres.pool_wait"]
        .map(|key| format!("--{key}={url}"));
    let mut command = postrider(&["run"]);
    command.env("POSTRIDER__POSTGRES__URL", format!("jdbc:{url}?ssl=true")).args(&flags);
    let (code, out, errors) = said(&command.output().unwrap());
    assert_eq!((code, out.as_str()), (Some(2), ""), "{errors}");
    assert!(errors.contains("6 problems") && !errors.contains("hunter2"), "{errors}");
    for words in [&[url][..], &["run", url], &["init", url], &["init", "--url", url]] {
        let (code, out, errors) = said(&postrider(words).output().unwrap());
        assert_eq!(code, Some(2), "{errors}");
        assert!(!errors.contains("hunter2") && !out.contains("hunter2"), "{words:?}: {errors}");
    }
}

#[tokio::test]
async fn help_fits_eighty_columns() {
    let of_postrider = [&["--help"][..], &["run", "--help"], &["init", "--help"]].map(postrider);
    let of_drill = [
        &["--help"][..],
        &["-h"],
        &["services", "--help"],
        &["services", "fetch", "--help"],
        &["services", "list", "--help"],
        &["up", "--help"],
        &["load", "--help"],
        &["load", "-h"],
        &["check", "--help"],
        &["check", "-h"],
    ]
    .map(drill);
    for mut command in of_postrider.into_iter().chain(of_drill) {
        let (code, out, _) = said(&command.output().unwrap());
        assert_eq!(code, Some(0), "{command:?}");
        let wide: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{command:?}: {wide:?}");
    }
}

#[tokio::test]
async fn init_makes_the_outbox_and_run_finds_it() {
    let database = postgres(17).await;
    let mut daemon = Daemon::start(run(&database.url)).await;
    daemon.ready_says(503, "there is no table public.outbox: `postrider init --apply`").await;
    assert_eq!(daemon.get("/live").0, 200);

    let (code, out, errors) = apply(&database.url);
    assert_eq!((code, out.as_str()), (Some(0), "applied outbox.sql\n"), "{errors}");
    daemon.ready_says(200, "").await;
    let (_, again, _) = apply(&database.url);
    assert_eq!(again, "nothing to do: the outbox is in the database already\n");

    let client = database.connect().await;
    client.batch_execute("alter publication postrider drop table outbox").await.unwrap();
    daemon.ready_says(503, "no publication has the inserts of public.outbox").await;

    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    daemon.logged("everything finished").await;
}

#[tokio::test]
async fn init_makes_the_table_that_run_looks_for_or_says_why_not() {
    let database = postgres(17).await;
    let client = database.connect().await;
    // The role's search path leads elsewhere, which is what it is for.
    let setup = format!(
        "create schema app; create schema elsewhere; \
         alter database {} set search_path = elsewhere, public",
        database.name
    );
    client.batch_execute(&setup).await.unwrap();
    let apply_to = |table: &str| {
        let mut command = postrider(&["init", "--apply", &format!("--outbox.table={table}")]);
        said(&command.env("POSTRIDER__POSTGRES__URL", &database.url).output().unwrap())
    };
    let (code, _, errors) = apply_to("app.events");
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.contains("makes a table named outbox, and outbox.table is app.events"),
        "{errors}"
    );
    let (code, _, errors) = apply_to("nowhere.outbox");
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("no schema has been selected"), "{errors}");

    let (code, out, errors) = apply_to("app.outbox");
    assert_eq!((code, out.as_str()), (Some(0), "applied outbox.sql\n"), "{errors}");
    assert_eq!(client.query("select from app.outbox", &[]).await.unwrap().len(), 0);
    let (code, _, errors) = apply_to("public.outbox");
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("but there is no table public.outbox: it is in another"), "{errors}");
}

#[tokio::test]
async fn metrics_are_well_formed_and_documented() {
    let database = postgres(16).await;
    apply(&database.url);
    let daemon = Daemon::start(run(&database.url)).await;
    daemon.ready_says(200, "").await;
    let (status, text) = daemon.get("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("postrider_pool_connections{pool=\"relay\",state=\"idle\"} 1"), "{text}");
    let (_keep, folder) = folder();
    fs::write(folder.join("metrics"), &text).unwrap();
    let promtool = Services::find().unwrap().program("promtool").unwrap();
    let judged = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(fs::File::open(folder.join("metrics")).unwrap())
        .output()
        .unwrap();
    assert!(judged.status.success(), "{:?}", said(&judged));
}

#[tokio::test]
async fn a_lost_database_is_not_ready_and_comes_back_without_a_restart() {
    let run_dir = RunDir::create().unwrap();
    let server =
        blocking(move || Postgres::start(&run_dir, PostgresOptions::version(14)).unwrap()).await;
    let url = server.url("postgres");
    apply(&url);
    let mut daemon = Daemon::start(run(&url)).await;
    daemon.ready_says(200, "").await;
    let server = blocking(move || {
        server.stop(Shutdown::Immediate).unwrap();
        server
    })
    .await;
    daemon.ready_says(503, "postgres").await;
    let server = blocking(move || {
        server.start_again(&[]).unwrap();
        server
    })
    .await;
    daemon.ready_says(200, "").await;
    // Frozen is worse than gone: nobody refuses. Stopping must not wait for the server either.
    blocking(move || {
        server.freeze().unwrap();
        server
    })
    .await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
}

#[tokio::test]
async fn a_taken_port_is_named_and_ends_with_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = postrider(&["run", &format!("--admin.listen={address}")]);
    command.env("POSTRIDER__POSTGRES__URL", "postgres://u@127.0.0.1:1/d");
    let (code, _, errors) = said(&command.output().unwrap());
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains(&address) && errors.contains("admin.listen"), "{errors}");
}

#[tokio::test]
async fn hangup_reads_a_new_password() {
    let run_dir = RunDir::create().unwrap();
    let server = blocking(move || {
        let options = PostgresOptions { access: Access::Scram, ..PostgresOptions::version(15) };
        Postgres::start(&run_dir, options).unwrap()
    })
    .await;
    let (_keep, folder) = folder();
    let file = folder.join("password");
    fs::write(&file, "not the password\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", server.port());
    let mut command = run(&url);
    command.env("POSTRIDER__POSTGRES__PASSWORD_FILE", &file);
    let daemon = Daemon::start(command).await;
    daemon.ready_says(503, "password").await;
    assert!(!daemon.log().contains("not the password"), "{}", daemon.log());

    fs::write(&file, PASSWORD).unwrap();
    daemon.signal(Signal::HUP);
    daemon.logged("SIGHUP: reloaded postgres certificates and passwords").await;
    daemon.ready_says(503, "there is no table").await;
    let metrics = daemon.get("/metrics").1;
    let counted =
        metrics.lines().any(|line| line.contains("outcome=\"ok\"") && line.ends_with(" 1"));
    assert!(counted, "{metrics}");
}

#[tokio::test]
async fn systemd_hears_of_start_and_stop() {
    let (_keep, folder) = folder();
    let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = run("postgres://u@127.0.0.1:1/d");
    command.env("NOTIFY_SOCKET", folder.join("notify"));
    let mut daemon = Daemon::start(command).await;
    let heard = blocking(move || {
        let mut heard = String::new();
        let mut buffer = [0; 4096];
        while !heard.contains("READY=1") {
            let length = socket.recv(&mut buffer).unwrap();
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        (heard, socket)
    });
    let (_, socket) = tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let mut buffer = [0; 4096];
    let mut heard = String::new();
    while !heard.contains("STOPPING=1") {
        let length = socket.recv(&mut buffer).unwrap();
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

#[tokio::test]
async fn init_prints_every_part_and_applies_only_the_table() {
    for (part, words) in [
        ("table", "create table if not exists outbox"),
        ("partitioned", "partition by"),
        ("adopt-debezium", "alter table outboxevent"),
        ("roles", "create role outbox_writer"),
        ("server", "max_slot_wal_keep_size"),
    ] {
        let (code, out, errors) = said(&postrider(&["init", part]).output().unwrap());
        assert_eq!(code, Some(0), "{errors}");
        assert!(out.contains(words), "{part}: {out}");
    }
    let mut command = postrider(&["init", "roles", "--apply"]);
    command.env("POSTRIDER__POSTGRES__URL", "postgres://u@127.0.0.1:1/d");
    let (code, _, errors) = said(&command.output().unwrap());
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("applies the table alone"), "{errors}");
    let (code, _, errors) = apply("postgres://u@127.0.0.1:1/d");
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("127.0.0.1:1"), "{errors}");
}
