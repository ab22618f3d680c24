//! Clients that act for users, as others see them.

use super::*;
use crate::config::limits::{EXPIRIES_PER_TURN_MAX, PRESENCE_USERS_MAX};
use crate::hub::join_leave::JOIN_LEAVE_DELAY_MS;
use crate::hub::{ExpiryRoom, SubscriptionChange};
use crate::message::{
    ClientId, ClientInfo, INFO_BYTES_MAX, Identity, IdentityError, Renewal, SubscriptionOptions,
};

fn identity(user: &str, info: &'static str) -> Identity {
    Identity { user: Some(user.into()), info: Some(info.into()), expires_at: None }
}

fn client(worker: usize, index: u32) -> ClientId {
    let worker = WorkerId(u16::try_from(worker).unwrap());
    ClientId { node: NodeId::new(1), worker, session: session(index) }
}

fn subscribe_with_info(name: &str, info: &'static str) -> Request {
    subscribe_with_options(
        name,
        SubscriptionOptions { info: Some(info.into()), ..Default::default() },
    )
}

impl Mesh {
    /// Opens a session for a user.
    fn enter(&mut self, worker: usize, index: u32, user: &str, info: &'static str) {
        self.hubs[worker].open(session(index));
        self.hubs[worker].identify(session(index), &identity(user, info)).unwrap();
    }

    fn ask(&mut self, request: Request) -> Reply {
        self.request(0, session(0), request);
        self.settle();
        self.seen.replies.pop().expect("it is replied to").3
    }

    fn presence(&mut self, name: &str) -> Vec<ClientInfo> {
        let request = Request::Presence { channel: channel(name), list_max: 10 };
        let Reply::Presence { mut clients, .. } = self.ask(request) else { panic!("no list") };
        clients.sort_by_key(|info| info.client);
        clients
    }

    fn count(&mut self, name: &str) -> (u64, u64) {
        let reply = self.ask(Request::Presence { channel: channel(name), list_max: 0 });
        let Reply::PresenceStats { client_count, user_count } = reply else { panic!("no numbers") };
        (client_count, user_count)
    }
}

#[test]
fn presence_has_the_user_and_what_is_said_about_client_and_subscription() {
    let mut mesh = Mesh::new(2, 8);
    mesh.enter(0, 0, "ann", "{\"n\":1}");
    mesh.enter(1, 0, "", "2");
    mesh.hubs[1].open(session(1));
    mesh.request(0, session(0), subscribe_with_info("a", "\"in a\""));
    mesh.request(1, session(0), subscribe_with_info("a", "3"));
    mesh.request(1, session(1), subscribe("a"));
    mesh.settle();
    let ann = ClientInfo {
        client: client(0, 0),
        user: Some("ann".into()),
        conn_info: Some("{\"n\":1}".into()),
        chan_info: Some("\"in a\"".into()),
    };
    let described = ClientInfo {
        conn_info: Some("2".into()),
        chan_info: Some("3".into()),
        ..ClientInfo::anonymous(client(1, 0))
    };
    let anonymous = ClientInfo::anonymous(client(1, 1));
    assert_eq!(mesh.presence("a"), [ann.clone(), described, anonymous.clone()]);
    // What is said about a subscription ends with it.
    mesh.request(0, session(0), unsubscribe("a"));
    mesh.settle();
    mesh.end_view(0, 0, "a");
    mesh.request(0, session(0), subscribe("a"));
    mesh.settle();
    mesh.close(1, session(0));
    let without = ClientInfo { chan_info: None, ..ann };
    assert_eq!(mesh.presence("a"), [without, anonymous]);
    // A session with the index of another one is not taken for it.
    mesh.hubs[1].open(SessionId { index: 0, generation: 2 });
    assert_eq!(mesh.hubs[1].user(session(0)), None);
    assert_eq!(mesh.hubs[1].measures().identity_bytes, 0);
    assert_eq!(mesh.hubs[0].user(session(0)), Some("ann"));
}

#[test]
fn users_are_counted_once_over_all_workers() {
    let mut mesh = Mesh::new(3, 8);
    mesh.hubs[0].open(session(0));
    assert_eq!(mesh.count("a"), (0, 0));
    for (worker, index, user) in
        [(0, 1, "ann"), (0, 2, "bob"), (1, 1, "ann"), (1, 2, "ann"), (2, 1, "eve"), (2, 2, "")]
    {
        mesh.enter(worker, index, user, "1");
        mesh.request(worker, session(index), subscribe("a"));
    }
    mesh.settle();
    // The anonymous client is a user too, and so are all of them together.
    assert_eq!(mesh.count("a"), (6, 4));
    mesh.hubs[1].open(session(3));
    mesh.request(1, session(3), subscribe("a"));
    mesh.settle();
    assert_eq!(mesh.count("a"), (7, 4));
    for index in [1, 2] {
        mesh.close(1, session(index));
    }
    assert_eq!(mesh.count("a"), (5, 4));
    mesh.close(0, session(1));
    assert_eq!(mesh.count("a"), (4, 3));
    let users: Vec<usize> = mesh.hubs.iter().map(|hub| hub.measures().users).collect();
    assert_eq!(users, [1, 0, 1]);
}

#[test]
fn joins_and_leaves_have_the_user_and_what_is_said() {
    let options = ChannelOptions { join_leave: true, ..ChannelOptions::open() };
    let mut mesh = Mesh::with(1, 8, options);
    mesh.enter(0, 0, "ann", "1");
    mesh.request(0, session(0), subscribe("a"));
    mesh.enter(0, 1, "bob", "2");
    mesh.request(0, session(1), subscribe_with_info("a", "3"));
    mesh.settle();
    let delivered = |mesh: &mut Mesh, now_ms: u64| {
        let mut out = VecDeque::new();
        mesh.hubs[0].tick(now_ms * 1000, &mut out);
        mesh.route(0, out);
        let mut items = Vec::new();
        while mesh.queues.values().any(|queue| !queue.is_empty()) {
            mesh.step(0, 0);
        }
        mesh.hubs[0].fan_out(usize::MAX, |step| {
            if let FanOutStep::Deliver { batch, session: to, .. } = step
                && to == 0
            {
                items.extend(batch.items.iter().cloned());
            }
            Visit::Cost(1)
        });
        items
    };
    let bob = Arc::new(ClientInfo {
        client: client(0, 1),
        user: Some("bob".into()),
        conn_info: Some("2".into()),
        chan_info: Some("3".into()),
    });
    let now = JOIN_LEAVE_DELAY_MS;
    assert_eq!(delivered(&mut mesh, now).last(), Some(&Item::Joined(bob.clone())));
    mesh.close(0, session(1));
    mesh.settle();
    assert_eq!(delivered(&mut mesh, 3 * now), [Item::Left(bob)]);
}

#[test]
fn an_identity_that_is_too_long_is_refused() {
    let mut mesh = Mesh::new(1, 8);
    mesh.hubs[0].open(session(0));
    let info = Some(vec![b'1'; INFO_BYTES_MAX + 1].into());
    let long = Identity { info, ..identity("ann", "1") };
    let refused = mesh.hubs[0].identify(session(0), &long);
    assert_eq!(refused, Err(IdentityError::InfoTooLong));
    assert_eq!(mesh.hubs[0].user(session(0)), None);
}

#[test]
fn the_users_of_a_bounded_number_of_subscribers_are_compared() {
    let mut mesh = Mesh::new(1, 8);
    mesh.hubs[0].open(session(0));
    let most = PRESENCE_USERS_MAX as u32;
    for index in 1..=most {
        mesh.enter(0, index, if index % 2 == 0 { "ann" } else { "bob" }, "1");
        mesh.request(0, session(index), subscribe("a"));
    }
    mesh.settle();
    assert_eq!(mesh.count("a"), (most.into(), 2));
    // Those beyond them count as users of their own.
    for index in most + 1..=most + 3 {
        mesh.enter(0, index, "ann", "1");
        mesh.request(0, session(index), subscribe("a"));
    }
    mesh.settle();
    assert_eq!(mesh.count("a"), (u64::from(most) + 3, 2 + 3));
}

/// The sessions, and the channels of subscriptions, that expire at this time.
fn expired(mesh: &mut Mesh, now: u64) -> (Vec<u32>, Vec<String>) {
    let mut out = VecDeque::new();
    let room = ExpiryRoom { sessions: EXPIRIES_PER_TURN_MAX, renewals: 2 };
    mesh.hubs[0].expire(now, room, &mut out);
    let (mut sessions, mut channels) = (Vec::new(), Vec::new());
    out.retain(|output| {
        match output {
            HubOutput::Expired { session } => sessions.push(session.index),
            HubOutput::Reply { session, reply: Reply::SubscriptionExpired { channel }, .. } => {
                mesh.end_view(0, session.index, channel.as_str());
                channels.push(channel.to_string());
            }
            HubOutput::SubscriptionDue { channel, .. } => channels.push(format!("{channel}?")),
            _ => return true,
        }
        false
    });
    mesh.route(0, out);
    mesh.settle();
    (sessions, channels)
}

#[test]
fn sessions_expire_unless_they_are_refreshed_or_closed() {
    let mut mesh = Mesh::new(1, 8);
    let until = |at| Identity { expires_at: Some(at), ..identity("ann", "1") };
    for index in 0..4 {
        mesh.hubs[0].open(session(index));
        mesh.hubs[0].identify(session(index), &until(100)).unwrap();
    }
    mesh.hubs[0].identify(session(1), &until(200)).unwrap();
    mesh.close(0, session(2));
    assert_eq!(expired(&mut mesh, 99), (vec![], vec![]));
    assert_eq!(expired(&mut mesh, 100), (vec![0, 3], vec![]));
    mesh.hubs[0].identify(session(1), &identity("ann", "1")).unwrap();
    assert_eq!(expired(&mut mesh, 1000), (vec![], vec![]));
    // An anonymous client may have a limited time too.
    mesh.hubs[0].open(session(5));
    let anonymous = Identity { expires_at: Some(1001), ..Identity::default() };
    mesh.hubs[0].identify(session(5), &anonymous).unwrap();
    assert_eq!(expired(&mut mesh, 1001), (vec![5], vec![]));
}

#[test]
fn a_bounded_number_of_sessions_expires_in_a_turn() {
    let mut mesh = Mesh::new(1, 8);
    let count = EXPIRIES_PER_TURN_MAX as u32 + 1;
    for index in 0..count {
        mesh.hubs[0].open(session(index));
        let until = Identity { expires_at: Some(u64::from(index % 7)), ..Identity::default() };
        mesh.hubs[0].identify(session(index), &until).unwrap();
    }
    let lengths = [10, 10, 10].map(|now| expired(&mut mesh, now).0.len());
    assert_eq!(lengths, [EXPIRIES_PER_TURN_MAX, 1, 0]);
}

#[test]
fn subscriptions_expire_some_time_after_they_should_have_been_refreshed() {
    let mut mesh = Mesh::new(1, 8);
    mesh.hubs[0].open(session(0));
    expired(&mut mesh, 1000);
    let change = |mesh: &mut Mesh, name, options| {
        let change = SubscriptionChange::Options(options);
        let hub = &mut mesh.hubs[0];
        hub.change_subscription(session(0), &channel(name), change, &mut VecDeque::new());
    };
    let until = |at| Box::new(SubscriptionOptions { expires_at: Some(at), ..Default::default() });
    for name in ["a", "b", "c", "d"] {
        let (data, options) = (Some("{\"d\":1}".into()), Some(1060));
        let options = SubscriptionOptions { data, expires_at: options, ..Default::default() };
        mesh.request(0, session(0), subscribe_with_options(name, options));
        mesh.settle();
        let reply = mesh.seen.replies.pop().unwrap().3;
        let Reply::Subscribed { options: Some(options), .. } = reply else { panic!("{reply:?}") };
        assert_eq!((options.expires_at, options.data), (Some(1060), Some("{\"d\":1}".into())));
    }
    mesh.request(0, session(0), unsubscribe("a"));
    mesh.end_view(0, 0, "a");
    change(&mut mesh, "b", until(1200));
    change(&mut mesh, "c", Default::default());
    change(&mut mesh, "no", until(1));
    let delay = 25;
    assert_eq!(expired(&mut mesh, 1060 + delay - 1), (vec![], vec![]));
    assert_eq!(expired(&mut mesh, 1060 + delay), (vec![], vec!["d".to_owned()]));
    assert_eq!(mesh.hubs[0].subscription(session(0), &channel("d")), SubscriptionState::None);
    assert_eq!(expired(&mut mesh, 1200 + delay), (vec![], vec!["b".to_owned()]));
    assert_eq!(expired(&mut mesh, u64::MAX), (vec![], vec![]));
    assert_eq!(mesh.hubs[0].subscription(session(0), &channel("c")), SubscriptionState::Joined);
    mesh.close(0, session(0));
    assert_eq!(mesh.hubs[0].measures().identity_bytes, 0);
}

#[test]
fn the_backend_is_asked_about_subscriptions_and_its_answer_is_for_the_same_one() {
    let mut mesh = Mesh::new(1, 8);
    mesh.hubs[0].open(session(0));
    let subscribe = |mesh: &mut Mesh, name: &str, at: u64| {
        let options = SubscriptionOptions {
            expires_at: Some(at),
            is_renewed_by_backend: true,
            info: Some("1".into()),
            ..Default::default()
        };
        mesh.request(0, session(0), subscribe_with_options(name, options));
        mesh.settle();
    };
    for name in ["a", "b", "c"] {
        subscribe(&mut mesh, name, 1000);
    }
    let asked = |mesh: &mut Mesh, now| expired(mesh, now).1;
    assert_eq!(asked(&mut mesh, 999), [""; 0]);
    assert_eq!(asked(&mut mesh, 1000).len(), 2, "no more than there is room for");
    assert_eq!(asked(&mut mesh, 1000).len(), 1);
    assert_eq!(asked(&mut mesh, 1000), [""; 0], "it is asked once");
    // One of them was ended and made again before the answers came.
    mesh.request(0, session(0), unsubscribe("c"));
    mesh.end_view(0, 0, "c");
    subscribe(&mut mesh, "c", 2000);
    let mut out = VecDeque::new();
    let prolonged = Renewal::Prolonged { expires_at: Some(1500), info: Some("2".into()) };
    for (name, renewal) in [("a", &prolonged), ("b", &Renewal::Expired), ("c", &Renewal::Expired)] {
        let hub = &mut mesh.hubs[0];
        let change = SubscriptionChange::Renewal(renewal.clone());
        hub.change_subscription(session(0), &channel(name), change, &mut out);
    }
    mesh.end_view(0, 0, "b");
    mesh.route(0, out);
    mesh.settle();
    let subscribed = |mesh: &Mesh, name| {
        mesh.hubs[0].subscription(session(0), &channel(name)) == SubscriptionState::Joined
    };
    assert_eq!(["a", "b", "c"].map(|name| subscribed(&mesh, name)), [true, false, true]);
    assert_eq!(asked(&mut mesh, 1500), ["a?"]);
    let forever = Renewal::Prolonged { expires_at: None, info: None };
    let (forever, hub) = (SubscriptionChange::Renewal(forever), &mut mesh.hubs[0]);
    hub.change_subscription(session(0), &channel("a"), forever, &mut VecDeque::new());
    assert_eq!(asked(&mut mesh, 3000), ["c?"]);
    mesh.close(0, session(0));
    assert_eq!(mesh.hubs[0].measures().identity_bytes, 0);
}
