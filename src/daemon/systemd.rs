//! What we tell systemd, when it asks: one datagram a message to `NOTIFY_SOCKET`.
//!
//! `READY=1` is sent once the process has *started*: configuration good, everything built, ports
//! bound, tasks running; not when `/ready` turns true. The two differ on purpose. Readiness depends
//! on Postgres and Kafka: a relay that waits for them does exactly what it should, and would be
//! killed by `TimeoutStartSec` and started again, to no effect, while units ordered after it would
//! wait for another machine's database. Why it is not ready stands in the status line instead.
//!
//! Without `NOTIFY_SOCKET` every method does nothing. A message that cannot be sent is logged:
//! not to be heard by systemd is no reason to stop relaying.

use std::convert::Infallible;
use std::env;
use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Failure;
use crate::observe::readiness::NotReady;

/// systemd empties its socket all the time; one that is full for this long belongs to nobody.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A status line is read by people in `systemctl status`; reasons may quote a server at length.
const STATUS_CHARS_MAX: usize = 400;

/// The line to systemd, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Systemd {
    socket: Option<Arc<UnixDatagram>>,
    /// How often systemd wants to hear that we live.
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Takes the socket and the watchdog from the environment systemd gave us.
    pub(super) fn from_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let watchdog = watchdog(env::var("WATCHDOG_USEC").ok(), env::var("WATCHDOG_PID").ok());
        Self::connect(&address, watchdog).unwrap_or_else(|error| {
            let address = address.display();
            tracing::warn!("systemd will not hear from us: NOTIFY_SOCKET {address}: {error}");
            Self::default()
        })
    }

    pub(super) fn connect(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = StdUnixDatagram::unbound()?;
        socket.connect_addr(&parse(address)?)?;
        socket.set_nonblocking(true)?;
        let socket = Some(Arc::new(UnixDatagram::from_std(socket)?));
        Ok(Self { socket, watchdog })
    }

    pub(super) async fn started(&self) {
        self.send("READY=1").await;
    }

    /// A reload begins. The time stamp lets systemd tell it from an answer to an earlier signal.
    pub(super) async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}")).await;
    }

    /// A reload has ended, well or not.
    pub(super) async fn reloaded(&self) {
        self.send("READY=1").await;
    }

    /// The drain begins and may take `at_most`, which may be more than `TimeoutStopSec` allows.
    pub(super) async fn stopping(&self, at_most: Duration) {
        let micros = at_most.as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}")).await;
    }

    pub(super) async fn status(&self, objections: &[NotReady]) {
        if self.socket.is_some() {
            self.send(&format!("STATUS={}", status_line(objections))).await;
        }
    }

    /// The support task that feeds the watchdog, if systemd set one. It runs on the runtime whose
    /// life it proves: a runtime that no longer runs tasks no longer feeds it.
    pub(super) fn watchdog(
        &self,
    ) -> Option<impl Future<Output = Result<Infallible, Failure>> + Send + 'static> {
        let every = self.watchdog?;
        let systemd = self.clone();
        Some(async move {
            // Half the time, as systemd advises: one lost message does no harm.
            let mut ticks = interval(every / 2);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                systemd.send("WATCHDOG=1").await;
            }
        })
    }

    async fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let failure = match timeout(SEND_TIMEOUT, socket.send(message.as_bytes())).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("its socket is full for {SEND_TIMEOUT:?}"),
        };
        tracing::warn!("systemd did not take {message:?}: {failure}");
    }
}

/// A path, or with a leading `@` a name in Linux' abstract namespace.
fn parse(address: &OsStr) -> io::Result<SocketAddr> {
    match address.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(address),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither an absolute path nor an abstract name with a leading `@`",
        )),
    }
}

/// The watchdog's interval, unless it is meant for another process (a wrapper that started us).
fn watchdog(micros: Option<String>, pid: Option<String>) -> Option<Duration> {
    let for_us = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let micros: u64 = micros?.parse().ok()?;
    (for_us && micros > 0).then(|| Duration::from_micros(micros))
}

fn status_line(objections: &[NotReady]) -> String {
    if objections.is_empty() {
        return "ready".to_owned();
    }
    let reasons: Vec<String> = objections.iter().map(ToString::to_string).collect();
    // A line break would begin another field of the protocol.
    let line = format!("not ready: {}", reasons.join("; ")).replace(['\n', '\r'], " ");
    line.chars().take(STATUS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[tokio::test]
    async fn an_abstract_socket_is_reached_too() {
        let name = format!("postrider-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = StdUnixDatagram::bind_addr(&address).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ours = Systemd::connect(&OsString::from(format!("@{name}")), None).unwrap();
        ours.started().await;
        ours.stopping(Duration::from_secs(2)).await;
        let mut heard = [0; 100];
        let length = systemd.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
        let length = systemd.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000");
    }

    #[tokio::test]
    async fn nobody_to_tell_is_no_error() {
        Systemd::default().started().await;
        assert!(Systemd::connect(OsStr::new("/nowhere/notify"), None).is_err());
        assert!(Systemd::connect(OsStr::new("vsock:2:1"), None).is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = StdUnixDatagram::bind(&path).unwrap();
        let ours = Systemd::connect(path.as_os_str(), None).unwrap();
        drop(heard);
        ours.started().await;
    }

    #[test]
    fn the_watchdog_is_ours_only_with_our_pid() {
        let us = std::process::id();
        let two_seconds = Some("2000000".to_owned());
        assert_eq!(watchdog(two_seconds.clone(), None), Some(Duration::from_secs(2)));
        assert_eq!(
            watchdog(two_seconds.clone(), Some(us.to_string())),
            Some(Duration::from_secs(2))
        );
        assert_eq!(watchdog(two_seconds, Some((us + 1).to_string())), None);
        assert_eq!(watchdog(Some("0".to_owned()), None), None);
        assert_eq!(watchdog(None, None), None);
    }

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(status_line(&[]), "ready");
        let reason = format!("refused\nREADY=1 {}", "x".repeat(1000));
        let line = status_line(&[NotReady { name: "postgres", reason }]);
        assert!(line.starts_with("not ready: postgres: refused READY=1 xxx"), "{line}");
        assert_eq!(line.chars().count(), STATUS_CHARS_MAX);
    }
}
