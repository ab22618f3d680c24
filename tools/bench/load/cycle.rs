//! Cycle: connects, subscribes and closes in a loop, to measure the cost of a short connection.

use std::io;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::client::Protocol;
use super::command_client::Subscribing;
use super::target::Target;
use super::window::{Phase, Window};

/// Options of the cycle load. Connections are reset after the handshake, or after the reply to their subscribe.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of handshakes in flight
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Channel to which they subscribe by the command protocol, in JSON; without it the path says it
    #[arg(long)]
    channel: Option<String>,
    /// Length of the measurement, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Warm-up before it, in seconds
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut connector = arguments.target.connector();
    let mut window = Window::new(&arguments.target, arguments.warm_up, arguments.seconds)?;
    let mut cycles = 0;
    loop {
        match &arguments.channel {
            Some(channel) => {
                let ask = Subscribing { protocol: Protocol::Commands, channel, delta: false };
                drop(ask.connect(&mut connector, arguments.in_flight)?);
            }
            None => drop(connector.open(arguments.in_flight)?),
        }
        cycles += arguments.in_flight as u64;
        match window.phase(Instant::now())? {
            Phase::WarmUp | Phase::Inside => {}
            Phase::Opened => cycles = 0,
            Phase::Closed(length, spent) => {
                return Ok(json!({
                    "kind": "cycle",
                    "in_flight": arguments.in_flight,
                    "seconds": length.as_secs_f64(),
                    "ops": cycles,
                    "ops_per_second": cycles as f64 / length.as_secs_f64(),
                    "server": spent.map(|spent| spent.to_json(cycles)),
                }));
            }
        }
    }
}
