//! The bare loops: what an echo or a fan-out costs when nothing but the kernel is in the way.
//!
//! Each answers the WebSocket handshake and either echoes frames or sends every frame to everyone, with the same
//! system calls as the server's drivers; frames that are under way at once leave joined, one send per connection. No timeouts, no limits, no pings: a yardstick, not a server. It is kept as
//! fast as we know how, since a slow yardstick would flatter.

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

/// Serve as a bare loop: the yardstick.
#[derive(Args)]
pub struct Arguments {
    /// How to talk to the kernel
    #[arg(long, value_enum)]
    driver: DriverKind,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// What to do with frames
    #[arg(long, value_enum, default_value = "echo")]
    mode: Mode,
}

/// The two ways to wait and send.
#[derive(Clone, Copy, ValueEnum)]
pub enum DriverKind {
    /// Oneshot polls, `recv`, sends in batches settled inside the submission
    #[value(name = "io_uring")]
    IoUring,
    /// Edges registered once, `recv`, `send`
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
