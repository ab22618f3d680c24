//! Channels: their subscribers, their publications and their histories.
//!
//! **What it is.** One worker's share of the hub. A channel has one *home* worker, chosen by the hash of its name,
//! which numbers its publications; every worker with subscribers of the channel has a *local* side, which knows them. A
//! hub plays both roles and exchanges [`HubMessage`]s with the hubs of all workers, its own included. Messages between
//! two workers arrive in order.
//!
//! `dispatch` takes what comes in and has the parts of the hub handle it: `streams` the home side, `subscribers` the
//! local side, `identities` who the clients of its sessions are, `expiry` until when, `renewal` what then follows,
//! `join_leave` the join and leave
//! events of the home side, `gather` the questions that several workers answer together. A publication passes, in this
//! order:
//!
//! | file | what happens |
//! |---|---|
//! | `dispatch` | the request becomes a message to the channel's home |
//! | `streams` | on the home, the publication gets its position, unless `idempotency` knows its key |
//! | `name_table` | finds the channel by its name, here and in `subscribers` |
//! | `history` | the publication is kept, if the channel has a history |
//! | `dispatch` | the publication is sent to every worker with subscribers |
//! | `subscribers` | on each of them, the local channel is found |
//! | `delivery` | the publication starts or joins the channel's fan-out, or waits in its `backlog` |
//! | `fan_out` | in slices, every subscriber of the ring in `local_channel` is visited |
//!
//! **In and out.** In: sessions that open and close, [`Request`](crate::message::Request)s, [`HubMessage`]s, the time
//! ([`Hub::tick`]). Out: [`HubOutput`]s, which are replies to sessions and messages to workers; and, slice by slice,
//! the items for each session ([`Hub::fan_out`]).
//!
//! **Always true.** Only the home worker numbers a channel's publications. A subscriber receives every publication
//! after the position at which it subscribed, in order and once, until it unsubscribes, and none before it. Where the
//! channel's options allow publications to be dropped, it receives a gap in their place, or the newest only. A fan-out
//! occupies its worker for one bounded slice at a time. A channel without subscribers and history owns no memory.
//!
//! **Must not know.** Sockets, transports, encodings such as JSON, the clock.

mod backlog;
mod clients;
mod delivery;
mod dispatch;
mod expiry;
mod fan_out;
mod filters;
mod forms;
mod gather;
mod history;
mod idempotency;
mod identities;
mod join_leave;
mod local_channel;
mod measures;
mod message;
mod name_table;
mod positions;
mod renewal;
mod session;
mod settings;
mod slots;
mod streams;
mod subscribers;
mod survey;
mod texts;

pub use backlog::Drops;
pub use dispatch::Hub;
pub use expiry::ExpiryRoom;
pub use fan_out::{FanOutBatch, FanOutStep, Visit};
pub use local_channel::SubscriptionState;
pub use measures::Measures;
pub use message::{
    Author, ControlOne, GatherId, HubMessage, HubOutput, Part, Present, QueryMessage, Receipt,
    StreamMessage, Survey, SurveyTask, reply_to,
};
pub use name_table::ChannelHash;
pub use renewal::SubscriptionChange;
pub use settings::{HubLimits, HubSettings};

#[cfg(test)]
mod tests;
