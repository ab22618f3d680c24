//! The bodies of requests, in the shape of Centrifugo's proxies: fields that are empty are left out.

use super::call::{Ask, Call};
use crate::message::{Login, Payload, PayloadKind, TransportKind};
use crate::protocol::json::{write_data, write_text};

/// Appends the body of a call.
pub fn write_body(out: &mut Vec<u8>, call: &Call) {
    out.extend_from_slice(b"{\"client\":\"");
    out.extend_from_slice(call.client.to_string().as_bytes());
    out.extend_from_slice(b"\",\"transport\":\"");
    out.extend_from_slice(transport(call.transport).as_bytes());
    out.extend_from_slice(b"\",\"protocol\":\"");
    out.extend_from_slice(if call.is_protobuf { b"protobuf" } else { b"json" });
    out.extend_from_slice(b"\",\"encoding\":\"json\"");
    if let Some(user) = call.user.as_deref().filter(|user| !user.is_empty()) {
        member(out, "user", |out| write_text(out, user));
    }
    match &call.ask {
        Ask::Connect(login) => write_login(out, login),
        Ask::Refresh => {}
        Ask::Subscribe { channel, token, data } => {
            member(out, "channel", |out| write_text(out, channel.as_str()));
            if let Some(token) = token {
                member(out, "token", |out| write_text(out, token.reveal()));
            }
            data.iter().for_each(|data| write_payload(out, data));
        }
        Ask::SubRefresh { channel } => {
            member(out, "channel", |out| write_text(out, channel.as_str()));
        }
        Ask::Publish { channel, payload } => {
            member(out, "channel", |out| write_text(out, channel.as_str()));
            write_payload(out, payload);
        }
        Ask::Rpc { method, data } => {
            if !method.is_empty() {
                member(out, "method", |out| write_text(out, method));
            }
            data.iter().for_each(|data| write_payload(out, data));
        }
    }
    if let Some(meta) = &call.meta {
        member(out, "meta", |out| out.extend_from_slice(meta));
    }
    out.push(b'}');
}

/// Bytes that are not text have no place in JSON but in base64.
fn write_payload(out: &mut Vec<u8>, payload: &Payload) {
    let name = if payload.kind == PayloadKind::Binary { "b64data" } else { "data" };
    member(out, name, |out| write_data(out, payload));
}

fn write_login(out: &mut Vec<u8>, login: &Login) {
    let Login { data, name, version, channels, subs, .. } = login;
    data.iter().for_each(|data| write_payload(out, data));
    for (key, text) in [("name", name), ("version", version)] {
        if !text.is_empty() {
            member(out, key, |out| write_text(out, text));
        }
    }
    // The channels that the client asks for, or that the server had subscribed it to before.
    let before = subs.iter().map(|(channel, _)| channel).filter(|it| !channels.contains(it));
    for (index, channel) in channels.iter().chain(before).enumerate() {
        out.extend_from_slice(if index == 0 { b",\"channels\":[" } else { b"," });
        write_text(out, channel.as_str());
    }
    if !subs.is_empty() || !channels.is_empty() {
        out.push(b']');
    }
}

fn member(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    write(out);
}

/// The names that Centrifugo has for transports, where it has one: `uni_` for those that take no commands.
pub(super) fn transport(kind: TransportKind) -> &'static str {
    match kind {
        TransportKind::CommandsWebSocket => "websocket",
        TransportKind::WebSocket | TransportKind::UniWebSocket => "uni_websocket",
        TransportKind::Sse | TransportKind::UniSse => "uni_sse",
        TransportKind::UniHttpStream => "uni_http_stream",
        TransportKind::CommandsTcp => "tcp",
        TransportKind::CommandsHttpStream => "http_stream",
        TransportKind::CommandsSse => "sse",
        TransportKind::LongPoll => "long_poll",
        TransportKind::Http => "http",
        TransportKind::EchoWebSocket | TransportKind::EchoTcp => "echo",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        ChannelName, ClientId, NodeId, Payload, Position, SessionId, SubscriptionWish, Token,
        WorkerId,
    };

    const CLIENT: ClientId = ClientId {
        node: NodeId::new(3),
        worker: WorkerId(0),
        session: SessionId { index: 1, generation: 2 },
    };

    fn body(ask: Ask) -> String {
        body_of(None, ask)
    }

    fn body_of(user: Option<&str>, ask: Ask) -> String {
        let transport = TransportKind::CommandsWebSocket;
        let user = user.map(Into::into);
        let mut out = Vec::new();
        write_body(
            &mut out,
            &Call {
                client: CLIENT,
                serial: 1,
                transport,
                is_protobuf: false,
                user,
                meta: None,
                address: None,
                headers: None,
                ask,
            },
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_in_the_order_of_centrifugo_and_empty_ones_are_left_out() {
        let head = "{\"client\":\"00000000-0003-8000-8000-000100000002\",\"transport\":\"websocket\",\
                    \"protocol\":\"json\",\"encoding\":\"json\"";
        let data = Some(Payload::new(PayloadKind::Json, "{\"a\":\n1}"));
        let rpc = body(Ask::Rpc { method: "a\"b".into(), data });
        assert_eq!(rpc, format!("{head},\"method\":\"a\\\"b\",\"data\":{{\"a\": 1}}}}"));
        assert_eq!(body(Ask::Rpc { method: "".into(), data: None }), format!("{head}}}"));
        let data = Some(Payload::new(PayloadKind::Binary, &b"\xff"[..]));
        let rpc = body(Ask::Rpc { method: "".into(), data });
        assert_eq!(rpc, format!("{head},\"b64data\":\"/w==\"}}"));
        let channel = ChannelName::new("a\"b").unwrap();
        let connect = body(Ask::Connect(Box::default()));
        assert_eq!(connect, format!("{head}}}"));
        let wish = SubscriptionWish { since: Some(Position::NOWHERE), takes_deltas: false };
        let subs = ["a", "b"].map(|name| (ChannelName::new(name).unwrap(), wish));
        let connect = body(Ask::Connect(Box::new(Login {
            data: Some(Payload::new(PayloadKind::Json, "{}")),
            name: "js".into(),
            version: "1\"".into(),
            subs: subs.to_vec(),
            ..Login::default()
        })));
        let expected = format!(
            "{head},\"data\":{{}},\"name\":\"js\",\"version\":\"1\\\"\",\"channels\":[\"a\",\"b\"]}}"
        );
        assert_eq!(connect, expected);
        let expected = format!("{head},\"user\":\"u\"}}");
        assert_eq!(body_of(Some("u"), Ask::Refresh), expected);
        let expected = format!("{head},\"user\":\"u\",\"channel\":\"a\\\"b\"}}");
        assert_eq!(body_of(Some("u"), Ask::SubRefresh { channel: channel.clone() }), expected);
        let subscribe = Ask::Subscribe {
            channel: channel.clone(),
            token: Token::new("t\""),
            data: Some(Payload::new(PayloadKind::Json, "[1]")),
        };
        let rest = "\"channel\":\"a\\\"b\",\"token\":\"t\\\"\",\"data\":[1]}";
        assert_eq!(body_of(Some(""), subscribe.clone()), format!("{head},{rest}"));
        let expected = format!("{head},\"user\":\"u\\\"\",{rest}");
        assert_eq!(body_of(Some("u\""), subscribe), expected);
        for (kind, bytes, data) in [
            (PayloadKind::Json, &b"[1]"[..], "\"data\":[1]"),
            (PayloadKind::Text, b"a\"", "\"data\":\"a\\\"\""),
            (PayloadKind::Binary, b"\xff", "\"b64data\":\"/w==\""),
        ] {
            let payload = Payload::new(kind, bytes.to_vec());
            let publish = body(Ask::Publish { channel: channel.clone(), payload });
            assert_eq!(publish, format!("{head},\"channel\":\"a\\\"b\",{data}}}"));
        }
    }

    #[test]
    fn what_the_backend_keeps_with_a_connection_comes_last() {
        let call = Call {
            client: CLIENT,
            serial: 1,
            transport: TransportKind::Sse,
            is_protobuf: true,
            user: None,
            meta: Some("{\"a\":1}".into()),
            address: None,
            headers: None,
            ask: Ask::Rpc { method: "m".into(), data: Some(Payload::new(PayloadKind::Json, "2")) },
        };
        let mut out = Vec::new();
        write_body(&mut out, &call);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with(",\"method\":\"m\",\"data\":2,\"meta\":{\"a\":1}}"), "{text}");
        assert!(text.contains(",\"protocol\":\"protobuf\",\"encoding\":\"json\","), "{text}");
    }
}
