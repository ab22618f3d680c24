//! Echo: busy connections, beside any number of idle ones.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use fantail::config::parse_seconds;

use crate::arguments::{Common, Protocol, number, parse_address, parse_count};
use crate::connection::Role;
use crate::door::{Door, Speech};
use crate::payload::BYTES_MIN;
use crate::plan::Group;
use crate::progress::Share;
use crate::report::{Report, Samples};
use crate::run::{Run, door_of};
use crate::shared::{Shared, Step};

/// Messages that come back.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    /// More connections, that only stay
    #[arg(long, value_name = "N", value_parser = parse_count)]
    idle: Option<usize>,
    /// Where those go, as WebSockets [default: --target]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    idle_target: Option<SocketAddr>,
    /// Messages under way on each connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// Bytes of a message, 20 at the least
    #[arg(long, value_name = "BYTES", default_value_t = BYTES_MIN as u32)]
    #[arg(value_parser = number::<u32>(BYTES_MIN as u64..=65_536))]
    size: u32,
    /// How long it is measured
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_seconds)]
    duration: Duration,
    /// How long it works before that
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
        let speech = match common.protocol {
            Protocol::Tcp => Speech::Lines,
            Protocol::Ws | Protocol::Sse => Speech::WebSocket,
        };
        settings.door = Door { speech, ..door_of(common, Protocol::Ws) };
        let address = arguments.idle_target.unwrap_or(common.target);
        settings.idle_door = Door { address, ..door_of(common, Protocol::Ws) };
        settings.depth = usize::from(arguments.depth);
        settings.size = arguments.size as usize;
    })?;
    let result = drive(&mut run, arguments);
    Ok(run.finish(result))
}

fn drive(run: &mut Run, arguments: &Arguments) -> Result<(), String> {
    run.open_all()?;
    run.order(Step::Work)?;
    stay(run, "warming up", arguments.warm_up)?;
    run.begin_work()?;
    let before = run.shared.sum(|tally| &tally.received);
    stay(run, "echoing", arguments.duration)?;
    let echoes = run.shared.sum(|tally| &tally.received) - before;
    run.end_work("echoes", echoes)?;
    run.order(Step::Rest)?;
    // What does not come back is lost, which the report says; that is not an error of its own.
    let received = |shared: &Shared| shared.sum(|tally| &tally.received);
    run.pass("finishing", STRAGGLERS, |shared| {
        received(shared) == shared.sum(|tally| &tally.sent)
    })?;
    if echoes == 0 { Err("nothing came back".to_owned()) } else { Ok(()) }
}

/// Lets time pass while most of what comes is what was sent: an echo may be faulty, which is counted. A server that
/// publishes to many what it gets from one answers each message with several, and more and more would be under way.
fn stay(run: &mut Run, what: &str, time: Duration) -> Result<(), String> {
    let of = time.as_secs();
    let share = |_: &Shared, passed: Duration| Share { done: passed.as_secs(), of, unit: "s" };
    let is_no_echo = |shared: &Shared| {
        2 * shared.sum(|tally| &tally.not_echoed) > shared.sum(|tally| &tally.received)
    };
    if run.pass_showing(what, time, share, is_no_echo)? {
        return Err("the target does not echo: messages come again, or to connections that did not send them; fantail \
                    echoes at the addresses of --echo and --echo-tcp"
            .to_owned());
    }
    Ok(())
}

/// How long the last echoes may take.
const STRAGGLERS: Duration = Duration::from_secs(5);
