//! `fantail token`: makes a token for a client.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use fantail::config::limits::TOKEN_KEY_BYTES_MAX;
use fantail::config::{Config, Given, Origin, Secret, Setting, Sources, TokenKey, parse_seconds};

use super::output::say;

/// Arguments of `fantail token`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The user that the client acts for; an anonymous client without it
    #[arg(long, value_name = "USER", default_value = "")]
    user: String,
    /// Make a token for a subscription to this channel, instead of one for a connection
    #[arg(long, value_name = "CHANNEL", conflicts_with = "channels")]
    channel: Option<String>,
    /// A channel that the server subscribes the client to; may be given more than once
    #[arg(long, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// How long the token is valid: 90 s, 1 h, 30 d; 0 for ever
    #[arg(long, value_name = "TIME", default_value = "1 h", value_parser = parse_seconds)]
    expire: Duration,
    /// What other clients see of this one beside its user
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    info: Option<Box<RawValue>>,
    /// The audience [default: auth.audience of the settings, or none]
    #[arg(long, value_name = "TEXT")]
    aud: Option<String>,
    /// The issuer [default: auth.issuer of the settings, or none]
    #[arg(long, value_name = "TEXT")]
    iss: Option<String>,
    /// Sign with the secret of the section [auth.keys.NAME] [default: with auth.hmac_secret]
    #[arg(long, value_name = "NAME", conflicts_with = "private_key")]
    key: Option<String>,
    /// Sign with a private key, PEM in PKCS#8, whose public key the server has
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// The id of the private key
    #[arg(long, value_name = "ID", requires = "private_key")]
    kid: Option<String>,
    /// The algorithm [default: the first that fits the key, such as HS256, RS256 or ES256]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,
    /// Settings file, TOML, for the secret, the audience and the issuer
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The secret, instead of auth.hmac_secret of the settings
    #[arg(long, value_name = "SECRET", conflicts_with_all = ["key", "private_key"])]
    token_hmac_secret: Option<Secret>,
}

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Prints the token. Make tokens in your backend, by any library for JSON Web Tokens: this is for
trying things out.

Examples:
  fantail token --user 42 --config fantail.toml
  fantail token --user 42 --token-hmac-secret SECRET --info '{\"name\":\"Ann\"}' --channels feed
  fantail token --user 42 --channel '$vip' --expire 5m --private-key key.pem --kid 2026";

/// The claims of a token.
#[derive(Serialize)]
pub struct Claims<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    sub: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
}

/// What a token is signed with.
struct Signer {
    key: EncodingKey,
    /// The algorithms that may fit it; the first that does is used.
    algorithms: Vec<Algorithm>,
    id: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let secret = Setting::named("auth.hmac_secret").expect("a row of the table");
    let flags = arguments.token_hmac_secret.iter().map(|text| Given {
        setting: secret,
        texts: vec![text.expose().to_owned()],
        origin: Origin::Flag(secret.flag),
    });
    let sources = Sources { file: arguments.config.clone(), flags: flags.collect() };
    let config = sources.load().map_err(|error| error.to_string())?.config;
    say(&format!("{}\n", token(arguments, &config, get_current_timestamp())?));
    Ok(())
}

/// Makes a token. `now` is in seconds since 1970.
fn token(arguments: &Arguments, config: &Config, now: u64) -> Result<String, String> {
    let Arguments { expire, aud, iss, info, .. } = arguments;
    let known = Claims::new(&arguments.user, now, config);
    let claims = Claims {
        exp: (!expire.is_zero()).then(|| now + expire.as_secs().max(1)),
        aud: aud.as_deref().or(known.aud),
        iss: iss.as_deref().or(known.iss),
        info: info.as_deref(),
        channel: arguments.channel.as_deref(),
        channels: &arguments.channels,
        ..known
    };
    let signer = match &arguments.private_key {
        Some(path) => private_key(path, arguments.kid.clone())?,
        None => secret(config, arguments.key.as_deref())?,
    };
    signer.sign(&claims, arguments.algorithm.as_ref())
}

/// Makes a token that is valid for some seconds, with a secret of the settings.
pub fn sign(claims: &Claims<'_>, seconds: u64, config: &Config) -> Result<String, String> {
    let mut keys = config.token_keys.iter();
    let name = match config.hmac_secret {
        Some(_) => None,
        None => keys.find(|key| key.is_secret()).map(|key| key.name.as_str()),
    };
    let claims = Claims { exp: Some(claims.iat + seconds), ..*claims };
    secret(config, name)?.sign(&claims, None)
}

/// Whether the settings have a secret to sign tokens with.
pub fn can_sign(config: &Config) -> bool {
    config.hmac_secret.is_some() || config.token_keys.iter().any(TokenKey::is_secret)
}

impl<'a> Claims<'a> {
    /// The claims of a user, for the server of these settings. `now` is in seconds since 1970.
    pub fn new(user: &'a str, now: u64, config: &'a Config) -> Self {
        Self {
            sub: user,
            iat: now,
            exp: None,
            aud: config.audience.as_deref(),
            iss: config.issuer.as_deref(),
            info: None,
            channel: None,
            channels: &[],
        }
    }

    /// The claims of a token for a subscription to a channel, if there is one.
    pub fn for_channel(self, channel: Option<&'a str>) -> Self {
        Self { channel, ..self }
    }
}

impl Signer {
    fn sign(&self, claims: &Claims<'_>, wanted: Option<&Algorithm>) -> Result<String, String> {
        let is_wanted = |algorithm: &&Algorithm| wanted.is_none_or(|wanted| wanted == *algorithm);
        let mut candidates = self.algorithms.iter().filter(is_wanted);
        let signed = candidates.find_map(|algorithm| {
            let header = Header { kid: self.id.clone(), ..Header::new(*algorithm) };
            encode(&header, claims, &self.key).ok()
        });
        signed.ok_or_else(|| match wanted {
            Some(algorithm) => format!("the key is not for {algorithm:?}"),
            None => "the key is for no algorithm of tokens".to_owned(),
        })
    }
}

/// A secret of the settings: of the section of this name, or `auth.hmac_secret`.
fn secret(config: &Config, name: Option<&str>) -> Result<Signer, String> {
    let keys = &config.token_keys;
    let key = match (name, &config.hmac_secret) {
        (Some(name), _) => keys.iter().find(|key| key.name == name).cloned(),
        (None, secret) => secret.as_ref().map(TokenKey::of_secret),
    };
    let key = key.ok_or_else(|| match name {
        Some(name) => format!("the settings have no section [auth.keys.{name}]"),
        None => "no key: set auth.hmac_secret in the settings, or give --token-hmac-secret, --key or --private-key"
            .to_owned(),
    })?;
    if !key.is_secret() {
        return Err(format!(
            "[auth.keys.{}] has a public key, which signs nothing: give --private-key",
            key.name
        ));
    }
    let TokenKey { key, algorithms, id, .. } = key;
    let key =
        EncodingKey::from_secret(key.expose().as_bytes()).map_err(|error| error.to_string())?;
    Ok(Signer { key, algorithms, id })
}

fn private_key(path: &Path, id: Option<String>) -> Result<Signer, String> {
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN_KEY_BYTES_MAX as u64).read_to_end(&mut pem))
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let key = EncodingKey::from_ec_pem(&pem)
        .or_else(|_| EncodingKey::from_ed_pem(&pem))
        .or_else(|_| EncodingKey::from_rsa_pem(&pem))
        .map_err(|_| {
            let path = path.display();
            format!("{path} is not a private key in PKCS#8: try openssl pkcs8 -topk8 -nocrypt")
        })?;
    let algorithms = key.family().algorithms().to_vec();
    Ok(Signer { key, algorithms, id })
}

fn parse_json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use clap::Parser;

    use fantail::auth::Tokens;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &[&str]) -> Arguments {
        Line::try_parse_from([&["token"], words].concat()).unwrap().arguments
    }

    fn config() -> Config {
        let algorithms = vec![Algorithm::HS512, Algorithm::HS256];
        let id = Some("k".to_owned());
        let key = TokenKey { algorithms, id, key: "other".into(), ..TokenKey::new("second") };
        let public = TokenKey { algorithms: vec![Algorithm::ES256], ..TokenKey::new("public") };
        let mut config = Config { hmac_secret: Some("secret".into()), ..Config::default() };
        config.token_keys = vec![key, public];
        config
    }

    fn tokens(config: &Config) -> Tokens {
        let mut config = config.clone();
        config.token_keys.retain(TokenKey::is_secret);
        Tokens::new(&config)
    }

    #[test]
    fn a_token_of_a_connection_is_verified_by_the_server_with_the_same_settings() {
        let config = Config {
            audience: Some("chat".to_owned()),
            issuer: Some("shop".to_owned()),
            ..config()
        };
        let words = ["--user", "42", "--info", "{\"a\": 1}", "--channels", "x", "--channels", "y"];
        for key in [&[][..], &["--key", "second"], &["--algorithm", "HS384"]] {
            let made = token(&arguments(&[&words[..], key].concat()), &config, NOW).unwrap();
            let claims = tokens(&config).verify_connection(&made, NOW).unwrap();
            assert_eq!(claims.identity.user.as_deref(), Some("42"));
            assert_eq!(claims.identity.info.as_deref(), Some(&b"{\"a\": 1}"[..]));
            assert_eq!(claims.identity.expires_at, Some(NOW + 3600));
            let channels: Vec<_> =
                claims.subscriptions.iter().map(|(channel, _)| channel.as_str()).collect();
            assert_eq!(channels, ["x", "y"]);
        }
        let anonymous = token(&arguments(&["--expire", "0"]), &config, NOW).unwrap();
        let claims = tokens(&config).verify_connection(&anonymous, NOW).unwrap();
        assert_eq!(claims.identity, fantail::message::Identity::default());
        for other in [["--aud", "a"], ["--iss", "b"]] {
            let made = token(&arguments(&other), &config, NOW).unwrap();
            assert!(tokens(&config).verify_connection(&made, NOW).is_err());
        }
    }

    #[test]
    fn a_token_of_a_subscription_is_for_its_channel_until_it_expires() {
        let words = ["--user", "42", "--channel", "$vip", "--expire", "5 s"];
        let made = token(&arguments(&words), &config(), NOW).unwrap();
        let claims = tokens(&config()).verify_subscription(&made, NOW + 4).unwrap();
        assert_eq!((claims.channel.as_str(), claims.user.as_deref()), ("$vip", Some("42")));
        assert!(tokens(&config()).verify_subscription(&made, NOW + 5).is_err());
        assert!(tokens(&config()).verify_connection(&made, NOW).is_err());
    }

    #[test]
    fn a_private_key_signs_for_the_public_one() {
        let by = &ECDSA_P384_SHA384_FIXED_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(by, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(by, private.as_ref()).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = |what: &str, der: &[u8]| {
            let text = BASE64_STANDARD.encode(der);
            format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
        };
        let name = format!("fantail-private-key-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, pem("PRIVATE KEY", private.as_ref())).unwrap();
        let file = path.to_str().unwrap();
        let made = token(&arguments(&["--private-key", file, "--kid", "1"]), &config(), NOW);
        let unfit = arguments(&["--private-key", file, "--algorithm", "ES256"]);
        let unfit = token(&unfit, &config(), NOW).unwrap_err();
        std::fs::write(&path, "no key").unwrap();
        let malformed = token(&arguments(&["--private-key", file]), &config(), NOW).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let missing = token(&arguments(&["--private-key", file]), &config(), NOW).unwrap_err();
        let key = TokenKey {
            algorithms: vec![Algorithm::ES384],
            id: Some("1".to_owned()),
            key: pem("PUBLIC KEY", public.as_ref()).into(),
            ..TokenKey::new("a")
        };
        let config = Config { token_keys: vec![key], ..Config::default() };
        assert_eq!(config.token_keys[0].check(), Ok(()));
        assert!(Tokens::new(&config).verify_connection(&made.unwrap(), NOW).is_ok());
        assert!(unfit.contains("not for ES256"), "{unfit}");
        assert!(malformed.contains("is not a private key"), "{malformed}");
        assert!(missing.contains("cannot be read"), "{missing}");
    }

    #[test]
    fn a_key_that_signs_nothing_is_named() {
        for (words, expected) in [
            (&["--key", "public"][..], "[auth.keys.public] has a public key"),
            (&["--key", "third"], "no section [auth.keys.third]"),
            (&["--algorithm", "RS256"], "the key is not for RS256"),
        ] {
            let fault = token(&arguments(words), &config(), NOW).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
        let fault = token(&arguments(&[]), &Config::default(), NOW).unwrap_err();
        assert!(fault.contains("set auth.hmac_secret"), "{fault}");
    }
}
