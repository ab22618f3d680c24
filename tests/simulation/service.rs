//! Once nothing disturbs a world any more, it serves those who are there and those who come, in a bounded time; and it
//! stops when it is told to.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fantail::driver::PeerId;
use fantail::message::CloseReason;
use fantail::protocol::websocket::{OpCode, write_masked_frame};
use serde_json::{Value, json};

use crate::options::SEND_QUEUE_BYTES_LEAST;
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

/// What it reads at a time.
const READER_WINDOW: usize = 512;

/// Publications that come while it reads.
const MEANWHILE: u64 = 40;
