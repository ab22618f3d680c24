//! Fan-out: publishes to many subscribers and checks every delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use fantail::config::parse_seconds;
use serde_json::json;

use crate::arguments::{Common, Protocol, number, parse_rate};
use crate::connection::Role;
use crate::payload::BYTES_MIN;
use crate::plan::Group;
use crate::progress::Share;
use crate::publisher::{Publishing, Via, publish};
use crate::report::{Report, Samples};
use crate::run::{Run, endpoint_for};
use crate::shared::{Shared, Step};

/// Options of the fan-out mode.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    /// Publications per second, over all channels
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = parse_rate)]
    rate: f64,
    /// Payload size in bytes, at least 20
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = number::<u32>(BYTES_MIN as u64..=1 << 20))]
    pub size: u32,
    /// How long to publish
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_seconds)]
    duration: Duration,
    /// Number of publications, instead of --duration
    #[arg(long, value_name = "N", value_parser = number::<u32>(1..=u64::from(u32::MAX)))]
    count: Option<u32>,
    /// Publish one message and measure the time to the last delivery
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// How long to hold all connections idle before the first publication
    #[arg(long, value_name = "TIME", default_value = "0 s", value_parser = parse_seconds)]
    hold: Duration,
    /// How publications reach the server
    #[arg(long, value_enum, default_value = "http")]
    via: Via,
    /// Time without a delivery after which the missing ones count as lost
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = parse_seconds)]
    pub settle: Duration,
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
    run.set_step(Step::Work)?;
    run.begin_work()?;
    publish_all(run, publishing, arguments.settle)?;
    run.end_work("deliveries", received(&run.shared))?;
    Ok(())
}

/// Publishes everything and waits until all is delivered, or nothing has been delivered for `settle`.
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
    // The publisher ends by itself: it has a count, and every publication has a timeout.
    let share = |shared: &Shared, _| Share { done: shared.published(), of, unit: "published" };
    let result = run.wait_showing("publishing", Duration::MAX, share, |_| publisher.is_finished());
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
    // Deliveries still missing when nothing more arrives are reported as lost.
    loop {
        let before = received(&run.shared);
        let progressed =
            run.wait("delivering", settle, |shared| all(shared) || received(shared) != before)?;
        if !progressed || all(&run.shared) {
            return Ok(());
        }
    }
}

fn received(shared: &Shared) -> u64 {
    shared.sum(|tally| &tally.received)
}

impl Arguments {
    /// The publications that the options ask for.
    pub fn publishing(&self) -> Result<Publishing, String> {
        let common = &self.common;
        if self.via == Via::Ws && common.channels > WEBSOCKET_CHANNELS_MAX {
            return Err(format!(
                "--via ws needs a connection per channel: at most {WEBSOCKET_CHANNELS_MAX} channels"
            ));
        }
        if self.rate == 0.0 {
            return Err("--rate must be greater than 0".to_owned());
        }
        let by_time = (self.rate * self.duration.as_secs_f64()).ceil().max(1.0) as u64;
        let count = if self.once { 1 } else { self.count.map_or(by_time, u64::from) };
        if count > u64::from(u32::MAX) {
            return Err(format!("{count} publications are more than the maximum of {}", u32::MAX));
        }
        Ok(Publishing {
            via: self.via,
            endpoint: endpoint_for(
                common,
                if self.via == Via::Tcp { Protocol::Tcp } else { Protocol::Ws },
            ),
            channels: common.channels,
            rate: self.rate,
            count,
            size: self.size as usize,
            timeout: common.connect_timeout,
        })
    }
}

const WEBSOCKET_CHANNELS_MAX: u32 = 1000;
