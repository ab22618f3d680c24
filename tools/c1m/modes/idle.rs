//! Idle: connections that stay open and answer pings.

use std::time::Duration;

use clap::Args;
use fantail::config::parse_seconds;

use crate::arguments::Common;
use crate::connection::Role;
use crate::plan::Group;
use crate::report::{Report, Samples};
use crate::run::Run;

/// Options of the idle mode.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    /// How long to hold the connections once all are open
    #[arg(long, value_name = "TIME", default_value = "60 s", value_parser = parse_seconds)]
    duration: Duration,
}

pub fn run(arguments: &Arguments) -> Result<(Report, Samples), String> {
    let groups = [Group { role: Role::Idle, count: arguments.common.connections }];
    let mut run = Run::start("idle", &arguments.common, &groups, 0, |_| {})?;
    let result = drive(&mut run, arguments.duration);
    Ok(run.finish(result))
}

fn drive(run: &mut Run, duration: Duration) -> Result<(), String> {
    run.open_all()?;
    run.begin_work()?;
    let answered = run.shared.sum(|tally| &tally.pongs);
    run.sleep("holding", duration)?;
    run.end_work("pings answered", run.shared.sum(|tally| &tally.pongs) - answered)?;
    run.read_memory("memory_at_end")
}
