//! A server that drops, repeats and reorders on purpose: c1m counts exactly that.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fantail::protocol::websocket::handshake::write_accept_response;
use fantail::protocol::websocket::{OpCode, write_frame};

use crate::c1m;

/// What it does with a publication, by the publication's place, from 1.
type Mischief = fn(place: usize) -> Deed;

#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Deliver,
    Drop,
    Repeat,
    /// After the next one.
    Hold,
    /// As nobody sent it.
    Garble,
    /// And everyone is closed.
    Hang,
}

#[derive(Default)]
struct State {
    subscribers: Vec<TcpStream>,
    published: usize,
    held: Option<Vec<u8>>,
}

/// Serves until the process ends: WebSockets subscribe, POST publishes.
fn serve(mischief: Mischief) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.unwrap(), Arc::clone(&state));
            // Ends with its client.
            thread::spawn(move || talk(stream, &state, mischief));
        }
    });
    address
}

fn talk(stream: TcpStream, state: &Mutex<State>, mischief: Mischief) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut key, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end().split_once(": ") {
                Some(("Sec-WebSocket-Key", value)) => key = Some(value.to_owned()),
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                _ => {}
            }
            if line == "\r\n" {
                break;
            }
        }
        if let Some(key) = key {
            let mut answer = Vec::new();
            write_accept_response(&mut answer, key.as_bytes(), None);
            let mut state = state.lock().unwrap();
            stream.write_all(&answer).unwrap();
            state.subscribers.push(stream);
            return;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        state.lock().unwrap().publish(body, mischief);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

impl State {
    fn publish(&mut self, body: Vec<u8>, mischief: Mischief) {
        self.published += 1;
        let deliveries: Vec<Vec<u8>> = match mischief(self.published) {
            Deed::Deliver => vec![body],
            Deed::Drop => vec![],
            Deed::Repeat => vec![body.clone(), body],
            Deed::Hold => {
                self.held = Some(body);
                return;
            }
            Deed::Garble => vec![body.iter().rev().copied().collect()],
            Deed::Hang => {
                self.subscribers.clear();
                return;
            }
        };
        for payload in deliveries.into_iter().chain(self.held.take()) {
            let mut frame = Vec::new();
            write_frame(&mut frame, OpCode::Text, &payload);
            for subscriber in &mut self.subscribers {
                subscriber.write_all(&frame).unwrap();
            }
        }
    }
}

const FANOUT: [&str; 8] = ["-n", "20", "--count", "100", "--rate", "1000", "--settle", "700 ms"];

#[test]
fn an_honest_server_has_no_faults() {
    let run = c1m("fanout", serve(|_| Deed::Deliver), &FANOUT);
    run.expect_success(20);
    assert_eq!(run.number("/messages/received"), 2000);
}

#[test]
fn what_is_dropped_repeated_and_reordered_is_counted_exactly() {
    // Of each ten: one is dropped, two come twice, one comes after the next.
    let run = c1m(
        "fanout",
        serve(|place| match place % 10 {
            3 => Deed::Drop,
            5 | 6 => Deed::Repeat,
            8 => Deed::Hold,
            _ => Deed::Deliver,
        }),
        &FANOUT,
    );
    run.expect_failure("messages were lost (200), duplicated (400), reordered (200)");
    assert_eq!(run.number("/messages/published"), 100);
    assert_eq!(run.number("/messages/expected"), 2000);
    assert_eq!(run.number("/messages/received"), 1800);
    assert_eq!(run.number("/messages/lost"), 200);
    assert_eq!(run.number("/messages/duplicated"), 400);
    assert_eq!(run.number("/messages/reordered"), 200);
    assert_eq!(run.number("/messages/unplaced") + run.number("/messages/strange"), 0);
    // Time to the last subscriber is known of those publications only that reached all.
    assert_eq!(run.number("/work/last_subscriber/count"), 90);
}

#[test]
fn losses_at_the_very_beginning_and_end_are_noticed() {
    let run = c1m(
        "fanout",
        serve(|place| match place {
            1 | 2 | 99 | 100 => Deed::Drop,
            _ => Deed::Deliver,
        }),
        &FANOUT,
    );
    run.expect_failure("messages were lost (80)");
}

#[test]
fn what_nobody_sent_is_strange() {
    let run = c1m(
        "fanout",
        serve(|place| match place {
            50 => Deed::Garble,
            _ => Deed::Deliver,
        }),
        &FANOUT,
    );
    run.expect_failure("lost (20), duplicated (0), reordered (0), unplaced (0) or strange (20)");
}

#[test]
fn each_single_kind_of_fault_is_a_failure() {
    for (deed, pointer) in [
        (
            (|place| if place == 7 { Deed::Repeat } else { Deed::Deliver }) as Mischief,
            "/messages/duplicated",
        ),
        (|place| if place == 7 { Deed::Hold } else { Deed::Deliver }, "/messages/reordered"),
        (|place| if place == 7 { Deed::Drop } else { Deed::Deliver }, "/messages/lost"),
    ] {
        let run = c1m("fanout", serve(deed), &FANOUT);
        run.expect_failure("messages were lost");
        assert_eq!(run.number(pointer), 20);
    }
}

#[test]
fn subscribers_that_the_server_drops_midway_are_lost_and_so_is_what_they_missed() {
    let run = c1m(
        "fanout",
        serve(|place| match place {
            51 => Deed::Hang,
            _ => Deed::Deliver,
        }),
        &FANOUT,
    );
    run.expect_failure("all were lost: closed by the server");
    assert_eq!(run.number("/connections/lost"), 20);
    assert_eq!(run.report["connections"]["lost_by_cause"]["closed by the server"], 20);
    assert_eq!(run.number("/messages/received"), 20 * 50);
}
