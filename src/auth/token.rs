//! Tokens of clients: JSON Web Tokens (RFC 7519) with a signature (RFC 7515).
//!
//! The claims are those of Centrifugo, so that its backends make tokens for this server too. Verification is stricter
//! where leniency would only help an attacker; `src/config/README.md` lists the differences.
//!
//! The crate jsonwebtoken reads keys and verifies signatures. Claims are judged here: the crate reads the clock, and
//! by default accepts a token without an audience where one is demanded.

mod claims;
mod error;
mod jwks;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, crypto};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::limits::{JWKS_FRESH_SECONDS, TOKEN_BYTES_MAX, TOKEN_KEYS_TRIED_MAX};
use crate::config::{Config, TokenKey};
use crate::protocol::json::Object;

use claims::{Claims, Registered};
use jwks::Key;

pub use claims::{ConnectionClaims, SubscriptionClaims};
pub use error::TokenError;
pub use jwks::{KeySet, KeySetError};

/// The keys that tokens are verified with, and what they must claim.
#[derive(Clone)]
pub struct Tokens {
    keys: Vec<Key>,
    sources: Vec<Source>,
    audience: Option<String>,
    issuer: Option<String>,
    leeway: Duration,
}

/// A URL at which keys are published.
#[derive(Clone)]
struct Source {
    url: String,
    algorithms: Vec<Algorithm>,
    /// The last set that was fetched, and when that began, in seconds since 1970.
    fetched: Option<(Arc<KeySet>, u64)>,
}

/// The header of a token, as far as it has a meaning here. Further members are to be ignored (RFC 7515 4).
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

impl Tokens {
    /// What a checked configuration says about tokens.
    pub fn new(config: &Config) -> Self {
        let secret = config.hmac_secret.as_ref().map(TokenKey::of_secret);
        let all = secret.iter().chain(&config.token_keys);
        let keys = all.filter(|key| key.jwks_url.is_none()).map(|key| Key {
            algorithms: key.algorithms.clone(),
            id: key.id.clone(),
            key: key.decoding_key().expect("a checked key"),
        });
        let source = |key: &TokenKey| {
            let url = key.jwks_url.as_ref()?.to_string();
            Some(Source { url, algorithms: key.algorithms.clone(), fetched: None })
        };
        Self {
            keys: keys.collect(),
            sources: config.token_keys.iter().filter_map(source).collect(),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            leeway: config.leeway,
        }
    }

    /// Whether there is any key: without one, no token is valid.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || !self.sources.is_empty()
    }

    /// Takes keys that were fetched, in place of those that were published at their URL before. `now` is in seconds
    /// since 1970.
    pub fn set_keys(&mut self, set: &Arc<KeySet>, now: u64) {
        let began = now.saturating_sub(set.age().as_secs() + 1);
        for source in self.sources.iter_mut().filter(|source| source.url == set.url()) {
            source.fetched = Some((KeySet::only_for(set, &source.algorithms), began));
        }
    }

    /// Takes the keys that were fetched for the settings before these, as far as they are for the algorithms of these.
    pub fn adopt_keys(&mut self, before: &Self) {
        for source in &mut self.sources {
            let known = before.sources.iter().find(|it| it.url == source.url);
            let fetched = known.and_then(|it| it.fetched.as_ref());
            source.fetched =
                fetched.map(|(set, began)| (KeySet::only_for(set, &source.algorithms), *began));
        }
    }

    /// Verifies the token that a client connects with, or prolongs its connection with. `now` is in seconds since 1970.
    pub fn verify_connection(&self, token: &str, now: u64) -> Result<ConnectionClaims, TokenError> {
        self.verify(token, now)
    }

    /// Verifies the token that a client subscribes to a channel with, or prolongs its subscription with. `now` is in
    /// seconds since 1970.
    pub fn verify_subscription(
        &self,
        token: &str,
        now: u64,
    ) -> Result<SubscriptionClaims, TokenError> {
        self.verify(token, now)
    }

    /// Nothing that a token claims is looked at before its signature is verified, but whether it is valid at this time:
    /// the connection of a client whose token has expired stays open, and may not be a way to have signatures verified
    /// for nothing.
    fn verify<C: Claims>(&self, token: &str, now: u64) -> Result<C, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        // An encrypted token has five parts.
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        let claims = decode(claims);
        let claims = claims.as_deref().map_err(|error| *error);
        let registered = claims.and_then(|claims| {
            let mut registered: Registered<'_> = claims::read(claims)?;
            registered.tolerate(self.leeway);
            Ok(registered)
        });
        if let Ok(registered) = &registered
            && self.check_parties(registered).is_ok()
        {
            registered.check_time(now)?;
        }
        self.verify_signature(header, signed, signature, now)?;
        let registered = registered?;
        self.check_parties(&registered)?;
        C::read(claims?, &registered)
    }

    fn verify_signature(
        &self,
        header: &str,
        signed: &str,
        signature: &str,
        now: u64,
    ) -> Result<(), TokenError> {
        let header = decode(header)?;
        let Object::<Header<'_>>(header) =
            serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 4.1.11: a token with an extension that is not understood must be rejected, and none is.
        if header.crit.is_some() {
            return Err(TokenError::Unsupported);
        }
        let algorithm: Algorithm = header.alg.parse().map_err(|_| TokenError::Algorithm)?;
        let (mut is_known, mut is_tried) = (false, false);
        for key in self.keys_for(algorithm, header.kid.as_deref()) {
            is_known = true;
            if !key.algorithms.contains(&algorithm) {
                continue;
            }
            is_tried = true;
            match crypto::verify(signature, signed.as_bytes(), &key.key, algorithm) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) => return Err(TokenError::Malformed),
            }
        }
        if self.may_be_published(header.kid.as_deref(), now) {
            return Err(TokenError::KeyPending);
        }
        Err(match (is_known, is_tried) {
            (false, _) => TokenError::Key,
            (true, false) => TokenError::Algorithm,
            (true, true) => TokenError::Signature,
        })
    }

    /// The keys that may have signed a token: those of the settings that have its `kid`; or if none of them has, those
    /// without one, and a few of those that are published and have it, or if the token has none, are for its algorithm.
    fn keys_for(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let is_of_settings = self.has_key(id);
        let own_id = id.filter(|_| is_of_settings);
        let own = self.keys.iter().filter(move |key| key.id.as_deref() == own_id);
        let published = self.published().filter(move |key| {
            !is_of_settings
                && id.map_or(key.algorithms.contains(&algorithm), |id| key.has_id(Some(id)))
        });
        own.chain(published.take(TOKEN_KEYS_TRIED_MAX))
    }

    fn has_key(&self, id: Option<&str>) -> bool {
        id.is_some() && self.keys.iter().any(|key| key.has_id(id))
    }

    fn published(&self) -> impl Iterator<Item = &Key> {
        let sets = self.sources.iter().filter_map(|source| source.fetched.as_ref());
        sets.flat_map(|(set, _)| &set.keys)
    }

    /// Whether a key that is not known may have been published since the keys were fetched.
    fn may_be_published(&self, id: Option<&str>, now: u64) -> bool {
        let is_old = |source: &Source| {
            source.fetched.as_ref().is_none_or(|(_, began)| began + JWKS_FRESH_SECONDS < now)
        };
        let is_known = || match id {
            Some(_) => self.has_key(id) || self.published().any(|key| key.has_id(id)),
            None => self.published().next().is_some(),
        };
        self.sources.iter().any(is_old) && !is_known()
    }

    /// Checks the issuer and the audience (RFC 7519 4.1.1 and 4.1.3) that the configuration demands.
    fn check_parties(&self, claims: &Registered<'_>) -> Result<(), TokenError> {
        if self.audience.as_ref().is_some_and(|audience| !claims.is_for(audience)) {
            return Err(TokenError::Audience);
        }
        if self.issuer.as_ref().is_some_and(|issuer| !claims.is_by(issuer)) {
            return Err(TokenError::Issuer);
        }
        Ok(())
    }
}

/// The channel that a token of a subscription says it is for. Nothing of this is verified, so it serves to find the
/// subscription for which the token is verified then, and nothing else.
pub fn named_channel(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        channel: String,
    }

    let claims = token.split('.').nth(1).filter(|_| token.len() <= TOKEN_BYTES_MAX)?;
    let named = serde_json::from_slice::<Object<Named>>(&decode(claims).ok()?).ok()?;
    Some(named.0.channel)
}

/// Without the keys.
impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, sources, audience, issuer, leeway } = self;
        let mut out = out.debug_struct("Tokens");
        out.field("keys", &keys.len()).field("sources", &sources.len());
        out.field("audience", audience).field("issuer", issuer);
        out.field("leeway", leeway).finish_non_exhaustive()
    }
}

/// Decodes a part of a token (RFC 7515 2: base64url without padding).
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}
