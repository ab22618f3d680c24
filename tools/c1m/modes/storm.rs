//! Storm: all connections drop at once and come back; a few stay and say what they felt.

use std::time::Duration;

use clap::Args;
use fantail::config::parse_seconds;
use serde_json::{Value, json};

use crate::arguments::{Common, Protocol, number, parse_count};
use crate::connection::Role;
use crate::instrument::Histogram;
use crate::plan::Group;
use crate::report::{Report, Samples};
use crate::run::{Run, door_of};
use crate::shared::{Shared, Step};

/// All drop and come back.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    /// More connections, that stay and ping
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = parse_count)]
    stayers: usize,
    /// Between two pings of each
    #[arg(long, value_name = "TIME", default_value = "100 ms", value_parser = parse_seconds)]
    ping_every: Duration,
    /// Core to ping from. On the server's core, what the load does to its own is not in what they feel
    #[arg(long, value_name = "CORE", value_parser = number::<usize>(0..=CORES_MAX))]
    stayers_core: Option<usize>,
    /// How long it is quiet before each storm
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = parse_seconds)]
    quiet: Duration,
    /// How many storms
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    storms: u16,
    /// Drop with a reset, instead of a close as when a client is killed
    #[arg(long)]
    reset: bool,
    /// How long all may take to be served again
    #[arg(long, value_name = "TIME", default_value = "2 min", value_parser = parse_seconds)]
    storm_timeout: Duration,
}

pub fn run(arguments: &Arguments) -> Result<(Report, Samples), String> {
    let common = &arguments.common;
    let groups = [
        Group { role: Role::Idle, count: common.connections },
        Group { role: Role::Stayer, count: arguments.stayers },
    ];
    let mut run = Run::start("storm", common, &groups, 0, |settings| {
        settings.ping_every = arguments.ping_every;
        settings.stayers_core = arguments.stayers_core;
        settings.drop_resets = arguments.reset;
        if common.protocol == Protocol::Sse {
            settings.door = door_of(common, Protocol::Ws);
        }
    })?;
    // A storm is over within seconds.
    run.samples = Samples::every(Duration::from_millis(100));
    let mut storms = Vec::new();
    let result = drive(&mut run, arguments, &mut storms);
    run.report.set("storms", json!(storms.len()));
    for (index, storm) in storms.into_iter().enumerate() {
        run.report.set(&format!("storm_{}", index + 1), storm);
    }
    Ok(run.finish(result))
}

fn drive(run: &mut Run, arguments: &Arguments, storms: &mut Vec<Value>) -> Result<(), String> {
    run.open_all()?;
    run.tolerate_failures();
    run.order(Step::Work)?;
    for _ in 0..arguments.storms {
        run.take_latencies();
        run.stay("quiet", arguments.quiet)?;
        let quiet = run.take_latencies().latency;
        run.begin_work()?;
        storms.push(storm(run, arguments, &quiet)?);
    }
    Ok(())
}

fn storm(run: &mut Run, arguments: &Arguments, quiet: &Histogram) -> Result<Value, String> {
    let all = (arguments.common.connections + arguments.stayers) as u64;
    let (opened, failed) = (run.shared.sum(|t| &t.opened), run.shared.sum(|t| &t.failed));
    let skipped = run.shared.sum(|tally| &tally.pings_skipped);
    let began_ns = run.shared.now_ns();
    run.order(Step::Drop)?;
    let dropped_ns = run.shared.now_ns();
    let came_back = |shared: &Shared| shared.sum(|tally| &tally.open) >= all;
    let in_time = run.pass("coming back", arguments.storm_timeout, came_back)?;
    let (last_ns, gap_ns) = run.shared.gaps();
    let returned = run.shared.sum(|tally| &tally.opened) - opened;
    let during = run.end_work("connections served again", returned)?;
    let seconds = |ns: u64| ns as f64 / 1e9;
    let report = json!({
        "dropped": arguments.common.connections,
        "returned": returned,
        "retries": run.shared.sum(|tally| &tally.failed) - failed,
        "drop_seconds": seconds(dropped_ns - began_ns),
        "seconds_until_all_served": seconds(last_ns.saturating_sub(began_ns)),
        "longest_accept_stall_us": gap_ns as f64 / 1e3,
        "connect_to_served": during.opening.to_json(),
        "stayers_quiet": quiet.to_json(),
        "stayers_during": during.latency.to_json(),
        "stayers_p99_ratio": ratio(&during.latency, quiet),
        "stayers_pings_skipped": run.shared.sum(|tally| &tally.pings_skipped) - skipped,
    });
    if in_time {
        return Ok(report);
    }
    run.report.set("storm_unfinished", report);
    Err(format!(
        "{} of {all} were not served again within {} s",
        all - run.shared.sum(|tally| &tally.open).min(all),
        arguments.storm_timeout.as_secs_f64()
    ))
}

fn ratio(during: &Histogram, quiet: &Histogram) -> f64 {
    during.quantile(0.99) as f64 / quiet.quantile(0.99).max(1) as f64
}

/// CPU_SETSIZE, less one.
const CORES_MAX: u64 = 1023;
