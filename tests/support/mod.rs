//! Test support: a server in this process or in a child process, and clients for raw bytes, HTTP, WebSocket and SSE.
//!
//! Nothing here sleeps to synchronise. Every wait is for an action of the server and fails after [`PATIENCE`].

mod backend;
mod child;
mod client;
mod command_stream;
mod event_stream;
mod server;
mod token;
mod websocket;

pub use backend::{Backend, BackendAnswer, BackendRequest, Gate};
pub use child::{Child, Ended, TempFile, run, run_with};
pub use client::{Client, Response};
pub use command_stream::{CommandStream, STREAM_REQUESTS, StreamRequest, emulate};
pub use event_stream::{Event, EventStream, StreamEnd};
pub use server::{EPOLL, IO_URING, TestServer, runs_here};
pub use token::{SECRET, in_seconds, token, token_by};
pub use websocket::{Received, WebSocket, masked, unmasked};

use std::time::{Duration, Instant};

/// Timeout of every wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Turns each function into two tests, one per driver: `name::io_uring` and `name::epoll`.
macro_rules! on_both_drivers {
    ($($(#[$attribute:meta])* fn $name:ident($driver:ident) $body:block)*) => {$(
        $(#[$attribute])*
        fn $name($driver: fantail::config::DriverChoice) $body

        mod $name {
            #[test]
            fn io_uring() {
                if crate::support::runs_here(crate::support::IO_URING) {
                    super::$name(crate::support::IO_URING);
                }
            }

            #[test]
            fn epoll() {
                super::$name(crate::support::EPOLL);
            }
        }
    )*};
}
pub(crate) use on_both_drivers;

/// Polls until a condition holds that no message announces, usually a counter.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
