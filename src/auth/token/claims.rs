//! The claims of tokens.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::TokenError;
use crate::config::limits::PAYLOAD_DEPTH_MAX;
use crate::message::{ChannelName, Identity, SubscriptionOptions};
use crate::protocol::json::{Object, SubscriptionDocument, SubscriptionDocuments, line_of_value};

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

impl ConnectionClaims {
    /// The claims of a client that is this user for as long as it is connected.
    pub fn of_user(user: Arc<str>) -> Self {
        let identity = Identity { user: Some(user), ..Identity::default() };
        Self { identity, ..Self::default() }
    }
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

    /// Moves `exp` and `nbf` apart: the clock of the issuer may differ from the one here by `leeway`. What expires with
    /// the token does so later, too.
    pub(super) fn tolerate(&mut self, leeway: Duration) {
        let leeway = leeway.as_secs_f64();
        for (time, by) in [(&mut self.exp, leeway), (&mut self.nbf, -leeway)] {
            if let Some(Seconds(at)) = time {
                *at += by;
            }
        }
    }

    /// Checks `exp`, `expire_at` and `nbf`. `now` is in seconds since 1970, as these are.
    pub(super) fn check_time(&self, now: u64) -> Result<(), TokenError> {
        let is_over = self.expires_at().is_some_and(|at| at <= now);
        let now = now as f64;
        // RFC 7519 4.1.4: not accepted "on or after" this time.
        if is_over || self.exp.is_some_and(|Seconds(exp)| now >= exp) {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|Seconds(nbf)| now < nbf) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }

    /// When what the token is for expires. A time that is not positive means never, which `expire_at` is there for: a
    /// token that expires soon can then be for a connection that does not.
    fn expires_at(&self) -> Option<u64> {
        let Seconds(at) = self.expire_at.or(self.exp)?;
        (at > 0.0).then_some(at.ceil() as u64)
    }

    /// The user of the token, what others see of its client, and when it expires.
    fn identity(&self) -> Result<Identity, TokenError> {
        let user = self.sub.as_deref().filter(|user| !user.is_empty()).map(Arc::from);
        let info = line_of(self.info, self.b64info.as_deref())?;
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
            subs: Option<SubscriptionDocuments<'a>>,
            #[serde(borrow)]
            meta: Option<&'a RawValue>,
        }
        let document: Document<'_> = read(claims)?;
        // A token of a subscription must not let its client connect.
        if document.channel.is_some_and(|channel| !channel.is_empty()) {
            return Err(TokenError::Claims);
        }
        let subscriptions = match document.subs {
            Some(SubscriptionDocuments(subs)) if !subs.is_empty() => {
                let read = |(name, options): (String, SubscriptionDocument<'_>)| {
                    Ok((
                        channel_name(&name)?,
                        options.options(None, PAYLOAD_DEPTH_MAX).map_err(|_| TokenError::Claims)?,
                    ))
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
        Ok(Self { identity, subscriptions, meta: line_of(document.meta, None)? })
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
            options: options
                .options(expires_at, PAYLOAD_DEPTH_MAX)
                .map_err(|_| TokenError::Claims)?,
        })
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

fn line_of(json: Option<&RawValue>, base64: Option<&str>) -> Result<Option<Bytes>, TokenError> {
    line_of_value(json, base64, PAYLOAD_DEPTH_MAX).map_err(|_| TokenError::Claims)
}

fn channel_name(name: &str) -> Result<ChannelName, TokenError> {
    ChannelName::new(name).map_err(|_| TokenError::Claims)
}
