//! SIGTERM and SIGINT: stop politely, within a stated time. SIGHUP: read the settings again.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;

use super::service_manager::tell_stopping;
use super::{Reloader, Server, StartError, spawn};

/// SIGTERM, SIGINT and SIGHUP, noted from when this is made: one that comes while the server starts counts too.
#[derive(Debug)]
pub struct StopSignals {
    signals: Signals,
}

impl StopSignals {
    /// Catches the signals from now on. It is made before the server, so that a signal sent as soon as the server is
    /// announced stops it.
    pub fn new() -> Result<Self, StartError> {
        Ok(Self { signals: Signals::new([SIGTERM, SIGINT, SIGHUP])? })
    }

    /// Serves until SIGTERM or SIGINT, then stops: no new connections, a disconnect for each open one, what is
    /// queued is sent. Returns within the shutdown timeout after the signal. A second signal ends the process at once.
    /// SIGHUP reloads the settings.
    pub fn wait(mut self, server: Server, mut reloader: Reloader) -> Result<(), StartError> {
        let controls = server.controls().clone();
        spawn("fantail-signals", move || {
            let mut is_stopping = false;
            for signal in self.signals.forever() {
                if signal == SIGHUP {
                    reloader.reload(&controls);
                    continue;
                }
                if is_stopping {
                    std::process::exit(128 + signal);
                }
                is_stopping = true;
                info!(signal, "stopping");
                tell_stopping();
                controls.stop();
            }
        })?;
        server.join()
    }
}
