//! The whole life, with signals, panics and time in the test's hand. No process is signalled.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::observe::log::tests::{Buffer, capture};

/// A process in this process.
struct World {
    config: ProcessConfig,
    signal: mpsc::Sender<Signal>,
    signals: mpsc::Receiver<Signal>,
    panic: watch::Sender<Option<Panic>>,
    systemd: Systemd,
    log: Buffer,
    _capture: DefaultGuard,
}

impl World {
    /// Eight seconds to drain, no endpoints.
    fn new() -> Self {
        let config =
            ProcessConfig { admin: AdminConfig { listen: None }, ..ProcessConfig::default() };
        let (signal, signals) = mpsc::channel(8);
        let (log, capture) = capture();
        let (panic, systemd) = (watch::Sender::new(None), Systemd::default());
        Self { config, signal, signals, panic, systemd, log, _capture: capture }
    }

    async fn live<B>(&mut self, build: B) -> Exit
    where
        B: AsyncFnOnce(&mut Assembly) -> Result<(), Failure>,
    {
        let (_, nothing) = mpsc::channel(1);
        let surroundings = Surroundings {
            signals: std::mem::replace(&mut self.signals, nothing),
            systemd: self.systemd.clone(),
            panics: self.panic.subscribe(),
        };
        live("relay", &self.config, surroundings, build).await
    }

    fn said(&self, words: &str) -> bool {
        self.log.text().contains(words)
    }

    /// The last line must end so.
    fn ended(&self, words: &str) {
        let text = self.log.text();
        assert!(text.trim_end().ends_with(words), "the last line is not {words:?}:\n{text}");
    }
}

/// Work that needs `drain` to finish.
fn steady(drain: Duration) -> impl FnOnce(CancellationToken) -> Work {
    move |stop| {
        Box::pin(async move {
            stop.cancelled().await;
            sleep(drain).await;
            Ok(())
        })
    }
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_signal_drains_and_says_what_was_finished() {
    for signal in [Signal::Terminate, Signal::Interrupt] {
        let mut world = World::new();
        let sender = world.signal.clone();
        let exit = world
            .live(async |assembly: &mut Assembly| {
                assembly.tasks.work("publish", steady(3 * SECOND));
                let readiness = assembly.readiness.clone();
                assembly.tasks.work("poll", |stop| async move {
                    assert!(readiness.is_ready());
                    sender.send(signal).await.unwrap();
                    stop.cancelled().await;
                    let objection = readiness.objections()[0].to_string();
                    assert_eq!(objection, format!("daemon: stopping, because of {signal}"));
                    Ok(())
                });
                Ok(())
            })
            .await;
        assert_eq!(exit, Exit::Clean);
        assert!(world.said("finished: poll, publish"));
        world.ended(&format!("ended: {signal}; everything finished in 3000 ms (exit 0)"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_during_the_build_ends_the_start() {
    let mut world = World::new();
    let sender = world.signal.clone();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("publish", |_| async { panic!("started") });
            sender.send(Signal::Hangup).await.unwrap();
            sender.send(Signal::Terminate).await.unwrap();
            std::future::pending().await
        })
        .await;
    assert_eq!(exit, Exit::Clean);
    assert!(world.said("SIGHUP: everything is being read just now"));
    world.ended("ended: SIGTERM before the start was complete (exit 0)");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_ends_and_names_the_task() {
    let began = Instant::now();
    let mut world = World::new();
    let sender = world.signal.clone();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("publish", steady(60 * SECOND));
            assembly.tasks.work("poll", |stop| async move {
                sender.send(Signal::Terminate).await.unwrap();
                // Supervisors repeat SIGTERM; that must not shorten the drain.
                sender.send(Signal::Terminate).await.unwrap();
                steady(SECOND)(stop).await
            });
            Ok(())
        })
        .await;
    assert_eq!((exit, began.elapsed()), (Exit::Failed, 8 * SECOND));
    assert!(world.said("SIGTERM again: still draining, for at most 8.0s"));
    assert!(world.said("finished: poll") && world.said("not finished within 8s: publish"));
    world.ended("failed: SIGTERM; not everything finished (exit 1)");
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_while_draining_leaves_at_once() {
    for first in [Signal::Terminate, Signal::Interrupt] {
        let mut world = World::new();
        let sender = world.signal.clone();
        let began = Instant::now();
        let exit = world
            .live(async |assembly: &mut Assembly| {
                assembly.tasks.work("publish", |stop| async move {
                    sender.send(first).await.unwrap();
                    sender.send(Signal::Interrupt).await.unwrap();
                    steady(SECOND)(stop).await
                });
                Ok(())
            })
            .await;
        assert_eq!((exit, began.elapsed()), (Exit::Failed, Duration::ZERO));
        assert!(world.said("abandoned at a second SIGINT: publish"));
        world.ended("not everything finished (exit 1)");
    }
}

#[tokio::test(start_paused = true)]
async fn a_support_task_that_ends_is_an_error_with_its_name() {
    let mut world = World::new();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("publish", steady(SECOND));
            assembly.tasks.support("sampler", async { Err(Failure::restart("no more samples")) });
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Failed);
    assert!(world.said("task `sampler` failed: stopping; work has 8s to finish"));
    assert!(world.said("finished: publish"));
    world.ended("failed: task `sampler`: no more samples (exit 1)");
}

#[tokio::test(start_paused = true)]
async fn work_that_stops_for_an_operator_ends_with_what_to_do() {
    let mut world = World::new();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("relay", |_| async {
                Err(Failure::stop("slot `postrider` is gone", "run `postrider recover`"))
            });
            assembly.tasks.work("poll", steady(SECOND));
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Stopped);
    world.ended(
        "stopped to protect data: task `relay`: slot `postrider` is gone (exit 3). What to do: \
         run `postrider recover`",
    );
}

#[tokio::test(start_paused = true)]
async fn a_role_whose_work_is_done_ends_cleanly() {
    let mut world = World::new();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.support("sampler", std::future::pending());
            assembly.tasks.work("first", |_| async { Ok(()) });
            assembly.tasks.work("second", |_| async {
                sleep(SECOND).await;
                Ok(())
            });
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Clean);
    assert!(world.said("task `first` has finished"));
    world.ended("ended: all work is done; everything finished in 0 ms (exit 0)");
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_process_without_a_drain() {
    for in_support in [false, true] {
        let mut world = World::new();
        let began = Instant::now();
        let exit = world
            .live(async |assembly: &mut Assembly| {
                assembly.tasks.work("publish", steady(SECOND));
                if in_support {
                    assembly.tasks.support("buggy", async { panic!("planted {}", 7) });
                } else {
                    assembly.tasks.work("buggy", |_| async { panic!("planted {}", 7) });
                }
                Ok(())
            })
            .await;
        assert_eq!((exit, began.elapsed()), (Exit::Failed, Duration::ZERO));
        assert!(world.said("abandoned after the panic: publish"));
        world.ended("failed: task `buggy` panicked: planted 7 (exit 1)");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_outside_the_tasks_ends_the_process_too() {
    let mut world = World::new();
    let hook = world.panic.clone();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("publish", |stop| async move {
                let panic = Panic { thread: "kafka-poll".into(), place: "src/x.rs:1:2".into() };
                hook.send(Some(panic)).unwrap();
                steady(SECOND)(stop).await
            });
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Failed);
    world.ended("failed: a panic at src/x.rs:1:2 in thread `kafka-poll`, logged above (exit 1)");
}

#[tokio::test(start_paused = true)]
async fn hangup_reloads_what_it_can_and_never_ends_the_process() {
    let mut world = World::new();
    let sender = world.signal.clone();
    let passwords = Arc::new(AtomicUsize::new(0));
    let (read, counted) = (Arc::clone(&passwords), Arc::clone(&passwords));
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.reloads.add("certificates", || async { Err("no such file".into()) });
            assembly.reloads.add("passwords", move || {
                read.fetch_add(1, Ordering::Relaxed);
                async {
                    sleep(SECOND).await;
                    Ok(())
                }
            });
            assembly.reloads.add("mount", std::future::pending);
            let metrics = Arc::clone(&assembly.metrics);
            assembly.tasks.work("publish", |stop| async move {
                let text = metrics.text();
                assert!(text.contains("{outcome=\"ok\",what=\"passwords\"} 0"), "{text}");
                sender.send(Signal::Hangup).await.unwrap();
                sleep(SECOND / 2).await;
                // Twice more while the first reload runs: one more reload, after it.
                sender.send(Signal::Hangup).await.unwrap();
                sender.send(Signal::Hangup).await.unwrap();
                sleep(60 * SECOND).await;
                assert!(!stop.is_cancelled());
                let text = metrics.text();
                assert!(text.contains("{outcome=\"ok\",what=\"passwords\"} 2"), "{text}");
                assert!(text.contains("{outcome=\"failed\",what=\"certificates\"} 2"), "{text}");
                Ok(())
            });
            Ok(())
        })
        .await;
    assert_eq!((exit, counted.load(Ordering::Relaxed)), (Exit::Clean, 2), "{}", world.log.text());
    assert!(world.said("SIGHUP: reloaded passwords"));
    assert!(
        world.said("SIGHUP: certificates not reloaded, the old value stays in use: no such file")
    );
    assert!(world.said("SIGHUP: mount not reloaded, the old value stays in use: took longer"));
}

#[tokio::test]
async fn a_role_that_cannot_be_built_binds_and_starts_nothing() {
    let mut world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.config.admin.listen = Some(free);
    let exit = world
        .live(async |assembly: &mut Assembly| {
            assembly.tasks.work("publish", |_| async { panic!("started") });
            assert!(TcpStream::connect(free).await.is_err(), "bound before all was built");
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
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.config.admin.listen = Some(free);
    let sender = world.signal.clone();
    let exit = world
        .live(async |assembly: &mut Assembly| {
            let postgres = assembly.readiness.condition("postgres", "connecting");
            assembly.tasks.work("publish", |stop| async move {
                assert!(get(free, "/ready").await.ends_with("\npostgres: connecting\n"));
                postgres.ready();
                assert!(get(free, "/ready").await.starts_with("HTTP/1.1 200 "));
                sender.send(Signal::Terminate).await.unwrap();
                stop.cancelled().await;
                assert!(get(free, "/ready").await.ends_with("stopping, because of SIGTERM\n"));
                assert!(get(free, "/live").await.starts_with("HTTP/1.1 200 "));
                assert!(get(free, "/metrics").await.contains("\npostrider_ready 0\n"));
                Ok(())
            });
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Clean, "{}", world.log.text());
    assert!(world.said(&format!("admin endpoints on http://{free}: /live /ready /metrics")));
    assert!(TcpStream::connect(free).await.is_err());
}

async fn get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let heard = tokio::net::UnixDatagram::bind(&path).unwrap();
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
async fn hear(socket: &tokio::net::UnixDatagram, wanted: &str) -> String {
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
        "`inof` is not a level: expected off, error",
        "must be one of auto, human, json",
        "`localhost:80` is not an address to listen on",
        "from 0s to 1h",
    ] {
        assert!(problems.contains(part), "{part} is missing in\n{problems}");
    }
    let off = "[admin]\nlisten = \"off\"\n[log]\nformat = \"json\"\nlevel = \"warn,rdkafka=off\"\n";
    let loaded = load::<ProcessConfig>(Sources::new("POSTRIDER").toml("relay.toml", off)).unwrap();
    assert_eq!(loaded.settings.admin.listen, None);
    assert_eq!(loaded.settings.log.format, crate::observe::LogFormat::Json);
}
