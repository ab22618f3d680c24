//! Tokens of connections: who each of them is to the server.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use fantail::config::Secret;

/// What tokens are made of. Each is signed when its connection opens, so that no memory is needed for it.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The server's `auth.hmac_secret`.
    pub secret: Secret,
    /// The number of users that connections belong to, in turn; with 0, each is a user of its own.
    pub users: u32,
    /// Bytes of the user's info, a JSON string; 0 for no info.
    pub info_bytes: usize,
}

impl Tokens {
    /// The token of a connection, which a number identifies.
    pub fn token(&self, connection: u64) -> String {
        let user = match self.users {
            0 => format!("{connection:x}"),
            // The lower half is a place on its thread.
            users => (connection as u32 % users).to_string(),
        };
        let mut claims = json!({"sub": user});
        if self.info_bytes > 0 {
            claims["info"] = "i".repeat(self.info_bytes.saturating_sub(QUOTES)).into();
        }
        let key = EncodingKey::from_secret(self.secret.expose().as_bytes()).expect("a secret");
        encode(&Header::default(), &claims, &key).expect("claims that are JSON")
    }
}

/// Around a JSON string.
const QUOTES: usize = 2;

#[cfg(test)]
mod tests {
    use fantail::auth::Tokens as Verifier;
    use fantail::config::Config;

    use super::*;

    #[test]
    fn the_server_reads_the_user_and_the_info_of_a_token() {
        let config = Config { hmac_secret: Some("s".into()), ..Config::default() };
        let verifier = Verifier::new(&config);
        let tokens = |users, info_bytes| Tokens { secret: "s".into(), users, info_bytes };
        for (tokens, connection, user, info_bytes) in [
            (tokens(100, 0), 7, "7", 0),
            (tokens(100, 0), 3 << 32 | 207, "7", 0),
            (tokens(0, 32), 3 << 32 | 207, "3000000cf", 32),
        ] {
            let claims = verifier.verify_connection(&tokens.token(connection), 0);
            let identity = claims.expect("it is valid").identity;
            assert_eq!(identity.user.as_deref(), Some(user));
            assert_eq!(identity.info.map_or(0, |info| info.len()), info_bytes);
        }
    }
}
