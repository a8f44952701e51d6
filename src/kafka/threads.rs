//! Blocking calls of librdkafka, each on a thread of its own, awaited from a task.
//!
//! Every such call has a deadline of its own, so every such thread ends; nothing waits for a thread
//! whose caller has gone. tokio's own pool is left to others: a broker that hangs must not take its
//! threads away.

use std::thread::Builder;

use tokio::sync::oneshot;

use super::Failure;

/// Runs blocking work on a named thread. `doing` is for the error, should the thread die.
pub(super) async fn on_thread<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (send, receive) = oneshot::channel();
    let thread = Builder::new().name("kafka-call".to_owned());
    // If the receiver has gone, nobody is interested any more.
    let started = thread.spawn(move || drop(send.send(work())));
    if let Err(error) = started {
        tracing::warn!(%error, "a thread for {doing} did not start");
        return Err(Failure::thread(doing));
    }
    receive.await.unwrap_or_else(|_| Err(Failure::thread(doing)))
}
