//! A server in this process.

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

/// io_uring or nothing.
pub const IO_URING: DriverChoice = DriverChoice::IoUring;

/// epoll.
pub const EPOLL: DriverChoice = DriverChoice::Epoll;

/// Whether this host has what the driver needs; says so if not.
pub fn runs_here(driver: DriverChoice) -> bool {
    if driver != IO_URING {
        return true;
    }
    // On a thread of its own: what is left of a ring interrupts a later call of the thread that had it.
    let chosen =
        thread::spawn(|| choose(DriverChoice::IoUring)).join().expect("probing does not panic");
    if let Err(reason) = &chosen {
        eprintln!("skipped: {reason}");
    }
    chosen.is_ok()
}

/// A running server, stopped and joined when it is dropped.
#[derive(Debug)]
pub struct TestServer {
    server: Option<Server>,
}

impl TestServer {
    /// Every service on loopback, with short goodbyes.
    pub fn start(driver: DriverChoice, workers: usize) -> Self {
        Self::start_with(driver, workers, |_| {})
    }

    /// The same with some settings changed.
    pub fn start_with(
        driver: DriverChoice,
        workers: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let mut config = Config {
            listen: vec![any],
            tcp: vec![any],
            echo: vec![any],
            echo_tcp: vec![any],
            workers: Some(workers),
            driver,
            // A reservation of address space for each is what many servers in one process can spare.
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

    fn address(&self, service: Service) -> SocketAddr {
        self.server().address(service).expect("every service is served")
    }

    /// HTTP and WebSocket.
    pub fn edge(&self) -> SocketAddr {
        self.address(Service::Edge)
    }

    /// The command protocol, in the framing of the configuration.
    pub fn commands(&self) -> SocketAddr {
        let framings = [Framing::Line, Framing::LengthPrefix];
        let address = |framing| self.server().address(Service::Commands(framing));
        framings.into_iter().find_map(address).expect("every service is served")
    }

    /// WebSockets, echoed.
    pub fn echo(&self) -> SocketAddr {
        self.address(Service::EchoWebSocket)
    }

    /// Bytes, echoed.
    pub fn echo_tcp(&self) -> SocketAddr {
        self.address(Service::EchoTcp)
    }

    /// One counter, all workers together.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.server().counters().iter().map(|counters| counter(counters).value()).sum()
    }

    /// One counter, worker by worker.
    pub fn by_worker(&self, counter: impl Fn(&Counters) -> &Counter) -> Vec<u64> {
        self.server().counters().iter().map(|counters| counter(counters).value()).collect()
    }

    /// Connections that ended for a reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.sum(|counters| &counters.connections_closed[reason as usize])
    }

    /// Asks it to stop; dropping it waits for that.
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
            // Nobody listens once patience has run out.
            let _ = sender.send(server.join());
        });
        let result = joined.recv_timeout(PATIENCE);
        if !thread::panicking() {
            result.expect("the server ends in time").expect("no worker failed");
        }
    }
}
