//! Once nothing disturbs a world any more, it serves those who are there and those who come, in a bounded time; and it
//! stops when it is told to.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fantail::config::SlowConsumer;
use fantail::driver::PeerId;
use fantail::message::CloseReason;
use fantail::protocol::websocket::{OpCode, write_masked_frame};
use serde_json::{Value, json};

use crate::client::{Client, Kind};
use crate::options::SEND_QUEUE_BYTES_LEAST;
use crate::stream::{CHANNELS, Payload, State, View};
use crate::talker::Talker;
use crate::world::World;

/// Turns of every worker in which newcomers are accepted, and their first commands are answered: one is accepted for
/// each listener in a turn, and one heard for the first time.
const TURNS_TO_SERVE: usize = 40;

/// Rounds in which a client that reads slowly gets everything that it missed.
const ROUNDS_TO_RECOVER: usize = 1000;

/// Publications of one byte that a flooder sends between two turns of the workers, each in a frame of seven.
const FRAMES_PER_TURN: usize = 1200;

/// A publisher that sends as much as it can, and reads everything.
struct Flooder {
    peer: PeerId,
    /// Bytes of a frame that the network has not taken.
    rest: Vec<u8>,
}

/// A client that missed much, and reads little at a time.
struct Reader {
    talker: Talker,
    epoch: Value,
    /// It has everything up to here.
    offset: u64,
}

impl World {
    /// Newcomers are served within a bounded number of turns, also while others send as much as they can.
    pub fn expect_service(&mut self, is_flooded: bool) {
        let flooders = if is_flooded { 2 * self.workers.len() + 1 } else { 0 };
        let mut flooders: Vec<_> = (0..flooders).map(|at| self.flooder(at)).collect();
        if is_flooded {
            // They are there before the newcomers are.
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
        let mut newcomers: Vec<_> = (0..count).map(|_| Talker::come(self, &commands)).collect();
        let mut answers = vec![0; count];
        for _ in 0..TURNS_TO_SERVE {
            self.flood(&mut flooders);
            self.turn_all();
            self.network.advance(Duration::from_millis(1));
            self.read_all();
            for (newcomer, answers) in newcomers.iter_mut().zip(&mut answers) {
                let lines = newcomer.lines(self);
                assert!(lines.iter().all(|line| line.get("error").is_none()), "{lines:?}");
                *answers += lines.iter().filter(|line| line["id"].is_number()).count();
            }
            if answers.iter().all(|answers| *answers == commands.len()) {
                break;
            }
        }
        assert_eq!(answers, vec![commands.len(); count], "newcomers wait for their answers");
        let newcomers = newcomers.iter().map(|newcomer| newcomer.peer);
        for peer in newcomers.chain(flooders.iter().map(|flooder| flooder.peer)) {
            assert_eq!(self.network.ended(peer), None, "a client that reads everything is served");
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
            // What is left of a frame that was begun follows; the others are not sent.
            let begun = (bytes.len() - taken) % frame_bytes;
            flooder.rest = bytes[taken..taken + begun].to_vec();
        }
    }

    /// A client that missed more than its queue may hold, and reads slowly, gets all of it and what is published
    /// meanwhile, and is not disconnected: what is sent at once leaves room in its queue, also where the limit is another
    /// one than at the start.
    pub fn expect_recovery(&mut self) {
        let mut publisher = Talker::new(self);
        let size = 1000;
        let publish =
            |data: String| json!({"id": 3, "publish": {"channel": "kept:slow", "data": data}});
        let mut count = (3 * SEND_QUEUE_BYTES_LEAST / size) as u64;
        publisher.say(self, &vec![publish("x".repeat(size)); count as usize]);
        publisher.replies(self, count as usize);
        let history = json!({"id": 2, "history": {"channel": "kept:slow", "limit": 0}});
        let epoch = publisher.ask(self, &history)["history"]["epoch"].clone();
        let slow = self.closed(CloseReason::SlowConsumer);
        let mut reader = Reader::new(self, epoch);
        let last = count + MEANWHILE;
        for _ in 0..ROUNDS_TO_RECOVER {
            if count < last {
                publisher.say(self, &[publish("x".to_owned())]);
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
        assert_eq!(self.closed(CloseReason::SlowConsumer), slow, "what is sent at once fits");
        assert_eq!(reader.offset, last, "everything is recovered");
        self.network.reset(reader.talker.peer);
        self.network.reset(publisher.peer);
    }

    /// Uploads that never end fill the memory budget: those who send them are closed, everyone else stays, and once they
    /// are gone the workers serve as before.
    pub fn press(&mut self) {
        // Uploads may be as large as that.
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
        assert!(highest >= CRITICAL, "the budget is met");
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
        assert_eq!(left, here, "those who hold little stay");
    }

    /// A server that is full refuses in words, and answers health checks; when the others have left, it serves again.
    pub fn expect_refusals(&mut self) {
        let free = self.open_max - self.open.load(Ordering::Relaxed);
        let talkers: Vec<_> = (0..free).map(|_| Talker::new(self)).collect();
        let mut late = Talker::come(self, &[json!({"id": 1, "connect": {}})]);
        let asks = ["GET /health/live", "GET /events?channel=hall", "GET /poll?channel=hall"];
        let peers = asks.map(|ask| {
            let peer = self.connect_http();
            self.network.write(peer, format!("{ask} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
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
        let others = talkers.iter().map(|talker| talker.peer).chain(peers);
        for peer in others.chain([late.peer]) {
            self.network.reset(peer);
        }
        self.close_all();
        self.forget();
        self.expect_empty();
    }

    /// Connections that say nothing, or nothing whole, or nothing more, have their time.
    pub fn expect_patience(&mut self) {
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

    /// Stops the server while clients publish, some of them do not read, and some have silently left. What it
    /// acknowledged before its drain ended has reached those who were there, and who were told of the shutdown and of no
    /// gap before it.
    pub fn stop_under_load(&mut self) {
        let here: Vec<_> = self.clients.iter().map(|client| client.views).collect();
        // Those who are there may have come behind these.
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
            assert!(passed <= longest, "it does not end");
            if drain.is_zero() || passed < drain / 3 {
                self.step_under_load();
            } else {
                // The goodbyes of a drain come while others publish.
                acknowledged = acknowledged.or_else(|| self.streams.acknowledged.take());
            }
            for worker in self.workers.iter_mut().filter(|worker| !worker.is_done()) {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(3));
            self.read_all();
        }
        let acknowledged = acknowledged.or_else(|| self.streams.acknowledged.take());
        let mut acknowledged = acknowledged.expect("it was looked at");
        acknowledged.retain(|payload| !earlier.contains(payload));
        self.judge_disconnects(&here, &acknowledged);
        let is_told = |client: &Client| client.link.is_none() || client.is_stalled;
        assert!(self.clients.iter().all(is_told), "its clients are told");
    }

    fn step_under_load(&mut self) {
        match self.roll(4) {
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
                let is_live = |views: &[View]| views[channel].state == State::Live;
                let is_whole = CHANNELS[channel].slow_consumer == SlowConsumer::Disconnect;
                if !is_whole || !is_live(before) || !is_live(&after) {
                    continue;
                }
                self.streams.counts.disconnects += 1;
                let view = &after[channel];
                let reached = view.position.map_or(0, |at| at.offset + view.gap);
                let place = self.streams.place(*payload);
                assert!(
                    place.is_some_and(|place| place.offset <= reached),
                    "{:?} has {view:?}, and {payload:?} at {place:?} was acknowledged",
                    client.kind
                );
            }
        }
    }

    /// Stops the server: every worker ends in time, and every client hears of it.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Clients that read everything and close at once are not waited for.
        let drain = self.config.drain_time;
        let leaving = if drain.is_zero() { drain } else { self.config.shutdown_timeout / 2 };
        let longest = drain + leaving + Duration::from_secs(1);
        let begun = self.network.now();
        while self.workers.iter().any(|worker| !worker.is_done()) {
            assert!(self.network.now() - begun <= longest, "it does not end");
            for worker in self.workers.iter_mut().filter(|worker| !worker.is_done()) {
                worker.turn(Duration::ZERO).expect("a simulated driver does not fail");
            }
            self.network.advance(Duration::from_millis(50));
            self.read_all();
        }
        assert!(self.clients.iter().all(|client| client.link.is_none()), "its clients are told");
    }
}

impl Reader {
    fn new(world: &World, epoch: Value) -> Self {
        let talker = Talker::come(world, &[json!({"id": 1, "connect": {}})]);
        world.network.set_window(talker.peer, READER_WINDOW);
        let reader = Self { talker, epoch, offset: 0 };
        reader.recover(world);
        reader
    }

    fn recover(&self, world: &World) {
        let Self { talker, epoch, offset } = self;
        let recover = json!({"id": 2, "subscribe": {
            "channel": "kept:slow", "recover": true, "epoch": epoch, "offset": offset,
        }});
        talker.say(world, &[recover]);
    }

    fn read(&mut self, world: &World) {
        for line in self.talker.lines(world) {
            assert!(line.get("error").is_none(), "{line}");
            let recovered = line["subscribe"]["publications"].as_array();
            let pushed = line["push"].get("pub");
            for publication in recovered.into_iter().flatten().chain(pushed) {
                self.offset += 1;
                assert_eq!(publication["offset"], self.offset, "{line}");
            }
            // There is more of it.
            if line["push"]["unsubscribe"]["code"] == 2500 {
                self.recover(world);
            }
        }
    }
}

/// Clients that send an upload without its end, what each sends of it, and turns in which they come.
const PRESSING: usize = 24;
const PRESSING_BYTES_MAX: u64 = 64 * 1024;
const TURNS_OF_PRESSURE: usize = 1200;

/// The level of memory use at which clients are closed.
const CRITICAL: u64 = 2;

/// After its time, a connection is closed within this.
const LATENESS_MAX: Duration = Duration::from_millis(1500);

/// Steps of load before a stop.
const STEPS_UNDER_LOAD: usize = 30;

/// What it reads at a time.
const READER_WINDOW: usize = 512;

/// Publications that come while it reads.
const MEANWHILE: u64 = 40;
