//! Publications with versions: those that are not newer than the channel's are dropped, whichever worker they come
//! from.

use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::message::{PublishOptions, Version};

const TTL_MS: u64 = 10_000;

fn options() -> ChannelOptions {
    ChannelOptions {
        history_size: 2,
        history_ttl: Duration::from_millis(TTL_MS),
        ..ChannelOptions::open()
    }
}

impl Mesh {
    /// Publishes to channel `a` with a version, or with none if it is 0. Returns the position, and whether the
    /// publication was dropped.
    fn publish_version(&mut self, worker: usize, number: u64, epoch: &str) -> (u64, bool) {
        let version = NonZeroU64::new(number).map(|number| Version { number, epoch: epoch.into() });
        let options = PublishOptions { version, ..PublishOptions::default() };
        let request = Request::Publish {
            channel: Some(channel("a")),
            payload: payload(b"x"),
            options: Some(Arc::new(options)),
        };
        self.request(worker, session(0), request);
        self.settle();
        match self.seen.replies.pop().expect("it was answered").3 {
            Reply::Published { position } => (position.offset, false),
            Reply::Outdated { position } => (position.offset, true),
            other => panic!("{other:?}"),
        }
    }

    fn tick(&mut self, now_ms: u64) {
        for hub in &mut self.hubs {
            hub.tick(now_ms * 1000, &mut VecDeque::new());
        }
    }
}

fn mesh(options: ChannelOptions) -> Mesh {
    let mut mesh = Mesh::with(3, 8, options);
    mesh.tick(1000);
    mesh.hubs.iter_mut().for_each(|hub| hub.open(session(0)));
    mesh
}

#[test]
fn a_publication_that_is_not_newer_is_dropped_over_all_workers() {
    let mut mesh = mesh(options());
    mesh.request(2, session(0), subscribe("a"));
    mesh.settle();
    let steps = [
        (0, 5, "e", (1, false)),
        (1, 5, "e", (1, true)),
        (2, 4, "e", (1, true)),
        (0, 6, "e", (2, false)),
        // Without an epoch, it is compared with whatever the channel has.
        (1, 6, "", (2, true)),
        (2, 7, "", (3, false)),
        // The channel's epoch is the empty one now.
        (0, 1, "e", (4, false)),
        // One without a version is never dropped, and leaves the version as it is.
        (1, 0, "", (5, false)),
        (2, 1, "e", (5, true)),
        (0, 1, "f", (6, false)),
        (1, u64::MAX, "f", (7, false)),
        (2, u64::MAX, "", (7, true)),
    ];
    for (worker, number, epoch, expected) in steps {
        assert_eq!(mesh.publish_version(worker, number, epoch), expected, "{number} {epoch}");
    }
    let view = &mesh.seen.live[&(2, 0, "a".to_owned())];
    assert_eq!(view.offsets, [1, 2, 3, 4, 5, 6, 7], "those that were dropped are not delivered");
}

#[test]
fn versions_have_no_effect_without_a_history() {
    let mut mesh = mesh(ChannelOptions { history_size: 0, ..options() });
    mesh.request(0, session(0), subscribe("a"));
    mesh.settle();
    for offset in 1..4 {
        assert_eq!(mesh.publish_version(0, 1, "e"), (offset, false));
    }
}

#[test]
fn a_version_lasts_as_long_as_the_stream_and_its_memory_is_counted() {
    for has_subscriber in [false, true] {
        let mut mesh = mesh(options());
        let bytes =
            |mesh: &Mesh| mesh.hubs.iter().map(|hub| hub.measures().history_bytes).sum::<u64>();
        if has_subscriber {
            mesh.request(1, session(0), subscribe("a"));
            mesh.settle();
        }
        assert_eq!(mesh.publish_version(0, 0, ""), (1, false));
        let without = bytes(&mesh);
        assert_eq!(mesh.publish_version(0, 5, &"e".repeat(255)), (2, false));
        let with = bytes(&mesh);
        assert!(with - without >= 255 + (without - 160), "{without} {with}");
        // A longer and a shorter epoch replace each other without a trace.
        assert_eq!(mesh.publish_version(0, 6, ""), (3, false));
        let epoch = "f".repeat(255);
        assert_eq!(mesh.publish_version(0, 5, &epoch), (4, false));
        assert_eq!(bytes(&mesh), with);

        mesh.tick(1000 + TTL_MS);
        assert_eq!(mesh.publish_version(0, 5, &epoch), (4, true));
        mesh.tick(1000 + 2 * TTL_MS);
        assert_eq!(mesh.publish_version(0, 5, &epoch), (4, true), "that it was dropped is a use");
        mesh.tick(1001 + 3 * TTL_MS);
        if has_subscriber {
            assert!(bytes(&mesh) > 255, "the version is kept");
            mesh.tick(1002 + 4 * TTL_MS);
            assert_eq!(mesh.publish_version(0, 5, &epoch), (4, true));
            mesh.request(1, session(0), unsubscribe("a"));
            mesh.settle();
            mesh.tick(1003 + 5 * TTL_MS);
        }
        assert_eq!(bytes(&mesh), 0, "nothing needs it: {has_subscriber}");
        assert_eq!(mesh.publish_version(0, 5, &epoch), (1, false));
    }
}

#[test]
fn a_version_is_forgotten_where_memory_is_needed() {
    let mut mesh = mesh(options());
    mesh.request(1, session(0), subscribe("a"));
    mesh.settle();
    assert_eq!(mesh.publish_version(0, 5, "e"), (1, false));
    for hub in &mut mesh.hubs {
        hub.set_limits(HubLimits {
            subscriptions_max: 8,
            history_bytes_max: 0,
            answer_bytes_max: 1 << 20,
            backlog_bytes_max: 1 << 20,
            position_ttl: Duration::ZERO,
            expired_close_delay: Duration::ZERO,
        });
    }
    mesh.tick(1001);
    assert_eq!(mesh.hubs.iter().map(|hub| hub.measures().history_bytes).sum::<u64>(), 0);
    assert_eq!(mesh.publish_version(0, 5, "e"), (2, false));
}

#[test]
fn removing_the_history_keeps_the_version() {
    let mut mesh = mesh(options());
    assert_eq!(mesh.publish_version(0, 5, "e"), (1, false));
    mesh.request(1, session(0), Request::HistoryRemove { channel: channel("a") });
    mesh.settle();
    assert_eq!(mesh.seen.replies.pop().unwrap().3, Reply::Done);
    assert_eq!(mesh.publish_version(2, 5, "e"), (1, true));
    mesh.tick(2000 + TTL_MS);
    assert_eq!(mesh.hubs.iter().map(|hub| hub.measures().history_bytes).sum::<u64>(), 0);
}
