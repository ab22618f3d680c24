//! Storm: all connections drop at once and reconnect, while a few canaries stay open and measure ping latency.

use std::time::Duration;

use clap::Args;
use fantail::config::parse_seconds;
use serde_json::{Value, json};

use crate::arguments::{Common, Protocol, number, parse_count};
use crate::connection::Role;
use crate::instrument::Histogram;
use crate::plan::Group;
use crate::report::{Report, Samples};
use crate::run::{Run, endpoint_for};
use crate::shared::{Shared, Step};

/// Options of the storm mode.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    /// Number of connections in addition that stay open and ping
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = parse_count)]
    canaries: usize,
    /// Time between two pings of each canary
    #[arg(long, value_name = "TIME", default_value = "100 ms", value_parser = parse_seconds)]
    ping_interval: Duration,
    /// Core to ping from; on the server's core, the load on other cores does not add to the latency
    #[arg(long, value_name = "CORE", value_parser = number::<usize>(0..=CORES_MAX))]
    canary_core: Option<usize>,
    /// How long to measure the baseline latency before each storm
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = parse_seconds)]
    baseline: Duration,
    /// Number of storms
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    storms: u16,
    /// Drop connections with a reset (RST) instead of a FIN
    #[arg(long)]
    reset: bool,
    /// Timeout for all connections to reopen
    #[arg(long, value_name = "TIME", default_value = "2 min", value_parser = parse_seconds)]
    storm_timeout: Duration,
}

pub fn run(arguments: &Arguments) -> Result<(Report, Samples), String> {
    let common = &arguments.common;
    let groups = [
        Group { role: Role::Idle, count: common.connections },
        Group { role: Role::Canary, count: arguments.canaries },
    ];
    let mut run = Run::start("storm", common, &groups, 0, |settings| {
        settings.ping_interval = arguments.ping_interval;
        settings.canary_core = arguments.canary_core;
        settings.drop_resets = arguments.reset;
        if common.protocol == Protocol::Sse {
            settings.endpoint = endpoint_for(common, Protocol::Ws);
        }
    })?;
    // A storm takes seconds only.
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
    run.set_step(Step::Work)?;
    for _ in 0..arguments.storms {
        run.take_latencies();
        run.sleep("baseline", arguments.baseline)?;
        let baseline = run.take_latencies().latency;
        run.begin_work()?;
        storms.push(storm(run, arguments, &baseline)?);
    }
    Ok(())
}

fn storm(run: &mut Run, arguments: &Arguments, baseline: &Histogram) -> Result<Value, String> {
    let all = (arguments.common.connections + arguments.canaries) as u64;
    let (opened, failed) = (run.shared.sum(|t| &t.opened), run.shared.sum(|t| &t.failed));
    let skipped = run.shared.sum(|tally| &tally.pings_skipped);
    let began_ns = run.shared.now_ns();
    run.set_step(Step::Drop)?;
    let dropped_ns = run.shared.now_ns();
    let all_open = |shared: &Shared| shared.sum(|tally| &tally.open) >= all;
    let in_time = run.wait("reconnecting", arguments.storm_timeout, all_open)?;
    let (last_ns, gap_ns) = run.shared.gaps();
    let returned = run.shared.sum(|tally| &tally.opened) - opened;
    let during = run.end_work("connections reopened", returned)?;
    let seconds = |ns: u64| ns as f64 / 1e9;
    let report = json!({
        "dropped": arguments.common.connections,
        "returned": returned,
        "retries": run.shared.sum(|tally| &tally.failed) - failed,
        "drop_seconds": seconds(dropped_ns - began_ns),
        "seconds_until_all_open": seconds(last_ns.saturating_sub(began_ns)),
        "longest_accept_stall_us": gap_ns as f64 / 1e3,
        "connect_to_open": during.opening.to_json(),
        "canaries_baseline": baseline.to_json(),
        "canaries_during_storm": during.latency.to_json(),
        "canaries_p99_ratio": ratio(&during.latency, baseline),
        "canary_pings_skipped": run.shared.sum(|tally| &tally.pings_skipped) - skipped,
    });
    if in_time {
        return Ok(report);
    }
    run.report.set("storm_incomplete", report);
    Err(format!(
        "{} of {all} connections were not reopened within {} s",
        all - run.shared.sum(|tally| &tally.open).min(all),
        arguments.storm_timeout.as_secs_f64()
    ))
}

fn ratio(during: &Histogram, baseline: &Histogram) -> f64 {
    during.quantile(0.99) as f64 / baseline.quantile(0.99).max(1) as f64
}

/// `CPU_SETSIZE` minus one.
const CORES_MAX: u64 = 1023;
