//! Channels: who subscribes to them, what is published to them, and what is kept of it.
//!
//! **What it is.** One worker's share of the hub. A channel has one *home* worker, chosen by its name's hash, which
//! numbers its publications ([`streams`]); every worker with subscribers of it has a *local* side, which knows them
//! ([`subscribers`]). A hub plays both roles and exchanges [`HubMessage`]s with the hubs of other workers, which arrive
//! in order between any two.
//!
//! **In and out.** In: sessions opened and closed, [`Request`](crate::message::Request)s, [`HubMessage`]s, the time
//! ([`Hub::tick`]). Out: [`Output`]s, which are replies for sessions and messages for workers; and, slice by slice,
//! which session gets which items ([`Hub::fan_out`]).
//!
//! **Always true.** Only the home worker numbers a channel's publications. A subscriber gets every publication numbered
//! after the position that it subscribed at, in order, once, until it unsubscribes; one that joined after a publication
//! does not get it; where its channel's options let publications be dropped, it gets a gap in their place. A fan-out
//! keeps its worker for one bounded slice at a time. A channel without subscribers and without history owns nothing.
//!
//! **Must not know.** Sockets, transports, encodings such as JSON, the clock.

mod backlog;
mod delivery;
mod dispatch;
mod fan_out;
mod gather;
mod history;
mod idempotency;
mod join_leave;
mod local_channel;
mod measures;
mod message;
mod name_table;
mod queries;
mod session;
mod settings;
mod slots;
mod streams;
mod subscribers;

pub use backlog::Drops;
pub use dispatch::Hub;
pub use fan_out::{FanOutBatch, FanOutStep, Visit};
pub use gather::{GatherId, Part};
pub use message::{HubMessage, Output, QueryMessage, Receipt, StreamMessage, reply_to};
pub use name_table::ChannelHash;
pub use settings::{HubLimits, HubSettings};

#[cfg(test)]
mod tests;
