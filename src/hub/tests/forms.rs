//! Subscribers that take deltas, and subscribers with filters, beside others.

use super::*;
use crate::config::limits::DELIVERY_COST_PER_TURN_MAX;
use crate::config::{RecoveryMode, SlowConsumer};
use crate::message::{
    ClientId, Epoch, FilterNode, PublishOptions, Recovery, Rendition, SubscriptionForm, Tags,
    TagsFilter,
};

const NAME: &str = "a";

fn options() -> ChannelOptions {
    let all = ChannelOptions::open();
    ChannelOptions { allows_deltas: true, delta_publish: true, allow_tags_filter: true, ..all }
}

fn filter(text: &str) -> Arc<TagsFilter> {
    let (key, cmp, val) = ("tag".into(), "eq".into(), text.into());
    Arc::new(TagsFilter::new(FilterNode { key, cmp, val, ..Default::default() }).unwrap())
}

fn subscribe_with(form: SubscriptionForm, since: Option<Position>) -> Request {
    Request::Subscribe {
        channel: channel(NAME),
        since,
        needs_all: false,
        token: None,
        form,
        options: None,
    }
}

fn deltas() -> SubscriptionForm {
    SubscriptionForm { takes_deltas: true, ..Default::default() }
}

fn filtered(text: &str) -> SubscriptionForm {
    SubscriptionForm { filter: Some(filter(text)), ..Default::default() }
}

fn publish_tagged(text: &str, exclude: Option<ClientId>) -> Request {
    let tags = Tags::new([("tag", text)]).unwrap();
    let options = exclude.map(|client| {
        Arc::new(PublishOptions { exclude: Some(client), ..PublishOptions::default() })
    });
    let payload = Payload { tags, ..payload(b"0123456789") };
    Request::Publish { channel: Some(channel(NAME)), payload, options }
}

/// What a client that takes deltas has: the offset of its last publication.
#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    has: Option<u64>,
    deltas: usize,
}

/// The readers of several hubs, by worker and session.
struct Readers {
    mesh: Mesh,
    readers: HashMap<(usize, u32), Reader>,
}

impl Readers {
    /// Takes items as a client does: a delta is made from what it has.
    fn read(
        reader: &mut Reader,
        items: &[Item],
        rendition: Rendition,
        predecessor: Option<u64>,
        seed: u64,
    ) {
        let mut before = predecessor.filter(|_| rendition == Rendition::Delta);
        for publication in items.iter().filter_map(Item::publication) {
            if let Some(before) = before {
                assert_eq!(Some(before), reader.has, "seed {seed}: the client lacks it");
                reader.deltas += 1;
            }
            reader.has = Some(publication.position.offset);
            before = reader.has.filter(|_| rendition == Rendition::Delta);
        }
    }

    /// Visits subscribers, of which some are full or behind.
    fn fan_out(&mut self, worker: usize, visits_max: usize, random: &mut Random, seed: u64) {
        let Self { mesh, readers } = self;
        let seen = &mut mesh.seen;
        mesh.hubs[worker].fan_out(visits_max, |step| {
            let FanOutStep::Deliver { batch, session, may_fall_behind, .. } = step else {
                return Visit::Cost(0);
            };
            match random.below(16) {
                0 => return Visit::Full,
                1 if may_fall_behind => return Visit::Behind,
                _ => {}
            }
            let reader = readers.entry((worker, session)).or_default();
            let takes_deltas = session % 2 == 0;
            assert_eq!(takes_deltas, batch.rendition != Rendition::Plain);
            let predecessor = batch.predecessor.map(|before| before.position.offset);
            Self::read(reader, batch.items, batch.rendition, predecessor, seed);
            for publication in batch.items.iter().filter_map(Item::publication) {
                seen.deliver(worker, session, publication);
            }
            Visit::Cost(1)
        });
    }

    /// Delivers what is delivered apart from fan-outs.
    fn route(&mut self, worker: usize, out: VecDeque<HubOutput>, seed: u64) {
        for output in &out {
            if let HubOutput::Deliver { session, items, rendition, .. } = output {
                let expected = match session.index % 2 {
                    0 => Rendition::Whole,
                    _ => Rendition::Plain,
                };
                assert_eq!(*rendition, expected);
                let reader = self.readers.entry((worker, session.index)).or_default();
                Self::read(reader, items, *rendition, None, seed);
            }
        }
        self.mesh.route(worker, out);
    }

    fn catch_up(&mut self, worker: usize, index: u32, seed: u64) {
        let mut out = VecDeque::new();
        self.mesh.hubs[worker].catch_up(session(index), &mut out);
        self.route(worker, out, seed);
    }

    fn subscribe(&mut self, worker: usize, index: u32) {
        let form = if index.is_multiple_of(2) { deltas() } else { SubscriptionForm::default() };
        self.readers.remove(&(worker, index));
        self.mesh.request(worker, session(index), subscribe_with(form, None));
    }
}

/// Subscribers that join, leave, are full, fall behind, catch up and are excluded: a delta is always made from what its
/// client received last.
#[test]
fn a_delta_is_made_from_what_the_client_has() {
    const SESSIONS: u32 = 6;
    let mut deltas = 0;
    for seed in 0..400 {
        let mut random = Random(seed);
        let workers = 1 + random.below(2) as usize;
        let slow_consumer = match seed % 3 {
            0 => SlowConsumer::Disconnect,
            1 => SlowConsumer::Latest,
            _ => SlowConsumer::DropOldest,
        };
        let mesh = Mesh::with(workers as u16, 8, ChannelOptions { slow_consumer, ..options() });
        let mut all = Readers { mesh, readers: HashMap::new() };
        for worker in 0..workers {
            for index in 0..SESSIONS {
                all.mesh.hubs[worker].open(session(index));
                all.subscribe(worker, index);
            }
        }
        all.mesh.settle();
        for _ in 0..400 {
            let worker = random.below(workers as u64) as usize;
            let index = random.below(SESSIONS.into()) as u32;
            let client =
                ClientId { node: NodeId::new(1), worker: WorkerId(0), session: session(index) };
            match random.below(12) {
                6 if random.below(10) > 0 => {}
                0 => all.mesh.request(worker, session(index), publish_tagged("x", Some(client))),
                1 => all.mesh.request(worker, session(index), publish_much(NAME)),
                2 | 3 => all.mesh.request(worker, session(index), publish(NAME)),
                4 if all.mesh.seen.live.contains_key(&(worker, index, NAME.to_owned())) => {
                    let mut out = VecDeque::new();
                    let id = Some(RequestId { serial: u32::MAX, origin: Origin::Server });
                    all.mesh.hubs[worker].handle(
                        session(index),
                        id,
                        Author::Client,
                        unsubscribe(NAME),
                        &mut out,
                    );
                    all.route(worker, out, seed);
                    all.mesh.end_view(worker, index, NAME);
                    all.subscribe(worker, index);
                }
                5 => all.catch_up(worker, index, seed),
                6 => drop(all.mesh.hubs[worker].shed_backlogs(0, 8)),
                7 | 8 => drop(all.mesh.step(worker, random.below(workers as u64) as usize)),
                _ => all.fan_out(worker, 1 + random.below(5) as usize, &mut random, seed),
            }
        }
        deltas += all.readers.values().map(|reader| reader.deltas).sum::<usize>();
        for worker in 0..workers {
            for index in 0..SESSIONS {
                all.mesh.close(worker, session(index));
            }
        }
        all.mesh.settle();
        for hub in &all.mesh.hubs {
            let forms = hub.subscribers.forms();
            assert_eq!((forms.kept_bytes(), forms.filter_bytes()), (0, 0), "seed {seed}");
        }
    }
    assert!(deltas > 1000, "{deltas}");
}

/// The renditions in which sessions of one worker get what is in flight, with the offset of the predecessor.
fn visits(mesh: &mut Mesh) -> Vec<(u32, Rendition, Option<u64>)> {
    let mut visits = Vec::new();
    mesh.hubs[0].fan_out(DELIVERY_COST_PER_TURN_MAX, |step| {
        if let FanOutStep::Deliver { batch, session, .. } = step {
            let predecessor = batch.predecessor.map(|before| before.position.offset);
            visits.push((session, batch.rendition, predecessor));
        }
        Visit::Cost(1)
    });
    visits
}

fn publish_and_hand_over(mesh: &mut Mesh, request: Request) {
    mesh.request(0, session(0), request);
    while mesh.step(0, 0) {}
}

#[test]
fn the_first_publication_is_whole_and_the_next_ones_are_deltas_from_the_one_before() {
    let mut mesh = Mesh::with(1, 8, options());
    for index in 0..3 {
        mesh.hubs[0].open(session(index));
    }
    mesh.request(0, session(0), subscribe(NAME));
    mesh.request(0, session(1), subscribe_with(deltas(), None));
    mesh.settle();
    let delta_of = |reply: Option<&(usize, SessionId, u32, Reply)>| match reply {
        Some((_, _, _, Reply::Subscribed { delta, .. })) => *delta,
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1].map(|at| delta_of(mesh.seen.replies.get(at))), [false, true]);
    publish_and_hand_over(&mut mesh, publish(NAME));
    let (plain, whole, delta) = (Rendition::Plain, Rendition::Whole, Rendition::Delta);
    assert_eq!(visits(&mut mesh), [(0, plain, None), (1, whole, None)]);
    assert_ne!(mesh.hubs[0].measures().channel_backlog_bytes, 0, "it is kept");
    mesh.request(0, session(2), subscribe_with(deltas(), None));
    publish_and_hand_over(&mut mesh, publish(NAME));
    assert_eq!(visits(&mut mesh), [(0, plain, None), (1, delta, Some(1)), (2, whole, None)]);
    // Two in flight: the second one is made from the first.
    publish_and_hand_over(&mut mesh, publish(NAME));
    publish_and_hand_over(&mut mesh, publish(NAME));
    assert_eq!(visits(&mut mesh), [(0, plain, None), (1, delta, Some(2)), (2, delta, Some(2))]);
    // Memory is low: nothing is kept to make a delta from.
    mesh.hubs[0].shed_backlogs(0, 8);
    assert_eq!(mesh.hubs[0].measures().channel_backlog_bytes, 0);
    publish_and_hand_over(&mut mesh, publish(NAME));
    assert_eq!(visits(&mut mesh), [(0, plain, None), (1, delta, None), (2, delta, None)]);
    for index in 1..3 {
        mesh.request(0, session(index), unsubscribe(NAME));
    }
    assert_eq!(mesh.hubs[0].measures().channel_backlog_bytes, 0, "no subscriber takes deltas");
}

#[test]
fn deltas_and_filters_are_what_the_channel_allows() {
    let mut mesh = Mesh::with(1, 8, ChannelOptions::open());
    mesh.hubs[0].open(session(0));
    mesh.request(0, session(0), subscribe_with(filtered("x"), None));
    let refused = mesh.seen.replies.pop().map(|(.., reply)| reply);
    assert_eq!(refused, Some(Reply::Refused(Refusal::FilterNotAllowed)));
    mesh.request(0, session(0), subscribe_with(deltas(), None));
    mesh.settle();
    let reply = mesh.seen.replies.pop().map(|(.., reply)| reply);
    assert!(matches!(reply, Some(Reply::Subscribed { delta: false, .. })), "{reply:?}");
    // With a filter there are no deltas, as with Centrifugo.
    let mut mesh = Mesh::with(1, 8, options());
    mesh.hubs[0].open(session(0));
    let both = SubscriptionForm { takes_deltas: true, ..filtered("x") };
    mesh.request(0, session(0), subscribe_with(both, None));
    mesh.settle();
    let reply = mesh.seen.replies.pop().map(|(.., reply)| reply);
    assert!(matches!(reply, Some(Reply::Subscribed { delta: false, .. })), "{reply:?}");
}

#[test]
fn a_subscriber_with_a_filter_gets_what_fits_it() {
    let mut mesh = Mesh::with(2, 8, options());
    for (index, form) in [(0, filtered("x")), (1, filtered("y")), (2, SubscriptionForm::default())]
    {
        for worker in 0..2 {
            mesh.hubs[worker].open(session(index));
            mesh.request(worker, session(index), subscribe_with(form.clone(), None));
        }
    }
    mesh.settle();
    let from = ClientId { node: NodeId::new(1), worker: WorkerId(0), session: session(0) };
    let tags = ["x", "y", "x", "z", "y", "x"];
    for (at, tag) in tags.into_iter().enumerate() {
        let exclude = (at == 5).then_some(from);
        mesh.request(1, session(2), publish_tagged(tag, exclude));
        if at == 3 {
            mesh.settle();
        }
    }
    mesh.settle();
    for (worker, index, expected) in [
        (0, 0, vec![1, 3]),
        (1, 0, vec![1, 3, 6]),
        (0, 1, vec![2, 5]),
        (1, 1, vec![2, 5]),
        (0, 2, vec![1, 2, 3, 4, 5, 6]),
    ] {
        let view = &mesh.seen.live[&(worker, index, NAME.to_owned())];
        assert_eq!(view.offsets, expected, "worker {worker}, session {index}");
    }
}

fn recovery(mesh: &mut Mesh, form: SubscriptionForm, since: Position) -> (Position, Recovery) {
    mesh.end_view(0, 0, NAME);
    mesh.request(0, session(0), unsubscribe(NAME));
    mesh.request(0, session(0), subscribe_with(form, Some(since)));
    mesh.settle();
    match mesh.seen.replies.pop() {
        Some((.., Reply::Subscribed { position, recovery: Some(recovery), .. })) => {
            (position, recovery)
        }
        other => panic!("{other:?}"),
    }
}

fn offsets(recovery: &Recovery) -> Vec<u64> {
    recovery.publications.iter().map(|item| item.position.offset).collect()
}

fn with_history(options: ChannelOptions, tags: &[&str]) -> (Mesh, Position) {
    let mut mesh = Mesh::with(1, 8, ChannelOptions { history_size: 100, ..options });
    mesh.hubs[0].open(session(0));
    for tag in tags {
        mesh.request(0, session(0), publish_tagged(tag, None));
    }
    mesh.settle();
    let position = match mesh.seen.replies.last() {
        Some((.., Reply::Published { position })) => *position,
        _ => Position { epoch: Epoch(1), offset: 0 },
    };
    (mesh, position)
}

#[test]
fn a_recovery_has_what_fits_the_filter_and_goes_on_behind_the_rest() {
    let (mut mesh, last) = with_history(options(), &["x", "y", "x", "y", "y"]);
    let since = |offset| Position { offset, ..last };
    let (position, all) = recovery(&mut mesh, filtered("x"), since(0));
    assert_eq!((offsets(&all), all.is_complete, position.offset), (vec![1, 3], true, 5));
    let (_, none) = recovery(&mut mesh, filtered("z"), since(0));
    assert_eq!((offsets(&none), none.is_complete), (vec![], true));
    // In parts, each with one or two publications: a part without any tells where the next one begins.
    let mut limits = HubLimits {
        position_ttl: Duration::ZERO,
        subscriptions_max: 8,
        history_bytes_max: 1 << 20,
        answer_bytes_max: 1 << 20,
        backlog_bytes_max: 1 << 20,
        expired_close_delay: Duration::from_secs(25),
    };
    limits.answer_bytes_max = 1;
    mesh.hubs[0].set_limits(limits);
    let (mut at, mut seen, mut parts) = (since(1), Vec::new(), 0);
    loop {
        let (position, part) = recovery(&mut mesh, filtered("x"), at);
        seen.extend(offsets(&part));
        parts += 1;
        at = part.publications.last().map_or(position, |last| last.position);
        if !part.has_more {
            break;
        }
    }
    assert_eq!((seen, parts, at.offset), (vec![3], 4, 5));
}

#[test]
fn a_cache_recovers_the_latest_publication() {
    let cache = ChannelOptions { recovery_mode: RecoveryMode::Cache, ..options() };
    let (mut mesh, last) = with_history(cache.clone(), &["x", "y", "x", "y"]);
    let since = |offset| Position { offset, ..last };
    let nowhere = Position { epoch: Epoch::ANY, offset: 0 };
    for (form, at, expected) in [
        (SubscriptionForm::default(), nowhere, vec![4]),
        (SubscriptionForm::default(), Position::NOWHERE, vec![4]),
        (SubscriptionForm::default(), since(1), vec![4]),
        (SubscriptionForm::default(), since(99), vec![4]),
        (SubscriptionForm::default(), since(4), vec![]),
        (deltas(), since(2), vec![4]),
        (filtered("x"), nowhere, vec![3]),
        (filtered("z"), nowhere, vec![]),
    ] {
        let (position, latest) = recovery(&mut mesh, form, at);
        assert!(latest.is_complete && !latest.has_more, "{at:?}");
        assert_eq!((offsets(&latest), position), (expected, last), "{at:?}");
    }
    let (mut empty, _) = with_history(cache, &[]);
    let (_, nothing) = recovery(&mut empty, SubscriptionForm::default(), nowhere);
    assert!(!nothing.is_complete && nothing.publications.is_empty());
}
