//! The server API in JSON: Centrifugo's shapes (github.com/centrifugal/centrifugo, `api.proto`, versions 5 and 6).
//!
//! The body of a call holds its method's parameters; the answer has a `result` or an `error`. A request for something
//! that is not offered is an error and never ignored, and so is an unknown member, which may be misspelt. A member that
//! only tunes Centrifugo (`parallel`) has no effect. `NotOffered` members are those of version 6.9.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::command::CommandError;
use super::json::{
    Object, OverrideDocument, put, write_client_info, write_item, write_json, write_line,
};
use crate::message::{ChannelName, ClientInfo, ConnectionInfo, NodeInfo, Position, Publication};

mod old;

pub use old::{OldCommand, OldMethod, decode_old};

macro_rules! api_methods {
    ($($(#[$doc:meta])* $name:ident => $text:literal;)*) => {
        /// The methods: the last part of the path, and the name of a command in a batch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ApiMethod { $($(#[$doc])* $name,)* }

        impl ApiMethod {
            /// The method with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(ApiMethod::$name),)* _ => None }
            }

            /// The name of the method.
            pub fn name(self) -> &'static str {
                match self { $(ApiMethod::$name => $text,)* }
            }
        }
    };
}

api_methods! {
    /// Publishes to a channel: [`Publish`].
    Publish => "publish";
    /// Publishes the same data to many channels: [`Publish`].
    Broadcast => "broadcast";
    /// Subscribes a client: [`OfClient`].
    Subscribe => "subscribe";
    /// Ends a client's subscription: [`OfClient`].
    Unsubscribe => "unsubscribe";
    /// Ends a client's connection: [`OfClient`].
    Disconnect => "disconnect";
    /// Reads a channel's history: [`History`].
    History => "history";
    /// Removes a channel's history: [`OfChannel`].
    HistoryRemove => "history_remove";
    /// Lists the clients that are subscribed to a channel: [`OfChannel`].
    Presence => "presence";
    /// Counts the clients that are subscribed to a channel: [`OfChannel`].
    PresenceStats => "presence_stats";
    /// Lists the channels with subscribers: [`Channels`].
    Channels => "channels";
    /// Describes the running nodes: [`Nothing`].
    Info => "info";
    /// Lists the connections of a user or of a channel: [`Connections`].
    Connections => "connections";
    /// Closes a user's connections, and refuses them for some time: [`BlockUser`].
    BlockUser => "block_user";
    /// Accepts a user's connections again: [`BlockUser`].
    UnblockUser => "unblock_user";
    /// Changes when clients expire: [`OfClient`].
    Refresh => "refresh";
    /// A method of Centrifugo that is not offered.
    Rpc => "rpc";
    /// Publishes to a map: not offered, like the following ones.
    MapPublish => "map_publish";
    /// Removes a key of a map.
    MapRemove => "map_remove";
    /// Reads the state of a map.
    MapReadState => "map_read_state";
    /// Reads the changes of a map.
    MapReadStream => "map_read_stream";
    /// Counts the keys of a map.
    MapStats => "map_stats";
    /// Removes all keys of a map.
    MapClear => "map_clear";
    /// Publishes to a poll that clients share.
    SharedPollPublish => "shared_poll_publish";
}

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParametersError {
    /// It is not JSON, with the reason.
    NotJson(String),
    /// It is JSON, but not the parameters of the method, with the reason.
    Unfit(String),
}

/// Decodes an object of parameters.
pub fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ParametersError> {
    match serde_json::from_str(text) {
        Ok(Object(parameters)) => Ok(parameters),
        Err(error) => Err(match error.classify() {
            // The text after the unfit value may not be JSON at all, which is reported first.
            Category::Data => match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => ParametersError::Unfit(error.to_string()),
                Err(error) => ParametersError::NotJson(error.to_string()),
            },
            Category::Io | Category::Syntax | Category::Eof => {
                ParametersError::NotJson(error.to_string())
            }
        }),
    }
}

/// The value of a member that is not offered.
pub type NotOffered<'a> = Option<&'a RawValue>;

/// Whether a member asks for anything: it may be sent with the value that its absence stands for.
pub fn is_asked(member: NotOffered<'_>) -> bool {
    let text = member.map_or("null", RawValue::get);
    !matches!(text, "null" | "false" | "0" | "\"\"" | "{}" | "[]")
}

/// Parameters of `publish` and `broadcast`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish<'a, const CHANNELS_MAX: usize> {
    /// The channel, for `publish`.
    #[serde(borrow)]
    pub channel: Option<Text<'a>>,
    /// The channels, for `broadcast`.
    #[serde(borrow)]
    pub channels: Option<List<Text<'a>, CHANNELS_MAX>>,
    /// The data as JSON; `null` is a value.
    #[serde(borrow, default, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
    /// The data as base64; takes precedence over `data` unless it is empty.
    #[serde(borrow)]
    pub b64data: Option<Text<'a>>,
    /// Tags of the publication; `event` is the type of event.
    pub tags: Option<BTreeMap<String, String>>,
    /// A key under which repetitions are published only once; empty for none.
    #[serde(borrow)]
    pub idempotency_key: Option<Text<'a>>,
    /// The id of a client that does not receive the publication; empty for none. Centrifugo has no such parameter.
    #[serde(borrow)]
    pub exclude: Option<Text<'a>>,
    /// Whether deltas are made of it.
    pub delta: Option<bool>,
    /// Whether the history is not to have the publication.
    pub skip_history: Option<bool>,
    /// The version of the publication; 0 for none.
    pub version: Option<u64>,
    /// The epoch of the version.
    #[serde(borrow)]
    pub version_epoch: Option<Text<'a>>,
}

/// Parameters of `subscribe`, `unsubscribe`, `disconnect` and `refresh`, each of which has some of these members.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfClient<'a, const WHITELIST_MAX: usize> {
    /// The user whose clients are concerned; empty for all anonymous clients.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// The id of the only client that is concerned.
    #[serde(borrow)]
    pub client: Option<Text<'a>>,
    /// The session of the only client that is concerned: the same as its id.
    #[serde(borrow)]
    pub session: Option<Text<'a>>,
    /// The ids of clients that are not disconnected.
    #[serde(borrow)]
    pub whitelist: Option<List<Text<'a>, WHITELIST_MAX>>,
    /// The name of the channel.
    #[serde(borrow)]
    pub channel: Option<Text<'a>>,
    /// The position from which to recover, for `subscribe`.
    #[serde(borrow)]
    pub recover_since: Option<Object<Since<'a>>>,
    /// The code and reason sent to the client, for `disconnect`.
    #[serde(borrow)]
    pub disconnect: Option<Object<DisconnectParameters<'a>>>,
    /// When the subscription or the connection expires, in seconds since 1970; 0 for never.
    pub expire_at: Option<i64>,
    /// Whether the connection has expired, for `refresh`.
    pub expired: Option<bool>,
    /// What others see of the subscriber, or of the client: JSON.
    #[serde(borrow)]
    pub info: Option<&'a RawValue>,
    /// The same in base64; takes precedence unless it is empty.
    #[serde(borrow)]
    pub b64info: Option<Text<'a>>,
    /// What the client gets with the subscription: JSON.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    /// The same in base64; takes precedence unless it is empty.
    #[serde(borrow)]
    pub b64data: Option<Text<'a>>,
    #[serde(borrow)]
    all_users: NotOffered<'a>,
    #[serde(borrow)]
    label_filter: NotOffered<'a>,
    /// Channel options that are replaced for the subscription.
    #[serde(rename = "override")]
    pub overrides: Option<Object<OverrideDocument>>,
}

impl<const WHITELIST_MAX: usize> OfClient<'_, WHITELIST_MAX> {
    /// The first member that asks for something that is not offered.
    pub fn not_offered(&self) -> Option<&'static str> {
        let members = [("all_users", self.all_users), ("label_filter", self.label_filter)];
        members.into_iter().find(|(_, value)| is_asked(*value)).map(|(name, _)| name)
    }

    /// The members that are there and that not every method has.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        let members = [
            ("whitelist", self.whitelist.as_ref().is_some_and(|list| !list.items.is_empty())),
            ("channel", self.channel.is_some()),
            ("recover_since", self.recover_since.is_some()),
            ("disconnect", self.disconnect.is_some()),
            ("expire_at", self.expire_at.is_some_and(|at| at != 0)),
            ("expired", self.expired == Some(true)),
            ("info", is_asked(self.info)),
            ("b64info", self.b64info.as_ref().is_some_and(|Text(text)| !text.is_empty())),
            ("data", is_asked(self.data)),
            ("b64data", self.b64data.as_ref().is_some_and(|Text(text)| !text.is_empty())),
            ("override", self.overrides.is_some()),
        ];
        members.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name)
    }
}

/// Parameters of `connections`: one of `user` and `channel`, or neither for all connections.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections<'a> {
    /// The user; empty for all anonymous clients.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// The channel that the clients are subscribed to.
    #[serde(borrow)]
    pub channel: Option<Text<'a>>,
    /// Whether the channels of each client are listed.
    pub channels: Option<bool>,
    #[serde(borrow)]
    expression: NotOffered<'a>,
}

impl Connections<'_> {
    /// The member that asks for something that is not offered.
    pub fn not_offered(&self) -> Option<&'static str> {
        is_asked(self.expression).then_some("expression")
    }
}

/// Parameters of `block_user` and `unblock_user`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockUser<'a> {
    /// The user to block or to unblock.
    #[serde(borrow)]
    pub user: Text<'a>,
    /// Until when it is blocked, in seconds since 1970; 0 for as long as the server runs.
    pub expire_at: Option<i64>,
}

/// The code and reason with which a client is disconnected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisconnectParameters<'a> {
    /// The code: clients reconnect after 3000..=3499 and 4000..=4499. 0 for the server's default.
    pub code: Option<u16>,
    /// The reason sent to the client; empty for the server's default.
    #[serde(borrow)]
    pub reason: Option<Text<'a>>,
}

/// A position in a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since<'a> {
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
}

/// Parameters of `history`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History<'a> {
    /// The name of the channel.
    #[serde(borrow)]
    pub channel: Text<'a>,
    /// Most publications to return: 0 if absent, as many as an answer may have if negative.
    pub limit: Option<i64>,
    /// The position after which to begin.
    #[serde(borrow)]
    pub since: Option<Object<Since<'a>>>,
    /// Whether the newest publication comes first.
    pub reverse: Option<bool>,
}

/// Parameters of `history_remove`, `presence` and `presence_stats`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfChannel<'a> {
    /// The name of the channel.
    #[serde(borrow)]
    pub channel: Text<'a>,
}

/// Parameters of `channels`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels<'a> {
    /// A pattern of names, in which `*` stands for any bytes; empty or absent for all channels.
    #[serde(borrow)]
    pub pattern: Option<Text<'a>>,
}

/// Parameters of `info`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Parameters of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandBatch<'a, const COMMANDS_MAX: usize> {
    /// The commands, each an object with one member: the method's name with its parameters.
    #[serde(borrow)]
    pub commands: List<&'a RawValue, COMMANDS_MAX>,
    #[serde(default)]
    #[expect(dead_code, reason = "commands are executed in order, without waiting")]
    parallel: Option<bool>,
}

/// A command of a batch: the name of its method, and its parameters. `None` if it is empty.
#[derive(Debug)]
pub struct BatchCommand<'a>(pub Option<(Cow<'a, str>, &'a RawValue)>);

/// A string, which is borrowed if it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A list of which at most `MAX` items are kept.
#[derive(Debug)]
pub struct List<T, const MAX: usize> {
    /// The first items, up to the maximum.
    pub items: Vec<T>,
    /// Whether there were more.
    pub is_too_long: bool,
}

impl Since<'_> {
    /// The position in the channel's stream.
    pub fn position(&self) -> Position {
        Position::since(self.offset, self.epoch.as_ref().map_or("", |Text(epoch)| epoch))
    }
}

/// Decodes a member whose value may be `null`.
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

/// Appends an error: `{"code":107,"message":"bad request: ..."}`.
pub fn write_error(out: &mut Vec<u8>, error: CommandError, detail: Option<&str>) {
    put(out, format_args!("{{\"code\":{},\"message\":", error.code()));
    match detail {
        None => write_json(out, error.message()),
        Some(detail) => write_json(out, &format!("{}: {detail}", error.message())),
    }
    out.push(b'}');
}

/// Appends the result of `publish`. Its `suppressed` says that the publication was dropped because of its version; that
/// is an addition to Centrifugo's result, in the words of its `map_publish`.
pub fn write_published(out: &mut Vec<u8>, Position { epoch, offset }: Position, is_outdated: bool) {
    if offset == 0 {
        // It is not in the stream.
        return out.extend_from_slice(b"{}");
    }
    put(out, format_args!("{{\"offset\":{offset},\"epoch\":\"{epoch}\""));
    if is_outdated {
        out.extend_from_slice(b",\"suppressed\":true,\"suppress_reason\":\"version\"");
    }
    out.push(b'}');
}

/// Appends the result of `history`, which ends once it has more than `bytes_max` bytes.
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

/// Appends the result of `presence`. Its `num_clients` is an addition to Centrifugo's, and tells whether all clients
/// are listed.
pub fn write_presence(out: &mut Vec<u8>, clients: &[ClientInfo], client_count: u64) {
    out.extend_from_slice(b"{\"presence\":{");
    for (index, info) in clients.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        put(out, format_args!("{comma}\"{}\":", info.client));
        write_client_info(out, info);
    }
    put(out, format_args!("}},\"num_clients\":{client_count}}}"));
}

/// Appends the result of `presence_stats`.
pub fn write_presence_stats(out: &mut Vec<u8>, client_count: u64, user_count: u64) {
    put(out, format_args!("{{\"num_clients\":{client_count},\"num_users\":{user_count}}}"));
}

/// Appends the result of `channels`.
pub fn write_channels(out: &mut Vec<u8>, channels: &[(ChannelName, u64)]) {
    out.extend_from_slice(b"{\"channels\":{");
    for (index, (channel, client_count)) in channels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json(out, channel.as_str());
        put(out, format_args!(":{{\"num_clients\":{client_count}}}"));
    }
    out.extend_from_slice(b"}}");
}

/// Appends the result of `connections`: each by its id, as Centrifugo PRO does. `truncated` tells whether there are
/// more.
pub fn write_connections(out: &mut Vec<u8>, connections: &[ConnectionInfo], is_truncated: bool) {
    out.extend_from_slice(b"{\"connections\":{");
    for (index, connection) in connections.iter().enumerate() {
        let ConnectionInfo { client, transport, is_protobuf, channels } = connection;
        let protocol = if *is_protobuf { "protobuf" } else { "json" };
        let comma = if index > 0 { "," } else { "" };
        put(out, format_args!("{comma}\"{}\":{{\"user\":", client.client));
        write_json(out, client.user.as_deref().unwrap_or_default());
        let transport = transport.label();
        put(out, format_args!(",\"transport\":\"{transport}\",\"protocol\":\"{protocol}\""));
        if let Some(info) = &client.conn_info {
            out.extend_from_slice(b",\"info\":");
            write_line(out, info);
        }
        if let Some(channels) = channels {
            out.extend_from_slice(b",\"channels\":[");
            for (index, channel) in channels.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json(out, channel.as_str());
            }
            out.push(b']');
        }
        out.push(b'}');
    }
    put(out, format_args!("}},\"truncated\":{is_truncated}}}"));
}

/// Appends the result of `info`.
pub fn write_info(out: &mut Vec<u8>, info: &NodeInfo) {
    let NodeInfo { node, clients, users, channels, subscriptions, uptime } = info;
    let version = env!("CARGO_PKG_VERSION");
    put(
        out,
        format_args!(
            "{{\"nodes\":[{{\"uid\":\"{node}\",\"name\":\"fantail\",\"version\":\"{version}\",\
             \"num_clients\":{clients},\"num_users\":{users},\"num_channels\":{channels},\
             \"num_subs\":{subscriptions},\"uptime\":{}}}]}}",
            uptime.as_secs()
        ),
    );
}

#[cfg(test)]
mod tests;
