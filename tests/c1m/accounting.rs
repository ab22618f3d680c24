//! c1m counts faults exactly: against a server that drops, repeats and reorders messages on purpose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fantail::protocol::websocket::handshake::write_accept_response;
use fantail::protocol::websocket::{OpCode, write_frame};

use crate::c1m;

/// The fault of each publication by its number, from 1.
type FaultPlan = fn(number: usize) -> Fault;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Deliver,
    Drop,
    Repeat,
    /// Delivered after the next one.
    Hold,
    /// With a payload that was never sent.
    Garble,
    /// To all subscribers but one.
    Miss,
    /// To all subscribers; then one is closed.
    CloseOne,
    /// Not delivered; all subscribers are closed.
    CloseAll,
}

#[derive(Default)]
struct State {
    subscribers: Vec<TcpStream>,
    published: usize,
    held: Option<Vec<u8>>,
}

/// Serves until the process ends: WebSockets subscribe, or echo at `/echo`; POST publishes.
fn serve(plan: FaultPlan) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.unwrap(), Arc::clone(&state));
            // Ends when its client does.
            thread::spawn(move || handle(stream, &state, plan));
        }
    });
    address
}

fn handle(stream: TcpStream, state: &Mutex<State>, plan: FaultPlan) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut key, mut length, mut echoes) = (None, 0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            echoes |= line.starts_with("GET /echo ");
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
            write_accept_response(&mut answer, key.as_bytes(), None, None);
            if echoes {
                stream.write_all(&answer).unwrap();
                return echo(reader, stream, plan);
            }
            let mut state = state.lock().unwrap();
            stream.write_all(&answer).unwrap();
            state.subscribers.push(stream);
            return;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        state.lock().unwrap().publish(body, plan);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

/// Echoes one connection, whose messages are numbered from 1.
fn echo(mut reader: impl Read, stream: TcpStream, plan: FaultPlan) {
    let mut state = State { subscribers: vec![stream], ..State::default() };
    // Two bytes of header, four of mask, and the smallest payload.
    let mut frame = [0; 2 + 4 + 20];
    while reader.read_exact(&mut frame).is_ok() {
        assert_eq!(frame[..2], [0x81, 0x80 | 20]);
        let (mask, payload) = frame[2..].split_at(4);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        state.publish(payload.collect(), plan);
    }
}

impl State {
    fn publish(&mut self, body: Vec<u8>, plan: FaultPlan) {
        self.published += 1;
        let fault = plan(self.published);
        let deliveries: Vec<Vec<u8>> = match fault {
            Fault::Deliver | Fault::CloseOne | Fault::Miss => vec![body],
            Fault::Drop => return,
            Fault::Repeat => vec![body.clone(), body],
            Fault::Hold => {
                self.held = Some(body);
                return;
            }
            Fault::Garble => vec![body.iter().rev().copied().collect()],
            Fault::CloseAll => {
                self.subscribers.clear();
                return;
            }
        };
        for payload in deliveries.into_iter().chain(self.held.take()) {
            let mut frame = Vec::new();
            write_frame(&mut frame, OpCode::Text, &payload);
            let missed = usize::from(fault == Fault::Miss);
            for subscriber in self.subscribers.iter_mut().skip(missed) {
                // The subscriber may have ended meanwhile.
                let _ = subscriber.write_all(&frame);
            }
        }
        if fault == Fault::CloseOne {
            self.subscribers.pop();
        }
    }
}

const FANOUT: [&str; 8] = ["-n", "20", "--count", "100", "--rate", "1000", "--settle", "700 ms"];

#[test]
fn a_correct_server_has_no_faults() {
    let run = c1m("fanout", serve(|_| Fault::Deliver), &FANOUT);
    run.expect_success(20);
    assert_eq!(run.number("/messages/received"), 2000);
}

#[test]
fn dropped_repeated_and_reordered_publications_are_counted_exactly() {
    // In every ten publications one is dropped, two are duplicated, and one arrives after the next.
    let run = c1m(
        "fanout",
        serve(|number| match number % 10 {
            3 => Fault::Drop,
            5 | 6 => Fault::Repeat,
            8 => Fault::Hold,
            _ => Fault::Deliver,
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
    assert_eq!(run.number("/messages/unclassified") + run.number("/messages/unexpected"), 0);
    // Time to the last subscriber is known only for publications that reached all of them.
    assert_eq!(run.number("/work/last_subscriber/count"), 90);
}

#[test]
fn losses_at_the_beginning_and_at_the_end_are_detected() {
    let run = c1m(
        "fanout",
        serve(|number| match number {
            1 | 2 | 99 | 100 => Fault::Drop,
            _ => Fault::Deliver,
        }),
        &FANOUT,
    );
    run.expect_failure("messages were lost (80)");
}

#[test]
fn a_payload_that_was_never_sent_is_unexpected() {
    let run = c1m(
        "fanout",
        serve(|number| match number {
            50 => Fault::Garble,
            _ => Fault::Deliver,
        }),
        &FANOUT,
    );
    run.expect_failure(
        "lost (20), duplicated (0), reordered (0), unclassified (0) or unexpected (20)",
    );
}

#[test]
fn each_single_kind_of_fault_is_a_failure() {
    for (plan, pointer) in [
        (
            (|number| if number == 7 { Fault::Repeat } else { Fault::Deliver }) as FaultPlan,
            "/messages/duplicated",
        ),
        (|number| if number == 7 { Fault::Hold } else { Fault::Deliver }, "/messages/reordered"),
        (|number| if number == 7 { Fault::Drop } else { Fault::Deliver }, "/messages/lost"),
    ] {
        let run = c1m("fanout", serve(plan), &FANOUT);
        run.expect_failure("messages were lost");
        assert_eq!(run.number(pointer), 20);
    }
}

#[test]
fn subscribers_that_the_server_closes_are_lost_and_so_are_the_messages_they_missed() {
    let run = c1m(
        "fanout",
        serve(|number| match number {
            51 => Fault::CloseAll,
            _ => Fault::Deliver,
        }),
        &FANOUT,
    );
    run.expect_failure("all connections were lost: closed by the server");
    assert_eq!(run.number("/connections/lost"), 20);
    assert_eq!(run.report["connections"]["lost_by_cause"]["closed by the server"], 20);
    assert_eq!(run.number("/messages/received"), 20 * 50);
    assert_eq!(run.number("/messages/lost"), run.number("/messages/expected") - 20 * 50);
    assert!(
        run.number("/messages/lost") >= 20,
        "the publication on which they were closed: {run:#?}"
    );
    assert_eq!(run.number("/work/latency/count"), 20 * 50, "received messages are measured");
}

#[test]
fn one_missing_delivery_is_detected_and_its_publication_has_no_last_subscriber() {
    let plan: FaultPlan = |number| if number == 50 { Fault::Miss } else { Fault::Deliver };
    let run = c1m("fanout", serve(plan), &FANOUT);
    run.expect_failure("messages were lost (1)");
    assert_eq!(run.number("/messages/received"), 1999);
    assert_eq!(run.number("/work/last_subscriber/count"), 99);
}

#[test]
fn one_lost_connection_is_the_cause_and_its_messages_are_counted() {
    let plan: FaultPlan = |number| if number == 50 { Fault::CloseOne } else { Fault::Deliver };
    let run = c1m("fanout", serve(plan), &FANOUT);
    run.expect_failure("1 connection was lost");
    assert_eq!(run.number("/connections/open_at_end"), 19);
    assert_eq!(run.number("/messages/received"), 1950);
    assert_eq!(run.number("/messages/lost"), 50);
}

#[test]
fn a_publication_of_another_channel_is_unexpected() {
    // This server ignores channels: each subscriber receives the publications of both.
    let run =
        c1m("fanout", serve(|_| Fault::Deliver), &[&FANOUT[..], &["--channels", "2"]].concat());
    run.expect_failure(
        "lost (0), duplicated (0), reordered (0), unclassified (0) or unexpected (1000)",
    );
    assert_eq!(run.number("/messages/received"), 1000);
}

#[test]
fn a_message_that_is_too_late_is_unclassified_and_not_received() {
    // The first one is held until the 66th has been delivered; the ones in between are dropped.
    let run = c1m(
        "fanout",
        serve(|number| match number {
            1 => Fault::Hold,
            2..=65 => Fault::Drop,
            _ => Fault::Deliver,
        }),
        &FANOUT,
    );
    let lost = 20 * 65;
    run.expect_failure(&format!("lost ({lost}), duplicated (0), reordered (0), unclassified (20)"));
    assert_eq!(run.number("/messages/received"), 2000 - lost);
}

#[test]
fn faults_of_an_echo_are_counted_exactly() {
    let plan: FaultPlan = |number| match number {
        3 => Fault::Drop,
        5 => Fault::Repeat,
        7 => Fault::Hold,
        _ => Fault::Deliver,
    };
    let arguments =
        ["-n", "10", "--depth", "4", "--path", "/echo", "--duration", "300 ms", "--warm-up", "0 s"];
    let run = c1m("echo", serve(plan), &arguments);
    run.expect_failure(
        "lost (10), duplicated (10), reordered (10), unclassified (0) or unexpected (0)",
    );
    assert_eq!(run.number("/messages/received"), run.number("/messages/sent") - 10);
    c1m("echo", serve(|_| Fault::Deliver), &arguments).expect_success(10);
}

#[test]
fn faults_of_slow_subscribers_are_counted_separately() {
    for (plan, name) in [
        (
            (|number| if number == 7 { Fault::Repeat } else { Fault::Deliver }) as FaultPlan,
            "duplicated",
        ),
        (|number| if number == 100 { Fault::Drop } else { Fault::Deliver }, "lost"),
    ] {
        let run = c1m("slow", serve(plan), &[&FANOUT[..], &["--slow-fraction", "1"]].concat());
        run.expect_failure("slow subscribers that were not closed missed messages");
        assert_eq!(run.number(&format!("/slow/{name}")), 20);
        assert_eq!(run.number(&format!("/messages/{name}")), 0);
    }
}
