//! Tokens of clients, as a backend makes them.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

/// The secret of tests.
pub const SECRET: &str = "a-secret-that-backends-and-servers-share";

/// A token with these claims, signed with [`SECRET`].
pub fn token(claims: &Value) -> String {
    token_by(SECRET, Algorithm::HS256, claims)
}

/// A token that is signed with another secret or by another algorithm of HMAC.
pub fn token_by(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes()).expect("a secret");
    encode(&Header::new(algorithm), claims, &key).expect("claims are JSON")
}

/// A time of the calendar, in seconds since 1970, so many seconds from now.
pub fn in_seconds(seconds: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
    now.checked_add_signed(seconds).expect("not before 1970")
}
