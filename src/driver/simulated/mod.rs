//! A driver without a kernel: the same contract in memory and in virtual time, with injected faults.
//!
//! Tests of the rooms above run whole servers on it: thousands of connections in one thread, days in a second, and the
//! same run for the same seed. `wait` never sleeps; the test moves the clock and controls the peers.

mod network;
mod random;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use network::{Faults, PeerId, SimulatedNetwork};

use super::turn::Turn;
use super::{
    Close, Driver, DriverSettings, End, Event, Late, ListenerId, SendBatch, SendItem, SendResult,
    SocketId,
};
use network::{Listening, Slot, WorkerState, address_of};

/// Sockets of a [`SimulatedNetwork`].
#[derive(Debug)]
pub struct SimulatedDriver {
    network: SimulatedNetwork,
    /// The driver's index among those of the network.
    worker: usize,
    buffer: Vec<u8>,
    turn: Turn,
    now: Instant,
    closed: VecDeque<SocketId>,
    closed_late: Vec<SocketId>,
    is_woken: bool,
    /// The listener to accept from next in this turn.
    accepting: usize,
    accepts_left: usize,
    accepts_per_turn_max: usize,
}

/// The wall clock of every simulation, which never moves.
const WALL_CLOCK: Duration = Duration::from_secs(784_111_777);

/// An accepted connection without an id; dropping it resets it.
#[derive(Debug)]
pub struct SimulatedSocket {
    network: SimulatedNetwork,
    /// `None` once it is attached.
    link: Option<usize>,
}

enum Step {
    Received(usize),
    Ended(End),
    Sendable,
}

impl SimulatedDriver {
    /// A driver that listens on `addresses`, which other drivers of the same network may share. The index of an address
    /// is its [`ListenerId`].
    pub fn new(
        settings: &DriverSettings,
        network: &SimulatedNetwork,
        addresses: &[SocketAddr],
    ) -> Self {
        let mut inner = network.0.borrow_mut();
        let worker = inner.workers.len();
        let listeners = addresses
            .iter()
            .map(|&address| Listening {
                address: Some(address),
                backlog: VecDeque::new(),
                paused: false,
            })
            .collect();
        inner.workers.push(WorkerState { listeners, ..WorkerState::default() });
        Self {
            network: network.clone(),
            worker,
            buffer: vec![0; settings.receive_buffer_bytes],
            turn: Turn::new(settings),
            now: inner.now(),
            closed: VecDeque::new(),
            closed_late: Vec::new(),
            is_woken: false,
            accepting: 0,
            accepts_left: 0,
            accepts_per_turn_max: 0,
        }
    }

    /// Wakes the driver, as a [`Waker`](super::Waker) does with real sockets: the next turn has [`Event::Woken`].
    pub fn wake(&mut self) {
        self.is_woken = true;
    }

    /// Sends one item. Returns `None` if it was taken whole.
    fn send(&self, batch: &SendBatch, item: &SendItem) -> Option<SendResult> {
        let mut network = self.network.0.borrow_mut();
        let Some(slot) = network.open(self.worker, item.id) else {
            return Some(SendResult::Failed);
        };
        let index = slot.link;
        let link = &network.links[index];
        if link.reset || link.server_fin {
            return Some(SendResult::Failed);
        }
        if link.peer_closed {
            // The peer's kernel answers with RST; the send itself succeeds.
            network.links[index].reset();
            network.touch(index);
            return None;
        }
        let wanted = item.bytes as usize;
        let mut taken = wanted.min(link.room());
        if taken > 0 && network.chance(|faults| faults.short_sends) {
            taken = network.random.below(taken);
        }
        let mut left = taken;
        let link = &mut network.links[index];
        for slice in batch.slices(item) {
            let count = left.min(slice.len());
            link.to_peer.extend(&slice[..count]);
            left -= count;
        }
        if taken == wanted {
            return None;
        }
        if let Some(slot) = network.open(self.worker, item.id) {
            slot.blocked = true;
        }
        network.touch(index);
        Some(SendResult::Short(u32::try_from(taken).expect("less than the item's bytes")))
    }

    /// Reports that a socket has room to send, or receives from it once.
    fn step(&mut self, id: SocketId) -> Option<Step> {
        let mut network = self.network.0.borrow_mut();
        let slot = network.open(self.worker, id)?;
        slot.listed = false;
        let (index, paused, ended, blocked) = (slot.link, slot.paused, slot.ended, slot.blocked);
        let link = &network.links[index];
        if blocked && (link.reset || link.room() > 0) {
            let is_readable = link.is_readable();
            let slot = network.open(self.worker, id)?;
            slot.blocked = false;
            if is_readable && !paused && !ended {
                slot.listed = true;
                let is_bulky = slot.is_bulky;
                self.turn.put_back(&mut network.workers[self.worker].waiting, id, is_bulky);
            }
            return Some(Step::Sendable);
        }
        if paused || ended {
            return None;
        }
        if network.chance(|faults| faults.resets) {
            network.links[index].reset();
            network.links[index].to_server.clear();
        }
        let split = network.chance(|faults| faults.split_receives);
        let link = &network.links[index];
        let window = self.turn.receive_bytes_max(network.workers[self.worker].is_quiet());
        let mut count = link.to_server.len().min(window);
        if count == 0 {
            let end = match (link.reset, link.peer_fin) {
                (true, _) => End::Reset,
                (false, true) => End::Eof,
                (false, false) => return None,
            };
            network.open(self.worker, id)?.ended = true;
            return Some(Step::Ended(end));
        }
        if split {
            count = 1 + network.random.below(count);
        }
        let link = &mut network.links[index];
        for (place, byte) in self.buffer.iter_mut().zip(link.to_server.drain(..count)) {
            *place = byte;
        }
        let slot = network.open(self.worker, id)?;
        slot.is_new = false;
        slot.is_bulky = self.turn.is_bulky(count);
        network.list_again(index);
        Some(Step::Received(count))
    }

    fn next_accept<'a>(&mut self) -> Option<Event<'a, SimulatedSocket>> {
        let mut network = self.network.0.borrow_mut();
        let network = &mut *network;
        let listeners = &mut network.workers[self.worker].listeners;
        let listening = loop {
            let listening = listeners.get_mut(self.accepting)?;
            if listening.is_ready() && self.accepts_left > 0 {
                break listening;
            }
            self.accepting += 1;
            self.accepts_left = self.accepts_per_turn_max;
        };
        self.accepts_left -= 1;
        let listener = ListenerId(u8::try_from(self.accepting).expect("few listeners"));
        if network.random.chance(network.faults.accept_failures) {
            listening.paused = true;
            let error = io::Error::from_raw_os_error(libc::EMFILE);
            return Some(Event::AcceptFailed { listener, error });
        }
        let link = listening.backlog.pop_front()?;
        Some(Event::Accepted {
            listener,
            socket: SimulatedSocket { network: self.network.clone(), link: Some(link) },
            peer: Some(address_of(link)),
        })
    }
}

impl Driver for SimulatedDriver {
    type Socket = SimulatedSocket;

    fn now(&self) -> Instant {
        self.now
    }

    fn read_clock(&self) -> Instant {
        self.network.0.borrow().now()
    }

    fn wall_clock(&self) -> Duration {
        WALL_CLOCK
    }

    fn attach(&mut self, id: SocketId, mut socket: SimulatedSocket) {
        let mut network = self.network.0.borrow_mut();
        let link = socket.link.take().expect("a socket is attached once");
        let slots = &mut network.workers[self.worker].slots;
        let index = id.index as usize;
        if index >= slots.len() {
            slots.resize_with(index + 1, || None);
        }
        assert!(slots[index].is_none(), "an index is used again only after Closed");
        slots[index] = Some(Slot {
            id,
            link,
            paused: false,
            ended: false,
            blocked: false,
            listed: false,
            is_new: true,
            is_bulky: false,
            closing: false,
        });
        network.links[link].owner = Some((self.worker, id));
        network.touch(link);
    }

    /// Returns at once and ignores `timeout`: the test moves the clock.
    fn wait(&mut self, batch: &mut SendBatch, _timeout: Option<Duration>) -> io::Result<()> {
        let mut late = std::mem::take(&mut batch.late);
        late.clear();
        for (item, index) in batch.items().iter().zip(0..) {
            if let Some(result) = self.send(batch, item) {
                late.push(Late { item: index, result });
            }
        }
        batch.late = late;
        self.closed.extend(self.closed_late.drain(..));
        let mut network = self.network.0.borrow_mut();
        network.end_stalls(self.worker);
        let accepts_per_turn_max = self.turn.begin(&network.workers[self.worker].waiting);
        self.accepting = 0;
        self.accepts_per_turn_max = accepts_per_turn_max;
        self.accepts_left = accepts_per_turn_max;
        self.now = network.now();
        Ok(())
    }

    /// Events come in the order of the drivers of real sockets.
    fn next_event(&mut self) -> Option<Event<'_, SimulatedSocket>> {
        if std::mem::take(&mut self.is_woken) {
            return Some(Event::Woken);
        }
        while self.turn.has_room() {
            if let Some(id) = self.closed.pop_front() {
                self.turn.count_event();
                self.network.0.borrow_mut().workers[self.worker].slots[id.index as usize] = None;
                return Some(Event::Closed { id });
            }
            if let Some(event) = self.next_accept() {
                return Some(event);
            }
            let next =
                self.turn.next(&mut self.network.0.borrow_mut().workers[self.worker].waiting);
            let Some(id) = next else { break };
            if let Some(step) = self.step(id) {
                self.turn.count_event();
                return Some(match step {
                    Step::Received(count) => {
                        self.turn.count_received(count);
                        Event::Received { id, bytes: &mut self.buffer[..count] }
                    }
                    Step::Ended(end) => Event::Ended { id, end },
                    Step::Sendable => Event::Sendable { id },
                });
            }
        }
        self.next_accept()
    }

    fn pause(&mut self, id: SocketId) {
        if let Some(slot) = self.network.0.borrow_mut().open(self.worker, id) {
            slot.paused = true;
        }
    }

    fn resume(&mut self, id: SocketId) {
        let mut network = self.network.0.borrow_mut();
        if let Some(slot) = network.open(self.worker, id) {
            slot.paused = false;
            let link = slot.link;
            network.list_again(link);
        }
    }

    fn acknowledge(&mut self, _: SocketId) {}

    fn shutdown_write(&mut self, id: SocketId) {
        let mut network = self.network.0.borrow_mut();
        if let Some(slot) = network.open(self.worker, id) {
            let link = slot.link;
            network.links[link].server_fin = true;
        }
    }

    fn close(&mut self, id: SocketId, how: Close) {
        let mut network = self.network.0.borrow_mut();
        let Some(slot) = network.open(self.worker, id) else { return };
        slot.closing = true;
        let index = slot.link;
        let link = &mut network.links[index];
        link.owner = None;
        link.server_fin = true;
        link.server_closed = true;
        link.to_server = VecDeque::new();
        if how == Close::Abort {
            link.reset();
        }
        if network.chance(|faults| faults.late_closes) {
            self.closed_late.push(id);
        } else {
            self.closed.push_back(id);
        }
    }

    fn resume_accepting(&mut self, listener: ListenerId) {
        let listeners = &mut self.network.0.borrow_mut().workers[self.worker].listeners;
        if let Some(listening) = listeners.get_mut(usize::from(listener.0)) {
            listening.paused = false;
        }
    }

    fn stop_listening(&mut self) {
        let mut network = self.network.0.borrow_mut();
        let network = &mut *network;
        for listening in &mut network.workers[self.worker].listeners {
            listening.address = None;
            for link in listening.backlog.drain(..) {
                network.links[link].reset();
            }
        }
    }
}

impl Drop for SimulatedSocket {
    fn drop(&mut self) {
        if let Some(link) = self.link {
            self.network.0.borrow_mut().links[link].reset();
        }
    }
}
