//! The only place that starts tasks: two named sets, and tasks that belong to a value.
//!
//! *Work* is what the role is there for: each task gets a token, finishes what it has begun when
//! the token is cancelled, and ends with `Ok`. *Support* (endpoints, watchdog, samplers) runs for
//! as long as the process does: its result type has no value but an error, so a support task that
//! ends is an error by its type. [`spawn_owned`] is for what comes and goes with an object, like
//! the driver of one connection. No task is detached.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::Failure;
use crate::observe::panics;

/// A task's name, as the log and the operator see it.
pub(super) type Name = Cow<'static, str>;

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// The tasks of a role. Added while the role is built, started together, after everything is bound.
#[derive(Debug)]
pub struct Tasks {
    stop: CancellationToken,
    work: Set<()>,
    support: Set<Infallible>,
}

/// How one task ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// A work task that returned `Ok`.
    Finished(Name),
    /// A task of either set that returned an error.
    Failed(Name, Failure),
    /// A bug; the text is the panic's.
    Panicked(Name, String),
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self { stop: CancellationToken::new(), work: Set::new(), support: Set::new() }
    }

    /// Adds a task that is drained: once its token is cancelled it has `daemon.drain_timeout` to
    /// finish and return `Ok`. One that returns `Ok` earlier has done its work, and when no work
    /// is left the process ends cleanly; one that fails drains the others.
    pub fn work<F>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        task: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.work.add(name.into(), task(self.stop.child_token()));
    }

    /// Adds a task that runs until the process ends, also while work drains; then it is dropped
    /// wherever it waits.
    pub fn support(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        task: impl Future<Output = Result<Infallible, Failure>> + Send + 'static,
    ) {
        self.support.add(name.into(), task);
    }

    pub(super) fn start(&mut self) {
        // Support first, so that the endpoints answer from the first moment of the work.
        self.support.start();
        self.work.start();
    }

    /// Asks all work to finish.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// The next task to end; pending when none runs. Cancel safety: nothing is lost.
    pub(super) async fn next(&mut self) -> Ended {
        tokio::select! {
            biased;
            (name, ended) = self.work.next() => match ended {
                Ok(Ok(())) => Ended::Finished(name),
                Ok(Err(failure)) => Ended::Failed(name, failure),
                Err(error) => panicked(name, error),
            },
            (name, ended) = self.support.next() => match ended {
                Ok(Ok(never)) => match never {},
                Ok(Err(failure)) => Ended::Failed(name, failure),
                Err(error) => panicked(name, error),
            },
        }
    }

    /// Drops every task that still runs, and returns when all are gone.
    pub(super) async fn abort(&mut self) {
        // What they return or how they panic now changes nothing any more.
        tokio::join!(self.work.running.shutdown(), self.support.running.shutdown());
    }

    /// The work that still runs, by name.
    pub(super) fn unfinished(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.work.names.values().cloned().collect();
        names.sort();
        names
    }
}

fn panicked(name: Name, error: JoinError) -> Ended {
    // Nobody aborts a task of ours, so there is no other kind; and if there were, it would be as
    // unexpected as a panic.
    let text = match error.try_into_panic() {
        Ok(payload) => panics::message(payload.as_ref()).to_owned(),
        Err(cancelled) => cancelled.to_string(),
    };
    Ended::Panicked(name, text)
}

struct Set<T> {
    waiting: Vec<(Name, Boxed<T>)>,
    running: JoinSet<Result<T, Failure>>,
    names: HashMap<Id, Name>,
}

impl<T> fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting.iter().map(|(name, _)| name);
        f.debug_set().entries(waiting.chain(self.names.values())).finish()
    }
}

impl<T: Send + 'static> Set<T> {
    fn new() -> Self {
        Self { waiting: Vec::new(), running: JoinSet::new(), names: HashMap::new() }
    }

    fn add(&mut self, name: Name, task: impl Future<Output = Result<T, Failure>> + Send + 'static) {
        self.waiting.push((name, Box::pin(task)));
    }

    fn start(&mut self) {
        for (name, task) in self.waiting.drain(..) {
            let handle = self.running.spawn(task.instrument(span(&name)));
            self.names.insert(handle.id(), name);
        }
    }

    async fn next(&mut self) -> (Name, Result<Result<T, Failure>, JoinError>) {
        let Some(joined) = self.running.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, ended) = match joined {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        (self.names.remove(&id).unwrap_or(Cow::Borrowed("unnamed")), ended)
    }
}

/// Names the task in everything it logs, its panic included. At the level of an error, so that no
/// filter hides who failed.
fn span(name: &str) -> tracing::Span {
    tracing::error_span!("in", task = name)
}

/// A task that lives as long as the value that owns it: dropping this drops the task where it
/// waits. Awaiting it gives the task's result.
#[derive(Debug)]
pub struct OwnedTask<T>(AbortOnDropHandle<T>);

/// An owned task that ended without its result: it panicked. The panic itself is in the log, and
/// ends a process that [`run`](super::run) started.
#[derive(Debug, thiserror::Error)]
#[error("a task panicked: the log has the message and the place")]
pub struct TaskPanicked(#[source] JoinError);

/// Starts a task that belongs to the returned value, for what comes and goes while the role runs.
pub fn spawn_owned<T: Send + 'static>(
    name: &str,
    task: impl Future<Output = T> + Send + 'static,
) -> OwnedTask<T> {
    #[expect(clippy::disallowed_methods, reason = "the handle owns the task; nothing is detached")]
    let handle = tokio::spawn(task.instrument(span(name)));
    OwnedTask(AbortOnDropHandle::new(handle))
}

impl<T> OwnedTask<T> {
    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for OwnedTask<T> {
    type Output = Result<T, TaskPanicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(TaskPanicked)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn each_end_carries_the_name_of_its_task() {
        let mut tasks = Tasks::new();
        tasks.work("publish", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.support("watchdog", async { Err(Failure::restart("the socket is gone")) });
        tasks.start();
        let Ended::Failed(name, failure) = tasks.next().await else { panic!("a failure") };
        assert_eq!((&*name, failure.to_string()), ("watchdog", "the socket is gone".to_owned()));
        assert_eq!(tasks.unfinished(), ["publish"]);
        tasks.stop();
        let Ended::Finished(name) = tasks.next().await else { panic!("a clean end") };
        assert_eq!(name, "publish");
        assert!(tasks.unfinished().is_empty());
    }

    #[tokio::test]
    async fn nothing_runs_before_the_start() {
        let mut tasks = Tasks::new();
        let (tell, told) = oneshot::channel();
        tasks.work("eager", |_| async move {
            tell.send(()).expect("the test waits");
            Ok(())
        });
        tokio::task::yield_now().await;
        assert!(told.is_empty());
        tasks.start();
        told.await.unwrap();
    }

    #[tokio::test]
    async fn an_owned_task_ends_with_its_owner() {
        let (held, gone) = oneshot::channel::<()>();
        let owned = spawn_owned("driver", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        assert!(!owned.is_finished());
        drop(owned);
        assert!(gone.await.is_err(), "the task was dropped");
        assert_eq!(spawn_owned("sum", async { 1 + 1 }).await.unwrap(), 2);
        assert!(spawn_owned("bug", async { panic!("planted") }).await.is_err());
    }
}
