//! Cases with crowds: clients that connect at once through a callback or with tokens, and floods from one prefix.

use std::io;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use super::cases::{BACKEND, Bound, CaseName, Figure, Listener, ServerSetup, Solo, figure, words};

/// All cases, with so many clients in a crowd.
pub fn solos(clients: usize) -> io::Result<Vec<Solo>> {
    let clients = clients.to_string();
    let mut solos = vec![callbacks(&clients, "slow", "500"), callbacks(&clients, "hung", "0")];
    for algorithm in ALGORITHMS {
        solos.push(tokens(&clients, algorithm)?);
    }
    for kind in FLOODS {
        solos.push(prefix_flood(kind)?);
    }
    Ok(solos)
}

fn callbacks(clients: &str, name: &str, rate: &str) -> Solo {
    let mut figures = login_figures(&format!("{name} backend"));
    figures.push(figure(
        format!("{name} backend: refused without a time to return"),
        &["refused_without_a_time"],
        "answers",
        Some(Bound::AtMost(0.0)),
    ));
    Solo {
        case: CaseName::Callbacks,
        listener: Listener::Listen,
        server: ServerSetup {
            workers: Some(WORKERS),
            settings: Some(format!(
                "{KEEPALIVE}[callbacks.connect]\nendpoint = \"http://{BACKEND}/\"\n"
            )),
            is_prioritized: true,
        },
        load: words(&[
            "logins",
            "--path",
            "/ws?channel=bench",
            "--clients",
            clients,
            "--backend",
            BACKEND,
            "--backend-rate",
            rate,
        ]),
        figures,
    }
}

fn tokens(clients: &str, algorithm: Algorithm) -> io::Result<Solo> {
    let Keys { settings, token } = Keys::new(algorithm)?;
    Ok(Solo {
        case: CaseName::Tokens,
        listener: Listener::Listen,
        server: ServerSetup {
            workers: Some(WORKERS),
            settings: Some(format!("{KEEPALIVE}{settings}")),
            // The crowd fills the core, and a real-time thread that does so is stopped for a while.
            is_prioritized: false,
        },
        load: words(&[
            "logins",
            "--path",
            "/ws?channel=bench",
            "--clients",
            clients,
            "--token",
            &token,
        ]),
        figures: login_figures(&format!("{algorithm:?}")),
    })
}

fn login_figures(name: &str) -> Vec<Figure> {
    let named = |what: &str| format!("{name}: {what}");
    let over = Some(Bound::AtMost(2.0));
    vec![
        figure(named("ping of others before, p99"), &["ping_quiet_p99_us"], "us", None),
        figure(named("ping meanwhile, p99"), &["ping_p99_us"], "us", None),
        figure(named("of before"), &["ping_p99_over_quiet"], "", over),
        figure(named("turns over 4 ms"), &["turns_over_4_ms"], "turns", Some(Bound::AtMost(0.0))),
        figure(named("longest turn, at most"), &["longest_turn_at_most_us"], "us", None),
        figure(
            named("resident memory"),
            &["rss_bytes_max"],
            "bytes",
            Some(Bound::AtMost(RESIDENT_BYTES_MAX)),
        ),
        figure(named("clients inside"), &["inside"], "clients", None),
        figure(named("until all are in"), &["seconds_until_all_are_in"], "s", None),
    ]
}

fn prefix_flood(kind: &str) -> io::Result<Solo> {
    // The flood shows tokens that another key has signed.
    let Keys { settings, .. } = Keys::new(Algorithm::ES256)?;
    let Keys { token, .. } = Keys::new(Algorithm::ES256)?;
    let named = |what: &str| format!("{kind} from one prefix: {what}");
    let over = Some(Bound::AtMost(2.0));
    Ok(Solo {
        case: CaseName::Prefixes,
        listener: Listener::Listen,
        server: ServerSetup {
            workers: None,
            settings: Some(format!("auth.anonymous = true\n{PREFIX_LIMITS}{settings}")),
            is_prioritized: true,
        },
        load: words(&[
            "prefix-flood",
            "--path",
            "/ws?channel=bench",
            "--kind",
            kind,
            "--token",
            &token,
        ]),
        figures: vec![
            figure(named("accept before, p50"), &["accept_quiet", "p50_us"], "us", None),
            figure(named("accept meanwhile, p50"), &["accept", "p50_us"], "us", None),
            figure(named("of before"), &["accept_p50_over_quiet"], "", over),
            figure(named("accept before, p99"), &["accept_quiet", "p99_us"], "us", None),
            figure(named("accept meanwhile, p99"), &["accept", "p99_us"], "us", None),
            figure(named("p99 of before"), &["accept_p99_over_quiet"], "", over),
            figure(named("others not served"), &["unserved"], "clients", Some(Bound::AtMost(0.0))),
            figure(named("attempts"), &["attempts_per_second"], "/s", None),
            figure(named("rejected"), &["rejected_per_second"], "/s", None),
            figure(named("core of the server"), &["server", "core_share"], "", None),
        ],
    })
}

/// A key of tokens.
struct Keys {
    /// The part of the server's settings that has it.
    settings: String,
    /// A token that is signed with it.
    token: String,
}

impl Keys {
    fn new(algorithm: Algorithm) -> io::Result<Self> {
        let (key, signing) = match algorithm {
            Algorithm::RS256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
                let private: Pkcs8V1Der<'_> = pair.as_der().map_err(io::Error::other)?;
                let private = pem("PRIVATE KEY", private.as_ref());
                (public(pair.public_key())?, EncodingKey::from_rsa_pem(private.as_bytes()))
            }
            Algorithm::ES256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::ES384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
            Algorithm::EdDSA => {
                let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
                let private = private.map_err(io::Error::other)?;
                let pair =
                    Ed25519KeyPair::from_pkcs8(private.as_ref()).map_err(io::Error::other)?;
                let private = pem("PRIVATE KEY", private.as_ref());
                (public(pair.public_key())?, EncodingKey::from_ed_pem(private.as_bytes()))
            }
            _ => (SECRET.to_owned(), EncodingKey::from_secret(SECRET.as_bytes())),
        };
        let signing = signing.map_err(io::Error::other)?;
        let claims = json!({"sub": "42", "info": {"name": "Ann", "role": "admin"}});
        let token = encode(&Header::new(algorithm), &claims, &signing).map_err(io::Error::other)?;
        let settings =
            format!("[auth.keys.bench]\nalgorithm = \"{algorithm:?}\"\nkey = \"\"\"{key}\"\"\"\n");
        Ok(Self { settings, token })
    }
}

type NewKey = (String, jsonwebtoken::errors::Result<EncodingKey>);

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> io::Result<NewKey> {
    let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new());
    let private = private.map_err(io::Error::other)?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref()).map_err(io::Error::other)?;
    let private = pem("PRIVATE KEY", private.as_ref());
    Ok((public(pair.public_key())?, EncodingKey::from_ec_pem(private.as_bytes())))
}

fn public<K: AsDer<PublicKeyX509Der<'static>>>(key: &K) -> io::Result<String> {
    Ok(pem("PUBLIC KEY", key.as_der().map_err(io::Error::other)?.as_ref()))
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}

const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

const FLOODS: [&str; 4] = ["connections", "handshakes", "tokens", "commands"];

/// As many as it takes for 50,000 connections with 20,000 descriptors each.
const WORKERS: u16 = 3;

/// Keepalives of the server are not answered by the crowd.
const KEEPALIVE: &str = "limits.keepalive_interval = \"10 min\"\n";

const RESIDENT_BYTES_MAX: f64 = 64.0 * 1024.0 * 1024.0;

const PREFIX_LIMITS: &str = "\
limits.prefix_connection_rate_max = 50
limits.prefix_connections_max = 500
limits.prefix_handshakes_max = 50
limits.client_command_rate_max = 50
";

const SECRET: &str = "a secret of the benchmarks, 32 bytes or more";
