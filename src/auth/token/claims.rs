//! The claims of tokens.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::TokenError;
use crate::config::limits::PAYLOAD_DEPTH_MAX;
use crate::message::{
    ChannelName, INFO_BYTES_MAX, Identity, Overrides, PayloadKind, SubscriptionOptions,
};
use crate::protocol::json::{self, Object};

/// What a token of a connection claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// The identity of the client. It expires at `expire_at` of the token, or if that is absent, when the token does.
    pub identity: Identity,
    /// The channels that the client is subscribed to by the server, each once: those of the claim `subs`, or if that is
    /// absent or empty, those of `channels`.
    pub subscriptions: Vec<(ChannelName, SubscriptionOptions)>,
    /// A JSON value for backends, which is never sent to clients.
    pub meta: Option<Bytes>,
}

/// What a token of a subscription claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionClaims {
    /// The user that it is for; `None` if it is for clients without a user.
    pub user: Option<Arc<str>>,
    /// The channel that it is for.
    pub channel: ChannelName,
    /// The id of the client that it is for, as text; `None` if it is for every client of the user.
    pub client: Option<String>,
    /// What it says about the subscription, which expires at `expire_at` of the token, or if that is absent, when the
    /// token does.
    pub options: SubscriptionOptions,
}

/// Claims that a token may consist of, by its use.
pub(super) trait Claims: Sized {
    /// Reads the claims, of which the registered ones have been read.
    fn read(claims: &[u8], registered: &Registered<'_>) -> Result<Self, TokenError>;
}

/// Reads claims. Those that are not asked for are ignored; those that are must be there once, and be spelt exactly.
pub(super) fn read<'a, T: Deserialize<'a>>(claims: &'a [u8]) -> Result<T, TokenError> {
    let object = serde_json::from_slice(claims).map_err(|_| TokenError::Claims);
    object.map(|Object(claims)| claims)
}

/// The claims of RFC 7519 4.1 that every token may have.
#[derive(serde::Deserialize)]
pub(super) struct Registered<'a> {
    sub: Option<String>,
    exp: Option<Seconds>,
    nbf: Option<Seconds>,
    // It says nothing that is judged, but must be a time.
    #[serde(rename = "iat")]
    _iat: Option<Seconds>,
    aud: Option<Audience>,
    iss: Option<String>,
    expire_at: Option<Seconds>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
}

impl Registered<'_> {
    pub(super) fn is_for(&self, audience: &str) -> bool {
        self.aud.as_ref().is_some_and(|Audience(all)| all.iter().any(|one| one == audience))
    }

    pub(super) fn is_by(&self, issuer: &str) -> bool {
        self.iss.as_deref() == Some(issuer)
    }

    /// Checks `exp` and `nbf`. `now` is in seconds since 1970, as these are.
    pub(super) fn check_time(&self, now: u64, leeway: Duration) -> Result<(), TokenError> {
        let (now, leeway) = (now as f64, leeway.as_secs_f64());
        // RFC 7519 4.1.4: not accepted "on or after" this time.
        if self.exp.is_some_and(|Seconds(exp)| now >= exp + leeway) {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|Seconds(nbf)| now < nbf - leeway) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }

    /// When what the token is for expires. A time that is not positive means never, which `expire_at` is there for: a
    /// token that expires soon can then be for a connection that does not.
    fn expires_at(&self) -> Option<u64> {
        let Seconds(at) = self.expire_at.or(self.exp)?;
        (at > 0.0).then_some(at as u64)
    }

    /// The user of the token, what others see of its client, and when it expires.
    fn identity(&self) -> Result<Identity, TokenError> {
        let user = self.sub.as_deref().filter(|user| !user.is_empty()).map(Arc::from);
        let info = value_of(self.info, self.b64info.as_deref())?;
        let identity = Identity { user, info, expires_at: self.expires_at() };
        identity.check().map(|()| identity).map_err(|_| TokenError::Claims)
    }
}

impl Claims for ConnectionClaims {
    fn read(claims: &[u8], registered: &Registered<'_>) -> Result<Self, TokenError> {
        #[derive(serde::Deserialize)]
        struct Document<'a> {
            channel: Option<String>,
            channels: Option<Vec<String>>,
            #[serde(borrow)]
            subs: Option<Subscriptions<'a>>,
            #[serde(borrow)]
            meta: Option<&'a RawValue>,
        }
        let document: Document<'_> = read(claims)?;
        // A token of a subscription must not let its client connect.
        if document.channel.is_some_and(|channel| !channel.is_empty()) {
            return Err(TokenError::Claims);
        }
        let subscriptions = match document.subs {
            Some(Subscriptions(subs)) if !subs.is_empty() => {
                let read = |(name, options): (String, SubscriptionDocument<'_>)| {
                    Ok((channel_name(&name)?, options.read(None)?))
                };
                subs.into_iter().map(read).collect::<Result<_, _>>()?
            }
            _ => {
                let mut seen = HashSet::new();
                let channels = document.channels.unwrap_or_default();
                let names = channels.iter().filter(|name| seen.insert(name.as_str()));
                names
                    .map(|name| Ok((channel_name(name)?, SubscriptionOptions::default())))
                    .collect::<Result<_, _>>()?
            }
        };
        let identity = registered.identity()?;
        Ok(Self { identity, subscriptions, meta: value_of(document.meta, None)? })
    }
}

impl Claims for SubscriptionClaims {
    fn read(claims: &[u8], registered: &Registered<'_>) -> Result<Self, TokenError> {
        #[derive(serde::Deserialize)]
        struct Document {
            channel: Option<String>,
            client: Option<String>,
        }
        let document: Document = read(claims)?;
        let options: SubscriptionDocument<'_> = read(claims)?;
        let Identity { user, expires_at, .. } = registered.identity()?;
        Ok(Self {
            user,
            channel: channel_name(document.channel.as_deref().unwrap_or_default())?,
            client: document.client.filter(|client| !client.is_empty()),
            options: options.read(expires_at)?,
        })
    }
}

/// What a token says about one subscription.
#[derive(Default, serde::Deserialize)]
struct SubscriptionDocument<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<Object<OverrideDocument>>,
}

#[derive(Default, serde::Deserialize)]
struct OverrideDocument {
    presence: Option<Object<Switch>>,
    join_leave: Option<Object<Switch>>,
    force_push_join_leave: Option<Object<Switch>>,
    force_positioning: Option<Object<Switch>>,
    force_recovery: Option<Object<Switch>>,
}

#[derive(serde::Deserialize)]
struct Switch {
    #[serde(default)]
    value: bool,
}

impl SubscriptionDocument<'_> {
    fn read(self, expires_at: Option<u64>) -> Result<SubscriptionOptions, TokenError> {
        let info = value_of(self.info, self.b64info.as_deref())?;
        if info.as_ref().is_some_and(|info| info.len() > INFO_BYTES_MAX) {
            return Err(TokenError::Claims);
        }
        let overrides = self.overrides.map(|Object(overrides)| overrides).unwrap_or_default();
        let value = |switch: Option<Object<Switch>>| switch.map(|Object(switch)| switch.value);
        Ok(SubscriptionOptions {
            info,
            data: value_of(self.data, self.b64data.as_deref())?,
            expires_at,
            overrides: Overrides {
                presence: value(overrides.presence),
                join_leave: value(overrides.join_leave),
                force_push_join_leave: value(overrides.force_push_join_leave),
                force_positioning: value(overrides.force_positioning),
                force_recovery: value(overrides.force_recovery),
            },
        })
    }
}

/// The claim `subs`: an object whose members are channels, each once.
struct Subscriptions<'a>(Vec<(String, SubscriptionDocument<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Subscriptions<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
            type Value = Subscriptions<'a>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut all, mut seen) = (Vec::new(), HashSet::new());
                while let Some((channel, options)) = map.next_entry::<String, Option<_>>()? {
                    if !seen.insert(channel.clone()) {
                        return Err(de::Error::custom("a channel is there twice"));
                    }
                    let options = options.map(|Object(options)| options);
                    all.push((channel, options.unwrap_or_default()));
                }
                Ok(Subscriptions(all))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A time in seconds since 1970, perhaps with a fraction (RFC 7519 2: NumericDate).
#[derive(Clone, Copy)]
struct Seconds(f64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

/// The claim `aud`: one audience or a list of them.
struct Audience(Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Audience;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<Audience, E> {
                Ok(Audience(vec![one.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut many: A) -> Result<Audience, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = many.next_element()? {
                    all.push(one);
                }
                Ok(Audience(all))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

fn channel_name(name: &str) -> Result<ChannelName, TokenError> {
    ChannelName::new(name).map_err(|_| TokenError::Claims)
}

/// A JSON value on one line: of a claim that is JSON, or of one in base64, which goes first. Bytes that are not JSON
/// become a JSON string of their base64, because clients get these values inside of JSON.
fn value_of(json: Option<&RawValue>, base64: Option<&str>) -> Result<Option<Bytes>, TokenError> {
    if let Some(base64) = base64.filter(|base64| !base64.is_empty()) {
        let bytes = BASE64_STANDARD.decode(base64).map_err(|_| TokenError::Claims)?;
        if json::kind_of_bytes(&bytes, PAYLOAD_DEPTH_MAX) == PayloadKind::Json {
            return Ok(Some(one_line(&bytes)));
        }
        return Ok(Some(format!("\"{base64}\"").into()));
    }
    let Some(json) = json else { return Ok(None) };
    if json::exceeds_depth(json.get().as_bytes(), PAYLOAD_DEPTH_MAX) {
        return Err(TokenError::Claims);
    }
    Ok(Some(one_line(json.get().as_bytes())))
}

fn one_line(json: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(json.len());
    json::write_line(&mut line, json);
    line.into()
}
