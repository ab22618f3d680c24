#!/usr/bin/env bash
# A key that signs is refused when its public half is asked for, because of the version of the document it came in.
#
# The crate jsonwebtoken 12.0.0 with aws-lc-rs 1.19.0. RFC 5958 is version 2 of the format that RFC 5208 calls PKCS#8: it
# adds the public key behind the private one. aws-lc-rs, like ring, writes version 2 unless it is asked for version 1, so
# an Ed25519 document has 83 bytes and not 48.
#
# Expected: `Jwk::from_encoding_key` makes the same JWK of both, since both keys sign tokens that verify.
# Observed: it makes one of version 1, and returns `InvalidEddsaKey` for version 2: it knows the curve by the length of the
# document. A service that signs with such a key and publishes its JWKS fails when it starts, or when keys rotate.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
aws-lc-rs = { version = "=1.19.0", default-features = false, features = ["aws-lc-sys"] }
jsonwebtoken = { version = "=12.0.0", default-features = false, features = ["aws_lc_rs", "use_pem"] }
serde_json = "1"
TOML
cat >"$folder/src/main.rs" <<'RS'
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{decode, encode, Algorithm, DecodingKey, EncodingKey, Header, Validation};

fn main() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public = DecodingKey::from_ed_der(pair.public_key().as_ref());
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    let documents = [(1, pair.to_pkcs8v1().unwrap()), (2, pair.to_pkcs8().unwrap())];
    let seen = documents.map(|(version, document)| {
        let key = EncodingKey::from_ed_der(document.as_ref());
        let claims = serde_json::json!({"sub": "42"});
        let token = encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
        let verifies = decode::<serde_json::Value>(&token, &public, &validation).is_ok();
        let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA);
        let answer = jwk.as_ref().map_or_else(|error| error.to_string(), |_| "made".to_owned());
        let length = document.as_ref().len();
        println!("version {version}, {length} bytes: its token verifies: {verifies}, JWK: {answer}");
        (verifies, jwk.is_ok())
    });
    std::process::exit(i32::from(seen != [(true, true), (true, false)]));
}
RS
cd "$folder"
cargo run --quiet
