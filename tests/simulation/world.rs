//! The simulated world: workers, clients and randomness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::Sender;
use std::time::Duration;

use fantail::callback::Caller;
use fantail::config::{Config, Framing};
use fantail::connection::Service;
use fantail::driver::{DriverSettings, Faults, PeerId, SimulatedDriver, SimulatedNetwork, Waker};
use fantail::hub::ChannelHash;
use fantail::message::{CloseReason, NodeId, Position};
use fantail::telemetry::{Counter, Counters};
use fantail::worker::{
    Budget, Listener, Mesh, Reload, Worker, WorkerParts, WorkerPlace, WorkerSettings, WorkerShares,
    new_counters,
};
use serde_json::{Value, json};

use crate::client::{Client, Kind, position_of};
use crate::link::Link;
use crate::options;
use crate::stream::{CHANNELS, Payload, State, Streams};

pub struct World {
    pub network: SimulatedNetwork,
    pub workers: Vec<Worker<SimulatedDriver>>,
    /// The configuration last sent to the workers.
    pub config: Config,
    pub reloads: Vec<Sender<Reload>>,
    pub stop: Arc<AtomicBool>,
    pub open: Arc<AtomicUsize>,
    pub open_max: usize,
    pub counters: Arc<[Arc<Counters>]>,
    pub clients: Vec<Client>,
    pub streams: Streams,
    pub operator: Operator,
    /// Connections of vanished clients, which the server has not been notified of.
    pub silent: Vec<PeerId>,
    random: Random,
    /// Channels with most of the activity.
    busy: [usize; 3],
    has_short_sends: bool,
}

/// A client of the server API that makes one call at a time.
pub struct Operator {
    pub link: Link,
    pub call: Option<Call>,
    published: u32,
    acknowledged: u32,
}

/// A call that waits for its response.
pub enum Call {
    Publish(Vec<Payload>),
    Other,
}

pub const EDGE: SocketAddr = address(8000);
pub const COMMANDS: SocketAddr = address(8001);
pub const CONNECTIONS_MAX: usize = 256;
const WINDOW: usize = 64 * 1024;

const fn address(port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))
}

/// The size of a server.
#[derive(Clone, Copy)]
pub struct Size {
    pub workers: usize,
    /// Maximum number of connections of all workers.
    pub open_max: usize,
    pub memory_bytes_max: u64,
}

impl Size {
    /// Bounds that are never reached.
    pub const LARGE: Self =
        Self { workers: 1, open_max: CONNECTIONS_MAX, memory_bytes_max: 1 << 30 };
}

/// SplitMix64 random numbers.
pub struct Random(u64);

impl Random {
    /// A random number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// A random element.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

impl Operator {
    /// The next payload to publish.
    pub fn next_payload(&mut self, channel: usize) -> Payload {
        self.published += 1;
        Payload { channel, publisher: self.link.peer.0, number: self.published }
    }
}

impl World {
    /// A world with small queues and turns drawn from the seed, so that limits are often reached.
    pub fn new(seed: u64, size: Size) -> Self {
        let mut random = Random(!seed);
        let workers = 1 + random.below(4);
        let config = options::draw(&mut random);
        let driver = options::draw_driver(&mut random);
        Self::with(seed, Size { workers, ..size }, config, driver, None)
    }

    /// A world with queues and turns of their default size.
    pub fn of_real_size(seed: u64, workers: usize) -> Self {
        let sockets_max = CONNECTIONS_MAX as u32;
        let driver = DriverSettings { sockets_max, ..DriverSettings::default() };
        Self::with(seed, Size { workers, ..Size::LARGE }, Config::default(), driver, None)
    }

    /// A world of one worker that asks a backend.
    pub fn asking(config: Config, caller: Caller) -> Self {
        let driver =
            DriverSettings { sockets_max: CONNECTIONS_MAX as u32, ..DriverSettings::default() };
        Self::with(1, Size::LARGE, config, driver, Some(caller))
    }

    fn with(
        seed: u64,
        Size { workers, open_max, memory_bytes_max }: Size,
        config: Config,
        driver: DriverSettings,
        caller: Option<Caller>,
    ) -> Self {
        let network = SimulatedNetwork::new(seed);
        let config = Config { listen: vec![EDGE.into()], tcp: vec![COMMANDS.into()], ..config };
        config.check().expect("a valid configuration");
        let wakers: Vec<_> = (0..workers).map(|_| Waker::none()).collect();
        let counters: Arc<[_]> = (0..workers).map(|_| Arc::new(new_counters())).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let shared = WorkerShares {
            counters: counters.clone(),
            stop: stop.clone(),
            caller,
            open_max,
            ..WorkerShares::default()
        };
        let hash = ChannelHash::with_key(seed);
        let budgets = Budget::of_workers(workers, memory_bytes_max);
        let (reloads, mut receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| std::sync::mpsc::channel()).unzip();
        let workers = Mesh::new(&wakers)
            .into_iter()
            .zip(budgets)
            .zip(receivers.drain(..))
            .map(|((mesh, budget), reloads)| {
                let settings = WorkerSettings::new(
                    &config,
                    WorkerPlace {
                        node: NodeId::new(seed),
                        worker: mesh.worker(),
                        workers: workers as u16,
                    },
                    CONNECTIONS_MAX,
                    [Service::Edge, Service::Commands(Framing::Line)]
                        .map(|service| Listener {
                            service,
                            expects_proxy_header: false,
                            is_encrypted: false,
                            offers_deflate: false,
                            has_tickets: true,
                        })
                        .to_vec(),
                    hash,
                );
                let parts = WorkerParts { mesh, reloads, budget, shared: shared.clone() };
                let driver = SimulatedDriver::new(&driver, &network, &[EDGE, COMMANDS]);
                Worker::new(driver, settings, parts)
            })
            .collect();
        let peer = network.connect(EDGE).expect("a listener");
        let operator =
            Operator { link: Link::new(peer), call: None, published: 0, acknowledged: 0 };
        let (clients, streams, silent) = (Vec::new(), Streams::default(), Vec::new());
        let busy = std::array::from_fn(|at| {
            (seed as usize * 7 + at * (1 + seed as usize % 4)) % CHANNELS.len()
        });
        Self {
            network,
            workers,
            config,
            reloads,
            stop,
            open: shared.open,
            open_max,
            counters,
            clients,
            streams,
            operator,
            silent,
            random: Random(seed),
            busy,
            has_short_sends: false,
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.has_short_sends = faults.short_sends > 0;
        self.network.set_faults(faults);
    }

    /// A random number below `end`.
    pub fn random_below(&mut self, end: usize) -> usize {
        self.random.below(end)
    }

    /// A random channel, most likely a busy one.
    fn channel(&mut self) -> usize {
        match self.random_below(8) {
            0 => self.random_below(CHANNELS.len()),
            _ => self.busy[self.random_below(3)],
        }
    }

    /// Adds a client without faults that subscribes to the observed channels.
    pub fn add_observer(&mut self) {
        self.add(Kind::Lines);
        let observer = self.clients.len() - 1;
        self.clients[observer].is_observer = true;
        self.connect(observer);
        for (at, channel) in CHANNELS.iter().enumerate() {
            if channel.is_observed {
                self.clients[observer].subscribe(&self.network, at, None);
            }
        }
        let peer = self.clients[observer].link.as_ref().expect("a connection").peer;
        self.network.set_window(peer, 1 << 30);
        while self.clients[observer].views.iter().any(|view| view.state == State::Subscribing) {
            self.turn();
            self.advance(10);
            self.read_all();
        }
    }

    /// Adds a disconnected client of this kind. Clients that name their channels name one or two.
    pub fn add(&mut self, kind: Kind) {
        let observed: Vec<_> = (0..CHANNELS.len()).filter(|at| CHANNELS[*at].is_observed).collect();
        let named = match kind {
            Kind::Lines | Kind::Messages | Kind::HttpStream | Kind::SseStream => vec![],
            Kind::Plain => vec![observed[self.random_below(observed.len())]],
            Kind::Events if self.random_below(2) == 0 => vec![self.channel()],
            // The first two channels with a complete history.
            Kind::Events => vec![2, 5],
            // A poll of a channel without history would be answered at once.
            Kind::Polls if self.random_below(2) == 0 => vec![self.channel().max(2)],
            Kind::Polls => vec![2, 3],
        };
        self.clients.push(Client::new(kind, named));
    }

    /// Opens a connection of the command protocol that belongs to none of the clients.
    pub fn connect_commands(&self) -> PeerId {
        self.network.connect(COMMANDS).expect("a listener")
    }

    /// Opens an HTTP connection that belongs to none of the clients.
    pub fn connect_http(&self) -> PeerId {
        self.network.connect(EDGE).expect("a listener")
    }

    /// Sends a new configuration to all workers, which apply it in their next turn.
    pub fn reload(&mut self) {
        let config = options::redraw(&self.config, &mut self.random);
        self.reload_with(|drawn| *drawn = config);
    }

    /// Sends a changed configuration to all workers.
    pub fn reload_with(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.config.check().expect("a valid configuration");
        let config = Arc::new(self.config.clone());
        for (worker, reloads) in self.workers.iter_mut().zip(&self.reloads) {
            let reload = Reload { config: config.clone(), identity: None };
            reloads.send(reload).expect("the worker is running");
            worker.driver().wake();
        }
    }

    /// Connects or reconnects a client.
    pub fn connect_client(&mut self) {
        let away = |client: &Client| client.link.is_none();
        if let Some(index) = self.choose(away) {
            self.connect(index);
        }
    }

    fn connect(&mut self, index: usize) {
        let address = match self.clients[index].kind {
            Kind::Lines => COMMANDS,
            _ => EDGE,
        };
        let resumes = self.random_below(8) > 0;
        let peer = self.network.connect(address).expect("a listener");
        self.network.set_window(peer, WINDOW);
        let client = &mut self.clients[index];
        client.connect(&self.network, peer, resumes);
        client.may_skip = self.has_short_sends;
        // It recovers its subscriptions.
        for channel in 0..CHANNELS.len() {
            let has_position = self.clients[index].views[channel].position.is_some();
            if self.clients[index].has_commands() && resumes && has_position {
                self.subscribe(index, channel);
            }
        }
    }

    /// Subscribes a command client to a channel.
    pub fn join(&mut self) {
        if let Some(index) = self.choose(|client| client.has_commands() && client.link.is_some()) {
            let channel = self.channel();
            if self.clients[index].views[channel].state == State::Unsubscribed {
                self.subscribe(index, channel);
            }
        }
    }

    fn subscribe(&mut self, index: usize, channel: usize) {
        let since = self.clients[index].views[channel].position;
        let since = since.filter(|_| self.random_below(8) > 0);
        let since = since.map(|position| match self.random_below(32) {
            // Positions that the server never assigned.
            0 => Position { offset: position.offset + 1_000_000, ..position },
            1 => Position { epoch: fantail::message::Epoch(!position.epoch.0), ..position },
            _ => position,
        });
        if !self.clients[index].subscribe(&self.network, channel, since) {
            self.abort(index);
        }
    }

    pub fn leave(&mut self) {
        if let Some(index) = self.choose(|client| client.has_commands() && client.link.is_some()) {
            let channel = self.channel();
            let client = &mut self.clients[index];
            if matches!(client.views[channel].state, State::Subscribed | State::Subscribing)
                && !client.unsubscribe(&self.network, channel)
            {
                self.abort(index);
            }
        }
    }

    /// Disconnects a client with a FIN, an RST or silently, between two messages or within one.
    pub fn cut(&mut self) {
        let Some(index) = self.choose(|client| client.link.is_some()) else { return };
        let peer = self.clients[index].link.as_ref().expect("chosen").peer;
        if self.random_below(3) == 0 {
            let count = 1 + self.random_below(20);
            self.network.write(peer, &b"{\"id\":1,\"publish\":{\"chan"[..count]);
        }
        match self.random_below(4) {
            0 => self.network.reset(peer),
            1 => self.silent.push(peer),
            _ => self.network.close(peer),
        }
        self.clients[index].cut();
    }

    pub fn stall(&mut self) {
        let reads = |client: &Client| client.link.is_some() && !client.is_stalled;
        if let Some(index) = self.choose(reads) {
            let client = &mut self.clients[index];
            (client.is_stalled, client.may_skip) = (true, true);
            let peer = client.link.as_ref().expect("chosen").peer;
            self.network.set_window(peer, 512);
        }
    }

    pub fn stop_stalling(&mut self) {
        if let Some(index) = self.choose(|client| client.link.is_some() && client.is_stalled) {
            self.clients[index].is_stalled = false;
            let peer = self.clients[index].link.as_ref().expect("chosen").peer;
            self.network.set_window(peer, WINDOW);
        }
    }

    /// Publishes `count` times to one channel, by a client or once by the server API.
    pub fn publish(&mut self, count: usize, padding: usize) {
        let channel = self.channel();
        let candidates: Vec<_> = (0..self.clients.len())
            .filter(|index| self.clients[*index].publishes_to(channel))
            .collect();
        let which = self.random_below(candidates.len() + 1);
        let Some(publisher) = candidates.get(which).copied() else {
            return self.publish_by_api(channel);
        };
        for _ in 0..count {
            if !self.clients[publisher].publish(&self.network, channel, padding) {
                return self.abort(publisher);
            }
        }
    }

    /// Resets a connection whose last message was truncated by a full window.
    fn abort(&mut self, index: usize) {
        let client = &mut self.clients[index];
        assert!(!client.is_observer);
        if let Some(link) = &client.link {
            self.network.reset(link.peer);
        }
        client.cut();
    }

    fn publish_by_api(&mut self, channel: usize) {
        let is_over = self.network.ended(self.operator.link.peer).is_some();
        if is_over || self.operator.call.is_some() {
            return;
        }
        let payload = self.operator.next_payload(channel);
        let body = json!({"channel": CHANNELS[channel].name, "data": payload.write(20)});
        self.call("publish", &body, Call::Publish(vec![payload]));
    }

    /// Makes a server API call for a client or a channel.
    pub fn control(&mut self) {
        if self.operator.call.is_some() {
            return;
        }
        let channel = self.channel();
        let name = CHANNELS[channel].name;
        if self.random_below(8) == 0 {
            if !matches!(channel, 0 | 1) {
                self.streams.is_removed[channel] = true;
                self.call("history_remove", &json!({"channel": name}), Call::Other);
            }
            return;
        }
        let Some(index) = self.choose(|client| client.link.is_some()) else { return };
        let link = self.clients[index].link.as_ref().expect("chosen");
        let Some(client) = link.name.clone() else { return };
        let (method, body) = match self.random_below(5) {
            0 => ("disconnect", json!({"client": client})),
            1 | 2 => ("subscribe", json!({"client": client, "channel": name})),
            _ => ("unsubscribe", json!({"client": client, "channel": name})),
        };
        self.call(method, &body, Call::Other);
    }

    pub fn call(&mut self, method: &str, body: &Value, call: Call) {
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let peer = self.operator.link.peer;
        assert_eq!(self.network.write(peer, request.as_bytes()), request.len());
        self.operator.call = Some(call);
    }

    pub fn advance(&mut self, milliseconds_max: usize) {
        let milliseconds = self.random_below(milliseconds_max) as u64;
        self.network.advance(Duration::from_millis(milliseconds));
    }

    pub fn turn(&mut self) {
        let worker = self.random_below(self.workers.len());
        if self.workers[worker].is_done() {
            return;
        }
        self.workers[worker].turn(Duration::ZERO).expect("a simulated driver does not fail");
    }

    /// One turn of each worker.
    pub fn turn_all(&mut self) {
        for worker in &mut self.workers {
            worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
        }
    }

    /// Reads the input of all clients. Returns whether there was any.
    pub fn read_all(&mut self) -> bool {
        let mut count = 0;
        for client in &mut self.clients {
            count += client.read(&self.network, &mut self.streams);
        }
        count += self.operator.link.read(&self.network);
        if self.network.ended(self.operator.link.peer).is_some() {
            self.network.close(self.operator.link.peer);
        }
        if let Some(response) = self.operator.link.take_response() {
            let call = self.operator.call.take().expect("a response matches a call");
            let is_refused = response.is_err();
            let (Ok(body) | Err(body)) = response;
            let answer: Value = serde_json::from_slice(&body).expect("an answer is JSON");
            let result = &answer["result"];
            match call {
                // The server has stopped.
                _ if is_refused && answer["error"]["code"] == "shutdown" => {}
                // The server is stopping or low on memory and accepts no publications.
                Call::Publish(_) if is_refused => {
                    assert_eq!(answer["error"]["code"], "congested", "{answer}");
                }
                Call::Publish(payloads) => {
                    for (index, payload) in payloads.into_iter().enumerate() {
                        self.operator.acknowledged += 1;
                        self.streams.acknowledge(payload);
                        let batched = &answer["replies"][index]["publish"];
                        let result = if result.is_object() { result } else { batched };
                        self.streams.note(payload.channel, position_of(result), payload);
                    }
                }
                Call::Other => assert!(result.is_object(), "{answer}"),
            }
        }
        count > 0
    }

    /// Number of publications written and acknowledged.
    pub fn published(&self) -> (u64, u64) {
        let Operator { published, acknowledged, .. } = &self.operator;
        let clients = || self.clients.iter();
        (
            clients().map(|client| client.published).sum::<u32>() as u64 + u64::from(*published),
            clients().map(|client| client.acknowledged).sum::<u32>() as u64
                + u64::from(*acknowledged),
        )
    }

    /// The sum of a counter over all workers.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.counters.iter().map(|counters| counter(counters).value()).sum()
    }

    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.sum(|counters| &counters.connections_closed[reason as usize])
    }

    /// All views as text, to compare two runs.
    pub fn trace(&self) -> String {
        let views = self.clients.iter().map(|client| (&client.views, &client.seen));
        format!("{:?}", views.collect::<Vec<_>>())
    }

    fn choose(&mut self, fits: impl Fn(&Client) -> bool) -> Option<usize> {
        let candidates: Vec<_> = (0..self.clients.len())
            .filter(|index| !self.clients[*index].is_observer && fits(&self.clients[*index]))
            .collect();
        if candidates.is_empty() {
            return None;
        }
        Some(candidates[self.random_below(candidates.len())])
    }
}
