//! What a service manager is told, if one asks: `Type=notify` of a systemd unit, by way of `$NOTIFY_SOCKET`.

use sd_notify::{NotifyState, notify};
use tracing::warn;

/// The server serves. `status` is one line, shown by `systemctl status`. Does nothing without a service manager.
pub fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The server stops, which takes a while.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Nothing depends on it but the manager's own patience, so the server goes on.
    if let Err(error) = notify(states) {
        warn!(%error, "cannot notify the service manager: see $NOTIFY_SOCKET");
    }
}
