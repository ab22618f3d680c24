//! The commands of clients.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Object, Text, connect, tags_filter};
use crate::message::Position;
use crate::protocol::command::{
    Command, CommandError, Data, InvalidCommand, Method, SubscribeParameters,
};

/// Decodes one command.
pub fn decode_command(bytes: &[u8]) -> Result<Command<'_>, InvalidCommand> {
    let Envelope { id, method, other } =
        serde_json::from_slice(bytes).map_err(|_| InvalidCommand)?;
    let method = match (method, other) {
        (Some((at, parameters)), _) => {
            decode_method(METHODS[at], parameters.get()).unwrap_or(Method::Malformed)
        }
        (None, Other::VersionOne) => Method::Refused(CommandError::BadRequest, VERSION_ONE),
        (None, Other::Nothing) if id == 0 => Method::Pong,
        (None, Other::Nothing | Other::Unknown) => Method::Unknown,
    };
    Ok(Command { id, method })
}

/// The methods, in the order of Centrifugo's schema: of several, it does the first.
const METHODS: [&str; 12] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "ping",
    "send",
    "rpc",
    "refresh",
    "sub_refresh",
];

fn decode_method<'a>(name: &str, parameters: &'a str) -> serde_json::Result<Method<'a>> {
    // serde would accept an array of the members in order as well.
    if !parameters.starts_with('{') {
        return Ok(Method::Malformed);
    }
    let channel = || serde_json::from_str(parameters).map(|OfChannel { channel }| channel);
    let of_any = |method| serde_json::from_str(parameters).map(|AnyObject {}| method);
    match name {
        "connect" => connect::decode(parameters).map(Method::Connect),
        "subscribe" => serde_json::from_str(parameters).map(Subscription::method),
        "unsubscribe" => channel().map(Method::Unsubscribe),
        "publish" => serde_json::from_str(parameters)
            .map(|Publish { channel, data }| Method::Publish(channel, json(data))),
        "history" => serde_json::from_str(parameters).map(History::method),
        "presence" => channel().map(Method::Presence),
        "presence_stats" => channel().map(Method::PresenceStats),
        "ping" => of_any(Method::Ping),
        "refresh" => serde_json::from_str(parameters)
            .map(|Refresh { token, .. }| Method::Refresh(text(token))),
        "sub_refresh" => serde_json::from_str(parameters).map(Refresh::of_subscription),
        "send" => {
            serde_json::from_str(parameters).map(|Rpc { data, .. }| Method::Send(data.map(json)))
        }
        "rpc" => serde_json::from_str(parameters).map(|Rpc { method, data }| {
            let Text(name) = method.unwrap_or_default();
            Method::Rpc(name, data.map(json))
        }),
        _ => Ok(Method::Unknown),
    }
}

/// The id and the member that is done.
struct Envelope<'a> {
    id: u32,
    /// The parameters of the method with this index in [`METHODS`].
    method: Option<(usize, &'a RawValue)>,
    other: Other,
}

/// Which members there are that are not methods.
#[derive(PartialEq, Eq)]
enum Other {
    Nothing,
    /// The members of commands of version 1.
    VersionOne,
    /// Others: newer SDKs may have members that are not known here.
    Unknown,
}

#[derive(Deserialize)]
struct AnyObject {}

#[derive(Deserialize)]
struct OfChannel<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Publish<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Rpc<'a> {
    #[serde(borrow)]
    method: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

fn json(data: &RawValue) -> Data<'_> {
    Data::Json(data.get().as_bytes())
}

#[derive(Deserialize)]
struct Refresh<'a> {
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Subscription<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
    recover: Option<bool>,
    offset: Option<u64>,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
    flag: Option<i64>,
    #[serde(rename = "type")]
    kind: Option<i64>,
    #[serde(borrow)]
    tf: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct History<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    limit: Option<i64>,
    #[serde(borrow)]
    since: Option<Object<Since<'a>>>,
    reverse: Option<bool>,
}

#[derive(Deserialize)]
struct Since<'a> {
    offset: Option<u64>,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
}

impl<'a> Refresh<'a> {
    fn of_subscription(self) -> Method<'a> {
        Method::RefreshSubscription(text(self.channel), text(self.token))
    }
}

impl<'a> Subscription<'a> {
    fn method(self) -> Method<'a> {
        let parameters = SubscribeParameters {
            channel: self.channel,
            token: text(self.token),
            recover: self.recover.unwrap_or(false),
            offset: self.offset.unwrap_or(0),
            epoch: text(self.epoch),
            flag: self.flag.unwrap_or(0),
            kind: self.kind.unwrap_or(0),
            filter: self.tf.map(|filter| tags_filter::decode(filter.get())),
            delta: text(self.delta),
            data: self.data.map(|data| Data::Json(data.get().as_bytes())),
        };
        parameters.method()
    }
}

impl<'a> History<'a> {
    fn method(self) -> Method<'a> {
        let since = self.since.map(|Object(Since { offset, epoch })| {
            Position::since(offset.unwrap_or(0), &text(epoch))
        });
        // An absent number is 0, as everywhere in this protocol.
        let limit = self.limit.unwrap_or(0);
        Method::history(self.channel, limit, since, self.reverse == Some(true))
    }
}

fn text(text: Option<Text<'_>>) -> Cow<'_, str> {
    let Text(text) = text.unwrap_or_default();
    text
}

/// The commands of version 1 are `{"id":1,"method":1,"params":{}}`, `method` being absent where it is 0.
const VERSION_ONE: &str =
    "this is version 1 of the protocol; version 2 is spoken here, as by centrifuge-js 3 and later";

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a command: an object with an id and one method")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope { id: 0, method: None, other: Other::Nothing };
        while let Some(Text(key)) = map.next_key()? {
            if key == "id" {
                envelope.id = map.next_value()?;
            } else if let Some(at) = METHODS.iter().position(|method| *method == key) {
                let parameters: &RawValue = map.next_value()?;
                let is_first = envelope.method.is_none_or(|(first, _)| at <= first);
                if is_first && parameters.get() != "null" {
                    envelope.method = Some((at, parameters));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                match &*key {
                    "method" | "params" => envelope.other = Other::VersionOne,
                    _ if envelope.other == Other::Nothing => envelope.other = Other::Unknown,
                    _ => {}
                }
            }
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Epoch, HistoryQuery, SubscriptionForm};
    use crate::protocol::command::{Connect, Subscribe};

    fn method(text: &str) -> Method<'_> {
        decode_command(text.as_bytes()).unwrap().method
    }

    fn at(epoch: u32, offset: u64) -> Option<Position> {
        Some(Position { epoch: Epoch(epoch), offset })
    }

    #[test]
    fn each_command_is_decoded_as_its_method() {
        assert_eq!(method("{}"), Method::Pong);
        assert_eq!(method(r#"{"id":1}"#), Method::Unknown);
        let (token, name) = ("x".into(), "js".into());
        assert_eq!(
            method(r#"{"id":1,"connect":{"token":"x","name":"js"}}"#),
            Method::Connect(Connect { token, name, ..Connect::default() })
        );
        let (channel, since, token) = ("a".into(), None, "".into());
        let form = SubscriptionForm::default();
        assert_eq!(
            method(r#"{"subscribe":{"channel":"a"},"id":7}"#),
            Method::Subscribe(Subscribe {
                channel,
                since,
                needs_all: false,
                token,
                data: None,
                form
            })
        );
        assert_eq!(
            method(r#"{"id":1,"unsubscribe":{"channel":"\u00e9"}}"#),
            Method::Unsubscribe("é".into())
        );
        assert_eq!(
            method(r#"{"id":1,"publish":{"channel":"a","data":{"x": [1]}}}"#),
            Method::Publish("a".into(), Data::Json(br#"{"x": [1]}"#))
        );
        assert_eq!(method(r#"{"id":1,"presence":{"channel":"a"}}"#), Method::Presence("a".into()));
        assert_eq!(
            method(r#"{"id":1,"presence_stats":{"channel":"a"}}"#),
            Method::PresenceStats("a".into())
        );
        assert_eq!(method(r#"{"id":1,"ping":{}}"#), Method::Ping);
        assert_eq!(method(r#"{"id":1,"refresh":{"token":"x"}}"#), Method::Refresh("x".into()));
        assert_eq!(method(r#"{"id":1,"refresh":{}}"#), Method::Refresh("".into()));
        assert_eq!(
            method(r#"{"id":1,"sub_refresh":{"channel":"a","token":"x"}}"#),
            Method::RefreshSubscription("a".into(), "x".into())
        );
        assert_eq!(
            method(r#"{"id":1,"sub_refresh":{}}"#),
            Method::RefreshSubscription("".into(), "".into())
        );
        assert_eq!(method(r#"{"id":1,"rpc":{"method":"x"}}"#), Method::Rpc("x".into(), None));
        assert_eq!(
            method(r#"{"id":1,"rpc":{"data":[1]}}"#),
            Method::Rpc("".into(), Some(Data::Json(b"[1]")))
        );
        assert_eq!(method(r#"{"id":1,"rpc":{"method":1}}"#), Method::Malformed);
        assert_eq!(method(r#"{"send":{"data":1}}"#), Method::Send(Some(Data::Json(b"1"))));
        assert_eq!(method(r#"{"send":{}}"#), Method::Send(None));
        assert_eq!(method(r#"{"id":1,"dance":{}}"#), Method::Unknown);
        assert_eq!(decode_command(br#"{"id":4294967295}"#).unwrap().id, u32::MAX);
    }

    #[test]
    fn a_client_that_reconnects_sends_its_position() {
        let since = |rest: &str| {
            let text = format!(r#"{{"id":1,"subscribe":{{"channel":"a",{rest}}}}}"#);
            match method(&text) {
                Method::Subscribe(Subscribe { since, .. }) => since,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(since(r#""recover":true,"epoch":"000000ff","offset":9"#), at(255, 9));
        assert_eq!(since(r#""recover":true,"epoch":"000000ff""#), at(255, 0));
        assert_eq!(since(r#""recover":false,"epoch":"000000ff","offset":9"#), None);
        assert_eq!(since(r#""recover":null,"epoch":null,"offset":null"#), None);
        assert_eq!(
            since(
                r#""flag":1,"positioned":true,"recoverable":true,"join_leave":true,"token":"t","data":{"a":1}"#
            ),
            None
        );
        // Epochs that this server did not issue.
        for epoch in ["_", "xyz", "0000000g", "000000fff", "ffffffff"] {
            let since = since(&format!(r#""recover":true,"epoch":"{epoch}","offset":9"#));
            assert_eq!(since, Some(Position::NOWHERE), "{epoch}");
        }
        // A client that keeps offsets only, and one that starts at the beginning.
        let any = |offset| Some(Position { epoch: Epoch::ANY, offset });
        assert_eq!(since(r#""recover":true,"epoch":"","offset":9"#), any(9));
        assert_eq!(since(r#""recover":true"#), any(0));
    }

    #[test]
    fn a_history_is_requested_in_parts() {
        let query = |rest: &str| {
            let text = format!(r#"{{"id":1,"history":{{"channel":"a"{rest}}}}}"#);
            match method(&text) {
                Method::History(_, query) => query,
                other => panic!("{other:?}"),
            }
        };
        let nothing = HistoryQuery { since: None, limit: Some(0), reverse: false };
        assert_eq!(query(""), nothing);
        assert_eq!(query(r#","limit":0"#), nothing);
        assert_eq!(query(r#","limit":-1"#).limit, None);
        assert_eq!(query(r#","limit":5000000000"#).limit, Some(u32::MAX));
        assert_eq!(
            query(r#","limit":7,"since":{"offset":3,"epoch":"00000001"},"reverse":true"#),
            HistoryQuery { since: at(1, 3), limit: Some(7), reverse: true }
        );
        let any = |offset| Some(Position { epoch: Epoch::ANY, offset });
        assert_eq!(query(r#","since":{"offset":0,"epoch":""}"#).since, any(0));
        assert_eq!(query(r#","since":{}"#).since, any(0));
        assert_eq!(query(r#","since":{"offset":1,"epoch":""}"#).since, any(1));
        assert_eq!(query(r#","since":{"offset":1},"reverse":true"#).since, any(1));
        let before_all = method(r#"{"id":1,"history":{"channel":"a","since":{},"reverse":true}}"#);
        assert!(matches!(before_all, Method::Refused(CommandError::BadRequest, _)));
    }

    /// client.proto 0.19: these options would change the messages sent to the client.
    #[test]
    fn an_option_of_a_subscribe_is_obeyed_or_refused() {
        let subscribe = |rest: &str| match method(&format!(
            r#"{{"id":1,"subscribe":{{"channel":"a",{rest}}}}}"#
        )) {
            Method::Subscribe(Subscribe { needs_all, .. }) => Ok(needs_all),
            Method::Refused(error, _) => Err(error.code()),
            Method::Fatal => Err(3501),
            other => panic!("{other:?}"),
        };
        for (rest, expected) in [
            (r#""flag":0"#, Ok(false)),
            (r#""flag":1"#, Ok(false)),
            (r#""flag":2"#, Ok(true)),
            (r#""flag":3,"type":0,"tf":null,"delta":null"#, Ok(true)),
            (r#""delta":"""#, Ok(false)),
            (r#""delta":"fossil""#, Ok(false)),
            (r#""delta":"xor""#, Err(3501)),
            (r#""type":1"#, Err(108)),
            (r#""type":4"#, Err(108)),
            (r#""type":-1"#, Err(108)),
            (r#""tf":{}"#, Err(107)),
            (r#""tf":{"key":"k","cmp":"eq","val":"v"}"#, Ok(false)),
            (r#""tf":{"key":"k","cmp":"like","val":"v"}"#, Err(107)),
            (r#""tf":"lang""#, Err(107)),
        ] {
            assert_eq!(subscribe(rest), expected, "{rest}");
        }
    }

    /// As with Centrifugo 6.9.
    #[test]
    fn an_unknown_member_is_ignored_and_of_several_methods_the_first_of_the_schema_is_done() {
        let unsubscribe = || Method::Unsubscribe("a".into());
        for (text, expected) in [
            (r#"{"id":2,"x":{},"unsubscribe":{"channel":"a"}}"#, unsubscribe()),
            (r#"{"unsubscribe":{"channel":"a"},"x":[1,{"ping":{}}],"id":2}"#, unsubscribe()),
            (r#"{"method":1,"unsubscribe":{"channel":"a"},"params":{}}"#, unsubscribe()),
            (
                r#"{"ping":{},"presence":{"channel":"b"},"unsubscribe":{"channel":"a"}}"#,
                unsubscribe(),
            ),
            (
                r#"{"unsubscribe":{"channel":"a"},"presence":{"channel":"b"},"ping":{}}"#,
                unsubscribe(),
            ),
            (r#"{"unsubscribe":{"channel":"b"},"unsubscribe":{"channel":"a"}}"#, unsubscribe()),
            (r#"{"connect":null,"unsubscribe":{"channel":"a"},"ping":null}"#, unsubscribe()),
            (r#"{"id":2,"x":{},"y":1}"#, Method::Unknown),
            (r#"{"x":{}}"#, Method::Unknown),
            (r#"{"id":1,"presence_stats":null}"#, Method::Unknown),
            (r#"{"ping":null}"#, Method::Pong),
            (r#"{"id":0}"#, Method::Pong),
        ] {
            assert_eq!(method(text), expected, "{text}");
        }
    }

    #[test]
    fn version_one_of_the_protocol_is_recognised() {
        for text in [
            r#"{"id":1,"method":1,"params":{"channel":"a"}}"#,
            r#"{"params":{"token":"t"},"id":1}"#,
            r#"{"id":1,"method":"connect","params":{}}"#,
            r#"{"id":9,"method":7}"#,
        ] {
            assert_eq!(method(text), Method::Refused(CommandError::BadRequest, VERSION_ONE));
        }
    }

    #[test]
    fn an_invalid_command_is_distinguished_from_a_malformed_method() {
        for text in [
            "",
            "[]",
            "null",
            "{",
            r#"{"id":-1}"#,
            r#"{"id":4294967296}"#,
            r#"{"id":"1"}"#,
            "{}x",
            "\"\\ud800\"",
        ] {
            assert_eq!(decode_command(text.as_bytes()).unwrap_err(), InvalidCommand, "{text}");
        }
        for text in [
            r#"{"connect":[],"id":1,"dance":7}"#,
            r#"{"id":1,"ping":{},"connect":7}"#,
            r#"{"id":1,"subscribe":{}}"#,
            r#"{"id":1,"subscribe":["a"]}"#,
            r#"{"id":1,"publish":["a",1]}"#,
            r#"{"id":1,"connect":[]}"#,
            r#"{"id":1,"rpc":[]}"#,
            r#"{"id":1,"subscribe":{"channel":1}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","recover":1}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","offset":-1}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","offset":1.5}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","offset":18446744073709551616}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","epoch":7}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","flag":"2"}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","type":"map"}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","delta":1}}"#,
            r#"{"id":1,"publish":{"channel":"a"}}"#,
            r#"{"id":1,"connect":3}"#,
            r#"{"id":1,"history":{"channel":"a","limit":"1"}}"#,
            r#"{"id":1,"history":{"channel":"a","since":7}}"#,
            r#"{"id":1,"history":{"channel":"a","since":[0,""]}}"#,
            r#"{"id":1,"presence":{}}"#,
            r#"{"id":1,"refresh":[7]}"#,
            r#"{"id":1,"sub_refresh":{"token":7}}"#,
            r#"{"id":1,"refresh":{"token":7}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","token":7}}"#,
        ] {
            assert_eq!(method(text), Method::Malformed, "{text}");
        }
        assert!(decode_command(&[b'{', 0xff, b'}']).is_err());
    }
}
