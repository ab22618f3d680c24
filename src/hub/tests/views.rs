//! Every option of a namespace, driven at random: a subscriber receives the stream from its position on, or a gap in
//! place of dropped publications, or the newest only if the channel's options say so.

use std::collections::BTreeMap;

use super::*;
use crate::config::{ChannelOptions, SlowConsumer};
use crate::message::Epoch;

const NAMES: [&str; 7] = ["plain", "kept:1", "few:1", "latest:1", "drop:1", "paced:1", "rated:1"];

fn namespaces() -> Arc<Namespaces> {
    let open = || ChannelOptions::open();
    let kept = || ChannelOptions { history_size: 1000, ..open() };
    let mut namespaces = Namespaces::new(open());
    let mut add = |name, options| namespaces.add(name, options).unwrap();
    add("kept", kept());
    add("few", ChannelOptions { history_size: 3, ..open() });
    add("latest", ChannelOptions { slow_consumer: SlowConsumer::Latest, ..kept() });
    add(
        "drop",
        ChannelOptions { slow_consumer: SlowConsumer::DropOldest, backlog_size: 3, ..kept() },
    );
    add("paced", ChannelOptions { batch_delay: Duration::from_millis(20), ..kept() });
    let slow_consumer = SlowConsumer::DropOldest;
    add(
        "rated",
        ChannelOptions { delivery_rate_max: 50, slow_consumer, backlog_size: 4, ..kept() },
    );
    Arc::new(namespaces)
}

/// What one session has received of one channel.
#[derive(Clone, Debug)]
struct Seen {
    epoch: Epoch,
    offset: u64,
    /// The gaps received since the last publication.
    gap: u64,
}

type Key = (usize, u32, usize);

struct World {
    hubs: Vec<Hub>,
    /// The serial of the last request.
    serial: u32,
    queues: BTreeMap<(usize, usize), VecDeque<HubMessage>>,
    /// Sessions whose socket accepts no bytes.
    blocked: Vec<[bool; SESSIONS]>,
    behind: Vec<[bool; SESSIONS]>,
    live: BTreeMap<Key, Seen>,
    /// The positions from which sessions that left may recover.
    left: BTreeMap<Key, Position>,
    asked: BTreeMap<Key, Option<Position>>,
    published: BTreeMap<(usize, u32), u64>,
    complete: u64,
    impossible: u64,
    gaps: u64,
    now_ms: u64,
    visits: u64,
}

const SESSIONS: usize = 4;

fn place(name: &str) -> usize {
    NAMES.iter().position(|other| *other == name).unwrap()
}

impl World {
    fn new(workers: u16, key: u64) -> Self {
        let namespaces = namespaces();
        let hash = ChannelHash::with_key(key);
        let mut hubs = Vec::new();
        for worker in 0..workers {
            let mut hub = Hub::new(HubSettings {
                node: NodeId::new(1),
                worker: WorkerId(worker),
                workers,
                sessions_max: SESSIONS,
                limits: HubLimits {
                    subscriptions_max: NAMES.len(),
                    history_bytes_max: 1 << 20,
                    answer_bytes_max: 1 << 20,
                    backlog_bytes_max: 1 << 20,
                    position_ttl: Duration::ZERO,
                    expired_close_delay: Duration::from_secs(25),
                },
                hash,
                namespaces: namespaces.clone(),
            });
            (0..SESSIONS as u32).for_each(|index| hub.open(session(index)));
            hubs.push(hub);
        }
        let flags = vec![[false; SESSIONS]; usize::from(workers)];
        Self {
            hubs,
            serial: 0,
            queues: BTreeMap::new(),
            blocked: flags.clone(),
            behind: flags,
            live: BTreeMap::new(),
            left: BTreeMap::new(),
            asked: BTreeMap::new(),
            published: BTreeMap::new(),
            complete: 0,
            impossible: 0,
            gaps: 0,
            now_ms: 0,
            visits: 0,
        }
    }

    /// Makes a request, with the index `at` of its channel as its ticket.
    fn request(&mut self, worker: usize, index: u32, at: usize, request: Request) {
        let mut out = VecDeque::new();
        let ticket = Ticket::new(at as u32 + 1).expect("above 0");
        self.serial += 1;
        let id = RequestId { serial: self.serial, origin: Origin::Client(ticket) };
        self.hubs[worker].handle(session(index), Some(id), Author::Client, request, &mut out);
        self.route(worker, out);
    }

    fn subscribe(&mut self, key: Key, since: Option<Position>) {
        self.asked.insert(key, since);
        let (worker, index, at) = key;
        self.request(worker, index, at, Request::subscribe(channel(NAMES[at]), since));
    }

    fn route(&mut self, worker: usize, out: VecDeque<HubOutput>) {
        for output in out {
            match output {
                HubOutput::Send { to, message } => {
                    self.queues.entry((worker, usize::from(to.0))).or_default().push_back(message);
                }
                HubOutput::Reply { session, id, reply } => {
                    let Origin::Client(ticket) = id.origin else { unreachable!("clients ask") };
                    let at = ticket.number() as usize - 1;
                    self.answered((worker, session.index, at), reply);
                }
                HubOutput::Deliver { session, channel, items, .. } => {
                    items.iter().for_each(|item| self.see(worker, session.index, &channel, item));
                }
                other => panic!("unexpected in this test: {other:?}"),
            }
        }
    }

    fn answered(&mut self, key: Key, reply: Reply) {
        match reply {
            Reply::Subscribed { position, recovery, .. } => {
                let asked = self.asked.remove(&key).expect("each request gets one reply");
                let mut seen = Seen { epoch: position.epoch, offset: position.offset, gap: 0 };
                match (asked, recovery) {
                    (None, None) => {}
                    (Some(since), Some(recovery)) if recovery.is_complete => {
                        self.complete += 1;
                        assert_eq!(since.epoch, position.epoch);
                        seen.offset = since.offset;
                        for item in recovery.publications.iter() {
                            assert_eq!(item.position.offset, seen.offset + 1, "{key:?}");
                            seen.offset += 1;
                        }
                        assert_eq!(
                            seen.offset, position.offset,
                            "{key:?}: up to the position of the stream"
                        );
                    }
                    (Some(_), Some(_)) => self.impossible += 1,
                    (asked, recovery) => panic!("{asked:?} answered with {recovery:?}"),
                }
                assert!(self.live.insert(key, seen).is_none());
            }
            Reply::Refused(Refusal::Withdrawn) => drop(self.asked.remove(&key)),
            Reply::Refused(Refusal::AlreadySubscribed | Refusal::NotSubscribed)
            | Reply::Unsubscribed { .. }
            | Reply::Published { .. } => {}
            other => panic!("{key:?}: {other:?}"),
        }
    }

    fn see(&mut self, worker: usize, index: u32, channel: &ChannelName, item: &Item) {
        let name = place(channel.as_str());
        let key = (worker, index, name);
        let seen = self.live.get_mut(&key).expect("only subscribers receive items");
        let publication = match item {
            Item::Publication(publication) => publication,
            Item::Gap(dropped) => {
                assert!(*dropped > 0);
                seen.gap += dropped;
                self.gaps += 1;
                return;
            }
            Item::Joined(_) | Item::Left(_) => {
                panic!("these channels have no join and leave events")
            }
        };
        assert_eq!((&publication.channel, publication.position.epoch), (channel, seen.epoch));
        let expected = seen.offset + 1 + seen.gap;
        let offset = publication.position.offset;
        if NAMES[name].starts_with("latest") {
            assert!(offset >= expected, "{key:?}: {offset} after {seen:?}");
        } else {
            assert_eq!(offset, expected, "{key:?}: after {seen:?}");
        }
        (seen.offset, seen.gap) = (offset, 0);
    }

    fn step(&mut self, from: usize, to: usize) -> bool {
        let Some(message) = self.queues.entry((from, to)).or_default().pop_front() else {
            return false;
        };
        if let HubMessage::Stream(StreamMessage::Deliver(item)) = &message {
            let name = place(item.channel.as_str());
            self.published.insert((name, item.position.epoch.0), item.position.offset);
        }
        let mut out = VecDeque::new();
        self.hubs[to].handle_message(message, &mut out);
        self.route(to, out);
        true
    }

    fn fan_out(&mut self, worker: usize, visits_max: usize) {
        let (blocked, behind) = (self.blocked[worker], &mut self.behind[worker]);
        let visits = &mut self.visits;
        let mut given = Vec::new();
        self.hubs[worker].fan_out(visits_max, |step| {
            let FanOutStep::Deliver { batch, session, may_fall_behind, .. } = step else {
                return Visit::Cost(0);
            };
            *visits += 1;
            if may_fall_behind && blocked[session as usize] {
                behind[session as usize] = true;
                return Visit::Behind;
            }
            if visits.is_multiple_of(7) {
                return Visit::Full;
            }
            given.extend(
                batch.items.iter().map(|item| (session, batch.channel.clone(), item.clone())),
            );
            Visit::Cost(1)
        });
        for (session, channel, item) in given {
            self.see(worker, session, &channel, &item);
        }
    }

    fn unblock(&mut self, worker: usize, index: usize) {
        self.blocked[worker][index] = false;
        while self.behind[worker][index] {
            let mut out = VecDeque::new();
            let is_behind = self.hubs[worker].catch_up(session(index as u32), &mut out);
            self.behind[worker][index] = is_behind;
            self.route(worker, out);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for worker in 0..self.hubs.len() {
            let mut out = VecDeque::new();
            self.hubs[worker].tick(self.now_ms * 1000, &mut out);
            self.route(worker, out);
        }
    }

    fn leave(&mut self, key: Key) {
        if let Some(seen) = self.live.remove(&key) {
            let position = Position { epoch: seen.epoch, offset: seen.offset };
            self.left.insert(key, position);
        }
    }

    fn settle(&mut self) {
        let workers = self.hubs.len();
        for _ in 0..50 {
            self.pass(100);
            while (0..workers).any(|from| {
                let moved = (0..workers).filter(|to| self.step(from, *to)).count();
                let wants_fan_out = self.hubs[from].wants_fan_out();
                self.fan_out(from, 9);
                moved > 0 || wants_fan_out
            }) {}
            for worker in 0..workers {
                (0..SESSIONS).for_each(|index| self.unblock(worker, index));
            }
        }
    }
}

fn run(seed: u64) -> World {
    let mut random = Random(seed);
    let workers = 1 + random.below(3) as usize;
    let mut world = World::new(workers as u16, seed);
    for _ in 0..600 {
        let worker = random.below(workers as u64) as usize;
        let index = random.below(SESSIONS as u64) as u32;
        let at = random.below(NAMES.len() as u64) as usize;
        let key = (worker, index, at);
        let name = channel(NAMES[at]);
        match random.below(12) {
            0..=2 if !world.live.contains_key(&key) && !world.asked.contains_key(&key) => {
                let since = world.left.get(&key).copied().filter(|_| random.below(4) > 0);
                world.subscribe(key, since);
            }
            3 => {
                world.request(worker, index, at, Request::Unsubscribe { channel: name });
                world.leave(key);
            }
            4 | 5 => world.request(worker, index, at, publish(NAMES[at])),
            6 => world.request(worker, index, at, publish_much(NAMES[at])),
            7 => world.blocked[worker][index as usize] = true,
            8 => world.unblock(worker, index as usize),
            9 => world.pass(random.below(15)),
            10 => world.fan_out(worker, 1 + random.below(3) as usize),
            _ => (0..3).for_each(|_| {
                world.step(worker, random.below(workers as u64) as usize);
            }),
        }
    }
    world.settle();
    for (key, seen) in &world.live {
        let last = world.published.get(&(key.2, seen.epoch.0)).copied().unwrap_or(0);
        assert!(seen.gap == 0 && seen.offset >= last, "{key:?} ends at {seen:?} of {last}");
    }
    assert!(world.asked.is_empty(), "{:?}", world.asked);
    world
}

#[test]
fn every_subscriber_receives_the_stream_or_a_gap() {
    let (mut complete, mut impossible, mut gaps) = (0, 0, 0);
    for seed in 0..2000 {
        let world = std::panic::catch_unwind(|| run(seed))
            .unwrap_or_else(|_| panic!("the failure above is seed {seed}"));
        complete += world.complete;
        impossible += world.impossible;
        gaps += world.gaps;
    }
    // The seeds reach recoveries and gaps.
    assert!(complete > 1000 && impossible > 100 && gaps > 1000, "{complete} {impossible} {gaps}");
}

#[test]
fn a_slow_subscriber_costs_nothing_until_its_socket_accepts_bytes() {
    let mut world = World::new(1, 1);
    for index in 0..2 {
        world.subscribe((0, index, place("drop:1")), None);
    }
    world.settle();
    world.blocked[0][0] = true;
    for _ in 0..100 {
        world.request(0, 1, place("drop:1"), publish("drop:1"));
        while world.step(0, 0) {}
        let before = world.visits;
        world.fan_out(0, 100);
        world.fan_out(0, 100);
        // The other one, and again if its queue was full; the slow one once.
        assert!(world.visits - before <= 3);
    }
    world.settle();
    let offsets: Vec<_> = world.live.values().map(|seen| seen.offset).collect();
    assert_eq!(offsets, [100, 100]);
    assert_eq!(world.gaps, 1);
    assert!(world.hubs[0].measures().channel_backlog_bytes <= 3);
}

#[test]
fn a_hub_that_stops_pacing_releases_backlogs_and_delivers_at_once() {
    // A rate keeps the last four, and delivers a gap before them.
    for (name, gaps) in [("paced:1", 0), ("rated:1", 1)] {
        let mut world = World::new(1, 0);
        let key = (0, 0, place(name));
        world.subscribe(key, None);
        world.settle();
        let publish_and_deliver = |world: &mut World, count| {
            (0..count).for_each(|_| world.request(0, 1, place(name), publish(name)));
            while world.step(0, 0) {}
            while world.hubs[0].wants_fan_out() {
                world.fan_out(0, 100);
            }
            (world.live[&key].offset, world.gaps)
        };
        assert!(publish_and_deliver(&mut world, 10).0 <= 1, "{name}");
        assert!(world.hubs[0].measures().channel_backlog_bytes > 0, "{name}");
        world.hubs[0].stop_pacing();
        assert_eq!(publish_and_deliver(&mut world, 0), (10, gaps), "{name}");
        // Publications that arrive later are delivered at once.
        assert_eq!(publish_and_deliver(&mut world, 6), (16, gaps), "{name}");
        assert_eq!(world.hubs[0].next_tick(), None, "{name}");
    }
}
