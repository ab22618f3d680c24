//! The memory budget: who is closed, who is refused and who is held back when it is used up, and that nobody else
//! notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fantail::config::limits::HEAP_KEPT_BYTES;
use fantail::config::{ChannelOptions, Config, Namespaces, SlowConsumer};
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;

use crate::support::{
    Child, Client, PATIENCE, TempFile, TestServer, WebSocket, masked, on_both_drivers, wait_until,
};

/// Channels `latest:…` and `oldest:…` beside those of the default policy.
fn policies(config: &mut Config) {
    let open = ChannelOptions { publish: true, ..ChannelOptions::closed() };
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

fn wait_until_calm(server: &TestServer) {
    wait_until("memory pressure is over", || level(server) == 0);
}

/// Subscribes with commands, over a connection whose kernel takes little.
fn slow_subscriber(server: &TestServer, channel: &str) -> Client {
    let mut client = Client::connect_narrow(server.commands());
    client.command(&json!({"id": 1, "connect": {}}));
    let reply = client.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
    assert!(reply["subscribe"].is_object(), "{reply}");
    client
}

/// The highest of what is looked at again and again while something is done.
fn highest(look: impl Fn() -> u64, action: impl FnOnce() + Send) -> u64 {
    std::thread::scope(|scope| {
        let doing = scope.spawn(action);
        let mut highest = 0;
        while !doing.is_finished() {
            highest = highest.max(look());
            std::thread::sleep(Duration::from_micros(200));
        }
        doing.join().expect("what is done succeeds");
        highest
    })
}

/// Publishes so many bytes, once they are taken: where little may wait, some of it has to be delivered before.
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
        assert!(Instant::now() < until, "nothing is taken");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A publication as a line of commands shows it.
fn offset(push: &Value) -> Option<u64> {
    push["push"]["pub"]["offset"].as_u64()
}

const BUDGET: u64 = 8 * 1024 * 1024;

/// What comes before it is noticed: a few turns' bytes on each worker.
const BUDGET_AND_MORE: u64 = BUDGET + 3 * 1024 * 1024;

on_both_drivers! {
    fn a_subscriber_that_reads_nothing_sees_what_its_policy_says(driver) {
        const PUBLICATIONS: u64 = 3000;
        const QUEUE_BYTES_MAX: u64 = 1024 * 1024;
        let server = TestServer::start_with(driver, 2, |config| {
            policies(config);
            config.memory_bytes_max = Some(BUDGET);
            config.send_queue_bytes_max = QUEUE_BYTES_MAX;
            // It is closed long before it reads.
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
                    // It misses nothing, and gets nothing twice.
                    socket.expect_text(&text(n));
                }
            }
        });
        // 6 MB went through each channel.
        assert!(highest < 2 * QUEUE_BYTES_MAX, "{highest} bytes");
        assert_eq!(level(&server), 0);

        let [all, mut latest, mut oldest] = slow.each_mut();
        assert_eq!(server.closed(CloseReason::SlowConsumer), 1);
        let goodbye = loop {
            let push = all.read_json();
            if push["push"]["disconnect"].is_object() {
                break push;
            }
        };
        assert_eq!(goodbye["push"]["disconnect"]["code"], 3008);

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
        let (count, told) = read(&mut latest);
        assert!(count < PUBLICATIONS / 2, "{count} publications");
        assert_eq!(told, 0, "the newest replaces what waits, without a word");
        let (count, told) = read(&mut oldest);
        assert!(count >= 16 && told > PUBLICATIONS / 2);
        assert_eq!(count + told, PUBLICATIONS, "whatever is missing was told");
    }

    /// RFC 9112 9.3.2: answers come in the order of their requests. One that is dropped is the last.
    fn no_answer_follows_those_that_were_dropped_for_memory(driver) {
        const CLIENTS: usize = 50;
        let server = TestServer::start_with(driver, 2, |config| {
            config.memory_bytes_max = Some(BUDGET);
            config.close_timeout = Duration::from_secs(60);
        });
        let mut clients: Vec<Client> =
            (0..CLIENTS).map(|_| Client::connect_narrow(server.edge())).collect();
        let requests = "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n".repeat(100);
        // Answers of many turns, of which their kernels take few.
        for _ in 0..20 {
            for client in &mut clients {
                client.send(&requests);
            }
        }
        wait_until("some are closed", || server.closed(CloseReason::Overloaded) > 0);
        for client in &mut clients {
            client.stream().shutdown(std::net::Shutdown::Write).expect("it is open");
            let mut answers = Vec::new();
            // Its own end may come first.
            let _ = std::io::Read::read_to_end(&mut client.stream(), &mut answers);
            let answers = String::from_utf8(answers).unwrap();
            assert!(!answers.contains("HTTP/1.1 503"), "in place of one that was dropped");
        }
    }

    fn messages_that_are_never_finished_do_not_use_up_memory(driver) {
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
                // One that has been closed meanwhile does not take it, which is all the same.
                let _ = std::io::Write::write(&mut sender.client.stream(), &whole[..MESSAGE_BYTES * 7 / 8]);
                healthy.send_text(&n.to_string());
                healthy.expect_text(&n.to_string());
            }
        });
        assert!(highest > BUDGET / 2, "{highest} bytes");
        assert!(highest <= BUDGET_AND_MORE, "{highest} bytes");
        wait_until("some are closed", || server.closed(CloseReason::Overloaded) > 0);
        let evicted = server.sum(|counters| &counters.evicted_unfinished_messages);
        assert_eq!(evicted, server.closed(CloseReason::Overloaded));
        drop(senders);
        wait_until_calm(&server);
        wait_until("all is given back", || memory(&server) == 0);
        WebSocket::connect(server.edge(), "/ws").round_trip();
    }

    fn half_sent_messages_leave_no_holes_in_the_heap(driver) {
        const SENDERS: usize = 800;
        const MESSAGE_BYTES: usize = 1_000_000;
        const BUDGET: u64 = 48 * 1024 * 1024;
        let server = Child::start(driver, &["--workers", "2", "--memory-bytes-max", "48 MiB"]);
        let before = server.resident_bytes("VmHWM");
        let whole = masked(true, OpCode::Binary, &[7; MESSAGE_BYTES]);
        let new = || {
            let mut client = Client::connect(server.edge());
            client.send(WebSocket::request("/ws?channel=b"));
            client.stream().set_nonblocking(true).expect("a socket");
            (client, 0)
        };
        let mut senders: Vec<(Client, usize)> = (0..SENDERS).map(|_| new()).collect();
        let mut dice = 1_u32;
        // They grow together, in steps of many sizes, as messages do that come over slow lines; who is closed comes back.
        let until = Instant::now() + PATIENCE;
        for step in 0.. {
            let is_used = || server.resident_bytes("VmHWM") - before > BUDGET / 2;
            if step > SENDERS * 150 && (Instant::now() > until || is_used()) {
                break;
            }
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (sender, sent) = &mut senders[(dice >> 8) as usize % SENDERS];
            let step = [1000, 3000, 20_000, 60_000][(dice >> 4) as usize % 4];
            let until = (*sent + step).min(MESSAGE_BYTES * 9 / 10);
            match std::io::Write::write(&mut sender.stream(), &whole[*sent..until]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => (*sender, *sent) = new(),
            }
        }
        let peak = server.resident_bytes("VmHWM") - before;
        assert!(peak > BUDGET / 2, "{peak} bytes: the budget was never used");
        assert!(peak < BUDGET * 5 / 4, "{peak} bytes of memory with a budget of {BUDGET}");
        drop(senders);
        wait_until("most of it is given back", || {
            Client::connect(server.edge()).get("/health/live");
            server.resident_bytes("VmRSS") < before + BUDGET / 4
        });
    }

    fn publishers_and_consumers_that_do_too_much_do_not_harm_others(driver) {
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
                            // It has been taken when this is answered.
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
        // 144 MB were published, 24 MB of them to each of the slow ones.
        assert!(highest > BUDGET / 4, "{highest} bytes");
        assert!(highest <= BUDGET_AND_MORE, "{highest} bytes");
        let slow_ones = server.closed(CloseReason::SlowConsumer);
        assert_eq!(slow_ones + server.closed(CloseReason::Overloaded), slow.len() as u64);
        drop(slow);
        wait_until_calm(&server);
        healthy.round_trip();
    }

    fn while_memory_is_nearly_used_up_nobody_new_is_served(driver) {
        const CHANNELS: u64 = 66;
        const PAYLOAD_BYTES: u64 = 128 * 1024;
        let server = TestServer::start_with(driver, 2, |config| {
            policies(config);
            // Reached with what a laggard has yet to get: the newest publication of each of its channels.
            config.memory_bytes_max = Some(CHANNELS * PAYLOAD_BYTES * 100 / 87);
        });
        let mut healthy = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut http = Client::connect(server.edge());
        let query: Vec<_> = (0..CHANNELS).map(|n| format!("channel=latest:{n}")).collect();
        let mut laggard = WebSocket::over(Client::connect_narrow(server.edge()));
        laggard.client.send(WebSocket::request(&format!("/ws?{}", query.join("&"))));
        laggard.read_upgrade();
        // From here on its kernel takes nothing, and nothing more waits for it than what had to.
        while server.sum(|counters| &counters.sends_partial) == 0 {
            publish(&mut http, "latest:0", PAYLOAD_BYTES as usize);
        }
        for n in 0..CHANNELS {
            publish(&mut http, &format!("latest:{n}"), PAYLOAD_BYTES as usize);
            // One at a time: what is on its way counts too, and more of it would fill memory up.
            wait_until("it is kept", || {
                let is_idle = server.sum(|counters| &counters.fan_out_backlog_publications) == 0;
                is_idle && memory(&server) >= (n + 1) * PAYLOAD_BYTES
            });
        }
        wait_until("memory is nearly used up", || level(&server) == 2);
        // The other worker looks when it wakes up, but not more often than every few milliseconds.
        std::thread::sleep(Duration::from_millis(50));

        for (address, target) in [(server.edge(), "/ws"), (server.echo(), "/")] {
            let mut refused = Client::connect(address);
            refused.send(WebSocket::request(target));
            let response = refused.read_response();
            assert_eq!(response.status, 503, "{response:?}");
            assert_eq!(response.header("retry-after"), Some("5"));
            assert_eq!(response.json()["error"]["code"], "overloaded", "{response:?}");
            refused.expect_end();
        }
        let mut commands = Client::connect(server.commands());
        assert_eq!(commands.read_json()["push"]["disconnect"]["code"], 3003);
        commands.expect_end();
        Client::connect(server.echo_tcp()).expect_end();
        assert_eq!(server.sum(|counters| &counters.rejected_low_memory), 4);

        // Those who are there, and requests that need no memory, are served.
        healthy.send_text("still here");
        healthy.expect_text("still here");
        let page = http.get("/metrics");
        let levels = page.text().lines().filter(|line| line.starts_with("fantail_memory_pressure_level{"));
        assert!(levels.clone().any(|line| line.ends_with(" 2")), "{levels:?}");
        http.publish("a", "from HTTP");
        healthy.expect_text("from HTTP");
        assert_eq!(server.closed(CloseReason::Overloaded), 2, "the two that were turned away");

        drop(laggard);
        wait_until_calm(&server);
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

    fn an_idle_server_gives_back_the_heap_of_what_is_gone(driver) {
        let settings = "[channels]\npublish = true\nhistory_size = 1\nhistory_ttl = '5 s'\n";
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
        wait_until("most of it is given back", || {
            server.resident_bytes("VmRSS") <= before + HEAP_KEPT_BYTES
        });
    }

    /// An idle worker turns 17 times a second: with a slice of them in each, this would take 37 s.
    fn expired_histories_give_their_memory_back_at_once(driver) {
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
        // Then it sleeps again.
        let turns = || server.sum(|counters| &counters.turns);
        let before = turns();
        std::thread::sleep(Duration::from_millis(300));
        assert!(turns() - before < 100, "{}", turns() - before);
    }

    fn histories_give_way_first(driver) {
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
        assert!(highest > BUDGET / 4, "{highest} bytes: nothing was kept");
        assert!(highest < BUDGET * 3 / 4, "{highest} bytes");
        socket.send_text("nobody is closed");
        socket.expect_text("nobody is closed");
        assert_eq!(server.closed(CloseReason::Overloaded), 0);
    }
}
