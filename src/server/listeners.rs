//! The listeners of a server: its addresses are taken before the workers start, and each worker opens its own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::port_user::port_in_use;
use crate::config::{BindAddress, Config, ListenAddress};
use crate::connection::Service;
use crate::driver::{HeldPort, Keepalive, UnixSocket, bind_listener, bind_probe, hold_free_port};
use crate::worker::Listener;

/// A service, and the address that it listens on.
pub type Endpoint = (Service, ListenAddress);

/// The addresses of a server, and what is held for them.
#[derive(Debug)]
pub struct Listeners {
    /// Each service with its address, in the order of the configuration.
    pub endpoints: Vec<Endpoint>,
    /// Ports that the kernel chose, until the workers have bound them.
    held_ports: Vec<HeldPort>,
    /// The Unix sockets, in the order of their addresses. Their files are removed with them.
    unix_sockets: Vec<UnixSocket>,
}

/// A listener that a worker is to open.
#[derive(Debug)]
pub enum Pending {
    /// A socket of its own.
    Ip(SocketAddr, Keepalive),
    /// The socket of all workers.
    Unix(OwnedFd),
}

impl Listeners {
    /// All addresses with their services. Each was free; a port of 0 is replaced by a real one, held for the workers.
    pub fn resolve(config: &Config) -> Result<Self, String> {
        let has_admin = !config.admin.is_empty();
        let services = [
            (if has_admin { Service::Public } else { Service::Edge }, &config.listen),
            (Service::Admin, &config.admin),
            (Service::Commands(config.tcp_framing), &config.tcp),
            (Service::EchoWebSocket, &config.echo),
            (Service::EchoTcp, &config.echo_tcp),
        ];
        let mut listeners =
            Self { endpoints: Vec::new(), held_ports: Vec::new(), unix_sockets: Vec::new() };
        for (service, addresses) in services {
            for address in addresses {
                let address = listeners.take(address, config)?;
                listeners.endpoints.push((service, address));
            }
        }
        Ok(listeners)
    }

    fn take(&mut self, address: &ListenAddress, config: &Config) -> Result<ListenAddress, String> {
        match &address.bind {
            BindAddress::Unix(path) => {
                let socket = UnixSocket::bind(path, config.unix_mode.bits());
                self.unix_sockets.push(socket.map_err(|error| cannot_bind(path, &error))?);
                Ok(address.clone())
            }
            BindAddress::Ip(ip) if ip.port() == 0 => {
                let free = hold_free_port(*ip).map_err(|error| cannot_listen(*ip, &error))?;
                self.held_ports.push(free.1);
                Ok(ListenAddress { bind: BindAddress::Ip(free.0), ..*address })
            }
            BindAddress::Ip(ip) => {
                bind_probe(*ip).map_err(|error| cannot_listen(*ip, &error))?;
                Ok(address.clone())
            }
        }
    }

    /// What workers do with the connections of each address.
    pub fn policies(&self) -> impl Iterator<Item = Listener> {
        self.endpoints.iter().map(|(service, address)| Listener {
            service: *service,
            expects_proxy_header: address.expects_proxy_header,
            is_encrypted: address.is_encrypted,
            offers_deflate: address.offers_deflate,
            has_tickets: address.has_tickets,
        })
    }

    /// The listeners of one worker. To be called before any worker has a descriptor table of its own.
    pub fn of_worker(&self) -> Result<Vec<Pending>, String> {
        let mut unix_sockets = self.unix_sockets.iter();
        let pending = self.endpoints.iter().map(|(service, address)| match &address.bind {
            BindAddress::Ip(ip) => Ok(Pending::Ip(*ip, keepalive(*service))),
            BindAddress::Unix(_) => {
                let socket = unix_sockets.next().expect("each of these addresses has one");
                socket.share().map(Pending::Unix).map_err(|error| error.to_string())
            }
        });
        pending.collect()
    }

    /// The workers have bound their ports.
    pub fn release_ports(&mut self) {
        self.held_ports.clear();
    }
}

impl Pending {
    /// Opens it, on the thread of its worker.
    pub fn open(self) -> Result<OwnedFd, String> {
        match self {
            Self::Ip(address, keepalive) => bind_listener(address, keepalive)
                .map(OwnedFd::from)
                .map_err(|error| cannot_listen(address, &error)),
            Self::Unix(socket) => Ok(socket),
        }
    }
}

fn keepalive(service: Service) -> Keepalive {
    match service {
        Service::Edge | Service::Public | Service::Admin | Service::EchoWebSocket => Keepalive::Off,
        Service::Commands(_) | Service::EchoTcp => Keepalive::Kernel,
    }
}

fn cannot_bind(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "unix:{path} is in use: another process listens there; stop it, or choose another path"
            )
        }
        io::ErrorKind::AlreadyExists => {
            format!("unix:{path} exists and is not a socket: remove it, or choose another path")
        }
        io::ErrorKind::NotFound => {
            format!("unix:{path} cannot be created: its directory does not exist")
        }
        io::ErrorKind::PermissionDenied => format!(
            "no permission to create unix:{path}: its directory must be writable for the user of the server"
        ),
        _ => format!("cannot listen on unix:{path}: {error}"),
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => port_in_use(address),
        io::ErrorKind::PermissionDenied => {
            format!(
                "no permission to listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{address} is not an address of this host: see `ip address`")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}
