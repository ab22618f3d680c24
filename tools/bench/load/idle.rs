//! Idle: connections that stay open without traffic, and their memory.

use std::io::{self, BufRead, BufReader, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use fantail::config::Secret;
use serde_json::{Value, json};

use super::client::{self, Connector};
use super::command_client::Subscribing;
use super::target::Target;
use crate::instrument::{Resident, Tokens, Wire, kernel_slab_bytes};

/// Options of the idle load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of connections
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Number of connections before these, whose memory is not counted: with them, the server has allocated what it
    /// allocates once
    #[arg(long, default_value_t = 2000)]
    uncounted: usize,
    /// Protocol of the connections
    #[arg(long, value_enum, default_value = "websocket")]
    protocol: Protocol,
    /// How long to hold them once all are open, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The server's auth.hmac_secret, to sign a token for each connection with; not over raw TCP
    #[arg(long)]
    token_hmac_secret: Option<Secret>,
    /// Number of users that the connections belong to, in turn; 0 makes each a user of its own
    #[arg(long, default_value_t = 100, requires = "token_hmac_secret")]
    token_users: u32,
    /// Bytes of the info of each user, a JSON string; 0 for no info
    #[arg(long, default_value_t = 0, requires = "token_hmac_secret")]
    token_info_bytes: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    /// WebSocket, subscribed by the path
    Websocket,
    /// The same with permessage-deflate
    Deflate,
    /// Event stream, subscribed by the path
    Sse,
    /// Raw TCP, one JSON object per line: connect, subscribe
    Tcp,
    /// Command protocol in JSON, over a WebSocket: connect, subscribe
    Commands,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut connector = arguments.target.connector();
    connector.set_tokens(arguments.token_hmac_secret.clone().map(|secret| Tokens {
        secret,
        users: arguments.token_users,
        info_bytes: arguments.token_info_bytes,
    }));
    // They stay open.
    let _uncounted = open(&mut connector, arguments.protocol, arguments.uncounted)?;
    sleep(SETTLING);
    let resident = |pid: Option<u32>| pid.map(Resident::of).transpose();
    let before = resident(arguments.target.server_pid)?;
    let slab_before = kernel_slab_bytes()?;
    let began = Instant::now();
    let connections = open(&mut connector, arguments.protocol, arguments.connections)?;
    let took = began.elapsed();
    sleep(Duration::from_secs_f64(arguments.seconds));
    let after = resident(arguments.target.server_pid)?;
    let slab_after = kernel_slab_bytes()?;
    drop(connections);
    let per_connection =
        |before: u64, after: u64| (after as f64 - before as f64) / arguments.connections as f64;
    let server = before.zip(after).map(|(before, after)| {
        json!({
            "rss_bytes_before": before.all,
            "rss_bytes_per_connection": per_connection(before.all, after.all),
            "anonymous_bytes_per_connection": per_connection(before.anonymous, after.anonymous),
        })
    });
    Ok(json!({
        "kind": "idle",
        "connections": arguments.connections,
        "uncounted": arguments.uncounted,
        "seconds_to_open": took.as_secs_f64(),
        "server": server,
        // Client and server together: both ends are on this host.
        "kernel_slab_bytes_per_pair": per_connection(slab_before, slab_after),
    }))
}

fn open(connector: &mut Connector, protocol: Protocol, count: usize) -> io::Result<Vec<Wire>> {
    match protocol {
        Protocol::Sse | Protocol::Deflate => {
            let path = connector.path().to_owned();
            let protocol = match protocol {
                Protocol::Sse => client::Protocol::Sse,
                _ => client::Protocol::Deflate,
            };
            connector.set_protocol(protocol, &path);
            Ok(connector.open(count)?.into_iter().map(|(stream, _)| stream).collect())
        }
        Protocol::Websocket => {
            Ok(connector.open(count)?.into_iter().map(|(stream, _)| stream).collect())
        }
        Protocol::Commands => {
            let protocol = client::Protocol::Commands;
            Subscribing { protocol, channel: "idle", delta: false }.connect(connector, count)
        }
        Protocol::Tcp => (0..count).map(|_| subscribe_line(connector.connect_wire()?)).collect(),
    }
}

fn subscribe_line(mut stream: Wire) -> io::Result<Wire> {
    stream.write_all(
        b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"idle\"}}\n",
    )?;
    let mut reader = BufReader::new(stream);
    for command in ["connect", "subscribe"] {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.contains(command) {
            return Err(io::Error::other(format!("no answer to {command}: {line}")));
        }
    }
    Ok(reader.into_inner())
}

const SETTLING: Duration = Duration::from_millis(500);
