//! A panic is logged once, with its place, and told to whoever has to end the process.
//!
//! The hook sees panics on every thread: tasks, blocking closures, and threads of ours that no
//! task set knows. Nothing here ends the process; `daemon` watches [`follow`] and does.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::sync::{LazyLock, Once};
use std::thread;

use tokio::sync::watch;

/// The first panic of the process; later ones are only logged.
static FIRST: LazyLock<watch::Sender<Option<Panic>>> = LazyLock::new(|| watch::Sender::new(None));

/// Where a panic happened. Its message is in the log, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// The thread's name, the runtime's for a task.
    pub thread: String,
    /// `file:line:column`.
    pub place: String,
}

/// Installs the hook in place of the standard one, which would write past the log's format.
/// A second call changes nothing.
pub fn log_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let standard = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if cfg!(test) {
                // The test harness prints a failed test by way of the standard hook.
                standard(info);
            }
            let panic = Panic {
                thread: thread::current().name().unwrap_or("unnamed").to_owned(),
                place: info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string),
            };
            record(&panic, message(info.payload()), &Backtrace::capture());
            FIRST.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(panic);
                is_first
            });
        }));
    });
}

/// Follows the first panic of this process; holds it already if there was one.
pub fn follow() -> watch::Receiver<Option<Panic>> {
    FIRST.subscribe()
}

/// The text of a panic's payload.
pub fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}

fn record(panic: &Panic, message: &str, backtrace: &Backtrace) {
    let Panic { thread, place } = panic;
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(%place, %thread, %backtrace, "panic: {message}");
    } else {
        // RUST_BACKTRACE is how one asks for more; it costs too much to be always on.
        tracing::error!(%place, %thread, "panic: {message}");
    }
}
