//! Clients that connect, and the subscriptions that the server makes for them before their `connect` is replied to.
//!
//! These subscriptions are made one after the other, so that no client has more than one recovery under way, and the
//! answers are put together in one reply.

use std::collections::HashMap;
use std::vec::IntoIter;

use crate::config::limits::PUBLICATION_BYTES;
use crate::message::{
    ChannelName, Recovery, Refusal, Reply, Request, RequestId, ServerSubscription, SessionId,
    SubscriptionForm, SubscriptionOptions, SubscriptionWish, Welcome,
};

/// Clients whose `connect` is not replied to yet.
#[derive(Debug, Default)]
pub(super) struct Logins {
    connecting: HashMap<SessionId, Connecting>,
    /// Bytes of the publications that their replies will have.
    bytes: usize,
}

/// A client that the server subscribes to channels.
#[derive(Debug)]
struct Connecting {
    /// The request to connect.
    id: RequestId,
    welcome: Box<Welcome>,
    /// The channel whose answer is awaited.
    current: Wish,
    left: IntoIter<Wish>,
    /// Bytes of the publications in `welcome`.
    bytes: usize,
}

/// A channel that the server subscribes a client to.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub channel: ChannelName,
    /// What the client asks for.
    pub asked: SubscriptionWish,
    pub options: SubscriptionOptions,
}

/// What follows a step.
#[derive(Debug)]
pub(super) enum Next {
    /// The server subscribes the client to the next channel.
    Subscribe(Request),
    /// The reply to `connect`.
    Reply(RequestId, Reply),
}

impl Logins {
    /// Whether no reply is awaited.
    pub fn is_idle(&self) -> bool {
        self.connecting.is_empty()
    }

    /// Bytes of what is gathered here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A client is let in, and is to be subscribed to channels before the reply.
    pub fn begin(
        &mut self,
        session: SessionId,
        id: RequestId,
        welcome: Box<Welcome>,
        wishes: Vec<Wish>,
    ) -> Next {
        let mut left = wishes.into_iter();
        let Some(current) = left.next() else {
            return Next::Reply(id, Reply::Connected(welcome));
        };
        let request = current.request(true);
        self.connecting.insert(session, Connecting { id, welcome, current, left, bytes: 0 });
        Next::Subscribe(request)
    }

    /// Takes the answer to the subscription that a client waits for. Bytes beyond `bytes_max` are not recovered. `None`
    /// if the client does not wait.
    pub fn take(&mut self, session: SessionId, reply: &Reply, bytes_max: usize) -> Option<Next> {
        let connecting = self.connecting.get_mut(&session)?;
        match reply {
            Reply::Refused(refusal) => return self.refuse(session, *refusal),
            Reply::Subscribed { channel, position, recoverable, recovery, delta, .. } => {
                let wanted = connecting.current.asked.since.is_some();
                let recovery = match recovery {
                    None if wanted => Some(Recovery::impossible()),
                    recovery => recovery.clone(),
                };
                let bytes = recovery.as_ref().map_or(0, bytes_of);
                connecting.bytes += bytes;
                self.bytes += bytes;
                connecting.welcome.subscriptions.push(ServerSubscription {
                    channel: channel.clone(),
                    position: *position,
                    recoverable: *recoverable,
                    recovery,
                    delta: *delta,
                    data: connecting.current.options.data.take(),
                });
            }
            _ => return None,
        }
        match connecting.left.next() {
            Some(wish) => {
                let request = wish.request(connecting.bytes < bytes_max);
                connecting.current = wish;
                Some(Next::Subscribe(request))
            }
            None => {
                let Connecting { id, welcome, .. } = self.end(session)?;
                Some(Next::Reply(id, Reply::Connected(welcome)))
            }
        }
    }

    /// A client is not let in after all.
    fn refuse(&mut self, session: SessionId, refusal: Refusal) -> Option<Next> {
        let Connecting { id, .. } = self.end(session)?;
        Some(Next::Reply(id, Reply::Refused(refusal)))
    }

    /// The session of a client ends, or its `connect` is replied to.
    pub fn forget(&mut self, session: SessionId) {
        if !self.connecting.is_empty() {
            self.end(session);
        }
    }

    fn end(&mut self, session: SessionId) -> Option<Connecting> {
        let connecting = self.connecting.remove(&session)?;
        self.bytes -= connecting.bytes;
        Some(connecting)
    }
}

impl Wish {
    fn request(&self, recovers: bool) -> Request {
        let Self { channel, asked, options } = self.clone();
        let SubscriptionWish { since, takes_deltas } = asked;
        Request::Subscribe {
            channel,
            since: since.filter(|_| recovers),
            needs_all: false,
            token: None,
            form: SubscriptionForm { takes_deltas, ..SubscriptionForm::default() },
            options: (options != SubscriptionOptions::default()).then(|| Box::new(options)),
        }
    }
}

fn bytes_of(recovery: &Recovery) -> usize {
    let publications = recovery.publications.iter();
    publications.map(|it| it.heap_bytes() + PUBLICATION_BYTES as usize).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{Epoch, Origin, Payload, PayloadKind, Position, Publication, Ticket};

    const SESSION: SessionId = SessionId { index: 1, generation: 2 };
    const CONNECT: RequestId = RequestId { serial: 7, origin: Origin::Client(Ticket::FIRST) };

    fn wish(name: &str, since: Option<u64>) -> Wish {
        let channel = ChannelName::new(name).unwrap();
        let since = since.map(|offset| Position { epoch: Epoch(1), offset });
        let asked = SubscriptionWish { since, takes_deltas: false };
        Wish { channel, asked, options: SubscriptionOptions::default() }
    }

    fn subscribed(name: &str, publications: usize) -> Reply {
        let channel = ChannelName::new(name).unwrap();
        let position = Position { epoch: Epoch(1), offset: 9 };
        let publication = Arc::new(Publication {
            channel: channel.clone(),
            position,
            payload: Payload::new(PayloadKind::Text, "x".repeat(100)),
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        });
        let recovery = (publications > 0).then(|| Recovery {
            publications: vec![publication; publications].into(),
            ..Recovery::of_nothing()
        });
        Reply::Subscribed {
            channel,
            position,
            recoverable: true,
            recovery,
            delta: false,
            options: None,
        }
    }

    #[track_caller]
    fn since(next: Option<Next>) -> Option<Position> {
        match next {
            Some(Next::Subscribe(Request::Subscribe { since, .. })) => since,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_is_connected_once_all_its_subscriptions_are_made() {
        let mut logins = Logins::default();
        let next = logins.begin(SESSION, CONNECT, Box::default(), Vec::new());
        assert!(matches!(next, Next::Reply(CONNECT, Reply::Connected(_))));
        assert!(logins.is_idle());
        let wishes = vec![wish("a", None), wish("b", Some(3)), wish("c", Some(4))];
        assert_eq!(since(Some(logins.begin(SESSION, CONNECT, Box::default(), wishes))), None);
        assert!(since(logins.take(SESSION, &subscribed("a", 0), 1000)).is_some());
        // What was recovered is as much as one reply may have: the client of the last one starts anew.
        assert_eq!(since(logins.take(SESSION, &subscribed("b", 10), 1000)), None);
        assert!(logins.bytes() > 1000);
        let Some(Next::Reply(CONNECT, Reply::Connected(welcome))) =
            logins.take(SESSION, &subscribed("c", 0), 1000)
        else {
            panic!()
        };
        let recovered: Vec<_> = welcome
            .subscriptions
            .iter()
            .map(|it| (it.channel.as_str(), it.recovery.as_ref().map(|it| it.is_complete)))
            .collect();
        assert_eq!(recovered, [("a", None), ("b", Some(true)), ("c", Some(false))]);
        assert!(logins.is_idle() && logins.bytes() == 0);
        assert!(logins.take(SESSION, &subscribed("c", 0), 1000).is_none());
    }

    #[test]
    fn a_client_that_is_refused_one_of_them_is_not_connected() {
        let mut logins = Logins::default();
        let wishes = vec![wish("a", Some(1)), wish("b", None), wish("c", None)];
        logins.begin(SESSION, CONNECT, Box::default(), wishes);
        logins.take(SESSION, &subscribed("a", 3), 1000);
        assert!(logins.bytes() > 300);
        let refused = Reply::Refused(Refusal::NamespaceUnknown);
        let next = logins.take(SESSION, &refused, 1000);
        assert!(matches!(next, Some(Next::Reply(CONNECT, reply)) if reply == refused));
        assert!(logins.is_idle() && logins.bytes() == 0);
    }
}
