//! What systemd is told of the process: ready, reloading, ending, alive (`sd_notify(3)`; `Type=notify-reload`).
//!
//! Without `NOTIFY_SOCKET` nothing is told to nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::shutdown::Shutdown;

/// So often at most it is told that the process lives.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);

/// Every role takes requests: before, nothing of reloads is told, since their ends say "ready".
static IS_READY: AtomicBool = AtomicBool::new(false);
/// The newest telling failed, and the log says so.
static IS_LOST: AtomicBool = AtomicBool::new(false);

/// Every role takes requests.
pub fn ready() {
    IS_READY.store(true, Ordering::Release);
    reloaded();
}

/// A config was taken over.
pub fn reloaded() {
    tell_of_reload(&[NotifyState::Ready, NotifyState::Status("takes requests")]);
}

/// The config is read again; [`reloaded`] or [`refused`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell_of_reload(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("cannot tell the service manager of a reload: {error}"),
    }
}

/// The config that was read is not good; the one before is in force.
pub fn refused() {
    tell_of_reload(&[
        NotifyState::Ready,
        NotifyState::Status("refused its changed config and keeps the one before: see the log"),
    ]);
}

/// The process drains and ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Tells that the process lives, twice in each `WatchdogSec`, until the shutdown begins: from the thread that leads the
/// others, so a process that hangs is killed and started again.
pub fn keep_alive(background: &Shutdown) {
    let Some(beat) = sd_notify::watchdog_enabled().and_then(beat) else { return };
    let ending = background.clone();
    background.spawn(async move {
        let mut tick = tokio::time::interval(beat);
        loop {
            tokio::select! {
                () = ending.begun() => return,
                _ = tick.tick() => tell(&[NotifyState::Watchdog]),
            }
        }
    });
}

/// How often it is told within `WatchdogSec`; `None`: 0 is no watchdog.
fn beat(limit: Duration) -> Option<Duration> {
    (!limit.is_zero()).then(|| (limit / 2).max(SHORTEST_BEAT))
}

fn tell_of_reload(states: &[NotifyState<'_>]) {
    if IS_READY.load(Ordering::Acquire) {
        tell(states);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    match sd_notify::notify(states) {
        Ok(()) => IS_LOST.store(false, Ordering::Relaxed),
        Err(error) if !IS_LOST.swap(true, Ordering::Relaxed) => {
            log::warn!("cannot tell the service manager: {error}");
        }
        Err(error) => log::debug!("cannot tell the service manager: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_never_nothing() {
        assert_eq!(beat(Duration::ZERO), None);
        assert_eq!(beat(Duration::from_nanos(1)), Some(SHORTEST_BEAT));
        assert_eq!(beat(Duration::from_secs(30)), Some(Duration::from_secs(15)));
    }
}
