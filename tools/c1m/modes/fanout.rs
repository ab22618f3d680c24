//! Fan-out: publications to many subscribers, every delivery checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fantail::config::parse_seconds;
use serde_json::json;

use crate::arguments::{Common, Protocol, number, parse_rate};
use crate::connection::Role;
use crate::payload::BYTES_MIN;
use crate::plan::Group;
use crate::progress::Share;
use crate::publisher::{Publishing, Way, publish};
use crate::report::{Report, Samples};
use crate::run::{Run, door_of};
use crate::shared::{Shared, Step};

/// Publications to many.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    /// Publications a second, all channels together
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = parse_rate)]
    rate: f64,
    /// Bytes of a payload, 20 at the least
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = number::<u32>(BYTES_MIN as u64..=1 << 20))]
    pub size: u32,
    /// How long it publishes
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_seconds)]
    duration: Duration,
    /// How many it publishes, instead of --duration
    #[arg(long, value_name = "N", value_parser = number::<u32>(1..=u64::from(u32::MAX)))]
    count: Option<u32>,
    /// Publish once, and time the last subscriber
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// How long everyone is held, answering pings, before the first publication
    #[arg(long, value_name = "TIME", default_value = "0 s", value_parser = parse_seconds)]
    hold: Duration,
    /// How publications reach the server
    #[arg(long, value_enum, default_value = "http")]
    via: Via,
    /// How long the last deliveries may stand still before they count as lost
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = parse_seconds)]
    pub settle: Duration,
}

/// How publications reach the server.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Via {
    /// One WebSocket for each channel
    Ws,
    /// Commands over raw TCP, to --tcp-target
    Tcp,
    /// POST /publish
    Http,
}

pub fn run(arguments: &Arguments) -> Result<(Report, Samples), String> {
    let publishing = arguments.publishing()?;
    let groups = [Group { role: Role::Subscriber, count: arguments.common.connections }];
    let tracked = publishing.count as usize;
    let mut run = Run::start("fanout", &arguments.common, &groups, tracked, |settings| {
        settings.size = arguments.size as usize;
    })?;
    let result = drive(&mut run, publishing, arguments);
    Ok(run.finish(result))
}

fn drive(run: &mut Run, publishing: Publishing, arguments: &Arguments) -> Result<(), String> {
    run.open_all()?;
    run.hold(arguments.hold)?;
    run.order(Step::Work)?;
    run.begin_work()?;
    publish_all(run, publishing, arguments.settle)?;
    run.end_work("deliveries", received(&run.shared))?;
    Ok(())
}

/// Publishes everything and waits until everyone has it, or nobody gets anything any more.
pub fn publish_all(run: &mut Run, publishing: Publishing, settle: Duration) -> Result<(), String> {
    let stop = Arc::new(AtomicBool::new(false));
    let of = publishing.count;
    let publisher = {
        let (shared, stop) = (Arc::clone(&run.shared), Arc::clone(&stop));
        thread::Builder::new()
            .name("c1m-publisher".to_owned())
            .spawn(move || publish(&shared, &publishing, &stop))
            .map_err(|error| format!("cannot start a thread: {error}"))?
    };
    // It ends by itself: it publishes a number, and no publication takes longer than its timeout.
    let share = |shared: &Shared, _| Share { done: shared.published(), of, unit: "published" };
    let result = run.pass_showing("publishing", Duration::MAX, share, |_| publisher.is_finished());
    stop.store(true, Ordering::Relaxed);
    let published = publisher.join().map_err(|_| "the publisher panicked".to_owned())?;
    run.report.set_lag(&published.lag);
    run.report.add(
        "messages",
        json!({ "published": published.count, "publishing_deferred": published.deferred }),
    );
    result?;
    if let Some(error) = published.error {
        return Err(format!("publishing failed: {error}"));
    }
    let all = |shared: &Shared| received(shared) >= shared.expected();
    // What does not come is lost, which the report says; standing still is how that is known.
    loop {
        let before = received(&run.shared);
        let moved =
            run.pass("delivering", settle, |shared| all(shared) || received(shared) != before)?;
        if !moved || all(&run.shared) {
            return Ok(());
        }
    }
}

fn received(shared: &Shared) -> u64 {
    shared.sum(|tally| &tally.received)
}

impl Arguments {
    /// What is to be published.
    pub fn publishing(&self) -> Result<Publishing, String> {
        let common = &self.common;
        let way = match self.via {
            Via::Ws => Way::WebSocket,
            Via::Tcp => Way::Commands,
            Via::Http => Way::Http,
        };
        if way == Way::WebSocket && common.channels > WEBSOCKET_CHANNELS_MAX {
            return Err(format!(
                "--via ws takes a connection for each channel, {WEBSOCKET_CHANNELS_MAX} at the most"
            ));
        }
        if self.rate == 0.0 {
            return Err("--rate is 0: nothing would ever be published".to_owned());
        }
        let by_time = (self.rate * self.duration.as_secs_f64()).ceil().max(1.0) as u64;
        let count = if self.once { 1 } else { self.count.map_or(by_time, u64::from) };
        if count > u64::from(u32::MAX) {
            return Err(format!("{count} publications are more than can be numbered"));
        }
        Ok(Publishing {
            way,
            door: door_of(common, if way == Way::Commands { Protocol::Tcp } else { Protocol::Ws }),
            channels: common.channels,
            rate: self.rate,
            count,
            size: self.size as usize,
            timeout: common.connect_timeout,
        })
    }
}

const WEBSOCKET_CHANNELS_MAX: u32 = 1000;
