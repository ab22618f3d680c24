//! The memory budget: which clients are disconnected, refused or given backpressure when memory is low, while all
//! others are unaffected.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fantail::config::limits::HEAP_KEPT_BYTES;
use fantail::config::{ChannelOptions, Config, Namespaces, SlowConsumer};
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;

use crate::support::{
    Child, Client, PATIENCE, TempFile, TestServer, WebSocket, masked, on_both_drivers, wait_until,
};

/// Adds namespaces `latest` and `oldest` with these policies.
fn policies(config: &mut Config) {
    let open = ChannelOptions::open();
    let with = |slow_consumer| ChannelOptions { slow_consumer, backlog_size: 16, ..open.clone() };
    let mut namespaces = Namespaces::new(open.clone());
    namespaces.add("latest", with(SlowConsumer::Latest)).unwrap();
    namespaces.add("oldest", with(SlowConsumer::DropOldest)).unwrap();
    config.namespaces = namespaces;
}

fn memory(server: &TestServer) -> u64 {
    server.sum(|counters| &counters.memory_used_bytes)
}

/// The highest level that any worker is at.
fn level(server: &TestServer) -> u64 {
    server.by_worker(|counters| &counters.memory_pressure_level).into_iter().max().unwrap()
}

fn wait_until_no_pressure(server: &TestServer) {
    wait_until("memory pressure is over", || level(server) == 0);
}

/// Subscribes with the command protocol, over a connection with small kernel buffers.
fn slow_subscriber(server: &TestServer, channel: &str) -> Client {
    let mut client = Client::connect_narrow(server.commands());
    client.command(&json!({"id": 1, "connect": {}}));
    let reply = client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
    assert!(reply["subscribe"].is_object(), "{reply}");
    client
}

/// Samples `look` repeatedly while `action` runs; returns the highest value.
fn highest(look: impl Fn() -> u64, action: impl FnOnce() + Send) -> u64 {
    std::thread::scope(|scope| {
        let doing = scope.spawn(action);
        let mut highest = 0;
        while !doing.is_finished() {
            highest = highest.max(look());
            std::thread::sleep(Duration::from_micros(200));
        }
        doing.join().expect("the action succeeds");
        highest
    })
}

/// Publishes so many bytes, repeating the request while the server answers that it is congested.
fn publish(http: &mut Client, channel: &str, bytes: usize) {
    let until = Instant::now() + PATIENCE;
    let head = format!(
        "POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\nContent-Length: {bytes}\r\n\r\n"
    );
    loop {
        http.send([head.as_bytes(), &vec![b'x'; bytes]].concat());
        let response = http.read_response();
        if response.status == 200 {
            return;
        }
        assert_eq!(response.json()["error"]["code"], "congested", "{response:?}");
        assert!(Instant::now() < until, "the server accepts no publication");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The offset of a publication push.
fn offset(push: &Value) -> Option<u64> {
    push["push"]["pub"]["offset"].as_u64()
}

const BUDGET: u64 = 8 * 1024 * 1024;

/// The budget and the bytes of a few turns of each worker, before the excess is detected.
const BUDGET_AND_MORE: u64 = BUDGET + 3 * 1024 * 1024;

on_both_drivers! {
    fn a_subscriber_that_does_not_read_is_handled_by_the_slow_consumer_policy(driver) {
        const PUBLICATIONS: u64 = 3000;
        const QUEUE_BYTES_MAX: u64 = 1024 * 1024;
        let server = TestServer::start_with(driver, 2, |config| {
            policies(config);
            config.memory_bytes_max = Some(BUDGET);
            config.send_queue_bytes_max = QUEUE_BYTES_MAX;
            // It is disconnected long before it reads.
            config.close_timeout = Duration::from_secs(60);
        });
        let channels = ["all", "latest:a", "oldest:a"];
        let mut slow = channels.map(|channel| slow_subscriber(&server, channel));
        let mut healthy = channels
            .map(|channel| WebSocket::connect(server.edge(), &format!("/ws?channel={channel}")));
        let text = |n: u64| json!({"n": n, "padding": "x".repeat(2000)}).to_string();
        let highest = highest(|| memory(&server), || {
            for n in 1..=PUBLICATIONS {
                for socket in &mut healthy {
                    socket.send_text(&text(n));
                    // It receives every publication exactly once.
                    socket.expect_text(&text(n));
                }
            }
        });
        // 6 MB were published to each channel.
        assert!(highest < 2 * QUEUE_BYTES_MAX, "{highest} bytes");
        assert_eq!(level(&server), 0);

        let [all, mut latest, mut oldest] = slow.each_mut();
        assert_eq!(server.closed(CloseReason::SlowConsumer), 1);
        let disconnect = loop {
            let push = all.read_json();
            if push["push"]["disconnect"].is_object() {
                break push;
            }
        };
        assert_eq!(disconnect["push"]["disconnect"]["code"], 3008);

        let read = |client: &mut &mut Client| {
            let (mut next, mut count, mut dropped) = (1, 0, 0);
            while next <= PUBLICATIONS {
                let push = client.read_json();
                if let Some(gap) = push["push"]["gap"]["dropped"].as_u64() {
                    next += gap;
                    dropped += gap;
                } else if let Some(offset) = offset(&push) {
                    assert!(offset >= next, "{offset} behind {next}");
                    assert_eq!(push["push"]["pub"]["data"]["n"], offset);
                    (next, count) = (offset + 1, count + 1);
                }
            }
            (count, dropped)
        };
        let (count, missed) = read(&mut latest);
        assert!(count < PUBLICATIONS / 2, "{count} publications");
        assert_eq!(missed, 0, "the newest publication replaces the waiting one, without a gap notice");
        let (count, missed) = read(&mut oldest);
        assert!(count >= 16 && missed > PUBLICATIONS / 2);
        assert_eq!(count + missed, PUBLICATIONS, "every dropped publication is reported as a gap");
    }

    /// RFC 9112 9.3.2: responses come in the order of their requests, so none follows a dropped one.
    fn no_response_follows_one_that_was_dropped_for_memory(driver) {
        const CLIENTS: usize = 50;
        let server = TestServer::start_with(driver, 2, |config| {
            config.memory_bytes_max = Some(BUDGET);
            config.close_timeout = Duration::from_secs(60);
        });
        let mut clients: Vec<Client> =
            (0..CLIENTS).map(|_| Client::connect_narrow(server.edge())).collect();
        let requests = "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n".repeat(100);
        // Responses of many turns, few of which fit into the kernel's buffers.
        for _ in 0..20 {
            for client in &mut clients {
                // The write fails if the connection has been closed meanwhile, which is allowed.
                let _ = std::io::Write::write_all(&mut client.stream(), requests.as_bytes());
            }
        }
        wait_until("some clients are disconnected", || server.closed(CloseReason::Overloaded) > 0);
        for client in &mut clients {
            let _ = client.stream().shutdown(std::net::Shutdown::Write);
            let mut answers = Vec::new();
            // The end of the stream may arrive first.
            let _ = std::io::Read::read_to_end(&mut client.stream(), &mut answers);
            let answers = String::from_utf8(answers).unwrap();
            assert!(!answers.contains("HTTP/1.1 503"), "a 503 replaces a dropped response");
        }
    }

    fn unfinished_messages_do_not_exceed_the_memory_budget(driver) {
        const SENDERS: usize = 250;
        const MESSAGE_BYTES: usize = 256 * 1024;
        let server = TestServer::start_with(driver, 2, |config| {
            policies(config);
            config.memory_bytes_max = Some(BUDGET);
            config.message_bytes_max = MESSAGE_BYTES as u64;
        });
        let mut healthy = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut senders: Vec<WebSocket> =
            (0..SENDERS).map(|_| WebSocket::connect(server.edge(), "/ws?channel=b")).collect();
        let whole = masked(true, OpCode::Binary, &[7; MESSAGE_BYTES]);
        let highest = highest(|| memory(&server), || {
            for (n, sender) in senders.iter_mut().enumerate() {
                // The write fails if the connection has been closed meanwhile, which is allowed.
                let _ = std::io::Write::write(&mut sender.client.stream(), &whole[..MESSAGE_BYTES * 7 / 8]);
                healthy.send_text(&n.to_string());
                healthy.expect_text(&n.to_string());
            }
        });
        assert!(highest > BUDGET / 2, "{highest} bytes");
        assert!(highest <= BUDGET_AND_MORE, "{highest} bytes");
        wait_until("some clients are disconnected", || server.closed(CloseReason::Overloaded) > 0);
        let evicted = server.sum(|counters| &counters.evicted_unfinished_messages);
        assert_eq!(evicted, server.closed(CloseReason::Overloaded));
        drop(senders);
        wait_until_no_pressure(&server);
        wait_until("all memory is released", || memory(&server) == 0);
        WebSocket::connect(server.edge(), "/ws").round_trip();
    }

    fn partially_sent_messages_do_not_fragment_the_heap(driver) {
        const SENDERS: usize = 800;
        const MESSAGE_BYTES: usize = 1_000_000;
        const BUDGET: u64 = 48 * 1024 * 1024;
        let server = Child::start(driver, &["--workers", "2", "--memory-bytes-max", "48 MiB"]);
        let before = server.resident_bytes("VmHWM");
        // A connection that is kept may be among those that are closed.
        let has_evicted = || {
            let page = Client::connect(server.edge()).get("/metrics");
            let name = "fantail_evicted_unfinished_messages_total";
            page.text().lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"))
        };
        assert!(!has_evicted());
        let whole = masked(true, OpCode::Binary, &[7; MESSAGE_BYTES]);
        let new = || {
            let mut client = Client::connect(server.edge());
            client.send(WebSocket::request("/ws?channel=b"));
            client.stream().set_nonblocking(true).expect("a socket");
            (client, 0)
        };
        let mut senders: Vec<(Client, usize)> = (0..SENDERS).map(|_| new()).collect();
        let mut random = 1_u32;
        // All messages grow concurrently, in steps of many sizes, as on slow networks; disconnected clients reconnect.
        let until = Instant::now() + 3 * PATIENCE;
        for step in 1.. {
            if step >= SENDERS * 150 && step % 1000 == 0 && has_evicted() {
                break;
            }
            assert!(Instant::now() < until, "the budget was never reached");
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (sender, sent) = &mut senders[(random >> 8) as usize % SENDERS];
            let step = [1000, 3000, 20_000, 60_000][(random >> 4) as usize % 4];
            let until = (*sent + step).min(MESSAGE_BYTES * 9 / 10);
            match std::io::Write::write(&mut sender.stream(), &whole[*sent..until]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => (*sender, *sent) = new(),
            }
        }
        let peak = server.resident_bytes("VmHWM") - before;
        assert!(peak < BUDGET * 5 / 4, "{peak} bytes of memory with a budget of {BUDGET}");
        drop(senders);
        wait_until("most of the memory is released", || {
            Client::connect(server.edge()).get("/health/live");
            server.resident_bytes("VmRSS") < before + BUDGET / 4
        });
    }

    fn excessive_publishers_and_slow_consumers_do_not_affect_others(driver) {
        const FLOODED: usize = 6;
        let server = TestServer::start_with(driver, 2, |config| {
            config.memory_bytes_max = Some(BUDGET);
            config.namespaces = Namespaces::new(ChannelOptions::development());
        });
        let slow: Vec<Client> =
            (0..5 * FLOODED).map(|n| slow_subscriber(&server, &format!("c{}", n % FLOODED))).collect();
        let (edge, commands) = (server.edge(), server.commands());
        let mut healthy = WebSocket::connect(edge, "/ws?channel=a");
        let highest = highest(|| memory(&server), || {
            std::thread::scope(|scope| {
                let floods: Vec<_> = (0..FLOODED)
                    .map(|n| {
                        scope.spawn(move || {
                            let publish = json!({"publish": {
                                "channel": format!("c{n}"), "data": "x".repeat(16 * 1024)
                            }});
                            let mut publisher = Client::connect(commands);
                            publisher.command(&json!({"id": 1, "connect": {}}));
                            for _ in 0..1500 {
                                publisher.send(format!("{publish}\n"));
                            }
                            // The publications have been accepted once this is answered.
                            let pong = publisher.command(&json!({"id": 2, "ping": {}}));
                            assert_eq!(pong["id"], 2, "{pong}");
                        })
                    })
                    .collect();
                let mut n = 0;
                while floods.iter().any(|flood| !flood.is_finished()) {
                    healthy.send_text(&format!("{n}"));
                    healthy.expect_text(&format!("{n}"));
                    n += 1;
                }
                assert!(n > 0);
            });
        });
        // 144 MB were published, 24 MB of them to each slow subscriber.
        assert!(highest > BUDGET / 4, "{highest} bytes");
        assert!(highest <= BUDGET_AND_MORE, "{highest} bytes");
        let slow_ones = server.closed(CloseReason::SlowConsumer);
        assert_eq!(slow_ones + server.closed(CloseReason::Overloaded), slow.len() as u64);
        drop(slow);
        wait_until_no_pressure(&server);
        healthy.round_trip();
    }

    fn while_memory_is_low_new_clients_are_refused(driver) {
        const CHANNELS: u64 = 66;
        const PAYLOAD_BYTES: u64 = 128 * 1024;
        let server = TestServer::start_with(driver, 2, |config| {
            policies(config);
            // Reached by the backlog of a slow subscriber: the newest publication of each of its channels.
            config.memory_bytes_max = Some(CHANNELS * PAYLOAD_BYTES * 100 / 87);
        });
        let mut healthy = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut http = Client::connect(server.edge());
        let query: Vec<_> = (0..CHANNELS).map(|n| format!("channel=latest:{n}")).collect();
        let mut slow = WebSocket::over(Client::connect_narrow(server.edge()));
        slow.client.send(WebSocket::request(&format!("/ws?{}", query.join("&"))));
        slow.read_upgrade();
        // From here on the kernel's buffers are full, and the backlog holds no more than necessary.
        while server.sum(|counters| &counters.sends_partial) == 0 {
            publish(&mut http, "latest:0", PAYLOAD_BYTES as usize);
        }
        for n in 0..CHANNELS {
            publish(&mut http, &format!("latest:{n}"), PAYLOAD_BYTES as usize);
            // One at a time: publications in flight count too, and more of them would exceed the budget.
            wait_until("the publication is in the backlog", || {
                let is_idle = server.sum(|counters| &counters.fan_out_backlog_publications) == 0;
                is_idle && memory(&server) >= (n + 1) * PAYLOAD_BYTES
            });
        }
        wait_until("memory is low", || level(&server) == 2);
        // The other worker checks when it wakes up, but at most every few milliseconds.
        std::thread::sleep(Duration::from_millis(50));

        for (address, target) in [(server.edge(), "/ws"), (server.echo(), "/")] {
            let mut refused = Client::connect(address);
            refused.send(WebSocket::request(target));
            let response = refused.read_response();
            assert_eq!(response.status, 503, "{response:?}");
            assert!(matches!(response.retry_after(), Some(5..=10)));
            assert_eq!(response.json()["error"]["code"], "overloaded", "{response:?}");
            refused.expect_end();
        }
        let mut commands = Client::connect(server.commands());
        assert_eq!(commands.read_json()["push"]["disconnect"]["code"], 3003);
        commands.expect_end();
        Client::connect(server.echo_tcp()).expect_end();
        assert_eq!(server.sum(|counters| &counters.rejected_low_memory), 4);

        // Connected clients, and requests that need no memory, are served.
        healthy.send_text("still here");
        healthy.expect_text("still here");
        let page = http.get("/metrics");
        let levels = page.text().lines().filter(|line| line.starts_with("fantail_memory_pressure_level{"));
        assert!(levels.clone().any(|line| line.ends_with(" 2")), "{levels:?}");
        http.publish("a", "from HTTP");
        healthy.expect_text("from HTTP");
        assert_eq!(server.closed(CloseReason::Overloaded), 2, "the two rejected clients");

        drop(slow);
        wait_until_no_pressure(&server);
        WebSocket::connect(server.edge(), "/ws").round_trip();
    }

    fn many_workers_share_a_small_budget_and_publish(driver) {
        let server = TestServer::start_with(driver, 48, |config| {
            config.memory_bytes_max = Some(1024 * 1024);
        });
        let mut http = Client::connect(server.edge());
        for channel in 0..50 {
            http.publish(&format!("c{channel}"), "x");
        }
    }

    fn an_idle_server_returns_freed_heap_to_the_system(driver) {
        // Longer than filling takes on a busy host, so that nothing expires before all is there.
        let settings = "[limits]\nposition_ttl = 0\n[channels]\nallow_publish_for_client = true\nallow_publish_for_anonymous = true\n\
            history_size = 1\nhistory_ttl = '12 s'\n";
        let file = TempFile::new(&format!("heap-{driver:?}"), settings);
        let server = Child::start(driver, &["--workers", "1", "--config", file.path()]);
        let before = server.resident_bytes("VmRSS");
        let mut http = Client::connect(server.edge());
        for call in 0..200 {
            let channels: Vec<String> = (0..1000).map(|n| format!("{call}-{n}")).collect();
            http.call("broadcast", &json!({"channels": channels, "data": 1}));
        }
        drop(http);
        let burst = server.resident_bytes("VmRSS") - before;
        assert!(burst > 2 * HEAP_KEPT_BYTES, "{burst}");
        wait_until("most of the memory is released", || {
            server.resident_bytes("VmRSS") <= before + HEAP_KEPT_BYTES
        });
    }

    /// An idle worker runs 17 turns per second: with one slice of histories in each, this would take 37 s.
    fn the_memory_of_expired_histories_is_released_at_once(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.namespaces = Namespaces::new(ChannelOptions {
                history_ttl: Duration::from_secs(3),
                ..ChannelOptions::development()
            });
        });
        let mut http = Client::connect(server.edge());
        for call in 0..40 {
            let channels: Vec<String> = (0..1000).map(|n| format!("{call}-{n}")).collect();
            http.call("broadcast", &json!({"channels": channels, "data": 1}));
        }
        let history = || server.sum(|counters| &counters.history_bytes);
        assert!(history() > 0);
        wait_until("all are gone", || history() == 0);
        // Then the worker sleeps again.
        let turns = || server.sum(|counters| &counters.turns);
        let before = turns();
        std::thread::sleep(Duration::from_millis(300));
        assert!(turns() - before < 100, "{}", turns() - before);
    }

    fn histories_are_evicted_first(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.memory_bytes_max = Some(BUDGET);
            config.namespaces = Namespaces::new(ChannelOptions::development());
        });
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut http = Client::connect(server.edge());
        let highest = highest(|| memory(&server), || {
            for n in 0..1000 {
                publish(&mut http, &format!("c{}", n % 50), 50_000);
            }
        });
        assert!(highest > BUDGET / 4, "{highest} bytes: no history was kept");
        assert!(highest < BUDGET * 3 / 4, "{highest} bytes");
        socket.send_text("no client is closed");
        socket.expect_text("no client is closed");
        assert_eq!(server.closed(CloseReason::Overloaded), 0);
    }
}
