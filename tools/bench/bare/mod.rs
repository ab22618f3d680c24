//! The bare loops: the cost of an echo or a fan-out with nothing but system calls.
//!
//! Each answers the WebSocket handshake and either echoes frames or sends every frame to all connections, with the
//! system calls of the server's drivers. Outstanding frames are joined into one send per connection. There are no
//! timeouts, limits or pings: this is a baseline, not a server, and it is kept as fast as possible, since a slow
//! baseline would flatter the server.

mod epoll;
mod peer;
mod round;
mod socket;
mod uring;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use socket2::{Domain, Protocol, Socket, Type};

use fantail::driver::raise_limit;

use peer::Mode;

/// Options of a bare loop.
#[derive(Args)]
pub struct Arguments {
    /// Kernel interface to use
    #[arg(long, value_enum)]
    driver: DriverKind,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// What to do with received frames
    #[arg(long, value_enum, default_value = "echo")]
    mode: Mode,
}

/// The kernel interfaces.
#[derive(Clone, Copy, ValueEnum)]
pub enum DriverKind {
    /// Oneshot polls, `recv`, batched sends that complete inside the submission
    #[value(name = "io_uring")]
    IoUring,
    /// Edge-triggered epoll registered once, `recv`, `send`
    Epoll,
}

pub fn serve(arguments: &Arguments) -> io::Result<ExitCode> {
    raise_limit()?;
    let listener = listen(arguments.listen)?;
    match arguments.driver {
        DriverKind::IoUring => uring::serve(&listener, arguments.mode)?,
        DriverKind::Epoll => epoll::serve(&listener, arguments.mode)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: one system call less per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

const BACKLOG: i32 = 65_535;
