//! io_uring: oneshot polls, `recv(2)`, and sends that complete inside the submission.
//!
//! With `MSG_DONTWAIT|MSG_WAITALL` and success completions skipped, a send either succeeds entirely and without a
//! completion, or its completion is available when the submission returns. A buffer must therefore stay valid only
//! until completions are read, and one buffer serves the whole turn.
#![expect(unsafe_code, reason = "pushing entries whose buffers the kernel reads")]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{
    CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, opcode, squeue, types,
};

use super::peer::{Mode, Peers};
use super::round::Round;
use super::socket::{self, ACCEPTS_PER_TURN_MAX};

pub fn serve(listener: &TcpListener, mode: Mode) -> io::Result<()> {
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)?;
    let (mut submitter, submissions, completions) = ring.split();
    // Every submission then saves the lookup of the ring's descriptor.
    submitter.register_ring_fd()?;
    let mut state = Loop {
        submitter,
        submissions,
        completions,
        mode,
        peers: Peers::default(),
        ready: Vec::new(),
        sends: Vec::new(),
        arena: vec![0; ARENA_BYTES].into_boxed_slice(),
        arena_used: 0,
        round: Round::default(),
    };
    state.serve(listener.as_raw_fd())
}

struct Loop<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    completions: CompletionQueue<'a>,
    mode: Mode,
    peers: Peers,
    /// Polls that completed: the work of the next turn.
    ready: Vec<(Kind, RawFd)>,
    /// Sends since completions were last read.
    sends: Vec<PendingSend>,
    /// Received bytes, turned into answers in place; sends read from it.
    arena: Box<[u8]>,
    arena_used: usize,
    round: Round,
}

struct PendingSend {
    fd: RawFd,
    bytes: *const u8,
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accept,
    Readable,
    Writable,
    Send,
}

impl Loop<'_> {
    fn serve(&mut self, listener: RawFd) -> io::Result<()> {
        self.arm(Kind::Accept, listener)?;
        let mut turn = Vec::new();
        loop {
            // A submission within the last turn may have collected work already.
            self.submit(usize::from(self.ready.is_empty() && self.round.is_done()))?;
            self.round.settle();
            std::mem::swap(&mut turn, &mut self.ready);
            for (kind, fd) in turn.drain(..) {
                match kind {
                    Kind::Accept => self.accept(fd)?,
                    Kind::Readable => self.receive(fd)?,
                    Kind::Writable => self.flush(fd)?,
                    Kind::Send => {}
                }
            }
            if !self.round.is_done() {
                self.visit()?;
            }
        }
    }

    fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let Some(fd) = socket::accept(listener) else { break };
            self.peers.insert(fd);
            // Clients send at once after connecting: trying to receive costs less than a poll.
            self.ready.push((Kind::Readable, fd));
        }
        self.arm(Kind::Accept, listener)
    }

    fn receive(&mut self, fd: RawFd) -> io::Result<()> {
        loop {
            if self.arena.len() - self.arena_used < RECEIVE_BYTES_MAX {
                self.submit(0)?;
            }
            let Some(peer) = self.peers.find(fd) else { return Ok(()) };
            let window = &mut self.arena[self.arena_used..][..RECEIVE_BYTES_MAX];
            let start = peer.rest.len();
            window[..start].copy_from_slice(&peer.rest);
            peer.rest.clear();
            let received = match socket::receive(fd, &mut window[start..]) {
                Ok(0) => return self.close(fd),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    peer.rest.extend_from_slice(&window[..start]);
                    return self.arm(Kind::Readable, fd);
                }
                Err(_) => return self.close(fd),
            };
            let filled = start + received;
            let consumed =
                self.peers.consume(fd, &mut window[..filled], self.mode, &mut self.round);
            if consumed.answer_bytes > 0 {
                let bytes = self.arena[self.arena_used..].as_ptr();
                self.arena_used += consumed.answer_bytes;
                self.send(fd, bytes, consumed.answer_bytes)?;
            }
            if consumed.over {
                self.submit(0)?;
                return self.close(fd);
            }
            if filled < RECEIVE_BYTES_MAX {
                return self.arm(Kind::Readable, fd);
            }
            // Two sends to one socket in one submission could be reordered.
            self.submit(0)?;
        }
    }

    /// Sends new frames to the next connections.
    fn visit(&mut self) -> io::Result<()> {
        if !self.sends.is_empty() {
            // Answers of this turn are sent first: at most one send per socket and submission.
            self.submit(0)?;
        }
        for place in self.round.next(self.peers.open().len()) {
            let fd = self.peers.open()[place];
            let Some(peer) = self.peers.find(fd) else { continue };
            let seen = std::mem::replace(&mut peer.seen, self.round.end());
            if seen < peer.seen {
                let bytes = self.round.since(seen);
                let (bytes, count) = (bytes.as_ptr(), bytes.len());
                self.send(fd, bytes, count)?;
            }
        }
        Ok(())
    }

    /// Queues a send. The bytes must stay valid until the next `submit` has returned.
    fn send(&mut self, fd: RawFd, bytes: *const u8, count: usize) -> io::Result<()> {
        let Some(peer) = self.peers.find(fd) else { return Ok(()) };
        if !peer.unsent.is_empty() {
            // SAFETY: by this function's condition the bytes are alive.
            peer.unsent.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes, count) });
            return Ok(());
        }
        let entry = opcode::Send::new(types::Fd(fd), bytes, count as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Kind::Send, self.sends.len() as u64));
        self.push(&entry)?;
        self.sends.push(PendingSend { fd, bytes, count });
        Ok(())
    }

    /// Sends queued bytes when the socket has become writable.
    fn flush(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(peer) = self.peers.find(fd) else { return Ok(()) };
        match socket::send(fd, &peer.unsent) {
            Ok(count) => drop(peer.unsent.drain(..count)),
            Err(_) => return self.close(fd),
        }
        if peer.unsent.is_empty() { Ok(()) } else { self.arm(Kind::Writable, fd) }
    }

    fn arm(&mut self, kind: Kind, fd: RawFd) -> io::Result<()> {
        let events = if kind == Kind::Writable { libc::POLLOUT } else { libc::POLLIN };
        let entry = opcode::PollAdd::new(types::Fd(fd), events as u32)
            .build()
            .user_data(user_data(kind, fd as u64));
        self.push(&entry)
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: polls have no buffer; the bytes of a send live until its submission has returned and its
        // completion, if any, has been seen: the arena is rewound, and the round changed, only after that.
        while unsafe { self.submissions.push(entry) }.is_err() {
            // The list of sends is kept, so that indexes of this turn stay valid.
            self.submissions.sync();
            self.enter(0)?;
        }
        Ok(())
    }

    fn enter(&mut self, wait_for: usize) -> io::Result<()> {
        let count = self.submissions.len() as u32;
        // Fired polls complete only inside a call that requests completions.
        let wants_completions =
            wait_for > 0 || self.submissions.taskrun() || self.submissions.cq_overflow();
        if count == 0 && !wants_completions {
            return Ok(());
        }
        let flags = if wants_completions { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        // SAFETY: without an argument; the entries submitted are valid by `push`.
        match unsafe {
            self.submitter.enter::<libc::sigset_t>(count, wait_for as u32, flags.bits(), None)
        } {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.submissions.sync();
        Ok(())
    }

    /// Submits everything, waits for `wait_for` completions, collects them, and queues the rest of incomplete sends.
    fn submit(&mut self, wait_for: usize) -> io::Result<()> {
        self.submissions.sync();
        self.enter(wait_for)?;
        self.completions.sync();
        let mut late = Vec::new();
        for completion in &mut self.completions {
            match kind_and_value(completion.user_data()) {
                (Kind::Send, index) => late.push((index as usize, completion.result())),
                (kind, fd) => self.ready.push((kind, fd as RawFd)),
            }
        }
        // Otherwise the kernel would count these completions as unread in the next wait.
        self.completions.sync();
        for (index, result) in late {
            let PendingSend { fd, bytes, count } = self.sends[index];
            let sent = match result {
                sent @ 0.. => sent as usize,
                error if error == -libc::EAGAIN => 0,
                _ => {
                    self.peers.remove(fd, &mut self.round);
                    socket::end(fd);
                    continue;
                }
            };
            let Some(peer) = self.peers.find(fd) else { continue };
            // SAFETY: the arena has not been rewound, nor the round changed, since this was sent.
            let bytes = unsafe { std::slice::from_raw_parts(bytes, count) };
            peer.unsent.extend_from_slice(&bytes[sent..]);
            self.arm(Kind::Writable, fd)?;
        }
        self.sends.clear();
        self.arena_used = 0;
        Ok(())
    }

    fn close(&mut self, fd: RawFd) -> io::Result<()> {
        let is_armed = self.peers.find(fd).is_some_and(|peer| !peer.unsent.is_empty());
        self.peers.remove(fd, &mut self.round);
        if is_armed {
            socket::end(fd)
        } else {
            socket::close(fd)
        }
        Ok(())
    }
}

fn user_data(kind: Kind, value: u64) -> u64 {
    (kind as u64) << 32 | value
}

fn kind_and_value(user_data: u64) -> (Kind, u64) {
    let kind = match user_data >> 32 {
        0 => Kind::Accept,
        1 => Kind::Readable,
        2 => Kind::Writable,
        _ => Kind::Send,
    };
    (kind, user_data & 0xffff_ffff)
}

const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 32_768;
const RECEIVE_BYTES_MAX: usize = 65_536;
const ARENA_BYTES: usize = 4 << 20;
