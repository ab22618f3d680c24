//! Fan-outs: the order in which subscribers are visited, and what each visit delivers.

use super::*;
use crate::config::limits::{
    DELIVERY_COST_PER_TURN_MAX, FAN_OUT_SLICE_COST_MAX, PUBLICATIONS_PER_FAN_OUT_MAX,
};

/// A hub with sessions that are subscribed to a channel.
fn mesh_of(subscribers: u32, name: &str) -> Mesh {
    let mut mesh = Mesh::new(1, 8);
    for index in 0..subscribers {
        mesh.hubs[0].open(session(index));
        mesh.request(0, session(index), subscribe(name));
    }
    mesh.settle();
    mesh
}

/// Visits at most `visits_max` subscribers; returns each with the offsets that it received.
fn visit(mesh: &mut Mesh, visits_max: usize) -> Vec<(u32, Vec<u64>)> {
    let mut visits = Vec::new();
    mesh.hubs[0].fan_out(visits_max, |step| {
        if let FanOutStep::Deliver { batch, session, .. } = step {
            let offsets = batch
                .items
                .iter()
                .filter_map(Item::publication)
                .map(|item| item.position.offset)
                .collect();
            visits.push((session, offsets));
        }
        Visit::Cost(1)
    });
    visits
}

#[test]
fn publications_join_the_fan_out_in_progress() {
    let mut mesh = mesh_of(10, "a");
    let publish_and_hand_over = |mesh: &mut Mesh| {
        mesh.request(0, session(0), publish("a"));
        while mesh.step(0, 0) {}
    };
    publish_and_hand_over(&mut mesh);
    mesh.fan_out(0, 4);
    assert_eq!(mesh.visits, 4);
    for _ in 0..5 {
        publish_and_hand_over(&mut mesh);
    }
    assert_eq!(mesh.hubs[0].fan_out_backlog(), (6, 6));
    // Subscribers without the first one receive everything at once; it is done with the last of them.
    let visits = visit(&mut mesh, 6);
    assert_eq!(visits, (4..10).map(|at| (at, (1..=6).collect())).collect::<Vec<_>>());
    assert_eq!(mesh.hubs[0].fan_out_backlog(), (5, 5));
    let visits = visit(&mut mesh, 100);
    assert_eq!(visits, (0..4).map(|at| (at, (2..=6).collect())).collect::<Vec<_>>());
    assert_eq!(mesh.hubs[0].fan_out_backlog(), (0, 0));
}

#[test]
fn a_subscriber_that_joins_between_blocks_receives_only_later_publications() {
    let mut mesh = mesh_of(3, "a");
    for _ in 0..3 {
        mesh.request(0, session(0), publish_much("a"));
        while mesh.step(0, 0) {}
    }
    assert_eq!(visit(&mut mesh, 2), [(0, vec![1]), (1, vec![1])]);
    // In the ring, it follows two that have received a block, and precedes one that receives two more before it.
    mesh.hubs[0].open(session(3));
    mesh.request(0, session(3), subscribe("a"));
    while mesh.step(0, 0) {}
    mesh.request(0, session(0), publish("a"));
    while mesh.step(0, 0) {}
    let visits = visit(&mut mesh, 100);
    let given = |of: u32| -> Vec<u64> {
        visits
            .iter()
            .filter(|(session, _)| *session == of)
            .flat_map(|(_, all)| all.clone())
            .collect()
    };
    assert_eq!((given(0), given(1)), (vec![2, 3, 4], vec![2, 3, 4]));
    assert_eq!((given(2), given(3)), (vec![1, 2, 3, 4], vec![4]));
    assert_eq!(mesh.hubs[0].fan_out_backlog(), (0, 0));
}

/// Unsubscribes a session; returns the offsets that are delivered before the reply.
fn leave(mesh: &mut Mesh, index: u32) -> Vec<u64> {
    let mut out = VecDeque::new();
    let id = Some(RequestId { serial: 0, origin: Origin::Server });
    mesh.hubs[0].handle(session(index), id, Author::Client, unsubscribe("a"), &mut out);
    let mut offsets = Vec::new();
    loop {
        match out.pop_front().expect("the reply follows") {
            HubOutput::Deliver { session: to, items, .. } => {
                assert_eq!(to, session(index));
                let publications = items.iter().filter_map(Item::publication);
                offsets.extend(publications.map(|item| item.position.offset));
            }
            HubOutput::Send { .. } => {}
            HubOutput::Reply { reply: Reply::Unsubscribed { .. }, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(!out.iter().any(|output| matches!(output, HubOutput::Deliver { .. })), "{out:?}");
    mesh.end_view(0, index, "a");
    offsets
}

#[test]
fn a_subscriber_that_leaves_receives_the_publications_in_flight_once() {
    let mut mesh = mesh_of(4, "a");
    let publish_and_hand_over = |mesh: &mut Mesh, request: Request| {
        mesh.request(0, session(0), request);
        while mesh.step(0, 0) {}
    };
    assert!(leave(&mut mesh, 3).is_empty());
    publish_and_hand_over(&mut mesh, publish("a"));
    publish_and_hand_over(&mut mesh, publish("a"));
    assert_eq!(visit(&mut mesh, 1), [(0, vec![1, 2])]);
    publish_and_hand_over(&mut mesh, publish("a"));
    // One that has received a part, one that has received nothing, one that joined after most of it.
    mesh.request(0, session(3), subscribe("a"));
    publish_and_hand_over(&mut mesh, publish("a"));
    assert_eq!(leave(&mut mesh, 0), [3, 4]);
    assert_eq!(leave(&mut mesh, 1), [1, 2, 3, 4]);
    assert_eq!(leave(&mut mesh, 3), [4]);
    assert_eq!(visit(&mut mesh, 9), [(2, vec![1, 2, 3, 4])]);
    assert_eq!(mesh.hubs[0].fan_out_backlog(), (0, 0));
    // At most one block, which two of these exceed.
    publish_and_hand_over(&mut mesh, publish_much("a"));
    publish_and_hand_over(&mut mesh, publish_much("a"));
    assert_eq!(leave(&mut mesh, 2), [5]);
    assert_eq!(mesh.hubs[0].fan_out_backlog(), (0, 0), "it was the last one");
}

#[test]
fn a_subscriber_that_leaves_receives_one_block_at_most() {
    for (count, given) in [
        (0, 0),
        (PUBLICATIONS_PER_FAN_OUT_MAX, PUBLICATIONS_PER_FAN_OUT_MAX),
        (PUBLICATIONS_PER_FAN_OUT_MAX + 1, PUBLICATIONS_PER_FAN_OUT_MAX),
    ] {
        let mut mesh = mesh_of(1, "a");
        for _ in 0..count {
            mesh.request(0, session(0), publish("a"));
            while mesh.step(0, 0) {}
        }
        assert_eq!(leave(&mut mesh, 0), (1..=given as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_publication_to_few_subscribers_does_not_wait_for_large_fan_outs() {
    let mut mesh = mesh_of(200, "a");
    for channel in ["b", "c", "d", "e", "f"] {
        for index in 0..200 {
            mesh.request(0, session(index), subscribe(channel));
        }
    }
    mesh.request(0, session(0), subscribe("few"));
    mesh.settle();
    for channel in ["a", "b", "c", "d", "e", "f"] {
        mesh.request(0, session(0), publish(channel));
    }
    while mesh.step(0, 0) {}
    mesh.fan_out(0, DELIVERY_COST_PER_TURN_MAX);
    mesh.request(0, session(0), publish("few"));
    while mesh.step(0, 0) {}
    mesh.fan_out(0, DELIVERY_COST_PER_TURN_MAX);
    assert_eq!(mesh.seen.live[&(0, 0, "few".to_owned())].offsets, [1]);
    // Large ones share a turn: the last one begins before any of them is done.
    let began = |name: &str| {
        (0..200).any(|at| !mesh.seen.live[&(0, at, name.to_owned())].offsets.is_empty())
    };
    assert!(["a", "b", "c", "d", "e", "f"].into_iter().all(began));
}

#[test]
fn a_full_send_queue_delays_its_fan_out_for_a_turn_and_no_other() {
    let mut mesh = mesh_of(3, "a");
    mesh.request(0, session(2), subscribe("b"));
    mesh.settle();
    mesh.request(0, session(0), publish("a"));
    mesh.request(0, session(0), publish("b"));
    while mesh.step(0, 0) {}
    let mut asked = Vec::new();
    mesh.hubs[0].fan_out(100, |step| {
        let FanOutStep::Deliver { batch, session, .. } = step else { return Visit::Cost(0) };
        let channel = batch.channel.to_string();
        asked.push((session, channel.clone()));
        if session == 1 && channel == "a" { Visit::Full } else { Visit::Cost(1) }
    });
    let expected = [(0, "a"), (1, "a"), (2, "b")].map(|(of, name)| (of, name.to_owned()));
    assert_eq!(asked, expected, "a full send queue is not visited again in the same turn");
    assert_eq!(visit(&mut mesh, 100), [(1, vec![1]), (2, vec![1])]);
    assert_eq!(mesh.hubs[0].fan_out_backlog(), (0, 0));
}

#[test]
fn full_send_queues_delay_later_subscribers_for_a_turn_at_a_time() {
    let mut mesh = mesh_of(200, "a");
    mesh.request(0, session(0), publish("a"));
    while mesh.step(0, 0) {}
    let (mut given, mut turns) = (Vec::new(), 0);
    while mesh.hubs[0].wants_fan_out() {
        turns += 1;
        mesh.hubs[0].fan_out(DELIVERY_COST_PER_TURN_MAX, |step| {
            let FanOutStep::Deliver { session, turns_waited, .. } = step else {
                return Visit::Cost(0);
            };
            if turns_waited == 0 {
                return Visit::Full;
            }
            given.push(session);
            Visit::Cost(1)
        });
    }
    assert_eq!(given, (0..200).collect::<Vec<_>>());
    assert_eq!(turns, 1 + 200_usize.div_ceil(FAN_OUT_SLICE_COST_MAX));
}

#[test]
fn fan_outs_that_wait_for_the_same_subscriber_alternate() {
    let mut mesh = mesh_of(1, "a");
    mesh.request(0, session(0), subscribe("b"));
    mesh.settle();
    for name in ["a", "b", "a", "b", "a", "b"] {
        mesh.request(0, session(0), publish_much(name));
        while mesh.step(0, 0) {}
    }
    let mut given = Vec::new();
    for turn in 0..6 {
        mesh.hubs[0].fan_out(100, |step| {
            let FanOutStep::Deliver { batch, turns_waited, .. } = step else {
                return Visit::Cost(0);
            };
            if given.len() > turn {
                return Visit::Full;
            }
            given.push((batch.channel.to_string(), turns_waited));
            Visit::Cost(1)
        });
    }
    let expected = [("a", 0), ("b", 1), ("a", 2), ("b", 2), ("a", 2), ("b", 2)];
    assert_eq!(given, expected.map(|(name, waited)| (name.to_owned(), waited)));
}

/// The caller keeps encoded items until then.
#[test]
fn a_fan_out_that_loses_its_last_subscriber_is_reported_as_done() {
    let mut mesh = mesh_of(1, "a");
    let done = |mesh: &mut Mesh| {
        let mut done = 0;
        mesh.hubs[0].fan_out(100, |step| match step {
            FanOutStep::Deliver { .. } => Visit::Full,
            FanOutStep::Done { .. } => {
                done += 1;
                Visit::Cost(0)
            }
        });
        done
    };
    mesh.request(0, session(0), publish("a"));
    while mesh.step(0, 0) {}
    assert_eq!(done(&mut mesh), 0);
    mesh.request(0, session(0), unsubscribe("a"));
    assert!(mesh.hubs[0].wants_fan_out());
    assert_eq!(done(&mut mesh), 1);
    assert!(!mesh.hubs[0].wants_fan_out());
}

#[test]
fn fan_outs_that_end_before_their_turn_leave_no_memory() {
    let mut mesh = mesh_of(0, "a");
    mesh.hubs[0].open(session(0));
    for _ in 0..100 {
        mesh.request(0, session(0), subscribe("a"));
        while mesh.step(0, 0) {}
        mesh.request(0, session(0), publish("a"));
        while mesh.step(0, 0) {}
        assert!(mesh.hubs[0].wants_fan_out());
        mesh.request(0, session(0), unsubscribe("a"));
        mesh.end_view(0, 0, "a");
        while mesh.step(0, 0) {}
        assert!(!mesh.hubs[0].wants_fan_out());
        assert_eq!(mesh.hubs[0].subscribers.delivery().fan_outs().line_len(), 0);
    }
}

#[test]
fn a_batch_is_bounded_in_count_and_bytes() {
    let mut mesh = Mesh::new(1, 8);
    mesh.hubs[0].open(session(0));
    mesh.request(0, session(0), subscribe("a"));
    mesh.settle();
    let mut sizes = |count: usize, bytes: usize| {
        for _ in 0..count {
            let payload = Payload::new(PayloadKind::Binary, vec![0; bytes]);
            let channel = Some(channel("a"));
            let request = Request::Publish { channel, payload, options: None };
            mesh.request(0, session(0), request);
        }
        while mesh.step(0, 0) {}
        let mut sizes = Vec::new();
        let mut step = |step: FanOutStep<'_>| {
            if let FanOutStep::Deliver { batch, .. } = step {
                sizes.push(batch.items.len());
            }
            Visit::Cost(1)
        };
        while mesh.hubs[0].wants_fan_out() {
            mesh.hubs[0].fan_out(1, &mut step);
        }
        sizes
    };
    assert_eq!(sizes(PUBLICATIONS_PER_FAN_OUT_MAX + 1, 1), [PUBLICATIONS_PER_FAN_OUT_MAX, 1]);
    assert_eq!(sizes(3, FAN_OUT_BLOCK_BYTES_MAX / 2), [2, 1]);
    assert_eq!(sizes(2, FAN_OUT_BLOCK_BYTES_MAX + 1), [1, 1]);
    // Joins, leaves and gaps count a few bytes each: only their number ends a block.
    assert!(PUBLICATIONS_PER_FAN_OUT_MAX * Item::Gap(1).bytes() <= FAN_OUT_BLOCK_BYTES_MAX);
}
