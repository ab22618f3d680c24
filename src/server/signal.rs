//! SIGTERM and SIGINT: stop politely, within a stated time.

use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;

use super::{Server, StartError};

/// SIGTERM and SIGINT, noted from when this is made: one that comes while the server starts stops it too.
#[derive(Debug)]
pub struct StopSignals {
    signals: Signals,
}

impl StopSignals {
    /// Notes them from now on. Made before the server is, so that whoever reads that it serves may stop it.
    pub fn new() -> Result<Self, StartError> {
        Ok(Self { signals: Signals::new([SIGTERM, SIGINT])? })
    }

    /// Serves until SIGTERM or SIGINT, then stops: no new connections, a goodbye for each that is there, what is
    /// queued is sent. Returns within the shutdown timeout after the signal. A second signal ends the process at once.
    pub fn wait(mut self, server: Server) -> Result<(), StartError> {
        let (stop, wakers) = (server.stop.clone(), server.wakers.clone());
        thread::Builder::new().name("fantail-signals".into()).spawn(move || {
            let mut seen = 0;
            for signal in self.signals.forever() {
                seen += 1;
                if seen > 1 {
                    std::process::exit(128 + signal);
                }
                info!(signal, "stopping");
                stop.store(true, std::sync::atomic::Ordering::Release);
                for waker in &wakers {
                    waker.wake();
                }
            }
        })?;
        server.join()
    }
}
