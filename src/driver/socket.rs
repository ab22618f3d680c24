//! Every socket option and socket call of the server, each with its reason.
//!
//! Options are set on the listener, from which accepted sockets inherit them: that saves a system call per option and
//! connection.

#![expect(unsafe_code, reason = "three calls that socket2 does not wrap")]

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::Close;

/// Whether the kernel sends TCP keepalive probes on a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// Off: the protocol has its own keepalive, and a second one would only cost packets.
    Off,
    /// On, for raw TCP: a peer is dead after 120 s of silence and 3 unanswered probes, 20 s apart.
    Kernel,
}

/// Binds one worker's listener to `address`, which other workers bind as well.
pub fn bind_listener(address: SocketAddr, keepalive: Keepalive) -> io::Result<TcpListener> {
    let socket = new_socket(address)?;
    // One accept queue per worker: no thundering herd, no lock shared between cores.
    socket.set_reuse_port(true)?;
    // Frames are gathered in user space, one send per turn; Nagle could only delay them.
    socket.set_tcp_nodelay(true)?;
    // The kernel reports a full send buffer once this much is unsent. A stalled reader then holds about 120 KB of
    // kernel memory instead of 4 MB, and the watermarks of its send queue see the stall early.
    socket.set_tcp_notsent_lowat(NOTSENT_BYTES_MAX)?;
    // A peer that vanished with data unacknowledged is dead after this time, not after 15 minutes of retransmissions.
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    if keepalive == Keepalive::Kernel {
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE_AFTER)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_RETRIES),
        )?;
    }
    // TCP_DEFER_ACCEPT stays off, even where the client sends first: the handshake deadline counts from accept, and a
    // deferred connection would escape admission limits and that deadline.
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Checks that `address` is free, by binding it exclusively for a moment. `SO_REUSEPORT` would silently share the port
/// with another program of the same user, or with a server that is still running.
pub fn bind_probe(address: SocketAddr) -> io::Result<()> {
    let socket = new_socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// A port that the kernel gives to no other program while this value lives.
#[derive(Debug)]
pub struct HeldPort {
    _socket: Socket,
}

/// Has the kernel choose a free port, and holds it until the listeners are bound: without that, any outgoing connection
/// of this host could take it meanwhile.
pub fn hold_free_port(address: SocketAddr) -> io::Result<(SocketAddr, HeldPort)> {
    let socket = new_socket(address)?;
    // It never listens, so it takes no share of the connections, and a copy that lives on for a moment in a worker's
    // table does not prevent the port from being bound again.
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    Ok((address, HeldPort { _socket: socket }))
}

/// A socket with the options that both ways of binding need.
fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    // Connections of a previous run in TIME_WAIT must not prevent a restart.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // "[::]" and "0.0.0.0" can both be bound, and no peer appears with an IPv4-mapped address, which per-address
        // limits would count separately.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Accepts one connection, nonblocking and close-on-exec.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let (socket, peer) =
        SockRef::from(listener).accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)?;
    Ok((socket.into(), peer.as_socket()))
}

/// Whether a listener is a Unix socket, from which all workers accept.
pub(super) fn is_unix(listener: &OwnedFd) -> bool {
    SockRef::from(listener).local_addr().is_ok_and(|address| address.is_unix())
}

/// Stops listening, for all holders of the socket. Closing alone would leave the socket and the connections queued on
/// it alive for as long as an armed poll or another worker's descriptor table holds it.
pub(super) fn stop_listening(listener: OwnedFd) {
    // It fails only for a socket that no longer listens.
    let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
}

/// Receives with one call.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(socket)).read(buffer)
}

/// Sends what fits with one call. A dead peer is an error, not a signal.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send_with_flags(bytes, SEND_FLAGS)
}

/// Sends several slices with one call.
pub(super) fn send_vectored(socket: &OwnedFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(socket).send_vectored_with_flags(slices, SEND_FLAGS)
}

/// Sends the acknowledgement that the kernel delays.
pub(super) fn acknowledge(socket: &OwnedFd) {
    // It fails on Unix sockets, which acknowledge nothing.
    let _ = SockRef::from(socket).set_tcp_quickack(true);
}

/// Sends FIN after everything that was sent; receiving continues.
pub(super) fn shutdown_write(socket: &OwnedFd) {
    // It fails only when the connection is already gone, which receiving reports.
    let _ = SockRef::from(socket).shutdown(Shutdown::Write);
}

/// Ends a connection on which polls may still be armed: they complete. The descriptor stays open until they have.
pub(super) fn end(socket: &OwnedFd, how: Close) {
    match how {
        Close::Orderly => {
            let _ = SockRef::from(socket).shutdown(Shutdown::Both);
        }
        Close::Abort => abort(socket),
    }
}

/// Closes a connection on which no poll is armed.
pub(super) fn close(socket: OwnedFd, how: Close) {
    match how {
        // With unread bytes at close the kernel sends RST, and the peer may lose bytes that were sent before it.
        Close::Orderly => discard_received(&socket),
        Close::Abort => abort(&socket),
    }
    drop(socket);
}

/// Sends RST and drops what the kernel holds for the peer.
fn abort(socket: &OwnedFd) {
    let unspecified =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the address is a valid sockaddr of the length given and connect only reads it; the descriptor is
    // open, because it is borrowed from its owner.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            &raw const unspecified,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    if result != 0 {
        // A filter may refuse it: then the same by other means. Both fail only on a connection that is gone.
        let socket = SockRef::from(socket);
        let _ = socket.set_linger(Some(Duration::ZERO));
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// Discards bytes that were received and not read. With MSG_TRUNC, TCP drops bytes without copying them; a Unix socket
/// refuses to, and its bytes are read.
fn discard_received(socket: &OwnedFd) {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, so none is given; the descriptor is open,
    // because it is borrowed from its owner.
    let discarded = unsafe {
        libc::recv(
            socket.as_fd().as_raw_fd(),
            std::ptr::null_mut(),
            DISCARD_BYTES_MAX,
            libc::MSG_TRUNC | libc::MSG_DONTWAIT,
        )
    };
    if discarded < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT) {
        let mut buffer = [0; DISCARD_BUFFER_BYTES];
        let mut reads = 0..DISCARD_READS_MAX;
        while reads.next().is_some() && receive(socket, &mut buffer).is_ok_and(|read| read > 0) {}
    }
}

/// The flags with which both drivers send; the io_uring driver adds MSG_WAITALL.
pub(super) const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;

/// Length of the accept queue, which the kernel caps at `net.core.somaxconn`. A mass reconnect fills a short queue
/// within milliseconds.
pub(super) const BACKLOG: i32 = 65_535;
const NOTSENT_BYTES_MAX: u32 = 16_384;
/// A peer that acknowledges no data for this long is gone. It may also be a client that pauses reading: how its backlog
/// is handled is the channel's delivery policy, so this is longer than a pause that a client may make.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(90);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_RETRIES: u32 = 3;
/// Together more than the receive buffer of a Unix socket.
const DISCARD_BUFFER_BYTES: usize = 4096;
const DISCARD_READS_MAX: usize = 128;
/// More than any receive buffer holds.
const DISCARD_BYTES_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn any(address: &str) -> SocketAddr {
        address.parse().expect("a literal address")
    }

    #[test]
    fn two_listeners_share_a_port_and_a_probe_sees_it_taken() {
        let (address, held) = hold_free_port(any("127.0.0.1:0")).unwrap();
        assert_ne!(address.port(), 0);
        let one = bind_listener(address, Keepalive::Off).unwrap();
        let two = bind_listener(address, Keepalive::Kernel).unwrap();
        assert_eq!(one.local_addr().unwrap(), two.local_addr().unwrap());
        assert_eq!(bind_probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((one, two, held));
        assert!(bind_probe(address).is_ok());
    }

    #[test]
    fn a_held_port_can_be_bound_by_listeners_and_does_not_block_it_afterwards() {
        let (address, held) = hold_free_port(any("127.0.0.1:0")).unwrap();
        // It does not listen, so connecting fails.
        assert!(std::net::TcpStream::connect(address).is_err());
        let listener = bind_listener(address, Keepalive::Off).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        drop(listener);
        assert!(bind_probe(address).is_ok());
        drop(held);
    }

    #[test]
    fn both_address_families_bind_one_port() {
        let Ok(six) = bind_listener(any("[::]:0"), Keepalive::Off) else {
            return; // no IPv6 on this host
        };
        let port = six.local_addr().unwrap().port();
        assert!(bind_listener(any(&format!("0.0.0.0:{port}")), Keepalive::Off).is_ok());
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listener = bind_listener(any("127.0.0.1:0"), Keepalive::Kernel).unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = accept(&listener.into()).unwrap();
        assert_eq!(address, Some(peer.local_addr().unwrap()));
        let socket = Socket::from(socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_BYTES_MAX);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
    }

    #[test]
    fn an_orderly_close_delivers_sent_bytes_despite_unread_ones() {
        use std::io::Write;
        let listener = bind_listener(any("127.0.0.1:0"), Keepalive::Off).unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = accept(&listener.into()).unwrap();
        peer.write_all(b"never read").unwrap();
        send(&socket, b"bye").unwrap();
        close(socket, Close::Orderly);
        let mut read = Vec::new();
        peer.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"bye");
    }
}
