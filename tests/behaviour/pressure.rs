//! Much at once: what a bystander notices of it, and what it costs.
//!
//! The host may be busy with something else, so what a bystander waits is measured in the server's own CPU time, and
//! compared with what the server spends until all is done: what is excluded is a turn that does everything there is to
//! do, on a host of any speed. What one turn may take is found by a server that stands still until all there is to do
//! has come: its answer to a request that came along says how far it was by then.

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

/// What a bystander waits is at most one part in so many of all that the server does meanwhile.
const PARTS: u32 = 4;

/// What a bystander may wait whatever is done. The CPU clock of another process goes in ticks of the kernel, most
/// often of 4 ms.
const TICK: Duration = Duration::from_millis(5);

/// Publications that a turn may take: what it is allowed, and one receive buffer of the smallest frames.
const BUFFERED_MAX: usize = REQUESTS_PER_TURN_MAX + RECEIVE_BUFFER_BYTES / 6;

/// The tests here keep all cores busy: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A subscriber whose kernel takes little.
fn narrow(edge: SocketAddr, target: &str) -> WebSocket {
    let mut socket = WebSocket::over(Client::connect_narrow(edge));
    socket.client.send(WebSocket::request(target));
    socket.read_upgrade();
    socket
}

/// A byte that tells publications apart.
fn tiny(n: usize) -> [u8; 1] {
    [u8::try_from(n % 251).expect("a byte")]
}

/// Reads all sockets, in turns, until each got exactly these bytes.
fn read_all(sockets: &mut [WebSocket], expected: &[u8]) {
    let mut positions = vec![0; sockets.len()];
    let until = Instant::now() + PATIENCE;
    while positions.iter().any(|position| *position < expected.len()) {
        let mut is_quiet = true;
        for (socket, position) in sockets.iter_mut().zip(&mut positions) {
            let bytes = socket.client.read_available();
            is_quiet &= bytes.is_empty();
            let range = *position..*position + bytes.len();
            assert!(expected.get(range) == Some(&bytes), "behind {position} bytes");
            *position += bytes.len();
        }
        if is_quiet {
            assert!(Instant::now() < until, "waited {PATIENCE:?} for the rest: {positions:?}");
            // The core is for whoever has something to do.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// A server's CPU time while a bystander waited for a pong, and until all was done.
#[derive(Clone, Copy, Debug)]
struct Wait {
    pong: Duration,
    total: Duration,
}

/// Pings between beginning what makes work for the server and waiting for its end.
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

/// In most rounds the wait was a small part of the whole. Single ones say little, because the bystander may have
/// waited for a core while the server went on.
#[track_caller]
fn expect_unnoticed(mut rounds: Vec<Wait>) {
    rounds.sort_by_key(|wait| wait.pong);
    let Wait { pong, total } = rounds[rounds.len() / 2];
    assert!(pong < total / PARTS + TICK, "{pong:?} of {total:?}: {rounds:?}");
}

/// Counts a bystander's round trips, at least one, while something is done.
fn round_trips(bystander: &mut WebSocket, action: impl FnOnce() + Send) -> u32 {
    let is_done = AtomicBool::new(false);
    let mut count = 0;
    std::thread::scope(|scope| {
        let doing = scope.spawn(|| {
            // Also when it panics: the bystander must not go on for ever.
            let _done = SetWhenDropped(&is_done);
            action();
        });
        while count == 0 || !is_done.load(Ordering::Relaxed) {
            bystander.round_trip();
            count += 1;
        }
        doing.join().expect("what is done succeeds");
    });
    count
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Publishes to its own channel and waits until it has it: what is published next is not in one batch with it.
fn publish_each(publisher: &mut WebSocket, range: Range<usize>) {
    for n in range {
        publisher.send_binary(&tiny(n));
        assert_eq!(publisher.read(), Received::Binary(tiny(n).to_vec()));
    }
}

/// Publishes until this many slow readers have been written to in vain; returns what each of them will read.
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
        assert!(n < 10_000, "nobody reads, and nobody is late");
        let payload = vec![tiny(n)[0]; 2000];
        publisher.send_binary(&payload);
        assert!(publisher.read() == Received::Binary(payload.clone()));
        expected.extend(unmasked(OpCode::Binary, &payload));
    }
    expected
}

/// A gauge or counter of a running program, all workers together.
fn sum(metrics: &mut Client, name: &str) -> u64 {
    counted(&metrics.get("/metrics"), name)
}

/// The same, of a page.
fn counted(page: &Response, name: &str) -> u64 {
    let samples = page.text().lines().filter(|line| line.starts_with(&format!("{name}{{")));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// How much of what is begun while the server stands still it has counted when it answers a request that came with it.
#[track_caller]
fn counted_at_once(server: &Child, metrics: &mut Client, name: &str, begin: impl FnOnce()) -> u64 {
    let before = sum(metrics, name);
    server.stop();
    begin();
    metrics.send("GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n");
    server.signal(libc::SIGCONT);
    counted(&metrics.read_response(), name) - before
}

/// A literal, as are other bounds of single turns here: a limit that was lifted does not lift it too. A turn ends with
/// 1,024 requests, and the last 16 KiB that it received may hold 2,730 of the smallest.
const REQUESTS_AT_ONCE_MAX: u64 = 1024 + 2730;

/// One comes, one goes; and a turn more, should something else have ended the first.
const CHURN_AT_ONCE_MAX: u64 = 2;

/// Deliveries of one turn, as far as their bytes do not count.
const DELIVERIES_AT_ONCE_MAX: u64 = 256;

/// Bytes delivered in one turn, by one delivery more.
const DELIVERED_BYTES_AT_ONCE_MAX: u64 = 1 << 20;

/// Eight that publish, each to a channel of its own.
fn publishers(server: &Child) -> Vec<WebSocket> {
    let connect = |n| WebSocket::connect(server.edge(), &format!("/ws?channel=c{n}"));
    (0..8).map(connect).collect()
}

on_both_drivers! {
    fn a_flood_is_taken_in_parts(driver) {
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
                // Before the first one, nothing tells a flooder from others.
                assert!(count <= REQUESTS_AT_ONCE_MAX || round == 0, "{count} before the answer");
                read_all(&mut publishers, &expected);
            }
        }
    }

    fn those_who_come_and_go_together_are_taken_one_by_one(driver) {
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
        assert!(accepted <= CHURN_AT_ONCE_MAX, "{accepted} came before the answer");
        for socket in &mut crowd {
            socket.read_upgrade();
        }
        let go = || crowd.clear();
        let closed = counted_at_once(&server, &mut metrics, "fantail_connections_closed_total", go);
        assert!(closed <= CHURN_AT_ONCE_MAX, "{closed} went before the answer");
        wait_until("all are gone", || sum(&mut metrics, "fantail_connections_open") == 1);
    }

    fn a_fan_out_is_delivered_in_parts(driver) {
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

        // Many of a kibibyte.
        let frames = masked(true, OpCode::Binary, &[b'x'; 1024]).repeat(40);
        let backlog = || readers[0].client.send(&frames);
        let bytes = 1024 * counted_at_once(&server, &mut metrics, DELIVERIES, backlog);
        assert!(bytes <= DELIVERED_BYTES_AT_ONCE_MAX + (64 << 10), "{bytes} before the answer");
        read_all(&mut readers, &unmasked(OpCode::Binary, &[b'x'; 1024]).repeat(40));

        // A large one, whose last byte comes.
        readers.truncate(100);
        let frame = masked(true, OpCode::Binary, &[b'x'; LARGE]);
        let (last, begun) = frame.split_last().expect("a frame");
        readers[0].client.send(begun);
        wait_until("all but the last byte came", || {
            sum(&mut metrics, "fantail_unfinished_message_bytes") >= LARGE as u64 - 1
        });
        let large = || readers[0].client.send([*last]);
        let count = counted_at_once(&server, &mut metrics, DELIVERIES, large);
        let bytes = count * LARGE as u64;
        assert!(bytes <= DELIVERED_BYTES_AT_ONCE_MAX + LARGE as u64, "{bytes} before the answer");
        read_all(&mut readers, &unmasked(OpCode::Binary, &[b'x'; LARGE]));
    }

    fn slow_readers_with_thousands_of_frames_waiting_do_not_hold_others_up(driver) {
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
        wait_until("nothing waits", || sum(&mut metrics, "fantail_send_queue_bytes") == 0);
    }

    fn newcomers_are_served_while_others_send_as_much_as_they_can(driver) {
        const FLOODERS: usize = 8;
        const NEWCOMERS: usize = 100;
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
            wait_until("all of them flood", || published() > 100_000);
            let before = published();
            for _ in 0..NEWCOMERS {
                WebSocket::connect(server.edge(), "/ws?channel=new").round_trip();
                idle.round_trip();
            }
            assert!(published() > before, "the flood went on");
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
            assert!(Instant::now() < until, "waited {PATIENCE:?} for the rest: {positions:?}");
            sent += sockets[0].client.send_some(&frames[sent..]);
            for (socket, position) in sockets.iter_mut().zip(&mut positions) {
                let bytes = socket.client.read_available();
                assert!(expected.get(*position..*position + bytes.len()) == Some(&bytes));
                *position += bytes.len();
            }
        }
        assert_eq!(server.closed(CloseReason::SlowConsumer), 0);
    }

    fn a_slow_consumer_of_tiny_frames_is_found_by_what_they_cost(driver) {
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
            assert!(published as u64 <= QUEUE_BYTES_MAX / 64 + 16, "each costs 64 bytes and its own");
            assert!(server.sum(|counters| &counters.send_queue_bytes) <= QUEUE_BYTES_MAX + 4096);
        }
        // What it still gets are the first ones, and the reason.
        let received = slow.client.read_to_end();
        let goodbye = unmasked(OpCode::Close, &[&3008_u16.to_be_bytes()[..], b"slow consumer"].concat());
        let publications = received.strip_suffix(&goodbye[..]).expect("a goodbye");
        assert!(expected.starts_with(publications));
    }

    fn a_broadcast_of_a_mebibyte_is_not_noticed_by_a_bystander(driver) {
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

    fn a_backlog_of_a_kibibyte_each_is_not_noticed_by_a_bystander(driver) {
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

    fn floods_of_tiny_frames_are_not_noticed_by_a_bystander(driver) {
        const FRAMES: usize = 60_000;
        let _alone = alone();
        let server = Child::start(driver, &["--workers", "1"]);
        let mut bystander = WebSocket::connect(server.edge(), "/ws?channel=other");
        let mut publishers = publishers(&server);
        for payload in [&b""[..], b"x"] {
            let frames = masked(true, OpCode::Binary, payload).repeat(FRAMES);
            let expected = unmasked(OpCode::Binary, payload).repeat(FRAMES);
            let rounds = (0..3).map(|_| {
                // Each is in the kernel's hands at once: it takes more than this.
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
        wait_until("all but the last bytes came", || {
            server.sum(|counters| &counters.received_bytes) == before + (CLIENTS * begun.len()) as u64
        });
        let expected = unmasked(OpCode::Binary, &payload);
        let count = round_trips(&mut bystander, || {
            for client in &mut clients {
                client.client.send([*last]);
            }
            read_all(&mut clients, &expected);
        });
        assert!(count > 1, "the bystander was served meanwhile");
        for client in &mut clients {
            client.round_trip();
        }
    }

    fn many_publishers_at_once_are_held_back_and_nothing_is_lost(driver) {
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
        // The kernel takes each at once.
        for (publisher, flood) in publishers.iter_mut().zip(&floods) {
            publisher.client.send(flood);
        }
        // What the first reader gets is in each publisher's order; all get the same.
        const FRAME_BYTES: usize = 5;
        let total = FRAME_BYTES * usize::from(PUBLISHERS) * usize::from(PUBLICATIONS);
        let mut backlog = 0;
        let expected = std::thread::scope(|scope| {
            let reading = scope.spawn(|| healthy.client.read_exactly(total));
            while !reading.is_finished() {
                backlog = sum(&mut metrics, "fantail_fan_out_backlog_publications").max(backlog);
            }
            reading.join().expect("everything comes")
        });
        let mut next = [0_u16; PUBLISHERS as usize];
        for frame in expected.chunks(FRAME_BYTES) {
            let [0x82, 3, of, n @ ..] = frame else { panic!("{frame:?}") };
            assert_eq!(n, next[usize::from(*of)].to_be_bytes(), "of publisher {of}");
            next[usize::from(*of)] += 1;
        }
        assert_eq!(next, [PUBLICATIONS; PUBLISHERS as usize]);
        read_all(&mut publishers, &expected);
        // On both workers: the mark and what was in hand when it was passed, of the fan-outs and of the inbox.
        let bound = 2 * (2 * (FAN_OUT_BACKLOG_HIGH + BUFFERED_MAX)) as u64;
        assert!(backlog < bound, "{backlog} waited, more than {bound}");
        assert!(sum(&mut metrics, "fantail_publishers_paused_total") > 0);
        let peak = child.resident_bytes("VmHWM");
        assert!(peak < 256 << 20, "{peak} bytes were resident");
        child.signal(libc::SIGTERM);
        drop((publishers, healthy, metrics));
        assert_eq!(child.wait().code(), Some(0));
    }

    fn many_that_publish_with_commands_are_held_back_or_refused(driver) {
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
            // The kernel takes each at once.
            publisher.send((0..PUBLICATIONS).fold(String::new(), |commands, n| {
                let id = 2 + n;
                commands + &format!("{{\"id\":{id},\"publish\":{{\"channel\":\"a\",\"data\":\"{of:02} {n:03}\"}}}}\n")
            }));
        }
        let mut backlog = 0;
        let mut accepted: Vec<String> = Vec::new();
        for (of, publisher) in publishers.iter_mut().enumerate() {
            // One reply for each, though those of refusals may come before those of others.
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
        assert!(backlog < bound, "{backlog} waited, more than {bound}");
        assert!(server.sum(|counters| &counters.publishers_paused) > 0 || accepted.len() < PUBLISHERS * PUBLICATIONS);
        // Text in quotes: two digits, a space, three digits.
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
            assert!(*next <= n, "{publication} came behind {next}");
            *next = n + 1;
        }
        delivered.sort_unstable();
        accepted.sort_unstable();
        assert!(delivered == accepted, "what was accepted is delivered, and nothing else");
        read_all(&mut subscribers[1..], &expected);
    }
}
