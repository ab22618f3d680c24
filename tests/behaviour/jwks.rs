//! Keys of tokens that are published at a URL: rotation, and endpoints that are slow, away or wrong.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use fantail::auth::TokenError;
use fantail::config::limits::JWKS_BYTES_MAX;
use fantail::config::{DriverChoice, TokenKey};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::{
    Backend, BackendAnswer, Child, Client, TempFile, TestServer, on_both_drivers, wait_until,
};

/// A private key of ES256.
struct Signer {
    key: EncodingKey,
    id: &'static str,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let by = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(by, &SystemRandom::new()).unwrap();
        Self { key: EncodingKey::from_ec_der(private.as_ref()), id }
    }

    fn token(&self) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, &json!({"sub": "ann"}), &self.key).unwrap()
    }

    /// The set with its public key alone.
    fn set(&self) -> BackendAnswer {
        let mut jwk = json!(Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap());
        jwk["kid"] = json!(self.id);
        BackendAnswer::Json(json!({"keys": [{"kty": "oct", "k": "AA"}, jwk]}))
    }
}

/// What is published, which changes.
#[derive(Clone)]
struct Published(Arc<Mutex<BackendAnswer>>);

impl Published {
    fn start(driver: DriverChoice, first: BackendAnswer) -> (Self, Backend, TestServer) {
        let published = Self(Arc::new(Mutex::new(first)));
        let answer = published.clone();
        let backend = Backend::start(move |_| answer.0.lock().unwrap().clone());
        let server = TestServer::start_with(driver, 2, |config| {
            let jwks_url = Some(backend.url("/jwks").parse().unwrap());
            let key = TokenKey::new("a");
            assert_eq!(key.jwks_timeout, Duration::from_secs(5));
            config.token_keys = vec![TokenKey {
                algorithms: vec![Algorithm::ES256],
                jwks_url,
                jwks_timeout: Duration::from_millis(1500),
                ..key
            }];
        });
        (published, backend, server)
    }

    fn set(&self, answer: BackendAnswer) {
        *self.0.lock().unwrap() = answer;
    }
}

/// The answer to a client that connects with a token.
fn connect(server: &TestServer, token: &str) -> Value {
    let mut client = Client::connect(server.commands());
    client.command(&json!({"id": 1, "connect": {"token": token}}))
}

fn is_connected(server: &TestServer, token: &str) -> bool {
    connect(server, token)["connect"]["client"].is_string()
}

/// What a client gets that should come back.
fn come_back() -> Value {
    json!({"code": 100, "temporary": true})
}

#[track_caller]
fn expect_to_come_back(answer: &Value) {
    let error = &answer["error"];
    let answered = json!({"code": error["code"], "temporary": error["temporary"]});
    assert_eq!(answered, come_back(), "{answer}");
}

on_both_drivers! {
    fn clients_are_connected_with_published_keys_before_and_after_their_rotation(driver) {
        let [old, new] = ["old", "new"].map(Signer::new);
        let (published, backend, server) = Published::start(driver, old.set());
        wait_until("the keys are fetched", || is_connected(&server, &old.token()));
        assert_eq!(backend.requests()[0].head[0], "GET /jwks HTTP/1.1");
        published.set(new.set());
        wait_until("the new key is known", || is_connected(&server, &new.token()));
        // The one before is not published any more: coming back with that token is of no use.
        wait_until("the old key is not known", || {
            connect(&server, &old.token())["push"]["disconnect"]["code"] == 3500
        });
        assert!(is_connected(&server, &new.token()));
        let forged = Signer { id: "new", ..Signer::new("x") };
        assert_eq!(connect(&server, &forged.token())["push"]["disconnect"]["code"], 3500);
    }

    fn an_unknown_key_is_asked_for_at_most_once_a_second(driver) {
        let known = Signer::new("known");
        let (_, backend, server) = Published::start(driver, known.set());
        wait_until("the keys are fetched", || is_connected(&server, &known.token()));
        let unknown = Signer::new("unknown");
        let before = backend.requests().len();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            let answer = connect(&server, &unknown.token());
            if answer.get("error").is_some() {
                expect_to_come_back(&answer);
            } else {
                assert_eq!(answer["push"]["disconnect"]["code"], 3500, "{answer}");
            }
            assert!(is_connected(&server, &known.token()));
        }
        let fetches = backend.requests().len() - before;
        assert!((1..=4).contains(&fetches), "{fetches}");
    }

    fn the_last_good_keys_are_kept_while_the_endpoint_fails(driver) {
        let known = Signer::new("known");
        let (published, backend, server) = Published::start(driver, known.set());
        wait_until("the keys are fetched", || is_connected(&server, &known.token()));
        let unknown = Signer::new("unknown");
        let raw = |status, body: &str| BackendAnswer::Raw(status, body.to_owned(), Duration::ZERO);
        for wrong in [
            raw(500, "{}"),
            raw(404, "none"),
            raw(200, "<html>"),
            raw(200, r#"{"keys":[]}"#),
            raw(200, &format!("{{\"keys\":[{}", " ".repeat(JWKS_BYTES_MAX))),
            BackendAnswer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{".to_vec()),
            BackendAnswer::Bytes(Vec::new()),
        ] {
            published.set(wrong);
            let before = backend.requests().len();
            wait_until("the endpoint is asked again", || {
                connect(&server, &unknown.token());
                backend.requests().len() > before
            });
            assert!(is_connected(&server, &known.token()));
        }
        wait_until("failures are counted", || {
            server.sum(|counters| &counters.key_fetches_failed) >= 5
        });
        wait_until("the keys are not fresh any more", || {
            connect(&server, &unknown.token()).get("error").is_some()
        });
        expect_to_come_back(&connect(&server, &unknown.token()));
        published.set(unknown.set());
        wait_until("the new key is known", || is_connected(&server, &unknown.token()));
    }

    fn a_reload_takes_back_an_algorithm_of_published_keys(driver) {
        let signer = Signer::new("a");
        let (set, token) = (signer.set(), signer.token());
        let backend = Backend::start(move |_| set.clone());
        let url = backend.url("/jwks");
        let text = |algorithms: &str| {
            format!("[auth.keys.p]\nalgorithm = {algorithms}\njwks_url = \"{url}\"\n")
        };
        let file = TempFile::new(&format!("jwks-algorithms-{driver:?}"), &text("[\"ES256\", \"RS256\"]"));
        let mut child = Child::start(driver, &["--config", file.path(), "--workers", "1"]);
        let connect = || {
            let mut client = Client::connect(child.commands());
            client.command(&json!({"id": 1, "connect": {"token": token}}))
        };
        wait_until("the keys are fetched", || connect()["connect"]["client"].is_string());
        file.write(&text("[\"RS256\"]"));
        child.signal(libc::SIGHUP);
        wait_until("the key is for no algorithm of the settings", || connect()["connect"].is_null());
        // It is published still, and asking for it once more does not bring it back.
        let before = backend.requests().len();
        wait_until("the keys are fetched again", || {
            assert!(connect()["connect"].is_null());
            backend.requests().len() > before + 1
        });
        child.log_line(&["a setting changed", "auth.keys"]);
        child.stop();
    }

    fn a_fetch_that_takes_too_long_fails_and_is_counted(driver) {
        let slow = Signer::new("slow");
        let BackendAnswer::Json(set) = slow.set() else { unreachable!() };
        let late = BackendAnswer::Raw(200, set.to_string(), Duration::from_secs(20));
        let began = Instant::now();
        let (published, _, server) = Published::start(driver, late);
        let failed = || server.sum(|counters| &counters.key_fetches_failed);
        wait_until("a fetch has failed", || failed() > 0);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        expect_to_come_back(&connect(&server, &slow.token()));
        published.set(slow.set());
        wait_until("the keys are fetched", || is_connected(&server, &slow.token()));
    }

    fn a_client_that_connects_before_any_key_is_known_is_asked_to_come_back(driver) {
        let slow = Signer::new("slow");
        let BackendAnswer::Json(set) = slow.set() else { unreachable!() };
        let late = BackendAnswer::Raw(200, set.to_string(), Duration::from_secs(1));
        let (_, _, server) = Published::start(driver, late);
        expect_to_come_back(&connect(&server, &slow.token()));
        let pending = TokenError::KeyPending as usize;
        assert!(server.sum(|counters| &counters.tokens_rejected[pending]) > 0);
        wait_until("the keys are fetched", || is_connected(&server, &slow.token()));
    }
}

on_both_drivers! {
    fn a_reload_moves_the_keys_to_another_url(driver) {
        let signers = [Signer::new("one"), Signer::new("two")];
        let backends = signers.each_ref().map(|signer| {
            let set = signer.set();
            Backend::start(move |_| set.clone())
        });
        let text = |backend: &Backend| {
            format!("[auth.keys.a]\nalgorithm = \"ES256\"\njwks_url = \"{}\"\n", backend.url("/"))
        };
        let config = TempFile::new(&format!("jwks-{driver:?}"), &text(&backends[0]));
        let mut child = Child::start(driver, &["--config", config.path()]);
        let code = |child: &Child, signer: &Signer| {
            let mut client = Client::connect(child.commands());
            let reply =
                client.command(&json!({"id": 1, "connect": {"token": signer.token()}}));
            (reply["connect"].is_object(), reply["error"]["code"].clone())
        };
        wait_until("the keys are fetched", || code(&child, &signers[0]).0);
        config.write(&text(&backends[1]));
        child.signal(libc::SIGHUP);
        child.log_line(&["a setting changed", "auth.keys"]);
        wait_until("those of the other URL are", || code(&child, &signers[1]).0);
        assert!(!code(&child, &signers[0]).0, "the former ones are not valid any more");
    }
}
