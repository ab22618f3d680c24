//! Tests of keys that are published at a URL.

use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};

use super::*;
use crate::config::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, TOKEN_KEY_ID_BYTES_MAX};

const URL: &str = "http://keys.example.org/jwks";

/// The public key for an algorithm as it is published.
fn jwk(algorithm: Algorithm, id: &str) -> Value {
    let of = keys().iter().find(|key| key.algorithms.contains(&algorithm)).unwrap();
    let public = key(&[algorithm], None, &of.public).decoding_key().unwrap();
    let mut jwk = json!(Jwk::from_decoding_key(&public, Some(algorithm)).unwrap());
    jwk["kid"] = json!(id);
    jwk
}

fn with(jwk: &Value, member: &str, value: Value) -> Value {
    let mut jwk = jwk.clone();
    jwk[member] = value;
    jwk
}

fn without(jwk: &Value, member: &str) -> Value {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().remove(member);
    jwk
}

const PUBLIC: [Algorithm; 4] =
    [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

fn parse(keys: &[Value], algorithms: &[Algorithm]) -> Result<KeySet, KeySetError> {
    let document = json!({ "keys": keys }).to_string();
    KeySet::parse(URL.to_owned(), document.as_bytes(), algorithms, Duration::ZERO)
}

/// Verifies with keys that are published, and fetched at this time.
fn published(keys: &[Value], at: u64) -> Tokens {
    let key = TokenKey {
        algorithms: PUBLIC.to_vec(),
        jwks_url: Some(URL.parse().unwrap()),
        ..TokenKey::new("a")
    };
    assert_eq!(key.check(), Ok(()));
    let mut tokens = with_keys(vec![key]);
    tokens.set_keys(&Arc::new(parse(keys, &PUBLIC).unwrap()), at);
    tokens
}

fn signed_by(algorithm: Algorithm, id: Option<&str>) -> String {
    let key = keys().iter().find(|key| key.algorithms.contains(&algorithm)).unwrap();
    let id = id.map(|id| format!(r#","kid":"{id}""#)).unwrap_or_default();
    sign(&format!(r#"{{"alg":"{algorithm:?}"{id}}}"#), "{}", &key.signing, algorithm)
}

#[test]
fn published_keys_verify_the_tokens_that_name_them() {
    let all: Vec<_> = PUBLIC.iter().map(|it| jwk(*it, &format!("{it:?}"))).collect();
    let tokens = published(&all, NOW);
    for algorithm in PUBLIC {
        let own = format!("{algorithm:?}");
        assert_eq!(fault(&tokens, &signed_by(algorithm, Some(&own))), None, "{own}");
        assert_eq!(fault(&tokens, &signed_by(algorithm, None)), None, "{own}");
        let unknown = fault(&tokens, &signed_by(algorithm, Some("x")));
        assert_eq!(unknown, Some(TokenError::Key), "{own}");
        for other in PUBLIC.iter().filter(|other| **other != algorithm) {
            let named = signed_by(algorithm, Some(&format!("{other:?}")));
            assert_eq!(fault(&tokens, &named), Some(TokenError::Algorithm), "{own} {other:?}");
        }
    }
    // The same key, published for another algorithm.
    let pinned = published(&[with(&all[0], "alg", json!("RS256"))], NOW);
    let other = signed_by(Algorithm::RS384, Some("RS256"));
    assert_eq!(fault(&pinned, &other), Some(TokenError::Algorithm));
}

#[test]
fn a_key_that_is_not_known_is_awaited_unless_the_keys_are_fresh() {
    let keys = [jwk(Algorithm::ES256, "old")];
    let (old, new) =
        (signed_by(Algorithm::ES256, Some("old")), signed_by(Algorithm::ES256, Some("new")));
    for (age, expected) in [
        (0, TokenError::Key),
        (JWKS_FRESH_SECONDS - 1, TokenError::Key),
        (JWKS_FRESH_SECONDS, TokenError::KeyPending),
        (1000, TokenError::KeyPending),
    ] {
        let tokens = published(&keys, NOW - age);
        assert_eq!(fault(&tokens, &new), Some(expected), "{age}");
        assert_eq!(fault(&tokens, &old), None, "{age}");
    }
    // Nothing is fetched yet; then the key is there; then another set, without the one before.
    let key = |url: &str| TokenKey {
        algorithms: PUBLIC.to_vec(),
        jwks_url: Some(url.parse().unwrap()),
        ..TokenKey::new("a")
    };
    let mut tokens = with_keys(vec![key(URL)]);
    assert!(tokens.has_keys());
    for token in [&old, &signed_by(Algorithm::ES256, None)] {
        assert_eq!(fault(&tokens, token), Some(TokenError::KeyPending));
    }
    tokens.set_keys(&Arc::new(parse(&keys, &PUBLIC).unwrap()), NOW);
    assert_eq!(fault(&tokens, &old), None);
    let rotated = Arc::new(parse(&[jwk(Algorithm::ES256, "new")], &PUBLIC).unwrap());
    tokens.set_keys(&rotated, NOW);
    assert_eq!(fault(&tokens, &old), Some(TokenError::Key));
    assert_eq!(fault(&tokens, &new), None);
    // Settings that are read again keep what was fetched, for the same URL.
    let mut same = with_keys(vec![key(URL)]);
    same.adopt_keys(&tokens);
    assert_eq!(fault(&same, &new), None);
    let mut other = with_keys(vec![key("http://other.example.org/")]);
    other.adopt_keys(&tokens);
    other.set_keys(&rotated, NOW);
    assert_eq!(fault(&other, &new), Some(TokenError::KeyPending));
}

#[test]
fn keys_of_the_settings_go_before_published_ones() {
    let published_key = TokenKey {
        algorithms: PUBLIC.to_vec(),
        jwks_url: Some(URL.parse().unwrap()),
        ..TokenKey::new("a")
    };
    let own = key(&[Algorithm::HS256], Some("own"), SECRET);
    let mut tokens = with_keys(vec![own, published_key]);
    let own = signed(r#"{"alg":"HS256","kid":"own"}"#, "{}");
    assert_eq!(fault(&tokens, &own), None, "nothing has to be fetched for it");
    let forged = signed_by(Algorithm::ES256, Some("own"));
    assert_eq!(fault(&tokens, &forged), Some(TokenError::Algorithm));
    tokens.set_keys(&Arc::new(parse(&[jwk(Algorithm::ES256, "own")], &PUBLIC).unwrap()), NOW);
    assert_eq!(fault(&tokens, &forged), Some(TokenError::Algorithm));
    assert_eq!(fault(&tokens, &own), None);
}

#[test]
fn keys_that_cannot_be_used_are_passed_over() {
    let good = jwk(Algorithm::ES256, "good");
    let rsa = jwk(Algorithm::RS256, "rsa");
    for bad in [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "good", "alg": "HS256"}),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "good"}),
        with(&good, "use", json!("enc")),
        with(&good, "key_ops", json!(["sign"])),
        with(&good, "alg", json!("ES384")),
        with(&good, "alg", json!("ECDH-ES")),
        with(&good, "alg", json!("none")),
        with(&good, "alg", json!("HS256")),
        with(&good, "crv", json!("P-521")),
        with(&good, "x", json!("AAAA")),
        with(&good, "y", good["x"].clone()),
        with(&good, "kty", json!("RSA")),
        with(&good, "kid", json!(5)),
        with(&good, "kid", json!("k".repeat(TOKEN_KEY_ID_BYTES_MAX + 1))),
        without(&good, "y"),
        without(&good, "kty"),
        with(&rsa, "n", json!("AQAB")),
        with(&rsa, "n", json!("_".repeat(1024 / 3 * 4 + 8))),
        without(&rsa, "e"),
        json!({}),
        json!(null),
        json!("x"),
        json!([]),
    ] {
        assert_eq!(
            parse(std::slice::from_ref(&bad), &PUBLIC).unwrap_err(),
            KeySetError::Unusable,
            "{bad}"
        );
        let set = parse(&[bad, good.clone()], &PUBLIC).unwrap();
        assert_eq!(set.counts(), (1, 1));
    }
    for fine in [
        with(&good, "use", json!("sig")),
        with(&good, "key_ops", json!(["verify"])),
        with(&good, "x5c", json!(["AA=="])),
        with(&good, "more", json!({"a": []})),
        without(&good, "alg"),
        without(&good, "kid"),
        with(&good, "kid", json!("k".repeat(TOKEN_KEY_ID_BYTES_MAX))),
    ] {
        assert_eq!(parse(std::slice::from_ref(&fine), &PUBLIC).unwrap().counts(), (1, 0), "{fine}");
    }
    // For algorithms that the settings do not name.
    assert_eq!(parse(&[good], &[Algorithm::RS256]).unwrap_err(), KeySetError::Unusable);
}

#[test]
fn a_set_is_bounded_and_has_a_key() {
    let set = |document: &str| {
        KeySet::parse(URL.to_owned(), document.as_bytes(), &PUBLIC, Duration::ZERO).map(|_| ())
    };
    for (document, expected) in [
        ("", KeySetError::Malformed),
        ("<html>", KeySetError::Malformed),
        ("{}", KeySetError::Malformed),
        ("null", KeySetError::Malformed),
        ("[]", KeySetError::Malformed),
        (r#"[[]]"#, KeySetError::Malformed),
        (r#"{"keys":{}}"#, KeySetError::Malformed),
        (r#"{"keys":[],"keys":[]}"#, KeySetError::Malformed),
        (r#"{"keys":[{]}"#, KeySetError::Malformed),
        (r#"{"keys":[]}"#, KeySetError::Unusable),
    ] {
        assert_eq!(set(document), Err(expected), "{document}");
        assert!(!expected.label().is_empty());
    }
    let deep = format!(r#"{{"keys":[{}"#, "[".repeat(100_000));
    assert_eq!(set(&deep), Err(KeySetError::Malformed));
    let good = jwk(Algorithm::EdDSA, "good");
    assert!(parse(&vec![good.clone(); JWKS_KEYS_MAX], &PUBLIC).is_ok());
    let many = parse(&vec![good.clone(); JWKS_KEYS_MAX + 1], &PUBLIC);
    assert_eq!(many.unwrap_err(), KeySetError::TooMany);
    let document = json!({ "keys": [good] }).to_string();
    let padded = document.clone() + &" ".repeat(JWKS_BYTES_MAX - document.len());
    assert_eq!(set(&padded), Ok(()));
    assert_eq!(set(&(padded + " ")), Err(KeySetError::TooLarge));
}

#[test]
fn few_published_keys_are_tried_for_one_token() {
    let other = {
        let key = ecdsa(true);
        json!(Jwk::from_encoding_key(&key.signing, Algorithm::ES256).unwrap())
    };
    let own = without(&jwk(Algorithm::ES256, "x"), "kid");
    let token = signed_by(Algorithm::ES256, None);
    for (before, expected) in
        [(TOKEN_KEYS_TRIED_MAX - 1, None), (TOKEN_KEYS_TRIED_MAX, Some(TokenError::Signature))]
    {
        let mut keys = vec![other.clone(); before];
        keys.push(own.clone());
        assert_eq!(fault(&published(&keys, NOW), &token), expected, "{before}");
    }
}
