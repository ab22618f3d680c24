//! The server API in JSON: Centrifugo's shapes (github.com/centrifugal/centrifugo, `api.proto`, versions 5 and 6).
//!
//! A call's body is its method's parameters; its answer has a `result` or an `error`. What is asked for and not offered
//! is an error, never silently left out; what only tunes the original (`delta`, `parallel`) changes nothing here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::json::{CommandError, Object, write_item};
use crate::message::{ChannelName, ClientName, Position, Publication};

macro_rules! api_methods {
    ($($(#[$doc:meta])* $name:ident => $text:literal;)*) => {
        /// What can be called: the last part of the path, and the name of a command in a batch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ApiMethod { $($(#[$doc])* $name,)* }

        impl ApiMethod {
            /// The method of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(ApiMethod::$name),)* _ => None }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(ApiMethod::$name => $text,)* }
            }
        }
    };
}

api_methods! {
    /// Publishes to a channel: [`Publish`].
    Publish => "publish";
    /// Publishes the same to many channels: [`Publish`].
    Broadcast => "broadcast";
    /// Subscribes a client: [`OfClient`].
    Subscribe => "subscribe";
    /// Ends a client's subscription: [`OfClient`].
    Unsubscribe => "unsubscribe";
    /// Ends a client's connection: [`OfClient`].
    Disconnect => "disconnect";
    /// Reads what a channel keeps: [`History`].
    History => "history";
    /// Forgets what a channel keeps: [`OfChannel`].
    HistoryRemove => "history_remove";
    /// Who is subscribed: [`OfChannel`].
    Presence => "presence";
    /// How many are subscribed: [`OfChannel`].
    PresenceStats => "presence_stats";
    /// Channels with subscribers: [`Channels`].
    Channels => "channels";
    /// What runs: [`Nothing`].
    Info => "info";
    /// Not offered.
    Rpc => "rpc";
    /// Not offered.
    Refresh => "refresh";
}

/// Why a body is not parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParametersError {
    /// It is not JSON: what is wrong with it.
    NotJson(String),
    /// It is JSON, and not what the method takes: what is wrong with it.
    Unfit(String),
}

/// Reads an object.
pub fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ParametersError> {
    match serde_json::from_str(text) {
        Ok(Object(parameters)) => Ok(parameters),
        Err(error) => Err(match error.classify() {
            Category::Data => ParametersError::Unfit(error.to_string()),
            Category::Io | Category::Syntax | Category::Eof => {
                ParametersError::NotJson(error.to_string())
            }
        }),
    }
}

/// Of `publish` and `broadcast`.
#[derive(Debug, Deserialize)]
pub struct Publish<'a, const CHANNELS_MAX: usize> {
    /// Of `publish`: where to.
    #[serde(borrow)]
    pub channel: Option<Text<'a>>,
    /// Of `broadcast`: where to.
    #[serde(borrow)]
    pub channels: Option<List<Text<'a>, CHANNELS_MAX>>,
    /// What, as JSON; `null` is a value.
    #[serde(borrow, default, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
    /// What, as bytes in base64; goes before `data` unless empty.
    #[serde(borrow)]
    pub b64data: Option<Text<'a>>,
    /// `event` is the type of the event.
    pub tags: Option<BTreeMap<String, String>>,
    /// Makes a repetition harmless; empty for none.
    #[serde(borrow)]
    pub idempotency_key: Option<Text<'a>>,
    /// Not offered.
    pub skip_history: Option<bool>,
    /// Not offered.
    pub version: Option<u64>,
}

/// Of `subscribe`, `unsubscribe` and `disconnect`.
#[derive(Debug, Deserialize)]
pub struct OfClient<'a> {
    /// Which client.
    #[serde(borrow)]
    pub client: Option<Text<'a>>,
    /// Which channel.
    #[serde(borrow)]
    pub channel: Option<Text<'a>>,
    /// Of `subscribe`: from where.
    #[serde(borrow)]
    pub recover_since: Option<Object<Since<'a>>>,
    /// Of `disconnect`: what the client is to make of it.
    #[serde(borrow)]
    pub disconnect: Option<Object<Disconnect<'a>>>,
}

/// How a client is to take the end of its connection.
#[derive(Debug, Deserialize)]
pub struct Disconnect<'a> {
    /// 3000..=3499 and 4000..=4499: come back. 0 for the server's own.
    pub code: Option<u16>,
    /// What it is told; empty for the server's own words.
    #[serde(borrow)]
    pub reason: Option<Text<'a>>,
}

/// A position in a request.
#[derive(Debug, Deserialize)]
pub struct Since<'a> {
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
}

/// Of `history`.
#[derive(Debug, Deserialize)]
pub struct History<'a> {
    /// Which.
    #[serde(borrow)]
    pub channel: Text<'a>,
    /// Publications at most; none when absent, as many as one answer may have when negative.
    pub limit: Option<i64>,
    /// After which publication.
    #[serde(borrow)]
    pub since: Option<Object<Since<'a>>>,
    /// The newest first.
    pub reverse: Option<bool>,
}

/// Of `history_remove`, `presence` and `presence_stats`.
#[derive(Debug, Deserialize)]
pub struct OfChannel<'a> {
    /// Which.
    #[serde(borrow)]
    pub channel: Text<'a>,
}

/// Of `channels`.
#[derive(Debug, Deserialize)]
pub struct Channels<'a> {
    /// Names with `*` for any bytes; empty or absent for all.
    #[serde(borrow)]
    pub pattern: Option<Text<'a>>,
}

/// Of `info`.
#[derive(Debug, Deserialize)]
pub struct Nothing {}

/// Of a batch.
#[derive(Debug, Deserialize)]
pub struct Batch<'a, const COMMANDS_MAX: usize> {
    /// Each an object with one member: the method's name with its parameters.
    #[serde(borrow)]
    pub commands: List<&'a RawValue, COMMANDS_MAX>,
}

/// A command of a batch: the name of its method, and its parameters. `None` if it is empty.
#[derive(Debug)]
pub struct BatchCommand<'a>(pub Option<(Cow<'a, str>, &'a RawValue)>);

/// A string, borrowed where it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A list that is read no further than its maximum.
#[derive(Debug)]
pub struct List<T, const MAX: usize> {
    /// Up to the maximum.
    pub items: Vec<T>,
    /// Whether there were more.
    pub is_too_long: bool,
}

impl Since<'_> {
    /// The position; `None` if it is of no epoch of this server.
    pub fn position(&self) -> Option<Position> {
        let epoch = self.epoch.as_ref()?.0.parse().ok()?;
        Some(Position { epoch, offset: self.offset })
    }

    /// Whether it is before the first publication of whatever epoch.
    pub fn is_start(&self) -> bool {
        self.offset == 0 && self.epoch.as_ref().is_none_or(|epoch| epoch.0.is_empty())
    }
}

/// `null` is present.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = List<T, MAX>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = List { items: Vec::new(), is_too_long: false };
        while list.items.len() < MAX {
            match items.next_element()? {
                Some(item) => list.items.push(item),
                None => return Ok(list),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {
            list.is_too_long = true;
        }
        Ok(list)
    }
}

impl<'de> Deserialize<'de> for BatchCommand<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BatchCommandVisitor)
    }
}

struct BatchCommandVisitor;

impl<'de> Visitor<'de> for BatchCommandVisitor {
    type Value = BatchCommand<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a command: an object with one method")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key()? {
            let parameters: &RawValue = map.next_value()?;
            if parameters.get() == "null" {
                continue;
            }
            if found.replace((name, parameters)).is_some() {
                return Err(A::Error::custom("a command has one method"));
            }
        }
        Ok(BatchCommand(found))
    }
}

/// What `info` tells of this process.
#[derive(Clone, Copy, Debug)]
pub struct NodeInfo {
    /// Tells it from other processes.
    pub uid: u64,
    /// Open connections, those without a session among them.
    pub connections: u64,
    /// Channels with subscribers, counted once for each worker that has some.
    pub channels: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Since it began to serve.
    pub uptime: Duration,
}

/// `{"code":107,"message":"bad request: ..."}`
pub fn write_error(out: &mut Vec<u8>, error: CommandError, detail: Option<&str>) {
    put(out, format_args!("{{\"code\":{},\"message\":", error.code()));
    match detail {
        None => write_text(out, error.message()),
        Some(detail) => write_text(out, &format!("{}: {detail}", error.message())),
    }
    out.push(b'}');
}

/// The result of `publish`.
pub fn write_published(out: &mut Vec<u8>, Position { epoch, offset }: Position) {
    put(out, format_args!("{{\"offset\":{offset},\"epoch\":\"{epoch}\"}}"));
}

/// The result of `history`. Stops once it has more than `bytes_max` bytes.
pub fn write_history<'p>(
    out: &mut Vec<u8>,
    Position { epoch, offset }: Position,
    publications: impl Iterator<Item = &'p Publication>,
    bytes_max: usize,
) {
    let end_max = out.len().saturating_add(bytes_max);
    out.extend_from_slice(b"{\"publications\":[");
    for (index, publication) in publications.enumerate() {
        if out.len() > end_max {
            break;
        }
        if index > 0 {
            out.push(b',');
        }
        write_item(out, publication);
    }
    put(out, format_args!("],\"epoch\":\"{epoch}\",\"offset\":{offset}}}"));
}

/// The result of `presence`: `num_clients` is Centrifugo's no more, and tells whether all of them are named.
pub fn write_presence(out: &mut Vec<u8>, clients: &[ClientName], client_count: u64) {
    out.extend_from_slice(b"{\"presence\":{");
    for (index, client) in clients.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        put(out, format_args!("{comma}\"{client}\":{{\"client\":\"{client}\",\"user\":\"\"}}"));
    }
    put(out, format_args!("}},\"num_clients\":{client_count}}}"));
}

/// The result of `presence_stats`: all clients without a name are one user, as they are to Centrifugo.
pub fn write_presence_stats(out: &mut Vec<u8>, client_count: u64) {
    let user_count = client_count.min(1);
    put(out, format_args!("{{\"num_clients\":{client_count},\"num_users\":{user_count}}}"));
}

/// The result of `channels`.
pub fn write_channels(out: &mut Vec<u8>, channels: &[(ChannelName, u64)]) {
    out.extend_from_slice(b"{\"channels\":{");
    for (index, (channel, client_count)) in channels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, channel.as_str());
        put(out, format_args!(":{{\"num_clients\":{client_count}}}"));
    }
    out.extend_from_slice(b"}}");
}

/// The result of `info`.
pub fn write_info(out: &mut Vec<u8>, info: &NodeInfo) {
    let NodeInfo { uid, connections, channels, subscriptions, uptime } = info;
    let (version, user_count) = (env!("CARGO_PKG_VERSION"), (*connections).min(1));
    put(
        out,
        format_args!(
            "{{\"nodes\":[{{\"uid\":\"{uid:016x}\",\"name\":\"fantail\",\"version\":\"{version}\",\
             \"num_clients\":{connections},\"num_users\":{user_count},\"num_channels\":{channels},\
             \"num_subs\":{subscriptions},\"uptime\":{}}}]}}",
            uptime.as_secs()
        ),
    );
}

fn write_text(out: &mut Vec<u8>, text: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, text).expect("plain data, written to memory");
}

fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Epoch, Payload, PayloadKind, SessionId, WorkerId};
    use serde_json::{Value, json};

    type PublishOfTwo<'a> = Publish<'a, 2>;

    #[test]
    fn methods_are_found_by_their_names() {
        for name in
            ["publish", "broadcast", "subscribe", "unsubscribe", "disconnect", "history", "info"]
        {
            assert_eq!(ApiMethod::from_name(name).unwrap().name(), name);
        }
        for name in ["", "Publish", "batch", "publish/", "history-remove"] {
            assert_eq!(ApiMethod::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn data_is_kept_as_it_was_written_and_null_is_data() {
        let publish: PublishOfTwo = decode(r#"{"channel":"a","data": {"x": [1, 2]} }"#).unwrap();
        assert_eq!(publish.data.unwrap().get(), r#"{"x": [1, 2]}"#);
        assert!(matches!(publish.channel, Some(Text(Cow::Borrowed("a")))));
        let publish: PublishOfTwo = decode(r#"{"channel":"\u00e9","data":null}"#).unwrap();
        assert_eq!(publish.data.unwrap().get(), "null");
        assert_eq!(publish.channel.unwrap().0, "é");
        let publish: PublishOfTwo = decode(r#"{"tags":null,"b64data":null}"#).unwrap();
        assert!(publish.data.is_none() && publish.tags.is_none() && publish.b64data.is_none());
    }

    #[test]
    fn what_is_not_json_and_what_does_not_fit_are_told_apart() {
        for text in ["", "{", r#"{"channel":}"#, "{}x", "nul", r#"{"channel":"\ud800"}"#] {
            let error = decode::<PublishOfTwo>(text).unwrap_err();
            assert!(matches!(error, ParametersError::NotJson(_)), "{text}: {error:?}");
        }
        for text in ["[]", "null", "1", r#"{"channel":1}"#, r#"{"channels":"a"}"#, r#"{"tags":[]}"#]
        {
            let error = decode::<PublishOfTwo>(text).unwrap_err();
            assert!(matches!(error, ParametersError::Unfit(_)), "{text}: {error:?}");
        }
        let error = decode::<OfChannel<'_>>("{}").unwrap_err();
        assert!(matches!(error, ParametersError::Unfit(why) if why.contains("channel")));
        for text in ["[]", "null", "1", r#"["a"]"#, "[7"] {
            let error = decode::<OfChannel<'_>>(text).unwrap_err();
            assert!(
                matches!(error, ParametersError::Unfit(why) if why.contains("expected an object"))
            );
        }
    }

    #[test]
    fn a_list_is_read_up_to_its_maximum() {
        let list = |text| {
            serde_json::from_str::<List<u32, 2>>(text).map(|list| (list.items, list.is_too_long))
        };
        assert_eq!(list("[]").unwrap(), (vec![], false));
        assert_eq!(list("[1,2]").unwrap(), (vec![1, 2], false));
        assert_eq!(list("[1,2,3]").unwrap(), (vec![1, 2], true));
        assert_eq!(list("[1,2,{},[],null]").unwrap(), (vec![1, 2], true));
        assert!(list("[1,2,3").is_err());
        assert!(list("[1,\"2\"]").is_err());
    }

    #[test]
    fn a_command_of_a_batch_has_one_method() {
        let method = |text| decode::<BatchCommand<'_>>(text).map(|command| command.0);
        let (name, parameters) = method(r#"{"publish":{"channel":"a"}}"#).unwrap().unwrap();
        assert_eq!((&*name, parameters.get()), ("publish", r#"{"channel":"a"}"#));
        let (name, _) = method(r#"{"broadcast":null,"info":{}}"#).unwrap().unwrap();
        assert_eq!(name, "info");
        assert!(method("{}").unwrap().is_none());
        assert!(method(r#"{"info":{},"publish":{}}"#).is_err());
        assert!(method("[]").is_err());
    }

    #[test]
    fn a_position_is_read_if_it_can_be_one_of_ours() {
        let since = |text| decode::<Since<'_>>(text).unwrap();
        let position = Position { epoch: Epoch(0xab), offset: 7 };
        assert_eq!(since(r#"{"offset":7,"epoch":"000000ab"}"#).position(), Some(position));
        assert_eq!(since(r#"{"offset":7,"epoch":"qFhv"}"#).position(), None);
        assert!(since(r#"{"offset":0,"epoch":""}"#).is_start());
        assert!(since("{}").is_start());
        assert!(!since(r#"{"offset":0,"epoch":"000000ab"}"#).is_start());
        assert!(!since(r#"{"offset":1}"#).is_start());
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn results_have_centrifugos_shapes() {
        let position = Position { epoch: Epoch(1), offset: 2 };
        assert_eq!(
            written(|out| write_published(out, position)),
            json!({"offset": 2, "epoch": "00000001"})
        );
        let publication = |kind, bytes: &'static [u8]| Publication {
            channel: ChannelName::new("a").unwrap(),
            position,
            payload: Payload { event: Some("e".into()), ..Payload::new(kind, bytes) },
            accepted_us: 0,
        };
        let publications =
            [publication(PayloadKind::Json, b"{}"), publication(PayloadKind::Text, b"x")];
        let tags = json!({"event": "e"});
        assert_eq!(
            written(|out| write_history(out, position, publications.iter(), usize::MAX)),
            json!({"offset": 2, "epoch": "00000001", "publications": [
                {"data": {}, "offset": 2, "tags": tags}, {"data": "x", "offset": 2, "tags": tags}
            ]})
        );
        let cut = written(|out| write_history(out, position, publications.iter(), 20));
        assert_eq!(cut["publications"].as_array().unwrap().len(), 1);
        let session = SessionId { index: 1, generation: 2 };
        let clients = [0, 1].map(|worker| ClientName { worker: WorkerId(worker), session });
        assert_eq!(
            written(|out| write_presence(out, &clients, 5)),
            json!({"num_clients": 5, "presence": {
                "0-1-2": {"client": "0-1-2", "user": ""}, "1-1-2": {"client": "1-1-2", "user": ""}
            }})
        );
        assert_eq!(
            written(|out| write_presence_stats(out, 5)),
            json!({"num_clients": 5, "num_users": 1})
        );
        let channels = ["a", "b\"c"].map(|name| (ChannelName::new(name).unwrap(), 3));
        assert_eq!(
            written(|out| write_channels(out, &channels)),
            json!({"channels": {"a": {"num_clients": 3}, "b\"c": {"num_clients": 3}}})
        );
        let uptime = Duration::from_secs(7);
        let info = NodeInfo { uid: 1, connections: 2, channels: 3, subscriptions: 4, uptime };
        let node = written(|out| write_info(out, &info))["nodes"][0].clone();
        assert_eq!(node["uid"], "0000000000000001");
        assert_eq!((&node["num_clients"], &node["uptime"]), (&json!(2), &json!(7)));
        assert_eq!((&node["num_channels"], &node["num_subs"]), (&json!(3), &json!(4)));
        assert_eq!(
            written(|out| write_error(out, CommandError::BadRequest, Some("a \"b\""))),
            json!({"code": 107, "message": "bad request: a \"b\""})
        );
    }
}
