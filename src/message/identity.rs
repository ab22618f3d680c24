//! Identities of nodes, workers, sessions and clients.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

/// One run of a server: 48 bits, drawn at random when the process starts. Written as the first 13 characters of the ids
/// of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; 6]);

/// A worker of a node, dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// A client's identity within its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// Dense from 0, used again after the session's end.
    pub index: u32,
    /// Tells the session from earlier ones with the same index.
    pub generation: u32,
}

/// A client's id on the wire. No other node repeats it, nor does another run of this one, nor its worker before it has
/// opened 2^32 more sessions.
///
/// Written as a UUID of version 8 (RFC 9562 5.8), because backends keep client ids in columns and validators that take
/// UUIDs. Its `custom_a` is the node, `custom_b` the worker, `custom_c` the session: 30 bits of its index and 32 of its
/// generation. Each client has one text: lower-case hexadecimal digits with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    /// The node that it is connected to.
    pub node: NodeId,
    /// Its worker there.
    pub worker: WorkerId,
    /// Its session there.
    pub session: SessionId,
}

/// A client as others see it: in presence replies, and when it joins or leaves a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The id of the client.
    pub client: ClientId,
    /// The user that it acts for; `None` if it is anonymous.
    pub user: Option<Arc<str>>,
    /// What its backend says about the connection, a JSON value.
    pub conn_info: Option<Bytes>,
    /// What its backend says about its subscription to the channel, a JSON value.
    pub chan_info: Option<Bytes>,
}

/// The identity of a client, as its token or its backend says. A client without one is anonymous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user that it acts for, at most [`USER_BYTES_MAX`] bytes; `None` or empty if it is anonymous.
    pub user: Option<Arc<str>>,
    /// What its backend says about it, a JSON value of at most [`INFO_BYTES_MAX`] bytes, which others see.
    pub info: Option<Bytes>,
    /// When it ends, in seconds since the Unix epoch, unless it is refreshed before.
    pub expires_at: Option<u64>,
}

/// Maximum bytes of the name of a user.
pub const USER_BYTES_MAX: usize = 255;

/// Maximum bytes of what a backend says about a client, or about one of its subscriptions.
pub const INFO_BYTES_MAX: usize = 4096;

/// An identity is too long to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The name of its user has more than [`USER_BYTES_MAX`] bytes.
    UserTooLong,
    /// Its info has more than [`INFO_BYTES_MAX`] bytes.
    InfoTooLong,
    /// Its user is blocked.
    UserBlocked,
}

/// The text is not the id of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIdError;

impl NodeId {
    /// The id made of the lower 48 bits of `bits`.
    pub const fn new(bits: u64) -> Self {
        let [_, _, node @ ..] = bits.to_be_bytes();
        Self(node)
    }

    fn bits(self) -> u64 {
        let Self([a, b, c, d, e, f]) = self;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl ClientId {
    /// Bits of a worker's number.
    pub const WORKER_BITS: u32 = 12;

    /// Bits of a session's index.
    pub const INDEX_BITS: u32 = 30;
}

impl ClientInfo {
    /// A client without a user and without more that is known about it.
    pub fn anonymous(client: ClientId) -> Self {
        Self { client, user: None, conn_info: None, chan_info: None }
    }

    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let Self { user, conn_info, chan_info, .. } = self;
        let infos = [conn_info, chan_info].into_iter().flatten().map(Bytes::len);
        user.as_ref().map_or(0, |user| user.len()) + infos.sum::<usize>()
    }
}

impl Identity {
    /// Checks that it can be kept.
    pub fn check(&self) -> Result<(), IdentityError> {
        let Self { user, info, .. } = self;
        if user.as_ref().is_some_and(|user| user.len() > USER_BYTES_MAX) {
            return Err(IdentityError::UserTooLong);
        }
        if info.as_ref().is_some_and(|info| info.len() > INFO_BYTES_MAX) {
            return Err(IdentityError::InfoTooLong);
        }
        Ok(())
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::UserTooLong => {
                write!(out, "the user has more than {USER_BYTES_MAX} bytes")
            }
            IdentityError::UserBlocked => out.write_str("the user is blocked"),
            IdentityError::InfoTooLong => {
                write!(out, "the info has more than {INFO_BYTES_MAX} bytes")
            }
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits();
        write!(out, "{:08x}-{:04x}", bits >> 16, bits & 0xffff)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, worker, session: SessionId { index, generation } } = self;
        let custom_c = u64::from(*index) << 32 | u64::from(*generation);
        let low = VARIANT << 62 | custom_c;
        let (high, low) = (low >> 48, low & LOW_48_BITS);
        write!(out, "{node}-{VERSION:x}{:03x}-{high:04x}-{low:012x}", worker.0)
    }
}

impl FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<Self, ClientIdError> {
        if text.len() != TEXT_BYTES {
            return Err(ClientIdError);
        }
        let mut bits = 0_u128;
        for (at, byte) in text.bytes().enumerate() {
            let digit = match byte {
                b'-' if HYPHENS_AT.contains(&at) => continue,
                _ if HYPHENS_AT.contains(&at) => return Err(ClientIdError),
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return Err(ClientIdError),
            };
            bits = bits << 4 | u128::from(digit);
        }
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        if high >> 12 & 0xf != VERSION || low >> 62 != VARIANT {
            return Err(ClientIdError);
        }
        Ok(Self {
            node: NodeId::new(high >> 16),
            worker: WorkerId((high & 0xfff) as u16),
            session: SessionId { index: (low >> 32 & 0x3fff_ffff) as u32, generation: low as u32 },
        })
    }
}

/// RFC 9562 4.2: "Custom UUIDs".
const VERSION: u64 = 8;

/// RFC 9562 4.1: the variant that the RFC specifies.
const VARIANT: u64 = 0b10;

const LOW_48_BITS: u64 = (1 << 48) - 1;

const TEXT_BYTES: usize = 36;

const HYPHENS_AT: [usize; 4] = [8, 13, 18, 23];

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u64, worker: u16, index: u32, generation: u32) -> ClientId {
        let session = SessionId { index, generation };
        ClientId { node: NodeId::new(node), worker: WorkerId(worker), session }
    }

    #[test]
    fn a_client_id_is_a_uuid_of_version_8() {
        for (id, text) in [
            (id(0x0123_4567_89ab, 2, 0x1f, 3), "01234567-89ab-8002-8000-001f00000003"),
            (id(0, 0, 0, 0), "00000000-0000-8000-8000-000000000000"),
            (id(u64::MAX, 0, 0, 0), "ffffffff-ffff-8000-8000-000000000000"),
            (id(0, 0xfff, 0, 0), "00000000-0000-8fff-8000-000000000000"),
            (id(0, 0, 0x3fff_ffff, 0), "00000000-0000-8000-bfff-ffff00000000"),
            (id(0, 0, 0, u32::MAX), "00000000-0000-8000-8000-0000ffffffff"),
            (id(u64::MAX, 0xfff, 0x3fff_ffff, u32::MAX), "ffffffff-ffff-8fff-bfff-ffffffffffff"),
        ] {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
            assert!(text.starts_with(&id.node.to_string()), "{}", id.node);
        }
        assert_eq!(id(0, 0, 0, 0).node.to_string().len(), 13);
    }

    #[test]
    fn a_client_has_one_text() {
        for bad in [
            "",
            "0-1f-3",
            // Capitals, braces, a URN, no hyphens, a hyphen in another place.
            "01234567-89AB-8002-8000-001f00000003",
            "{01234567-89ab-8002-8000-001f00000003}",
            "urn:uuid:01234567-89ab-8002-8000-001f00000003",
            "0123456789ab80028000001f00000003",
            "0123456-789ab-8002-8000-001f00000003",
            "01234567-89ab-8002-8000001f-00000003",
            // Too short, too long, no digit.
            "01234567-89ab-8002-8000-001f0000003",
            "01234567-89ab-8002-8000-001f000000003",
            "01234567-89ab-8002-8000-001f0000000g",
            "+1234567-89ab-8002-8000-001f00000003",
            "01234567-89ab-8002-8000-001f000000é",
            // Other versions and variants.
            "01234567-89ab-4002-8000-001f00000003",
            "01234567-89ab-7002-8000-001f00000003",
            "01234567-89ab-0002-8000-001f00000003",
            "01234567-89ab-8002-0000-001f00000003",
            "01234567-89ab-8002-7fff-001f00000003",
            "01234567-89ab-8002-c000-001f00000003",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            assert_eq!(bad.parse::<ClientId>(), Err(ClientIdError), "{bad}");
        }
    }

    #[test]
    fn an_identity_has_a_maximum_length() {
        let of = |user: usize, info: usize| Identity {
            user: Some("u".repeat(user).into()),
            info: Some(vec![b'1'; info].into()),
            expires_at: None,
        };
        assert_eq!(of(USER_BYTES_MAX, INFO_BYTES_MAX).check(), Ok(()));
        assert_eq!(Identity::default().check(), Ok(()));
        assert_eq!(of(USER_BYTES_MAX + 1, 0).check(), Err(IdentityError::UserTooLong));
        assert_eq!(of(0, INFO_BYTES_MAX + 1).check(), Err(IdentityError::InfoTooLong));
    }

    #[test]
    fn a_client_id_has_16_bytes() {
        assert_eq!(size_of::<ClientId>(), 16);
    }
}
