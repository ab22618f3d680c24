//! Scripts of other origins: the CORS protocol (WHATWG Fetch, 3.3).

use crate::protocol::http1::Head;
use crate::transport::settings::{Origins, TransportSettings};

/// What an answer says about the origin of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cors {
    /// It came from no other origin, or from one that is not in the list.
    Silent,
    /// Any origin may read the answer.
    Any,
    /// This one of the list may, with its cookies.
    Listed(u16),
}

impl Cors {
    pub(super) fn of(head: &Head<'_>, settings: &TransportSettings) -> Self {
        let Some(origin) = head.header("origin").next() else { return Self::Silent };
        Self::of_origin(origin, settings)
    }

    /// The same for a request whose head is not understood, or not received to its end: without these
    /// headers a script would see a network error instead of the refusal.
    pub(super) fn of_unparsed(received: &[u8], settings: &TransportSettings) -> Self {
        if matches!(settings.origins(), Origins::Any) {
            return Self::Any;
        }
        let origin = received.split(|byte| *byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked(ORIGIN_FIELD.len())?;
            name.eq_ignore_ascii_case(ORIGIN_FIELD).then(|| value.trim_ascii())
        });
        origin.map_or(Self::Silent, |origin| Self::of_origin(origin, settings))
    }

    fn of_origin(origin: &[u8], settings: &TransportSettings) -> Self {
        match settings.origins() {
            Origins::Any => Self::Any,
            Origins::Listed(list) => {
                let at = list.iter().position(|listed| listed.as_bytes() == origin);
                let at = at.and_then(|at| u16::try_from(at).ok());
                at.map_or(Self::Silent, Self::Listed)
            }
        }
    }

    /// The headers of an answer.
    pub(super) fn headers(self, settings: &TransportSettings) -> Vec<(&'static str, &str)> {
        let expose = ("Access-Control-Expose-Headers", "ETag");
        let listed = match (self, settings.origins()) {
            // Fetch, "CORS protocol and credentials": `*` cannot be combined with credentials.
            (Cors::Any, _) => return vec![("Access-Control-Allow-Origin", "*"), expose],
            (Cors::Silent, Origins::Any) | (Cors::Listed(_), Origins::Any) => None,
            // Fetch, "CORS protocol and HTTP caches": an answer that depends on the origin says so to every origin.
            (Cors::Silent, Origins::Listed(_)) => return vec![("Vary", "Origin")],
            // The list may have changed while a poll waited.
            (Cors::Listed(at), Origins::Listed(list)) => list.get(usize::from(at)),
        };
        listed.map_or_else(Vec::new, |origin| {
            vec![
                ("Access-Control-Allow-Origin", origin.as_str()),
                ("Access-Control-Allow-Credentials", "true"),
                ("Vary", "Origin"),
                expose,
            ]
        })
    }
}

const ORIGIN_FIELD: &[u8] = b"origin:";
