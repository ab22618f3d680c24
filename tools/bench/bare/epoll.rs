//! Edge-triggered epoll: sockets are registered once, read until a short `recv`, with one `send` per read.
#![expect(
    unsafe_code,
    reason = "epoll_create1, epoll_ctl and epoll_wait, without the cost of a library"
)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use super::peer::{Mode, Peer, Peers};
use super::round::Round;
use super::socket::{self, ACCEPTS_PER_TURN_MAX};

pub fn serve(listener: &TcpListener, mode: Mode) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let listener = listener.as_raw_fd();
    epoll.add(listener, libc::EPOLLIN)?;
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_TURN_MAX];
    let buffer = vec![0; 65_536];
    let mut state = Loop { epoll, mode, peers: Peers::default(), buffer, round: Round::default() };
    loop {
        let timeout = if state.round.is_done() { -1 } else { 0 };
        let count = state.epoll.wait(&mut events, timeout)?;
        for event in &events[..count] {
            let fd = event.u64 as RawFd;
            if fd == listener {
                state.accept(listener)?;
            } else {
                state.handle(fd, event.events as i32);
            }
        }
        state.visit();
    }
}

struct Loop {
    epoll: Epoll,
    mode: Mode,
    peers: Peers,
    buffer: Vec<u8>,
    round: Round,
}

impl Loop {
    fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let Some(fd) = socket::accept(listener) else { break };
            self.peers.insert(fd);
            self.epoll
                .add(fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET)?;
        }
        Ok(())
    }

    fn handle(&mut self, fd: RawFd, events: i32) {
        let Some(peer) = self.peers.find(fd) else { return };
        if events & libc::EPOLLOUT != 0 && !peer.unsent.is_empty() {
            let unsent = std::mem::take(&mut peer.unsent);
            if !send(peer, fd, &unsent) {
                return self.close(fd);
            }
        }
        let ended = events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
        if ended || events & libc::EPOLLIN != 0 {
            self.receive(fd, ended);
        }
    }

    fn receive(&mut self, fd: RawFd, ended: bool) {
        loop {
            let Some(peer) = self.peers.find(fd) else { return };
            let start = peer.rest.len();
            self.buffer[..start].copy_from_slice(&peer.rest);
            peer.rest.clear();
            let received = match socket::receive(fd, &mut self.buffer[start..]) {
                Ok(0) => return self.close(fd),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    peer.rest.extend_from_slice(&self.buffer[..start]);
                    return;
                }
                Err(_) => return self.close(fd),
            };
            let filled = start + received;
            let consumed =
                self.peers.consume(fd, &mut self.buffer[..filled], self.mode, &mut self.round);
            let Some(peer) = self.peers.find(fd) else { return };
            let answer = &self.buffer[..consumed.answer_bytes];
            let is_broken = !answer.is_empty() && !send(peer, fd, answer);
            if consumed.over || is_broken {
                return self.close(fd);
            }
            // A short read emptied the socket, unless the end of the stream is still to be read.
            if filled < self.buffer.len() && !ended {
                return;
            }
        }
    }

    /// Sends new frames to the next connections.
    fn visit(&mut self) {
        for place in self.round.next(self.peers.open().len()) {
            let Some(&fd) = self.peers.open().get(place) else { break };
            let Some(peer) = self.peers.find(fd) else { continue };
            let seen = std::mem::replace(&mut peer.seen, self.round.end());
            if seen < peer.seen && !send(peer, fd, self.round.since(seen)) {
                self.close(fd);
            }
        }
        self.round.settle();
    }

    fn close(&mut self, fd: RawFd) {
        self.peers.remove(fd, &mut self.round);
        socket::close(fd);
    }
}

/// Sends bytes or queues them; returns whether the connection is alive.
fn send(peer: &mut Peer, fd: RawFd, bytes: &[u8]) -> bool {
    if !peer.unsent.is_empty() {
        peer.unsent.extend_from_slice(bytes);
        return true;
    }
    let sent = socket::send(fd, bytes);
    if let Ok(count) = sent
        && count < bytes.len()
    {
        peer.unsent.extend_from_slice(&bytes[count..]);
    }
    sent.is_ok()
}

struct Epoll(RawFd);

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    fn add(&self, fd: RawFd, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: fd as u64 };
        // SAFETY: `event` is valid for the call.
        let result = unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wait(&self, events: &mut [libc::epoll_event], timeout: i32) -> io::Result<usize> {
        // SAFETY: pointer and length are those of one exclusive slice.
        let count =
            unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), events.len() as i32, timeout) };
        if count >= 0 {
            return Ok(count as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
    }
}

const EVENTS_PER_TURN_MAX: usize = 1024;
