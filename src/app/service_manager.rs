//! What systemd is told of the process: ready, reloading, ending, alive (`sd_notify(3)`; `Type=notify-reload`).
//!
//! Without `NOTIFY_SOCKET` nothing is told to nobody.

use sd_notify::NotifyState;

use crate::shutdown::Shutdown;

/// Every role takes requests.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("takes requests")]);
}

/// The config is read again; [`ready`] or [`refused`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("cannot tell the service manager of a reload: {error}"),
    }
}

/// The config that was read is not good; the one before is in force.
pub fn refused() {
    tell(&[
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
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let ending = background.clone();
    background.spawn(async move {
        let mut tick = tokio::time::interval(limit / 2);
        loop {
            tokio::select! {
                () = ending.begun() => return,
                _ = tick.tick() => tell(&[NotifyState::Watchdog]),
            }
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell the service manager: {error}");
    }
}
