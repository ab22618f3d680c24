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
    /// After the next one that is delivered.
    Hold,
    /// As nobody sent it.
    Garble,
    /// To all but one.
    Miss,
    /// To all, and one is closed.
    HangOne,
    /// And everyone is closed.
    Hang,
}

#[derive(Default)]
struct State {
    subscribers: Vec<TcpStream>,
    published: usize,
    held: Option<Vec<u8>>,
}

/// Serves until the process ends: WebSockets subscribe, or echo at `/echo`; POST publishes.
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
            write_accept_response(&mut answer, key.as_bytes(), None);
            if echoes {
                stream.write_all(&answer).unwrap();
                return echo(reader, stream, mischief);
            }
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

/// Each connection for itself; its first message has the first place.
fn echo(mut reader: impl Read, stream: TcpStream, mischief: Mischief) {
    let mut state = State { subscribers: vec![stream], ..State::default() };
    // Two bytes of header, four of mask, and the smallest payload.
    let mut frame = [0; 2 + 4 + 20];
    while reader.read_exact(&mut frame).is_ok() {
        assert_eq!(frame[..2], [0x81, 0x80 | 20]);
        let (mask, payload) = frame[2..].split_at(4);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        state.publish(payload.collect(), mischief);
    }
}

impl State {
    fn publish(&mut self, body: Vec<u8>, mischief: Mischief) {
        self.published += 1;
        let deed = mischief(self.published);
        let deliveries: Vec<Vec<u8>> = match deed {
            Deed::Deliver | Deed::HangOne | Deed::Miss => vec![body],
            Deed::Drop => return,
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
            let missed = usize::from(deed == Deed::Miss);
            for subscriber in self.subscribers.iter_mut().skip(missed) {
                // It may have ended meanwhile.
                let _ = subscriber.write_all(&frame);
            }
        }
        if deed == Deed::HangOne {
            self.subscribers.pop();
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
    assert_eq!(run.number("/messages/lost"), run.number("/messages/expected") - 20 * 50);
    assert!(run.number("/messages/lost") >= 20, "the one with which they were closed: {run:#?}");
    assert_eq!(run.number("/work/latency/count"), 20 * 50, "what came is measured");
}

#[test]
fn one_delivery_that_is_missing_is_noticed_and_has_no_last_subscriber() {
    let mischief: Mischief = |place| if place == 50 { Deed::Miss } else { Deed::Deliver };
    let run = c1m("fanout", serve(mischief), &FANOUT);
    run.expect_failure("messages were lost (1)");
    assert_eq!(run.number("/messages/received"), 1999);
    assert_eq!(run.number("/work/last_subscriber/count"), 99);
}

#[test]
fn one_connection_that_is_lost_is_the_cause_and_its_messages_are_counted() {
    let mischief: Mischief = |place| if place == 50 { Deed::HangOne } else { Deed::Deliver };
    let run = c1m("fanout", serve(mischief), &FANOUT);
    run.expect_failure("1 connection was lost");
    assert_eq!(run.number("/connections/open_at_end"), 19);
    assert_eq!(run.number("/messages/received"), 1950);
    assert_eq!(run.number("/messages/lost"), 50);
}

#[test]
fn what_was_meant_for_another_channel_is_strange() {
    // This server knows no channels: each subscriber of the one gets what is published to the other, too.
    let run =
        c1m("fanout", serve(|_| Deed::Deliver), &[&FANOUT[..], &["--channels", "2"]].concat());
    run.expect_failure("lost (0), duplicated (0), reordered (0), unplaced (0) or strange (1000)");
    assert_eq!(run.number("/messages/received"), 1000);
}

#[test]
fn what_comes_too_late_to_be_placed_is_neither_received_nor_forgotten() {
    // The first one waits until the 66th has been delivered; in between, nothing is.
    let run = c1m(
        "fanout",
        serve(|place| match place {
            1 => Deed::Hold,
            2..=65 => Deed::Drop,
            _ => Deed::Deliver,
        }),
        &FANOUT,
    );
    let lost = 20 * 65;
    run.expect_failure(&format!("lost ({lost}), duplicated (0), reordered (0), unplaced (20)"));
    assert_eq!(run.number("/messages/received"), 2000 - lost);
}

#[test]
fn faults_of_an_echo_are_counted_exactly() {
    let mischief: Mischief = |place| match place {
        3 => Deed::Drop,
        5 => Deed::Repeat,
        7 => Deed::Hold,
        _ => Deed::Deliver,
    };
    let arguments =
        ["-n", "10", "--depth", "4", "--path", "/echo", "--duration", "300 ms", "--warm-up", "0 s"];
    let run = c1m("echo", serve(mischief), &arguments);
    run.expect_failure("lost (10), duplicated (10), reordered (10), unplaced (0) or strange (0)");
    assert_eq!(run.number("/messages/received"), run.number("/messages/sent") - 10);
    c1m("echo", serve(|_| Deed::Deliver), &arguments).expect_success(10);
}

#[test]
fn faults_of_those_that_do_not_read_are_counted_apart() {
    for (mischief, name) in [
        ((|place| if place == 7 { Deed::Repeat } else { Deed::Deliver }) as Mischief, "duplicated"),
        (|place| if place == 100 { Deed::Drop } else { Deed::Deliver }, "lost"),
    ] {
        let run = c1m("slow", serve(mischief), &[&FANOUT[..], &["--slow-fraction", "1"]].concat());
        run.expect_failure("slow subscribers that were not closed missed messages");
        assert_eq!(run.number(&format!("/slow/{name}")), 20);
        assert_eq!(run.number(&format!("/messages/{name}")), 0);
    }
}
