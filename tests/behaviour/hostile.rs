//! Misbehaving clients that act in random order, beside well-behaved ones that must stay unaffected.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use fantail::protocol::websocket::OpCode;

use crate::random::Random;
use crate::support::{
    Client, Received, TestServer, WebSocket, masked, on_both_drivers, unmasked, wait_until,
};

/// Bytes that a peer of no protocol could send.
fn random_bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// Returns bytes to send: valid, invalid, truncated, or random.
fn random_input(random: &mut Random) -> Vec<u8> {
    let len = [0, 1, 100, 126, 3000, 70_000][random.below(6)];
    let payload = vec![b'x'; len];
    let mut bytes = match random.below(14) {
        0 => WebSocket::request("/ws?channel=hostile&channel=b&channel=c").into_bytes(),
        1 => WebSocket::request("/").replace("13", "12").into_bytes(),
        2 => masked(true, OpCode::Text, &payload),
        3 => masked(false, OpCode::Binary, &payload),
        4 => masked(true, OpCode::Ping, &payload[..len.min(125)]),
        5 => unmasked(OpCode::Text, &payload),
        6 => masked(true, OpCode::Close, &1000_u16.to_be_bytes()),
        7 => {
            let head = format!("POST /publish?channel=hostile HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), &payload].concat()
        }
        8 => b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1 + random.below(20)),
        9 => b"POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
        10 => b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"hostile\"}}\n".to_vec(),
        11 => b"{\"id\":3,\"publish\":{\"channel\":\"hostile\",\"data\":[1,2,3]}}\n".repeat(1 + random.below(50)),
        12 => b"{\"id\":4,\"unsubscribe\":{\"channel\":\"hostile\"}}\n".to_vec(),
        _ => random_bytes(random, len.min(3000)),
    };
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
    bytes
}

/// Runs one misbehaving client. Any reaction of the server is accepted, as long as other clients are unaffected.
fn misbehave(addresses: &[SocketAddr], random: &mut Random) {
    let address = addresses[random.below(addresses.len())];
    let narrow = random.below(3) == 0;
    let client = if narrow { Client::connect_narrow(address) } else { Client::connect(address) };
    let mut stream = client.stream();
    stream.set_nonblocking(true).expect("a socket");
    let mut buffer = [0; 4096];
    if random.below(3) > 0 {
        // It begins with a valid handshake.
        let _ = stream.write_all(WebSocket::request("/ws?channel=hostile").as_bytes());
    }
    for _ in 0..random.below(8) {
        let outcome = match random.below(6) {
            0 => stream.read(&mut buffer).map(|_| ()),
            1 => stream.shutdown(Shutdown::Write),
            _ => stream.write_all(&random_input(random)),
        };
        match outcome {
            Err(error) if error.kind() != ErrorKind::WouldBlock => break,
            _ => {}
        }
        if random.below(4) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(500) as u64));
        }
    }
    if random.below(2) == 0 {
        reset_if_open(client);
    }
}

/// Resets the connection unless the server has already closed it.
fn reset_if_open(client: Client) {
    if client.stream().peer_addr().is_ok() {
        client.reset();
    }
}

on_both_drivers! {
    fn hostile_clients_do_not_affect_others(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.message_bytes_max = 60_000;
            config.send_queue_bytes_max = 128 * 1024;
            config.handshake_timeout = Duration::from_secs(1);
            config.close_timeout = Duration::from_millis(500);
        });
        let addresses = [server.edge(), server.commands(), server.echo(), server.echo_tcp()];
        let mut good: Vec<WebSocket> =
            (0..4).map(|_| WebSocket::connect(server.edge(), "/ws?channel=good")).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=4).map(|seed: u64| {
                scope.spawn(move || {
                    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                    for _ in 0..150 {
                        misbehave(&addresses, &mut random);
                    }
                })
            }).collect();
            let mut round = 0;
            while round < 50 || threads.iter().any(|thread| !thread.is_finished()) {
                let text = format!("round {round}");
                good[round % 4].send_text(&text);
                for socket in &mut good {
                    loop {
                        match socket.read() {
                            Received::Ping(payload) => socket.send_frame(true, OpCode::Pong, &payload),
                            received => break assert_eq!(received, Received::Text(text.clone())),
                        }
                    }
                }
                round += 1;
            }
        });
        wait_until("only the well-behaved clients are left", || server.sum(|counters| &counters.connections_open) == 4);
        wait_until("all queues and subscriptions of the others are freed", || {
            server.sum(|counters| &counters.send_queue_bytes) == 0 && server.sum(|counters| &counters.subscriptions) == 4
        });
        let (accepted, closed) = (
            server.sum(|counters| &counters.connections_accepted),
            fantail::message::CloseReason::ALL.iter().map(|reason| server.closed(*reason)).sum::<u64>(),
        );
        assert_eq!(accepted, closed + 4, "each accepted connection is counted once when it closes");
    }
}
