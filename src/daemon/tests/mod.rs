//! The whole life, with signals, panics and time in the test's hand. No process is signalled.

mod outside;

use std::sync::atomic::{AtomicUsize, Ordering};

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
                    assert_eq!(objection, format!("daemon: stopping ({signal})"));
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
    assert!(world.said("stopping (task `sampler` failed): work has 8s to finish"));
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
