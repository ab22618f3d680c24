//! Connect, subscribe, close, again and again: what a visitor costs that does nothing else.

use std::io;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::target::Target;
use super::window::{Phase, Window};

/// Connections that are opened, and reset once their handshake is answered.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Handshakes in flight at once
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Length of the interval that counts
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Time before it
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut connector = arguments.target.connector();
    let mut window = Window::new(&arguments.target, arguments.warm_up, arguments.seconds)?;
    let mut cycles = 0;
    loop {
        drop(connector.open(arguments.in_flight)?);
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
