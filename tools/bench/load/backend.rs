//! A backend for callbacks: answers every request alike, as many a second as the load says, and none if it hangs.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::instrument::preempt_others;

/// A thread that answers callbacks.
pub struct Backend {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Default)]
struct Shared {
    /// Answers a second.
    rate: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    is_done: AtomicBool,
}

impl Backend {
    /// A backend that answers at once.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared { rate: AtomicU64::new(AT_ONCE), ..Shared::default() });
        let mut desk = Desk::new(address, Arc::clone(&shared))?;
        let thread = thread::spawn(move || {
            // It shares a core with the load, whose work must not make it slower.
            preempt_others()?;
            desk.run()
        });
        Ok(Self { shared, thread })
    }

    /// Answers so many requests a second from now on; with 0 it hangs, and `None` is at once.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.shared.rate.store(rate.unwrap_or(AT_ONCE), Ordering::Relaxed);
    }

    /// Requests and answers so far.
    pub fn to_json(&self) -> Value {
        let Shared { asked, answered, .. } = &*self.shared;
        json!({"asked": asked.load(Ordering::Relaxed), "answered": answered.load(Ordering::Relaxed)})
    }

    pub fn finish(self) -> io::Result<()> {
        self.shared.is_done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the backend panicked"))?
    }
}

struct Desk {
    shared: Arc<Shared>,
    poll: Poll,
    listener: TcpListener,
    peers: HashMap<Token, (TcpStream, Vec<u8>)>,
    /// Connections whose request waits for its answer.
    waiting: VecDeque<Token>,
    accepted: usize,
}

impl Desk {
    fn new(address: SocketAddr, shared: Arc<Shared>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (peers, waiting) = (HashMap::new(), VecDeque::new());
        Ok(Self { shared, poll, listener, peers, waiting, accepted: 0 })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let (mut earned, mut then) = (0.0, Instant::now());
        while !self.shared.is_done.load(Ordering::Relaxed) {
            let pause = if self.waiting.is_empty() { IDLE_PAUSE } else { ANSWER_PAUSE };
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    peer => self.read(peer),
                }
            }
            let rate = self.shared.rate.load(Ordering::Relaxed);
            let passed = then.elapsed();
            then += passed;
            // What it could have answered while it had nothing to do is not made up for.
            earned =
                (earned + rate as f64 * passed.as_secs_f64()).min(rate as f64 * EARNED_SECONDS_MAX);
            while earned >= 1.0
                && let Some(peer) = self.waiting.pop_front()
            {
                earned -= f64::from(u8::from(self.answer(peer)));
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.accepted += 1;
            let token = Token(self.accepted);
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            self.peers.insert(token, (stream, Vec::new()));
        }
    }

    fn read(&mut self, token: Token) {
        let Some((stream, unread)) = self.peers.get_mut(&token) else { return };
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => unread.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The answer is no longer awaited.
                _ => {
                    self.peers.remove(&token);
                    return;
                }
            }
        }
        while let Some(length) = request_bytes(unread) {
            unread.drain(..length);
            self.waiting.push_back(token);
            self.shared.asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns whether the answer was awaited.
    fn answer(&mut self, token: Token) -> bool {
        let Some((stream, _)) = self.peers.get_mut(&token) else { return false };
        let is_answered = stream.write_all(ANSWER).is_ok();
        self.shared.answered.fetch_add(is_answered.into(), Ordering::Relaxed);
        is_answered
    }
}

/// Bytes of the first request, if it is complete.
fn request_bytes(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?.to_ascii_lowercase();
    let length =
        text.split("content-length:").nth(1)?.lines().next()?.trim().parse::<usize>().ok()?;
    (bytes.len() >= head + length).then_some(head + length)
}

const LISTENER: Token = Token(0);
const AT_ONCE: u64 = 1_000_000;
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{\"result\":{\"user\":\"ann\"}}";
const ANSWER_PAUSE: Duration = Duration::from_millis(1);
const IDLE_PAUSE: Duration = Duration::from_millis(50);
const EARNED_SECONDS_MAX: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_where_its_head_says() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        for length in 0..request.len() {
            assert_eq!(request_bytes(&request[..length]), None);
        }
        assert_eq!(request_bytes(&[request, &b"POST"[..]].concat()), Some(request.len()));
    }

    #[test]
    fn its_answer_has_the_length_that_it_says() {
        let body = ANSWER.split(|byte| *byte == b'\n').next_back().unwrap();
        assert!(ANSWER.windows(4).any(|window| window == format!(": {}", body.len()).as_bytes()));
    }
}
