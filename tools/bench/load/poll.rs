//! Long polls: many clients poll, one publication answers all, and they poll again; every stream is checked.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::client::Connector;
use super::streams::{Faults, Stream, payload};
use super::target::Target;
use crate::instrument::Resident;

/// Options of the long-poll load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of long polls
    #[arg(long, default_value_t = 10_000)]
    polls: usize,
    /// Number of publications
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// How long all polls wait before the first publication, in seconds, to measure their idle cost
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

struct Poller {
    stream: TcpStream,
    check: Stream,
    since: String,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut connector = arguments.target.connector();
    let resident = || arguments.target.server_pid.map(Resident::of).transpose();
    let mut first = open(&mut connector, UNCOUNTED)?;
    sleep(SETTLING);
    let before = resident()?;
    let mut pollers = open(&mut connector, arguments.polls)?;
    sleep(SETTLING);
    let after = resident()?;
    let meter = arguments.target.meter()?;
    sleep(Duration::from_secs_f64(arguments.seconds));
    let idle = meter.spent()?;

    let mut publisher = connector.connect()?;
    let mut faults = Faults::default();
    let began = Instant::now();
    for round in 0..arguments.rounds {
        publish(&mut publisher, &payload(round, SIZE))?;
        for poller in first.iter_mut().chain(&mut pollers) {
            // The first polls wait again while the last ones are still being answered.
            poller.take(&mut faults)?;
            poller.ask()?;
        }
    }
    let took = began.elapsed();
    for poller in &mut pollers {
        poller.check.finish(arguments.rounds, &mut faults);
    }
    let per_poll =
        |before: u64, after: u64| (after as f64 - before as f64) / arguments.polls as f64;
    let rss = before.zip(after).map(|(before, after)| per_poll(before.all, after.all));
    Ok(json!({
        "kind": "poll",
        "polls": arguments.polls,
        "rounds": arguments.rounds,
        "seconds": took.as_secs_f64(),
        "faults": faults.to_json(),
        "rss_bytes_per_poll": rss,
        "server": idle.map(|spent| spent.to_json(arguments.polls as u64)),
    }))
}

fn open(connector: &mut Connector, count: usize) -> io::Result<Vec<Poller>> {
    let open = |_| {
        let stream = connector.connect()?;
        let mut poller = Poller { stream, check: Stream::default(), since: String::new() };
        poller.stream.write_all(b"HEAD /poll?channel=bench HTTP/1.1\r\nHost: b\r\n\r\n")?;
        let (head, _) = read_response(&mut poller.stream, false)?;
        let tag = head.split("ETag: \"").nth(1).and_then(|rest| rest.split('"').next());
        poller.since = tag.ok_or_else(|| io::Error::other(head.clone()))?.to_owned();
        poller.ask()?;
        Ok(poller)
    };
    (0..count).map(open).collect()
}

impl Poller {
    fn ask(&mut self) -> io::Result<()> {
        let since = &self.since;
        let request = format!(
            "GET /poll?channel=bench&since={since}&timeout=120 HTTP/1.1\r\nHost: b\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes())
    }

    fn take(&mut self, faults: &mut Faults) -> io::Result<()> {
        let (_, body) = read_response(&mut self.stream, true)?;
        let answer: Value = serde_json::from_slice(&body)?;
        for publication in answer["publications"].as_array().into_iter().flatten() {
            self.check.receive(publication["data"].as_str().unwrap_or("").as_bytes(), faults);
        }
        answer["position"].as_str().unwrap_or("").clone_into(&mut self.since);
        Ok(())
    }
}

fn publish(stream: &mut TcpStream, payload: &[u8]) -> io::Result<()> {
    let length = payload.len();
    let head = format!(
        "POST /publish?channel=bench HTTP/1.1\r\nHost: b\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), payload].concat())?;
    read_response(stream, true).map(|_| ())
}

/// Reads the header and body of a response.
fn read_response(stream: &mut TcpStream, has_body: bool) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.split("Content-Length: ").nth(1).and_then(|rest| {
                rest.split('\r').next().and_then(|length| length.parse::<usize>().ok())
            });
            let length = length.filter(|_| has_body).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Ok((head, bytes.split_off(end + 4)));
            }
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("the server closed a poll"));
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
}

const SIZE: usize = 64;
const UNCOUNTED: usize = 10;
const SETTLING: Duration = Duration::from_millis(500);
