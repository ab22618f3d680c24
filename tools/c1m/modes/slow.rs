//! Slow: a fan-out in which some subscribers stop reading, and the effect on the others.

use clap::Args;
use serde_json::json;

use super::fanout;
use crate::arguments::number;
use crate::connection::Role;
use crate::plan::Group;
use crate::report::{Report, Samples, faults_json};
use crate::run::Run;
use crate::shared::{Shared, Step};

/// Options of the slow mode.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub fanout: fanout::Arguments,
    /// Fraction of the subscribers that stop reading
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1, value_parser = parse_fraction)]
    slow_fraction: f64,
    /// Receive buffer (SO_RCVBUF) of slow subscribers in bytes; the kernel doubles it
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = number::<u32>(1..=1 << 30))]
    slow_receive_buffer: u32,
}

pub fn run(arguments: &Arguments) -> Result<(Report, Samples), String> {
    let common = &arguments.fanout.common;
    let publishing = arguments.fanout.publishing()?;
    let slow = (common.connections as f64 * arguments.slow_fraction).round() as usize;
    let groups = [
        Group { role: Role::Subscriber, count: common.connections - slow },
        Group { role: Role::Slow, count: slow },
    ];
    let tracked = publishing.count as usize;
    let mut run = Run::start("slow", common, &groups, tracked, |settings| {
        settings.size = arguments.fanout.size as usize;
        settings.slow_receive_buffer = arguments.slow_receive_buffer as usize;
    })?;
    let result = drive(&mut run, arguments, publishing);
    let shared = std::sync::Arc::clone(&run.shared);
    let (mut report, samples) = run.finish(result);
    let [_, faults] = shared.faults();
    report.add(
        "slow",
        json!({
            "connections": slow,
            "closed_by_server": shared.sum(|tally| &tally.closed_slow),
            "received": shared.sum(|tally| &tally.received_slow),
        }),
    );
    report.add("slow", faults_json(faults));
    if faults.any() && report.cause.is_none() {
        report.fail(
            "slow subscribers that were not closed missed messages, or received duplicates or reordered ones",
        );
    }
    Ok((report, samples))
}

fn drive(
    run: &mut Run,
    arguments: &Arguments,
    publishing: crate::publisher::Publishing,
) -> Result<(), String> {
    run.open_all()?;
    run.set_step(Step::Work)?;
    run.begin_work()?;
    let before = run.shared.sum(|tally| &tally.received);
    fanout::publish_all(run, publishing, arguments.fanout.settle)?;
    let deliveries = run.shared.sum(|tally| &tally.received) - before;
    run.end_work("deliveries to reading subscribers", deliveries)?;
    // Slow subscribers read again: they detect that they were closed, or receive the rest.
    run.set_step(Step::Read)?;
    let progress = |shared: &Shared| {
        shared.sum(|tally| &tally.received_slow) + shared.sum(|tally| &tally.closed_slow)
    };
    loop {
        let before = progress(&run.shared);
        if !run
            .wait("reading again", arguments.fanout.settle, |shared| progress(shared) != before)?
        {
            return Ok(());
        }
    }
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&fraction) {
        Ok(fraction)
    } else {
        Err("it must be from 0 to 1".to_owned())
    }
}
