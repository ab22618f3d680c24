//! Echo: connections that exchange messages, beside any number of idle ones.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use fantail::config::parse_seconds;

use crate::arguments::{Common, Protocol, number, parse_address, parse_count};
use crate::connection::Role;
use crate::endpoint::{Endpoint, WireProtocol};
use crate::payload::BYTES_MIN;
use crate::plan::Group;
use crate::progress::Share;
use crate::report::{Report, Samples};
use crate::run::{Run, endpoint_for};
use crate::shared::{Shared, Step};

/// Options of the echo mode.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    /// Number of idle connections in addition
    #[arg(long, value_name = "N", value_parser = parse_count)]
    idle: Option<usize>,
    /// WebSocket address of the idle connections [default: --target]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    idle_target: Option<SocketAddr>,
    /// Messages in flight on each connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// Message size in bytes, at least 20
    #[arg(long, value_name = "BYTES", default_value_t = BYTES_MIN as u32)]
    #[arg(value_parser = number::<u32>(BYTES_MIN as u64..=65_536))]
    size: u32,
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_seconds)]
    duration: Duration,
    /// Warm-up time before the measurement
    #[arg(long, value_name = "TIME", default_value = "1 s", value_parser = parse_seconds)]
    warm_up: Duration,
}

pub fn run(arguments: &Arguments) -> Result<(Report, Samples), String> {
    let common = &arguments.common;
    if common.protocol == Protocol::Sse {
        return Err("an event stream cannot echo: --protocol ws or tcp".to_owned());
    }
    let groups = [
        Group { role: Role::Echo, count: common.connections },
        Group { role: Role::Idle, count: arguments.idle.unwrap_or(0) },
    ];
    let mut run = Run::start("echo", common, &groups, 0, |settings| {
        let protocol = match common.protocol {
            Protocol::Tcp => WireProtocol::Lines,
            Protocol::Ws | Protocol::Sse => WireProtocol::WebSocket,
        };
        settings.endpoint = Endpoint { protocol, ..endpoint_for(common, Protocol::Ws) };
        let address = arguments.idle_target.unwrap_or(common.target);
        settings.idle_endpoint = Endpoint { address, ..endpoint_for(common, Protocol::Ws) };
        settings.depth = usize::from(arguments.depth);
        settings.size = arguments.size as usize;
    })?;
    let result = drive(&mut run, arguments);
    Ok(run.finish(result))
}

fn drive(run: &mut Run, arguments: &Arguments) -> Result<(), String> {
    run.open_all()?;
    run.set_step(Step::Work)?;
    wait_checking_echoes(run, "warming up", arguments.warm_up)?;
    run.begin_work()?;
    let before = run.shared.sum(|tally| &tally.received);
    wait_checking_echoes(run, "echoing", arguments.duration)?;
    let echoes = run.shared.sum(|tally| &tally.received) - before;
    run.end_work("echoes", echoes)?;
    run.set_step(Step::Rest)?;
    // Missing echoes are reported as lost; they are not an error of this step.
    let received = |shared: &Shared| shared.sum(|tally| &tally.received);
    run.wait("finishing", LAST_ECHOES_TIMEOUT, |shared| {
        received(shared) == shared.sum(|tally| &tally.sent)
    })?;
    if echoes == 0 { Err("no echo was received".to_owned()) } else { Ok(()) }
}

/// Waits while most received messages are echoes. Single faults are counted; but a server that publishes each message
/// to several connections would make the number of messages in flight grow without bound, so that ends the run.
fn wait_checking_echoes(run: &mut Run, what: &str, time: Duration) -> Result<(), String> {
    let of = time.as_secs();
    let share = |_: &Shared, passed: Duration| Share { done: passed.as_secs(), of, unit: "s" };
    let does_not_echo = |shared: &Shared| {
        2 * shared.sum(|tally| &tally.not_echoed) > shared.sum(|tally| &tally.received)
    };
    if run.wait_showing(what, time, share, does_not_echo)? {
        return Err("the target does not echo: it repeats messages or sends them to other connections; fantail echoes at the \
                    addresses of --echo and --echo-tcp"
            .to_owned());
    }
    Ok(())
}

/// Timeout of the last echoes.
const LAST_ECHOES_TIMEOUT: Duration = Duration::from_secs(5);
