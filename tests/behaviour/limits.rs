//! Deadlines, slow consumers, and maximum counts.

use std::time::{Duration, Instant};

use serde_json::json;

use fantail::config::Framing;
use fantail::config::limits::{CLOSING_BYTES_MAX, SPARE_CONNECTION_TIME, SPARE_CONNECTIONS};
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;

use crate::support::{
    Child, Client, Received, TestServer, WebSocket, masked, on_both_drivers, wait_until,
};

const SHORT: Duration = Duration::from_millis(300);

on_both_drivers! {
    fn a_silent_client_is_closed_at_the_handshake_deadline(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.handshake_timeout = SHORT);
        let began = Instant::now();
        let mut clients = [server.edge(), server.echo()].map(Client::connect);
        let mut commands = Client::connect(server.commands());
        for client in &mut clients {
            client.expect_end();
        }
        let push = commands.read_json();
        assert_eq!(push["push"]["disconnect"]["code"], 3502, "{push}");
        commands.expect_end();
        assert!(began.elapsed() >= SHORT);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(server.closed(CloseReason::HandshakeTimeout), 3);
    }

    fn an_unfinished_message_has_a_deadline(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.message_timeout = SHORT);
        let frame = masked(true, OpCode::Text, b"0123456789");
        let began = Instant::now();
        let mut halves = [
            frame[..1].to_vec(),
            frame[..frame.len() - 1].to_vec(),
            masked(false, OpCode::Text, b"a fragment"),
        ]
        .map(|half| {
            let mut socket = WebSocket::connect(server.edge(), "/ws");
            socket.client.send(half);
            socket
        });
        let mut commands = Client::connect(server.commands());
        commands.command(&json!({"id": 1, "connect": {}}));
        commands.send("{\"id\": 2,");
        // Control frames between its fragments, and further fragments, do not extend the deadline.
        halves[2].round_trip();
        for socket in &mut halves {
            socket.expect_close(1008);
        }
        let push = commands.read_json();
        assert_eq!(push["push"]["disconnect"]["code"], 3501, "{push}");
        commands.expect_end();
        assert!(began.elapsed() >= SHORT);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(server.closed(CloseReason::MessageTimeout), 4);
    }

    fn each_message_has_its_own_deadline(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.message_timeout = SHORT);
        let mut socket = WebSocket::connect(server.edge(), "/ws");
        let mut commands = Client::connect(server.commands());
        commands.command(&json!({"id": 1, "connect": {}}));
        let frame = masked(true, OpCode::Text, b"whole");
        let (first, rest) = frame.split_at(9);
        socket.client.send(first);
        commands.send("{");
        let began = Instant::now();
        // A message is always unfinished, each only for a fraction of the deadline.
        while began.elapsed() < 5 * SHORT {
            std::thread::sleep(SHORT / 10);
            socket.client.send([rest, first].concat());
            socket.expect_text("whole");
            commands.send("\"id\": 3, \"ping\": {}}\n{");
            let pong = commands.read_json();
            assert_eq!(pong["id"], 3, "{pong}");
        }
        assert_eq!(server.closed(CloseReason::MessageTimeout), 0);
    }

    fn a_message_that_arrives_byte_by_byte_has_one_deadline(driver) {
        for framing in [Framing::Line, Framing::LengthPrefix] {
            let server = TestServer::start_with(driver, 1, |config| {
                config.message_timeout = SHORT;
                config.tcp_framing = framing;
            });
            let socket = WebSocket::connect(server.edge(), "/ws");
            let mut commands = Client::connect(server.commands());
            let connect = r#"{"id": 1, "connect": {}}"#;
            let frame = masked(true, OpCode::Text, &[b'x'; 1000]);
            let command = match framing {
                Framing::Line => [connect.as_bytes(), b"\n", &[b' '; 1000]].concat(),
                Framing::LengthPrefix => {
                    let prefix = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
                    let begun = [&prefix(1000)[..], &[b' '; 999]].concat();
                    [&prefix(connect.len())[..], connect.as_bytes(), &begun].concat()
                }
            };
            let (connect, drops) = command.split_at(command.len() - 990);
            let began = Instant::now();
            commands.send(connect);
            for (frame, drop) in frame.chunks(1).zip(drops.chunks(1)) {
                if server.closed(CloseReason::MessageTimeout) == 2 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
                let _ = std::io::Write::write_all(&mut socket.client.stream(), frame);
                let _ = std::io::Write::write_all(&mut commands.stream(), drop);
            }
            assert!(began.elapsed() >= SHORT);
            assert_eq!(server.closed(CloseReason::MessageTimeout), 2, "{framing:?}");
        }
    }

    fn empty_or_rejected_input_completes_a_message_too(driver) {
        let timeout = 4 * SHORT;
        let server = TestServer::start_with(driver, 1, |config| config.message_timeout = timeout);
        let mut socket = WebSocket::connect(server.edge(), "/ws");
        let mut commands = Client::connect(server.commands());
        commands.command(&json!({"id": 1, "connect": {}}));
        let ping = masked(true, OpCode::Ping, b"whole");
        let (first, rest) = ping.split_at(9);
        socket.client.send(first);
        commands.send("{");
        let began = Instant::now();
        while began.elapsed() < 3 * timeout {
            std::thread::sleep(timeout / 20);
            socket.client.send([rest, first].concat());
            let pong = socket.read();
            assert!(matches!(pong, Received::Pong(_)), "{pong:?}");
            commands.send("\n\n{");
            let refused = commands.read_json();
            assert_eq!(refused["error"]["code"], 107, "{refused}");
        }
        assert_eq!(server.closed(CloseReason::MessageTimeout), 0);
    }

    fn a_client_that_sends_slowly_is_closed_at_the_handshake_deadline(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.handshake_timeout = SHORT);
        let mut http = Client::connect(server.edge());
        let mut commands = Client::connect(server.commands());
        let began = Instant::now();
        let drip = || {
            std::thread::sleep(Duration::from_millis(50));
            let _ = std::io::Write::write_all(&mut http.stream(), b"G");
            let _ = std::io::Write::write_all(&mut commands.stream(), b" ");
        };
        while server.closed(CloseReason::HandshakeTimeout) < 2 {
            assert!(began.elapsed() < Duration::from_secs(10), "sending slowly extended the deadline");
            drip();
        }
        assert_eq!(http.read_response().status, 408);
        http.expect_gone();
        assert_eq!(commands.read_json()["push"]["disconnect"]["code"], 3502);
        commands.expect_gone();
    }

    fn an_unfinished_request_gets_408(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.handshake_timeout = SHORT);
        let mut first = Client::connect(server.edge());
        first.send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhel");
        let mut second = Client::connect(server.edge());
        assert_eq!(second.get("/health/live").status, 200);
        second.send("GET /health");
        for client in [&mut first, &mut second] {
            let response = client.read_response();
            assert_eq!(response.status, 408);
            assert_eq!(response.json()["error"]["code"], "timeout");
            client.expect_end();
        }
    }

    fn an_idle_http_connection_is_closed(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.handshake_timeout = SHORT;
            config.http_idle_timeout = Duration::from_millis(1200);
        });
        let mut client = Client::connect(server.edge());
        let began = Instant::now();
        assert_eq!(client.get("/health/live").status, 200);
        client.expect_end();
        assert!(began.elapsed() >= Duration::from_millis(1100), "{:?}", began.elapsed());
    }

    fn a_silent_websocket_is_pinged_and_then_closed(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.keepalive_interval = SHORT;
            config.keepalive_timeout = SHORT;
        });
        let mut mute = WebSocket::connect(server.edge(), "/ws");
        let mut answers = WebSocket::connect(server.echo(), "/");
        for _ in 0..3 {
            assert_eq!(answers.read(), Received::Ping(vec![]));
            answers.send_frame(true, OpCode::Pong, b"");
        }
        assert_eq!(mute.read(), Received::Ping(vec![]));
        mute.expect_close(1011);
        assert_eq!(server.closed(CloseReason::KeepaliveTimeout), 1);
        // Any message counts as a pong.
        loop {
            match answers.read() {
                Received::Ping(_) => answers.send_text("here"),
                Received::Text(text) => break assert_eq!(text, "here"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn a_client_that_is_still_reading_its_send_queue_is_not_closed_for_a_missing_pong(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.keepalive_interval = SHORT;
            config.keepalive_timeout = SHORT;
        });
        let mut slow = WebSocket::over(Client::connect_narrow(server.edge()));
        slow.client.send(WebSocket::request("/ws?channel=a"));
        slow.read_upgrade();
        let mut http = Client::connect(server.edge());
        for _ in 0..20 {
            http.publish("a", "x".repeat(100_000));
        }
        // Meanwhile, two clients with nothing to read are closed, one after the other.
        for _ in 0..2 {
            let mut mute = WebSocket::connect(server.edge(), "/ws");
            assert_eq!(mute.read(), Received::Ping(vec![]));
            mute.expect_close(1011);
        }
        slow.send_text("still here");
        let mut messages = 0;
        while messages < 21 {
            match slow.read() {
                Received::Text(_) => messages += 1,
                Received::Ping(payload) => slow.send_frame(true, OpCode::Pong, &payload),
                other => panic!("{other:?} after {messages} messages"),
            }
        }
    }

    fn a_command_client_over_tcp_is_pinged_and_need_not_answer(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.keepalive_interval = SHORT);
        let mut client = Client::connect(server.commands());
        client.command(&json!({"id": 1, "connect": {}}));
        for _ in 0..3 {
            assert_eq!(client.read_json(), json!({}));
        }
        assert_eq!(client.command(&json!({"id": 2, "ping": {}}))["id"], 2);
    }

    fn a_connection_that_the_client_does_not_close_is_closed_after_the_close_timeout(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.close_timeout = SHORT);
        let mut client = WebSocket::connect(server.edge(), "/ws");
        client.send_close(1000);
        assert_eq!(client.read(), Received::Close(Some(1000), String::new()));
        wait_until("the server closes the connection", || server.sum(|counters| &counters.connections_open) == 0);
        client.client.expect_gone();
    }

    // RFC 6455 1.4 and RFC 9112 9.6: data that a peer sent before it saw the close is read, so that no reset discards
    // the response.
    fn a_closing_connection_reads_up_to_a_limit_and_then_closes(driver) {
        const MESSAGE_BYTES_MAX: u64 = 5000;
        let server = TestServer::start_with(driver, 1, |config| {
            config.close_timeout = Duration::from_secs(60);
            config.message_bytes_max = MESSAGE_BYTES_MAX;
            config.echo_message_bytes_max = MESSAGE_BYTES_MAX;
        });
        let open = || server.sum(|counters| &counters.connections_open);
        let received = || server.sum(|counters| &counters.received_bytes);
        for transport in ["websocket", "commands", "http"] {
            for more in [0, 1] {
                let mut client = match transport {
                    "websocket" => {
                        let mut socket = WebSocket::connect(server.edge(), "/ws");
                        socket.send_close(1000);
                        socket.expect_close(1000);
                        socket.client
                    }
                    "commands" => {
                        let mut client = Client::connect(server.commands());
                        client.command(&json!({"id": 1, "connect": {}}));
                        let subscribe = json!({"channel": "a", "delta": "xor"});
                        let push = client.command(&json!({"id": 2, "subscribe": subscribe}));
                        assert_eq!(push["push"]["disconnect"]["code"], 3501, "{push}");
                        client.expect_end();
                        client
                    }
                    _ => {
                        let mut client = Client::connect(server.edge());
                        client.send("GET / HTTP/1.1\r\n\r\n");
                        assert_eq!(client.read_response().status, 400);
                        client.expect_end();
                        client
                    }
                };
                let before = received();
                let most = CLOSING_BYTES_MAX + MESSAGE_BYTES_MAX;
                client.send(vec![b'x'; most as usize]);
                wait_until("the data is read", || received() - before == most);
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(open(), 1, "{transport}");
                if more > 0 {
                    client.send("x");
                } else {
                    client.end();
                }
                wait_until("the connection is gone", || open() == 0);
                client.expect_gone();
            }
        }
    }

    fn a_slow_consumer_is_disconnected_and_others_receive_every_publication(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.send_queue_bytes_max = 256 * 1024;
            config.close_timeout = Duration::from_secs(1);
        });
        let mut healthy = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut slow = WebSocket::over(Client::connect_narrow(server.edge()));
        slow.client.send(WebSocket::request("/ws?channel=a"));
        slow.read_upgrade();
        let mut slow_command = Client::connect_narrow(server.commands());
        slow_command.command(&json!({"id": 1, "connect": {}}));
        slow_command.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let mut publisher = Client::connect(server.edge());
        let mut most_queued = 0;
        let payload = "x".repeat(10_000);
        let mut published = 0;
        while server.closed(CloseReason::SlowConsumer) < 2 {
            publisher.publish("a", format!("{published} {payload}"));
            healthy.expect_text(&format!("{published} {payload}"));
            published += 1;
            most_queued = server.sum(|counters| &counters.send_queue_bytes).max(most_queued);
            assert!(published < 10_000, "no slow consumer was disconnected");
        }
        // Each queue holds at most its limit, and the publications being delivered.
        assert!(most_queued <= 2 * 256 * 1024 + 100_000, "{most_queued}");
        assert_eq!(server.closed(CloseReason::SlowConsumer), 2);
        // Readers find complete messages in order, then the close reason.
        let mut next = 0;
        loop {
            match slow.read() {
                Received::Text(text) => {
                    assert_eq!(text, format!("{next} {payload}"));
                    next += 1;
                }
                Received::Close(code, reason) => {
                    assert_eq!((code, reason.as_str()), (Some(3008), "slow consumer"));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        slow.client.expect_end();
        for next in 1.. {
            let push = slow_command.read_json();
            if push["push"].get("disconnect").is_some() {
                assert_eq!(push["push"]["disconnect"]["code"], 3008);
                break;
            }
            assert_eq!(push["push"]["pub"]["offset"], next);
        }
        slow_command.expect_end();
        publisher.publish("a", "after");
        healthy.expect_text("after");
    }

    fn a_slow_consumer_that_never_reads_is_closed(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.send_queue_bytes_max = 64 * 1024;
            config.close_timeout = SHORT;
        });
        let mut slow = WebSocket::over(Client::connect_narrow(server.edge()));
        slow.client.send(WebSocket::request("/ws?channel=a"));
        slow.read_upgrade();
        let mut publisher = Client::connect(server.edge());
        while server.closed(CloseReason::SlowConsumer) == 0 {
            publisher.publish("a", "x".repeat(50_000));
        }
        wait_until("the server closes the connection", || server.sum(|counters| &counters.connections_open) == 1);
        assert_eq!(server.sum(|counters| &counters.send_queue_bytes), 0);
    }

    // RFC 6455 7.1.1: the server closes first. Netty answers a Close only by ending its stream, gobwas answers some
    // codes with garbage, and OkHttp does not answer unless `close()` is called in onClosing.
    fn connections_are_freed_without_an_answer_to_a_close(driver) {
        const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
        let server = TestServer::start_with(driver, 1, |config| config.close_timeout = CLOSE_TIMEOUT);
        let mut clients: Vec<WebSocket> =
            (0..60).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let open = || server.sum(|counters| &counters.connections_open);
        assert_eq!(open(), 60);
        let began = Instant::now();
        for (index, client) in clients.iter_mut().enumerate() {
            // An unmasked frame (RFC 6455 5.1).
            client.client.send(crate::support::unmasked(OpCode::Text, b"x"));
            client.expect_close(1002);
            match index % 3 {
                0 => client.client.end(),
                1 => client.client.send([0x5a; 100]),
                _ => {}
            }
        }
        wait_until("clients that ended their stream are freed at once", || open() <= 40);
        assert!(began.elapsed() < CLOSE_TIMEOUT, "{:?}", began.elapsed());
        wait_until("the others are freed", || open() == 0);
        assert!(began.elapsed() < 2 * CLOSE_TIMEOUT, "in parallel: {:?}", began.elapsed());
    }

    fn a_stalled_client_that_resets_does_not_affect_others(driver) {
        let server = TestServer::start(driver, 1);
        let mut publisher = WebSocket::connect(server.edge(), "/ws?channel=other");
        let mut http = Client::connect(server.edge());
        for round in 1..20 {
            let mut stalled = WebSocket::over(Client::connect_narrow(server.edge()));
            stalled.client.send(WebSocket::request("/ws?channel=a"));
            stalled.read_upgrade();
            while server.sum(|counters| &counters.sends_partial) < round {
                http.publish("a", "x".repeat(100_000));
            }
            http.publish("a", "y");
            stalled.client.reset();
            wait_until("the connection is gone", || server.sum(|counters| &counters.connections_open) == 2);
            publisher.round_trip();
        }
    }

    fn replies_to_a_client_that_reads_late_stay_intact(driver) {
        let server = TestServer::start(driver, 1);
        let mut late = WebSocket::over(Client::connect_narrow(server.edge()));
        late.client.send(WebSocket::request("/ws?channel=a"));
        late.read_upgrade();
        let mut http = Client::connect(server.edge());
        let mut published = 0;
        while server.sum(|counters| &counters.sends_partial) == 0 {
            http.publish("a", "x".repeat(100_000));
            published += 1;
        }
        // Pongs for a stalled client wait for several turns while other clients are written to.
        for n in 0..50_u8 {
            late.send_frame(true, OpCode::Ping, &[n; 100]);
            for _ in 0..5 {
                assert_eq!(http.get("/health/live").status, 200);
            }
        }
        let mut pongs = 0;
        while pongs < 50 || published > 0 {
            match late.read() {
                Received::Text(text) => {
                    assert_eq!(text, "x".repeat(100_000));
                    published -= 1;
                }
                Received::Pong(payload) => {
                    assert_eq!(payload, [pongs; 100]);
                    pongs += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn connections_beyond_connections_max_are_rejected_until_one_closes(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.connections_max = Some(10));
        let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.echo_tcp())).collect();
        wait_until("ten connections are accepted", || server.sum(|counters| &counters.connections_accepted) == 10);
        for _ in 0..5 {
            Client::connect(server.echo_tcp()).expect_gone();
        }
        wait_until("the rejections are counted", || server.rejected("connection_limit") == 5);
        for client in &mut clients {
            client.send("hello");
            assert_eq!(client.read_exactly(5), b"hello");
        }
        drop(clients.pop());
        wait_until("one connection has closed", || server.sum(|counters| &counters.connections_open) == 9);
        let mut next = Client::connect(server.echo_tcp());
        next.send("hello");
        assert_eq!(next.read_exactly(5), b"hello");
    }

    /// Otherwise load balancers and orchestrators would treat a full server as dead.
    fn a_full_server_answers_its_health_checks(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.connections_max = Some(3));
        // The maximum number of clients is served.
        let mut sockets: Vec<WebSocket> =
            (0..3).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        for target in ["/health/live", "/health/ready", "/metrics"] {
            let mut probe = Client::connect(server.edge());
            probe.send_bytewise(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
            let answer = probe.read_response();
            assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{target}");
            probe.expect_end();
        }
        let upgrade = |target: &str| WebSocket::request(target);
        let refused = [
            (server.edge(), upgrade("/ws?channel=a")),
            (server.edge(), upgrade("/connection/websocket")),
            (server.edge(), upgrade("/")),
            (server.echo(), upgrade("/")),
            (server.echo(), "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n".into()),
            (server.edge(), "GET /poll?channel=a HTTP/1.1\r\nHost: t\r\n\r\n".into()),
            (server.edge(), "GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n".into()),
            (server.edge(), "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi".into()),
            (server.edge(), "POST /api/info HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}".into()),
        ];
        for (address, request) in &refused {
            let mut client = Client::connect(*address);
            client.send(request);
            let answer = client.read_response();
            assert_eq!(answer.status, 503, "{request}");
            assert!(matches!(answer.retry_after(), Some(5..=10)), "{request}");
            assert_eq!(answer.json()["error"]["code"], "connections_exhausted", "{request}");
            client.expect_end();
        }
        let mut stream = Client::connect(server.edge());
        stream.send("GET /events?channel=a HTTP/1.1\r\nHost: t\r\n\r\n");
        let said = String::from_utf8(stream.read_to_end()).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("retry: "), "{said}");
        let mut commands = Client::connect(server.commands());
        assert_eq!(commands.read_json()["push"]["disconnect"]["code"], 3003);
        commands.expect_end();
        Client::connect(server.echo_tcp()).expect_gone();
        assert_eq!(server.rejected("connection_limit"), 3 + 9 + 3);
        assert_eq!(server.sum(|counters| &counters.rejected_low_memory), 0);
        assert_eq!(server.sum(|counters| &counters.subscriptions), 3);
        sockets[0].send_text("undisturbed");
        for socket in &mut sockets {
            socket.expect_text("undisturbed");
        }
        // Rejected connections do not occupy a slot.
        drop((commands, stream, sockets.pop()));
        wait_until("the connections are closed", || server.sum(|counters| &counters.connections_open) == 2);
        let mut next = WebSocket::connect(server.edge(), "/ws?channel=b");
        next.send_text("in");
        next.expect_text("in");
        assert_eq!(server.rejected("connection_limit"), 3 + 9 + 3);
    }

    fn connections_beyond_the_maximum_are_limited_and_short_lived(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.connections_max = Some(1));
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a");
        let began = Instant::now();
        let mut silent: Vec<Client> =
            (1..SPARE_CONNECTIONS).map(|_| Client::connect(server.edge())).collect();
        let refused = |count| {
            wait_until("the rejections are counted", || {
                server.rejected("connection_limit") == count as u64
            });
        };
        refused(SPARE_CONNECTIONS - 1);
        assert_eq!(Client::connect(server.edge()).get("/health/live").status, 200);
        wait_until("the connection is closed", || {
            server.sum(|counters| &counters.connections_open) == SPARE_CONNECTIONS as u64
        });
        silent.push(Client::connect(server.edge()));
        refused(SPARE_CONNECTIONS + 1);
        let mut probe = Client::connect(server.edge());
        probe.expect_gone();
        refused(SPARE_CONNECTIONS + 2);
        for client in &mut silent {
            client.expect_end();
        }
        // The handshake timeout is ten seconds.
        assert!(began.elapsed() >= SPARE_CONNECTION_TIME);
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        drop(silent);
        wait_until("the connections are closed", || server.sum(|counters| &counters.connections_open) == 1);
        assert_eq!(Client::connect(server.edge()).get("/health/live").status, 200);
        socket.round_trip();
    }

    fn a_websocket_may_subscribe_to_the_maximum_number_of_channels(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.subscriptions_max = 3);
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a&channel=b&channel=c&channel=a");
        client.send_text("x");
        client.expect_text("x");
        let mut client = Client::connect(server.edge());
        client.send(WebSocket::request("/ws?channel=a&channel=b&channel=c&channel=d"));
        let refusal = client.read_response();
        assert_eq!(refusal.status, 400);
        assert!(refusal.text().contains("at most 3"), "{}", refusal.text());
    }

    fn without_descriptors_accepting_pauses_and_resumes(driver) {
        let child = Child::start(driver, &["--workers", "1"]);
        let mut before = WebSocket::connect(child.edge(), "/ws?channel=a");
        let mut metrics = Client::connect(child.edge());
        let mut pauses = || {
            let page = metrics.get("/metrics");
            let sample = page.text().lines().find(|line| line.starts_with("fantail_accept_pauses_total{"));
            sample.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(pauses(), 0);
        child.limit_files(1);
        // The kernel completes their handshakes; the server cannot take them.
        let mut waiting: Vec<WebSocket> = (0..5).map(|_| {
            let mut client = Client::connect(child.edge());
            client.send(WebSocket::request("/ws?channel=a"));
            WebSocket::over(client)
        }).collect();
        wait_until("accepting paused twice", || pauses() >= 2);
        before.send_text("undisturbed");
        before.expect_text("undisturbed");
        child.limit_files(libc::rlim_t::MAX);
        for client in &mut waiting {
            client.read_upgrade();
            client.send_text("in");
            client.expect_text("in");
        }
    }

    fn a_flood_of_publications_gets_backpressure_and_nothing_is_lost(driver) {
        let server = TestServer::start(driver, 2);
        const PUBLICATIONS_PER_WRITE: usize = 10_000;
        // The subscribers keep up with their send queues; only the fan-outs fall behind.
        let mut readers: Vec<WebSocket> =
            (0..300).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let payload = |n: usize| [u8::try_from(n % 251).expect("a byte")];
        let mut published = 0;
        let mut most = 0;
        while server.sum(|counters| &counters.publishers_paused) == 0 {
            let range = published..published + PUBLICATIONS_PER_WRITE;
            let frames: Vec<u8> =
                range.flat_map(|n| masked(true, OpCode::Binary, &payload(n))).collect();
            readers[0].client.send(&frames);
            published += PUBLICATIONS_PER_WRITE;
            most = server.sum(|counters| &counters.fan_out_backlog_publications).max(most);
            assert!(published < 1_000_000, "at most {most} were queued");
        }
        // The high-water marks of both workers, and the publications in flight when they were reached.
        assert!(most < 100_000, "{most}");
        let expected: Vec<u8> = (0..published).flat_map(|n| [0x82, 1, payload(n)[0]]).collect();
        for reader in &mut readers {
            assert!(reader.client.read_exactly(expected.len()) == expected);
            reader.round_trip();
        }
        assert_eq!(server.sum(|counters| &counters.publications), published as u64);
        assert_eq!(server.closed(CloseReason::SlowConsumer), 0);
    }
}
