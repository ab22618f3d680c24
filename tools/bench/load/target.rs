//! The options of every kind of load: which server, and which cores.

use std::io;
use std::net::SocketAddr;

use clap::Args;

use super::client::Connector;
use crate::instrument::Tls;
use crate::server_cpu::{Meter, ServerCpu};

/// The server under load, and how the load runs.
#[derive(Args)]
pub struct Target {
    /// Address of the server
    #[arg(long)]
    pub address: SocketAddr,
    /// Path and query of the WebSocket handshake
    #[arg(long, default_value = "/")]
    pub path: String,
    /// Process id of the server, to report its CPU time and memory
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Core that the server is pinned to
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// Core to run on
    #[arg(long)]
    pub core: Option<usize>,
    /// Encrypt the connections with TLS 1.3; the certificate of the server is not verified
    #[arg(long)]
    pub tls: bool,
    /// Poll for events without sleeping
    #[arg(long)]
    pub spin: bool,
}

impl Target {
    pub fn connector(&self) -> Connector {
        self.connector_to(self.address, &self.path)
    }

    /// A connector to another address of the same server.
    pub fn connector_to(&self, address: SocketAddr, path: &str) -> Connector {
        let mut connector = Connector::new(address, path.to_owned());
        connector.set_tls(self.tls.then(Tls::new));
        connector
    }

    /// `None` without the server's process id.
    pub fn server_cpu(&self) -> io::Result<Option<ServerCpu>> {
        self.server_pid.map(|pid| ServerCpu::new(pid, self.server_core)).transpose()
    }

    /// Measures the server's CPU time from now on.
    pub fn meter(&self) -> io::Result<Meter> {
        Meter::start(self.server_cpu()?)
    }
}
