//! Messages to clients: replies to commands, and pushes. A reply carries the id of its command, unless the command has
//! none.

use serde::Serialize;

use super::delta::{write_delta_item, write_delta_items};
use super::{put, write_client_info, write_data, write_item, write_items, write_json, write_line};
use crate::message::{
    BackendError, ChannelName, ClientId, ClientInfo, Disconnect, Item, Payload, Position,
    Publications, ServerSubscription, Welcome,
};
use crate::protocol::command::{
    Answer, CommandError, Connected, Push, SERVER_VERSION, Sent, Subscribed, UnsubscribeReason,
};

/// Appends a message. `list` appends publications as an array.
pub fn write_sent(
    out: &mut Vec<u8>,
    sent: &Sent<'_>,
    list: impl FnOnce(&mut Vec<u8>, &Publications),
) {
    match *sent {
        Sent::Ping => out.extend_from_slice(b"{}"),
        Sent::Reply(id, answer) => write_reply(out, id, answer, list),
        Sent::Push(channel, push) => write_push(out, channel, push),
        Sent::Disconnect(disconnect) => write_disconnect(out, disconnect),
    }
}

fn write_reply(
    out: &mut Vec<u8>,
    id: u32,
    answer: Answer<'_>,
    list: impl FnOnce(&mut Vec<u8>, &Publications),
) {
    match answer {
        Answer::Refused(error, detail) => write_error(out, id, error, detail),
        Answer::Rejected(error) => write_backend_error(out, id, error),
        Answer::Connected(connected) => write_connected(out, id, connected),
        Answer::Subscribed(subscribed, publications) => {
            write_subscribed(out, id, subscribed, |out| list(out, publications));
        }
        Answer::Unsubscribed => write_done(out, id, "unsubscribe"),
        Answer::Published => write_done(out, id, "publish"),
        Answer::Pinged => write_done(out, id, "ping"),
        Answer::History(position, publications) => {
            write_history(out, id, position, |out| list(out, publications));
        }
        Answer::Presence(clients) => write_presence(out, id, clients),
        Answer::PresenceStats { client_count, user_count } => {
            write_presence_stats(out, id, client_count, user_count);
        }
        Answer::Returned(data) => write_returned(out, id, data),
        Answer::Refreshed { client, ttl_seconds } => write_refreshed(out, id, client, ttl_seconds),
        Answer::SubscriptionRefreshed { ttl_seconds } => {
            write_sub_refreshed(out, id, ttl_seconds);
        }
    }
}

/// Appends what is pushed to a client about a channel.
pub fn write_push(out: &mut Vec<u8>, channel: &ChannelName, push: Push<'_>) {
    out.extend_from_slice(b"{\"push\":");
    write_bare_push(out, channel, push);
    out.push(b'}');
}

/// Appends a message to a client that is sent pushes and nothing else, each of which is the whole message. `connect` is
/// its only command, so that it is sent no other reply.
pub fn write_sent_bare(out: &mut Vec<u8>, sent: &Sent<'_>) {
    match *sent {
        Sent::Reply(_, Answer::Connected(connected)) => write_connected(out, 0, connected),
        Sent::Push(channel, push) => write_bare_push(out, channel, push),
        Sent::Disconnect(disconnect) => write_bare_disconnect(out, disconnect),
        Sent::Ping | Sent::Reply(..) => out.extend_from_slice(b"{}"),
    }
}

/// Appends what is pushed to such a client about a channel. In a publication, JSON is embedded as it is, other text as
/// a string, binary as base64.
pub fn write_bare_push(out: &mut Vec<u8>, channel: &ChannelName, push: Push<'_>) {
    let member = match push {
        Push::Publication(_) | Push::Item(Item::Publication(_)) | Push::Delta(..) => "pub",
        Push::Item(Item::Joined(_)) => "join",
        Push::Item(Item::Left(_)) => "leave",
        Push::Item(Item::Gap(_)) => "gap",
        Push::Subscribed(_) => "subscribe",
        Push::Unsubscribed(_) => "unsubscribe",
    };
    out.extend_from_slice(b"{\"channel\":");
    write_json(out, channel.as_str());
    out.extend_from_slice(b",\"");
    out.extend_from_slice(member.as_bytes());
    out.extend_from_slice(b"\":");
    match push {
        Push::Publication(publication) => write_item(out, publication),
        Push::Item(Item::Publication(publication)) => write_item(out, publication),
        Push::Delta(publication, before) => write_delta_item(out, publication, before),
        Push::Item(Item::Joined(info) | Item::Left(info)) => {
            out.extend_from_slice(b"{\"info\":");
            write_client_info(out, info);
            out.push(b'}');
        }
        Push::Item(Item::Gap(dropped)) => put(out, format_args!("{{\"dropped\":{dropped}}}")),
        Push::Subscribed(subscribed) => {
            write_subscribed_members(out, subscribed);
            out.push(b'}');
        }
        Push::Unsubscribed(reason) => write_unsubscribed(out, reason),
    }
    out.push(b'}');
}

fn write_unsubscribed(out: &mut Vec<u8>, reason: UnsubscribeReason) {
    let (code, text) = (reason.code(), reason.text());
    put(out, format_args!("{{\"code\":{code},\"reason\":\"{text}\"}}"));
}

/// Appends an error reply; `detail` is appended to the code's message.
fn write_error(out: &mut Vec<u8>, id: u32, error: CommandError, detail: Option<&str>) {
    write_error_of(out, id, error.code(), &error.text(detail), error.is_temporary());
}

/// Appends the error of a backend.
fn write_backend_error(out: &mut Vec<u8>, id: u32, error: &BackendError) {
    write_error_of(out, id, error.code, &error.message, error.is_temporary);
}

fn write_error_of(out: &mut Vec<u8>, id: u32, code: u32, message: &str, is_temporary: bool) {
    #[derive(Serialize)]
    struct Body<'a> {
        code: u32,
        message: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        temporary: bool,
    }
    begin(out, id, "error");
    write_json(out, &Body { code, message, temporary: is_temporary });
    out.push(b'}');
}

/// Appends the reply to `rpc`.
fn write_returned(out: &mut Vec<u8>, id: u32, data: Option<&Payload>) {
    begin(out, id, "rpc");
    out.push(b'{');
    if let Some(data) = data {
        out.extend_from_slice(b"\"data\":");
        write_data(out, data);
    }
    out.extend_from_slice(b"}}");
}

/// Appends the reply to `connect`.
fn write_connected(out: &mut Vec<u8>, id: u32, connected: &Connected<'_>) {
    let Connected { client, session, ping_seconds, wants_pong, welcome, delta_bytes_max } =
        connected;
    let Welcome { ttl_seconds, data, subscriptions } = welcome;
    begin(out, id, "connect");
    put(
        out,
        format_args!("{{\"client\":\"{client}\",\"version\":\"{SERVER_VERSION}\",\"session\":"),
    );
    match session {
        Some(session) => put(out, format_args!("\"{session}\",\"node\":\"{}\"", client.node)),
        None => put(out, format_args!("\"{client}\"")),
    }
    put(out, format_args!(",\"ping\":{ping_seconds}"));
    if *wants_pong {
        out.extend_from_slice(b",\"pong\":true");
    }
    if ttl_seconds.is_some() {
        out.push(b',');
        write_ttl(out, *ttl_seconds);
    }
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        write_line(out, data);
    }
    for (index, subscription) in subscriptions.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b",\"subs\":{" } else { b"," });
        write_server_subscription(out, subscription, *delta_bytes_max);
    }
    out.extend_from_slice(if subscriptions.is_empty() { b"}}" } else { b"}}}" });
}

fn write_server_subscription(
    out: &mut Vec<u8>,
    subscription: &ServerSubscription,
    delta_bytes_max: usize,
) {
    let (subscribed, publications) = Subscribed::by_server(subscription);
    write_json(out, subscription.channel.as_str());
    out.push(b':');
    write_subscribed_members(out, &subscribed);
    write_recovered(out, &subscribed, |out| match subscribed.delta {
        true => write_delta_items(out, publications, delta_bytes_max),
        false => write_items(out, publications),
    });
    out.push(b'}');
}

/// Appends the reply to `refresh`.
fn write_refreshed(out: &mut Vec<u8>, id: u32, client: ClientId, ttl_seconds: Option<u64>) {
    begin(out, id, "refresh");
    put(out, format_args!("{{\"client\":\"{client}\",\"version\":\"{SERVER_VERSION}\","));
    write_ttl(out, ttl_seconds);
    out.extend_from_slice(b"}}");
}

/// Appends the reply to `sub_refresh`.
fn write_sub_refreshed(out: &mut Vec<u8>, id: u32, ttl_seconds: Option<u64>) {
    begin(out, id, "sub_refresh");
    out.push(b'{');
    write_ttl(out, ttl_seconds);
    out.extend_from_slice(b"}}");
}

/// Appends the members that say whether something expires, and when.
/// Clients read 32 bits, which are 136 years.
fn write_ttl(out: &mut Vec<u8>, ttl_seconds: Option<u64>) {
    match ttl_seconds.map(|ttl| ttl.min(u32::MAX.into())) {
        Some(ttl) => put(out, format_args!("\"expires\":true,\"ttl\":{ttl}")),
        None => out.extend_from_slice(b"\"expires\":false"),
    }
}

/// Appends the reply to `subscribe`. `publications` appends the recovered publications, as an array.
fn write_subscribed(
    out: &mut Vec<u8>,
    id: u32,
    subscribed: &Subscribed<'_>,
    publications: impl FnOnce(&mut Vec<u8>),
) {
    begin(out, id, "subscribe");
    write_subscribed_members(out, subscribed);
    write_recovered(out, subscribed, publications);
    out.extend_from_slice(b"}}");
}

fn write_recovered(
    out: &mut Vec<u8>,
    subscribed: &Subscribed<'_>,
    publications: impl FnOnce(&mut Vec<u8>),
) {
    if let Some(recovered) = subscribed.recovered {
        put(
            out,
            format_args!(",\"was_recovering\":true,\"recovered\":{recovered},\"publications\":"),
        );
        publications(out);
    }
}

fn write_subscribed_members(out: &mut Vec<u8>, subscribed: &Subscribed<'_>) {
    let Position { epoch, offset } = subscribed.position;
    let is_recoverable = subscribed.is_recoverable;
    put(
        out,
        format_args!(
            "{{\"recoverable\":{is_recoverable},\"epoch\":\"{epoch}\",\"offset\":{offset},\
             \"positioned\":true"
        ),
    );
    if subscribed.ttl_seconds.is_some() {
        out.push(b',');
        write_ttl(out, subscribed.ttl_seconds);
    }
    if let Some(data) = subscribed.data {
        out.extend_from_slice(b",\"data\":");
        write_line(out, data);
    }
    if subscribed.delta {
        out.extend_from_slice(b",\"delta\":true");
    }
}

/// Appends the reply to `history`. `publications` appends the publications, as an array.
fn write_history(
    out: &mut Vec<u8>,
    id: u32,
    position: Position,
    publications: impl FnOnce(&mut Vec<u8>),
) {
    let Position { epoch, offset } = position;
    begin(out, id, "history");
    out.extend_from_slice(b"{\"publications\":");
    publications(out);
    put(out, format_args!(",\"epoch\":\"{epoch}\",\"offset\":{offset}}}}}"));
}

/// Appends the reply to `presence`.
fn write_presence(out: &mut Vec<u8>, id: u32, clients: &[ClientInfo]) {
    begin(out, id, "presence");
    out.extend_from_slice(b"{\"presence\":{");
    for (index, info) in clients.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        put(out, format_args!("{comma}\"{}\":", info.client));
        write_client_info(out, info);
    }
    out.extend_from_slice(b"}}}");
}

/// Appends the reply to `presence_stats`.
fn write_presence_stats(out: &mut Vec<u8>, id: u32, client_count: u64, user_count: u64) {
    begin(out, id, "presence_stats");
    put(out, format_args!("{{\"num_clients\":{client_count},\"num_users\":{user_count}}}}}"));
}

/// Appends the reply to a method whose result is empty.
fn write_done(out: &mut Vec<u8>, id: u32, method: &str) {
    begin(out, id, method);
    out.extend_from_slice(b"{}}");
}

/// Appends the push that announces the end of the connection.
fn write_disconnect(out: &mut Vec<u8>, disconnect: &Disconnect) {
    out.extend_from_slice(b"{\"push\":");
    write_bare_disconnect(out, disconnect);
    out.push(b'}');
}

fn write_bare_disconnect(out: &mut Vec<u8>, disconnect: &Disconnect) {
    let code = disconnect.disconnect_code();
    put(out, format_args!("{{\"disconnect\":{{\"code\":{code},\"reason\":"));
    write_json(out, disconnect.text());
    out.extend_from_slice(b"}}");
}

/// Appends the beginning of a reply, up to the value of its method's member.
fn begin(out: &mut Vec<u8>, id: u32, method: &str) {
    match id {
        0 => put(out, format_args!("{{\"{method}\":")),
        id => put(out, format_args!("{{\"id\":{id},\"{method}\":")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::message::{
        CloseReason, Epoch, NodeId, Payload, PayloadKind, Publication, Recovery, SessionId,
        WorkerId,
    };

    const CLIENT: ClientId = ClientId {
        node: NodeId::new(3),
        worker: WorkerId(0),
        session: SessionId { index: 1, generation: 2 },
    };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice(&out).expect("a reply is JSON")
    }

    fn subscribed(recovered: Option<bool>) -> Subscribed<'static> {
        let position = Position { epoch: Epoch(255), offset: 9 };
        Subscribed {
            position,
            is_recoverable: true,
            recovered,
            ttl_seconds: None,
            data: None,
            delta: false,
        }
    }

    #[test]
    fn the_reply_to_connect_has_a_client_id_and_the_ping_interval() {
        let mut connected = Connected {
            client: CLIENT,
            session: None,
            ping_seconds: 25,
            wants_pong: true,
            welcome: &Welcome::default(),
            delta_bytes_max: 100,
        };
        let reply = written(|out| write_connected(out, 1, &connected));
        let version = reply["connect"]["version"].clone();
        assert!(version.as_str().is_some_and(|text| text.starts_with("fantail ")));
        let id = "00000000-0003-8000-8000-000100000002";
        let body =
            json!({"client": id, "session": id, "version": version, "ping": 25, "pong": true});
        assert_eq!(reply, json!({"id": 1, "connect": body}));
        connected.session = Some("s");
        let reply = written(|out| write_connected(out, 1, &connected));
        let names = (&reply["connect"]["session"], &reply["connect"]["node"]);
        assert_eq!(names, (&json!("s"), &json!("00000000-0003")));
        connected.wants_pong = false;
        let reply = written(|out| write_connected(out, 0, &connected));
        assert_eq!(reply["connect"].get("pong"), None);
        assert_eq!(reply.get("id"), None);
        let reply = written(|out| write_refreshed(out, 3, CLIENT, None));
        let body = json!({"client": id, "version": version, "expires": false});
        assert_eq!(reply, json!({"id": 3, "refresh": body}));
        let reply = written(|out| write_refreshed(out, 3, CLIENT, Some(60)));
        let body = json!({"client": id, "version": version, "expires": true, "ttl": 60});
        assert_eq!(reply, json!({"id": 3, "refresh": body}));
    }

    #[test]
    fn the_reply_to_connect_has_what_the_server_subscribed_the_client_to() {
        let publication = |offset| {
            std::sync::Arc::new(Publication {
                channel: ChannelName::new("b").unwrap(),
                position: Position { epoch: Epoch(255), offset },
                payload: Payload::new(PayloadKind::Json, offset.to_string()),
                info: None,
                accepted_us: 0,
                excludes: None,
                in_stream: true,
            })
        };
        let subscription = |name, recovery, data: Option<&'static [u8]>| ServerSubscription {
            channel: ChannelName::new(name).unwrap(),
            position: Position { epoch: Epoch(255), offset: 9 },
            recoverable: true,
            recovery,
            delta: false,
            data: data.map(Bytes::from_static),
        };
        let missed =
            Recovery { publications: (8..=9).map(publication).collect(), ..Recovery::of_nothing() };
        let welcome = Welcome {
            ttl_seconds: Some(60),
            data: Some(Bytes::from_static(b"{\"x\":\n1}")),
            subscriptions: vec![
                subscription("a\"", None, Some(b"[1]")),
                subscription("b", Some(missed), None),
                subscription("c", Some(Recovery::impossible()), None),
            ],
        };
        let connected = Connected {
            client: CLIENT,
            session: None,
            ping_seconds: 25,
            wants_pong: false,
            welcome: &welcome,
            delta_bytes_max: 100,
        };
        let reply = written(|out| write_connected(out, 1, &connected));
        let body = |offset: u64, more: Value| {
            let mut body = json!({"recoverable": true, "epoch": "000000ff", "offset": offset, "positioned": true});
            body.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
            body
        };
        let items = json!([{"data": 8, "offset": 8}, {"data": 9, "offset": 9}]);
        let (recovered, lost) = (
            json!({"was_recovering": true, "recovered": true, "publications": items}),
            json!({"was_recovering": true, "recovered": false, "publications": []}),
        );
        let subs = json!({
            "a\"": body(9, json!({"data": [1]})),
            "b": body(7, recovered),
            "c": body(9, lost),
        });
        let reply = &reply["connect"];
        assert_eq!(reply["subs"], subs);
        assert_eq!((&reply["expires"], &reply["ttl"]), (&json!(true), &json!(60)));
        assert_eq!(reply["data"], json!({"x": 1}));
    }

    #[test]
    fn the_reply_to_subscribe_says_whether_recovery_was_complete() {
        let reply = written(|out| {
            write_subscribed(out, 2, &subscribed(None), |_| panic!("nothing was asked for"));
        });
        let body =
            json!({"recoverable": true, "epoch": "000000ff", "offset": 9, "positioned": true});
        assert_eq!(reply, json!({"id": 2, "subscribe": body}));
        let detailed = Subscribed { ttl_seconds: Some(9), data: Some(b"[1]"), ..subscribed(None) };
        let reply = written(|out| write_subscribed(out, 2, &detailed, |_| {}));
        assert_eq!(reply["subscribe"]["expires"], true);
        assert_eq!(
            (&reply["subscribe"]["ttl"], &reply["subscribe"]["data"]),
            (&json!(9), &json!([1]))
        );
        for recovered in [true, false] {
            let reply = written(|out| {
                write_subscribed(out, 2, &subscribed(Some(recovered)), |out| {
                    out.extend_from_slice(b"[1]");
                });
            });
            assert_eq!(reply["subscribe"]["was_recovering"], true);
            assert_eq!(reply["subscribe"]["recovered"], recovered);
            assert_eq!(reply["subscribe"]["publications"], json!([1]));
        }
    }

    #[test]
    fn changes_by_the_server_are_pushes() {
        let channel = ChannelName::new("a\"b").unwrap();
        let push = written(|out| write_push(out, &channel, Push::Subscribed(&subscribed(None))));
        let body =
            json!({"recoverable": true, "epoch": "000000ff", "offset": 9, "positioned": true});
        assert_eq!(push, json!({"push": {"channel": "a\"b", "subscribe": body}}));
        let push =
            written(|out| write_push(out, &channel, Push::Unsubscribed(UnsubscribeReason::Server)));
        let body = json!({"code": 2000, "reason": "server unsubscribe"});
        assert_eq!(push, json!({"push": {"channel": "a\"b", "unsubscribe": body}}));
        let push = written(|out| {
            write_push(out, &channel, Push::Unsubscribed(UnsubscribeReason::InsufficientState))
        });
        let body = json!({"code": 2500, "reason": "insufficient state"});
        assert_eq!(push, json!({"push": {"channel": "a\"b", "unsubscribe": body}}));
        let push = written(|out| write_disconnect(out, &CloseReason::Shutdown.into()));
        let body = json!({"code": 3001, "reason": "shutdown"});
        assert_eq!(push, json!({"push": {"disconnect": body}}));
    }

    #[test]
    fn presence_lists_clients_or_counts_them() {
        let presence = |clients: &[ClientInfo]| written(|out| write_presence(out, 5, clients));
        assert_eq!(presence(&[]), json!({"id": 5, "presence": {"presence": {}}}));
        let other = ClientInfo {
            client: ClientId { worker: WorkerId(1), ..CLIENT },
            user: Some("a\"b".into()),
            conn_info: Some(Bytes::from_static(b"{\"name\":\n\"A\"}")),
            chan_info: Some(Bytes::from_static(b"7")),
        };
        let (one, two) =
            ("00000000-0003-8000-8000-000100000002", "00000000-0003-8001-8000-000100000002");
        let clients = json!({
            one: {"client": one, "user": ""},
            two: {"client": two, "user": "a\"b", "conn_info": {"name": "A"}, "chan_info": 7},
        });
        assert_eq!(
            presence(&[ClientInfo::anonymous(CLIENT), other]),
            json!({"id": 5, "presence": {"presence": clients}})
        );
        let stats = written(|out| write_presence_stats(out, 5, 7, 3));
        let body = json!({"num_clients": 7, "num_users": 3});
        assert_eq!(stats, json!({"id": 5, "presence_stats": body}));
    }

    #[test]
    fn other_replies_have_an_id_and_a_method() {
        let position = Position { epoch: Epoch(1), offset: 3 };
        let reply = written(|out| {
            write_history(out, 4, position, |out| out.extend_from_slice(b"[{\"data\":1}]"));
        });
        let body = json!({"publications": [{"data": 1}], "epoch": "00000001", "offset": 3});
        assert_eq!(reply, json!({"id": 4, "history": body}));
        let reply = written(|out| write_done(out, 3, "unsubscribe"));
        assert_eq!(reply, json!({"id": 3, "unsubscribe": {}}));
        for (ttl, body) in [
            (None, json!({"expires": false})),
            (Some(9), json!({"expires": true, "ttl": 9})),
            (Some(u64::MAX), json!({"expires": true, "ttl": u32::MAX})),
        ] {
            let reply = written(|out| write_sub_refreshed(out, 3, ttl));
            assert_eq!(reply, json!({"id": 3, "sub_refresh": body}));
        }
        assert_eq!(written(|out| write_sent(out, &Sent::Ping, |_, _| {})), json!({}));
        let reply =
            written(|out| write_error(out, 0, CommandError::BadRequest, Some("connect \"first\"")));
        let body = json!({"code": 107, "message": "bad request: connect \"first\""});
        assert_eq!(reply, json!({"error": body}));
        let reply = written(|out| write_error(out, 4, CommandError::TooManyRequests, None));
        let body = json!({"code": 111, "message": "too many requests", "temporary": true});
        assert_eq!(reply, json!({"id": 4, "error": body}));
        let error = BackendError { code: 1000, message: "a\"b".into(), is_temporary: false };
        let reply = written(|out| write_backend_error(out, 4, &error));
        assert_eq!(reply, json!({"id": 4, "error": {"code": 1000, "message": "a\"b"}}));
        let error = BackendError { is_temporary: true, ..error };
        let reply = written(|out| write_backend_error(out, 4, &error));
        let body = json!({"code": 1000, "message": "a\"b", "temporary": true});
        assert_eq!(reply, json!({"id": 4, "error": body}));
        let reply = written(|out| write_returned(out, 4, None));
        assert_eq!(reply, json!({"id": 4, "rpc": {}}));
        let data = Payload::new(PayloadKind::Json, "[1]");
        let reply = written(|out| write_returned(out, 4, Some(&data)));
        assert_eq!(reply, json!({"id": 4, "rpc": {"data": [1]}}));
        let reply = written(|out| write_error(out, 4, CommandError::LimitExceeded, None));
        let body = json!({"code": 106, "message": "limit exceeded"});
        assert_eq!(reply, json!({"id": 4, "error": body}));
    }
}
