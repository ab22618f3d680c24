//! Floods from one network prefix: clients of others are accepted and served as before.
//!
//! A host that runs all tests is busy, so what is measured here has a wide margin: the point is that a flood is turned
//! away, and that no other client waits behind it for long.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fantail::config::DriverChoice;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::{Client, SECRET, TestServer, on_both_drivers};

/// The flood comes from one prefix, the clients that must not notice from another.
const FLOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Connections of a flood at most, and how long it lasts at most.
const FLOOD_MAX: u64 = 20_000;
const FLOOD_TIME: Duration = Duration::from_secs(3);

/// Clients whose delay is measured, before the flood and during it.
const PROBES: usize = 60;

/// A delay that is always allowed: what a busy host takes to schedule a thread.
const SLACK: Duration = Duration::from_millis(20);

fn serve(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.prefix_connection_rate_max = Some(500);
        config.prefix_connections_max = Some(100);
        config.prefix_handshakes_max = Some(20);
        config.client_command_rate_max = Some(50);
    })
}

/// A connection of the flood. It may be refused at any moment.
fn flood_connection(address: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from((FLOOD, 0)).into()).ok()?;
    socket.connect(&address.into()).ok()?;
    // Its port is free again at once.
    socket.set_linger(Some(Duration::ZERO)).ok()?;
    Some(socket.into())
}

/// The median time from `connect` to the answer of a request.
fn median_delay(address: SocketAddr) -> Duration {
    let mut delays: Vec<_> = (0..PROBES)
        .map(|_| {
            let began = Instant::now();
            let mut client = Client::connect_from(OTHERS, address);
            assert_eq!(client.get("/health/live").status, 200);
            let delay = began.elapsed();
            // Fewer than the rate of a prefix.
            thread::sleep(Duration::from_millis(5));
            delay
        })
        .collect();
    delays.sort_unstable();
    delays[PROBES / 2]
}

/// Floods until the delays of others are measured; expects that they do not notice.
fn expect_unnoticed(server: &TestServer, what: &str, flood: impl Fn(&AtomicBool) -> u64 + Sync) {
    let quiet = median_delay(server.edge());
    let (is_over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let delay = thread::scope(|scope| {
        scope.spawn(|| count.store(flood(&is_over), Ordering::Relaxed));
        thread::sleep(Duration::from_millis(100));
        let delay = median_delay(server.edge());
        is_over.store(true, Ordering::Relaxed);
        delay
    });
    let count = count.load(Ordering::Relaxed);
    assert!(count > 200, "{what}: a flood of {count}");
    assert!(delay < 2 * quiet + SLACK, "{what}: {delay:?} after {quiet:?}, {count} in the flood");
}

/// Makes connections one after the other, keeping some of them open.
fn connections(
    address: SocketAddr,
    kept_max: usize,
    is_over: &AtomicBool,
    begin: impl Fn(&mut TcpStream),
) -> u64 {
    let (began, mut count, mut kept) = (Instant::now(), 0, Vec::new());
    while !is_over.load(Ordering::Relaxed) && count < FLOOD_MAX && began.elapsed() < FLOOD_TIME {
        count += 1;
        let Some(mut stream) = flood_connection(address) else { continue };
        begin(&mut stream);
        if kept.len() < kept_max {
            kept.push(stream);
        } else if kept_max > 0 {
            kept[count as usize % kept_max] = stream;
        }
    }
    count
}

fn rejected(server: &TestServer) -> u64 {
    let reasons = ["prefix_connections", "prefix_handshakes", "prefix_rate"];
    reasons.map(|reason| server.rejected(reason)).iter().sum()
}

on_both_drivers! {
    fn new_connections(driver) {
        let server = serve(driver);
        let edge = server.edge();
        expect_unnoticed(&server, "connections", |is_over| connections(edge, 0, is_over, |_| {}));
        assert!(rejected(&server) > 0);
    }

    fn half_open_handshakes(driver) {
        let server = serve(driver);
        let edge = server.edge();
        expect_unnoticed(&server, "handshakes", |is_over| {
            connections(edge, 200, is_over, |stream| {
                let _ = stream.write_all(b"GET / HT");
            })
        });
        assert!(server.rejected("prefix_handshakes") > 0);
    }

    fn refused_tokens(driver) {
        let server = serve(driver);
        let tcp = server.commands();
        expect_unnoticed(&server, "tokens", |is_over| {
            connections(tcp, 50, is_over, |stream| {
                let connect = json!({"id": 1, "connect": {"token": "e30.e30.AAAA"}});
                let _ = stream.write_all(format!("{connect}\n").as_bytes());
            })
        });
        assert!(rejected(&server) > 0);
        let refused: u64 = server.sum(|counters| counters.tokens_rejected.labelled("malformed"));
        assert!(refused > 0, "some tokens were read");
    }

    fn commands(driver) {
        let server = serve(driver);
        let tcp = server.commands();
        expect_unnoticed(&server, "commands", |is_over| {
            let (began, mut count) = (Instant::now(), 0);
            let ping = format!("{}\n", json!({"id": 1, "ping": {}})).repeat(100);
            while !is_over.load(Ordering::Relaxed) && count < 100 * FLOOD_MAX && began.elapsed() < FLOOD_TIME {
                let Some(mut stream) = flood_connection(tcp) else { continue };
                // A client that reads no replies is not read either.
                stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
                while !is_over.load(Ordering::Relaxed) && stream.write_all(ping.as_bytes()).is_ok() {
                    count += 100;
                }
            }
            count
        });
        assert!(server.sum(|counters| counters.rates_exceeded.labelled("commands")) > 0);
    }
}
