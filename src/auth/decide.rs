//! Whether a request is allowed.

use crate::config::{ChannelOptions, NamespaceId, Namespaces};
use crate::message::{Actor, ChannelName, Control, Refusal, Request};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Allow,
    /// It is not done.
    Refuse(Refusal),
}

/// Decides a request. Clients have the rights that the options of its channel give them; the server API has all of
/// them, but nothing is published to the server's own channels.
pub fn decide(by: Actor, request: &Request, namespaces: &Namespaces) -> Verdict {
    match judge(by, request, namespaces) {
        Ok(()) => Verdict::Allow,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

fn judge(by: Actor, request: &Request, namespaces: &Namespaces) -> Result<(), Refusal> {
    let may = |right: bool| {
        let is_allowed = right || by == Actor::Server;
        is_allowed.then_some(()).ok_or(Refusal::PermissionDenied)
    };
    match request {
        // Every client may connect, and a client may always end what it has.
        Request::Connect | Request::Unsubscribe { .. } => Ok(()),
        Request::Subscribe { channel, .. } => may(options_of(channel, namespaces)?.subscribe),
        Request::Publish { channel: None, .. } => Err(Refusal::NotSubscribed),
        Request::Publish { channel: Some(channel), .. } => {
            let id = namespace_of(channel, namespaces)?;
            may(namespaces.options(id).publish)?;
            if namespaces.is_own(id) { Err(Refusal::PermissionDenied) } else { Ok(()) }
        }
        Request::History { channel, .. } => {
            let options = options_of(channel, namespaces)?;
            may(options.history)?;
            has_history(options)
        }
        Request::HistoryRemove { channel } => {
            let options = options_of(channel, namespaces)?;
            may(false)?;
            has_history(options)
        }
        Request::Presence { channel, .. } => may(options_of(channel, namespaces)?.presence),
        Request::Channels { .. } => may(false),
        Request::Control { control, .. } => {
            may(false)?;
            match control {
                Control::Subscribe { channel, .. } | Control::Unsubscribe { channel } => {
                    options_of(channel, namespaces).map(drop)
                }
                Control::Disconnect(_) => Ok(()),
            }
        }
    }
}

fn options_of<'n>(
    channel: &ChannelName,
    namespaces: &'n Namespaces,
) -> Result<&'n ChannelOptions, Refusal> {
    Ok(namespaces.options(namespace_of(channel, namespaces)?))
}

fn namespace_of(channel: &ChannelName, namespaces: &Namespaces) -> Result<NamespaceId, Refusal> {
    namespaces.find(channel.as_str()).ok_or(Refusal::NamespaceUnknown)
}

fn has_history(options: &ChannelOptions) -> Result<(), Refusal> {
    if options.history_size == 0 { Err(Refusal::NotAvailable) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Allow, Refuse};
    use super::*;
    use crate::config::STATISTICS_CHANNEL;
    use crate::message::{
        ClientId, CloseReason, HistoryQuery, NodeId, Payload, PayloadKind, SessionId, WorkerId,
    };

    const DENIED: Verdict = Refuse(Refusal::PermissionDenied);

    /// A request of each kind that names this channel, by the name of its right.
    fn requests(channel: &str) -> [(&'static str, Request); 8] {
        let channel = ChannelName::new(channel).unwrap();
        let control = |control| {
            let session = SessionId { index: 0, generation: 1 };
            let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
            Request::Control { client, control }
        };
        let publish = Request::Publish {
            channel: Some(channel.clone()),
            payload: Payload::new(PayloadKind::Text, "x"),
            idempotency_key: None,
        };
        let query = HistoryQuery::default();
        let (subscribe, unsubscribe) = (
            Control::Subscribe { channel: channel.clone(), since: None },
            Control::Unsubscribe { channel: channel.clone() },
        );
        [
            (
                "subscribe",
                Request::Subscribe { channel: channel.clone(), since: None, needs_all: false },
            ),
            ("unsubscribe", Request::Unsubscribe { channel: channel.clone() }),
            ("publish", publish),
            ("history", Request::History { channel: channel.clone(), query }),
            ("history_remove", Request::HistoryRemove { channel: channel.clone() }),
            ("presence", Request::Presence { channel, list_max: 0 }),
            ("control", control(subscribe)),
            ("control", control(unsubscribe)),
        ]
    }

    /// Nothing is allowed, and a history is kept, but for what `set` changes.
    fn with(set: impl FnOnce(&mut ChannelOptions)) -> Namespaces {
        let mut options =
            ChannelOptions { subscribe: false, history_size: 1, ..ChannelOptions::closed() };
        set(&mut options);
        let mut namespaces = Namespaces::new(ChannelOptions::development());
        namespaces.add("a", options).unwrap();
        namespaces
    }

    #[test]
    fn clients_have_the_rights_of_the_channel_and_no_others() {
        type Set = fn(&mut ChannelOptions);
        let rights: [(&str, Set); 5] = [
            ("", |_| {}),
            ("subscribe", |options| options.subscribe = true),
            ("publish", |options| options.publish = true),
            ("history", |options| options.history = true),
            ("presence", |options| options.presence = true),
        ];
        for (right, set) in rights {
            let namespaces = with(set);
            for (name, request) in requests("a:1") {
                let is_allowed = name == right || name == "unsubscribe";
                let expected = if is_allowed { Allow } else { DENIED };
                assert_eq!(
                    decide(Actor::Client, &request, &namespaces),
                    expected,
                    "{right}: {name}"
                );
                assert_eq!(decide(Actor::Server, &request, &namespaces), Allow, "{right}: {name}");
            }
        }
    }

    #[test]
    fn a_history_that_is_not_kept_is_not_available_even_with_the_right() {
        let kept =
            |has_right| with(|options| (options.history_size, options.history) = (0, has_right));
        let not_available = Refuse(Refusal::NotAvailable);
        for (name, request) in requests("a:1") {
            let expected = match name {
                "history" | "history_remove" => not_available,
                _ => Allow,
            };
            assert_eq!(decide(Actor::Server, &request, &kept(false)), expected, "{name}");
            if name == "history" {
                assert_eq!(decide(Actor::Client, &request, &kept(true)), not_available);
                assert_eq!(decide(Actor::Client, &request, &kept(false)), DENIED);
            }
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
            assert_eq!(decide(Actor::Client, &request, &namespaces), client, "{name}");
            assert_eq!(decide(Actor::Server, &request, &namespaces), server, "{name}");
        }
    }

    #[test]
    fn nothing_is_published_to_the_servers_own_channels() {
        let mut namespaces = with(|_| {});
        namespaces.add_statistics();
        for (name, request) in requests(STATISTICS_CHANNEL) {
            if name == "publish" {
                assert_eq!(decide(Actor::Client, &request, &namespaces), DENIED);
                assert_eq!(decide(Actor::Server, &request, &namespaces), DENIED);
            } else if name == "subscribe" {
                assert_eq!(decide(Actor::Client, &request, &namespaces), Allow);
            }
        }
        namespaces.remove_statistics();
        for (name, request) in requests(STATISTICS_CHANNEL) {
            if name == "subscribe" {
                let unknown = Refuse(Refusal::NamespaceUnknown);
                assert_eq!(decide(Actor::Client, &request, &namespaces), unknown);
            }
        }
    }

    #[test]
    fn requests_without_a_channel_are_decided_too() {
        let namespaces = with(|_| {});
        let session = SessionId { index: 0, generation: 1 };
        let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
        let control = Control::Disconnect(CloseReason::Forced.into());
        for request in
            [Request::Channels { pattern: "".into() }, Request::Control { client, control }]
        {
            assert_eq!(decide(Actor::Client, &request, &namespaces), DENIED);
            assert_eq!(decide(Actor::Server, &request, &namespaces), Allow);
        }
        for by in [Actor::Client, Actor::Server] {
            assert_eq!(decide(by, &Request::Connect, &namespaces), Allow);
        }
        // A publication goes to the session's first channel: there is none.
        let payload = Payload::new(PayloadKind::Text, "x");
        let publish = Request::Publish { channel: None, payload, idempotency_key: None };
        for by in [Actor::Client, Actor::Server] {
            let expected = Refuse(Refusal::NotSubscribed);
            assert_eq!(decide(by, &publish, &namespaces), expected);
        }
    }
}
