//! Tests of tokens, signed with keys that are made for the test.

mod claims;
mod jwks;

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, EncodingKey};

use super::*;
use crate::message::Identity;

const NOW: u64 = 1_800_000_000;

const SECRET: &str = "a secret that others do not know";

/// A key with which tokens are signed and verified.
struct TestKey {
    /// The algorithms that it fits.
    algorithms: Vec<Algorithm>,
    /// The secret, or the public key as PEM.
    public: String,
    signing: EncodingKey,
}

/// A key of each family, and of each curve.
fn keys() -> &'static [TestKey; 5] {
    static KEYS: OnceLock<[TestKey; 5]> = OnceLock::new();
    KEYS.get_or_init(|| [hmac(), rsa(), ecdsa(true), ecdsa(false), eddsa()])
}

fn hmac() -> TestKey {
    TestKey {
        algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
        public: SECRET.to_owned(),
        signing: EncodingKey::from_secret(SECRET.as_bytes()).unwrap(),
    }
}

fn rsa() -> TestKey {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    TestKey {
        algorithms: AlgorithmFamily::Rsa.algorithms().to_vec(),
        public: pem("PUBLIC KEY", public.as_ref()),
        signing: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes())
            .unwrap(),
    }
}

fn ecdsa(is_256: bool) -> TestKey {
    let (algorithm, by): (_, &'static EcdsaSigningAlgorithm) = match is_256 {
        true => (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING),
        false => (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING),
    };
    let private = EcdsaKeyPair::generate_pkcs8(by, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(by, private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    TestKey {
        algorithms: vec![algorithm],
        public: pem("PUBLIC KEY", public.as_ref()),
        signing: EncodingKey::from_ec_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap(),
    }
}

fn eddsa() -> TestKey {
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    TestKey {
        algorithms: vec![Algorithm::EdDSA],
        public: pem("PUBLIC KEY", public.as_ref()),
        signing: EncodingKey::from_ed_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap(),
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}

/// The part of a token that says this.
fn part(text: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// A token with this header and these claims, signed by an algorithm that the header need not name.
fn sign(header: &str, claims: impl AsRef<[u8]>, key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

/// A token with this header and these claims, signed with [`SECRET`] by HS256.
fn signed(header: &str, claims: impl AsRef<[u8]>) -> String {
    sign(header, claims, &keys()[0].signing, Algorithm::HS256)
}

/// A token with these claims, signed with [`SECRET`].
fn token(claims: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

fn key(algorithms: &[Algorithm], id: Option<&str>, key: &str) -> TokenKey {
    let id = id.map(str::to_owned);
    TokenKey { algorithms: algorithms.to_vec(), id, key: key.into(), ..TokenKey::new("a") }
}

fn with_keys(keys: Vec<TokenKey>) -> Tokens {
    Tokens::new(&Config { token_keys: keys, ..Config::default() })
}

/// Verifies with [`SECRET`], and what is set.
fn tokens(set: impl FnOnce(&mut Config)) -> Tokens {
    let mut config = Config { hmac_secret: Some(SECRET.into()), ..Config::default() };
    set(&mut config);
    Tokens::new(&config)
}

/// Why a token of a connection is rejected.
fn fault(tokens: &Tokens, token: &str) -> Option<TokenError> {
    tokens.verify_connection(token, NOW).err()
}

#[test]
fn a_token_is_verified_by_the_key_and_the_algorithm_that_signed_it_and_no_others() {
    for signer in keys() {
        for algorithm in signer.algorithms.iter().copied() {
            let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
            let token = sign(&header, r#"{"sub":"42"}"#, &signer.signing, algorithm);
            for holder in keys() {
                for pinned in holder.algorithms.iter().copied() {
                    let tokens = with_keys(vec![key(&[pinned], None, &holder.public)]);
                    let expected = match pinned == algorithm {
                        true if holder.public == signer.public => None,
                        true => unreachable!("there is one key for each algorithm"),
                        false => Some(TokenError::Algorithm),
                    };
                    assert_eq!(fault(&tokens, &token), expected, "{algorithm:?} by {pinned:?}");
                }
                let all = with_keys(vec![key(&holder.algorithms, None, &holder.public)]);
                let is_signer = holder.public == signer.public;
                let expected = (!is_signer).then_some(TokenError::Algorithm);
                assert_eq!(fault(&all, &token), expected, "{algorithm:?}");
            }
        }
    }
}

#[test]
fn another_key_of_the_same_kind_does_not_verify() {
    let others = [hmac(), rsa(), ecdsa(true), ecdsa(false), eddsa()];
    for (signer, mut other) in keys().iter().zip(others) {
        if signer.public == other.public {
            other.public.push('!');
        }
        for algorithm in signer.algorithms.iter().copied() {
            let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
            let token = sign(&header, "{}", &signer.signing, algorithm);
            let tokens = with_keys(vec![key(&[algorithm], None, &other.public)]);
            assert_eq!(fault(&tokens, &token), Some(TokenError::Signature), "{algorithm:?}");
            // With the right key beside it, it does.
            let both = [&other.public, &signer.public].map(|text| key(&[algorithm], None, text));
            assert_eq!(fault(&with_keys(both.into()), &token), None, "{algorithm:?}");
        }
    }
}

#[test]
fn one_secret_is_for_every_algorithm_of_hmac() {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
        let token = sign(&header, "{}", &keys()[0].signing, algorithm);
        assert_eq!(fault(&tokens(|_| {}), &token), None);
    }
    assert!(tokens(|_| {}).has_keys());
    assert!(!Tokens::new(&Config::default()).has_keys());
    assert_eq!(fault(&Tokens::new(&Config::default()), &token("{}")), Some(TokenError::Key));
}

#[test]
fn the_header_does_not_choose_an_algorithm_that_the_key_is_not_for() {
    let all: Vec<_> = keys().iter().map(|all| key(&all.algorithms, None, &all.public)).collect();
    let all = with_keys(all);
    for algorithm in ["none", "None", "NONE", "", "hs256", "HS1", "ES512", "ES256K", "dir"] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let unsigned = format!("{}.{}.", part(&header), part("{}"));
        assert_eq!(fault(&all, &unsigned), Some(TokenError::Algorithm), "{algorithm}");
        assert_eq!(fault(&all, &signed(&header, "{}")), Some(TokenError::Algorithm));
    }
    // Without a signature, and with one by HMAC whose secret is the public key, as text or as its bytes.
    let header = r#"{"alg":"HS256"}"#;
    for public in &keys()[1..] {
        let tokens = with_keys(vec![key(&public.algorithms, None, &public.public)]);
        let der = public.public.lines().nth(1).unwrap();
        let der = BASE64_STANDARD.decode(der).unwrap();
        for secret in [public.public.as_bytes(), public.public.trim().as_bytes(), &der] {
            let secret = EncodingKey::from_secret(secret).unwrap();
            let forged = sign(header, "{}", &secret, Algorithm::HS256);
            assert_eq!(fault(&tokens, &forged), Some(TokenError::Algorithm));
            assert_eq!(fault(&all, &forged), Some(TokenError::Signature), "it has a secret too");
        }
        let name = format!("{:?}", public.algorithms[0]);
        let unsigned = format!("{}.{}.", part(format!(r#"{{"alg":"{name}"}}"#)), part("{}"));
        assert_eq!(fault(&tokens, &unsigned), Some(TokenError::Signature));
    }
}

#[test]
fn keys_are_chosen_by_their_id() {
    let hs256 = |id, secret| key(&[Algorithm::HS256], id, secret);
    let named = |id: Option<&str>, secret: &str| {
        let id = id.map(|id| format!(r#","kid":"{id}""#)).unwrap_or_default();
        let secret = EncodingKey::from_secret(secret.as_bytes()).unwrap();
        sign(&format!(r#"{{"alg":"HS256"{id}}}"#), "{}", &secret, Algorithm::HS256)
    };
    let two = with_keys(vec![hs256(Some("a"), "of a"), hs256(Some("b"), "of b")]);
    let three =
        with_keys(vec![hs256(Some("a"), "of a"), hs256(None, "first"), hs256(None, "last")]);
    for (tokens, id, secret, expected) in [
        (&two, Some("a"), "of a", None),
        (&two, Some("b"), "of b", None),
        (&two, Some("a"), "of b", Some(TokenError::Signature)),
        (&two, Some("c"), "of a", Some(TokenError::Key)),
        (&two, Some(""), "of a", Some(TokenError::Key)),
        (&two, None, "of a", Some(TokenError::Key)),
        (&three, Some("a"), "of a", None),
        (&three, Some("a"), "first", Some(TokenError::Signature)),
        (&three, Some("c"), "first", None),
        (&three, None, "first", None),
        (&three, None, "last", None),
        (&three, None, "of a", Some(TokenError::Signature)),
    ] {
        assert_eq!(fault(tokens, &named(id, secret)), expected, "{id:?} {secret}");
    }
}

/// RFC 7515 A.1 to A.3; the token of A.1 is that of RFC 7519 3.1.
#[test]
fn the_examples_of_the_standard_are_verified() {
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb2\
        90Ijp0cnVlfQ";
    const EXPIRES: u64 = 1_300_819_380;
    let secret =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4\
        QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQ\
        OS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2eth\
        FkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let point = [
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    ];
    for (algorithm, key, header, signature) in [
        (
            Algorithm::HS256,
            DecodingKey::from_secret(&decode(secret).unwrap()),
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            Algorithm::RS256,
            DecodingKey::from_rsa_components(modulus, "AQAB"),
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJ\
             dbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eS\
             N9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5A\
             XLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            Algorithm::ES256,
            DecodingKey::from_ec_components(point[0], point[1]),
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let key = Key { algorithms: vec![algorithm], id: None, key: key.unwrap() };
        let issuer = Some("joe".to_owned());
        let tokens = Tokens { keys: vec![key], issuer, ..Tokens::new(&Config::default()) };
        let token = format!("{header}.{CLAIMS}.{signature}");
        let claims = tokens.verify_connection(&token, EXPIRES - 1).unwrap();
        let expires_at = Some(EXPIRES);
        assert_eq!(claims.identity, Identity { user: None, info: None, expires_at });
        let expired = tokens.verify_connection(&token, EXPIRES).unwrap_err();
        assert_eq!(expired, TokenError::Expired);
        let other = Tokens { issuer: Some("jane".to_owned()), ..tokens };
        assert_eq!(fault(&other, &token), Some(TokenError::Issuer));
    }
}

#[test]
fn what_is_not_a_token_is_malformed() {
    let header = part(r#"{"alg":"HS256"}"#);
    let good = token("{}");
    // The last character has two bits that mean nothing, and they must be zero.
    let (start, last) = good.split_at(good.len() - 1);
    let non_canonical = format!("{start}{}", (last.as_bytes()[0] + 1) as char);
    for bad in [
        "",
        ".",
        "..",
        "...",
        "x",
        "e30.e30",
        &format!("{good}."),
        &format!("{good}.x"),
        &format!("{good} "),
        &format!(" {good}"),
        &format!("{good}="),
        &format!("{good}\n"),
        &format!("Bearer {good}"),
        &good[..good.len() - 1],
        &good.replace('.', ","),
        &good.replace('.', ".."),
        &format!("{header}.e30.e30.e30.e30"),
        &format!("{header}=.e30.e30"),
        &format!("{header}.e30.\u{e9}"),
        &non_canonical,
    ] {
        assert_eq!(fault(&tokens(|_| {}), bad), Some(TokenError::Malformed), "{bad:?}");
    }
    for header in [
        "",
        "{",
        "{}",
        "null",
        "5",
        r#"["HS256"]"#,
        r#"["HS256",null,null]"#,
        r#"{"alg":5}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":5}"#,
        r#"{"alg":"HS256"} x"#,
    ] {
        let bad = signed(header, "{}");
        assert_eq!(fault(&tokens(|_| {}), &bad), Some(TokenError::Malformed), "{header}");
    }
}

#[test]
fn further_members_of_the_header_are_ignored_but_not_those_that_must_be_understood() {
    let verify = |header: &str| fault(&tokens(|_| {}), &signed(header, "{}"));
    for header in [
        r#"{"typ":"JWT","alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"at+jwt","cty":5,"x":{"y":[]}}"#,
        r#"{"alg":"HS256","kid":null,"crit":null}"#,
        "{\"alg\":\"HS\\u0032\\u00356\"}",
    ] {
        assert_eq!(verify(header), None, "{header}");
    }
    for header in [
        r#"{"alg":"HS256","crit":["b64"],"b64":true}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":5}"#,
    ] {
        assert_eq!(verify(header), Some(TokenError::Unsupported), "{header}");
    }
}

#[test]
fn a_token_is_refused_if_any_of_its_characters_is_another() {
    let (good, tokens) = (token(r#"{"sub":"42"}"#), tokens(|_| {}));
    for at in 0..good.len() {
        for other in ["A", "B", "_", ".", "=", "\u{e9}"] {
            let mut bad = good.clone();
            bad.replace_range(at..=at, other);
            assert_eq!(fault(&tokens, &bad).is_none(), bad == good, "{bad}");
        }
        assert!(fault(&tokens, &good[..at]).is_some());
        assert!(fault(&tokens, &good[at + 1..]).is_some());
    }
}

#[test]
fn a_token_may_have_as_many_bytes_as_the_limit_and_no_more() {
    // Three bytes of a claim are four of the token.
    let claims = |length: usize| format!(r#"{{"x":"{}"}}"#, "x".repeat(length));
    let base = token(&claims(0)).len();
    let longest = (TOKEN_BYTES_MAX - base) / 4 * 3;
    let sizes = (longest..longest + 6).map(|length| token(&claims(length)));
    let (fits, too_large): (Vec<_>, Vec<_>) =
        sizes.partition(|token| token.len() <= TOKEN_BYTES_MAX);
    assert!(fits.iter().any(|token| token.len() > TOKEN_BYTES_MAX - 4) && !too_large.is_empty());
    for token in fits {
        assert_eq!(fault(&tokens(|_| {}), &token), None);
    }
    for token in too_large {
        assert_eq!(fault(&tokens(|_| {}), &token), Some(TokenError::TooLarge));
    }
    let exact = "x".repeat(TOKEN_BYTES_MAX);
    assert_eq!(fault(&tokens(|_| {}), &exact), Some(TokenError::Malformed));
    assert_eq!(fault(&tokens(|_| {}), &(exact + "x")), Some(TokenError::TooLarge));
}

#[test]
fn every_reason_has_a_label_and_few_ask_for_a_new_token() {
    assert_eq!(TokenError::ALL.len(), TokenError::LABELS.len());
    for (index, (error, label)) in TokenError::ALL.iter().zip(TokenError::LABELS).enumerate() {
        assert_eq!((*error as usize, error.label()), (index, *label));
        assert_eq!(error.is_expired(), ["expired", "not_yet_valid"].contains(label));
        assert!(error.to_string().contains("token"));
    }
}

#[test]
fn no_key_is_shown() {
    let tokens =
        tokens(|config| config.token_keys = vec![key(&[Algorithm::HS256], None, "hunter2")]);
    for text in [format!("{tokens:?}"), format!("{:?}", tokens.keys[0].key)] {
        assert!(!text.contains("hunter2") && !text.contains(SECRET), "{text}");
        assert!(!text.contains("104, 117"), "{text}");
    }
    assert_eq!(format!("{tokens:?}").matches("keys: 2").count(), 1);
}
