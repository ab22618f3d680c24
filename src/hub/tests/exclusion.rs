//! Publications that exclude one subscriber: a client that publishes, or one that the server API names.

use super::*;
use crate::config::SlowConsumer;
use crate::message::{ClientId, PublishOptions};

fn client(worker: u16, session: SessionId) -> ClientId {
    ClientId { node: NodeId::new(1), worker: WorkerId(worker), session }
}

/// What the server API asks for: to publish to all but one client.
fn publish_without(name: &str, client: ClientId) -> Request {
    let options = PublishOptions { exclude: Some(client), ..PublishOptions::default() };
    let (channel, payload) = (Some(channel(name)), payload(b"x"));
    Request::Publish { channel, payload, options: Some(Arc::new(options)) }
}

fn offsets(mesh: &Mesh, worker: usize, index: u32) -> Vec<u64> {
    mesh.seen.live[&(worker, index, "a".to_owned())].offsets.clone()
}

#[test]
fn a_publisher_receives_everything_but_its_own() {
    const SESSIONS: u32 = 4;
    for seed in 0..200 {
        let mut random = Random(seed);
        let workers = 1 + random.below(3) as usize;
        let options = ChannelOptions { exclude_publisher: true, ..ChannelOptions::open() };
        let mut mesh = Mesh::with(workers as u16, 8, options);
        mesh.full_every = [0, 2, 3, 5][(seed % 4) as usize];
        for worker in 0..workers {
            for index in 0..SESSIONS {
                mesh.hubs[worker].open(session(index));
                mesh.request(worker, session(index), subscribe("a"));
            }
        }
        mesh.settle();
        mesh.seen.replies.clear();
        for _ in 0..60 {
            let worker = random.below(workers as u64) as usize;
            match random.below(4) {
                0 | 1 => {
                    let index = random.below(SESSIONS.into()) as u32;
                    let request = if random.below(8) == 0 { publish_much } else { publish };
                    mesh.request(worker, session(index), request("a"));
                }
                2 => mesh.fan_out(worker, 1 + random.below(3) as usize),
                _ => drop(mesh.step(worker, random.below(workers as u64) as usize)),
            }
        }
        // One leaves while fan-outs are in progress: it receives what was in flight.
        mesh.request(0, session(0), unsubscribe("a"));
        let left = offsets(&mesh, 0, 0);
        mesh.end_view(0, 0, "a");
        mesh.settle();
        let mut own: HashMap<(usize, u32), Vec<u64>> = HashMap::new();
        let mut count = 0;
        for (worker, session, _, reply) in &mesh.seen.replies {
            if let Reply::Published { position } = reply {
                own.entry((*worker, session.index)).or_default().push(position.offset);
                count += 1;
            }
        }
        let others = |worker, index, until: u64| -> Vec<u64> {
            let own = own.get(&(worker, index)).map_or(&[][..], |own| own);
            (1..=until).filter(|offset| !own.contains(offset)).collect()
        };
        for worker in 0..workers {
            for index in 0..SESSIONS {
                if (worker, index) != (0, 0) {
                    let seen = offsets(&mesh, worker, index);
                    assert_eq!(seen, others(worker, index, count), "seed {seed}");
                }
            }
        }
        let until = left.last().copied().unwrap_or(0);
        assert_eq!(left, others(0, 0, until), "seed {seed}");
    }
}

#[test]
fn only_the_client_that_is_named_is_excluded_and_not_its_successor() {
    let mut mesh = Mesh::new(2, 8);
    for worker in 0..2 {
        mesh.hubs[worker].open(session(0));
        mesh.request(worker, session(0), subscribe("a"));
    }
    mesh.settle();
    let later = SessionId { index: 0, generation: 2 };
    let elsewhere = ClientId { node: NodeId::new(2), ..client(1, session(0)) };
    for excluded in [client(1, session(0)), client(1, later), client(2, session(0)), elsewhere] {
        mesh.request(0, session(0), publish_without("a", excluded));
    }
    mesh.settle();
    assert_eq!(offsets(&mesh, 0, 0), [1, 2, 3, 4]);
    assert_eq!(offsets(&mesh, 1, 0), [2, 3, 4]);
    // The client that is excluded has left, and another one has its session's index.
    mesh.request(0, session(0), publish_without("a", client(1, session(0))));
    mesh.close(1, session(0));
    mesh.hubs[1].open(later);
    mesh.request(1, later, subscribe("a"));
    mesh.settle();
    mesh.request(0, session(0), publish_without("a", client(1, session(0))));
    mesh.settle();
    assert_eq!(offsets(&mesh, 1, 0).last(), Some(&6));
}

#[test]
fn items_that_are_not_excluded_are_shared_by_the_other_subscribers() {
    let mut mesh = Mesh::new(1, 8);
    for index in 0..3 {
        mesh.hubs[0].open(session(index));
        mesh.request(0, session(index), subscribe("a"));
    }
    mesh.settle();
    mesh.request(0, session(0), publish("a"));
    mesh.request(0, session(0), publish_without("a", client(0, session(1))));
    mesh.request(0, session(0), publish("a"));
    while mesh.step(0, 0) {}
    let mut visits = Vec::new();
    mesh.hubs[0].fan_out(100, |step| {
        if let FanOutStep::Deliver { batch, session, .. } = step {
            visits.push((session, batch.items.len(), batch.bytes, batch.is_shared));
        }
        Visit::Cost(1)
    });
    assert_eq!(visits, [(0, 3, 3, true), (1, 2, 2, false), (2, 3, 3, true)]);
}

#[test]
fn a_slow_subscriber_that_catches_up_and_one_that_recovers() {
    let options = ChannelOptions {
        exclude_publisher: true,
        slow_consumer: SlowConsumer::DropOldest,
        history_size: 10,
        ..ChannelOptions::open()
    };
    let mut mesh = Mesh::with(1, 8, options);
    for index in 0..2 {
        mesh.hubs[0].open(session(index));
        mesh.request(0, session(index), subscribe("a"));
    }
    mesh.settle();
    for publisher in [0, 1, 0, 1] {
        mesh.request(0, session(publisher), publish("a"));
    }
    while mesh.step(0, 0) {}
    mesh.hubs[0].fan_out(100, |step| match step {
        FanOutStep::Deliver { session: 1, .. } => Visit::Behind,
        _ => Visit::Cost(1),
    });
    let mut out = VecDeque::new();
    assert!(!mesh.hubs[0].catch_up(session(1), &mut out));
    mesh.route(0, out);
    assert_eq!(offsets(&mesh, 0, 1), [1, 3], "without its own");

    // A recovery has every publication, those of the client that recovers included.
    let position = mesh.seen.live[&(0, 1, "a".to_owned())].position;
    mesh.request(0, session(1), unsubscribe("a"));
    mesh.end_view(0, 1, "a");
    mesh.settle();
    mesh.request(0, session(1), Request::subscribe(channel("a"), Some(position)));
    mesh.settle();
    let Some((.., Reply::Subscribed { recovery: Some(recovery), .. })) = mesh.seen.replies.pop()
    else {
        panic!("it is subscribed")
    };
    assert_eq!(recovery.publications.len(), 4);
}
