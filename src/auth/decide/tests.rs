//! Which requests are allowed.

use super::Verdict::{Allow, Ask, Refuse};
use super::*;
use crate::config::{CallbackOption, ChannelOptions, ChannelRegex, STATISTICS_CHANNEL};
use crate::message::{
    ClientId, CloseReason, Control, HistoryQuery, NodeId, Payload, PayloadKind, Selection,
    SessionId, UserCommand, WorkerId,
};

const DENIED: Verdict = Refuse(Refusal::PermissionDenied);

/// Without a callback.
fn none() -> Callbacks {
    Callbacks::default()
}

/// A request of each kind that names this channel, by the name of its right.
fn requests(channel: &str) -> [(&'static str, Request); 8] {
    let channel = ChannelName::new(channel).unwrap();
    let control = |control| {
        let session = SessionId { index: 0, generation: 1 };
        let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
        Request::Control { client, user: None, control }
    };
    let publish = Request::Publish {
        channel: Some(channel.clone()),
        payload: Payload::new(PayloadKind::Text, "x"),
        options: None,
    };
    let query = HistoryQuery::default();
    let (subscribe, unsubscribe) = (
        Control::Subscribe { channel: channel.clone(), since: None, options: None },
        Control::Unsubscribe { channel: channel.clone() },
    );
    [
        ("subscribe", Request::subscribe(channel.clone(), None)),
        ("unsubscribe", Request::Unsubscribe { channel: channel.clone() }),
        ("publish", publish),
        ("history", Request::History { channel: channel.clone(), query }),
        ("history_remove", Request::HistoryRemove { channel: channel.clone() }),
        ("presence", Request::Presence { channel, list_max: 0 }),
        ("control", control(subscribe)),
        ("control", control(unsubscribe)),
    ]
}

/// Nothing is allowed to clients, and everything is offered, but for what `set` changes.
fn with(set: impl FnOnce(&mut ChannelOptions)) -> Namespaces {
    let mut options =
        ChannelOptions { history_size: 1, presence: true, ..ChannelOptions::closed() };
    set(&mut options);
    let mut namespaces = Namespaces::new(ChannelOptions::development());
    namespaces.add("a", options).unwrap();
    namespaces
}

fn client(
    has_user: bool,
    is_subscribed: bool,
) -> Client<'static, impl FnOnce(&ChannelName) -> bool> {
    let user = has_user.then_some("42");
    Client { user, is_subscribed: move |_: &ChannelName| is_subscribed }
}

/// The verdict for a client that has a user and is subscribed.
fn of_client(request: &Request, namespaces: &Namespaces) -> Verdict {
    decide(Actor::Client, client(true, true), request, namespaces, &none())
}

fn of_server(request: &Request, namespaces: &Namespaces) -> Verdict {
    decide(Actor::Server, client(false, false), request, namespaces, &none())
}

/// Every set of values of a right.
fn client_rights() -> impl Iterator<Item = ClientRight> {
    (0..8).map(|bits| ClientRight {
        client: bits & 1 != 0,
        subscriber: bits & 2 != 0,
        anonymous: bits & 4 != 0,
    })
}

#[test]
fn clients_have_the_rights_of_the_channel_and_no_others() {
    type Set = fn(&mut ChannelOptions) -> &mut ClientRight;
    let rights: [(&str, Set); 4] = [
        ("subscribe", |options| &mut options.allow_subscribe),
        ("publish", |options| &mut options.allow_publish),
        ("history", |options| &mut options.allow_history),
        ("presence", |options| &mut options.allow_presence),
    ];
    for (name_of_right, set) in rights {
        for right in client_rights() {
            let namespaces = with(|options| *set(options) = right);
            for (has_user, is_subscribed) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                // A user, or a right that includes those without; a client, or a subscriber that is subscribed.
                let holds = match (has_user, is_subscribed) {
                    (false, false) => right.anonymous && right.client,
                    (false, true) => right.anonymous && (right.client || right.subscriber),
                    (true, false) => right.client,
                    (true, true) => right.client || right.subscriber,
                };
                for (name, request) in requests("a:1") {
                    let is_allowed = (name == name_of_right && holds) || name == "unsubscribe";
                    let is = client(has_user, is_subscribed);
                    assert_eq!(
                        decide(Actor::Client, is, &request, &namespaces, &none()),
                        if is_allowed { Allow } else { DENIED },
                        "{name}, {name_of_right}: {right:?}, {has_user}, {is_subscribed}"
                    );
                    assert_eq!(of_server(&request, &namespaces), Allow, "{name}");
                }
            }
        }
    }
}

#[test]
fn subscriptions_are_looked_at_only_if_the_verdict_depends_on_them() {
    let unasked = |has_user: bool| Client {
        user: has_user.then_some("42"),
        is_subscribed: |_: &ChannelName| -> bool { panic!("it is asked") },
    };
    for right in client_rights().filter(|right| right.client || !right.subscriber) {
        let namespaces = with(|options| options.allow_publish = right);
        for (_, request) in requests("a:1") {
            decide(Actor::Client, unasked(true), &request, &namespaces, &none());
            decide(Actor::Server, unasked(false), &request, &namespaces, &none());
        }
    }
}

#[test]
fn what_a_channel_does_not_offer_is_not_available_to_anyone() {
    let not_available = Refuse(Refusal::NotAvailable);
    for right in [ClientRight::NONE, ClientRight::ALL] {
        let namespaces = with(|options| {
            (options.history_size, options.presence) = (0, false);
            (options.allow_history, options.allow_presence) = (right, right);
        });
        for (name, request) in requests("a:1") {
            let (client, server) = match name {
                "history" | "presence" => (not_available, not_available),
                "history_remove" => (DENIED, not_available),
                "unsubscribe" => (Allow, Allow),
                _ => (DENIED, Allow),
            };
            assert_eq!(of_client(&request, &namespaces), client, "{name}");
            assert_eq!(of_server(&request, &namespaces), server, "{name}");
        }
    }
}

#[test]
fn names_that_clients_may_not_use_are_invalid_to_clients_only() {
    let mut namespaces = with(|options| {
        options.channel_regex = Some(ChannelRegex::new("^[0-9]+$").unwrap());
        options.allow_subscribe = ClientRight::ALL;
    });
    namespaces.limit_names("a:1234".len());
    let invalid = Refuse(Refusal::ChannelInvalid);
    for (channel, is_valid) in [("a:1234", true), ("a:12345", false), ("a:x", false), ("a:", false)]
    {
        for (name, request) in requests(channel) {
            assert_eq!(of_server(&request, &namespaces), Allow, "{name} {channel}");
            let expected = match name {
                "unsubscribe" => Allow,
                "subscribe" if is_valid => Allow,
                "control" => DENIED,
                _ if is_valid => DENIED,
                _ => invalid,
            };
            assert_eq!(of_client(&request, &namespaces), expected, "{name} {channel}");
        }
    }
}

#[test]
fn a_private_channel_is_in_a_namespace_and_clients_need_a_token_to_subscribe_to_it() {
    let namespaces = with(|options| {
        (options.allow_subscribe, options.allow_publish) = (ClientRight::ALL, ClientRight::ALL);
    });
    for (channel, is_known) in [("$a:1", true), ("$x", true), ("$b:1", false), ("$$a:1", false)] {
        for (name, request) in requests(channel) {
            let (client, server) = match name {
                "unsubscribe" => (Allow, Allow),
                "control" if is_known => (DENIED, Allow),
                "control" => (DENIED, Refuse(Refusal::NamespaceUnknown)),
                _ if !is_known => {
                    let unknown = Refuse(Refusal::NamespaceUnknown);
                    (unknown, unknown)
                }
                "subscribe" => (DENIED, Allow),
                "publish" => (Allow, Allow),
                // Everything is allowed in channels without a namespace.
                _ if channel == "$x" => (Allow, Allow),
                "history_remove" => (DENIED, Allow),
                _ => (DENIED, Allow),
            };
            let client = match (channel, name) {
                ("$x", "history_remove") => DENIED,
                _ => client,
            };
            assert_eq!(of_client(&request, &namespaces), client, "{name} {channel}");
            assert_eq!(of_server(&request, &namespaces), server, "{name} {channel}");
        }
    }
    // The mark is at the start alone.
    for (name, request) in requests("a:$1") {
        if name == "subscribe" {
            assert_eq!(of_client(&request, &namespaces), Allow);
        }
    }
}

#[test]
fn a_user_limited_channel_is_for_the_users_in_its_name() {
    for (right, is_limited) in [
        (ClientRight::NONE, true),
        (ClientRight::ALL, true),
        (ClientRight::NONE, false),
        (ClientRight::ALL, false),
    ] {
        let namespaces = with(|options| {
            options.allow_subscribe = right;
            options.allow_user_limited_channels = is_limited;
        });
        for (channel, for_42, for_anonymous) in [
            ("a:1#42", true, false),
            ("a:#42", true, false),
            ("a:1#1,42", true, false),
            ("a:1#42,1", true, false),
            ("a:1#1#42", true, false),
            ("a:1#42#1", false, false),
            ("a:1#4", false, false),
            ("a:1#421", false, false),
            ("a:1#1, 42", false, false),
            ("a:1#", false, false),
            ("a:1#42,", true, false),
            ("a:1#,", false, false),
        ] {
            let [(_, request), ..] = requests(channel);
            for (has_user, is_named) in [(true, for_42), (false, for_anonymous)] {
                let is = client(has_user, false);
                let verdict = decide(Actor::Client, is, &request, &namespaces, &none());
                let is_allowed = if is_limited { is_named } else { right == ClientRight::ALL };
                let expected = if is_allowed { Allow } else { DENIED };
                assert_eq!(verdict, expected, "{channel} {has_user} {right:?} {is_limited}");
            }
            assert_eq!(of_server(&request, &namespaces), Allow, "{channel}");
        }
        let [(_, request), ..] = requests("a:1");
        let expected = if right == ClientRight::ALL { Allow } else { DENIED };
        assert_eq!(of_client(&request, &namespaces), expected);
    }
}

#[test]
fn a_namespace_that_does_not_exist_is_said_to_be_unknown() {
    let namespaces = with(|_| {});
    for (name, request) in requests("b:1") {
        let unknown = Refuse(Refusal::NamespaceUnknown);
        let (client, server) = match name {
            "unsubscribe" => (Allow, Allow),
            "control" => (DENIED, unknown),
            _ => (unknown, unknown),
        };
        assert_eq!(of_client(&request, &namespaces), client, "{name}");
        assert_eq!(of_server(&request, &namespaces), server, "{name}");
    }
}

#[test]
fn nothing_is_published_to_the_servers_own_channels() {
    let mut namespaces = with(|_| {});
    namespaces.add_statistics();
    for (name, request) in requests(STATISTICS_CHANNEL) {
        if name == "publish" {
            assert_eq!(of_client(&request, &namespaces), DENIED);
            assert_eq!(of_server(&request, &namespaces), DENIED);
        } else if name == "subscribe" {
            assert_eq!(of_client(&request, &namespaces), Allow);
        }
    }
    namespaces.remove_statistics();
    for (name, request) in requests(STATISTICS_CHANNEL) {
        if name == "subscribe" {
            let unknown = Refuse(Refusal::NamespaceUnknown);
            assert_eq!(of_client(&request, &namespaces), unknown);
        }
    }
}

#[test]
fn requests_without_a_channel_are_decided_too() {
    let namespaces = with(|_| {});
    let session = SessionId { index: 0, generation: 1 };
    let id = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
    let control = Control::Disconnect(CloseReason::Forced.into());
    let command = UserCommand { user: "".into(), except: vec![id], control: control.clone() };
    for request in [
        Request::Channels { pattern: Default::default() },
        Request::Control { client: id, user: None, control },
        Request::ControlUser(Box::new(command)),
        Request::Connections { selection: Selection::All, with_channels: true },
        Request::Block { user: "ann".into(), until: 1 },
    ] {
        assert_eq!(of_client(&request, &namespaces), DENIED);
        assert_eq!(of_server(&request, &namespaces), Allow);
    }
    for by in [Actor::Client, Actor::Server] {
        assert_eq!(
            decide(
                by,
                client(false, false),
                &Request::Connect(Box::default()),
                &namespaces,
                &none()
            ),
            Allow
        );
    }
    // A publication goes to the session's first channel: there is none.
    let payload = Payload::new(PayloadKind::Text, "x");
    let publish = Request::Publish { channel: None, payload, options: None };
    for by in [Actor::Client, Actor::Server] {
        let expected = Refuse(Refusal::NotSubscribed);
        assert_eq!(decide(by, client(true, true), &publish, &namespaces, &none()), expected);
    }
}

#[test]
fn a_procedure_is_called_by_clients_where_a_backend_answers() {
    let namespaces = with(|_| {});
    let mut callbacks = none();
    let call = Request::Call { procedure: "x".into(), data: None };
    let of =
        |by, callbacks: &Callbacks| decide(by, client(false, false), &call, &namespaces, callbacks);
    let not_available = Refuse(Refusal::NotAvailable);
    assert_eq!(of(Actor::Client, &callbacks), not_available);
    let rpc = callbacks.of_mut(CallbackKind::Rpc);
    CallbackOption::named("endpoint").unwrap().parse(&["http://a/".into()], rpc).unwrap();
    assert_eq!(of(Actor::Client, &callbacks), Ask(CallbackKind::Rpc));
    assert_eq!(of(Actor::Server, &callbacks), not_available);
}

#[test]
fn the_backend_decides_about_channels_that_say_so_whatever_the_rights_are() {
    let endpoint = CallbackOption::named("endpoint").unwrap();
    for (right, kind) in
        [("subscribe", CallbackKind::Subscribe), ("publish", CallbackKind::Publish)]
    {
        for rights in [ClientRight::NONE, ClientRight::ALL] {
            let set = |options: &mut ChannelOptions| {
                (options.allow_subscribe, options.allow_publish) = (rights, rights);
                options.callback_subscribe = kind == CallbackKind::Subscribe;
                options.callback_publish = kind == CallbackKind::Publish;
            };
            let namespaces = with(set);
            let mut callbacks = none();
            endpoint.parse(&["http://a/".into()], callbacks.of_mut(kind)).unwrap();
            for (name, request) in requests("a:1") {
                let of = |by| decide(by, client(true, true), &request, &namespaces, &callbacks);
                let without = |by| decide(by, client(true, true), &request, &namespaces, &none());
                let expected = if name == right { Ask(kind) } else { without(Actor::Client) };
                assert_eq!(of(Actor::Client), expected, "{name}");
                assert_eq!(of(Actor::Server), without(Actor::Server), "{name}");
            }
            // These have a rule of their own, so that the backend is not asked.
            let namespaces = with(|options| {
                set(options);
                options.allow_user_limited_channels = true;
            });
            for (channel, expected) in [("$a:1", DENIED), ("a:1#42", Allow), ("a:1#43", DENIED)] {
                let [(_, request), ..] = requests(channel);
                let is = client(true, true);
                let verdict = decide(Actor::Client, is, &request, &namespaces, &callbacks);
                assert_eq!(verdict, expected, "{channel} {right}");
            }
            let (_, unknown) =
                requests("b:1").into_iter().find(|(name, _)| *name == right).unwrap();
            let verdict =
                decide(Actor::Client, client(true, true), &unknown, &namespaces, &callbacks);
            assert_eq!(verdict, Refuse(Refusal::NamespaceUnknown));
        }
    }
}

#[test]
fn a_name_is_checked_alone_as_it_is_with_a_request() {
    let mut namespaces = with(|options| {
        options.channel_regex = Some(ChannelRegex::new("^[0-9]+$").unwrap());
    });
    namespaces.limit_names("$a:1234".len());
    for (channel, expected) in [
        ("a:1", Ok(())),
        ("$a:1234", Ok(())),
        ("a:x", Err(Refusal::ChannelInvalid)),
        ("$a:x", Err(Refusal::ChannelInvalid)),
        ("a:1234567", Err(Refusal::ChannelInvalid)),
        ("b:1", Err(Refusal::NamespaceUnknown)),
        ("x", Ok(())),
    ] {
        let name = ChannelName::new(channel).unwrap();
        assert_eq!(check_name(&name, &namespaces), expected, "{channel}");
    }
}
