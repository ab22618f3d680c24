//! A crowd: clients that all connect at once. One that is refused comes back when the answer says, or as an SDK
//! does, until it is in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fantail::driver::make_private;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::door::{Door, Verdict};
use crate::instrument::bind_address_no_port;

/// Threads with clients that connect.
pub struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// How a crowd connects.
#[derive(Clone)]
pub struct Manner {
    pub address: SocketAddr,
    pub clients: usize,
    /// Doors of the server, by which the clients come in turn.
    pub doors: Vec<Door>,
    /// What each client shows.
    pub token: Option<String>,
}

#[derive(Default)]
struct Shared {
    attempts: AtomicU64,
    inside: AtomicU64,
    /// Refusals that say when to come back, or that the cause is temporary.
    with_time: AtomicU64,
    without_time: AtomicU64,
    /// Connections that ended without an answer, and clients that were in and are not any more.
    closed: AtomicU64,
    unanswered: AtomicU64,
    longest_delay_ms: AtomicU64,
    is_done: AtomicBool,
}

impl Crowd {
    pub fn start(manner: &Manner) -> Self {
        let shared = Arc::<Shared>::default();
        let count = manner.clients.div_ceil(CLIENTS_PER_THREAD_MAX);
        let threads = (0..count).map(|number| {
            let share = manner.clients / count + usize::from(number < manner.clients % count);
            let (shared, manner) = (Arc::clone(&shared), manner.clone());
            thread::spawn(move || {
                // Each has as many descriptors as a process may have.
                make_private()?;
                Part::new(shared, manner, number, share)?.run()
            })
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// The number of clients that are in.
    pub fn inside(&self) -> u64 {
        self.shared.inside.load(Ordering::Relaxed)
    }

    pub fn to_json(&self) -> Value {
        let Shared {
            attempts,
            inside,
            with_time,
            without_time,
            closed,
            unanswered,
            longest_delay_ms,
            ..
        } = &*self.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "attempts": count(attempts),
            "inside": count(inside),
            "refused_with_a_time": count(with_time),
            "refused_without_a_time": count(without_time),
            "closed": count(closed),
            "unanswered": count(unanswered),
            "longest_delay_ms": count(longest_delay_ms),
        })
    }

    /// Ends all connections.
    pub fn finish(self) -> io::Result<()> {
        self.shared.is_done.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a crowd panicked"))??;
        }
        Ok(())
    }
}

/// The clients of one thread.
struct Part {
    shared: Arc<Shared>,
    manner: Manner,
    number: u8,
    poll: Poll,
    clients: Vec<Client>,
    /// Clients that connect, by the time at which they do.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    connected: u32,
    random: u32,
}

struct Client {
    door: Door,
    socket: Option<TcpStream>,
    state: State,
    began: Instant,
    unread: Vec<u8>,
    /// Refusals in a row.
    refusals: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Connecting,
    Asking,
    Inside,
}

impl Part {
    fn new(shared: Arc<Shared>, manner: Manner, number: usize, share: usize) -> io::Result<Self> {
        let now = Instant::now();
        let client = |index: usize| Client {
            door: manner.doors[index % manner.doors.len()],
            socket: None,
            state: State::Away,
            began: now,
            unread: Vec::new(),
            refusals: 0,
        };
        let clients = (0..share).map(client).collect();
        let due = (0..share).map(|index| Reverse((now, index))).collect();
        let (number, random) = (number as u8, 1 + number as u32);
        let poll = Poll::new()?;
        Ok(Self { shared, manner, number, poll, clients, due, connected: 0, random })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut looked = Instant::now();
        while !self.shared.is_done.load(Ordering::Relaxed) {
            let now = Instant::now();
            let mut left = CONNECTS_PER_TURN_MAX;
            while left > 0
                && let Some(Reverse((at, index))) = self.due.peek().copied()
                && at <= now
            {
                self.due.pop();
                left -= 1;
                self.connect(index)?;
            }
            let next = self.due.peek().map_or(PAUSE_MAX, |Reverse((at, _))| *at - now);
            match self.poll.poll(&mut events, Some(next.min(PAUSE_MAX))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                self.serve(event.token().0);
            }
            if looked.elapsed() > PAUSE_MAX {
                looked = Instant::now();
                self.end_unanswered();
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        bind_address_no_port(&socket)?;
        let [.., third, fourth] = (self.connected / CONNECTIONS_PER_ADDRESS).to_be_bytes();
        let source = Ipv4Addr::new(127, 2 + self.number, third, fourth);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        self.connected = self.connected.wrapping_add(1);
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.manner.address.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        let mut socket = TcpStream::from_std(socket.into());
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(index), both)?;
        let client = &mut self.clients[index];
        client.socket = Some(socket);
        client.state = State::Connecting;
        client.began = Instant::now();
        self.shared.attempts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn serve(&mut self, index: usize) {
        match self.step(index) {
            Ok(()) => {}
            Err(_) => {
                self.shared.closed.fetch_add(1, Ordering::Relaxed);
                self.come_back(index, None);
            }
        }
    }

    /// Goes on with the conversation of a client; an error is the end of its connection.
    fn step(&mut self, index: usize) -> io::Result<()> {
        let Self { shared, manner, clients, .. } = self;
        let client = &mut clients[index];
        let Some(socket) = &mut client.socket else { return Ok(()) };
        if client.state == State::Connecting {
            if let Some(error) = SockRef::from(&*socket).take_error()? {
                return Err(error);
            }
            let request = client.door.request(manner.address, manner.token.as_deref());
            match socket.write_all(&request) {
                // The event is of something else.
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                other => other?,
            }
            client.state = State::Asking;
        }
        let mut buffer = [0; 4096];
        let end = loop {
            match socket.read(&mut buffer) {
                Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) if client.state == State::Inside => {}
                Ok(count) => client.unread.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if client.state == State::Inside {
            return end;
        }
        match client.door.judge(&client.unread) {
            Verdict::Unknown => return end,
            Verdict::Inside => {
                client.state = State::Inside;
                (client.unread, client.refusals) = (Vec::new(), 0);
                shared.inside.fetch_add(1, Ordering::Relaxed);
                return end;
            }
            Verdict::Refused { has_time, delay } => {
                let counter = if has_time { &shared.with_time } else { &shared.without_time };
                counter.fetch_add(1, Ordering::Relaxed);
                self.come_back(index, delay);
            }
        }
        Ok(())
    }

    /// Ends a connection. Its client connects again after a delay; without one, after that of centrifuge-js.
    fn come_back(&mut self, index: usize, delay: Option<Duration>) {
        let client = &mut self.clients[index];
        if client.state == State::Inside {
            self.shared.inside.fetch_sub(1, Ordering::Relaxed);
        }
        client.socket = None;
        client.state = State::Away;
        client.unread = Vec::new();
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let delay = delay.unwrap_or_else(|| {
            let most = (SDK_DELAY_MIN * (1 << client.refusals.min(10))).min(SDK_DELAY_MAX);
            (SDK_DELAY_MIN + most.mul_f64(f64::from(self.random >> 8) / f64::from(1 << 24)))
                .min(SDK_DELAY_MAX)
        });
        client.refusals += 1;
        self.shared.longest_delay_ms.fetch_max(delay.as_millis() as u64, Ordering::Relaxed);
        self.due.push(Reverse((Instant::now() + delay, index)));
    }

    fn end_unanswered(&mut self) {
        for index in 0..self.clients.len() {
            let Client { state, began, .. } = self.clients[index];
            if matches!(state, State::Connecting | State::Asking) && began.elapsed() > PATIENCE {
                self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
                self.come_back(index, None);
            }
        }
    }
}

/// Fewer than the descriptors that a process may have.
const CLIENTS_PER_THREAD_MAX: usize = 18_000;
const CONNECTIONS_PER_ADDRESS: u32 = 1000;
const CONNECTS_PER_TURN_MAX: usize = 64;
const PAUSE_MAX: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(15);

/// The range of centrifuge-js' delay before it connects again, which doubles from one refusal to the next.
const SDK_DELAY_MIN: Duration = Duration::from_millis(500);
const SDK_DELAY_MAX: Duration = Duration::from_secs(20);
