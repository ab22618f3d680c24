//! Opens connections within the rate and the number of handshakes in flight, each within a timeout, and reopens them
//! after a drop.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::state::Engine;
use crate::connection::{Connection, Role, State};
use crate::endpoint::{Handshake, WireProtocol};
use crate::instrument::bind_address_no_port;
use crate::shared::{Recorder, Step, cause_of};

impl Engine {
    /// Starts as many connections as the rate and the maximum in flight allow.
    pub(super) fn open_more(&mut self) {
        if self.attempts.is_done(self.connections.len()) || self.step == Step::Read {
            return;
        }
        // After a drop, all reconnect as fast as possible.
        let rate = if self.step == Step::Drop { 0.0 } else { self.settings.rate };
        let now = Instant::now();
        let earned = (now - self.attempts.allowed_at).as_secs_f64() * rate;
        self.attempts.allowed_at = now;
        // Unused allowance is capped, so that a pause is not followed by a burst.
        let burst = (rate * ALLOWANCE_SECONDS_MAX).max(1.0);
        self.attempts.allowance = (self.attempts.allowance + earned).min(burst);
        while self.attempts.in_flight < self.settings.in_flight_max
            && (rate == 0.0 || self.attempts.allowance >= 1.0)
        {
            let now_ms = self.now_ms();
            let Some(index) = self.attempts.next(self.connections.len(), now_ms) else { return };
            self.attempts.allowance -= 1.0;
            self.begin(index, now_ms);
        }
    }

    /// How long until a connection may have to be started or failed.
    pub(super) fn until_opening(&self) -> Duration {
        if self.attempts.is_done(self.connections.len())
            || self.attempts.in_flight >= self.settings.in_flight_max
        {
            Duration::MAX
        } else {
            ALLOWANCE_PAUSE
        }
    }

    fn begin(&mut self, index: usize, now_ms: u32) {
        self.attempts.attempts += 1;
        let connection = &mut self.connections[index];
        connection.began_ms = now_ms;
        connection.state = State::Connecting;
        self.attempts.in_flight += 1;
        match self.connect(index) {
            Ok(socket) => {
                self.connections[index].socket = Some(socket);
                self.attempts.started.push_back((index as u32, now_ms));
            }
            Err(error) => self.fail(index, &cause_of(&error)),
        }
    }

    fn connect(&self, index: usize) -> io::Result<OwnedFd> {
        let role = self.connections[index].role;
        let address = self.endpoint(index).address;
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        match role {
            // Without Nagle's algorithm, which would delay small messages.
            Role::Echo | Role::Canary => socket.set_tcp_nodelay(true)?,
            // Set before connecting: it bounds the TCP window.
            Role::Slow => socket.set_recv_buffer_size(self.settings.slow_receive_buffer)?,
            Role::Idle | Role::Subscriber => {}
        }
        let source = self.settings.sources.address(self.attempts.thread, self.attempts.attempts);
        if let Some(source) = source {
            bind_address_no_port(&socket)?;
            socket.bind(&source.into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        self.poll.registry().register(
            &mut SourceFd(&socket.as_raw_fd()),
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(socket.into())
    }

    /// Handles the end of a TCP connect: sends the first handshake, or fails the attempt.
    pub(super) fn connected(&mut self, index: usize, recorder: &mut Recorder) {
        let connection = &mut self.connections[index];
        let Some(socket) = &connection.socket else { return };
        match SockRef::from(socket).take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.fail(index, &cause_of(&error)),
        }
        connection.state = State::Handshaking;
        if self.encryption.is_some() {
            self.begin_tls(index);
        } else {
            self.begin_protocol(index, recorder);
        }
    }

    /// Sends the handshake of the protocol.
    pub(super) fn begin_protocol(&mut self, index: usize, recorder: &mut Recorder) {
        let (endpoint, channel) = (self.endpoint(index), self.connections[index].channel);
        self.connections[index].decoder = endpoint.decoder();
        let key = self.key(index);
        endpoint.write_handshake(&mut self.out, channel, key);
        self.send(index);
        if endpoint.protocol == WireProtocol::Lines {
            self.opened(index, recorder);
        }
    }

    /// Takes a part of the handshake response; returns the bytes behind it.
    pub(super) fn continue_handshake(
        &mut self,
        index: usize,
        bytes: &[u8],
        recorder: &mut Recorder,
    ) -> Vec<u8> {
        let mut all = self.unread.remove(&index).unwrap_or_default();
        all.extend_from_slice(bytes);
        match self.endpoint(index).check_handshake(&all, self.key(index)) {
            Handshake::Incomplete => {
                self.unread.insert(index, all);
                Vec::new()
            }
            Handshake::Complete(used) => {
                self.opened(index, recorder);
                all.split_off(used)
            }
            Handshake::Refused(cause) => {
                self.fail(index, &cause);
                Vec::new()
            }
        }
    }

    fn opened(&mut self, index: usize, recorder: &mut Recorder) {
        let now_ns = self.shared.now_ns();
        let connection = &mut self.connections[index];
        connection.state = State::Open;
        connection.was_open = true;
        self.attempts.in_flight -= 1;
        let began_ns = u64::from(connection.began_ms) * NANOSECONDS_PER_MS;
        recorder.opening.record(now_ns.saturating_sub(began_ns));
        if connection.role == Role::Subscriber {
            let channel = &self.shared.channels[connection.channel as usize];
            channel.subscribers.fetch_add(1, Ordering::AcqRel);
        }
        let tally = &self.shared.threads[self.index].tally;
        tally.opened.add(1);
        tally.open.add(1);
        self.shared.record_opening(now_ns);
    }

    /// Counts a failed attempt. After a drop it is retried; otherwise the connection is gone.
    pub(super) fn fail(&mut self, index: usize, cause: &str) {
        self.attempts.in_flight -= 1;
        self.shared.add_failure(&self.located(index, cause));
        self.shared.threads[self.index].tally.failed.add(1);
        self.end(index);
    }

    /// Adds the idle target to a cause where connections go to two addresses.
    pub(super) fn located<'a>(&self, index: usize, cause: &'a str) -> Cow<'a, str> {
        let address = self.endpoint(index).address;
        match address == self.endpoint.address {
            true => Cow::Borrowed(cause),
            false => Cow::Owned(format!("{cause} (idle target {address})")),
        }
    }

    /// Releases the resources of a connection. After a drop it is retried; otherwise it is gone.
    pub(super) fn end(&mut self, index: usize) {
        self.unread.remove(&index);
        self.unsent.remove(&index);
        if let Some(encryption) = &mut self.encryption {
            encryption.remove(index);
        }
        let now_ms = self.now_ms();
        let connection = &mut self.connections[index];
        connection.socket = None;
        if self.step == Step::Drop && connection.role != Role::Canary {
            connection.state = State::New;
            self.attempts.retries.push_back((index as u32, now_ms + RETRY_AFTER_MS));
        } else {
            connection.state = State::Gone;
        }
    }

    /// Fails attempts that exceed the timeout.
    pub(super) fn fail_late_handshakes(&mut self) {
        let timeout_ms = self.settings.opening_timeout.as_millis() as u32;
        let now_ms = self.now_ms();
        while let Some(&(index, began_ms)) = self.attempts.started.front() {
            let connection = &self.connections[index as usize];
            if connection.is_opening() && connection.began_ms == began_ms {
                if now_ms - began_ms < timeout_ms {
                    return;
                }
                let cause = match connection.state {
                    State::Connecting => "connect timeout",
                    _ => "handshake timeout",
                };
                self.fail(index as usize, cause);
            }
            self.attempts.started.pop_front();
        }
    }

    /// Closes all connections but the canaries and queues them to reconnect.
    pub(super) fn drop_all(&mut self) {
        let tally = &self.shared.threads[self.index].tally;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if connection.role == Role::Canary || connection.state != State::Open {
                continue;
            }
            let Some(socket) = connection.socket.take() else { continue };
            if self.settings.drop_resets {
                // It fails only if the connection is already closed.
                let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
            if let Some(encryption) = &mut self.encryption {
                encryption.remove(index);
            }
            let Connection { role, channel, .. } = *connection;
            *connection = Connection::new(role, channel);
            self.attempts.retries.push_back((index as u32, 0));
            tally.open.set(tally.open.value() - 1);
        }
        self.unread.clear();
        self.unsent.retain(|index, _| self.connections[*index].state == State::Open);
    }

    fn key(&self, index: usize) -> u64 {
        (self.index as u64) << 32 | index as u64
    }

    fn now_ms(&self) -> u32 {
        (self.shared.now_ns() / NANOSECONDS_PER_MS) as u32
    }
}

const NANOSECONDS_PER_MS: u64 = 1_000_000;

const ALLOWANCE_SECONDS_MAX: f64 = 0.05;
const ALLOWANCE_PAUSE: Duration = Duration::from_millis(5);
const RETRY_AFTER_MS: u32 = 100;
