//! Links between drivers and peers, in memory and in virtual time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::random::Random;
use crate::driver::turn::Waiting;
use crate::driver::{End, SocketId};

/// A network that simulated drivers and a test's peers share, in one thread. The test moves its clock.
#[derive(Clone, Debug)]
pub struct SimulatedNetwork(pub(super) Rc<RefCell<Network>>);

/// The remote end of a connection, controlled by a test. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// Faults of the network, each as its probability in thousandths. All are 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A receive returns only a part of the bytes available.
    pub split_receives: u16,
    /// A send is taken only in part although there is room.
    pub short_sends: u16,
    /// A socket's readiness is reported later, by up to `stall_max`.
    pub stalls: u16,
    /// The longest stall.
    pub stall_max: Duration,
    /// The connection is reset instead of being received from.
    pub resets: u16,
    /// [`Event::Closed`](crate::driver::Event::Closed) comes a turn later.
    pub late_closes: u16,
    /// Accepting fails because no descriptor is free.
    pub accept_failures: u16,
}

impl SimulatedNetwork {
    /// A network whose random choices follow from `seed`. Print the seed when a test fails.
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Network {
            seed,
            random: Random::new(seed),
            faults: Faults::default(),
            base: Instant::now(),
            elapsed: Duration::ZERO,
            links: Vec::new(),
            workers: Vec::new(),
        })))
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.0.borrow().seed
    }

    /// Sets the probability of faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        self.0.borrow().now()
    }

    /// Lets time pass. Drivers see it in their next `wait`.
    pub fn advance(&self, by: Duration) {
        self.0.borrow_mut().elapsed += by;
    }

    /// Connects a peer, to a random one of the workers that listen on the address. `None`: refused.
    pub fn connect(&self, address: SocketAddr) -> Option<PeerId> {
        let mut network = self.0.borrow_mut();
        let mut places = Vec::new();
        for (worker, state) in network.workers.iter().enumerate() {
            for (listener, listening) in state.listeners.iter().enumerate() {
                if listening.address == Some(address) {
                    places.push((worker, listener));
                }
            }
        }
        if places.is_empty() {
            return None;
        }
        let (worker, listener) = places[network.random.below(places.len())];
        let link = network.links.len();
        network.links.push(Link::default());
        network.workers[worker].listeners[listener].backlog.push_back(link);
        Some(PeerId(u32::try_from(link).expect("a test makes fewer than 2^32 connections")))
    }

    /// The peer's address as the server sees it.
    pub fn address(&self, peer: PeerId) -> SocketAddr {
        address_of(peer.0 as usize)
    }

    /// How many connections peers have made.
    pub fn connections(&self) -> usize {
        self.0.borrow().links.len()
    }

    /// The index of the driver to which the peer's connection is attached.
    pub fn worker_of(&self, peer: PeerId) -> Option<usize> {
        self.0.borrow().links[peer.0 as usize].owner.map(|(worker, _)| worker)
    }

    /// Sends from the peer. Returns the number of bytes taken: fewer than all if the server does not read, and 0 if the
    /// connection has ended.
    pub fn write(&self, peer: PeerId, bytes: &[u8]) -> usize {
        let mut network = self.0.borrow_mut();
        let link = &mut network.links[peer.0 as usize];
        if link.reset || link.peer_fin {
            return 0;
        }
        if link.server_closed {
            link.reset = true;
            return 0;
        }
        let count = bytes.len().min(SERVER_WINDOW_BYTES - link.to_server.len());
        link.to_server.extend(&bytes[..count]);
        network.touch(peer.0 as usize);
        count
    }

    /// Takes all bytes that arrived at the peer.
    pub fn read(&self, peer: PeerId) -> Vec<u8> {
        let mut network = self.0.borrow_mut();
        let bytes = network.links[peer.0 as usize].to_peer.drain(..).collect();
        network.touch(peer.0 as usize);
        bytes
    }

    /// How the connection ended for the peer, once it has read all bytes before the end.
    pub fn ended(&self, peer: PeerId) -> Option<End> {
        let network = self.0.borrow();
        let link = &network.links[peer.0 as usize];
        match (link.to_peer.is_empty(), link.reset, link.server_fin) {
            (true, true, _) => Some(End::Reset),
            (true, false, true) => Some(End::Eof),
            _ => None,
        }
    }

    /// Sets the number of unread bytes that the peer and both kernels hold before sends are no longer taken whole. A
    /// small one makes a stalled reader.
    pub fn set_window(&self, peer: PeerId, bytes: usize) {
        let mut network = self.0.borrow_mut();
        network.links[peer.0 as usize].window = bytes;
        network.touch(peer.0 as usize);
    }

    /// The peer sends FIN and continues reading.
    pub fn shutdown_write(&self, peer: PeerId) {
        let mut network = self.0.borrow_mut();
        network.links[peer.0 as usize].peer_fin = true;
        network.touch(peer.0 as usize);
    }

    /// The peer closes: FIN, or RST if it leaves bytes unread. Later sends to it are answered with RST.
    pub fn close(&self, peer: PeerId) {
        let mut network = self.0.borrow_mut();
        let link = &mut network.links[peer.0 as usize];
        link.peer_fin = true;
        link.peer_closed = true;
        if !link.to_peer.is_empty() {
            link.reset();
        }
        network.touch(peer.0 as usize);
    }

    /// The peer sends RST.
    pub fn reset(&self, peer: PeerId) {
        let mut network = self.0.borrow_mut();
        network.links[peer.0 as usize].reset();
        network.touch(peer.0 as usize);
    }
}

#[derive(Debug)]
pub(super) struct Network {
    seed: u64,
    pub random: Random,
    pub faults: Faults,
    base: Instant,
    pub elapsed: Duration,
    pub links: Vec<Link>,
    pub workers: Vec<WorkerState>,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Link {
    pub to_server: VecDeque<u8>,
    pub to_peer: VecDeque<u8>,
    pub window: usize,
    pub peer_fin: bool,
    pub peer_closed: bool,
    pub server_fin: bool,
    pub server_closed: bool,
    /// The connection was reset, by either side or by the network.
    pub reset: bool,
    /// The driver to which it is attached, and its id there.
    pub owner: Option<(usize, SocketId)>,
}

/// The network's state for one driver.
#[derive(Debug, Default)]
pub(super) struct WorkerState {
    pub listeners: Vec<Listening>,
    pub slots: Vec<Option<Slot>>,
    /// The sockets that are ready.
    pub waiting: Waiting,
    /// Sockets that are ready and will be reported at a later time. The second number makes equal times distinct.
    pub stalled: BTreeMap<(Duration, u64), SocketId>,
    pub stalls: u64,
}

#[derive(Debug)]
pub(super) struct Listening {
    pub address: Option<SocketAddr>,
    pub backlog: VecDeque<usize>,
    pub paused: bool,
}

impl WorkerState {
    /// Whether no socket is ready, and no connection waits to be accepted.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && !self.listeners.iter().any(Listening::is_ready)
    }
}

impl Listening {
    /// Whether a connection may be accepted.
    pub fn is_ready(&self) -> bool {
        !self.paused && !self.backlog.is_empty()
    }
}

/// One attached socket.
#[derive(Debug)]
pub(super) struct Slot {
    pub id: SocketId,
    pub link: usize,
    pub paused: bool,
    pub ended: bool,
    pub blocked: bool,
    pub listed: bool,
    /// Nothing was received from the socket yet.
    pub is_new: bool,
    /// The last receive was a long one.
    pub is_bulky: bool,
    pub closing: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            to_server: VecDeque::new(),
            to_peer: VecDeque::new(),
            window: PEER_WINDOW_BYTES,
            peer_fin: false,
            peer_closed: false,
            server_fin: false,
            server_closed: false,
            reset: false,
            owner: None,
        }
    }
}

impl Link {
    /// Resets the connection: bytes on their way to the peer are lost, those received by the server can still be read.
    pub fn reset(&mut self) {
        self.reset = true;
        self.to_peer.clear();
    }

    /// Whether a receive would return bytes or the end.
    pub fn is_readable(&self) -> bool {
        self.peer_fin || self.reset || !self.to_server.is_empty()
    }

    /// Bytes that a send would take.
    pub fn room(&self) -> usize {
        self.window.saturating_sub(self.to_peer.len())
    }
}

impl Network {
    pub fn now(&self) -> Instant {
        self.base + self.elapsed
    }

    /// Draws whether a fault happens now.
    pub fn chance(&mut self, fault: impl FnOnce(&Faults) -> u16) -> bool {
        self.random.chance(fault(&self.faults))
    }

    /// The slot of an id that its worker has not closed.
    pub fn open(&mut self, worker: usize, id: SocketId) -> Option<&mut Slot> {
        let slot = self.workers[worker].slots.get_mut(id.index as usize)?.as_mut()?;
        (slot.id == id && !slot.closing).then_some(slot)
    }

    /// Handles a change of a link: its socket is listed as ready if it is attached and has something to report.
    pub fn touch(&mut self, link: usize) {
        self.list(link, true);
    }

    /// Lists a socket again that was received from or paused, if there is more to report.
    pub fn list_again(&mut self, link: usize) {
        self.list(link, false);
    }

    /// Lists a socket as ready, now or after a stall.
    fn list(&mut self, link: usize, is_change: bool) {
        let Some((worker, id)) = self.links[link].owner else { return };
        let (is_readable, has_room) = (self.links[link].is_readable(), self.links[link].room() > 0);
        let Some(slot) = self.open(worker, id) else { return };
        if slot.listed || !(is_readable || slot.blocked && has_room) {
            return;
        }
        slot.listed = true;
        if self.random.chance(self.faults.stalls) {
            let longest = usize::try_from(self.faults.stall_max.as_micros()).unwrap_or(usize::MAX);
            let stall = Duration::from_micros(self.random.below(longest.max(1)) as u64);
            let at = self.elapsed + stall;
            let state = &mut self.workers[worker];
            state.stalls += 1;
            state.stalled.insert((at, state.stalls), id);
        } else {
            self.line_up(worker, id, is_change);
        }
    }

    /// Puts a socket at the end of its list, as the drivers of real sockets do.
    fn line_up(&mut self, worker: usize, id: SocketId, is_change: bool) {
        let Some(slot) = self.open(worker, id) else { return };
        let &mut Slot { is_new, is_bulky, blocked, link, .. } = slot;
        let link = &self.links[link];
        let is_sendable = blocked && link.room() > 0;
        let is_over = link.peer_fin || link.reset;
        let waiting = &mut self.workers[worker].waiting;
        let list = match (is_change && !is_sendable, is_over, is_new) {
            (true, true, _) => &mut waiting.hung_up,
            (true, false, true) => &mut waiting.accepted,
            _ => waiting.staying(is_bulky),
        };
        list.push_back(id);
    }

    /// Lists the sockets whose stalls have ended.
    pub fn end_stalls(&mut self, worker: usize) {
        while let Some(first) = self.workers[worker].stalled.first_entry()
            && first.key().0 <= self.elapsed
        {
            let id = first.remove();
            self.line_up(worker, id, true);
        }
    }
}

/// The address of a peer, which no other peer has: 10.x.y.z and a port.
pub(super) fn address_of(link: usize) -> SocketAddr {
    let [_, b, c, d] = (link as u32).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, b, c, d), 40_000))
}

/// Unread bytes that the server's kernel takes from a peer.
const SERVER_WINDOW_BYTES: usize = 256 << 10;
/// Unread bytes that a peer's kernel takes, unless the test sets another number.
const PEER_WINDOW_BYTES: usize = 128 << 10;
