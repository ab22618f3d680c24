//! Recovery: many clients reconnect at once and recover the whole history of a channel.
//!
//! All replies are equal but for the preceding line. One client recovers first and its reply is checked in full; those of
//! the others are compared with it byte by byte, which is fast enough not to be the bottleneck.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::bystander::Bystander;
use super::client::Connector;
use super::lines::{LineClient, publish_line};
use super::sockets::Sockets;
use super::streams::payload;
use super::target::Target;
use crate::instrument::{Histogram, Resident};

/// Options of the recovery load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of clients that recover
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Number of publications that each client missed
    #[arg(long, default_value_t = 1000)]
    publications: u64,
    /// Payload size in bytes, at least 16
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Number of subscribers of another channel, with a publication every 10 ms meanwhile
    #[arg(long, default_value_t = 8)]
    bystanders: usize,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut connector = arguments.target.connector();
    let epoch = publish(&mut connector, arguments)?;
    let subscribe = json!({"id": 2, "subscribe": {
        "channel": CHANNEL, "recover": true, "epoch": epoch, "offset": 0,
    }});
    let answer = answer(&mut connector, &subscribe, arguments)?;
    let baseline = measure_baseline(arguments)?;
    let mut recovery = Recovery::open(&mut connector, arguments.clients, answer)?;
    let bystander = Bystander::start(arguments.target.address, arguments.bystanders)?;
    std::thread::sleep(SETTLING);
    let pid = arguments.target.server_pid;
    let resident_before = pid.map(Resident::of).transpose()?;
    let meter = arguments.target.meter()?;
    bystander.open();
    let commands = format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}\n");
    let outcome = recovery.recover(commands.as_bytes(), pid, arguments.target.spin);
    let took = recovery.began.elapsed();
    let spent = meter.spent()?;
    let bystander = bystander.finish()?;
    Ok(json!({
        "kind": "recover",
        "clients": arguments.clients,
        "publications": arguments.publications,
        "size": arguments.size,
        "answer_bytes": recovery.answer.len(),
        "seconds": took.as_secs_f64(),
        "complete": recovery.complete,
        "fault": outcome.err().map(|error| error.to_string()),
        "until_complete": recovery.latency.to_json(),
        "bystanders_before": baseline,
        "bystanders": bystander,
        "rss_bytes_before": resident_before.map(|resident| resident.all),
        "rss_bytes_max": pid.map(|_| recovery.resident_max),
        "server": spent.map(|spent| spent.to_json(recovery.complete as u64)),
    }))
}

/// Publishes the history; returns the epoch of the channel.
fn publish(connector: &mut Connector, arguments: &Arguments) -> io::Result<Value> {
    let mut publisher = LineClient::connect(connector)?;
    for number in 0..arguments.publications {
        publisher.stream.write_all(&publish_line(CHANNEL, &payload(number, arguments.size)))?;
    }
    let history = json!({"id": 3, "history": {"channel": CHANNEL, "limit": 0}});
    let deadline = Instant::now() + PUBLISH_TIMEOUT;
    loop {
        let answer = publisher.ask(&history)?;
        let history = &answer["history"];
        if history["offset"] == arguments.publications {
            return Ok(history["epoch"].clone());
        }
        if Instant::now() > deadline || history["offset"].as_u64() > Some(arguments.publications) {
            return Err(io::Error::other(format!(
                "the channel already has publications: {history}"
            )));
        }
    }
}

/// The bytes of one reply, after each publication in it was checked.
fn answer(
    connector: &mut Connector,
    subscribe: &Value,
    arguments: &Arguments,
) -> io::Result<Vec<u8>> {
    let mut client = LineClient::connect(connector)?;
    client.stream.write_all(format!("{subscribe}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while answer.last() != Some(&b'\n') {
        match client.stream.read(&mut buffer)? {
            0 => return Err(io::Error::other("closed before a reply")),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let value: Value = serde_json::from_slice(&answer)?;
    let subscribed = &value["subscribe"];
    let publications = subscribed["publications"].as_array().map_or(&[][..], Vec::as_slice);
    let is_one = |(publication, number): (&Value, u64)| {
        let text = payload(number, arguments.size);
        publication["offset"] == number + 1
            && publication["data"].as_str().map(str::as_bytes) == Some(&text)
    };
    let is_whole = subscribed["recovered"] == true
        && publications.len() as u64 == arguments.publications
        && publications.iter().zip(0..).all(is_one);
    if !is_whole {
        let start = String::from_utf8_lossy(&answer[..answer.len().min(500)]).into_owned();
        return Err(io::Error::other(format!("not recovered, or incompletely: {start}")));
    }
    Ok(answer)
}

/// Measures bystanders while no client recovers.
fn measure_baseline(arguments: &Arguments) -> io::Result<Value> {
    let bystander = Bystander::start(arguments.target.address, arguments.bystanders)?;
    std::thread::sleep(SETTLING);
    bystander.open();
    std::thread::sleep(QUIET_TIME);
    bystander.finish()
}

struct Recovery {
    sockets: Sockets,
    clients: Vec<Client>,
    /// The expected reply to `subscribe`.
    answer: Vec<u8>,
    began: Instant,
    complete: usize,
    latency: Histogram,
    resident_max: u64,
}

struct Client {
    stream: TcpStream,
    /// Received bytes of the reply; `None` until the reply to `connect` is complete.
    received: Option<usize>,
}

impl Recovery {
    fn open(connector: &mut Connector, count: usize, answer: Vec<u8>) -> io::Result<Self> {
        let sockets = Sockets::new()?;
        let mut clients = Vec::with_capacity(count);
        for index in 0..count {
            let stream = connector.connect()?;
            sockets.add(&stream, index)?;
            clients.push(Client { stream, received: None });
        }
        Ok(Self {
            sockets,
            clients,
            answer,
            began: Instant::now(),
            complete: 0,
            latency: Histogram::new(),
            resident_max: 0,
        })
    }

    /// Sends all commands at once; returns when all replies are complete.
    fn recover(&mut self, commands: &[u8], pid: Option<u32>, spin: bool) -> io::Result<()> {
        self.began = Instant::now();
        for client in &mut self.clients {
            client.stream.write_all(commands)?;
        }
        let mut buffer = vec![0; 1 << 18];
        let mut next_check = Instant::now();
        while self.complete < self.clients.len() {
            if !self.sockets.wait(spin)? {
                return Err(io::Error::other("the server stopped answering"));
            }
            for index in self.sockets.ready() {
                if self.clients[index].receive(&self.answer, &mut buffer)? {
                    self.complete += 1;
                    self.latency.record(self.began.elapsed().as_nanos() as u64);
                }
            }
            if let Some(pid) = pid
                && Instant::now() >= next_check
            {
                self.resident_max = self.resident_max.max(Resident::of(pid)?.all);
                next_check = Instant::now() + CHECK_INTERVAL;
            }
        }
        Ok(())
    }
}

impl Client {
    /// Compares received bytes with the expected reply; returns whether it is now complete.
    fn receive(&mut self, answer: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        let mut is_completed = false;
        loop {
            let mut bytes = match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::other("the server closed a client")),
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(is_completed),
                Err(error) => return Err(error),
            };
            if self.received.is_none() {
                let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { continue };
                self.received = Some(0);
                bytes = &bytes[end + 1..];
            }
            let Some(received) = &mut self.received else { continue };
            let is_ping = *received == answer.len() && bytes == b"{}\n";
            if !is_ping && !answer[*received..].starts_with(bytes) {
                return Err(io::Error::other("a client got another answer than the first one"));
            }
            if !is_ping && !bytes.is_empty() {
                *received += bytes.len();
                is_completed |= *received == answer.len();
            }
        }
    }
}

const CHANNEL: &str = "recovered";
const SETTLING: Duration = Duration::from_millis(300);
const QUIET_TIME: Duration = Duration::from_secs(3);
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
