//! Tokens of clients: JSON Web Tokens (RFC 7519) with a signature (RFC 7515).
//!
//! The claims are those of Centrifugo, so that its backends make tokens for this server too. Verification is stricter
//! where leniency would only help an attacker; `src/config/README.md` lists the differences.
//!
//! The crate jsonwebtoken reads keys and verifies signatures. Claims are judged here: the crate reads the clock, and
//! by default accepts a token without an audience where one is demanded.

mod claims;
mod error;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::limits::TOKEN_BYTES_MAX;
use crate::config::{Config, TokenKey};
use crate::protocol::json::Object;

use claims::{Claims, Registered};

pub use claims::{ConnectionClaims, SubscriptionClaims};
pub use error::TokenError;

/// The keys that tokens are verified with, and what they must claim.
#[derive(Clone)]
pub struct Tokens {
    keys: Vec<Key>,
    audience: Option<String>,
    issuer: Option<String>,
    leeway: Duration,
}

#[derive(Clone)]
struct Key {
    /// The algorithms that it is for: the header of a token chooses among these, and no others.
    algorithms: Vec<Algorithm>,
    id: Option<String>,
    key: DecodingKey,
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
        let keys = secret.iter().chain(&config.token_keys).map(|key| Key {
            algorithms: key.algorithms.clone(),
            id: key.id.clone(),
            key: key.decoding_key().expect("a checked key"),
        });
        Self {
            keys: keys.collect(),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            leeway: config.leeway,
        }
    }

    /// Whether there is any key: without one, no token is valid.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
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

    /// Nothing that a token claims is looked at before its signature is verified.
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
        self.verify_signature(header, signed, signature)?;
        let claims = decode(claims)?;
        let mut registered: Registered<'_> = claims::read(&claims)?;
        registered.tolerate(self.leeway);
        self.check_parties(&registered)?;
        let claimed = C::read(&claims, &registered)?;
        registered.check_time(now)?;
        Ok(claimed)
    }

    fn verify_signature(
        &self,
        header: &str,
        signed: &str,
        signature: &str,
    ) -> Result<(), TokenError> {
        let header = decode(header)?;
        let Object::<Header<'_>>(header) =
            serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 4.1.11: a token with an extension that is not understood must be rejected, and none is.
        if header.crit.is_some() {
            return Err(TokenError::Unsupported);
        }
        let algorithm: Algorithm = header.alg.parse().map_err(|_| TokenError::Algorithm)?;
        for key in self.keys_for(algorithm, header.kid.as_deref())? {
            match crypto::verify(signature, signed.as_bytes(), &key.key, algorithm) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) => return Err(TokenError::Malformed),
            }
        }
        Err(TokenError::Signature)
    }

    /// The keys that may have signed a token: those for its algorithm that have its `kid`, or if no key has it, those
    /// without one.
    fn keys_for(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<impl Iterator<Item = &Key>, TokenError> {
        let is_known = id.is_some() && self.keys.iter().any(|key| key.id.as_deref() == id);
        let id = id.filter(|_| is_known);
        let candidates = move || self.keys.iter().filter(move |key| key.id.as_deref() == id);
        if candidates().next().is_none() {
            return Err(TokenError::Key);
        }
        let mut keys = candidates().filter(move |key| key.algorithms.contains(&algorithm));
        let first = keys.next().ok_or(TokenError::Algorithm)?;
        Ok([first].into_iter().chain(keys))
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

/// Without the keys.
impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, audience, issuer, leeway } = self;
        let mut out = out.debug_struct("Tokens");
        out.field("keys", &keys.len()).field("audience", audience).field("issuer", issuer);
        out.field("leeway", leeway).finish_non_exhaustive()
    }
}

/// Decodes a part of a token (RFC 7515 2: base64url without padding).
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}
