//! The keys that tokens of clients are verified with: the sections `[auth.keys.NAME]` of the settings file.

use std::ops::RangeInclusive;
use std::time::Duration;

use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm};
use hyper::Uri;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};

use super::callbacks::shown_url;
use super::limits::{
    JWKS_TIMEOUT, TOKEN_KEY_BYTES_MAX, TOKEN_KEY_ID_BYTES_MAX, TOKEN_SECRET_BYTES_MAX,
};
use super::nearest::did_you_mean;
use super::secret::Secret;
use super::units::{Time, parse_seconds};

/// A key that tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The name of its section: 1..=64 bytes of letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The algorithms that a token signed with it may name: at least one, all of one family.
    pub algorithms: Vec<Algorithm>,
    /// The `kid` of the tokens that it verifies: 1..=[`TOKEN_KEY_ID_BYTES_MAX`] bytes. If `None`, it verifies tokens
    /// that name no key of the configuration.
    pub id: Option<String>,
    /// Where keys are published, as a JWK Set, instead of `key`.
    pub jwks_url: Option<Uri>,
    /// How long a fetch of these keys may take: 100 ms to 1 min.
    pub jwks_timeout: Duration,
    /// The secret of HMAC: 1..=[`TOKEN_SECRET_BYTES_MAX`] bytes; or the public key of other algorithms, as PEM: up to
    /// [`TOKEN_KEY_BYTES_MAX`] bytes.
    pub key: Secret,
}

/// How long a fetch of published keys may take.
const JWKS_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);

/// The keys of a section `[auth.keys.NAME]`, with a short description of each.
pub const TOKEN_KEY_OPTIONS: [(&str, &str); 6] = [
    (
        "algorithm",
        "What the tokens are signed with: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 \
         or EdDSA; or a list of those that one key is for. A token that names another one is rejected",
    ),
    (
        "key",
        "For HS256, HS384 and HS512, the secret: 1 to 1024 bytes. For all others, the public key as PEM (`PUBLIC KEY` \
         or `RSA PUBLIC KEY`), up to 16 KiB; RSA keys of 2048 to 8192 bits",
    ),
    (
        "key_file",
        "A file that contains the key, instead of `key`; white space around it is ignored",
    ),
    (
        "jwks_url",
        "An http or https URL at which public keys are published (JWK Set, RFC 7517), instead of `key`; for any number \
         of algorithms but HS256, HS384 and HS512. The first URL of a server without callbacks takes effect at the \
         next start",
    ),
    (
        "jwks_timeout",
        "How long a fetch from `jwks_url` may take, from 100 ms to 1 min; 5 s without it",
    ),
    (
        "kid",
        "The id of the key, up to 255 bytes: it then verifies only tokens that have it as their `kid`. A key without \
         it verifies tokens without a `kid`, or with one that no key has",
    ),
];

impl TokenKey {
    /// A key without an algorithm.
    pub fn new(name: &str) -> Self {
        let (name, key) = (name.to_owned(), Secret::default());
        let (algorithms, jwks_timeout) = (Vec::new(), JWKS_TIMEOUT);
        Self { name, algorithms, id: None, jwks_url: None, jwks_timeout, key }
    }

    /// The key that `auth.hmac_secret` is: for every algorithm of HMAC.
    pub fn of_secret(secret: &Secret) -> Self {
        let algorithms = AlgorithmFamily::Hmac.algorithms().to_vec();
        Self { algorithms, key: secret.clone(), ..Self::new("auth.hmac_secret") }
    }

    /// Reads the names of algorithms. An error is the part of a sentence that follows the option's name.
    pub fn parse_algorithms(words: &[String]) -> Result<Vec<Algorithm>, String> {
        let parse = |word: &String| {
            let hint = || did_you_mean(word, ALGORITHMS.iter().copied());
            word.parse().map_err(|_| format!("'{word}' is not an algorithm of tokens{}", hint()))
        };
        words.iter().map(parse).collect()
    }

    /// Reads how long a fetch of published keys may take. An error is the part of a sentence that follows the option's
    /// name.
    pub fn parse_jwks_timeout(text: &str) -> Result<Duration, String> {
        let timeout = parse_seconds(text)?;
        let (min, max) = (Time(*JWKS_TIMEOUT_RANGE.start()), Time(*JWKS_TIMEOUT_RANGE.end()));
        let is_in_range = JWKS_TIMEOUT_RANGE.contains(&timeout);
        is_in_range.then_some(timeout).ok_or_else(|| format!("'{text}' is not from {min} to {max}"))
    }

    /// Checks the key itself. The error is a sentence, and does not have the key.
    pub fn check(&self) -> Result<(), String> {
        let section = format!("[auth.keys.{}]", self.name);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(is_allowed) {
            return Err(format!(
                "{section}: a name has 1 to 64 characters: letters, digits, '_', '-' or '.'"
            ));
        }
        let is_id = |id: &String| (1..=TOKEN_KEY_ID_BYTES_MAX).contains(&id.len());
        if !self.id.as_ref().is_none_or(is_id) {
            return Err(format!("{section}: kid: it must be 1 to {TOKEN_KEY_ID_BYTES_MAX} bytes"));
        }
        let checked = match self.jwks_url {
            None => self.decoding_key().map(drop),
            Some(_) => self.check_published(),
        };
        checked.map_err(|fault| format!("{section}: {fault}"))
    }

    /// Whether a public key can verify signatures of an algorithm.
    pub fn is_usable(algorithm: Algorithm, key: &DecodingKey) -> bool {
        key.family() == algorithm.family()
            && match key.kind() {
                DecodingKeyKind::SecretOrDer(bytes) => is_usable(algorithm, bytes),
                DecodingKeyKind::RsaModulusExponent { n, .. } => is_modulus(n),
            }
    }

    fn check_published(&self) -> Result<(), String> {
        if self.id.is_some() {
            return Err("kid: published keys have their own".to_owned());
        }
        if self.algorithms.is_empty() {
            return Err("algorithm: it is needed, such as RS256".to_owned());
        }
        match self.is_secret() {
            true => {
                Err("algorithm: the keys of HMAC are secret and cannot be published".to_owned())
            }
            false => Ok(()),
        }
    }

    /// The key in the form in which it verifies. The error is the part of a sentence that follows the section.
    pub fn decoding_key(&self) -> Result<DecodingKey, String> {
        let Some(first) = self.algorithms.first() else {
            return Err("algorithm: it is needed, such as RS256".to_owned());
        };
        let family = first.family();
        if let Some(other) = self.algorithms.iter().find(|other| other.family() != family) {
            return Err(format!("algorithm: one key cannot be for both {first:?} and {other:?}"));
        }
        let key = self.key.expose();
        let is_pem = key.trim_start().starts_with("-----BEGIN ");
        if family == AlgorithmFamily::Hmac {
            // A public key is known to everyone: as a secret, it would let everyone sign tokens.
            if is_pem {
                return Err(format!("key: it is a PEM file, and {first:?} needs a secret"));
            }
            let is_secret = (1..=TOKEN_SECRET_BYTES_MAX).contains(&key.len());
            let decoding = is_secret.then(|| DecodingKey::from_secret(key.as_bytes()).ok());
            let wanted = || format!("key: a secret has 1 to {TOKEN_SECRET_BYTES_MAX} bytes");
            return decoding.flatten().ok_or_else(wanted);
        }
        if key.len() > TOKEN_KEY_BYTES_MAX {
            return Err(format!("key: it has at most {TOKEN_KEY_BYTES_MAX} bytes"));
        }
        if key.contains("PRIVATE KEY-----") {
            return Err("key: it is a private key, and the server needs the public one".to_owned());
        }
        let is_public = |what: &&str| key.contains(&format!("-----BEGIN {what}-----"));
        let unfit = || format!("key: it is not one public key for {first:?}, as PEM");
        if !["PUBLIC KEY", "RSA PUBLIC KEY"].iter().any(is_public)
            || key.matches("-----BEGIN ").count() > 1
        {
            return Err(unfit());
        }
        let pem = key.as_bytes();
        let key = match family {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
            _ => DecodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| unfit())?;
        let bytes = key.try_get_as_bytes().map_err(|_| unfit())?;
        let fits = |algorithm: &Algorithm| is_usable(*algorithm, bytes);
        if self.algorithms.iter().all(fits) { Ok(key) } else { Err(unfit()) }
    }

    /// Whether it is a secret, which signs tokens as well as it verifies them.
    pub fn is_secret(&self) -> bool {
        self.algorithms.iter().any(|algorithm| algorithm.family() == AlgorithmFamily::Hmac)
    }

    /// The options as text, in the order in which they are listed, without the key.
    pub fn texts(&self) -> [(&'static str, String); 4] {
        let names: Vec<_> = self.algorithms.iter().map(|name| format!("{name:?}")).collect();
        let id = self.id.clone().unwrap_or_else(|| "none".to_owned());
        let (key, url) = match &self.jwks_url {
            Some(url) => ("none", shown_url(url)),
            None => ("hidden", "none".to_owned()),
        };
        [("algorithm", names.join(", ")), ("key", key.to_owned()), ("jwks_url", url), ("kid", id)]
    }
}

/// The names of all algorithms.
const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

/// Whether a public key can verify signatures of an algorithm: a point of its curve, or an RSA key of a size that is
/// neither weak nor slow.
fn is_usable(algorithm: Algorithm, key: &[u8]) -> bool {
    let parses = |by: &'static dyn VerificationAlgorithm| ParsedPublicKey::new(by, key).is_ok();
    match algorithm {
        Algorithm::ES256 => parses(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => parses(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => parses(&signature::ED25519),
        _ => PublicKey::from_der(key)
            .is_ok_and(|key| is_modulus(&RsaPublicKeyComponents::<Vec<u8>>::from(&key).n)),
    }
}

/// Whether a modulus of RSA is of a size that is verified.
fn is_modulus(modulus: &[u8]) -> bool {
    let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (2048..=8192).contains(&(modulus.len() * 8 - zeros))
}

/// The table of the options of a key in `README.md`.
pub(super) fn token_keys_markdown() -> String {
    let mut table = "| `[auth.keys.NAME]` | what it is |\n|---|---|\n".to_owned();
    for (name, doc) in TOKEN_KEY_OPTIONS {
        table.push_str(&format!("| `{name}` | {doc} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEE1oi+6awI62l0Uf4nkEPoJ5biXYY
kh4qaPLiiGrrku59VhU+Dm7Nu8MeJ+I7OFdJ5CUpoxJRRjG2RiQi8xZe4g==
-----END PUBLIC KEY-----";

    const P384: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE1QnxueMEEy+RyBDG5IRpFBayFJ9sBdfF
3yhRyjO+B2lEWmlW9R+mLgfuhxGOqKLvFteVDvON3TZeiIg8xnd4JsApxgol/dK0
fa3qxy5UFQgv87ykRU41mYAbCv2N1KYz
-----END PUBLIC KEY-----";

    const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQA9WwClO8Z5s2Yw6BezrAm17cJuiDK
FhWRmKd3Eipo8dO6hbgy6aPDhNtSzp+K3iN9rbZ5gOlcjAf32SH85TkRf4UBT8Tw
1ns0q/ze+k/xMBaLJ79/Pp2IFiE8PQ9X4sN8CeiGzjmWdVppphgmiJt65OGh17u7
GqZvx8oSn7ARfUvOFqI=
-----END PUBLIC KEY-----";

    const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEMnTybYVrmONXE2Y9mIz+QymOlAUxRfeI
wAX9L6D5DtgPZxTrwDh8TRH+Cpx70MPNar8Vh1jDuK1rrf2CTwmWDA==
-----END PUBLIC KEY-----";

    const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA7rMsuwzUPS4sGVhPS0UPBkW51Q3chzaEA/4NPu6SltY=
-----END PUBLIC KEY-----";

    const ED448: &str = "-----BEGIN PUBLIC KEY-----
MEMwBQYDK2VxAzoAUUibNzIAk9OGd6evvVluEpFAxcFfvkJAoetQuMD/FYLYjlVs
YJvuh53eBN0DtY9ZB/WjEOqjKX4A
-----END PUBLIC KEY-----";

    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDo4V8DB85PZ0bHLuu4VsJI95Rt
vdCIunxTSeV7uf9kFaqDfR80G83gCzMxPrDf6R/8QhLSdqysqkWcu2YVhMDOLBv9
a9szGp6k3KhJzDnrxDgvWJc/O03Guzf2vzkmRyQCor3u/fUYkwvbctp/KHnk8TIb
3g6aYHn5r82oLWhFoQIDAQAB
-----END PUBLIC KEY-----";

    const RSA_2048: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAm41vN6CFTbyR5+rhFsFy
2S7Aw5+Sv9X29wW2q51FMJy+G2T5flpLzFhg04fnH0f1s3R4Kp4dl+ujUnjR9XX/
wnoPFDC9NxgoHCE8DfVSg9egEM3RrENHnZeCdl0Rcp9laPXZ0MvJb6Og3qXDBqlU
4SwzrrdSfBIaCbdtzHajAJEQ3IbEbgNY5dJ42Zr8hL9+IfV2ALkuBXpFPgR6qCGq
dqHyQs20acdE+TPBz9iMdNVB9FHWCUQY1LCQ3GmHOVJGTEet15m/eRCnQtRw70EY
UwjMyMCXckp+G3AjB9K6WflCruBJRWFR6NDux9RfAP2MJSMomf0FsAeMjthSs7iJ
lQIDAQAB
-----END PUBLIC KEY-----";

    const RSA_2048_PKCS1: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAm41vN6CFTbyR5+rhFsFy2S7Aw5+Sv9X29wW2q51FMJy+G2T5flpL
zFhg04fnH0f1s3R4Kp4dl+ujUnjR9XX/wnoPFDC9NxgoHCE8DfVSg9egEM3RrENH
nZeCdl0Rcp9laPXZ0MvJb6Og3qXDBqlU4SwzrrdSfBIaCbdtzHajAJEQ3IbEbgNY
5dJ42Zr8hL9+IfV2ALkuBXpFPgR6qCGqdqHyQs20acdE+TPBz9iMdNVB9FHWCUQY
1LCQ3GmHOVJGTEet15m/eRCnQtRw70EYUwjMyMCXckp+G3AjB9K6WflCruBJRWFR
6NDux9RfAP2MJSMomf0FsAeMjthSs7iJlQIDAQAB
-----END RSA PUBLIC KEY-----";

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBbDCCAROgAwIBAgIUYhuDgb4yThYFdPvRm0b953QrKS8wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBeDAeFw0yNjExMjkxNzEzMTJaFw0zNjExMjYxNzEzMTJaMAwx
CjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQTWiL7prAjraXR
R/ieQQ+gnluJdhiSHipo8uKIauuS7n1WFT4Obs27wx4n4js4V0nkJSmjElFGMbZG
JCLzFl7io1MwUTAdBgNVHQ4EFgQUYhy5UpRH3h0Lhrm/4LV0XcfCVAMwHwYDVR0j
BBgwFoAUYhy5UpRH3h0Lhrm/4LV0XcfCVAMwDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNHADBEAiBptwBCLywBH/jnBxE4QkWmS3l8Pw4vluSRO/iCc0irnQIg
dxdqsg5/LuLA47Z0Zz78ZWfhdZAhEgIBTXqY00phDCI=
-----END CERTIFICATE-----";

    fn key(algorithms: &[&str], text: &str) -> TokenKey {
        let words: Vec<_> = algorithms.iter().map(|&word| word.to_owned()).collect();
        let algorithms = TokenKey::parse_algorithms(&words).unwrap();
        TokenKey { algorithms, key: text.into(), ..TokenKey::new("a") }
    }

    #[test]
    fn a_timeout_of_fetches_is_in_its_range() {
        for (text, millis) in [("100 ms", 100), ("5", 5000), ("1 m", 60_000)] {
            let timeout = Duration::from_millis(millis);
            assert_eq!(TokenKey::parse_jwks_timeout(text), Ok(timeout));
        }
        for text in ["99 ms", "0", "61 s", "x"] {
            assert!(TokenKey::parse_jwks_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_is_of_the_kind_that_its_algorithms_need() {
        let rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
        let texts =
            [P256, P384, P521, SECP256K1, ED25519, ED448, RSA_1024, RSA_2048, RSA_2048_PKCS1];
        let good = |algorithm: &str| match algorithm {
            "ES256" => vec![P256],
            "ES384" => vec![P384],
            "EdDSA" => vec![ED25519],
            _ => vec![RSA_2048, RSA_2048_PKCS1],
        };
        for algorithm in rsa.iter().chain(&["ES256", "ES384", "EdDSA"]) {
            for text in texts {
                let checked = key(&[algorithm], text).check();
                let is_good = good(algorithm).contains(&text);
                assert_eq!(checked.is_ok(), is_good, "{algorithm} {text} {checked:?}");
                assert_eq!(key(&[algorithm], &format!("\n{text}\n\n")).check(), checked);
            }
            for bad in
                ["", "x", CERTIFICATE, "-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----"]
            {
                let fault = key(&[algorithm], bad).check().unwrap_err();
                let words = format!("[auth.keys.a]: key: it is not one public key for {algorithm}");
                assert!(fault.starts_with(&words), "{fault}");
            }
        }
        assert_eq!(key(&rsa, RSA_2048).check(), Ok(()));
        let two = format!("{P256}\n{P256}");
        assert!(key(&["ES256"], &two).check().unwrap_err().contains("not one public key"));
        let long = format!("{P256}{}", " ".repeat(TOKEN_KEY_BYTES_MAX - P256.len()));
        assert_eq!(key(&["ES256"], &long).check(), Ok(()));
        assert!(key(&["ES256"], &(long + " ")).check().unwrap_err().contains("at most 16384"));
    }

    #[test]
    fn private_keys_and_public_keys_as_secrets_are_refused() {
        let private = "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----";
        let fault = key(&["ES256"], private).check().unwrap_err();
        assert!(fault.contains("it is a private key") && !fault.contains("hush"), "{fault}");
        for public in [P256, RSA_2048, RSA_2048_PKCS1, &format!(" \n{ED25519}")] {
            let fault = key(&["HS256"], public).check().unwrap_err();
            assert!(fault.contains("it is a PEM file, and HS256 needs a secret"), "{fault}");
        }
    }

    #[test]
    fn a_secret_has_a_length_and_is_not_shown() {
        let secret = "s".repeat(TOKEN_SECRET_BYTES_MAX);
        assert_eq!(key(&["HS256", "HS384", "HS512"], &secret).check(), Ok(()));
        for bad in ["", &(secret + "s")] {
            let fault = key(&["HS256"], bad).check().unwrap_err();
            assert!(fault.contains("key: a secret has 1 to 1024 bytes"), "{fault}");
            assert!(!fault.contains("ss"), "{fault}");
        }
        let shown =
            format!("{:?} {:?}", key(&["HS256"], "hunter2"), key(&["HS256"], "hunter2").texts());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_key_has_algorithms_of_one_family() {
        let fault = TokenKey { key: "s".into(), ..TokenKey::new("a") }.check().unwrap_err();
        assert!(fault.contains("algorithm: it is needed"), "{fault}");
        for algorithms in [["HS256", "RS256"], ["ES256", "EdDSA"], ["RS256", "ES256"]] {
            let fault = key(&algorithms, RSA_2048).check().unwrap_err();
            assert!(fault.contains("one key cannot be for both"), "{fault}");
        }
        // The curve decides between these two.
        assert!(key(&["ES256", "ES384"], P256).check().is_err());
        for word in ["none", "hs256", "HS257", ""] {
            let fault = TokenKey::parse_algorithms(&[word.to_owned()]).unwrap_err();
            assert!(fault.contains(&format!("'{word}' is not an algorithm of tokens")), "{fault}");
        }
        for name in ALGORITHMS {
            assert_eq!(format!("{:?}", key(&[name], "").algorithms[0]), name);
        }
    }

    #[test]
    fn names_and_ids_have_a_length() {
        for name in ["", "a b", &"n".repeat(65)] {
            let key = TokenKey { name: name.to_owned(), ..key(&["HS256"], "s") };
            assert!(key.check().unwrap_err().contains("a name has 1 to 64"), "{name}");
        }
        let with_id = |id: &str| TokenKey { id: Some(id.to_owned()), ..key(&["HS256"], "s") };
        assert_eq!(with_id(&"i".repeat(TOKEN_KEY_ID_BYTES_MAX)).check(), Ok(()));
        for bad in ["", &"i".repeat(TOKEN_KEY_ID_BYTES_MAX + 1)] {
            assert!(with_id(bad).check().unwrap_err().contains("kid: it must be 1 to 255 bytes"));
        }
    }
}
