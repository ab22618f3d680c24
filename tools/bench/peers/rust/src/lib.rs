//! Shared code of both servers: `SERVER echo|fanout PORT`, one thread, one task per connection, one channel.

use std::error::Error;
use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpStream};

pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Messages are echoed to their sender.
    Echo,
    /// Messages are sent to every connection, including the sender.
    Fanout,
}

/// Hands each connection to `serve`, which spawns.
pub fn run(mut serve: impl FnMut(TcpStream, Mode)) -> Outcome {
    let mut words = std::env::args().skip(1);
    let mode = match words.next().as_deref() {
        Some("echo") => Mode::Echo,
        Some("fanout") => Mode::Fanout,
        _ => return Err("usage: SERVER echo|fanout PORT".into()),
    };
    let port: u16 = words.next().ok_or("no port")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        // Tokio listens with a backlog of 1024.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            serve(stream, mode);
        }
    })
}

/// Maximum number of publications that a slow subscriber can be behind.
pub const CHANNEL_CAPACITY: usize = 1024;
