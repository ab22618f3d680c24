//! Notifications to a service manager: `Type=notify` of a systemd unit, through `$NOTIFY_SOCKET`.

use sd_notify::{NotifyState, notify};
use tracing::warn;

/// Reports that the server is ready. `status` is one line, shown by `systemctl status`. Without a service manager, this
/// does nothing.
pub fn notify_ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that the server is stopping, which takes up to the shutdown timeout.
pub(super) fn notify_stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    // Without the notification, at worst the manager's timeout expires, so the server continues.
    if let Err(error) = notify(states) {
        warn!(%error, "cannot notify the service manager: see $NOTIFY_SOCKET");
    }
}
