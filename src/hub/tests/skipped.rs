//! Publications that are delivered, and not a part of the stream.

use super::*;
use crate::config::SlowConsumer;
use crate::message::{HistoryQuery, PublishOptions};

fn publish_with(name: &str, skip_history: bool, key: Option<&str>) -> Request {
    let idempotency_key = key.map(Into::into);
    let options = PublishOptions { idempotency_key, skip_history, ..PublishOptions::default() };
    let (channel, payload) = (Some(channel(name)), payload(b"x"));
    Request::Publish { channel, payload, options: Some(Arc::new(options)) }
}

/// The position in the last reply to a publication.
fn replied(mesh: &mut Mesh) -> Position {
    mesh.settle();
    match mesh.seen.replies.pop() {
        Some((.., Reply::Published { position })) => position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_stream_goes_on_as_if_they_had_not_been() {
    for workers in 1..=3 {
        let mut mesh =
            Mesh::with(workers, 8, ChannelOptions { history_size: 5, ..ChannelOptions::open() });
        for worker in 0..usize::from(workers) {
            mesh.hubs[worker].open(session(0));
        }
        // Without a stream, there is none afterwards.
        mesh.request(0, session(0), publish_with("a", true, None));
        assert_eq!(replied(&mut mesh), Position::NOWHERE);
        mesh.request(0, session(0), publish_with("a", false, None));
        assert_eq!(replied(&mut mesh).offset, 1);
        for key in [None, Some("k"), Some("k")] {
            mesh.request(0, session(0), publish_with("a", true, key));
            assert_eq!(replied(&mut mesh), Position::NOWHERE);
        }
        mesh.request(0, session(0), publish_with("a", false, None));
        let last = replied(&mut mesh);
        assert_eq!(last.offset, 2);
        let query = HistoryQuery::default();
        mesh.request(0, session(0), Request::History { channel: channel("a"), query });
        mesh.settle();
        let Some((.., Reply::History { position, publications })) = mesh.seen.replies.pop() else {
            panic!()
        };
        let kept: Vec<_> =
            publications.iter().map(|it| (it.position.offset, it.in_stream)).collect();
        assert_eq!((position, kept), (last, vec![(1, true), (2, true)]));
    }
}

#[test]
fn without_a_history_every_publication_is_numbered() {
    let mut mesh = Mesh::with(1, 8, ChannelOptions { history_size: 0, ..ChannelOptions::open() });
    mesh.hubs[0].open(session(0));
    mesh.request(0, session(0), subscribe("a"));
    mesh.settle();
    for offset in 1..=2 {
        mesh.request(0, session(0), publish_with("a", true, None));
        assert_eq!(replied(&mut mesh).offset, offset);
    }
}

#[test]
fn a_slow_subscriber_misses_them_and_nothing_else() {
    for (slow_consumer, expected) in
        [(SlowConsumer::DropOldest, &[1, 2, 3][..]), (SlowConsumer::Latest, &[3])]
    {
        let options = ChannelOptions {
            history_size: 5,
            slow_consumer,
            backlog_size: 5,
            ..ChannelOptions::open()
        };
        let mut mesh = Mesh::with(1, 8, options);
        mesh.hubs[0].open(session(0));
        mesh.request(0, session(0), subscribe("a"));
        mesh.settle();
        let mut out = VecDeque::new();
        // The first of these is in flight when the subscriber falls behind.
        for skips in [true, false, true, false, false, true] {
            mesh.hubs[0].handle(
                session(0),
                None,
                Author::Client,
                publish_with("a", skips, None),
                &mut out,
            );
            mesh.route(0, std::mem::take(&mut out));
            while mesh.queues.values().any(|queue| !queue.is_empty()) {
                mesh.step(0, 0);
            }
        }
        mesh.hubs[0].fan_out(usize::MAX, |step| match step {
            FanOutStep::Deliver { .. } => Visit::Behind,
            FanOutStep::Done { .. } => Visit::Cost(1),
        });
        assert!(!mesh.hubs[0].catch_up(session(0), &mut out));
        let mut offsets = Vec::new();
        for output in out {
            let HubOutput::Deliver { items, .. } = output else { continue };
            offsets.extend(items.iter().map(|item| match item {
                Item::Publication(publication) => {
                    assert!(publication.in_stream);
                    publication.position.offset
                }
                other => panic!("{other:?}"),
            }));
        }
        assert_eq!(offsets, expected, "{slow_consumer:?}");
    }
}
