//! The client of the commands that connect to a server: addresses, a blocking connection, HTTP and WebSocket over it.

mod http;
mod server;
mod tls;
mod websocket;
mod wire;

pub use http::{Head, Request, channels_query, encoded, error_of};
pub use server::{Scheme, Server};
pub use tls::Trust;
pub use websocket::{Frame, WebSocket};
pub use wire::{Arrival, SILENCE_MAX, Trouble, Wire};
