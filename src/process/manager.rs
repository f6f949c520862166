//! What the service manager is told (`sd_notify`): ready, reloading, stopping, alive, and who comes next. Without one
//! (`NOTIFY_SOCKET` is absent) nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// How often it wants to hear that the process is alive, if it does. Half of what it asked for, as is the custom: one word
/// may come late.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

/// It serves.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What it does now, for people.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// It reads its configuration again; [`ready`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        // Half of the message would end the service.
        Err(error) => log::warn!("the service manager was not told of the reload: {error}"),
    }
}

pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// From now on that process is the service. It must be said by the one that was: of others the manager believes nothing.
pub fn succeeded_by(process: u32) {
    tell(&[NotifyState::MainPid(process), NotifyState::Ready, NotifyState::Status("serving")]);
}

fn tell(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        log::warn!("the service manager could not be told: {error}");
    }
}
