//! Tokens are verified or rejected, whatever they are, and only those that are signed are accepted. The first byte says
//! what is made of the rest: a token, or the header and claims of one, signed or not.

#![no_main]

use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fantail::auth::{TokenError, Tokens};
use fantail::config::{Config, TokenKey};
use fantail::message::Identity;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const SECRET: &str = "a secret that the fuzzer does not know";

const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEE1oi+6awI62l0Uf4nkEPoJ5biXYY
kh4qaPLiiGrrku59VhU+Dm7Nu8MeJ+I7OFdJ5CUpoxJRRjG2RiQi8xZe4g==
-----END PUBLIC KEY-----";

const NOW: u64 = 1_800_000_000;

fn tokens() -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(|| {
        let algorithms = vec![Algorithm::ES256];
        let key =
            TokenKey { algorithms, key: PUBLIC_KEY.to_owned().into(), ..TokenKey::new("public") };
        let hmac_secret = Some(SECRET.to_owned().into());
        Tokens::new(&Config { hmac_secret, token_keys: vec![key], ..Config::default() })
    })
}

/// Verifies a token for both uses.
fn verify(token: &str, is_signed: bool) {
    let connection = tokens().verify_connection(token, NOW);
    let subscription = tokens().verify_subscription(token, NOW);
    assert!(connection.is_err() || subscription.is_err(), "a token has one use");
    for fault in [connection.as_ref().err(), subscription.as_ref().err()] {
        let is_about_the_signature = matches!(
            fault,
            Some(
                TokenError::TooLarge
                    | TokenError::Malformed
                    | TokenError::Unsupported
                    | TokenError::Algorithm
                    | TokenError::Key
                    | TokenError::Signature
            )
        );
        assert!(is_signed || is_about_the_signature, "claims were read: {fault:?}");
    }
    let mut identity = Identity::default();
    if let Ok(claims) = connection {
        identity = claims.identity;
        let mut names: Vec<_> = claims.subscriptions.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a channel is there twice");
    }
    if let Ok(claims) = subscription {
        identity = Identity { user: claims.user, info: claims.options.info, expires_at: None };
    }
    assert!(identity.check().is_ok());
    if let Some(info) = identity.info {
        assert!(!info.contains(&b'\n'));
        assert!(serde_json::from_slice::<&RawValue>(&info).is_ok());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (header, claims) = rest.split_at(at);
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let sign = |header: &[u8]| {
        let signed = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
        let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).expect("a key");
        format!("{signed}.{signature}")
    };
    match choice % 4 {
        0 => verify(&String::from_utf8_lossy(rest), false),
        1 => verify(&format!("{}.{}.{}", part(header), part(claims), part(rest)), false),
        2 => verify(&sign(b"{\"alg\":\"HS256\"}"), true),
        _ => verify(&sign(header), true),
    }
});
