//! Several hubs that are connected by ordered queues, driven at random: every subscriber receives exactly the stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::slots::is_sparse;
use super::*;
use crate::config::limits::{FAN_OUT_BLOCK_BYTES_MAX, OVERDUE_PER_TURN_MAX, SPARSE_ENTRIES_MIN};
use crate::config::{ChannelOptions, Namespaces};
use crate::message::{
    ChannelName, Item, NodeId, Origin, Payload, PayloadKind, Position, Publication, Refusal, Reply,
    Request, RequestId, SessionId, SubscriptionOptions, Ticket, WorkerId,
};

mod exclusion;
mod fan_out;
mod forms;
mod identities;
mod skipped;
mod versions;
mod views;

/// SplitMix64, a generator of reproducible random numbers.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// What one session received of one channel: the position at which it subscribed, and each offset since.
#[derive(Debug)]
struct View {
    position: Position,
    offsets: Vec<u64>,
}

#[derive(Default)]
struct Seen {
    live: HashMap<(usize, u32, String), View>,
    ended: Vec<(String, View)>,
    published: HashMap<(String, u32), u64>,
    replies: Vec<(usize, SessionId, u32, Reply)>,
    /// How often each request was replied to, by its serial.
    answers: HashMap<(usize, SessionId, u32), u32>,
}

impl Seen {
    fn deliver(&mut self, worker: usize, session: u32, publication: &Publication) {
        let key = (worker, session, publication.channel.to_string());
        let view = self.live.get_mut(&key).expect("only subscribers receive publications");
        assert_eq!(view.position.epoch, publication.position.epoch);
        view.offsets.push(publication.position.offset);
    }
}

struct Mesh {
    hubs: Vec<Hub>,
    /// The serial of the last request.
    serial: u32,
    queues: HashMap<(usize, usize), VecDeque<HubMessage>>,
    seen: Seen,
    /// The number of visits after which one finds a full send queue; 0 for none.
    full_every: u64,
    visits: u64,
}

impl Mesh {
    fn new(workers: u16, subscriptions_max: usize) -> Self {
        let open = ChannelOptions::open();
        Self::with(workers, subscriptions_max, open)
    }

    fn with(workers: u16, subscriptions_max: usize, options: ChannelOptions) -> Self {
        let namespaces = Arc::new(Namespaces::new(options));
        let hash = ChannelHash::default();
        let hubs = (0..workers)
            .map(|worker| {
                Hub::new(HubSettings {
                    node: NodeId::new(1),
                    worker: WorkerId(worker),
                    workers,
                    sessions_max: 256,
                    limits: HubLimits {
                        subscriptions_max,
                        history_bytes_max: 1 << 20,
                        answer_bytes_max: 1 << 20,
                        backlog_bytes_max: 1 << 20,
                        position_ttl: Duration::ZERO,
                        expired_close_delay: Duration::from_secs(25),
                    },
                    hash,
                    namespaces: namespaces.clone(),
                })
            })
            .collect();
        Self {
            hubs,
            serial: 0,
            queues: HashMap::new(),
            seen: Seen::default(),
            full_every: 0,
            visits: 0,
        }
    }

    fn request(&mut self, worker: usize, session: SessionId, request: Request) {
        let mut out = VecDeque::new();
        self.serial += 1;
        let id = RequestId { serial: self.serial, origin: Origin::Client(Ticket::FIRST) };
        self.hubs[worker].handle(session, Some(id), Author::Client, request, &mut out);
        self.route(worker, out);
    }

    fn route(&mut self, worker: usize, out: VecDeque<HubOutput>) {
        for output in out {
            match output {
                HubOutput::Send { to, message } => {
                    let to = usize::from(to.0);
                    self.queues.entry((worker, to)).or_default().push_back(message);
                }
                HubOutput::Reply { session, id, reply } => {
                    if let Reply::Subscribed { channel, position, .. } = &reply {
                        let key = (worker, session.index, channel.to_string());
                        let view = View { position: *position, offsets: Vec::new() };
                        assert!(self.seen.live.insert(key, view).is_none());
                    }
                    *self.seen.answers.entry((worker, session, id.serial)).or_default() += 1;
                    self.seen.replies.push((worker, session, id.serial, reply));
                }
                HubOutput::Deliver { session, items, .. } => {
                    for publication in items.iter().filter_map(Item::publication) {
                        self.seen.deliver(worker, session.index, publication);
                    }
                }
                other => panic!("unexpected in these tests: {other:?}"),
            }
        }
    }

    /// Moves one message between two hubs; their order is kept.
    fn step(&mut self, from: usize, to: usize) -> bool {
        let queue = self.queues.entry((from, to)).or_default();
        let Some(message) = queue.pop_front() else { return false };
        if let HubMessage::Stream(StreamMessage::Deliver(publication)) = &message {
            let life = (publication.channel.to_string(), publication.position.epoch.0);
            let last = self.seen.published.entry(life).or_default();
            *last = (*last).max(publication.position.offset);
        }
        let mut out = VecDeque::new();
        self.hubs[to].handle_message(message, &mut out);
        self.route(to, out);
        true
    }

    fn fan_out(&mut self, worker: usize, visits_max: usize) {
        let (seen, visits, full_every) = (&mut self.seen, &mut self.visits, self.full_every);
        self.hubs[worker].fan_out(visits_max, |step| {
            let FanOutStep::Deliver { batch, session, .. } = step else {
                return Visit::Cost(0);
            };
            *visits += 1;
            if full_every > 0 && visits.is_multiple_of(full_every) {
                return Visit::Full;
            }
            let bytes: usize = batch.items.iter().map(Item::bytes).sum();
            assert_eq!(batch.bytes, bytes);
            assert!(bytes <= FAN_OUT_BLOCK_BYTES_MAX || batch.items.len() == 1);
            for publication in batch.items.iter().filter_map(Item::publication) {
                seen.deliver(worker, session, publication);
            }
            Visit::Cost(1)
        });
    }

    fn end_view(&mut self, worker: usize, session: u32, channel: &str) {
        if let Some(view) = self.seen.live.remove(&(worker, session, channel.to_owned())) {
            self.seen.ended.push((channel.to_owned(), view));
        }
    }

    fn close(&mut self, worker: usize, session: SessionId) {
        let mut out = VecDeque::new();
        self.hubs[worker].close(session, &mut out);
        let channels: Vec<_> = self
            .seen
            .live
            .keys()
            .filter(|key| key.0 == worker && key.1 == session.index)
            .cloned()
            .collect();
        for key in channels {
            self.end_view(worker, session.index, &key.2);
        }
        self.route(worker, out);
    }

    fn settle(&mut self) {
        let count = self.hubs.len();
        loop {
            let mut moved = false;
            for from in 0..count {
                for to in 0..count {
                    moved |= self.step(from, to);
                }
                moved |= self.hubs[from].wants_fan_out();
                self.fan_out(from, 7);
            }
            if !moved {
                return;
            }
        }
    }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn session(index: u32) -> SessionId {
    SessionId { index, generation: 1 }
}

fn payload(bytes: &'static [u8]) -> Payload {
    Payload::new(PayloadKind::Text, Bytes::from_static(bytes))
}

fn subscribe(name: &str) -> Request {
    Request::subscribe(channel(name), None)
}

/// The same with what a backend says about the subscription.
fn subscribe_with_options(name: &str, said: SubscriptionOptions) -> Request {
    let mut request = subscribe(name);
    if let Request::Subscribe { options, .. } = &mut request {
        *options = Some(Box::new(said));
    }
    request
}

fn unsubscribe(name: &str) -> Request {
    Request::Unsubscribe { channel: channel(name) }
}

fn publish(name: &str) -> Request {
    Request::Publish { channel: Some(channel(name)), payload: payload(b"x"), options: None }
}

/// Publishes so many bytes that two of these publications do not fit one block.
fn publish_much(name: &str) -> Request {
    static MUCH: [u8; FAN_OUT_BLOCK_BYTES_MAX / 2 + 1] = [0; _];
    let Request::Publish { channel, options, .. } = publish(name) else {
        unreachable!("it publishes");
    };
    Request::Publish { channel, payload: payload(&MUCH), options }
}

#[test]
fn every_subscriber_receives_the_stream_from_its_position_on() {
    for seed in 0..600 {
        let mut random = Random(seed);
        let workers = 1 + random.below(3) as usize;
        let mut mesh = Mesh::new(workers as u16, 8);
        mesh.full_every = [0, 2, 3, 5, 7][(seed % 5) as usize];
        let names = ["a", "b", "c"];
        let mut open = vec![[0u32; 5]; workers];
        let mut generation = 0;
        for _ in 0..400 {
            let worker = random.below(workers as u64) as usize;
            let index = random.below(5) as u32;
            let name = names[random.below(3) as usize];
            let current = open[worker][index as usize];
            let id = SessionId { index, generation: current };
            match random.below(10) {
                0 | 1 if current == 0 => {
                    generation += 1;
                    open[worker][index as usize] = generation;
                    mesh.hubs[worker].open(SessionId { index, generation });
                }
                0 if random.below(4) == 0 => {
                    open[worker][index as usize] = 0;
                    mesh.close(worker, id);
                }
                1 | 2 if current != 0 => mesh.request(worker, id, subscribe(name)),
                3 if current != 0 => {
                    mesh.request(worker, id, unsubscribe(name));
                    mesh.end_view(worker, index, name);
                }
                4 | 5 if current != 0 => {
                    let is_much = random.below(4) == 0;
                    let request = if is_much { publish_much(name) } else { publish(name) };
                    mesh.request(worker, id, request);
                }
                6 | 7 => mesh.fan_out(worker, 1 + random.below(3) as usize),
                _ => {
                    let to = random.below(workers as u64) as usize;
                    mesh.step(worker, to);
                }
            }
        }
        mesh.settle();
        let Seen { live, ended, published, .. } = &mesh.seen;
        for (name, view, is_live) in live
            .iter()
            .map(|(key, view)| (&key.2, view, true))
            .chain(ended.iter().map(|(name, view)| (name, view, false)))
        {
            let expected = (view.position.offset + 1..).take(view.offsets.len());
            assert!(
                view.offsets.iter().copied().eq(expected),
                "seed {seed}: a gap or a duplicate in {name}: {view:?}"
            );
            if is_live {
                let life = (name.clone(), view.position.epoch.0);
                let last = published.get(&life).copied().unwrap_or(0).max(view.position.offset);
                let seen = view.offsets.last().copied().unwrap_or(view.position.offset);
                assert_eq!(seen, last, "seed {seed}: {name} was not delivered to its end");
            }
        }
        for (worker, sessions) in open.iter().enumerate() {
            for (index, generation) in sessions.iter().enumerate().filter(|(_, g)| **g != 0) {
                mesh.close(worker, SessionId { index: index as u32, generation: *generation });
            }
        }
        mesh.settle();
        for hub in &mesh.hubs {
            assert_eq!(
                (hub.measures().channels, hub.measures().subscriptions),
                (0, 0),
                "seed {seed}"
            );
            assert_eq!(hub.fan_out_backlog(), (0, 0), "seed {seed}");
            assert!(!hub.wants_fan_out());
            assert!(
                hub.streams.is_empty(),
                "seed {seed}: a channel without subscribers owns nothing"
            );
        }
    }
}

#[test]
fn every_request_is_replied_to_once_and_only_once() {
    for seed in 0..600 {
        let mut random = Random(seed);
        let workers = 1 + random.below(3) as usize;
        let mut mesh = Mesh::new(workers as u16, 2);
        let mut generations = vec![[1; 3]; workers];
        for worker in 0..workers {
            (0..3).for_each(|index| mesh.hubs[worker].open(session(index)));
        }
        let mut asked = Vec::new();
        for _ in 1..300 {
            let worker = random.below(workers as u64) as usize;
            let index = random.below(3) as u32;
            let generation = &mut generations[worker][index as usize];
            let id = SessionId { index, generation: *generation };
            let name = ["a", "b", "c"][random.below(3) as usize];
            let request = match random.below(10) {
                0..=2 => subscribe(name),
                3 | 4 => unsubscribe(name),
                5 => publish(name),
                6 if random.below(8) == 0 => {
                    mesh.close(worker, id);
                    *generation += 1;
                    mesh.hubs[worker].open(SessionId { index, generation: *generation });
                    continue;
                }
                6 => {
                    mesh.fan_out(worker, 1 + random.below(3) as usize);
                    continue;
                }
                _ => {
                    let to = random.below(workers as u64) as usize;
                    mesh.step(worker, to);
                    continue;
                }
            };
            let is_over = matches!(request, Request::Unsubscribe { .. });
            mesh.request(worker, id, request);
            asked.push((worker, id, mesh.serial));
            if is_over {
                mesh.end_view(worker, index, name);
            }
        }
        mesh.settle();
        for (worker, id, serial) in asked {
            let answers = mesh.seen.answers.remove(&(worker, id, serial)).unwrap_or(0);
            // A session that has ended may not receive its replies.
            let is_open = generations[worker][id.index as usize] == id.generation;
            assert!(
                answers == 1 || !is_open && answers == 0,
                "seed {seed}, request {serial}: {answers}"
            );
        }
        assert!(mesh.seen.answers.is_empty(), "seed {seed}: {:?}", mesh.seen.answers);
    }
}

#[test]
fn subscriptions_of_a_session_are_bounded_and_unique() {
    let mut mesh = Mesh::new(1, 2);
    mesh.hubs[0].open(session(0));
    for name in ["a", "b", "a", "c"] {
        mesh.request(0, session(0), subscribe(name));
        mesh.settle();
    }
    let replies: Vec<_> = mesh.seen.replies.iter().map(|(.., reply)| reply.clone()).collect();
    assert!(matches!(&replies[0], Reply::Subscribed { channel, .. } if channel.as_str() == "a"));
    assert!(matches!(&replies[1], Reply::Subscribed { .. }));
    assert_eq!(replies[2], Reply::Refused(Refusal::AlreadySubscribed));
    assert_eq!(replies[3], Reply::Refused(Refusal::SubscriptionsExhausted));
}

#[test]
fn a_publish_without_a_channel_is_refused() {
    let mut mesh = Mesh::new(1, 8);
    mesh.hubs[0].open(session(0));
    let request = |channel| Request::Publish { channel, payload: payload(b"x"), options: None };
    assert_eq!(mesh.hubs[0].first_channel(session(0)), None);
    mesh.request(0, session(0), request(None));
    assert_eq!(mesh.seen.replies.pop().unwrap().3, Reply::Refused(Refusal::NotSubscribed));
    mesh.request(0, session(0), subscribe("first"));
    mesh.request(0, session(0), subscribe("second"));
    mesh.settle();
    let first = mesh.hubs[0].first_channel(session(0));
    assert_eq!(first, Some(channel("first")));
    mesh.request(0, session(0), request(first));
    mesh.settle();
    assert_eq!(mesh.seen.live[&(0, 0, "first".to_owned())].offsets, [1]);
    assert!(mesh.seen.live[&(0, 0, "second".to_owned())].offsets.is_empty());
}

/// A tick removes only a few of them, because the worker must not stall.
#[test]
fn a_hub_reports_expired_histories_until_all_are_removed() {
    let kept = ChannelOptions {
        history_size: 1,
        history_ttl: Duration::from_secs(1),
        ..ChannelOptions::open()
    };
    let mut mesh = Mesh::with(1, 10, kept);
    let session = SessionId { index: 0, generation: 1 };
    mesh.hubs[0].tick(0, &mut VecDeque::new());
    for n in 0..2 * OVERDUE_PER_TURN_MAX + 1 {
        mesh.request(0, session, publish(&n.to_string()));
    }
    mesh.settle();
    let mut tick = |now_us| {
        let hub = &mut mesh.hubs[0];
        hub.tick(now_us, &mut VecDeque::new());
        (hub.measures().history_publications, hub.has_overdue())
    };
    assert_eq!(tick(1_000_000), (2 * OVERDUE_PER_TURN_MAX + 1, false));
    assert_eq!(tick(1_001_000), (OVERDUE_PER_TURN_MAX + 1, true));
    assert_eq!(tick(1_001_000), (1, true));
    assert_eq!(tick(1_001_000), (0, false));
}

#[test]
fn a_table_is_sparse_when_it_is_large_and_most_entries_are_removed() {
    assert!(!is_sparse(0, SPARSE_ENTRIES_MIN) && is_sparse(0, SPARSE_ENTRIES_MIN + 1));
    let capacity = 2 * SPARSE_ENTRIES_MIN;
    assert!(is_sparse(capacity / 4, capacity) && !is_sparse(capacity / 4 + 1, capacity));
}
