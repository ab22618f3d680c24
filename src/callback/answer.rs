//! The answers of a backend: `{"result":{…}}`, `{"error":{…}}` or `{"disconnect":{…}}`, as Centrifugo takes them.
//!
//! If there are several, `disconnect` comes before `error`, and `error` before `result`; an empty object is a result
//! with nothing in it. Unknown fields are ignored, and `null` counts as absent.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::CallbackKind;
use crate::config::limits::{
    CALLBACK_ERROR_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, PAYLOAD_DEPTH_MAX, TAGS_BYTES_MAX,
    TAGS_MAX, VERSION_EPOCH_BYTES_MAX,
};
use crate::message::{
    BackendError, ChannelName, CloseReason, Disconnect, Identity, Payload, PayloadKind,
    PublishOptions, SubscriptionOptions, Tags, Version,
};
use crate::protocol::json::{
    Object, SubscriptionDocument, SubscriptionDocuments, exceeds_depth, kind_of_data, line_of_value,
};

/// What a backend says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It did what it was asked.
    Result(CallbackResult),
    /// It refuses: the client gets this error.
    Error(BackendError),
    /// The client is to be disconnected.
    Disconnect(Disconnect),
}

/// The result of a callback, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum CallbackResult {
    /// The identity of the client; `None` if the backend does not say.
    Connect(Option<Box<ConnectResult>>),
    /// The client may subscribe, and this is said about the subscription.
    Subscribe { options: Box<SubscriptionOptions> },
    /// The client may publish: this payload, or what it gave. With tags and options, if there are any.
    Publish {
        payload: Option<Payload>,
        tags: Option<Arc<Tags>>,
        options: Option<Arc<PublishOptions>>,
    },
    /// The events are taken.
    Events,
    /// What a procedure returned.
    Rpc { data: Option<Payload> },
}

/// The identity of a client, and what follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectResult {
    /// The identity of the client.
    pub identity: Identity,
    /// What the client gets, a JSON value on one line.
    pub data: Option<Bytes>,
    /// The channels that the server subscribes it to, each once.
    pub subscriptions: Vec<(ChannelName, SubscriptionOptions)>,
}

/// The answer is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

impl Answer {
    /// About how many bytes it keeps on the heap.
    pub fn bytes(&self) -> usize {
        match self {
            Answer::Result(CallbackResult::Connect(result)) => {
                result.as_ref().map_or(0, |result| result.bytes())
            }
            Answer::Result(CallbackResult::Events) => 0,
            Answer::Result(CallbackResult::Subscribe { options }) => options.heap_bytes(),
            Answer::Result(CallbackResult::Publish { payload, tags, options }) => {
                payload.as_ref().map_or(0, Payload::heap_bytes)
                    + tags.as_ref().map_or(0, |tags| tags.heap_bytes())
                    + options.as_ref().map_or(0, |options| options.heap_bytes())
            }
            Answer::Result(CallbackResult::Rpc { data }) => {
                data.as_ref().map_or(0, Payload::heap_bytes)
            }
            Answer::Error(error) => error.message.len(),
            Answer::Disconnect(disconnect) => disconnect.text.as_ref().map_or(0, |text| text.len()),
        }
    }
}

impl ConnectResult {
    fn bytes(&self) -> usize {
        let Self { identity: Identity { user, info, .. }, data, subscriptions } = self;
        let of_channel = |(name, options): &(ChannelName, SubscriptionOptions)| {
            name.as_str().len() + options.heap_bytes()
        };
        user.as_ref().map_or(0, |user| user.len())
            + [info, data].into_iter().flatten().map(Bytes::len).sum::<usize>()
            + subscriptions.iter().map(of_channel).sum::<usize>()
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<Object<ErrorBody<'a>>>,
    #[serde(borrow)]
    disconnect: Option<Object<DisconnectBody<'a>>>,
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(default)]
    code: Option<u32>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    temporary: Option<bool>,
}

#[derive(Deserialize)]
struct DisconnectBody<'a> {
    code: Option<u32>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct ConnectBody<'a> {
    user: Option<String>,
    expire_at: Option<i64>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Cow<'a, str>>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<SubscriptionDocuments<'a>>,
}

#[derive(Default, Deserialize)]
struct SubscribeBody {
    expire_at: Option<i64>,
}

#[derive(Default, Deserialize)]
struct PublishBody<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Cow<'a, str>>,
    tags: Option<BTreeMap<String, String>>,
    skip_history: Option<bool>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'a, str>>,
    version: Option<u64>,
    #[serde(borrow)]
    version_epoch: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct RpcBody<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Cow<'a, str>>,
}

/// Decodes the body of an answer with status 200.
pub fn decode_answer(kind: CallbackKind, body: &[u8]) -> Result<Answer, Fault> {
    let Object(Envelope { result, error, disconnect }) =
        serde_json::from_slice(body).map_err(|_| Fault)?;
    if let Some(Object(body)) = disconnect {
        return Ok(Answer::Disconnect(body.disconnect()));
    }
    if let Some(Object(ErrorBody { code, message, temporary })) = error {
        let message = message.unwrap_or_default();
        if message.len() > CALLBACK_ERROR_BYTES_MAX {
            return Err(Fault);
        }
        return Ok(Answer::Error(BackendError {
            code: code.unwrap_or(0),
            message: Arc::from(message),
            is_temporary: temporary == Some(true),
        }));
    }
    let result = match kind {
        CallbackKind::Connect => {
            let body = result.map(|result| decode(Some(result))).transpose()?;
            CallbackResult::Connect(body.map(ConnectBody::result).transpose()?.map(Box::new))
        }
        CallbackKind::Subscribe => {
            let SubscribeBody { expire_at } = decode(result)?;
            let expires_at = time(expire_at);
            let document: SubscriptionDocument<'_> = decode(result)?;
            let options = document.options(expires_at, PAYLOAD_DEPTH_MAX).map_err(|_| Fault)?;
            CallbackResult::Subscribe { options: Box::new(options) }
        }
        CallbackKind::Publish => {
            let mut body: PublishBody<'_> = decode(result)?;
            let tags = tags_of(body.tags.take())?;
            let options = options_of(&body)?;
            let payload = payload(body.data, body.b64data)?;
            CallbackResult::Publish { payload, tags, options }
        }
        // What it says about events has no meaning.
        CallbackKind::Events => return Err(Fault),
        CallbackKind::Rpc => {
            let RpcBody { data, b64data } = decode(result)?;
            CallbackResult::Rpc { data: payload(data, b64data)? }
        }
    };
    Ok(Answer::Result(result))
}

fn decode<'a, T: Default + Deserialize<'a>>(result: Option<&'a RawValue>) -> Result<T, Fault> {
    let Some(result) = result else { return Ok(T::default()) };
    let decoded = serde_json::from_str(result.get());
    decoded.map(|Object(body)| body).map_err(|_| Fault)
}

/// The data of a result. With both, Centrifugo takes `b64data`.
fn payload(
    data: Option<&RawValue>,
    b64data: Option<Cow<'_, str>>,
) -> Result<Option<Payload>, Fault> {
    if let Some(text) = b64data.filter(|text| !text.is_empty()) {
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| Fault)?;
        return Ok(Some(Payload::new(kind_of_data(&bytes, PAYLOAD_DEPTH_MAX), bytes)));
    }
    let Some(data) = data else { return Ok(None) };
    if exceeds_depth(data.get().as_bytes(), PAYLOAD_DEPTH_MAX) {
        return Err(Fault);
    }
    let bytes = Bytes::copy_from_slice(data.get().as_bytes());
    Ok(Some(Payload::new(PayloadKind::Json, bytes)))
}

/// A time in seconds since 1970; one that is not positive means never.
fn time(at: Option<i64>) -> Option<u64> {
    at.filter(|at| *at > 0).map(i64::unsigned_abs)
}

impl ConnectBody<'_> {
    fn result(self) -> Result<ConnectResult, Fault> {
        let line = |json, base64: Option<Cow<'_, str>>| {
            line_of_value(json, base64.as_deref(), PAYLOAD_DEPTH_MAX).map_err(|_| Fault)
        };
        let identity = Identity {
            user: self.user.filter(|user| !user.is_empty()).map(Arc::from),
            info: line(self.info, self.b64info)?,
            expires_at: time(self.expire_at),
        };
        identity.check().map_err(|_| Fault)?;
        let SubscriptionDocuments(mut documents) =
            self.subs.unwrap_or(SubscriptionDocuments(Vec::new()));
        let named: HashSet<_> = documents.iter().map(|(name, _)| name.clone()).collect();
        let mut seen = HashSet::new();
        for name in self.channels.unwrap_or_default() {
            if !named.contains(&name) && seen.insert(name.clone()) {
                documents.push((name, SubscriptionDocument::default()));
            }
        }
        let read = |(name, document): (String, SubscriptionDocument<'_>)| {
            let options = document.options(None, PAYLOAD_DEPTH_MAX).map_err(|_| Fault)?;
            Ok((ChannelName::new(&name).map_err(|_| Fault)?, options))
        };
        let subscriptions = documents.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(ConnectResult { identity, data: line(self.data, self.b64data)?, subscriptions })
    }
}

fn tags_of(tags: Option<BTreeMap<String, String>>) -> Result<Option<Arc<Tags>>, Fault> {
    let tags = tags.unwrap_or_default();
    let bytes: usize = tags.iter().map(|(name, text)| name.len() + text.len()).sum();
    if tags.len() > TAGS_MAX || bytes > TAGS_BYTES_MAX {
        return Err(Fault);
    }
    let tags = tags.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    Tags::new(tags).map_err(|_| Fault)
}

/// What a publication asks for beside its payload. Every publication of a channel with a history is kept, so one that
/// is not to be kept is not made.
fn options_of(body: &PublishBody<'_>) -> Result<Option<Arc<PublishOptions>>, Fault> {
    let PublishBody { skip_history, idempotency_key, version, version_epoch, .. } = body;
    let [key, epoch] =
        [idempotency_key, version_epoch].map(|text| text.as_deref().unwrap_or_default());
    if *skip_history == Some(true)
        || key.len() > IDEMPOTENCY_KEY_BYTES_MAX
        || epoch.len() > VERSION_EPOCH_BYTES_MAX
    {
        return Err(Fault);
    }
    let number = version.and_then(NonZeroU64::new);
    let options = PublishOptions {
        idempotency_key: (!key.is_empty()).then(|| key.into()),
        version: number.map(|number| Version { number, epoch: epoch.into() }),
        exclude: None,
    };
    Ok((options != PublishOptions::default()).then(|| options.into()))
}

impl DisconnectBody<'_> {
    /// A code that a close frame cannot carry, and a reason that does not fit it, are replaced by those of a forced
    /// disconnect: the client is to go in any case.
    fn disconnect(self) -> Disconnect {
        let reason = CloseReason::Backend;
        let code = self.code.and_then(|code| u16::try_from(code).ok());
        let text = self.reason.filter(|text| !text.is_empty() && Disconnect::is_text(text));
        Disconnect {
            reason,
            code: code.filter(|code| (3000..=4999).contains(code)),
            text: text.map(Arc::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{INFO_BYTES_MAX, Overrides, USER_BYTES_MAX};

    fn decode(text: &str) -> Result<Answer, Fault> {
        decode_answer(CallbackKind::Rpc, text.as_bytes())
    }

    fn rpc(data: &str) -> Result<Answer, Fault> {
        let data = Some(Payload::new(PayloadKind::Json, data.to_owned()));
        Ok(Answer::Result(CallbackResult::Rpc { data }))
    }

    const NOTHING: Result<Answer, Fault> = Ok(Answer::Result(CallbackResult::Rpc { data: None }));

    #[test]
    fn a_result_has_the_data_as_it_is() {
        assert_eq!(decode(r#"{"result":{"data":{"a": [1]}}}"#), rpc(r#"{"a": [1]}"#));
        assert_eq!(decode(r#"{"x":1,"result":{"y":2,"data":"text"}}"#), rpc(r#""text""#));
        assert_eq!(decode(r#"{"result":{"b64data":"WzFd"}}"#), rpc("[1]"));
        let binary = Some(Payload::new(PayloadKind::Binary, vec![255]));
        assert_eq!(
            decode(r#"{"result":{"b64data":"/w==","data":1}}"#),
            Ok(Answer::Result(CallbackResult::Rpc { data: binary }))
        );
        for empty in ["{}", r#"{"result":null}"#, r#"{"result":{}}"#, r#"{"result":{"data":null}}"#]
        {
            assert_eq!(decode(empty), NOTHING, "{empty}");
        }
    }

    #[test]
    fn a_disconnect_comes_before_an_error_and_an_error_before_a_result() {
        let [disconnect, error] =
            [r#""disconnect":{"code":4000,"reason":"x"}"#, r#""error":{"code":50,"message":"m"}"#];
        let code = |text: &str| match decode(text).unwrap() {
            Answer::Disconnect(disconnect) => u32::from(disconnect.disconnect_code()),
            Answer::Error(error) => error.code,
            Answer::Result(_) => 0,
        };
        assert_eq!(code(&format!(r#"{{"result":{{}},{error},{disconnect}}}"#)), 4000);
        assert_eq!(code(&format!(r#"{{"result":{{}},{error},"disconnect":null}}"#)), 50);
        assert_eq!(code(r#"{"error":null,"result":{}}"#), 0);
        let temporary = decode(r#"{"error":{"code":1000,"message":"m","temporary":true}}"#);
        let expected = BackendError { code: 1000, message: "m".into(), is_temporary: true };
        assert_eq!(temporary, Ok(Answer::Error(expected)));
    }

    #[test]
    fn a_disconnect_has_a_code_and_a_reason_that_a_close_frame_can_carry() {
        let of = |code: &str, reason: &str| {
            let text = format!(r#"{{"disconnect":{{"code":{code},"reason":"{reason}"}}}}"#);
            match decode(&text) {
                Ok(Answer::Disconnect(one)) => (one.disconnect_code(), one.text().to_owned()),
                other => panic!("{other:?}"),
            }
        };
        for code in [3000, 4000, 4999] {
            assert_eq!(of(&code.to_string(), "out"), (code, "out".to_owned()));
        }
        let own = CloseReason::Backend;
        for code in ["0", "100", "2999", "5000", "65536", "4294967295"] {
            assert_eq!(of(code, "out").0, own.disconnect_code(), "{code}");
        }
        assert_eq!(of("4000", &"x".repeat(123)).1, "x".repeat(123));
        for reason in [&*"x".repeat(124), "a\\nb", ""] {
            assert_eq!(of("4000", reason).1, own.label(), "{reason}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_a_fault() {
        let deep = |depth: usize| {
            format!(r#"{{"result":{{"data":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert!(decode(&deep(PAYLOAD_DEPTH_MAX)).is_ok());
        let message = |bytes: usize| {
            format!(r#"{{"error":{{"code":1000,"message":"{}"}}}}"#, "x".repeat(bytes))
        };
        assert!(decode(&message(CALLBACK_ERROR_BYTES_MAX)).is_ok());
        for text in [
            "",
            "not json",
            "[]",
            "null",
            "1",
            r#"{"result":[]}"#,
            r#"{"result":1}"#,
            r#"{"result":{}} x"#,
            r#"{"result":{"b64data":"?"}}"#,
            r#"{"result":{"b64data":1}}"#,
            r#"{"result":{},"result":{}}"#,
            r#"{"error":"no"}"#,
            r#"{"error":{"code":-1}}"#,
            r#"{"error":{"code":"1"}}"#,
            r#"{"error":{"code":1.5}}"#,
            r#"{"error":{"code":4294967296}}"#,
            r#"{"disconnect":[4000,"x"]}"#,
            r#"{"disconnect":{"code":null,"reason":7}}"#,
            &deep(PAYLOAD_DEPTH_MAX + 1),
            &deep(100_000),
            &message(CALLBACK_ERROR_BYTES_MAX + 1),
        ] {
            assert_eq!(decode(text), Err(Fault), "{}", &text[..text.len().min(100)]);
        }
        assert_eq!(
            decode_answer(CallbackKind::Rpc, b"{\"result\":{\"data\":\"\xff\"}}"),
            Err(Fault)
        );
    }

    #[test]
    fn a_publication_is_allowed_as_it_is_or_with_other_data() {
        let publish = |text: &str| match decode_answer(CallbackKind::Publish, text.as_bytes()) {
            Ok(Answer::Result(CallbackResult::Publish { payload, tags, options: None })) => Ok((
                payload,
                tags.map(|tags| tags.iter().map(|(a, b)| format!("{a}={b}")).collect()),
            )),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault),
        };
        let tagged =
            |tags: &[&str]| Some(tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>());
        assert_eq!(publish("{}"), Ok((None, None)));
        let json = Payload::new(PayloadKind::Json, "[1]");
        let text = r#"{"result":{"data":[1],"tags":{"b":"2","a":"1"}}}"#;
        assert_eq!(publish(text), Ok((Some(json.clone()), tagged(&["a=1", "b=2"]))));
        assert_eq!(publish(r#"{"result":{"b64data":"WzFd","tags":{}}}"#), Ok((Some(json), None)));
        let binary = Payload::new(PayloadKind::Binary, "hi");
        assert_eq!(publish(r#"{"result":{"b64data":"aGk="}}"#), Ok((Some(binary), None)));
        let many = |count: usize, bytes: usize| {
            let tags: Vec<_> =
                (0..count).map(|n| format!("\"{n:0>4}\":\"{}\"", "x".repeat(bytes))).collect();
            publish(&format!(r#"{{"result":{{"tags":{{{}}}}}}}"#, tags.join(",")))
        };
        assert!(many(TAGS_MAX, 1).is_ok() && many(1, TAGS_BYTES_MAX - 4).is_ok());
        assert_eq!(many(TAGS_MAX + 1, 1), Err(Fault));
        assert_eq!(many(1, TAGS_BYTES_MAX - 3), Err(Fault));
        for text in [
            r#"{"result":{"tags":{"event":"join"}}}"#,
            r#"{"result":{"tags":{"a":1}}}"#,
            r#"{"result":{"tags":[]}}"#,
            r#"{"result":{"skip_history":true}}"#,
            r#"{"result":{"version":"1"}}"#,
            r#"{"result":{"version":-1}}"#,
            r#"{"result":{"data":1,"data":2}}"#,
        ] {
            assert_eq!(publish(text), Err(Fault), "{text}");
        }
    }

    #[test]
    fn a_publication_may_have_a_key_and_a_version() {
        let options = |text: String| match decode_answer(CallbackKind::Publish, text.as_bytes()) {
            Ok(Answer::Result(CallbackResult::Publish { options, .. })) => Ok(options),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault),
        };
        let of = |key: usize, epoch: usize| {
            let [key, epoch] = [key, epoch].map(|bytes| "x".repeat(bytes));
            let members = format!(r#""idempotency_key":"{key}","version_epoch":"{epoch}""#);
            options(format!(r#"{{"result":{{"version":7,"skip_history":false,{members}}}}}"#))
        };
        let version = Version { number: NonZeroU64::new(7).unwrap(), epoch: "xx".into() };
        let expected = PublishOptions {
            idempotency_key: Some("x".into()),
            version: Some(version),
            exclude: None,
        };
        assert_eq!(of(1, 2), Ok(Some(Arc::new(expected))));
        assert!(of(IDEMPOTENCY_KEY_BYTES_MAX, VERSION_EPOCH_BYTES_MAX).is_ok());
        assert_eq!(of(IDEMPOTENCY_KEY_BYTES_MAX + 1, 0), Err(Fault));
        assert_eq!(of(0, VERSION_EPOCH_BYTES_MAX + 1), Err(Fault));
        assert_eq!(
            options(r#"{"result":{"version":0,"idempotency_key":""}}"#.to_owned()),
            Ok(None)
        );
    }

    #[test]
    fn a_subscription_is_allowed_with_what_is_said_about_it() {
        let subscribe = |text: &str| match decode_answer(CallbackKind::Subscribe, text.as_bytes()) {
            Ok(Answer::Result(CallbackResult::Subscribe { options })) => Ok(*options),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault),
        };
        assert_eq!(subscribe("{}"), Ok(SubscriptionOptions::default()));
        let text = r#"{"result":{"info":{"a":1},"data":[2],"expire_at":1700000000,"x":1,
            "override":{"presence":{"value":true},"force_recovery":{"value":false},"x":1}}}"#;
        let expected = SubscriptionOptions {
            info: Some("{\"a\":1}".into()),
            data: Some("[2]".into()),
            expires_at: Some(1_700_000_000),
            overrides: Overrides {
                presence: Some(true),
                force_recovery: Some(false),
                ..Overrides::default()
            },
        };
        assert_eq!(subscribe(text), Ok(expected));
        for never in ["0", "-1", "null"] {
            let text = format!(r#"{{"result":{{"expire_at":{never}}}}}"#);
            assert_eq!(subscribe(&text), Ok(SubscriptionOptions::default()), "{never}");
        }
        let info = |bytes: usize| {
            subscribe(&format!(r#"{{"result":{{"info":"{}"}}}}"#, "x".repeat(bytes - 2)))
        };
        assert!(info(INFO_BYTES_MAX).is_ok());
        assert_eq!(info(INFO_BYTES_MAX + 1), Err(Fault));
        for text in [
            r#"{"result":{"expire_at":"1"}}"#,
            r#"{"result":{"expire_at":1.5}}"#,
            r#"{"result":{"override":{"presence":true}}}"#,
            r#"{"result":{"b64info":"?"}}"#,
        ] {
            assert_eq!(subscribe(text), Err(Fault), "{text}");
        }
    }

    #[test]
    fn a_client_is_who_the_backend_says() {
        let connect = |text: &str| match decode_answer(CallbackKind::Connect, text.as_bytes()) {
            Ok(Answer::Result(CallbackResult::Connect(result))) => Ok(result.map(|result| *result)),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault),
        };
        assert_eq!(connect("{}"), Ok(None), "it does not say");
        assert_eq!(connect(r#"{"result":null}"#), Ok(None));
        assert_eq!(connect(r#"{"result":{"user":""}}"#), Ok(Some(ConnectResult::default())));
        let text = r#"{"result":{"user":"u","expire_at":7,"info":[1],"b64data":"WzJd","meta":{},
            "caps":[],"channels":["b","a","b"],"subs":{"a":{"data":3}}}}"#;
        let channel = |name: &str| ChannelName::new(name).unwrap();
        let options = SubscriptionOptions { data: Some("3".into()), ..Default::default() };
        let expected = ConnectResult {
            identity: Identity {
                user: Some("u".into()),
                info: Some("[1]".into()),
                expires_at: Some(7),
            },
            data: Some("[2]".into()),
            subscriptions: vec![(channel("a"), options), (channel("b"), Default::default())],
        };
        assert_eq!(connect(text), Ok(Some(expected)));
        let user =
            |bytes: usize| connect(&format!(r#"{{"result":{{"user":"{}"}}}}"#, "x".repeat(bytes)));
        assert!(user(USER_BYTES_MAX).is_ok());
        assert_eq!(user(USER_BYTES_MAX + 1), Err(Fault));
        for text in [
            r#"{"result":{"user":7}}"#,
            r#"{"result":{"channels":"a"}}"#,
            r#"{"result":{"channels":[""]}}"#,
            r#"{"result":{"subs":["a"]}}"#,
            r#"{"result":{"subs":{"a":{},"a":{}}}}"#,
            r#"{"result":{"subs":{"a":{"info":1,"info":2}}}}"#,
        ] {
            assert_eq!(connect(text), Err(Fault), "{text}");
        }
    }
}
