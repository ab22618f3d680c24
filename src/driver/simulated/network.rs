//! Links between drivers and peers, in memory and in virtual time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::random::Random;
use crate::driver::turn::Waiting;
use crate::driver::{End, SocketId};

/// A network that simulated drivers and a test's peers share. One thread; the clock is the test's to move.
#[derive(Clone, Debug)]
pub struct SimulatedNetwork(pub(super) Rc<RefCell<Network>>);

/// The far end of a connection, in a test's hands. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// How often the network misbehaves, in thousandths. All zero by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A receive gets only a part of what there is.
    pub split_receives: u16,
    /// A send is taken only in part, though there is room.
    pub short_sends: u16,
    /// What happens to a socket shows only later, up to `stall_max`.
    pub stalls: u16,
    /// The longest stall.
    pub stall_max: Duration,
    /// The connection is reset where something would have been received.
    pub resets: u16,
    /// `Closed` comes a turn later.
    pub late_closes: u16,
    /// Accepting fails for want of descriptors.
    pub accept_failures: u16,
}

impl SimulatedNetwork {
    /// A network whose chance follows from `seed`. Print the seed when a test fails.
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

    /// Sets how often it misbehaves from here on.
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

    /// Connects a peer. If several workers listen, chance decides who gets it. `None`: refused.
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

    /// The driver that the peer's connection is attached to, by its place among the network's drivers.
    pub fn worker_of(&self, peer: PeerId) -> Option<usize> {
        self.0.borrow().links[peer.0 as usize].owner.map(|(worker, _)| worker)
    }

    /// Sends from the peer. The count taken is short of all when the server does not read, and 0 when the
    /// connection is over.
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

    /// Takes all that arrived at the peer.
    pub fn read(&self, peer: PeerId) -> Vec<u8> {
        let mut network = self.0.borrow_mut();
        let bytes = network.links[peer.0 as usize].to_peer.drain(..).collect();
        network.touch(peer.0 as usize);
        bytes
    }

    /// How the connection ended for the peer, once it has read all that came before.
    pub fn ended(&self, peer: PeerId) -> Option<End> {
        let network = self.0.borrow();
        let link = &network.links[peer.0 as usize];
        match (link.to_peer.is_empty(), link.reset, link.server_fin) {
            (true, true, _) => Some(End::Reset),
            (true, false, true) => Some(End::Eof),
            _ => None,
        }
    }

    /// Unread bytes that the peer and the kernels between hold for it before sends come late. A small one makes a
    /// stalled reader.
    pub fn set_window(&self, peer: PeerId, bytes: usize) {
        let mut network = self.0.borrow_mut();
        network.links[peer.0 as usize].window = bytes;
        network.touch(peer.0 as usize);
    }

    /// The peer sends FIN and goes on reading.
    pub fn shutdown_write(&self, peer: PeerId) {
        let mut network = self.0.borrow_mut();
        network.links[peer.0 as usize].peer_fin = true;
        network.touch(peer.0 as usize);
    }

    /// The peer closes: FIN, or RST if it leaves bytes unread. What is sent to it later is answered by RST.
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

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub to_server: VecDeque<u8>,
    pub to_peer: VecDeque<u8>,
    pub window: usize,
    pub peer_fin: bool,
    pub peer_closed: bool,
    pub server_fin: bool,
    pub server_closed: bool,
    /// RST, from either side or from between.
    pub reset: bool,
    /// The driver it is attached to, and its name there.
    pub owner: Option<(usize, SocketId)>,
}

/// What the network keeps for one driver.
#[derive(Debug, Default)]
pub(super) struct WorkerState {
    pub listeners: Vec<Listening>,
    pub slots: Vec<Option<Slot>>,
    /// Ready.
    pub waiting: Waiting,
    /// Ready, but it will show only at its time. The second number keeps equal times apart.
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
    /// Nothing was received from it yet.
    pub is_new: bool,
    /// What was received from it last was much.
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
    /// RST: what is under way to the peer is lost. What the server's kernel has, it still gives.
    pub fn reset(&mut self) {
        self.reset = true;
        self.to_peer.clear();
    }

    /// Whether a receive would tell something.
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

    /// Whether a fault strikes now.
    pub fn chance(&mut self, fault: impl FnOnce(&Faults) -> u16) -> bool {
        self.random.chance(fault(&self.faults))
    }

    /// The slot of an id that its worker has not closed.
    pub fn open(&mut self, worker: usize, id: SocketId) -> Option<&mut Slot> {
        let slot = self.workers[worker].slots.get_mut(id.index as usize)?.as_mut()?;
        (slot.id == id && !slot.closing).then_some(slot)
    }

    /// Something happened to a link: its socket is looked at, if it is attached and there is something to see.
    pub fn touch(&mut self, link: usize) {
        self.list(link, true);
    }

    /// A socket that was received from, or paused, is looked at again if there is more.
    pub fn list_again(&mut self, link: usize) {
        self.list(link, false);
    }

    /// Lists a socket as ready, now or after a stall.
    fn list(&mut self, link: usize, is_news: bool) {
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
            self.line_up(worker, id, is_news);
        }
    }

    /// Puts a socket at the end of its list, as the drivers of real sockets do.
    fn line_up(&mut self, worker: usize, id: SocketId, is_news: bool) {
        let Some(slot) = self.open(worker, id) else { return };
        let &mut Slot { is_new, is_bulky, blocked, link, .. } = slot;
        let link = &self.links[link];
        let is_sendable = blocked && link.room() > 0;
        let is_over = link.peer_fin || link.reset;
        let waiting = &mut self.workers[worker].waiting;
        let list = match (is_news && !is_sendable, is_over, is_new) {
            (true, true, _) => &mut waiting.hung_up,
            (true, false, true) => &mut waiting.newcomers,
            _ => waiting.staying(is_bulky),
        };
        list.push_back(id);
    }

    /// Lists the sockets whose stalls are over.
    pub fn end_stalls(&mut self, worker: usize) {
        while let Some(first) = self.workers[worker].stalled.first_entry()
            && first.key().0 <= self.elapsed
        {
            let id = first.remove();
            self.line_up(worker, id, true);
        }
    }
}

/// Every peer has an address of its own: 10.x.y.z and a port.
pub(super) fn address_of(link: usize) -> SocketAddr {
    let [_, b, c, d] = (link as u32).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, b, c, d), 40_000))
}

/// Unread bytes that the server's side takes from a peer.
const SERVER_WINDOW_BYTES: usize = 256 << 10;
/// Unread bytes that a peer's side takes, unless the test says otherwise.
const PEER_WINDOW_BYTES: usize = 128 << 10;
