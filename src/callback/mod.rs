//! Callbacks: HTTP requests to a backend that decides, or answers, for a client.
//!
//! **What it is.** [`Service`] runs on a thread of its own, with one HTTP/1.1 client that keeps connections open. A
//! worker hands it a [`Call`] through a [`Caller`], which never waits, and gets an [`Answered`] back through its
//! [`Inbox`]. Bodies have the shapes of Centrifugo's proxies, so that its backends answer unchanged.
//!
//! The same thread fetches the published keys of tokens, and hands them to all workers.
//!
//! **In and out.** In: calls of workers. Out: what the backend said ([`Answer`]), or why it said nothing ([`Failure`]);
//! keys ([`KeySet`](crate::auth::KeySet)).
//!
//! **Always true.** Every call that was taken is answered once, within its timeout. What waits is bounded by number and
//! by bytes. Nothing that a client sends as data becomes a header.
//!
//! **Must not know.** Sessions, channels, what follows from an answer.

mod answer;
mod body;
mod call;
mod circuit;
mod client;
mod delivery;
mod endpoint;
mod event;
mod keys;
mod service;
mod setup;
mod trust;

pub use answer::{Answer, CallbackResult, ConnectResult, Fault, decode_answer};
pub use body::write_body;
pub use call::{Answered, Ask, Call, Failure, OUTCOMES};
pub use event::{Event, Happening};
pub use service::{Caller, Inbox, Service, Setups};
pub use setup::Setup;
pub use trust::{trust_file, trust_system};
