//! What SIGHUP does: each registered thing is read again; a failed one keeps its old value.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::exit::{Cause, chain};
use crate::observe::Metrics;

/// A reload reads files; one that takes longer hangs on a dead network mount and is given up.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

type Reload =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Cause>> + Send>> + Send + Sync>;

/// The things that SIGHUP reads again, in the order they were added.
#[derive(Default)]
pub struct Reloads(Vec<(&'static str, Reload)>);

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(what, _)| what)).finish()
    }
}

impl Reloads {
    /// Adds one thing. `reload` must leave the old value in place when it fails, and when it is
    /// dropped half-way; it must not block.
    pub fn add<F>(&mut self, what: &'static str, reload: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), Cause>> + Send + 'static,
    {
        self.0.push((what, Box::new(move || Box::pin(reload()))));
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(what, _)| *what)
    }

    /// Reloads everything, one after the other; says what succeeded and what failed.
    pub(super) async fn run(self: Arc<Self>, metrics: Arc<Metrics>) {
        if self.0.is_empty() {
            tracing::info!("SIGHUP: nothing to reload in this configuration");
        }
        for (what, reload) in &self.0 {
            let failure = match timeout(RELOAD_TIMEOUT, reload()).await {
                Ok(Ok(())) => None,
                Ok(Err(cause)) => Some(chain(cause.as_ref())),
                Err(_) => Some(format!("took longer than {RELOAD_TIMEOUT:?}")),
            };
            metrics.count_reload(what, failure.is_none());
            match failure {
                None => tracing::info!("SIGHUP: reloaded {what}"),
                Some(failure) => tracing::error!(
                    "SIGHUP: {what} not reloaded, the old value stays in use: {failure}"
                ),
            }
        }
    }
}
