//! The key of this process that opens sessions: who knows the name of a session may send commands for it.
//!
//! A client whose commands come in requests of their own names its session in each of them. Its client id would not do:
//! others see that in presence. The name is the id with a code that only this process can make, so that each worker can
//! check it, and nothing has to be kept for a session.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::message::ClientId;

/// The key of this process that opens sessions.
#[derive(Clone)]
pub struct SessionKey(Key);

impl SessionKey {
    /// The name of a client's session, which no other client may learn.
    pub fn name_of(&self, client: ClientId) -> String {
        let id = client.to_string();
        let code = hmac::sign(&self.0, id.as_bytes());
        format!("{id}.{}", URL_SAFE_NO_PAD.encode(code))
    }

    /// The client whose session has this name; `None` if this process has not given it to any.
    pub fn client_of(&self, name: &str) -> Option<ClientId> {
        let (id, code) = name.split_once('.')?;
        let client = id.parse().ok()?;
        let code = URL_SAFE_NO_PAD.decode(code).ok()?;
        hmac::verify(&self.0, id.as_bytes(), &code).ok()?;
        Some(client)
    }
}

impl Default for SessionKey {
    /// A key drawn at random.
    fn default() -> Self {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new());
        Self(key.expect("the system has a source of randomness"))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SessionKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, SessionId, WorkerId};

    fn client(generation: u32) -> ClientId {
        let session = SessionId { index: 7, generation };
        ClientId { node: NodeId::new(3), worker: WorkerId(1), session }
    }

    #[test]
    fn a_name_opens_one_session_of_one_process() {
        let key = SessionKey::default();
        let name = key.name_of(client(1));
        assert_eq!(key.client_of(&name), Some(client(1)));
        assert_eq!(SessionKey::default().client_of(&name), None);
        let code = name.split_once('.').unwrap().1;
        assert_eq!(code.len(), 43, "32 bytes");
        for forged in [
            String::new(),
            client(1).to_string(),
            format!("{}.", client(1)),
            format!("{}.{code}", client(2)),
            format!("{}.{}", client(1), &code[..42]),
            format!("{}.{code}A", client(1)),
            format!("{name}="),
            format!("{name}.{code}"),
            name.to_uppercase(),
        ] {
            assert_eq!(key.client_of(&forged), None, "{forged}");
        }
    }

    #[test]
    fn a_key_is_not_logged() {
        assert_eq!(format!("{:?}", SessionKey::default()), "SessionKey");
    }
}
