//! A subscriber that stops reading for a while, beside others that do not, and what it sees when it reads again.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::lines::{LineClient, Said, publish_line, said};
use super::sockets::Sockets;
use super::streams::{Arrival, Faults, Stream, payload};
use super::target::Target;
use crate::instrument::{Histogram, Resident};

/// One subscriber of the command protocol over raw TCP that stops reading, beside healthy ones.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// The channel; its namespace has the policy
    #[arg(long)]
    channel: String,
    /// Subscribers that read
    #[arg(long, default_value_t = 8)]
    healthy: usize,
    /// Publications a second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Payload bytes of one, at least 16
    #[arg(long, default_value_t = 1000)]
    size: usize,
    /// How long it reads nothing
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// How long it reads again while more is published
    #[arg(long, default_value_t = 3.0)]
    seconds_after: f64,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut load = Load::open(arguments)?;
    let rss_before = load.resident()?;
    let stalls_until = Duration::from_secs_f64(arguments.seconds);
    let end = stalls_until + Duration::from_secs_f64(arguments.seconds_after);
    load.began = Instant::now();
    while load.began.elapsed() < end {
        let reads = load.began.elapsed() >= stalls_until;
        load.turn(Some(arguments.rate), reads)?;
    }
    // What is under way; the slow one is waited for until nothing more comes.
    let mut quiet_since = Instant::now();
    let mut seen = 0;
    while quiet_since.elapsed() < QUIET {
        load.turn(None, true)?;
        let sum = load.slow.seen + load.healthy_count();
        if sum != seen {
            (seen, quiet_since) = (sum, Instant::now());
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
    /// When each publication left.
    published: Vec<Duration>,
    healthy: Vec<(LineClient, Stream)>,
    faults: Faults,
    latency: Histogram,
    client: LineClient,
    slow: Slow,
    buffer: Vec<u8>,
    look_at: Instant,
    rss_max: u64,
}

/// What the slow subscriber saw.
#[derive(Debug, Default)]
struct Slow {
    seen: u64,
    /// Offset of the last publication seen; what came before the subscription is nobody's.
    last: Option<u64>,
    /// Publications that offsets jumped over.
    jumped: u64,
    jumps: u64,
    /// Publications that it was told it missed.
    told: u64,
    /// What it was told since the last publication.
    told_since: u64,
    /// Jumps that were not told, or told with another number.
    unexplained: u64,
    /// Offsets that did not grow.
    disordered: u64,
    disconnect_code: Option<u64>,
    /// How the connection ended, if it did.
    end: Option<String>,
}

impl Slow {
    fn take(&mut self, line: &[u8]) {
        match said(line) {
            Said::Publication { offset, .. } => {
                let next = self.last.map_or(offset, |last| last + 1);
                self.seen += 1;
                let missed = offset.saturating_sub(next);
                self.disordered += u64::from(offset < next);
                self.jumps += u64::from(missed > 0);
                self.jumped += missed;
                self.unexplained += u64::from(missed != std::mem::take(&mut self.told_since));
                self.last = Some(offset);
            }
            Said::Gap(count) => {
                self.told += count;
                self.told_since += count;
            }
            Said::Disconnect(code) => self.disconnect_code = Some(code),
            Said::Other => {}
            Said::Fault(fault) => self.end = Some(fault),
        }
    }

    fn to_json(&self, published: u64) -> Value {
        json!({
            "seen": self.seen,
            "last_offset": self.last,
            "is_at_end": self.last == Some(published),
            "jumps": self.jumps,
            "jumped": self.jumped,
            "told": self.told,
            "jumps_not_told": self.unexplained,
            "disordered": self.disordered,
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
        // Pushes are many; those for the slow one are not looked at while it reads nothing.
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
            look_at: Instant::now(),
            rss_max: 0,
        })
    }

    /// Publishes what is due, and receives for a millisecond.
    fn turn(&mut self, rate: Option<u32>, slow_reads: bool) -> io::Result<()> {
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
                if let Said::Publication { data, .. } = said(line)
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
        if slow_reads && self.slow.end.is_none() {
            let Self { client, slow, buffer, .. } = self;
            match client.receive(buffer, |line| slow.take(line)) {
                Ok(true) => {}
                Ok(false) => slow.end = Some("closed".to_owned()),
                Err(error) => slow.end = Some(error.to_string()),
            }
        }
        if Instant::now() >= self.look_at {
            self.rss_max = self.rss_max.max(self.resident()?.unwrap_or(0));
            self.look_at = Instant::now() + LOOK_EVERY;
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
        // A stream may begin anywhere, so what did not come is counted, not looked for.
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

const LOOK_EVERY: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_secs(2);

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
    fn a_jump_is_explained_by_the_gaps_before_it_and_nothing_else() {
        let slow = after(&[publication(1), gap(2), gap(1), publication(5), publication(6)]);
        assert_eq!((slow.seen, slow.jumps, slow.jumped, slow.told), (3, 1, 3, 3));
        assert_eq!((slow.unexplained, slow.disordered), (0, 0));
        assert_eq!(after(&[publication(1), gap(2), publication(5)]).unexplained, 1);
        assert_eq!(after(&[publication(1), gap(2), publication(2)]).unexplained, 1);
        assert_eq!(after(&[publication(1), publication(3)]).unexplained, 1);
        assert_eq!(after(&[publication(2), publication(2)]).disordered, 1);
    }
}
