//! The parameters of `connect`, in JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Object, Text};
use crate::message::SubscriptionWish;
use crate::protocol::command::{Command, Connect, Data, InvalidCommand, Method, wish};

#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow)]
    token: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
    #[serde(borrow)]
    subs: Option<Wishes<'a>>,
}

/// The member `subs`: the channels of which something is asked for.
struct Wishes<'a>(Vec<(Cow<'a, str>, SubscriptionWish)>);

#[derive(Deserialize)]
struct Subscription<'a> {
    recover: Option<bool>,
    offset: Option<u64>,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
    #[serde(borrow)]
    delta: Option<Text<'a>>,
}

/// Decodes the parameters, an object.
pub(super) fn decode<'a>(parameters: &'a str) -> serde_json::Result<Connect<'a>> {
    let Parameters { token, data, name, version, subs } = serde_json::from_str(parameters)?;
    let text = |text: Option<Text<'a>>| text.map_or(Cow::Borrowed(""), |Text(text)| text);
    Ok(Connect {
        token: text(token),
        data: data.map(|data| Data::Json(data.get().as_bytes())),
        name: text(name),
        version: text(version),
        channels: Vec::new(),
        subs: subs.map_or_else(Vec::new, |Wishes(wishes)| wishes),
    })
}

/// Decodes all that a client sends that is sent pushes and nothing else: the parameters of `connect`, an object, whose
/// member `subs` names the channels that it asks for. `null` has none of them.
pub fn decode_connect(bytes: &[u8]) -> Result<Command<'_>, InvalidCommand> {
    let parameters = std::str::from_utf8(bytes).map_err(|_| InvalidCommand)?.trim_ascii();
    let connect = match parameters {
        "null" => Connect::default(),
        _ => {
            let connect = decode(parameters).map_err(|_| InvalidCommand)?;
            let Object(Channels { subs }) =
                serde_json::from_str(parameters).map_err(|_| InvalidCommand)?;
            let channels = subs.map_or_else(Vec::new, |Names(names)| names);
            Connect { channels, ..connect }
        }
    };
    Ok(Command { id: 1, method: Method::Connect(connect) })
}

#[derive(Deserialize)]
struct Channels<'a> {
    #[serde(borrow)]
    subs: Option<Names<'a>>,
}

/// The names of the members of an object.
struct Names<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Names<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object with a member for each channel")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some((Text(name), IgnoredAny)) = map.next_entry()? {
            names.push(name);
        }
        Ok(Names(names))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Wishes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WishesVisitor)
    }
}

struct WishesVisitor;

impl<'de> Visitor<'de> for WishesVisitor {
    type Value = Wishes<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object with a member for each channel")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut wishes = Vec::new();
        while let Some(Text(channel)) = map.next_key()? {
            let Object(Subscription { recover, offset, epoch, delta }) = map.next_value()?;
            let [epoch, delta] = [&epoch, &delta].map(|it| it.as_ref().map_or("", |Text(it)| it));
            let wish = wish(recover == Some(true), offset.unwrap_or(0), epoch, delta);
            wishes.extend(wish.map(|wish| (channel, wish)));
        }
        Ok(Wishes(wishes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Epoch, Position};

    #[test]
    fn every_parameter_may_be_absent_or_null() {
        for text in [
            "{}",
            r#"{"token":null,"data":null,"name":null,"version":null,"subs":null}"#,
            r#"{"token":"","name":"","version":"","subs":{},"headers":{"a":"b"},"flag":1}"#,
        ] {
            assert_eq!(decode(text).unwrap(), Connect::default(), "{text}");
        }
    }

    #[test]
    fn a_client_says_who_it_is_and_where_it_was() {
        let text = r#"{"token":"a.b.c","data":{"x": 1},"name":"j\u0073","version":"5.7","subs":{
            "a":{"recover":true,"epoch":"000000ff","offset":9},"b":{"recover":true},"c":{"offset":1},"d":{},
            "e":{"delta":"fossil"},"f":{"delta":"xor"},"g":{"recover":false,"delta":null}}}"#;
        let connect = decode(text).unwrap();
        let any = Position { epoch: Epoch::ANY, offset: 0 };
        let known = Position { epoch: Epoch(255), offset: 9 };
        let of = |since, takes_deltas| SubscriptionWish { since, takes_deltas };
        let subs = vec![
            (Cow::Borrowed("a"), of(Some(known), false)),
            (Cow::Borrowed("b"), of(Some(any), false)),
            (Cow::Borrowed("e"), of(None, true)),
        ];
        let (token, name, version) = ("a.b.c".into(), "js".into(), "5.7".into());
        let expected = Connect {
            token,
            data: Some(Data::Json(br#"{"x": 1}"#)),
            name,
            version,
            subs,
            ..Connect::default()
        };
        assert_eq!(connect, expected);
    }

    #[test]
    fn parameters_of_other_types_are_malformed() {
        for text in [
            r#"{"token":7}"#,
            r#"{"name":[]}"#,
            r#"{"version":{}}"#,
            r#"{"subs":[]}"#,
            r#"{"subs":{"a":[]}}"#,
            r#"{"subs":{"a":null}}"#,
            r#"{"subs":{"a":{"recover":1}}}"#,
            r#"{"subs":{"a":{"delta":1}}}"#,
            r#"{"subs":{"a":{"recover":true,"offset":-1}}}"#,
            r#"{"token":"a","token":"b"}"#,
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_client_that_sends_nothing_else_names_channels_in_connect() {
        let channels = |text: &str| match decode_connect(text.as_bytes()).map(|it| it.method) {
            Ok(Method::Connect(connect)) => connect.channels.join(","),
            other => format!("{other:?}"),
        };
        for (text, expected) in [
            ("null", ""),
            (" {}\n", ""),
            (r#"{"subs":null}"#, ""),
            ("{\n\"subs\":{\"a\":{},\"\\u0062\":{\"recover\":true,\"offset\":1}}}", "a,b"),
        ] {
            assert_eq!(channels(text), expected, "{text}");
        }
        for text in
            ["", "{", "[]", "7", "{}{}", r#"{"subs":{"a":7}}"#, r#"{"token":1}"#, r#"["t"]"#]
        {
            assert!(decode_connect(text.as_bytes()).is_err(), "{text}");
        }
        assert!(decode_connect(b"\xff").is_err());
    }
}
