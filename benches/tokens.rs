//! Tokens: what their verification costs beside the signature alone.
//!
//! `cargo bench --bench tokens`; run it alone, and compare only rows of one run. `signature` verifies the same bytes by
//! aws-lc-rs with a key that is parsed already, which is the least that any server has to do.

use std::hint::black_box;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaKeyPair,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fantail::auth::Tokens;
use fantail::config::{Config, TokenKey};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

const SECRET: &str = "a secret of 32 bytes, as is usual";

const NOW: u64 = 1_800_000_000;

/// A signature that is verified alone.
enum Bare {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// A key of one algorithm.
struct Keys {
    algorithm: Algorithm,
    /// The secret, or the public key as PEM.
    public: String,
    signing: EncodingKey,
    bare: Bare,
}

/// Budget: ES256 takes at most 1.25 times as long as its signature alone.
fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    for Keys { algorithm, public, signing, bare } in keys() {
        let claims = json!({
            "sub": "42", "exp": NOW + 3600, "iat": NOW, "info": {"name": "Ann", "role": "admin"},
        });
        let token = encode(&Header::new(algorithm), &claims, &signing).expect("a token");
        let algorithms = vec![algorithm];
        let key = TokenKey { algorithms, key: public.into(), ..TokenKey::new("a") };
        let tokens = Tokens::new(&Config { token_keys: vec![key], ..Config::default() });
        let (signed, part) = token.rsplit_once('.').expect("three parts");
        let part = BASE64_URL_SAFE_NO_PAD.decode(part).expect("a signature");
        let name = format!("{algorithm:?}");
        group.bench_function(BenchmarkId::new("signature", &name), |bencher| {
            bencher.iter(|| match &bare {
                Bare::Hmac(key) => hmac::verify(key, black_box(signed.as_bytes()), &part).is_ok(),
                Bare::Public(key) => key.verify_sig(black_box(signed.as_bytes()), &part).is_ok(),
            });
        });
        group.bench_function(BenchmarkId::new("connection", &name), |bencher| {
            bencher.iter(|| tokens.verify_connection(black_box(&token), NOW).expect("is valid"));
        });
    }
    group.finish();
}

fn keys() -> Vec<Keys> {
    let hmac = Keys {
        algorithm: Algorithm::HS256,
        public: SECRET.to_owned(),
        signing: EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret"),
        bare: Bare::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()))),
    };
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let private: Pkcs8V1Der<'_> = rsa.as_der().expect("a key");
    let rsa = public_key(
        Algorithm::RS256,
        &signature::RSA_PKCS1_2048_8192_SHA256,
        private.as_ref(),
        rsa.public_key(),
    );
    let p256 = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let p384 = &ECDSA_P384_SHA384_FIXED_SIGNING;
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).expect("a key");
    let eddsa =
        public_key(Algorithm::EdDSA, &signature::ED25519, private.as_ref(), pair.public_key());
    vec![
        hmac,
        rsa,
        ecdsa(Algorithm::ES256, &signature::ECDSA_P256_SHA256_FIXED, p256),
        ecdsa(Algorithm::ES384, &signature::ECDSA_P384_SHA384_FIXED, p384),
        eddsa,
    ]
}

fn ecdsa(
    algorithm: Algorithm,
    verifies: &'static dyn VerificationAlgorithm,
    signs: &'static EcdsaSigningAlgorithm,
) -> Keys {
    let private = EcdsaKeyPair::generate_pkcs8(signs, &SystemRandom::new()).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(signs, private.as_ref()).expect("a key");
    public_key(algorithm, verifies, private.as_ref(), pair.public_key())
}

fn public_key<K: AsDer<PublicKeyX509Der<'static>> + AsRef<[u8]>>(
    algorithm: Algorithm,
    verifies: &'static dyn VerificationAlgorithm,
    private: &[u8],
    public: &K,
) -> Keys {
    let pem = pem("PRIVATE KEY", private);
    let signing = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_ec_pem(pem.as_bytes()),
    };
    Keys {
        algorithm,
        public: self::pem("PUBLIC KEY", public.as_der().expect("a key").as_ref()),
        signing: signing.expect("a private key"),
        bare: Bare::Public(ParsedPublicKey::new(verifies, public).expect("a public key")),
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}

criterion_group!(tokens, verify);
criterion_main!(tokens);
