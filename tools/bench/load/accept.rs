//! Accept: opens connections as fast as possible, in rounds; the connections of a round are reset together.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::target::Target;
use crate::server_cpu::{ServerCpu, Spent};

/// Options of the accept load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Connections per round
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Rounds to measure, after one warm-up round
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let cpu = arguments.target.server_cpu()?;
    let mut opening = Cost::default();
    let mut closing = Cost::default();
    for round in 0..=arguments.rounds {
        // A new connector per round, since the ports of the last round are free again.
        let mut connector = arguments.target.connector();
        let read = || cpu.as_ref().map(|cpu| cpu.read()).transpose();
        let began = Instant::now();
        let before = read()?;
        let opened = connector.open(arguments.connections)?;
        let after = read()?;
        let took = began.elapsed();
        drop(opened);
        settle(cpu.as_ref())?;
        let settled = read()?;
        if round == 0 {
            continue;
        }
        let spent = |from, to| Some(cpu.as_ref()?.spent(from, to));
        if let (Some(before), Some(after), Some(settled)) = (&before, &after, &settled) {
            opening.add(took, spent(before, after));
            closing.add(SETTLING, spent(after, settled));
        } else {
            opening.add(took, None);
        }
    }
    let operations = (arguments.connections * arguments.rounds) as u64;
    Ok(json!({
        "kind": "accept",
        "connections": arguments.connections,
        "rounds": arguments.rounds,
        "ops": operations,
        "seconds": opening.took.as_secs_f64(),
        "ops_per_second": operations as f64 / opening.took.as_secs_f64(),
        "server": {
            "cpu_ns_per_op": opening.total_ns as f64 / operations as f64,
            "close_cpu_ns_per_op": closing.total_ns as f64 / operations as f64,
            "other_share": opening.other_share,
        },
    }))
}

/// Waits until the server has handled the resets: for `SETTLING`, then until it is nearly idle.
fn settle(cpu: Option<&ServerCpu>) -> io::Result<()> {
    sleep(SETTLING);
    let Some(cpu) = cpu else { return Ok(()) };
    let deadline = Instant::now() + SETTLING_MAX;
    while Instant::now() < deadline {
        let from = cpu.read()?;
        sleep(SETTLED);
        if cpu.spent(&from, &cpu.read()?).core_share() < IDLE_SHARE {
            break;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Cost {
    took: Duration,
    total_ns: u64,
    /// Maximum over all rounds.
    other_share: f64,
}

impl Cost {
    fn add(&mut self, took: Duration, spent: Option<Spent>) {
        self.took += took;
        if let Some(spent) = spent {
            self.total_ns += spent.total_ns;
            self.other_share = self.other_share.max(spent.other_share);
        }
    }
}

const SETTLING: Duration = Duration::from_millis(500);
const SETTLING_MAX: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_millis(100);
const IDLE_SHARE: f64 = 0.05;
