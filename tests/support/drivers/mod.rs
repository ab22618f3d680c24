//! The harnesses of the driver tests: one for each driver, peers controlled by the test, and a world that records all
//! events and checks invariants.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use fantail::buffer::{Segment, SharedFrame};
use fantail::driver::{
    Close, Driver, DriverSettings, End, EpollDriver, Event, Faults, Keepalive, ListenerId, PeerId,
    SendBatch, SendResult, SimulatedDriver, SimulatedNetwork, SocketId, UringDriver, Waker,
    bind_listener, raise_limit,
};
use socket2::{Domain, SockRef, Socket, Type};

pub trait Harness {
    type Driver: Driver;
    type Peer: Peer;
    fn new(settings: DriverSettings) -> Self;
    fn driver(&mut self) -> &mut Self::Driver;
    /// Connects a new peer; `None` if the connection is refused.
    fn try_connect(&mut self, window: Option<usize>) -> Option<Self::Peer>;
    /// Waits until events in flight have arrived.
    fn settle(&mut self);
    fn waker(&self) -> Waker;
}

/// The other end of a connection. No method blocks.
pub trait Peer {
    /// Returns the number of bytes written.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// Returns the received bytes, and how the stream ended if it has.
    fn read(&mut self) -> (Vec<u8>, Option<End>);
    fn shutdown_write(&mut self);
    fn reset(self);
}

pub struct Kernel<D> {
    driver: D,
    address: SocketAddr,
    waker: Waker,
}

pub trait KernelDriver: Driver<Socket = OwnedFd> + Sized {
    fn build(settings: &DriverSettings, listener: OwnedFd, waker: Waker) -> Self;
}

impl KernelDriver for EpollDriver {
    fn build(settings: &DriverSettings, listener: OwnedFd, waker: Waker) -> Self {
        EpollDriver::new(settings, vec![listener], waker).unwrap()
    }
}

impl KernelDriver for UringDriver {
    fn build(settings: &DriverSettings, listener: OwnedFd, waker: Waker) -> Self {
        UringDriver::new(settings, vec![listener], waker).unwrap()
    }
}

impl<D: KernelDriver> Harness for Kernel<D> {
    type Driver = D;
    type Peer = TcpStream;

    fn new(settings: DriverSettings) -> Self {
        raise_limit().unwrap();
        let waker = Waker::new().unwrap();
        let listener = bind_listener((Ipv4Addr::LOCALHOST, 0).into(), Keepalive::Off).unwrap();
        let address = listener.local_addr().unwrap();
        Self { driver: D::build(&settings, listener.into(), waker.clone()), address, waker }
    }

    fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    fn try_connect(&mut self, window: Option<usize>) -> Option<TcpStream> {
        connect(self.address, window)
    }

    fn settle(&mut self) {
        std::thread::yield_now();
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl<D> Kernel<D> {
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

pub fn connect(address: SocketAddr, window: Option<usize>) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if let Some(bytes) = window {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.connect(&address.into()).ok()?;
    socket.set_nonblocking(true).unwrap();
    Some(socket.into())
}

impl Peer for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> usize {
        Write::write(self, bytes).unwrap_or(0)
    }

    fn read(&mut self) -> (Vec<u8>, Option<End>) {
        let (mut all, mut part) = (Vec::new(), [0; 16_384]);
        loop {
            match Read::read(self, &mut part) {
                Ok(0) => return (all, Some(End::Eof)),
                Ok(count) => all.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (all, None),
                Err(_) => return (all, Some(End::Reset)),
            }
        }
    }

    fn shutdown_write(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        SockRef::from(&self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// With `ROUGH`, all faults are enabled that a correct user of a driver tolerates.
pub struct Simulated<const ROUGH: bool> {
    driver: SimulatedDriver,
    network: SimulatedNetwork,
}

pub struct SimulatedPeer {
    network: SimulatedNetwork,
    id: PeerId,
}

impl<const ROUGH: bool> Harness for Simulated<ROUGH> {
    type Driver = SimulatedDriver;
    type Peer = SimulatedPeer;

    fn new(settings: DriverSettings) -> Self {
        let network = SimulatedNetwork::new(seed());
        if ROUGH {
            network.set_faults(Faults {
                split_receives: 300,
                short_sends: 300,
                stalls: 300,
                stall_max: Duration::from_millis(20),
                late_closes: 500,
                ..Faults::default()
            });
        }
        Self { driver: SimulatedDriver::new(&settings, &network, &[address()]), network }
    }

    fn driver(&mut self) -> &mut SimulatedDriver {
        &mut self.driver
    }

    fn try_connect(&mut self, window: Option<usize>) -> Option<SimulatedPeer> {
        let id = self.network.connect(address())?;
        if let Some(bytes) = window {
            self.network.set_window(id, bytes);
        }
        Some(SimulatedPeer { network: self.network.clone(), id })
    }

    fn settle(&mut self) {
        self.network.advance(Duration::from_millis(1));
    }

    fn waker(&self) -> Waker {
        Waker::none()
    }
}

impl Peer for SimulatedPeer {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.network.write(self.id, bytes)
    }

    fn read(&mut self) -> (Vec<u8>, Option<End>) {
        (self.network.read(self.id), self.network.ended(self.id))
    }

    fn shutdown_write(&mut self) {
        self.network.shutdown_write(self.id);
    }

    fn reset(self) {
        self.network.reset(self.id);
    }
}

fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 1).into()
}

/// The seed of a run, printed by failed tests. `FANTAIL_SEED` repeats a run; the default is random.
pub fn seed() -> u64 {
    let seed = std::env::var("FANTAIL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64)
    });
    println!("FANTAIL_SEED={seed}");
    seed
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Accepted(SocketId),
    AcceptFailed(ListenerId, Option<i32>),
    Received(SocketId, Vec<u8>),
    Ended(SocketId, End),
    Sendable(SocketId),
    Closed(SocketId),
    Woken,
}

/// Unsent data of one socket.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    blocked: bool,
}

pub struct World<H: Harness> {
    pub harness: H,
    pub batch: SendBatch,
    /// All events so far.
    pub seen: Vec<Seen>,
    /// Results of sends that were reported later.
    pub late: Vec<(SocketId, SendResult)>,
    /// Number of socket events in the last turn.
    pub events_of_turn: usize,
    live: HashSet<SocketId>,
    free: Vec<SocketId>,
    used: u32,
    outboxes: HashMap<SocketId, Outbox>,
}

impl<H: Harness> World<H> {
    pub fn new() -> Self {
        Self::with(DriverSettings { sockets_max: 4096, ..DriverSettings::default() })
    }

    pub fn with(settings: DriverSettings) -> Self {
        Self {
            harness: H::new(settings),
            batch: SendBatch::default(),
            seen: Vec::new(),
            late: Vec::new(),
            events_of_turn: 0,
            live: HashSet::new(),
            free: Vec::new(),
            used: 0,
            outboxes: HashMap::new(),
        }
    }

    pub fn connect(&mut self) -> H::Peer {
        self.harness.try_connect(None).expect("the listener accepts")
    }

    /// Connects a peer; returns it with the id of its socket.
    pub fn pair(&mut self) -> (H::Peer, SocketId) {
        self.pair_with_window(None)
    }

    pub fn pair_with_window(&mut self, window: Option<usize>) -> (H::Peer, SocketId) {
        let before = self.seen.len();
        let peer = self.harness.try_connect(window).expect("the listener accepts");
        let mut id = None;
        self.until("accepted", |world| {
            id = world.seen[before..].iter().find_map(|seen| match seen {
                Seen::Accepted(id) => Some(*id),
                _ => None,
            });
            id.is_some()
        });
        (peer, id.unwrap())
    }

    /// Sends like a worker: at most one item per socket and turn, the rest when the socket is writable.
    pub fn send(&mut self, id: SocketId, bytes: &[u8]) {
        self.outboxes.entry(id).or_default().bytes.extend_from_slice(bytes);
    }

    pub fn unsent(&self, id: SocketId) -> usize {
        self.outboxes.get(&id).map_or(0, |outbox| outbox.bytes.len())
    }

    /// Runs one turn and accepts all connections.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Vec<Seen> {
        let mut flushed = Vec::new();
        for (&id, outbox) in &mut self.outboxes {
            if !outbox.blocked && !outbox.bytes.is_empty() && self.live.contains(&id) {
                let bytes = std::mem::take(&mut outbox.bytes);
                // In three segments of two kinds, if it is long enough.
                let third = bytes.len() / 3;
                if third == 0 {
                    let all = turn_segment(&mut self.batch.turn, &bytes);
                    self.batch.begin(id, all);
                } else {
                    let (a, rest) = bytes.split_at(third);
                    let (b, c) = rest.split_at(third);
                    let (a, c) = (
                        turn_segment(&mut self.batch.turn, a),
                        turn_segment(&mut self.batch.turn, c),
                    );
                    self.batch.begin(id, a);
                    self.batch.extend(Segment::Shared(SharedFrame::copy_of(b)));
                    self.batch.extend(c);
                }
                flushed.push((id, bytes));
            }
        }
        self.harness.driver().wait(&mut self.batch, timeout).unwrap();
        for late in &self.batch.late {
            let item = &self.batch.items()[late.item as usize];
            self.late.push((item.id, late.result));
            let outbox = self.outboxes.entry(item.id).or_default();
            match late.result {
                SendResult::Short(sent) => {
                    assert!(sent < item.bytes, "a complete send is not reported later");
                    outbox.blocked = true;
                    if let Some((_, bytes)) = flushed.iter().find(|(id, _)| *id == item.id) {
                        let mut kept = bytes[sent as usize..].to_vec();
                        kept.append(&mut outbox.bytes);
                        outbox.bytes = kept;
                    }
                }
                SendResult::Failed => outbox.bytes.clear(),
            }
        }
        self.batch.clear();
        let start = self.seen.len();
        self.take_events();
        self.harness.settle();
        self.seen[start..].to_vec()
    }

    fn take_events(&mut self) {
        self.events_of_turn = 0;
        let driver = self.harness.driver();
        loop {
            let mut accepted = None;
            let Some(event) = driver.next_event() else { break };
            let seen = match event {
                Event::Accepted { socket, .. } => {
                    let id = self.free.pop().unwrap_or_else(|| {
                        self.used += 1;
                        SocketId { index: self.used - 1, generation: 0 }
                    });
                    accepted = Some((id, socket));
                    Seen::Accepted(id)
                }
                Event::AcceptFailed { listener, error } => {
                    Seen::AcceptFailed(listener, error.raw_os_error())
                }
                Event::Received { id, bytes } => {
                    assert!(!bytes.is_empty(), "an empty receive is not reported");
                    Seen::Received(id, bytes.to_vec())
                }
                Event::Ended { id, end } => Seen::Ended(id, end),
                Event::Sendable { id } => Seen::Sendable(id),
                Event::Closed { id } => Seen::Closed(id),
                Event::Woken => Seen::Woken,
            };
            if let Some((id, socket)) = accepted {
                assert!(self.live.insert(id));
                driver.attach(id, socket);
            }
            match &seen {
                Seen::Received(id, _) | Seen::Ended(id, _) | Seen::Sendable(id) => {
                    assert!(self.live.contains(id), "{seen:?} of an unknown socket");
                    self.events_of_turn += 1;
                }
                Seen::Closed(id) => {
                    assert!(self.live.remove(id), "closed once: {id:?}");
                    self.outboxes.remove(id);
                    self.free.push(SocketId { generation: id.generation + 1, ..*id });
                    self.events_of_turn += 1;
                }
                Seen::Accepted(_) | Seen::AcceptFailed(..) | Seen::Woken => {}
            }
            if let Seen::Sendable(id) = &seen {
                self.outboxes.entry(*id).or_default().blocked = false;
            }
            self.seen.push(seen);
        }
    }

    /// Runs turns until the condition holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            assert!(Instant::now() < deadline, "timed out: {what}");
            self.turn(Some(Duration::from_millis(2)));
        }
    }

    /// Runs turns until all pending events have arrived.
    pub fn quiet(&mut self) {
        for _ in 0..40 {
            self.turn(Some(Duration::from_millis(1)));
        }
    }

    pub fn received(&self, id: SocketId) -> Vec<u8> {
        let of_id = self.seen.iter().filter_map(|seen| match seen {
            Seen::Received(of, bytes) if *of == id => Some(bytes.as_slice()),
            _ => None,
        });
        of_id.collect::<Vec<_>>().concat()
    }

    pub fn count(&self, wanted: &Seen) -> usize {
        self.seen.iter().filter(|seen| *seen == wanted).count()
    }

    pub fn close(&mut self, id: SocketId, how: Close) {
        self.harness.driver().close(id, how);
    }
}

/// Bytes in which missing or reordered parts are detected.
pub fn pattern(len: usize) -> Vec<u8> {
    let numbers = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes());
    numbers.take(len).collect()
}

pub fn turn_segment(turn: &mut Vec<u8>, bytes: &[u8]) -> Segment {
    let start = turn.len() as u32;
    turn.extend_from_slice(bytes);
    Segment::Turn { start, len: bytes.len() as u32 }
}
