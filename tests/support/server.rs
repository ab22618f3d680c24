//! A server running in this process.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;

use fantail::config::{Config, DriverChoice, Framing};
use fantail::connection::Service;
use fantail::driver::choose;
use fantail::message::CloseReason;
use fantail::server::Server;
use fantail::telemetry::{Counter, Counters};

use super::PATIENCE;
use std::time::Duration;

/// The io_uring driver, without a fallback.
pub const IO_URING: DriverChoice = DriverChoice::IoUring;

/// The epoll driver.
pub const EPOLL: DriverChoice = DriverChoice::Epoll;

/// Whether this host supports the driver; prints a note if not.
pub fn runs_here(driver: DriverChoice) -> bool {
    if driver != IO_URING {
        return true;
    }
    // On a thread of its own: task work left over from a ring interrupts later calls of its thread.
    let chosen =
        thread::spawn(|| choose(DriverChoice::IoUring)).join().expect("probing does not panic");
    if let Err(reason) = &chosen {
        eprintln!("skipped: {reason}");
    }
    chosen.is_ok()
}

/// A running server, stopped and joined on drop.
#[derive(Debug)]
pub struct TestServer {
    server: Option<Server>,
}

impl TestServer {
    /// Starts every service on loopback, with a short shutdown timeout.
    pub fn start(driver: DriverChoice, workers: usize) -> Self {
        Self::start_with(driver, workers, |_| {})
    }

    /// Like `start`, with changed settings.
    pub fn start_with(
        driver: DriverChoice,
        workers: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let any = || vec!["127.0.0.1:0".parse().expect("an address")];
        let mut config = Config {
            listen: any(),
            tcp: any(),
            echo: any(),
            echo_tcp: any(),
            workers: Some(workers),
            driver,
            // Many servers in one process can only reserve a little address space each.
            connections_max: Some(15_000),
            close_timeout: Duration::from_secs(2),
            shutdown_timeout: Duration::from_secs(4),
            ..Config::default()
        };
        change(&mut config);
        Self { server: Some(Server::start(&config).expect("the server starts")) }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it is there until it is dropped")
    }

    /// The first address of a service.
    pub fn address(&self, service: Service) -> SocketAddr {
        self.server().address(service).expect("every service is served")
    }

    /// Address for HTTP and WebSocket.
    pub fn edge(&self) -> SocketAddr {
        self.address(Service::Edge)
    }

    /// Address of the command protocol, in the configured framing.
    pub fn commands(&self) -> SocketAddr {
        let framings = [Framing::Line, Framing::LengthPrefix];
        let address = |framing| self.server().address(Service::Commands(framing));
        framings.into_iter().find_map(address).expect("every service is served")
    }

    /// Address of the WebSocket echo service.
    pub fn echo(&self) -> SocketAddr {
        self.address(Service::EchoWebSocket)
    }

    /// Address of the TCP echo service.
    pub fn echo_tcp(&self) -> SocketAddr {
        self.address(Service::EchoTcp)
    }

    /// A counter, summed over all workers.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.server().counters().iter().map(|counters| counter(counters).value()).sum()
    }

    /// A counter of each worker.
    pub fn by_worker(&self, counter: impl Fn(&Counters) -> &Counter) -> Vec<u64> {
        self.server().counters().iter().map(|counters| counter(counters).value()).collect()
    }

    /// Number of connections closed for a reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.sum(|counters| &counters.connections_closed[reason as usize])
    }

    /// Number of connections rejected for a reason.
    pub fn rejected(&self, reason: &str) -> u64 {
        self.sum(|counters| counters.connections_rejected.labelled(reason))
    }

    /// Requests a shutdown; drop waits for it.
    pub fn stop(&self) {
        self.server().stop();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.stop();
        let (sender, joined) = channel();
        thread::spawn(move || {
            // The receiver is gone after the timeout.
            let _ = sender.send(server.join());
        });
        let result = joined.recv_timeout(PATIENCE);
        if !thread::panicking() {
            result.expect("the server ends in time").expect("no worker failed");
        }
    }
}
