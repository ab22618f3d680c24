//! Without faults, a world serves connected and new clients in bounded time, and stops on request.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fantail::config::SlowConsumer;
use fantail::driver::PeerId;
use fantail::message::CloseReason;
use fantail::protocol::websocket::{OpCode, write_masked_frame};
use serde_json::{Value, json};

use crate::client::{Client, Kind};
use crate::command_client::CommandClient;
use crate::options::SEND_QUEUE_BYTES_LEAST;
use crate::stream::{CHANNELS, Payload, State, View};
use crate::world::World;

/// Turns of every worker in which new clients are accepted and their first commands are answered: in each turn, one is
/// accepted per listener, and one is read for the first time.
const TURNS_TO_SERVE: usize = 40;

/// Rounds in which a slow reader receives all missed publications.
const ROUNDS_TO_RECOVER: usize = 1000;

/// Publications of one byte that a flooder sends between two turns of the workers, each in a frame of seven.
const FRAMES_PER_TURN: usize = 1200;

/// A publisher that sends as fast as possible and reads everything.
struct Flooder {
    peer: PeerId,
    /// Bytes of a frame that the network has not accepted.
    rest: Vec<u8>,
}

/// A slow reader that recovers many publications.
struct Reader {
    client: CommandClient,
    epoch: Value,
    /// The offset up to which it has received everything.
    offset: u64,
}

impl World {
    /// Checks that new clients are served within a bounded number of turns, also during a flood.
    pub fn expect_service(&mut self, is_flooded: bool) {
        let flooders = if is_flooded { 2 * self.workers.len() + 1 } else { 0 };
        let mut flooders: Vec<_> = (0..flooders).map(|at| self.flooder(at)).collect();
        if is_flooded {
            // The flooders connect before the new clients.
            for _ in 0..TURNS_TO_SERVE {
                self.turn_all();
            }
        }
        let commands = [
            json!({"id": 1, "connect": {}}),
            json!({"id": 2, "subscribe": {"channel": "hall"}}),
            json!({"id": 3, "publish": {"channel": "hall", "data": "here"}}),
        ];
        let count = 2 * self.workers.len();
        let mut new_clients: Vec<_> =
            (0..count).map(|_| CommandClient::connect(self, &commands)).collect();
        let mut answers = vec![0; count];
        for _ in 0..TURNS_TO_SERVE {
            self.flood(&mut flooders);
            self.turn_all();
            self.network.advance(Duration::from_millis(1));
            self.read_all();
            for (new_client, answers) in new_clients.iter_mut().zip(&mut answers) {
                let lines = new_client.lines(self);
                assert!(lines.iter().all(|line| line.get("error").is_none()), "{lines:?}");
                *answers += lines.iter().filter(|line| line["id"].is_number()).count();
            }
            if answers.iter().all(|answers| *answers == commands.len()) {
                break;
            }
        }
        assert_eq!(answers, vec![commands.len(); count], "new clients are not answered");
        let new_clients = new_clients.iter().map(|new_client| new_client.peer);
        for peer in new_clients.chain(flooders.iter().map(|flooder| flooder.peer)) {
            assert_eq!(
                self.network.ended(peer),
                None,
                "a client that reads everything was disconnected"
            );
            self.network.reset(peer);
        }
    }

    fn flooder(&mut self, at: usize) -> Flooder {
        let peer = self.connect_http();
        let head = format!(
            "GET /ws?channel=flood{at} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        self.network.write(peer, head.as_bytes());
        self.network.set_window(peer, 1 << 30);
        Flooder { peer, rest: Vec::new() }
    }

    fn flood(&mut self, flooders: &mut [Flooder]) {
        let mut frames = Vec::new();
        for _ in 0..FRAMES_PER_TURN {
            write_masked_frame(&mut frames, OpCode::Text, b"x", [1, 2, 3, 4]);
        }
        let frame_bytes = frames.len() / FRAMES_PER_TURN;
        for flooder in flooders {
            self.network.read(flooder.peer);
            let bytes = [&flooder.rest[..], &frames].concat();
            let taken = self.network.write(flooder.peer, &bytes);
            // The rest of a partly written frame follows; the other frames are dropped.
            let begun = (bytes.len() - taken) % frame_bytes;
            flooder.rest = bytes[taken..taken + begun].to_vec();
        }
    }

    /// Checks that a slow reader that missed more than its send queue may hold receives all missed and new publications
    /// and is not disconnected: each part of a recovery leaves room in the send queue, also after a reload of its
    /// limit.
    pub fn expect_recovery(&mut self) {
        let mut publisher = CommandClient::new(self);
        let size = 1000;
        let publish =
            |data: String| json!({"id": 3, "publish": {"channel": "kept:slow", "data": data}});
        let mut count = (3 * SEND_QUEUE_BYTES_LEAST / size) as u64;
        publisher.send(self, &vec![publish("x".repeat(size)); count as usize]);
        publisher.replies(self, count as usize);
        let history = json!({"id": 2, "history": {"channel": "kept:slow", "limit": 0}});
        let epoch = publisher.ask(self, &history)["history"]["epoch"].clone();
        let slow = self.closed(CloseReason::SlowConsumer);
        let mut reader = Reader::new(self, epoch);
        let last = count + MEANWHILE;
        for _ in 0..ROUNDS_TO_RECOVER {
            if count < last {
                publisher.send(self, &[publish("x".to_owned())]);
                count += 1;
            }
            self.turn_all();
            self.turn_all();
            self.network.advance(Duration::from_millis(5));
            self.read_all();
            reader.read(self);
            if reader.offset == last {
                break;
            }
        }
        assert_eq!(self.closed(CloseReason::SlowConsumer), slow, "a part exceeds the send queue");
        assert_eq!(reader.offset, last, "everything is recovered");
        self.network.reset(reader.client.peer);
        self.network.reset(publisher.peer);
    }

    /// Checks that unfinished uploads that fill the memory budget are closed, that other clients stay connected, and
    /// that the workers recover afterwards.
    pub fn press(&mut self) {
        // Allows uploads of that size.
        self.reload_with(|config| config.message_bytes_max = PRESSING_BYTES_MAX);
        self.turn_all();
        let bytes = PRESSING_BYTES_MAX;
        let stays = |client: &&Client| client.link.is_some() && client.kind != Kind::Polls;
        let here = self.clients.iter().filter(stays).count();
        let head = format!("POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n");
        let body = vec![b'x'; bytes as usize - 1];
        let level = |world: &Self| {
            let levels =
                world.counters.iter().map(|counters| counters.memory_pressure_level.value());
            levels.max().expect("there are workers")
        };
        let (mut peers, mut highest) = (Vec::new(), 0);
        for turn in 0..TURNS_OF_PRESSURE {
            if turn % 4 == 0 && peers.len() < PRESSING {
                let peer = self.connect_http();
                self.network.write(peer, &[head.as_bytes(), &body].concat());
                peers.push(peer);
            }
            self.turn_all();
            self.network.advance(Duration::from_millis(1));
            highest = highest.max(level(self));
        }
        assert!(highest >= CRITICAL, "the budget was not reached");
        for peer in peers {
            self.network.reset(peer);
        }
        for _ in 0..TURNS_TO_SERVE {
            self.turn_all();
            self.network.advance(Duration::from_millis(1));
        }
        assert_eq!(level(self), 0, "memory pressure is over");
        assert!(self.sum(|counters| &counters.evicted_unfinished_messages) > 0);
        self.read_all();
        let left = self.clients.iter().filter(stays).count();
        assert_eq!(left, here, "a client with little memory was disconnected");
    }

    /// Checks that a full server rejects clients with an error and answers health checks, and that it serves again when
    /// clients have left.
    pub fn expect_refusals(&mut self) {
        let free = self.open_max - self.open.load(Ordering::Relaxed);
        let clients: Vec<_> = (0..free).map(|_| CommandClient::new(self)).collect();
        let mut late = CommandClient::connect(self, &[json!({"id": 1, "connect": {}})]);
        let targets = ["GET /health/live", "GET /events?channel=hall", "GET /poll?channel=hall"];
        let peers = targets.map(|target| {
            let peer = self.connect_http();
            self.network.write(peer, format!("{target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
            peer
        });
        for _ in 0..TURNS_TO_SERVE {
            self.turn_all();
            self.read_all();
        }
        let lines = late.lines(self);
        assert_eq!(lines[0]["push"]["disconnect"]["code"], 3003, "{lines:?}");
        assert!(self.network.ended(late.peer).is_some());
        let answers = peers.map(|peer| self.network.read(peer));
        let begin = |answer: &Vec<u8>| String::from_utf8_lossy(&answer[..12]).into_owned();
        assert_eq!(begin(&answers[0]), "HTTP/1.1 200");
        assert_eq!(begin(&answers[2]), "HTTP/1.1 503");
        let others = clients.iter().map(|client| client.peer).chain(peers);
        for peer in others.chain([late.peer]) {
            self.network.reset(peer);
        }
        self.close_all();
        self.forget();
        self.expect_empty();
    }

    /// Checks that silent connections, unfinished requests and idle connections time out.
    pub fn expect_timeouts(&mut self) {
        let (first, next) = (Duration::from_secs(2), Duration::from_secs(4));
        self.reload_with(|config| {
            (config.handshake_timeout, config.http_idle_timeout) = (first, next);
        });
        self.turn_all();
        let whole = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut left: Vec<_> = [("", first), (&whole[..9], first), (whole, next)]
            .map(|(text, time)| {
                let peer = self.connect_http();
                self.network.write(peer, text.as_bytes());
                (peer, time)
            })
            .to_vec();
        left.push((self.connect_commands(), first));
        let begun = self.network.now();
        while !left.is_empty() {
            self.turn_all();
            self.read_all();
            let passed = self.network.now() - begun;
            left.retain(|&(peer, time)| {
                self.network.read(peer);
                let is_over = self.network.ended(peer).is_some();
                assert!(!is_over || passed >= time, "{passed:?} of {time:?}");
                assert!(is_over || passed < time + LATENESS_MAX, "{passed:?} of {time:?}");
                if is_over {
                    self.network.close(peer);
                }
                !is_over
            });
            self.network.advance(Duration::from_millis(50));
        }
    }

    /// Stops the server while clients publish, some do not read, and some have vanished. Publications acknowledged
    /// before the end of the drain must have reached all clients that were connected and received the shutdown
    /// disconnect, unless a gap was reported to them before.
    pub fn stop_under_load(&mut self) {
        let here: Vec<_> = self.clients.iter().map(|client| client.views).collect();
        // Publications sent before these clients subscribed do not count.
        let earlier: HashSet<_> = self.clients.iter().flat_map(Client::unanswered).collect();
        self.streams.acknowledged = Some(Vec::new());
        for _ in 0..STEPS_UNDER_LOAD {
            self.step_under_load();
        }
        self.stop.store(true, Ordering::Release);
        let drain = self.config.drain_time;
        let begun = self.network.now();
        let longest = drain + self.config.shutdown_timeout + Duration::from_millis(100);
        let mut acknowledged = None;
        while self.workers.iter().any(|worker| !worker.is_done()) {
            let passed = self.network.now() - begun;
            assert!(passed <= longest, "the server does not stop in time");
            if drain.is_zero() || passed < drain / 3 {
                self.step_under_load();
            } else {
                // During a drain, clients are disconnected while others publish.
                acknowledged = acknowledged.or_else(|| self.streams.acknowledged.take());
            }
            for worker in self.workers.iter_mut().filter(|worker| !worker.is_done()) {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(3));
            self.read_all();
        }
        let acknowledged = acknowledged.or_else(|| self.streams.acknowledged.take());
        let mut acknowledged = acknowledged.expect("acknowledgements were recorded");
        acknowledged.retain(|payload| !earlier.contains(payload));
        self.judge_disconnects(&here, &acknowledged);
        let is_disconnected = |client: &Client| client.link.is_none() || client.is_stalled;
        assert!(self.clients.iter().all(is_disconnected), "a client received no disconnect");
    }

    fn step_under_load(&mut self) {
        match self.random_below(4) {
            0 => self.publish(3, 20),
            1 => self.publish(1, 300),
            _ => self.turn(),
        }
        self.read_all();
    }

    fn judge_disconnects(&mut self, here: &[[View; CHANNELS.len()]], acknowledged: &[Payload]) {
        for (client, before) in self.clients.iter().zip(here) {
            let Some(after) = client.disconnect else { continue };
            for payload in acknowledged {
                let channel = payload.channel;
                let is_live = |views: &[View]| views[channel].state == State::Subscribed;
                let is_whole = CHANNELS[channel].slow_consumer == SlowConsumer::Disconnect;
                if !is_whole || !is_live(before) || !is_live(&after) {
                    continue;
                }
                self.streams.counts.disconnects += 1;
                let view = &after[channel];
                let reached = view.position.map_or(0, |at| at.offset + view.gap);
                let position = self.streams.position_of(*payload);
                assert!(
                    position.is_some_and(|position| position.offset <= reached),
                    "{:?} has {view:?}, but {payload:?} at {position:?} was acknowledged",
                    client.kind
                );
            }
        }
    }

    /// Stops the server and checks that every worker ends in time and every client is disconnected.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Clients that read everything and close at once do not delay the shutdown.
        let drain = self.config.drain_time;
        let leaving = if drain.is_zero() { drain } else { self.config.shutdown_timeout / 2 };
        let longest = drain + leaving + Duration::from_secs(1);
        let begun = self.network.now();
        while self.workers.iter().any(|worker| !worker.is_done()) {
            assert!(self.network.now() - begun <= longest, "the server does not stop in time");
            for worker in self.workers.iter_mut().filter(|worker| !worker.is_done()) {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(50));
            self.read_all();
        }
        assert!(
            self.clients.iter().all(|client| client.link.is_none()),
            "a client received no disconnect"
        );
    }
}

impl Reader {
    fn new(world: &World, epoch: Value) -> Self {
        let client = CommandClient::connect(world, &[json!({"id": 1, "connect": {}})]);
        world.network.set_window(client.peer, READER_WINDOW);
        let reader = Self { client, epoch, offset: 0 };
        reader.recover(world);
        reader
    }

    fn recover(&self, world: &World) {
        let Self { client, epoch, offset } = self;
        let recover = json!({"id": 2, "subscribe": {
            "channel": "kept:slow", "recover": true, "epoch": epoch, "offset": offset,
        }});
        client.send(world, &[recover]);
    }

    fn read(&mut self, world: &World) {
        for line in self.client.lines(world) {
            assert!(line.get("error").is_none(), "{line}");
            let recovered = line["subscribe"]["publications"].as_array();
            let pushed = line["push"].get("pub");
            for publication in recovered.into_iter().flatten().chain(pushed) {
                self.offset += 1;
                assert_eq!(publication["offset"], self.offset, "{line}");
            }
            // There are more missed publications.
            if line["push"]["unsubscribe"]["code"] == 2500 {
                self.recover(world);
            }
        }
    }
}

/// Number of clients with unfinished uploads, bytes of each, and turns of the test.
const PRESSING: usize = 24;
const PRESSING_BYTES_MAX: u64 = 64 * 1024;
const TURNS_OF_PRESSURE: usize = 1200;

/// The memory pressure level at which clients are disconnected.
const CRITICAL: u64 = 2;

/// Maximum delay of a timeout.
const LATENESS_MAX: Duration = Duration::from_millis(1500);

/// Steps of load before a stop.
const STEPS_UNDER_LOAD: usize = 30;

/// Window of a slow reader, in bytes.
const READER_WINDOW: usize = 512;

/// Publications made while it reads.
const MEANWHILE: u64 = 40;
