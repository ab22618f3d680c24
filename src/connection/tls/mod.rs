//! TLS between the socket of a client and its conversation: rustls does handshakes, records are our own.
//!
//! After its handshake, a connection keeps the keys of both directions and nothing else: 136 bytes, where the state of
//! a TLS library takes some thousand. This module knows no sockets: bytes go in, bytes come out.

mod alert;
mod certificates;
mod handshake;
mod keys;
mod provider;
mod records;
mod tickets;

pub use alert::Alert;
pub use certificates::Certificate;
pub use handshake::{
    Clients, Completed, Handshake, HandshakeFault, Identity, IdentityParts, Progress, Terms,
};
pub use records::{Fault, Opened, RECORD_BYTES_MAX, Session};
pub use tickets::TicketSecrets;

// A million connections are a gigabyte less than with the state of a library.
const _: () = assert!(size_of::<Option<Session>>() <= 136);
