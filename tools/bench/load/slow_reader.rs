//! Slow reader: a subscriber stops reading for a while beside healthy ones, and checks what it receives afterwards.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::lines::{Line, LineClient, parse_line, publish_line};
use super::sockets::Sockets;
use super::streams::{Arrival, Faults, Stream, payload};
use super::target::Target;
use crate::instrument::{Histogram, Resident};

/// Options of the slow-reader load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Channel; its namespace sets the delivery policy
    #[arg(long)]
    channel: String,
    /// Number of healthy subscribers
    #[arg(long, default_value_t = 8)]
    healthy: usize,
    /// Publications per second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Payload size in bytes, at least 16
    #[arg(long, default_value_t = 1000)]
    size: usize,
    /// How long the subscriber does not read, in seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// How long it reads again while publishing continues, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds_after: f64,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut load = Load::open(arguments)?;
    let rss_before = load.resident()?;
    let stalled_until = Duration::from_secs_f64(arguments.seconds);
    let end = stalled_until + Duration::from_secs_f64(arguments.seconds_after);
    load.began = Instant::now();
    while load.began.elapsed() < end {
        let is_reading = load.began.elapsed() >= stalled_until;
        load.turn(Some(arguments.rate), is_reading)?;
    }
    // Wait for outstanding publications until nothing more arrives.
    let mut quiet_since = Instant::now();
    let mut received = 0;
    while quiet_since.elapsed() < QUIET_TIME {
        load.turn(None, true)?;
        let sum = load.slow.received + load.healthy_count();
        if sum != received {
            (received, quiet_since) = (sum, Instant::now());
        }
    }
    Ok(load.report(arguments, rss_before))
}

struct Load {
    sockets: Sockets,
    publisher: LineClient,
    channel: String,
    size: usize,
    pid: Option<u32>,
    began: Instant,
    /// When each publication was sent.
    published: Vec<Duration>,
    healthy: Vec<(LineClient, Stream)>,
    faults: Faults,
    latency: Histogram,
    client: LineClient,
    slow: Slow,
    buffer: Vec<u8>,
    next_check: Instant,
    rss_max: u64,
}

/// The checks of the slow subscriber.
#[derive(Debug, Default)]
struct Slow {
    received: u64,
    /// Offset of the last publication received; earlier ones precede the subscription.
    last: Option<u64>,
    /// Number of publications skipped in offsets.
    skipped: u64,
    gaps: u64,
    /// Number of publications that gap pushes reported as dropped.
    reported: u64,
    /// Number reported since the last publication.
    reported_since: u64,
    /// Number of gaps without a report, or with a different number.
    unreported: u64,
    /// Number of offsets that did not increase.
    out_of_order: u64,
    disconnect_code: Option<u64>,
    /// How the connection ended.
    end: Option<String>,
}

impl Slow {
    fn take(&mut self, line: &[u8]) {
        match parse_line(line) {
            Line::Publication { offset, .. } => {
                let next = self.last.map_or(offset, |last| last + 1);
                self.received += 1;
                let missed = offset.saturating_sub(next);
                self.out_of_order += u64::from(offset < next);
                self.gaps += u64::from(missed > 0);
                self.skipped += missed;
                self.unreported += u64::from(missed != std::mem::take(&mut self.reported_since));
                self.last = Some(offset);
            }
            Line::Gap(count) => {
                self.reported += count;
                self.reported_since += count;
            }
            Line::Disconnect(code) => self.disconnect_code = Some(code),
            Line::Other => {}
            Line::Error(fault) => self.end = Some(fault),
        }
    }

    fn to_json(&self, published: u64) -> Value {
        json!({
            "received": self.received,
            "last_offset": self.last,
            "is_at_end": self.last == Some(published),
            "gaps": self.gaps,
            "skipped": self.skipped,
            "reported_dropped": self.reported,
            "gaps_not_reported": self.unreported,
            "out_of_order": self.out_of_order,
            "disconnect_code": self.disconnect_code,
            "end": self.end,
        })
    }
}

impl Load {
    fn open(arguments: &Arguments) -> io::Result<Self> {
        let mut connector = arguments.target.connector();
        let sockets = Sockets::new()?;
        let mut subscribe = |index: usize| -> io::Result<LineClient> {
            let client = LineClient::subscribe(&mut connector, &arguments.channel)?;
            sockets.add(&client.stream, index)?;
            Ok(client)
        };
        let healthy = (0..arguments.healthy)
            .map(|index| subscribe(index).map(|client| (client, Stream::default())))
            .collect::<io::Result<_>>()?;
        let client = subscribe(arguments.healthy)?;
        // The slow subscriber is not watched while it does not read.
        sockets.remove(&client.stream)?;
        let publisher = LineClient::connect(&mut connector)?;
        Ok(Self {
            sockets,
            publisher,
            channel: arguments.channel.clone(),
            size: arguments.size,
            pid: arguments.target.server_pid,
            began: Instant::now(),
            published: Vec::new(),
            healthy,
            faults: Faults::default(),
            latency: Histogram::new(),
            client,
            slow: Slow::default(),
            buffer: vec![0; 1 << 16],
            next_check: Instant::now(),
            rss_max: 0,
        })
    }

    /// Publishes what is due and receives for a millisecond.
    fn turn(&mut self, rate: Option<u32>, slow_is_reading: bool) -> io::Result<()> {
        if let Some(rate) = rate {
            let now = self.began.elapsed();
            let due = (now.as_secs_f64() * f64::from(rate)) as usize;
            while self.published.len() < due {
                let text = payload(self.published.len() as u64, self.size);
                self.publisher.stream.write_all(&publish_line(&self.channel, &text))?;
                self.published.push(now);
            }
        }
        self.sockets.poll(Duration::from_millis(1))?;
        let Self { sockets, healthy, faults, latency, buffer, began, published, .. } = self;
        for index in sockets.ready() {
            let (client, stream) = &mut healthy[index];
            let is_open = client.receive(buffer, |line| {
                if let Line::Publication { data, .. } = parse_line(line)
                    && let Arrival::New(number) = stream.receive(data.as_bytes(), faults)
                    && let Some(&published_at) = published.get(number as usize)
                {
                    latency.record((began.elapsed() - published_at).as_nanos() as u64);
                }
            })?;
            if !is_open {
                return Err(io::Error::other("the server closed a healthy subscriber"));
            }
        }
        if slow_is_reading && self.slow.end.is_none() {
            let Self { client, slow, buffer, .. } = self;
            match client.receive(buffer, |line| slow.take(line)) {
                Ok(true) => {}
                Ok(false) => slow.end = Some("closed".to_owned()),
                Err(error) => slow.end = Some(error.to_string()),
            }
        }
        if Instant::now() >= self.next_check {
            self.rss_max = self.rss_max.max(self.resident()?.unwrap_or(0));
            self.next_check = Instant::now() + CHECK_INTERVAL;
        }
        Ok(())
    }

    fn healthy_count(&self) -> u64 {
        self.healthy.iter().map(|(_, stream)| stream.count()).sum()
    }

    fn resident(&self) -> io::Result<Option<u64>> {
        Ok(self.pid.map(Resident::of).transpose()?.map(|resident| resident.all))
    }

    fn report(mut self, arguments: &Arguments, rss_before: Option<u64>) -> Value {
        let published = self.published.len() as u64;
        // A stream may start at any number, so missing publications follow from the count.
        self.faults.lost = published * self.healthy.len() as u64 - self.healthy_count();
        json!({
            "kind": "slow-reader",
            "channel": arguments.channel,
            "rate": arguments.rate,
            "size": arguments.size,
            "seconds": arguments.seconds,
            "published": published,
            "healthy": {
                "subscribers": self.healthy.len(),
                "faults": self.faults.to_json(),
                "latency": self.latency.to_json(),
            },
            "slow": self.slow.to_json(published),
            "rss_bytes_before": rss_before,
            "rss_bytes_max": self.pid.map(|_| self.rss_max),
        })
    }
}

const CHECK_INTERVAL: Duration = Duration::from_millis(100);
const QUIET_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[String]) -> Slow {
        let mut slow = Slow::default();
        lines.iter().for_each(|line| slow.take(line.as_bytes()));
        slow
    }

    fn publication(offset: u64) -> String {
        json!({"push": {"channel": "a", "pub": {"data": "x", "offset": offset}}}).to_string()
    }

    fn gap(dropped: u64) -> String {
        json!({"push": {"channel": "a", "gap": {"dropped": dropped}}}).to_string()
    }

    #[test]
    fn a_gap_in_offsets_must_equal_the_drops_reported_before_it() {
        let slow = after(&[publication(1), gap(2), gap(1), publication(5), publication(6)]);
        assert_eq!((slow.received, slow.gaps, slow.skipped, slow.reported), (3, 1, 3, 3));
        assert_eq!((slow.unreported, slow.out_of_order), (0, 0));
        assert_eq!(after(&[publication(1), gap(2), publication(5)]).unreported, 1);
        assert_eq!(after(&[publication(1), gap(2), publication(2)]).unreported, 1);
        assert_eq!(after(&[publication(1), publication(3)]).unreported, 1);
        assert_eq!(after(&[publication(2), publication(2)]).out_of_order, 1);
    }
}
