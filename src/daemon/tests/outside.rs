//! What others see of a life: its ports, systemd's socket, its configuration.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixDatagram};

use super::*;

#[tokio::test]
async fn a_role_that_cannot_be_built_binds_and_starts_nothing() {
    let mut world = World::new();
    // Had it bound before it built, the taken port would have been what it ended with.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.config.admin.listen = taken.local_addr().ok();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("publish", |_| async { panic!("started") });
            Err(Failure::configuration("postgres.root_cert: not a certificate"))
        })
        .await;
    assert_eq!(exit, Exit::Usage);
    world.ended("bad configuration: postgres.root_cert: not a certificate (exit 2)");
}

#[tokio::test]
async fn a_taken_port_ends_the_start_with_the_way_out() {
    let mut world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.config.admin.listen = taken.local_addr().ok();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("publish", |_| async { panic!("started") });
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Failed);
    assert!(world.said("failed: admin.listen: cannot listen on 127.0.0.1:"));
    world.ended("or set admin.listen to another one (exit 1)");
}

#[tokio::test]
async fn the_endpoints_live_from_the_start_to_the_end_of_the_drain() {
    let mut world = World::new();
    world.config.admin.listen = Some(([127, 0, 0, 1], 0).into());
    let (log, (keep, kept)) = (world.log.clone(), tokio::sync::oneshot::channel());
    let sender = world.signal.clone();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            let postgres = assembly.readiness.condition("postgres", "connecting");
            assembly.tasks.work("publish", |stop| async move {
                // The log says which port it became.
                let text = log.text();
                let (_, rest) = text.split_once("admin endpoints on http://").unwrap();
                let at: SocketAddr = rest.split_once(": ").unwrap().0.parse().unwrap();
                keep.send(TcpStream::connect(at).await.unwrap()).unwrap();
                assert!(get(at, "/ready").await.ends_with("\npostgres: connecting\n"));
                postgres.ready();
                assert!(get(at, "/ready").await.starts_with("HTTP/1.1 200 "));
                sender.send(Signal::Terminate).await.unwrap();
                stop.cancelled().await;
                assert!(get(at, "/ready").await.ends_with("\ndaemon: stopping (SIGTERM)\n"));
                assert!(get(at, "/live").await.starts_with("HTTP/1.1 200 "));
                assert!(get(at, "/metrics").await.contains("\npostrider_ready 0\n"));
                Ok(())
            });
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Clean, "{}", world.log.text());
    // An idle connection is closed with the process, not left to time out.
    assert_eq!(kept.await.unwrap().read(&mut [0]).await.unwrap(), 0);
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn systemd_hears_of_every_step_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let heard = UnixDatagram::bind(&path).unwrap();
    let mut world = World::new();
    world.systemd = Systemd::connect(path.as_os_str(), Some(Duration::from_millis(20))).unwrap();
    let sender = world.signal.clone();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            let postgres = assembly.readiness.condition("postgres", "connection refused");
            let reloads = AtomicUsize::new(0);
            assembly.reloads.add("certificates", move || {
                let first = reloads.fetch_add(1, Ordering::Relaxed) == 0;
                async move { if first { Ok(()) } else { std::future::pending().await } }
            });
            assembly.tasks.work("publish", |stop| async move {
                // Started, though not ready, and the status line says why.
                assert_eq!(hear(&heard, "READY").await, "READY=1");
                let status = hear(&heard, "STATUS=not ready").await;
                assert!(status.ends_with("postgres: connection refused"), "{status}");
                postgres.ready();
                hear(&heard, "STATUS=ready").await;
                assert_eq!(hear(&heard, "WATCHDOG").await, "WATCHDOG=1");
                assert_eq!(hear(&heard, "WATCHDOG").await, "WATCHDOG=1");
                sender.send(Signal::Hangup).await.unwrap();
                let reloading = hear(&heard, "RELOADING").await;
                let stamp = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
                assert!(stamp.parse::<u64>().unwrap() > 0);
                assert_eq!(hear(&heard, "READY").await, "READY=1");
                // A reload that hangs is cut by the stop: no READY=1 follows STOPPING=1.
                sender.send(Signal::Hangup).await.unwrap();
                hear(&heard, "RELOADING").await;
                sender.send(Signal::Terminate).await.unwrap();
                let stopping = hear(&heard, "STOPPING").await;
                assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=13000000");
                stop.cancelled().await;
                // Still fed while draining, or systemd would kill a slow drain.
                assert_eq!(hear(&heard, "WATCHDOG").await, "WATCHDOG=1");
                Ok(())
            });
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Clean, "{}", world.log.text());
}

/// The next message that begins with `wanted`; any step that is out of order in between fails.
async fn hear(socket: &UnixDatagram, wanted: &str) -> String {
    loop {
        let mut bytes = [0; 600];
        let length = timeout(10 * SECOND, socket.recv(&mut bytes)).await.expect(wanted).unwrap();
        let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
        if message.starts_with(wanted) {
            return message;
        }
        let periodic = message.starts_with("WATCHDOG=1") || message.starts_with("STATUS=");
        assert!(periodic, "{message:?} before {wanted:?}");
    }
}

#[test]
fn the_defaults_are_those_of_the_keys_and_every_problem_is_named_at_once() {
    use crate::config::{Sources, load};
    let empty = load::<ProcessConfig>(Sources::new("POSTRIDER")).unwrap();
    assert_eq!(empty.settings, ProcessConfig::default());
    let toml = "[log]\nlevel = \"inof\"\nformat = \"xml\"\n[admin]\nlisten = \"localhost:80\"\n\
                [daemon]\ndrain_timeout = \"2h\"\n";
    let refused = load::<ProcessConfig>(Sources::new("POSTRIDER").toml("relay.toml", toml));
    let problems = refused.unwrap_err().to_string();
    for part in [
        "log.level: \"inof\", must be off, error, warn, info, debug or trace",
        "must be one of auto, human, json",
        "admin.listen: \"localhost:80\", must be ip:port like 127.0.0.1:9464",
        "from 0s to 1h",
    ] {
        assert!(problems.contains(part), "{part} is missing in\n{problems}");
    }
    let off = "[admin]\nlisten = \"off\"\n[log]\nformat = \"json\"\nlevel = \"warn,rdkafka=off\"\n";
    let loaded = load::<ProcessConfig>(Sources::new("POSTRIDER").toml("relay.toml", off)).unwrap();
    assert_eq!(loaded.settings.admin.listen, None);
    assert_eq!(loaded.settings.log.format, crate::observe::LogFormat::Json);
}
