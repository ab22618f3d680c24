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
    BackendError, ChannelName, CloseReason, Disconnect, INFO_BYTES_MAX, Identity, Payload,
    PayloadKind, PublishOptions, Renewal, SubscriptionOptions, Tags, Version,
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
    /// Whether a client or a subscription that has expired goes on.
    Renewal {
        renewal: Renewal,
        /// Replaces what the backend keeps with the connection.
        meta: Option<Bytes>,
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
    /// What the backend keeps with the connection, a JSON value on one line.
    pub meta: Option<Bytes>,
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
            Answer::Result(CallbackResult::Renewal { renewal, meta }) => {
                let info = match renewal {
                    Renewal::Prolonged { info, .. } => info.as_ref(),
                    Renewal::Expired => None,
                };
                [info, meta.as_ref()].into_iter().flatten().map(Bytes::len).sum()
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
        let Self { identity: Identity { user, info, .. }, data, meta, subscriptions } = self;
        let of_channel = |(name, options): &(ChannelName, SubscriptionOptions)| {
            name.as_str().len() + options.heap_bytes()
        };
        user.as_ref().map_or(0, |user| user.len())
            + [info, data, meta].into_iter().flatten().map(Bytes::len).sum::<usize>()
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
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<SubscriptionDocuments<'a>>,
}

#[derive(Default, Deserialize)]
struct RenewalBody<'a> {
    expired: Option<bool>,
    expire_at: Option<i64>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
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
    delta: Option<bool>,
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
    if matches!(kind, CallbackKind::Refresh | CallbackKind::SubRefresh) {
        // As with Centrifugo, nothing but a result prolongs, and nothing but its absence is an answer beside it.
        let body = result.map(|result| decode(Some(result))).transpose()?;
        let (renewal, meta) = body.map_or(Ok((Renewal::Expired, None)), RenewalBody::renewal)?;
        return Ok(Answer::Result(CallbackResult::Renewal { renewal, meta }));
    }
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
        CallbackKind::Events | CallbackKind::Refresh | CallbackKind::SubRefresh => {
            return Err(Fault);
        }
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

impl RenewalBody<'_> {
    fn renewal(self) -> Result<(Renewal, Option<Bytes>), Fault> {
        if self.expired == Some(true) {
            return Ok((Renewal::Expired, None));
        }
        let info = line_of_value(self.info, self.b64info.as_deref(), PAYLOAD_DEPTH_MAX);
        let info = info.map_err(|_| Fault)?;
        if info.as_ref().is_some_and(|info| info.len() > INFO_BYTES_MAX) {
            return Err(Fault);
        }
        Ok((Renewal::Prolonged { expires_at: time(self.expire_at), info }, meta_of(self.meta)?))
    }
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
        let data = line(self.data, self.b64data)?;
        Ok(ConnectResult { identity, data, meta: meta_of(self.meta)?, subscriptions })
    }
}

/// What the backend keeps with a connection: as long as what others see of a client, at most.
fn meta_of(meta: Option<&RawValue>) -> Result<Option<Bytes>, Fault> {
    let meta = line_of_value(meta, None, PAYLOAD_DEPTH_MAX).map_err(|_| Fault)?;
    let is_short = meta.as_ref().is_none_or(|meta| meta.len() <= INFO_BYTES_MAX);
    is_short.then_some(meta).ok_or(Fault)
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

/// What a publication asks for beside its payload.
fn options_of(body: &PublishBody<'_>) -> Result<Option<Arc<PublishOptions>>, Fault> {
    let PublishBody { skip_history, idempotency_key, version, version_epoch, delta, .. } = body;
    let [key, epoch] =
        [idempotency_key, version_epoch].map(|text| text.as_deref().unwrap_or_default());
    if key.len() > IDEMPOTENCY_KEY_BYTES_MAX || epoch.len() > VERSION_EPOCH_BYTES_MAX {
        return Err(Fault);
    }
    let number = version.and_then(NonZeroU64::new);
    let options = PublishOptions {
        idempotency_key: (!key.is_empty()).then(|| key.into()),
        version: number.map(|number| Version { number, epoch: epoch.into() }),
        exclude: None,
        delta: *delta == Some(true),
        skip_history: *skip_history == Some(true),
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
mod tests;
