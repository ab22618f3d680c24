//! Messages to clients, in Protobuf: replies to commands, and pushes.

use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;

use super::schema;
use crate::message::{
    BackendError, ChannelName, ClientInfo, Disconnect, Item, Payload, Position, Publication,
    Publications, ServerSubscription,
};
use crate::protocol::command::{Answer, Connected, Push, SERVER_VERSION, Sent, Subscribed};
use crate::protocol::fossil;

/// The replies that have publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// The recovered ones of a subscription.
    Subscription,
    /// A part of the history.
    History,
}

impl List {
    /// The field of the reply that its result is in, and that of the result that the publications are in.
    const fn fields(self) -> (u8, u8) {
        match self {
            List::Subscription => (6, 7),
            List::History => (11, 1),
        }
    }
}

/// Appends a message behind its length. `list` appends publications, as [`write_list`] does.
pub fn write_sent(
    out: &mut Vec<u8>,
    sent: &Sent<'_>,
    list: impl FnOnce(&mut Vec<u8>, List, &Publications),
) {
    match *sent {
        Sent::Ping => out.push(0),
        Sent::Reply(id, answer) => write_reply(out, id, answer, list),
        Sent::Push(channel, push) => write_push(out, channel, push),
        Sent::Disconnect(disconnect) => write_pushed(
            out,
            schema::Push { disconnect: Some(disconnect_of(disconnect)), ..schema::Push::default() },
        ),
    }
}

fn write_reply(
    out: &mut Vec<u8>,
    id: u32,
    answer: Answer<'_>,
    list: impl FnOnce(&mut Vec<u8>, List, &Publications),
) {
    let mut reply = schema::Reply { id, ..schema::Reply::default() };
    match answer {
        Answer::Refused(error, detail) => {
            let (code, temporary) = (error.code(), error.is_temporary());
            let message = error.text(detail).into_owned();
            reply.error = Some(schema::Error { code, message, temporary });
        }
        Answer::Rejected(BackendError { code, message, is_temporary }) => {
            let (code, message, temporary) = (*code, message.to_string(), *is_temporary);
            reply.error = Some(schema::Error { code, message, temporary });
        }
        Answer::Connected(connected) => reply.connect = Some(connect_result(connected)),
        Answer::Subscribed(subscribed, publications) => {
            let (result, kind) = (subscribe_result(subscribed, Vec::new()), List::Subscription);
            let publications = subscribed.recovered.map(|_| publications);
            return write_with_list(out, id, kind, &result, |out| {
                if let Some(publications) = publications {
                    list(out, kind, publications);
                }
            });
        }
        Answer::History(Position { epoch, offset }, publications) => {
            let epoch = epoch.to_string();
            let result = schema::HistoryResult { publications: Vec::new(), epoch, offset };
            let kind = List::History;
            return write_with_list(out, id, kind, &result, |out| list(out, kind, publications));
        }
        Answer::Unsubscribed => reply.unsubscribe = Some(schema::Empty {}),
        Answer::Published => reply.publish = Some(schema::Empty {}),
        Answer::Pinged => reply.ping = Some(schema::Empty {}),
        Answer::Presence(clients) => {
            let presence = clients.iter().map(|info| schema::PresentClient {
                client: info.client.to_string(),
                info: Some(client_info(info)),
            });
            reply.presence = Some(schema::PresenceResult { presence: presence.collect() });
        }
        Answer::PresenceStats { client_count, user_count } => {
            let (num_clients, num_users) = (saturated(client_count), saturated(user_count));
            reply.presence_stats = Some(schema::PresenceStatsResult { num_clients, num_users });
        }
        Answer::Returned(data) => {
            let data = data.map(|data| data.bytes.clone()).unwrap_or_default();
            reply.rpc = Some(schema::Data { data });
        }
        Answer::Refreshed { client, ttl_seconds } => {
            let (client, version) = (client.to_string(), SERVER_VERSION.to_owned());
            let (expires, ttl) = (ttl_seconds.is_some(), ttl(ttl_seconds));
            reply.refresh = Some(schema::RefreshResult { client, version, expires, ttl });
        }
        Answer::SubscriptionRefreshed { ttl_seconds } => {
            let (expires, ttl) = (ttl_seconds.is_some(), ttl(ttl_seconds));
            reply.sub_refresh = Some(schema::SubRefreshResult { expires, ttl });
        }
    }
    write_message(out, &reply);
}

/// Appends what is pushed to a client about a channel, behind its length.
pub fn write_push(out: &mut Vec<u8>, channel: &ChannelName, push: Push<'_>) {
    let channel = channel.as_str().to_owned();
    let mut pushed = schema::Push { channel, ..schema::Push::default() };
    let of_client = |info: &ClientInfo| Some(schema::OfClient { info: Some(client_info(info)) });
    match push {
        Push::Delta(it, before) => pushed.publication = Some(delta_of(it, before)),
        Push::Publication(it) => pushed.publication = Some(publication(it)),
        Push::Item(Item::Publication(it)) => pushed.publication = Some(publication(it)),
        Push::Item(Item::Joined(info)) => pushed.join = of_client(info),
        Push::Item(Item::Left(info)) => pushed.leave = of_client(info),
        Push::Item(Item::Gap(dropped)) => pushed.gap = Some(schema::Gap { dropped: *dropped }),
        Push::Subscribed(subscribed) => {
            let Position { epoch, offset } = subscribed.position;
            pushed.subscribe = Some(schema::Subscribe {
                recoverable: subscribed.is_recoverable,
                epoch: epoch.to_string(),
                offset,
                positioned: true,
                data: subscribed.data.map(Bytes::copy_from_slice).unwrap_or_default(),
            });
        }
        Push::Unsubscribed(reason) => {
            let (code, reason) = (reason.code(), reason.text().to_owned());
            pushed.unsubscribe = Some(schema::Unsubscribe { code, reason });
        }
    }
    write_pushed(out, pushed);
}

/// Appends publications as they are in a reply.
pub fn write_list(out: &mut Vec<u8>, list: List, publications: &[Arc<Publication>]) {
    publications.iter().for_each(|it| write_listed(out, list, &publication(it)));
}

/// Appends publications as they are in a reply to a subscriber that takes deltas: the first one whole, the others as
/// deltas from the one before. No delta is made of a payload of more than `bytes_max` bytes.
pub fn write_delta_list(
    out: &mut Vec<u8>,
    list: List,
    publications: &[Arc<Publication>],
    bytes_max: usize,
) {
    in_deltas(publications, bytes_max).for_each(|it| write_listed(out, list, &it));
}

fn in_deltas(
    publications: &[Arc<Publication>],
    bytes_max: usize,
) -> impl Iterator<Item = schema::Publication> {
    let mut before: Option<&Payload> = None;
    publications.iter().map(move |it| {
        let is_short = |of: &Payload| of.bytes.len() <= bytes_max;
        let source = before.filter(|before| is_short(before) && is_short(&it.payload));
        before = Some(&it.payload);
        delta_of(it, source)
    })
}

/// A publication, with a delta from the payload before it if that is known and the delta is shorter.
fn delta_of(it: &Publication, before: Option<&Payload>) -> schema::Publication {
    let whole = publication(it);
    let mut delta = Vec::new();
    let make = |before: &Payload| fossil::write_delta(&mut delta, &before.bytes, &whole.data);
    if it.payload.is_delta_allowed && before.is_some_and(make) {
        return schema::Publication { data: delta.into(), delta: true, ..whole };
    }
    whole
}

fn write_listed(out: &mut Vec<u8>, list: List, publication: &schema::Publication) {
    let (_, field) = list.fields();
    out.push(key(field));
    write_message(out, publication);
}

fn write_pushed(out: &mut Vec<u8>, push: schema::Push) {
    write_message(out, &schema::Reply { push: Some(push), ..schema::Reply::default() });
}

fn write_message(out: &mut Vec<u8>, message: &impl Message) {
    message.encode_length_delimited(out).expect("memory takes whatever is written");
}

/// Appends a reply whose result ends in publications: fields may come in any order, and these may be encoded already.
fn write_with_list(
    out: &mut Vec<u8>,
    id: u32,
    list: List,
    result: &impl Message,
    write_publications: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    write_publications(out);
    let list_len = out.len() - start;
    let (field, _) = list.fields();
    let mut head = schema::Reply { id, ..schema::Reply::default() }.encode_to_vec();
    head.push(key(field));
    write_length(&mut head, result.encoded_len() + list_len);
    result.encode(&mut head).expect("memory takes whatever is written");
    let mut prefix = Vec::with_capacity(head.len() + LENGTH_BYTES_MAX);
    write_length(&mut prefix, head.len() + list_len);
    prefix.append(&mut head);
    out.splice(start..start, prefix);
}

fn write_length(out: &mut Vec<u8>, len: usize) {
    prost::encode_length_delimiter(len, out).expect("memory takes whatever is written");
}

/// The key of a field whose value follows its length.
const fn key(field: u8) -> u8 {
    field << 3 | 2
}

/// A varint of 64 bits.
const LENGTH_BYTES_MAX: usize = 10;

fn connect_result(connected: &Connected<'_>) -> schema::ConnectResult {
    let Connected { client, session, ping_seconds, wants_pong, welcome, delta_bytes_max } =
        connected;
    let subs = welcome.subscriptions.iter();
    schema::ConnectResult {
        client: client.to_string(),
        version: SERVER_VERSION.to_owned(),
        expires: welcome.ttl_seconds.is_some(),
        ttl: ttl(welcome.ttl_seconds),
        data: welcome.data.clone().unwrap_or_default(),
        subs: subs.map(|it| server_subscription(it, *delta_bytes_max)).collect(),
        ping: saturated(*ping_seconds),
        pong: *wants_pong,
        session: session.map_or_else(|| client.to_string(), str::to_owned),
        node: session.map_or_else(String::new, |_| client.node.to_string()),
    }
}

fn server_subscription(
    subscription: &ServerSubscription,
    delta_bytes_max: usize,
) -> schema::ConnectResultSub {
    let (subscribed, missed) = Subscribed::by_server(subscription);
    let publications = match subscribed.delta {
        true => in_deltas(missed, delta_bytes_max).collect(),
        false => missed.iter().map(|it| publication(it)).collect(),
    };
    schema::ConnectResultSub {
        channel: subscription.channel.as_str().to_owned(),
        result: Some(subscribe_result(&subscribed, publications)),
    }
}

fn subscribe_result(
    subscribed: &Subscribed<'_>,
    publications: Vec<schema::Publication>,
) -> schema::SubscribeResult {
    let Position { epoch, offset } = subscribed.position;
    schema::SubscribeResult {
        expires: subscribed.ttl_seconds.is_some(),
        ttl: ttl(subscribed.ttl_seconds),
        recoverable: subscribed.is_recoverable,
        epoch: epoch.to_string(),
        publications,
        recovered: subscribed.recovered == Some(true),
        offset,
        positioned: true,
        data: subscribed.data.map(Bytes::copy_from_slice).unwrap_or_default(),
        was_recovering: subscribed.recovered.is_some(),
        delta: subscribed.delta,
    }
}

fn publication(publication: &Publication) -> schema::Publication {
    let Payload { bytes, tags, .. } = &publication.payload;
    let tags = tags.iter().flat_map(|tags| tags.iter());
    schema::Publication {
        data: bytes.clone(),
        info: publication.info.as_deref().map(client_info),
        offset: if publication.in_stream { publication.position.offset } else { 0 },
        tags: tags
            .map(|(name, text)| schema::Tag { name: name.to_owned(), text: text.to_owned() })
            .collect(),
        delta: false,
    }
}

fn client_info(info: &ClientInfo) -> schema::ClientInfo {
    schema::ClientInfo {
        user: info.user.as_deref().unwrap_or_default().to_owned(),
        client: info.client.to_string(),
        conn_info: info.conn_info.clone().unwrap_or_default(),
        chan_info: info.chan_info.clone().unwrap_or_default(),
    }
}

fn disconnect_of(disconnect: &Disconnect) -> schema::Disconnect {
    schema::Disconnect {
        code: disconnect.disconnect_code().into(),
        reason: disconnect.text().to_owned(),
    }
}

/// 32 bits of seconds are 136 years.
fn ttl(seconds: Option<u64>) -> u32 {
    saturated(seconds.unwrap_or(0))
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
