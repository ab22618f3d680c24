//! The world: workers, clients, chance.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use fantail::config::{Config, Framing};
use fantail::connection::Service;
use fantail::driver::{DriverSettings, SimulatedDriver, SimulatedNetwork, Waker};
use fantail::hub::ChannelHash;
use fantail::message::CloseReason;
use fantail::telemetry::Counters;
use fantail::worker::{Budget, Mesh, Worker, WorkerParts, WorkerSettings, new_counters};

use crate::client::Client;

pub struct World {
    pub network: SimulatedNetwork,
    workers: Vec<Worker<SimulatedDriver>>,
    counters: Arc<[Arc<Counters>]>,
    clients: Vec<Client>,
    dice: u64,
    published: usize,
}

const EDGE: SocketAddr = address(8000);
const COMMANDS: SocketAddr = address(8001);
const PADDING: &str = "..................................................";
const CONNECTIONS_MAX: usize = 256;
const MEMORY_BYTES_MAX: u64 = 1 << 30;

const fn address(port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))
}

impl World {
    pub fn new(seed: u64, workers: usize) -> Self {
        let network = SimulatedNetwork::new(seed);
        let config = Config {
            listen: vec![EDGE],
            tcp: vec![COMMANDS],
            send_queue_bytes_max: 48 * 1024,
            ..Config::default()
        };
        config.check().expect("a sound configuration");
        let wakers: Vec<_> = (0..workers).map(|_| Waker::none()).collect();
        let counters: Arc<[_]> = (0..workers).map(|_| Arc::new(new_counters())).collect();
        let clock = Arc::new(std::sync::OnceLock::new());
        let (stop, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let hash = ChannelHash::with_key(seed);
        let budgets = Budget::of_workers(workers, MEMORY_BYTES_MAX);
        let workers = Mesh::new(&wakers)
            .into_iter()
            .zip(budgets)
            .map(|(mesh, budget)| {
                let settings = WorkerSettings::new(
                    &config,
                    mesh.worker(),
                    workers as u16,
                    CONNECTIONS_MAX,
                    vec![Service::Edge, Service::Commands(Framing::Line)],
                    hash,
                );
                let parts = WorkerParts {
                    mesh,
                    counters: counters.clone(),
                    stop: stop.clone(),
                    configs: std::sync::mpsc::channel().1,
                    budget,
                    open: open.clone(),
                    open_max: CONNECTIONS_MAX,
                    steps: Arc::new(AtomicUsize::new(0)),
                    clock: clock.clone(),
                };
                let driver = DriverSettings {
                    sockets_max: CONNECTIONS_MAX as u32,
                    receive_buffer_bytes: 4096,
                    events_per_turn_max: 16,
                    received_bytes_per_turn_max: 8192,
                };
                let driver = SimulatedDriver::new(&driver, &network, &[EDGE, COMMANDS]);
                Worker::new(driver, settings, parts)
            })
            .collect();
        Self { network, workers, counters, clients: Vec::new(), dice: seed, published: 0 }
    }

    /// A number below `sides`: splitmix64.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    /// A client that is never disturbed: its view is the channel's one order.
    pub fn add_observer(&mut self, channel: &'static str) {
        let peer = self.network.connect(COMMANDS).expect("a listener");
        let mut client = Client::commands(&self.network, peer, channel);
        client.is_observer = true;
        self.clients.push(client);
        let observer = self.clients.len() - 1;
        for _ in 0..10_000 {
            self.turn();
            self.read_all();
            self.advance();
            if self.clients[observer].is_subscribed() {
                self.network.set_window(self.clients[observer].peer, 1 << 30);
                return;
            }
        }
        panic!("the observer of {channel} is not answered");
    }

    pub fn add_websocket(&mut self, channel: &'static str) {
        if let Some(peer) = self.network.connect(EDGE) {
            self.clients.push(Client::websocket(&self.network, peer, channel));
        }
    }

    pub fn add_commands(&mut self, channel: &'static str) {
        if let Some(peer) = self.network.connect(COMMANDS) {
            self.clients.push(Client::commands(&self.network, peer, channel));
        }
    }

    pub fn drop_client(&mut self) {
        if let Some(index) = self.choose() {
            self.network.close(self.clients[index].peer);
            self.clients[index].is_gone = true;
        }
    }

    pub fn reset_client(&mut self) {
        if let Some(index) = self.choose() {
            self.network.reset(self.clients[index].peer);
            self.clients[index].is_gone = true;
        }
    }

    pub fn stall_client(&mut self) {
        if let Some(index) = self.choose() {
            self.clients[index].is_stalled = true;
            self.network.set_window(self.clients[index].peer, 512);
        }
    }

    pub fn stop_stalling(&mut self) {
        if let Some(index) = self.choose() {
            self.clients[index].is_stalled = false;
            self.network.set_window(self.clients[index].peer, 16 * 1024);
        }
    }

    pub fn publish(&mut self, channel: &'static str) {
        let candidates: Vec<_> = (0..self.clients.len())
            .filter(|index| {
                let client = &self.clients[*index];
                client.channel == channel && client.is_subscribed() && !client.is_gone
            })
            .collect();
        let publisher = candidates[self.roll(candidates.len())];
        self.published += 1;
        let data = format!("{channel}-{}-{PADDING}", self.published);
        let client = &mut self.clients[publisher];
        if !client.publish(&self.network, &data) {
            // A frame cut in the middle by a full window cannot be taken back.
            assert!(!client.is_observer);
            self.network.reset(client.peer);
            client.is_gone = true;
        }
    }

    pub fn flood(&mut self, channel: &'static str) {
        for _ in 0..150 {
            self.publish(channel);
        }
    }

    pub fn advance(&mut self) {
        let milliseconds = self.roll(60) as u64;
        self.network.advance(Duration::from_millis(milliseconds));
    }

    pub fn turn(&mut self) {
        let worker = self.roll(self.workers.len());
        self.workers[worker].turn(Duration::ZERO).expect("a simulated driver does not fail");
    }

    pub fn read_all(&mut self) {
        for client in &mut self.clients {
            client.read(&self.network);
        }
    }

    /// Lets everything come to rest.
    pub fn settle(&mut self) {
        for client in &mut self.clients {
            client.is_stalled = false;
            self.network.set_window(client.peer, 1 << 30);
        }
        for _ in 0..400 {
            for worker in &mut self.workers {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(20));
            self.read_all();
        }
    }

    /// What an observer saw.
    pub fn observed(&self, channel: &str) -> Vec<String> {
        let observer = self.clients.iter().find(|c| c.is_observer && c.channel == channel);
        observer.expect("each channel has one").seen.clone()
    }

    /// Connections that ended for a reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.counters.iter().map(|counters| counters.closed[reason as usize].value()).sum()
    }

    pub fn judge(&self) {
        let mut orders: HashMap<&str, HashMap<String, usize>> = HashMap::new();
        for client in self.clients.iter().filter(|client| client.is_observer) {
            let channel = client.channel;
            assert!(!client.is_gone, "an observer of {channel} was cut off: {:?}", client.goodbye);
            let order = client.seen.iter().cloned().zip(0..).collect::<HashMap<_, _>>();
            assert_eq!(order.len(), client.seen.len(), "a duplicate in {}", client.channel);
            orders.insert(client.channel, order);
        }
        for (index, client) in self.clients.iter().enumerate() {
            let order = &orders[client.channel];
            let unknown: Vec<_> =
                client.seen.iter().filter(|data| !order.contains_key(*data)).collect();
            let channel = client.channel;
            assert!(unknown.is_empty(), "client {index} alone saw {unknown:?} of {channel}");
            let places: Vec<_> = client.seen.iter().map(|data| order[data]).collect();
            for pair in places.windows(2) {
                let two = (client.channel, pair);
                assert_eq!(pair[0] + 1, pair[1], "client {index}: a gap or a swap: {two:?}");
            }
            if !client.is_gone && client.goodbye.is_none() && client.is_subscribed() {
                let last = places.last().map_or(order.len(), |last| last + 1);
                assert_eq!(last, order.len(), "client {index} has not seen the end");
            }
        }
    }

    pub fn close_all(&mut self) {
        for client in &mut self.clients {
            self.network.close(client.peer);
            client.is_gone = true;
        }
    }

    /// Nobody is left, and nothing of them.
    pub fn expect_empty(&self) {
        for counters in self.counters.iter() {
            assert_eq!(counters.open.value(), 0, "connections");
            assert_eq!(counters.channels.value(), 0, "channels");
            assert_eq!(counters.subscriptions.value(), 0, "subscriptions");
            assert_eq!(counters.queued_bytes.value(), 0, "queued bytes");
            assert_eq!(counters.fan_out_backlog.value(), 0, "backlog");
        }
    }

    fn choose(&mut self) -> Option<usize> {
        let candidates: Vec<_> = (0..self.clients.len())
            .filter(|index| !self.clients[*index].is_observer && !self.clients[*index].is_gone)
            .collect();
        if candidates.is_empty() {
            return None;
        }
        Some(candidates[self.roll(candidates.len())])
    }
}
