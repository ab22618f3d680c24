//! Connections whose listener expects a header of the PROXY protocol, until it has arrived.

use std::collections::HashMap;
use std::net::SocketAddr;

use tracing::field::display;
use tracing::{debug, warn};

use crate::config::limits::{PROXY_HEADER_BYTES_MAX, PROXY_WARNING_INTERVAL};
use crate::connection::Flags;
use crate::message::WorkerId;
use crate::telemetry::Counters;
use crate::transport::{HeaderFault, ProxyHeader, parse_header};

use super::table::ticks;

/// Why a connection is closed instead of served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyRefusal {
    /// It comes from an address that is not in `proxy.trusted`.
    Untrusted,
    /// It begins with something else.
    Missing,
    /// Its header breaks the format.
    Malformed,
    /// Its header is longer than [`PROXY_HEADER_BYTES_MAX`].
    TooLong,
}

impl ProxyRefusal {
    /// The labels that metrics have for them.
    pub const LABELS: &'static [&'static str] = &["untrusted", "missing", "malformed", "too_long"];
}

impl From<HeaderFault> for ProxyRefusal {
    fn from(fault: HeaderFault) -> Self {
        match fault {
            HeaderFault::Missing => Self::Missing,
            HeaderFault::Malformed => Self::Malformed,
            HeaderFault::TooLong => Self::TooLong,
        }
    }
}

/// The bytes of the client, which may be none, and its address, if its header has one.
pub type BehindHeader<'b> = (&'b mut [u8], Option<SocketAddr>);

/// The headers that a worker waits for.
#[derive(Debug)]
pub struct ProxyHeaders {
    worker: WorkerId,
    /// The bytes of headers that came in part, by the index of their connection. Most headers come whole, and are
    /// parsed where they were received.
    parts: HashMap<u32, Vec<u8>>,
    /// The tick until which a refusal is not logged again.
    warned_until: u32,
}

impl ProxyHeaders {
    /// No headers yet.
    pub fn new(worker: WorkerId) -> Self {
        Self { worker, parts: HashMap::new(), warned_until: 0 }
    }

    /// Takes bytes of a connection whose header has not arrived. Returns those of the client, which may be none, and
    /// its address, if the header has one; `None` if the header is not complete. A header that came in parts is moved
    /// to `kept` with what follows it.
    pub fn receive<'b>(
        &mut self,
        index: u32,
        flags: &mut Flags,
        bytes: &'b mut [u8],
        kept: &'b mut Vec<u8>,
    ) -> Result<Option<BehindHeader<'b>>, ProxyRefusal> {
        let bytes = match self.parts.remove(&index) {
            None => bytes,
            Some(part) => {
                *kept = part;
                kept.extend_from_slice(bytes);
                kept.as_mut_slice()
            }
        };
        match parse_header(bytes, PROXY_HEADER_BYTES_MAX)? {
            Some(ProxyHeader { client, header_bytes }) => {
                let shown = client.map(display);
                debug!(
                    worker = self.worker.0,
                    connection = index,
                    client = shown,
                    "PROXY protocol header"
                );
                flags.set_awaits_proxy_header(false);
                Ok(Some((&mut bytes[header_bytes..], client)))
            }
            None => {
                self.parts.insert(index, bytes.to_vec());
                Ok(None)
            }
        }
    }

    /// A connection has ended: what came of its header is dropped.
    pub fn remove(&mut self, index: u32) {
        self.parts.remove(&index);
    }

    /// Counts a connection that is closed instead of served, and logs it unless one was logged lately.
    pub fn refuse(
        &mut self,
        refusal: ProxyRefusal,
        peer: Option<SocketAddr>,
        tick: u32,
        counters: &Counters,
    ) {
        counters.proxy_headers_rejected[refusal as usize].add(1);
        if tick >= self.warned_until {
            self.warned_until = tick.saturating_add(ticks(PROXY_WARNING_INTERVAL));
            let reason = ProxyRefusal::LABELS[refusal as usize];
            warn!(reason, peer = peer.map(display), "{REFUSED}");
        }
    }
}

const REFUSED: &str = "a connection was closed because its listener expects the PROXY protocol from proxies of \
    proxy.trusted; see fantail_proxy_headers_rejected_total";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::TransportKind;

    const LINE: &[u8] = b"PROXY UNKNOWN\r\n";

    #[test]
    fn only_headers_that_are_not_complete_are_kept() {
        let mut headers = ProxyHeaders::new(WorkerId(0));
        let receive = |headers: &mut ProxyHeaders, bytes: &[u8]| {
            let mut flags = Flags::new(TransportKind::Http);
            flags.set_awaits_proxy_header(true);
            let (mut bytes, mut kept) = (bytes.to_vec(), Vec::new());
            let rest = headers.receive(7, &mut flags, &mut bytes, &mut kept);
            let rest = rest.map(|rest| rest.map(|(rest, _)| rest.to_vec()));
            (rest, flags.awaits_proxy_header())
        };
        assert_eq!(receive(&mut headers, LINE), (Ok(Some(Vec::new())), false));
        assert!(headers.parts.is_empty());
        assert_eq!(receive(&mut headers, &LINE[..9]), (Ok(None), true));
        assert_eq!(headers.parts.len(), 1);
        let rest = [&LINE[9..], b"rest"].concat();
        assert_eq!(receive(&mut headers, &rest), (Ok(Some(b"rest".to_vec())), false));
        assert!(headers.parts.is_empty());
        assert_eq!(receive(&mut headers, &LINE[..9]), (Ok(None), true));
        assert_eq!(receive(&mut headers, b"x\r\n"), (Err(ProxyRefusal::Malformed), true));
        assert!(headers.parts.is_empty());
        assert_eq!(receive(&mut headers, &LINE[..9]), (Ok(None), true));
        headers.remove(7);
        assert!(headers.parts.is_empty());
    }
}
