//! The world: workers, clients, chance.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use fantail::config::{Config, Framing};
use fantail::connection::Service;
use fantail::driver::{DriverSettings, Faults, PeerId, SimulatedDriver, SimulatedNetwork, Waker};
use fantail::hub::ChannelHash;
use fantail::message::{CloseReason, Position};
use fantail::telemetry::{Counter, Counters};
use fantail::worker::{Budget, Mesh, Worker, WorkerParts, WorkerSettings, new_counters};
use serde_json::{Value, json};

use crate::client::{Client, Kind, position_of};
use crate::link::Link;
use crate::stream::{CHANNELS, Counts, Payload, State, Streams, namespaces};

pub struct World {
    pub network: SimulatedNetwork,
    workers: Vec<Worker<SimulatedDriver>>,
    counters: Arc<[Arc<Counters>]>,
    clients: Vec<Client>,
    streams: Streams,
    operator: Operator,
    /// Connections that their clients have forgotten, and nobody told the server.
    silent: Vec<PeerId>,
    dice: u64,
    /// Channels where most happens: who meets there meets often.
    busy: [usize; 3],
    has_short_sends: bool,
}

/// Calls the server API, one call after the other.
struct Operator {
    link: Link,
    call: Option<Call>,
    published: u32,
}

/// What waits for its answer.
enum Call {
    Publish(Vec<Payload>),
    Other,
}

/// Of one client.
pub const SEND_QUEUE_BYTES_MAX: usize = 8 * 1024;

const EDGE: SocketAddr = address(8000);
const COMMANDS: SocketAddr = address(8001);
const CONNECTIONS_MAX: usize = 256;
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const WINDOW: usize = 64 * 1024;

const fn address(port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))
}

impl Operator {
    /// Something to publish.
    fn word(&mut self, channel: usize) -> Payload {
        self.published += 1;
        Payload { channel, publisher: self.link.peer.0, number: self.published }
    }
}

impl World {
    /// Small queues and turns: limits are met often.
    pub fn new(seed: u64, workers: usize) -> Self {
        let config = Config {
            send_queue_bytes_max: SEND_QUEUE_BYTES_MAX as u64,
            namespaces: namespaces(),
            ..Config::default()
        };
        let driver = DriverSettings {
            sockets_max: CONNECTIONS_MAX as u32,
            receive_buffer_bytes: 4096,
            events_per_turn_max: 16,
            churn_per_turn_max: 4,
            received_bytes_per_turn_max: 8192,
            receive_share_bytes: 1024,
        };
        Self::with(seed, workers, config, &driver)
    }

    /// Queues and turns as they are outside.
    pub fn of_real_size(seed: u64, workers: usize) -> Self {
        let sockets_max = CONNECTIONS_MAX as u32;
        let driver = DriverSettings { sockets_max, ..DriverSettings::default() };
        Self::with(seed, workers, Config::default(), &driver)
    }

    fn with(seed: u64, workers: usize, config: Config, driver: &DriverSettings) -> Self {
        let network = SimulatedNetwork::new(seed);
        let config = Config { listen: vec![EDGE], tcp: vec![COMMANDS], ..config };
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
                    is_behind_proxy: Arc::default(),
                    shares_core: false,
                };
                let driver = SimulatedDriver::new(driver, &network, &[EDGE, COMMANDS]);
                Worker::new(driver, settings, parts)
            })
            .collect();
        let peer = network.connect(EDGE).expect("a listener");
        let operator = Operator { link: Link::new(peer), call: None, published: 0 };
        let (clients, streams, silent) = (Vec::new(), Streams::default(), Vec::new());
        let busy = std::array::from_fn(|at| {
            (seed as usize * 7 + at * (1 + seed as usize % 4)) % CHANNELS.len()
        });
        Self {
            network,
            workers,
            counters,
            clients,
            streams,
            operator,
            silent,
            dice: seed,
            busy,
            has_short_sends: false,
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.has_short_sends = faults.short_sends > 0;
        self.network.set_faults(faults);
    }

    /// A number below `sides`: splitmix64.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    /// A channel, likely a busy one.
    fn channel(&mut self) -> usize {
        match self.roll(8) {
            0 => self.roll(CHANNELS.len()),
            _ => self.busy[self.roll(3)],
        }
    }

    /// A client that is never disturbed, in the channels that have one.
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
        let peer = self.clients[observer].link.as_ref().expect("it connected").peer;
        self.network.set_window(peer, 1 << 30);
        while self.clients[observer].views.iter().any(|view| view.state == State::Asked) {
            self.turn();
            self.advance(10);
            self.read_all();
        }
    }

    /// A client of this kind, not connected. Those that name their channels name one or two.
    pub fn add(&mut self, kind: Kind) {
        let observed: Vec<_> = (0..CHANNELS.len()).filter(|at| CHANNELS[*at].is_observed).collect();
        let named = match kind {
            Kind::Lines | Kind::Messages => vec![],
            Kind::Plain => vec![observed[self.roll(observed.len())]],
            Kind::Events if self.roll(2) == 0 => vec![self.channel()],
            // Two that keep everything: the first ones that do.
            Kind::Events => vec![2, 5],
            // A channel that keeps nothing has a poll answered at once.
            Kind::Polls if self.roll(2) == 0 => vec![self.channel().max(2)],
            Kind::Polls => vec![2, 3],
        };
        self.clients.push(Client::new(kind, named));
    }

    /// A connection of the command protocol that is none of the clients'.
    pub fn connect_commands(&self) -> PeerId {
        self.network.connect(COMMANDS).expect("a listener")
    }

    /// One that speaks HTTP.
    pub fn connect_http(&self) -> PeerId {
        self.network.connect(EDGE).expect("a listener")
    }

    /// Has a client come, or come back.
    pub fn come(&mut self) {
        let away = |client: &Client| client.link.is_none();
        if let Some(index) = self.choose(away) {
            self.connect(index);
        }
    }

    fn connect(&mut self, index: usize) {
        let address = match self.clients[index].kind {
            Kind::Lines => COMMANDS,
            Kind::Messages | Kind::Plain | Kind::Events | Kind::Polls => EDGE,
        };
        let goes_on = self.roll(8) > 0;
        let peer = self.network.connect(address).expect("a listener");
        self.network.set_window(peer, WINDOW);
        let client = &mut self.clients[index];
        client.connect(&self.network, peer, goes_on);
        client.may_skip = self.has_short_sends;
        // It comes back to what it had.
        for channel in 0..CHANNELS.len() {
            let has_position = self.clients[index].views[channel].position.is_some();
            if self.clients[index].has_commands() && goes_on && has_position {
                self.subscribe(index, channel);
            }
        }
    }

    /// A client that speaks commands comes to a channel.
    pub fn join(&mut self) {
        if let Some(index) = self.choose(|client| client.has_commands() && client.link.is_some()) {
            let channel = self.channel();
            if self.clients[index].views[channel].state == State::Away {
                self.subscribe(index, channel);
            }
        }
    }

    fn subscribe(&mut self, index: usize, channel: usize) {
        let since = self.clients[index].views[channel].position;
        let since = since.filter(|_| self.roll(8) > 0);
        let since = since.map(|position| match self.roll(32) {
            // Positions that were never given.
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
            if matches!(client.views[channel].state, State::Live | State::Asked)
                && !client.unsubscribe(&self.network, channel)
            {
                self.abort(index);
            }
        }
    }

    /// Cuts a client off: FIN, RST or nothing at all, between two messages or within one.
    pub fn cut(&mut self) {
        let Some(index) = self.choose(|client| client.link.is_some()) else { return };
        let peer = self.clients[index].link.as_ref().expect("chosen").peer;
        if self.roll(3) == 0 {
            let count = 1 + self.roll(20);
            self.network.write(peer, &b"{\"id\":1,\"publish\":{\"chan"[..count]);
        }
        match self.roll(4) {
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

    /// Some client, or the server API, publishes `count` times to one channel.
    pub fn publish(&mut self, count: usize, padding: usize) {
        let channel = self.channel();
        let candidates: Vec<_> = (0..self.clients.len())
            .filter(|index| self.clients[*index].publishes_to(channel))
            .collect();
        let which = self.roll(candidates.len() + 1);
        let Some(publisher) = candidates.get(which).copied() else {
            return self.publish_by_api(channel);
        };
        for _ in 0..count {
            if !self.clients[publisher].publish(&self.network, channel, padding) {
                return self.abort(publisher);
            }
        }
    }

    /// A message cut in the middle by a full window cannot be taken back.
    fn abort(&mut self, index: usize) {
        let client = &mut self.clients[index];
        assert!(!client.is_observer);
        if let Some(link) = &client.link {
            self.network.reset(link.peer);
        }
        client.cut();
    }

    fn publish_by_api(&mut self, channel: usize) {
        if self.operator.call.is_some() {
            return;
        }
        let word = self.operator.word(channel);
        let body = json!({"channel": CHANNELS[channel].name, "data": word.write(20)});
        self.call("publish", &body, Call::Publish(vec![word]));
    }

    /// The server API does something to a client or a channel.
    pub fn control(&mut self) {
        if self.operator.call.is_some() {
            return;
        }
        let channel = self.channel();
        let name = CHANNELS[channel].name;
        if self.roll(8) == 0 {
            if !matches!(channel, 0 | 1) {
                self.streams.is_removed[channel] = true;
                self.call("history_remove", &json!({"channel": name}), Call::Other);
            }
            return;
        }
        let Some(index) = self.choose(|client| client.link.is_some()) else { return };
        let link = self.clients[index].link.as_ref().expect("chosen");
        let Some(client) = link.name.clone() else { return };
        let (method, body) = match self.roll(5) {
            0 => ("disconnect", json!({"client": client})),
            1 | 2 => ("subscribe", json!({"client": client, "channel": name})),
            _ => ("unsubscribe", json!({"client": client, "channel": name})),
        };
        self.call(method, &body, Call::Other);
    }

    fn call(&mut self, method: &str, body: &Value, call: Call) {
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
        let milliseconds = self.roll(milliseconds_max) as u64;
        self.network.advance(Duration::from_millis(milliseconds));
    }

    pub fn turn(&mut self) {
        let worker = self.roll(self.workers.len());
        self.workers[worker].turn(Duration::ZERO).expect("a simulated driver does not fail");
    }

    /// One turn of each worker.
    pub fn turn_all(&mut self) {
        for worker in &mut self.workers {
            worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
        }
    }

    /// Has everyone take what came. Returns whether anything did.
    pub fn read_all(&mut self) -> bool {
        let mut count = 0;
        for client in &mut self.clients {
            count += client.read(&self.network, &mut self.streams);
        }
        count += self.operator.link.read(&self.network);
        if let Some(answer) = self.operator.link.take_response() {
            let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
            let result = &answer["result"];
            match self.operator.call.take().expect("only calls are answered") {
                Call::Publish(words) => {
                    for (index, word) in words.into_iter().enumerate() {
                        let batched = &answer["replies"][index]["publish"];
                        let result = if result.is_object() { result } else { batched };
                        self.streams.note(word.channel, position_of(result), word);
                    }
                }
                Call::Other => assert!(result.is_object(), "{answer}"),
            }
        }
        count > 0
    }

    /// Lets everything come to rest.
    pub fn settle(&mut self) {
        self.set_faults(Faults::default());
        for client in &mut self.clients {
            client.is_stalled = false;
            if let Some(link) = &client.link {
                self.network.set_window(link.peer, 1 << 30);
            }
        }
        let mut quiet = 0;
        for _ in 0..10_000 {
            for worker in &mut self.workers {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(10));
            quiet = if self.read_all() { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                return;
            }
        }
        panic!("no rest");
    }

    /// Publishes a last word to each channel, and compares what everyone has with where that is.
    pub fn judge(&mut self) -> Counts {
        assert!(self.operator.call.is_none(), "everything is answered");
        let words: Vec<_> =
            (0..CHANNELS.len()).map(|channel| self.operator.word(channel)).collect();
        let command = |word: &Payload| json!({"publish": {"channel": CHANNELS[word.channel].name, "data": word.write(20)}});
        let commands: Vec<_> = words.iter().map(command).collect();
        self.call("batch", &json!({"commands": commands}), Call::Publish(words.clone()));
        self.settle();
        let place = |word: &Payload| self.streams.place(*word).expect("it is answered");
        let last: Vec<_> = words.iter().map(place).collect();
        self.streams.judge_order();
        let slow = self.closed(CloseReason::SlowConsumer);
        self.streams.counts.slow = slow;
        for (index, client) in self.clients.iter().enumerate() {
            let is_lost = client.is_observer && client.link.is_none();
            assert!(!is_lost || slow > 0, "an observer was cut off");
            for (channel, view) in client.views.iter().enumerate() {
                // Between two polls, nobody is subscribed: the next one goes on.
                if client.kind == Kind::Polls {
                    let at = view.position.filter(|_| client.link.is_some());
                    assert!(at.is_none_or(|at| at == last[channel]), "{index}: {view:?}");
                } else {
                    view.judge(channel, last[channel]);
                }
            }
            if let [channel] = client.named[..]
                && client.kind == Kind::Plain
            {
                let is_there = client.link.is_some();
                self.judge_plain(&client.seen, is_there.then_some(last[channel]));
            }
        }
        self.streams.counts
    }

    /// What a plain WebSocket saw is a piece of the stream, up to its end if it is still there.
    fn judge_plain(&self, seen: &[Payload], last: Option<Position>) {
        let place = |payload: &Payload| self.streams.place(*payload);
        let places: Vec<_> = seen.iter().map_while(place).collect();
        if places.len() < seen.len() {
            // Nobody else was there.
            let observer = self.clients.iter().find(|client| client.is_observer);
            return assert!(observer.is_some_and(|it| it.link.is_none()), "an observer missed it");
        }
        for pair in places.windows(2) {
            let next = Position { offset: pair[0].offset + 1, ..pair[0] };
            assert_eq!(pair[1], next, "a plain WebSocket sees a gap, a swap or a duplicate");
        }
        assert!(last.is_none() || places.last().copied() == last, "{last:?} is not the end");
    }

    /// One counter, all workers together.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.counters.iter().map(|counters| counter(counters).value()).sum()
    }

    fn closed(&self, reason: CloseReason) -> u64 {
        self.sum(|counters| &counters.closed[reason as usize])
    }

    pub fn close_all(&mut self) {
        for client in &mut self.clients {
            if let Some(link) = &client.link {
                self.network.close(link.peer);
            }
            client.cut();
        }
        for peer in self.silent.drain(..).chain([self.operator.link.peer]) {
            self.network.reset(peer);
        }
    }

    /// Lets the server's patience with those who are gone end.
    pub fn forget(&mut self) {
        for _ in 0..PATIENCE_ROUNDS {
            for worker in &mut self.workers {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(500));
        }
    }

    /// Nobody is left, and nothing of them.
    pub fn expect_empty(&self) {
        for counters in self.counters.iter() {
            assert_eq!(counters.open.value(), 0, "connections");
            assert_eq!(counters.channels.value(), 0, "channels");
            assert_eq!(counters.subscriptions.value(), 0, "subscriptions");
            assert_eq!(counters.queued_bytes.value(), 0, "queued bytes");
            assert_eq!(counters.held_back_bytes.value(), 0, "held back");
            assert_eq!(counters.unfinished_bytes.value(), 0, "unfinished");
            assert_eq!(counters.fan_out_backlog.value(), 0, "backlog");
        }
    }

    /// Everything that anyone saw, in a form that two runs can be compared by.
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
        Some(candidates[self.roll(candidates.len())])
    }
}

/// Rounds without a byte after which nothing is on its way: longer than anything waits for its moment.
const QUIET_ROUNDS: usize = 15;

/// Half seconds of that patience, and one more for every worker to notice.
const PATIENCE_ROUNDS: usize = 20;
