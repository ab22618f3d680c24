//! Keys that tokens are verified with: single ones, and sets that are published at a URL (RFC 7517, JWK Set).

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::TokenKey;
use crate::config::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, TOKEN_KEY_ID_BYTES_MAX};
use crate::protocol::json::Object;

/// A key that verifies tokens.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The algorithms that it is for: the header of a token chooses among these, and no others.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
}

impl Key {
    pub(super) fn has_id(&self, id: Option<&str>) -> bool {
        self.id.as_deref() == id
    }
}

/// The keys that were published at a URL.
#[derive(Debug)]
pub struct KeySet {
    url: String,
    pub(super) keys: Vec<Key>,
    /// How many of the published keys cannot be used.
    skipped: usize,
    /// How old they are at least: the time that it took to fetch them.
    age: Duration,
}

/// Why a document is not a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// It is longer than [`JWKS_BYTES_MAX`].
    TooLarge,
    /// It is not JSON, or has no list of keys.
    Malformed,
    /// It has more than [`JWKS_KEYS_MAX`] keys.
    TooMany,
    /// None of its keys can be used.
    Unusable,
}

impl KeySet {
    /// Reads a set that was published at `url`, and took `age` to be fetched. A key is used if it is public, for
    /// signatures, and for one of `algorithms`; others are passed over.
    pub fn parse(
        url: String,
        document: &[u8],
        algorithms: &[Algorithm],
        age: Duration,
    ) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        if document.len() > JWKS_BYTES_MAX {
            return Err(KeySetError::TooLarge);
        }
        let Object::<Document<'_>>(document) =
            serde_json::from_slice(document).map_err(|_| KeySetError::Malformed)?;
        if document.keys.len() > JWKS_KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let read = |jwk: &&RawValue| read_key(jwk.get(), algorithms);
        let keys: Vec<_> = document.keys.iter().filter_map(read).collect();
        // A set without a key would reject every token: that is a fault of the endpoint, and no rotation.
        if keys.is_empty() {
            return Err(KeySetError::Unusable);
        }
        let skipped = document.keys.len() - keys.len();
        Ok(Self { url, keys, skipped, age })
    }

    /// The same keys, without what is not for one of `algorithms`. The settings may allow fewer since it was read.
    pub(super) fn only_for(set: &Arc<Self>, algorithms: &[Algorithm]) -> Arc<Self> {
        let is_for = |one: &Algorithm| algorithms.contains(one);
        if set.keys.iter().all(|key| key.algorithms.iter().all(is_for)) {
            return set.clone();
        }
        let only = |key: &Key| {
            let algorithms: Vec<_> = key.algorithms.iter().copied().filter(is_for).collect();
            (!algorithms.is_empty()).then(|| Key { algorithms, ..key.clone() })
        };
        let keys: Vec<_> = set.keys.iter().filter_map(only).collect();
        let skipped = set.skipped + set.keys.len() - keys.len();
        Arc::new(Self { url: set.url.clone(), keys, skipped, age: set.age })
    }

    /// The URL that it was published at.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How old it is at least.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// The number of keys that are used, and of those that are not.
    pub fn counts(&self) -> (usize, usize) {
        (self.keys.len(), self.skipped)
    }
}

impl KeySetError {
    /// The word for it in the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::TooMany => "too_many_keys",
            Self::Unusable => "no_usable_key",
        }
    }
}

fn read_key(jwk: &str, algorithms: &[Algorithm]) -> Option<Key> {
    let jwk: Jwk = serde_json::from_str(jwk).ok()?;
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
    let verifies =
        common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let is_short = common.key_id.as_ref().is_none_or(|id| id.len() <= TOKEN_KEY_ID_BYTES_MAX);
    if !signs || !verifies || !is_short {
        return None;
    }
    let named: Option<Algorithm> = match common.key_algorithm {
        Some(algorithm) => Some(algorithm.try_into().ok()?),
        None => None,
    };
    let of_curve = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => None,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Some(Algorithm::ES256)
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            Some(Algorithm::ES384)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Some(Algorithm::EdDSA)
        }
        // Other curves, and secrets, which everyone knows once they are published.
        _ => return None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let is_one = |wanted: Option<Algorithm>, one| wanted.is_none_or(|wanted| wanted == one);
    let fits = |algorithm: &&Algorithm| {
        is_one(named, **algorithm)
            && is_one(of_curve, **algorithm)
            && TokenKey::is_usable(**algorithm, &key)
    };
    let algorithms: Vec<_> = algorithms.iter().filter(fits).copied().collect();
    let id = common.key_id.clone();
    (!algorithms.is_empty()).then_some(Key { algorithms, id, key })
}
