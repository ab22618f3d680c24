//! Who clients are.

use std::fmt;
use std::str::FromStr;

/// A worker of this server, dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// A client's identity within its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// Dense from 0, used again after the session's end.
    pub index: u32,
    /// Tells it from earlier sessions of that index.
    pub generation: u32,
}

/// A client's name on the wire: unique among those that are connected, and not another's before four thousand million
/// more have come to its worker. Written as three hexadecimal numbers with hyphens between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientName {
    /// Its worker.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionId,
}

/// The text is not a client's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientNameError;

impl fmt::Display for ClientName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionId { index, generation } = self.session;
        write!(out, "{:x}-{index:x}-{generation:x}", self.worker.0)
    }
}

impl FromStr for ClientName {
    type Err = ClientNameError;

    fn from_str(text: &str) -> Result<Self, ClientNameError> {
        let mut parts = text.split('-').map(|part| u32::from_str_radix(part, 16));
        let mut part = || parts.next().and_then(Result::ok).ok_or(ClientNameError);
        let worker = WorkerId(u16::try_from(part()?).map_err(|_| ClientNameError)?);
        let session = SessionId { index: part()?, generation: part()? };
        let name = Self { worker, session };
        // One client has one name: no leading zeros, signs or capitals.
        if parts.next().is_none() && name.to_string() == text {
            Ok(name)
        } else {
            Err(ClientNameError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_in_no_other_way() {
        let session = SessionId { index: 0x1f, generation: 3 };
        let name = ClientName { worker: WorkerId(2), session };
        assert_eq!(name.to_string(), "2-1f-3");
        assert_eq!("2-1f-3".parse(), Ok(name));
        for bad in
            ["", "2", "2-1f", "2-1f-3-4", "02-1f-3", "2-1F-3", "2-+1f-3", "10000-1-1", "x-1-1"]
        {
            assert_eq!(bad.parse::<ClientName>(), Err(ClientNameError), "{bad}");
        }
    }
}
