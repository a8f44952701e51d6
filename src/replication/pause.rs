//! A pause of a fraction of a millisecond, which the runtime's own timer cannot make: it counts in
//! whole ones.
//!
//! A walsender makes one system call per row, and so does a reader that takes each as it comes. A
//! pause of 200 µs after a read that brought little lets rows gather in the socket: twice the rows per
//! second for a sixth of the work, and never used when there is nothing to catch up with.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One timer of the kernel.
pub(super) struct Pause {
    timer: AsyncFd<OwnedFd>,
    /// It was started and has not been waited for to the end.
    running: bool,
}

impl Pause {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the fear is a descriptor closed while it is \
                      registered, and this one is owned"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self { timer, running: false })
    }

    /// Begins a pause below a second; one that runs already goes on.
    pub(super) fn begin(&mut self, pause: Duration) -> io::Result<()> {
        if self.running || pause.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() },
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        self.running = true;
        Ok(())
    }

    /// Waits for the end of the pause; at once if there is none.
    ///
    /// Cancel safety: dropped, the pause goes on and the next call waits for its end.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        while self.running {
            let mut ready = self.timer.readable().await?;
            let read = ready.try_io(|timer| {
                let mut expirations = [0_u8; 8];
                rustix::io::read(timer, &mut expirations).map_err(io::Error::from)
            });
            match read {
                Ok(outcome) => {
                    outcome?;
                    self.running = false;
                }
                // Woken for nothing; the readiness is cleared and we wait again.
                Err(_would_block) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_pause_is_shorter_than_a_millisecond_and_survives_being_dropped() {
        let mut pause = Pause::new().unwrap();
        pause.end().await.unwrap();
        let begun = Instant::now();
        let mut shortest = Duration::MAX;
        for _ in 0..50 {
            let one = Instant::now();
            pause.begin(Duration::from_micros(200)).unwrap();
            // Polled once and dropped: the pause must not be forgotten.
            let _cut = tokio::time::timeout(Duration::ZERO, pause.end()).await;
            pause.end().await.unwrap();
            shortest = shortest.min(one.elapsed());
        }
        assert!(begun.elapsed() >= Duration::from_micros(200 * 50));
        assert!(shortest < Duration::from_millis(1), "{shortest:?}");
    }
}
