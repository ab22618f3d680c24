//! Load: its effect on the latency of a bystander, and its cost.
//!
//! Because the host may be busy, the wait of a bystander is measured in CPU time of the server and compared with the
//! CPU time for all the work: this excludes a turn that does all the work at once, on a host of any speed. The work of
//! one turn is measured with a server that is stopped until all input has arrived: its response to a request that
//! arrives with the input shows the progress at that time.

use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use fantail::config::limits::{FAN_OUT_BACKLOG_HIGH, RECEIVE_BUFFER_BYTES, REQUESTS_PER_TURN_MAX};
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;

use crate::support::{
    Child, Client, PATIENCE, Received, Response, TestServer, WebSocket, masked, on_both_drivers,
    unmasked, wait_until,
};

/// A bystander waits for at most this fraction (1 / `PARTS`) of the server's work.
const PARTS: u32 = 4;

/// Wait of a bystander that is always allowed. The CPU clock of another process advances in ticks of the kernel,
/// usually of 4 ms.
const TICK: Duration = Duration::from_millis(5);

/// Maximum number of publications taken in one turn: its limit, and one receive buffer of the smallest frames.
const BUFFERED_MAX: usize = REQUESTS_PER_TURN_MAX + RECEIVE_BUFFER_BYTES / 6;

/// These tests keep all cores busy, so they run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A subscriber with a small receive buffer.
fn narrow(edge: SocketAddr, target: &str) -> WebSocket {
    let mut socket = WebSocket::over(Client::connect_narrow(edge));
    socket.client.send(WebSocket::request(target));
    socket.read_upgrade();
    socket
}

/// A payload of one byte that distinguishes publications.
fn tiny(n: usize) -> [u8; 1] {
    [u8::try_from(n % 251).expect("a byte")]
}

/// Reads all sockets in turn until each has received exactly these bytes.
fn read_all(sockets: &mut [WebSocket], expected: &[u8]) {
    let mut positions = vec![0; sockets.len()];
    let until = Instant::now() + PATIENCE;
    while positions.iter().any(|position| *position < expected.len()) {
        let mut is_quiet = true;
        for (socket, position) in sockets.iter_mut().zip(&mut positions) {
            let bytes = socket.client.read_available();
            is_quiet &= bytes.is_empty();
            let range = *position..*position + bytes.len();
            assert!(expected.get(range) == Some(&bytes), "after {position} bytes");
            *position += bytes.len();
        }
        if is_quiet {
            assert!(
                Instant::now() < until,
                "the rest did not arrive within {PATIENCE:?}: {positions:?}"
            );
            // Yields the core to other threads.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// The server's CPU time while a bystander waited for a pong, and until all work was done.
#[derive(Clone, Copy, Debug)]
struct Wait {
    pong: Duration,
    total: Duration,
}

/// Starts work for the server, sends a ping, and waits for the end of the work.
fn ping_behind(
    server: &Child,
    bystander: &mut WebSocket,
    begin: impl FnOnce(),
    finish: impl FnOnce(),
) -> Wait {
    let began = server.cpu_time();
    begin();
    let before = server.cpu_time();
    bystander.round_trip();
    let pong = server.cpu_time() - before;
    finish();
    Wait { pong, total: server.cpu_time() - began }
}

/// Expects that in most rounds the wait was a small part of the work. Single rounds may be outliers, because the
/// bystander may have waited for a core while the server ran.
#[track_caller]
fn expect_unnoticed(mut rounds: Vec<Wait>) {
    rounds.sort_by_key(|wait| wait.pong);
    let Wait { pong, total } = rounds[rounds.len() / 2];
    assert!(pong < total / PARTS + TICK, "{pong:?} of {total:?}: {rounds:?}");
}

/// Counts a bystander's round trips, at least one, while `action` runs.
fn round_trips(bystander: &mut WebSocket, action: impl FnOnce() + Send) -> u32 {
    let is_done = AtomicBool::new(false);
    let mut count = 0;
    std::thread::scope(|scope| {
        let doing = scope.spawn(|| {
            // Set on a panic too, or the bystander would never stop.
            let _done = SetWhenDropped(&is_done);
            action();
        });
        while count == 0 || !is_done.load(Ordering::Relaxed) {
            bystander.round_trip();
            count += 1;
        }
        doing.join().expect("the action succeeds");
    });
    count
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Publishes to its own channel and waits for each publication, so that no two are in one batch.
fn publish_each(publisher: &mut WebSocket, range: Range<usize>) {
    for n in range {
        publisher.send_binary(&tiny(n));
        assert_eq!(publisher.read(), Received::Binary(tiny(n).to_vec()));
    }
}

/// Publishes until writes to this many slow readers were incomplete; returns the bytes that each of them will read.
fn stall(
    mut sends_partial: impl FnMut() -> u64,
    publisher: &mut WebSocket,
    readers: u64,
) -> Vec<u8> {
    let mut expected = Vec::new();
    for n in 0.. {
        if sends_partial() >= readers {
            break;
        }
        assert!(n < 10_000, "no reader became slow");
        let payload = vec![tiny(n)[0]; 2000];
        publisher.send_binary(&payload);
        assert!(publisher.read() == Received::Binary(payload.clone()));
        expected.extend(unmasked(OpCode::Binary, &payload));
    }
    expected
}

/// Reads a gauge or counter of a running program, summed over all workers.
fn sum(metrics: &mut Client, name: &str) -> u64 {
    counted(&metrics.get("/metrics"), name)
}

/// Sums a gauge or counter of a metrics page over all workers.
fn counted(page: &Response, name: &str) -> u64 {
    let samples = page.text().lines().filter(|line| line.starts_with(&format!("{name}{{")));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Runs `begin` while the server is stopped; returns the increase of a counter when the server answers a metrics
/// request that arrived together with that input.
#[track_caller]
fn counted_at_once(server: &Child, metrics: &mut Client, name: &str, begin: impl FnOnce()) -> u64 {
    let before = sum(metrics, name);
    server.stop();
    begin();
    metrics.send("GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n");
    server.signal(libc::SIGCONT);
    counted(&metrics.read_response(), name) - before
}

/// A literal, like the other bounds of single turns here, so that a raised limit does not raise the bound. A turn ends
/// after 1,024 requests, and its last receive of 16 KiB may contain 2,730 of the smallest.
const REQUESTS_AT_ONCE_MAX: u64 = 1024 + 2730;

/// One connection per turn, and one more turn if something else ended the first.
const CHURN_AT_ONCE_MAX: u64 = 2;

/// Maximum deliveries of one turn, if their bytes do not reach the limit first.
const DELIVERIES_AT_ONCE_MAX: u64 = 256;

/// Bytes delivered in one turn, which may be exceeded by one delivery.
const DELIVERED_BYTES_AT_ONCE_MAX: u64 = 1 << 20;

/// Eight publishers, each with its own channel.
fn publishers(server: &Child) -> Vec<WebSocket> {
    let connect = |n| WebSocket::connect(server.edge(), &format!("/ws?channel=c{n}"));
    (0..8).map(connect).collect()
}

on_both_drivers! {
    fn a_flood_is_processed_over_several_turns(driver) {
        const FRAMES: usize = 7000;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut metrics = Client::connect(server.edge());
        let mut publishers = publishers(&server);
        for payload in [&b""[..], b"x"] {
            let frames = masked(true, OpCode::Binary, payload).repeat(FRAMES);
            let expected = unmasked(OpCode::Binary, payload).repeat(FRAMES);
            for round in 0..3 {
                let flood = || publishers.iter_mut().for_each(|publisher| publisher.client.send(&frames));
                let count = counted_at_once(&server, &mut metrics, "fantail_publications_total", flood);
                // Before the first answer the server cannot distinguish a flooder from other clients.
                assert!(count <= REQUESTS_AT_ONCE_MAX || round == 0, "{count} before the answer");
                read_all(&mut publishers, &expected);
            }
        }
    }

    fn simultaneous_connects_and_disconnects_are_processed_one_per_turn(driver) {
        const MANY: usize = 200;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut metrics = Client::connect(server.edge());
        let mut crowd = Vec::new();
        let come = || {
            crowd.extend((0..MANY).map(|_| {
                let mut socket = WebSocket::over(Client::connect(server.edge()));
                socket.client.send(WebSocket::request("/ws?channel=a"));
                socket
            }));
        };
        let accepted = counted_at_once(&server, &mut metrics, "fantail_connections_accepted_total", come);
        assert!(accepted <= CHURN_AT_ONCE_MAX, "{accepted} were accepted before the answer");
        for socket in &mut crowd {
            socket.read_upgrade();
        }
        let go = || crowd.clear();
        let closed = counted_at_once(&server, &mut metrics, "fantail_connections_closed_total", go);
        assert!(closed <= CHURN_AT_ONCE_MAX, "{closed} were closed before the answer");
        wait_until("all connections are closed", || sum(&mut metrics, "fantail_connections_open") == 1);
    }

    fn a_fan_out_is_delivered_over_several_turns(driver) {
        const READERS: usize = 2000;
        const LARGE: usize = 1 << 20;
        const DELIVERIES: &str = "fantail_deliveries_total";
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut metrics = Client::connect(server.edge());
        let mut readers: Vec<WebSocket> =
            (0..READERS).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();

        // One small publication.
        let small = || readers[0].send_binary(b"x");
        let count = counted_at_once(&server, &mut metrics, DELIVERIES, small);
        assert!((1..=DELIVERIES_AT_ONCE_MAX).contains(&count), "{count} before the answer");
        read_all(&mut readers, &unmasked(OpCode::Binary, b"x"));

        // Many publications of 1 KiB.
        let frames = masked(true, OpCode::Binary, &[b'x'; 1024]).repeat(40);
        let backlog = || readers[0].client.send(&frames);
        let bytes = 1024 * counted_at_once(&server, &mut metrics, DELIVERIES, backlog);
        assert!(bytes <= DELIVERED_BYTES_AT_ONCE_MAX + (64 << 10), "{bytes} before the answer");
        read_all(&mut readers, &unmasked(OpCode::Binary, &[b'x'; 1024]).repeat(40));

        // A large publication, completed by its last byte.
        readers.truncate(100);
        let frame = masked(true, OpCode::Binary, &[b'x'; LARGE]);
        let (last, begun) = frame.split_last().expect("a frame");
        readers[0].client.send(begun);
        wait_until("all but the last byte arrived", || {
            sum(&mut metrics, "fantail_unfinished_message_bytes") >= LARGE as u64 - 1
        });
        let large = || readers[0].client.send([*last]);
        let count = counted_at_once(&server, &mut metrics, DELIVERIES, large);
        let bytes = count * LARGE as u64;
        assert!(bytes <= DELIVERED_BYTES_AT_ONCE_MAX + LARGE as u64, "{bytes} before the answer");
        read_all(&mut readers, &unmasked(OpCode::Binary, &[b'x'; LARGE]));
    }

    fn slow_readers_with_thousands_of_queued_frames_do_not_delay_others(driver) {
        const READERS: usize = 40;
        const PUBLICATIONS: usize = 25_000;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut metrics = Client::connect(server.edge());
        let mut bystander = WebSocket::connect(server.edge(), "/ws?channel=other");
        let mut slow: Vec<WebSocket> =
            (0..READERS).map(|_| narrow(server.edge(), "/ws?channel=a")).collect();
        let mut publisher = WebSocket::connect(server.edge(), "/ws?channel=a");
        let sends_partial = || sum(&mut metrics, "fantail_sends_partial_total");
        let mut expected = stall(sends_partial, &mut publisher, READERS as u64);
        publish_each(&mut publisher, 0..PUBLICATIONS);
        expected.extend((0..PUBLICATIONS).flat_map(|n| unmasked(OpCode::Binary, &tiny(n))));
        let began = server.cpu_time();
        let count = round_trips(&mut bystander, || read_all(&mut slow, &expected));
        assert!(count > 10, "{count} round trips in {:?}", server.cpu_time() - began);
        wait_until("all queues are empty", || sum(&mut metrics, "fantail_send_queue_bytes") == 0);
    }

    fn new_clients_are_served_during_a_flood(driver) {
        const FLOODERS: usize = 8;
        const NEW_CLIENTS: usize = 100;
        let _alone = alone();
        let server = TestServer::start(driver, 1);
        let mut idle = WebSocket::connect(server.edge(), "/ws?channel=idle");
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _done = SetWhenDropped(&is_done);
            let published = || server.sum(|counters| &counters.publications);
            for n in 0..FLOODERS {
                let mut flooder = WebSocket::connect(server.edge(), &format!("/ws?channel=f{n}"));
                let is_done = &is_done;
                scope.spawn(move || {
                    let frames = masked(true, OpCode::Binary, b"x").repeat(RECEIVE_BUFFER_BYTES / 7);
                    let mut sent = 0;
                    while !is_done.load(Ordering::Relaxed) {
                        sent = (sent + flooder.client.send_some(&frames[sent..])) % frames.len();
                        flooder.client.read_available();
                    }
                });
            }
            wait_until("all flooders are publishing", || published() > 100_000);
            let before = published();
            for _ in 0..NEW_CLIENTS {
                WebSocket::connect(server.edge(), "/ws?channel=new").round_trip();
                idle.round_trip();
            }
            assert!(published() > before, "the flood continued");
            assert!(server.sum(|counters| &counters.turns_budget_exhausted) > 0);
        });
    }

    fn a_subscriber_that_reads_everything_at_once_is_not_a_slow_consumer(driver) {
        const PUBLICATIONS: usize = 400_000;
        let _alone = alone();
        let server = TestServer::start_with(driver, 1, |config| {
            config.send_queue_bytes_max = 64 * 1024;
        });
        let mut sockets: Vec<WebSocket> =
            (0..2).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let frames: Vec<u8> =
            (0..PUBLICATIONS).flat_map(|n| masked(true, OpCode::Binary, &tiny(n))).collect();
        let expected: Vec<u8> =
            (0..PUBLICATIONS).flat_map(|n| unmasked(OpCode::Binary, &tiny(n))).collect();
        let (mut sent, mut positions) = (0, [0; 2]);
        let until = Instant::now() + PATIENCE;
        while positions.iter().any(|position| *position < expected.len()) {
            assert!(Instant::now() < until, "the rest did not arrive within {PATIENCE:?}: {positions:?}");
            sent += sockets[0].client.send_some(&frames[sent..]);
            for (socket, position) in sockets.iter_mut().zip(&mut positions) {
                let bytes = socket.client.read_available();
                assert!(expected.get(*position..*position + bytes.len()) == Some(&bytes));
                *position += bytes.len();
            }
        }
        assert_eq!(server.closed(CloseReason::SlowConsumer), 0);
    }

    fn small_frames_in_a_send_queue_count_with_their_overhead(driver) {
        const QUEUE_BYTES_MAX: u64 = 128 * 1024;
        let _alone = alone();
        let server = TestServer::start_with(driver, 1, |config| {
            config.send_queue_bytes_max = QUEUE_BYTES_MAX;
        });
        let mut slow = narrow(server.edge(), "/ws?channel=a");
        let mut publisher = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut expected = stall(|| server.sum(|counters| &counters.sends_partial), &mut publisher, 1);
        let mut published = 0;
        while server.closed(CloseReason::SlowConsumer) == 0 {
            publish_each(&mut publisher, published..published + 1);
            expected.extend(unmasked(OpCode::Binary, &tiny(published)));
            published += 1;
            assert!(published as u64 <= QUEUE_BYTES_MAX / 64 + 16, "each costs 64 bytes and its length");
            assert!(server.sum(|counters| &counters.send_queue_bytes) <= QUEUE_BYTES_MAX + 4096);
        }
        // It still receives the first publications and the reason.
        let received = slow.client.read_to_end();
        let close = unmasked(OpCode::Close, &[&3008_u16.to_be_bytes()[..], b"slow consumer"].concat());
        let publications = received.strip_suffix(&close[..]).expect("a close frame");
        assert!(expected.starts_with(publications));
    }

    fn a_broadcast_of_1_mib_does_not_delay_a_bystander(driver) {
        const READERS: usize = 200;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut bystander = WebSocket::connect(server.edge(), "/ws?channel=other");
        let mut readers: Vec<WebSocket> =
            (0..READERS).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let mut http = Client::connect(server.edge());
        let rounds = (0..5).map(|round| {
            let payload = vec![0x80 + round; 1 << 20];
            let expected = unmasked(OpCode::Binary, &payload);
            let publish = || drop(http.publish("a", &payload));
            ping_behind(&server, &mut bystander, publish, || read_all(&mut readers, &expected))
        });
        expect_unnoticed(rounds.collect());
    }

    fn a_ping_is_answered_during_a_broadcast(driver) {
        const READERS: usize = 5000;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut bystander = WebSocket::connect(server.edge(), "/ws?channel=other");
        let mut readers: Vec<WebSocket> =
            (0..READERS).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let mut http = Client::connect(server.edge());
        let rounds = (0..9).map(|round| {
            let payload = vec![0x80 + round; 60];
            let expected = unmasked(OpCode::Binary, &payload);
            let publish = || drop(http.publish("a", &payload));
            ping_behind(&server, &mut bystander, publish, || read_all(&mut readers, &expected))
        });
        expect_unnoticed(rounds.collect());
    }

    fn a_backlog_of_1_kib_publications_does_not_delay_a_bystander(driver) {
        const READERS: usize = 500;
        const PUBLICATIONS: usize = 500;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut bystander = WebSocket::connect(server.edge(), "/ws?channel=other");
        let mut readers: Vec<WebSocket> =
            (0..READERS).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let mut sender = readers[0].client.stream().try_clone().unwrap();
        let payload = |n: usize| [tiny(n)[0]; 1024];
        let frames: Vec<u8> =
            (0..PUBLICATIONS).flat_map(|n| masked(true, OpCode::Binary, &payload(n))).collect();
        let expected: Vec<u8> =
            (0..PUBLICATIONS).flat_map(|n| unmasked(OpCode::Binary, &payload(n))).collect();
        let rounds = (0..5).map(|_| {
            let publish = || sender.write_all(&frames).unwrap();
            ping_behind(&server, &mut bystander, publish, || read_all(&mut readers, &expected))
        });
        expect_unnoticed(rounds.collect());
    }

    fn floods_of_small_frames_do_not_delay_a_bystander(driver) {
        const FRAMES: usize = 60_000;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut bystander = WebSocket::connect(server.edge(), "/ws?channel=other");
        let mut publishers = publishers(&server);
        for payload in [&b""[..], b"x"] {
            let frames = masked(true, OpCode::Binary, payload).repeat(FRAMES);
            let expected = unmasked(OpCode::Binary, payload).repeat(FRAMES);
            let rounds = (0..3).map(|_| {
                // The kernel's buffers hold each flood completely.
                let mut senders: Vec<_> =
                    publishers.iter().map(|publisher| publisher.client.stream().try_clone().unwrap()).collect();
                let publish = || senders.iter_mut().for_each(|sender| sender.write_all(&frames).unwrap());
                ping_behind(&server, &mut bystander, publish, || read_all(&mut publishers, &expected))
            });
            expect_unnoticed(rounds.collect());
        }
    }

    fn large_messages_that_are_complete_at_once_are_all_echoed(driver) {
        const CLIENTS: usize = 40;
        let _alone = alone();
        let server = TestServer::start(driver, 1);
        let mut bystander = WebSocket::connect(server.echo(), "/");
        let mut clients: Vec<WebSocket> =
            (0..CLIENTS).map(|_| WebSocket::connect(server.echo(), "/")).collect();
        let payload: Vec<u8> = (0..4_usize << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let frame = masked(true, OpCode::Binary, &payload);
        let (last, begun) = frame.split_last().unwrap();
        let before = server.sum(|counters| &counters.received_bytes);
        for client in &mut clients {
            client.client.send(begun);
        }
        wait_until("all but the last bytes arrived", || {
            server.sum(|counters| &counters.received_bytes) == before + (CLIENTS * begun.len()) as u64
        });
        let expected = unmasked(OpCode::Binary, &payload);
        let count = round_trips(&mut bystander, || {
            for client in &mut clients {
                client.client.send([*last]);
            }
            read_all(&mut clients, &expected);
        });
        assert!(count > 1, "the bystander was served during the echoes");
        for client in &mut clients {
            client.round_trip();
        }
    }

    fn many_concurrent_publishers_get_backpressure_and_nothing_is_lost(driver) {
        const PUBLISHERS: u8 = 100;
        const PUBLICATIONS: u16 = 4000;
        let _alone = alone();
        let mut child = Child::start(driver, &["--workers", "2", "--keepalive-interval", "10 min"]);
        let mut publishers: Vec<WebSocket> =
            (0..PUBLISHERS).map(|_| WebSocket::connect(child.edge(), "/ws?channel=a")).collect();
        let mut healthy = WebSocket::connect(child.edge(), "/ws?channel=a");
        let mut metrics = Client::connect(child.edge());
        let payload = |publisher: u8, n: u16| [publisher, (n >> 8) as u8, n as u8];
        let floods: Vec<Vec<u8>> = (0..PUBLISHERS)
            .map(|of| (0..PUBLICATIONS).flat_map(|n| masked(true, OpCode::Binary, &payload(of, n))).collect())
            .collect();
        // The kernel's buffers hold each publisher's input completely.
        for (publisher, flood) in publishers.iter_mut().zip(&floods) {
            publisher.client.send(flood);
        }
        // The first reader receives publications in each publisher's order; all readers receive the same bytes.
        const FRAME_BYTES: usize = 5;
        let total = FRAME_BYTES * usize::from(PUBLISHERS) * usize::from(PUBLICATIONS);
        let mut backlog = 0;
        let expected = std::thread::scope(|scope| {
            let reading = scope.spawn(|| healthy.client.read_exactly(total));
            while !reading.is_finished() {
                backlog = sum(&mut metrics, "fantail_fan_out_backlog_publications").max(backlog);
            }
            reading.join().expect("all publications arrive")
        });
        let mut next = [0_u16; PUBLISHERS as usize];
        for frame in expected.chunks(FRAME_BYTES) {
            let [0x82, 3, of, n @ ..] = frame else { panic!("{frame:?}") };
            assert_eq!(n, next[usize::from(*of)].to_be_bytes(), "publications of publisher {of}");
            next[usize::from(*of)] += 1;
        }
        assert_eq!(next, [PUBLICATIONS; PUBLISHERS as usize]);
        read_all(&mut publishers, &expected);
        // For both workers, fan-outs and inbox: the high-water mark and the publications in flight when it was reached.
        let bound = 2 * (2 * (FAN_OUT_BACKLOG_HIGH + BUFFERED_MAX)) as u64;
        assert!(backlog < bound, "a backlog of {backlog}, more than {bound}");
        assert!(sum(&mut metrics, "fantail_publishers_paused_total") > 0);
        let peak = child.resident_bytes("VmHWM");
        assert!(peak < 256 << 20, "{peak} bytes were resident");
        child.signal(libc::SIGTERM);
        drop((publishers, healthy, metrics));
        assert_eq!(child.wait().code(), Some(0));
    }

    fn many_publishers_with_commands_get_backpressure_or_errors(driver) {
        const PUBLISHERS: usize = 60;
        const PUBLICATIONS: usize = 1000;
        let _alone = alone();
        let server = TestServer::start(driver, 1);
        let mut subscribers: Vec<WebSocket> =
            (0..300).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let mut publishers: Vec<Client> = (0..PUBLISHERS)
            .map(|_| {
                let mut client = Client::connect(server.commands());
                client.command(&json!({"id": 1, "connect": {}}));
                client
            })
            .collect();
        for (of, publisher) in publishers.iter_mut().enumerate() {
            // The kernel's buffers hold each publisher's input completely.
            publisher.send((0..PUBLICATIONS).fold(String::new(), |commands, n| {
                let id = 2 + n;
                commands + &format!("{{\"id\":{id},\"publish\":{{\"channel\":\"a\",\"data\":\"{of:02} {n:03}\"}}}}\n")
            }));
        }
        let mut backlog = 0;
        let mut accepted: Vec<String> = Vec::new();
        for (of, publisher) in publishers.iter_mut().enumerate() {
            // One reply for each command; errors may arrive before other replies.
            let mut ids = Vec::new();
            for _ in 0..PUBLICATIONS {
                let reply = publisher.read_json();
                let id = reply["id"].as_u64().unwrap();
                ids.push(id);
                match reply["error"]["code"].as_u64() {
                    None => accepted.push(format!("{of:02} {:03}", id - 2)),
                    code => assert_eq!(code, Some(111), "{reply}"),
                }
            }
            ids.sort_unstable();
            assert!(ids.into_iter().eq(2..2 + PUBLICATIONS as u64), "not one reply for each command");
            backlog = server.sum(|counters| &counters.fan_out_backlog_publications).max(backlog);
        }
        for publisher in &mut publishers {
            assert_eq!(publisher.command(&json!({"id": 5000, "ping": {}}))["id"], 5000);
        }
        let bound = (FAN_OUT_BACKLOG_HIGH + 2 * REQUESTS_PER_TURN_MAX) as u64;
        assert!(backlog < bound, "a backlog of {backlog}, more than {bound}");
        assert!(server.sum(|counters| &counters.publishers_paused) > 0 || accepted.len() < PUBLISHERS * PUBLICATIONS);
        // Quoted text: two digits, a space, three digits.
        let expected = subscribers[0].client.read_exactly(10 * accepted.len());
        let mut delivered: Vec<String> = expected
            .chunks(10)
            .map(|frame| {
                assert_eq!(&frame[..3], [0x81, 8, b'"']);
                String::from_utf8(frame[3..9].to_vec()).unwrap()
            })
            .collect();
        let mut next = [0; PUBLISHERS];
        for publication in &delivered {
            let (of, n) = publication.split_once(' ').unwrap();
            let (next, n) = (&mut next[of.parse::<usize>().unwrap()], n.parse::<u32>().unwrap());
            assert!(*next <= n, "{publication} arrived after {next}");
            *next = n + 1;
        }
        delivered.sort_unstable();
        accepted.sort_unstable();
        assert!(delivered == accepted, "exactly the accepted publications are delivered");
        read_all(&mut subscribers[1..], &expected);
    }
}
