//! Signals: SIGTERM and SIGINT stop the server within the shutdown timeout, SIGHUP reloads the settings.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;

use super::service_manager::notify_stopping;
use super::{Reloader, Server, StartError, spawn};

/// SIGTERM, SIGINT and SIGHUP, recorded from its creation on: a signal that arrives while the server starts counts too.
#[derive(Debug)]
pub struct StopSignals {
    signals: Signals,
}

impl StopSignals {
    /// Catches the signals from now on. Create it before the server, so that a signal sent as soon as the server has
    /// printed its addresses stops it.
    pub fn new() -> Result<Self, StartError> {
        Ok(Self { signals: Signals::new([SIGTERM, SIGINT, SIGHUP])? })
    }

    /// Serves until SIGTERM or SIGINT, then stops: accepts no new connections, sends what is queued, and disconnects
    /// every client with a reason. Returns within the drain time and the shutdown timeout after the signal. A second
    /// signal ends the process at once. SIGHUP reloads the settings.
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
                notify_stopping();
                controls.stop();
            }
        })?;
        server.join()
    }
}
