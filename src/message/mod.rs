//! The words every room speaks.
//!
//! **What it is.** Plain data: names of workers, sessions and channels, payloads, positions, publications, what a
//! client asks ([`Request`]) and is answered ([`Reply`]), why a connection ends ([`CloseReason`]) and what is said
//! of it ([`Disconnect`]).
//!
//! **In and out.** Nothing happens here; rooms hand these to each other.
//!
//! **Always true.** A [`ChannelName`] is 1..=255 bytes of UTF-8 without control characters. A [`Publication`] never
//! changes once numbered.
//!
//! **Must not know.** Any other room.

mod channel_name;
mod disconnect;
mod identity;
mod item;
mod node;
mod publication;
mod request;
mod transport_kind;

pub use channel_name::{CHANNEL_NAME_BYTES_MAX, ChannelName, ChannelNameError};
pub use disconnect::{CloseReason, DISCONNECT_TEXT_BYTES_MAX, Disconnect};
pub use identity::{ClientId, ClientIdError, ClientInfo, NodeId, SessionId, WorkerId};
pub use item::Item;
pub use node::NodeInfo;
pub use publication::{
    Epoch, EventError, Payload, PayloadKind, Position, PositionError, Publication,
};
pub use request::{
    Actor, Control, HistoryQuery, Origin, Publications, Recovery, Refusal, Reply, Request,
    RequestId, SessionRequest, Ticket,
};
pub use transport_kind::TransportKind;
