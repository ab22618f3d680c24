//! The program: signals, shutdown closes, exit codes, and errors at start.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fantail::config::DriverChoice;
use fantail::driver::hold_free_port;
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;

use crate::support::{
    Child, Client, Received, TempFile, TestServer, WebSocket, masked, on_both_drivers, run,
    wait_until,
};

/// Expects that the start fails with one line that contains all of these words, and an exit code other than 0.
#[track_caller]
fn expect_start_error(arguments: &[&str], words: &[&str]) {
    let ended = run(arguments);
    assert!(!ended.status.success(), "{ended:?}");
    let line = ended.stderr.trim_end();
    assert_eq!(line.lines().count(), 1, "{line}");
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

/// The signals that stop the server; test names use the names of the C library.
const SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// Connects until a connection is on this worker.
#[track_caller]
fn client_of(server: &TestServer, address: SocketAddr, worker: usize) -> Client {
    for _ in 0..100 {
        let before = server.by_worker(|counters| &counters.connections_accepted);
        let client = Client::connect(address);
        let accepted = || server.by_worker(|counters| &counters.connections_accepted);
        wait_until("the connection is accepted", || accepted() != before);
        if accepted()[worker] > before[worker] {
            return client;
        }
    }
    panic!("none of a hundred connections is on worker {worker}");
}

/// A channel whose home is this worker.
#[track_caller]
fn channel_of(server: &TestServer, worker: usize) -> String {
    let mut client = Client::connect(server.edge());
    let mut is_home = |name: &String| {
        let before = server.by_worker(|counters| &counters.publications)[worker];
        client.publish(name, "where?");
        server.by_worker(|counters| &counters.publications)[worker] > before
    };
    (0..100)
        .map(|n| format!("c{n}"))
        .find(&mut is_home)
        .expect("every worker is the home of some channel")
}

on_both_drivers! {
    fn a_signal_disconnects_all_clients_and_the_exit_code_is_0(driver) {
        for signal in SIGNALS {
            let mut child = Child::start(driver, &["--workers", "2", "--echo", "127.0.0.1:0", "--echo-tcp", "127.0.0.1:0"]);
            let mut sockets = vec![WebSocket::connect(child.addresses[2], "/")];
            let mut commands = Vec::new();
            for _ in 0..5 {
                sockets.push(WebSocket::connect(child.edge(), "/ws"));
                let mut client = Client::connect(child.commands());
                client.command(&json!({"id": 1, "connect": {}}));
                commands.push(client);
            }
            let mut idle = Client::connect(child.edge());
            assert_eq!(idle.get("/health/live").status, 200);
            let mut echo = Client::connect(child.addresses[3]);
            echo.send("x");
            assert_eq!(echo.read_exactly(1), b"x");
            let mut publisher = Client::connect(child.edge());
            publisher.publish("lobby", "last");

            let began = Instant::now();
            child.signal(signal);
            for (index, socket) in sockets.iter_mut().enumerate() {
                if index > 0 {
                    socket.expect_text("last");
                }
                socket.expect_close(1001);
            }
            for client in &mut commands {
                let push = client.read_json();
                assert_eq!(push["push"]["disconnect"]["code"], 3001, "{push}");
                client.expect_end();
            }
            idle.expect_end();
            echo.expect_end();
            drop((sockets, commands, idle, echo, publisher));
            assert_eq!(child.wait().code(), Some(0));
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
    }

    fn the_server_reports_not_ready_for_a_while_before_it_closes_connections(driver) {
        let drain = ["--workers", "2", "--drain-time", "1 s", "--shutdown-timeout", "2 s"];
        let mut child = Child::start(driver, &drain);
        let mut early = WebSocket::connect(child.edge(), "/ws?channel=a");
        let mut kept = Client::connect(child.edge());
        assert_eq!(kept.get("/health/ready").status, 200);
        let mut idle = Client::connect(child.edge());
        assert_eq!(idle.get("/health/live").header("connection"), Some("keep-alive"));
        let mut waiting = Client::connect(child.edge());
        waiting.send("GET /poll?channel=a HTTP/1.1\r\nHost: t\r\n\r\n");
        let began = Instant::now();
        child.signal(libc::SIGTERM);
        let is_ready = || Client::connect(child.edge()).get("/health/ready").status;
        wait_until("the server is not ready", || is_ready() == 503);
        // Clients that a load balancer still sends are served.
        let mut late = WebSocket::connect(child.edge(), "/ws?channel=a");
        assert_eq!(Client::connect(child.edge()).get("/health/live").status, 200);
        kept.publish("a", "still");
        for socket in [&mut early, &mut late] {
            socket.expect_text("still");
        }
        // RFC 9112 9.6: proxies and clients with persistent connections are asked to close them.
        kept.expect_end();
        let expect_last = |client: &mut Client, status| {
            let answer = client.read_response();
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{answer:?}");
            client.expect_end();
        };
        expect_last(&mut waiting, 200);
        for (request, status) in [
            ("GET /health/ready HTTP/1.1\r\nHost: t\r\n\r\n", 503),
            ("GET / HTTP/1.1\r\nHost: t\r\n\r\n", 200),
            ("GET /metrics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
            ("GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n", 404),
            ("POST /api/info HTTP/1.1\r\nHost: t\r\n\r\n", 400),
            ("OPTIONS / HTTP/1.1\r\nHost: t\r\n\r\n", 204),
            ("GET /poll?timeout=0 HTTP/1.1\r\nHost: t\r\n\r\n", 200),
        ] {
            let mut client = Client::connect(child.edge());
            client.send(request);
            expect_last(&mut client, status);
        }
        idle.send("GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n");
        expect_last(&mut idle, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        for socket in [&mut early, &mut late] {
            socket.expect_close(1001);
        }
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        drop((early, late, kept));
        assert_eq!(child.wait().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    fn with_a_drain_time_clients_are_disconnected_gradually(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.drain_time = Duration::from_millis(100);
            config.shutdown_timeout = Duration::from_secs(4);
        });
        let mut sockets: Vec<WebSocket> =
            (0..200).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        server.stop();
        wait_until("some are closed", || server.closed(CloseReason::Shutdown) > 0);
        let began = Instant::now();
        // The drain takes half of the shutdown timeout.
        wait_until("half are closed", || server.closed(CloseReason::Shutdown) >= 100);
        assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
        for socket in &mut sockets {
            assert_eq!(socket.read(), Received::Close(Some(1001), "shutdown".into()));
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    fn a_second_signal_ends_a_drain_at_once(driver) {
        for drain in [&["--drain-time", "1 min"][..], &[]] {
            let mut child = Child::start(driver, &[&["--workers", "2"], drain].concat());
            let began = Instant::now();
            child.signal(libc::SIGTERM);
            if !drain.is_empty() {
                let status = || Client::connect(child.edge()).get("/health/ready").status;
                wait_until("the server drains", || status() == 503);
                child.signal(libc::SIGINT);
                assert_eq!(child.wait().code(), Some(128 + libc::SIGINT));
            } else {
                assert_eq!(child.wait().code(), Some(0), "without a drain time it stops at once");
            }
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        }
    }

    // RFC 9110 15.6.4: the request had no effect, and the client may retry.
    fn an_unfinished_upload_gets_503_at_shutdown(driver) {
        let server = TestServer::start(driver, 2);
        let mut uploads = Vec::new();
        for begun in [
            "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf",
            "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf",
            "POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: 99\r\n\r\n{",
            "POST /publish?channel=a HTTP/1.1\r\nHost",
        ] {
            let before = server.sum(|counters| &counters.received_bytes);
            let mut client = Client::connect(server.edge());
            client.send(begun);
            let came = before + begun.len() as u64;
            wait_until("the upload arrived", || server.sum(|counters| &counters.received_bytes) >= came);
            uploads.push(client);
        }
        let mut idle = Client::connect(server.edge());
        assert_eq!(idle.get("/health/live").status, 200);
        server.stop();
        for client in &mut uploads {
            let response = client.read_response();
            assert_eq!((response.status, response.json()["error"]["code"].clone()), (503, json!("shutdown")));
            assert!(response.header("retry-after").is_some());
            client.expect_end();
        }
        idle.expect_end();
    }

    fn a_stalled_client_does_not_delay_the_exit(driver) {
        let mut child = Child::start(driver, &["--workers", "2", "--shutdown-timeout", "1 s"]);
        let mut stalled = WebSocket::over(Client::connect_narrow(child.edge()));
        stalled.client.send(WebSocket::request("/ws?channel=a"));
        stalled.read_upgrade();
        let silent = Client::connect(child.edge());
        let mut publisher = Client::connect(child.edge());
        for _ in 0..20 {
            publisher.publish("a", "x".repeat(100_000));
        }
        let began = Instant::now();
        child.signal(libc::SIGTERM);
        assert_eq!(child.wait().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        drop((stalled, silent));
    }

    fn a_stopping_server_accepts_no_new_connections(driver) {
        let server = TestServer::start(driver, 2);
        let mut stays = WebSocket::connect(server.edge(), "/ws");
        server.stop();
        assert_eq!(stays.read(), Received::Close(Some(1001), "shutdown".into()));
        wait_until("new connections are refused", || std::net::TcpStream::connect(server.edge()).is_err());
    }

    fn thousands_of_clients_receive_a_shutdown_close(driver) {
        let server = TestServer::start(driver, 2);
        let mut sockets: Vec<WebSocket> =
            (0..3000).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        server.stop();
        for socket in &mut sockets {
            assert_eq!(socket.read(), Received::Close(Some(1001), "shutdown".into()));
        }
    }

    fn accepted_publications_are_delivered_before_the_shutdown_close(driver) {
        for round in 0..3 {
            let server = TestServer::start(driver, 2);
            let mut sockets: Vec<WebSocket> =
                (0..2000).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
            let mut publisher = Client::connect(server.edge());
            for n in 0..3 {
                publisher.publish("a", format!("{round} {n}"));
            }
            server.stop();
            for socket in &mut sockets {
                for n in 0..3 {
                    socket.expect_text(&format!("{round} {n}"));
                }
                assert_eq!(socket.read(), Received::Close(Some(1001), "shutdown".into()));
            }
        }
    }

    fn batched_deliveries_are_sent_before_the_shutdown_close(driver) {
        let settings = "[channels]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
             allow_publish_for_client = true\nallow_publish_for_anonymous = true\n             batch_delay = '30 s'\n";
        let file = TempFile::new(&format!("paced-{driver:?}"), settings);
        let mut child = Child::start(driver, &["--workers", "2", "--config", file.path()]);
        let mut sockets: Vec<_> =
            (0..8).map(|_| WebSocket::connect(child.edge(), "/ws?channel=a")).collect();
        let mut publisher = Client::connect(child.edge());
        publisher.publish("a", "1");
        publisher.publish("a", "2");
        let began = Instant::now();
        child.signal(libc::SIGTERM);
        for socket in &mut sockets {
            socket.expect_text("1");
            socket.expect_text("2");
            socket.expect_close(1001);
        }
        drop((sockets, publisher));
        assert_eq!(child.wait().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    fn active_publishers_do_not_delay_the_shutdown(driver) {
        let server = TestServer::start(driver, 2);
        let sockets: Vec<WebSocket> =
            (0..300).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let publisher = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut stream = publisher.client.stream().try_clone().unwrap();
        let publishing = std::thread::spawn(move || {
            let frames = masked(true, OpCode::Binary, b"x").repeat(1000);
            while std::io::Write::write_all(&mut stream, &frames).is_ok() {}
        });
        wait_until("the publisher is publishing", || server.sum(|counters| &counters.publications) > 1000);
        server.stop();
        drop((sockets, publisher));
        let began = Instant::now();
        drop(server);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        publishing.join().unwrap();
    }

    fn publications_that_wait_for_a_worker_without_clients_are_answered_and_delivered_at_shutdown(driver) {
        let (mut answered, mut refused) = (0, 0);
        for round in 0..6 {
            let server = TestServer::start_with(driver, 2, |config| {
                config.shutdown_timeout = Duration::from_secs(2);
            });
            let channel = channel_of(&server, 1);
            let mut subscribers: Vec<WebSocket> = (0..20)
                .map(|_| WebSocket::over(client_of(&server, server.edge(), 0)))
                .collect();
            for subscriber in &mut subscribers {
                subscriber.client.send(WebSocket::request(&format!("/ws?channel={channel}")));
                subscriber.read_upgrade();
            }
            let mut publishers: Vec<Client> = (0..60).map(|_| client_of(&server, server.edge(), 0)).collect();
            wait_until("the other worker has no clients", || server.by_worker(|c| &c.connections_open)[1] == 0);
            let begun = format!("POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n");
            let came = |bytes: usize| move |server: &TestServer, before: u64| {
                server.sum(|counters| &counters.received_bytes) >= before + bytes as u64
            };
            let before = server.sum(|counters| &counters.received_bytes);
            for (n, publisher) in publishers.iter_mut().enumerate() {
                publisher.send(format!("{begun}{}", &format!("{round}{n:03}")[..3]));
            }
            let rest = came(publishers.len() * (begun.len() + 3));
            wait_until("all but the last bytes arrived", || rest(&server, before));
            let before = server.sum(|counters| &counters.received_bytes);
            for (n, publisher) in publishers.iter_mut().enumerate() {
                publisher.send(&format!("{round}{n:03}")[3..]);
            }
            // At this moment the last publications are on their way to the home worker or back.
            let (last, began) = (came(publishers.len()), Instant::now());
            while !last(&server, before) {
                assert!(began.elapsed() < Duration::from_secs(10));
                std::hint::spin_loop();
            }
            server.stop();

            let mut accepted = Vec::new();
            for (n, publisher) in publishers.iter_mut().enumerate() {
                let response = publisher.read_response();
                match response.status {
                    200 => accepted.push(format!("{round}{n:03}")),
                    status => {
                        assert_eq!(status, 503, "{response:?}");
                        refused += 1;
                    }
                }
            }
            answered += accepted.len();
            for subscriber in &mut subscribers {
                let mut delivered = Vec::new();
                let close = loop {
                    match subscriber.read() {
                        Received::Text(text) => delivered.push(text),
                        other => break other,
                    }
                };
                assert_eq!(close, Received::Close(Some(1001), "shutdown".into()));
                delivered.sort_unstable();
                assert_eq!(delivered, accepted);
            }
            // In one round no client closes its end: the server does not wait for that longer than the close timeout.
            if round > 0 {
                drop((subscribers, publishers));
            }
            let began = Instant::now();
            drop(server);
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        }
        assert!(answered > 0, "{refused} were refused");
    }

    fn publications_answered_by_one_worker_while_the_other_stops_are_delivered(driver) {
        const POSTS: usize = 300;
        for round in 0..10 {
            let server = TestServer::start(driver, 2);
            let channel = channel_of(&server, 1);
            let mut subscriber = WebSocket::over(client_of(&server, server.edge(), 0));
            subscriber.client.send(WebSocket::request(&format!("/ws?channel={channel}")));
            subscriber.read_upgrade();
            let mut publishers: Vec<Client> = (0..4).map(|_| client_of(&server, server.edge(), 1)).collect();
            let mut commander = client_of(&server, server.commands(), 1);
            commander.command(&json!({"id": 1, "connect": {}}));
            let before = server.sum(|counters| &counters.publications);
            for (of, publisher) in publishers.iter_mut().enumerate() {
                publisher.send((0..POSTS).fold(String::new(), |requests, n| {
                    requests + &format!(
                        "POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n{of} {n:03}"
                    )
                }));
            }
            commander.send((0..POSTS).fold(String::new(), |commands, n| {
                let publish = json!({"id": 10 + n, "publish": {"channel": channel, "data": n}});
                commands + &format!("{publish}\n")
            }));
            // At a different point in the middle of each round.
            let began = Instant::now();
            while server.sum(|counters| &counters.publications) < before + 1 + 40 * round {
                assert!(began.elapsed() < Duration::from_secs(10));
                std::hint::spin_loop();
            }
            server.stop();
            let mut delivered = Vec::new();
            let close = loop {
                match subscriber.read() {
                    Received::Text(text) => delivered.push(text),
                    other => break other,
                }
            };
            assert_eq!(close, Received::Close(Some(1001), "shutdown".into()));
            let replies = String::from_utf8(commander.read_to_end()).unwrap();
            for reply in replies.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
                if reply.get("publish").is_some() {
                    let publication = (reply["id"].as_u64().unwrap() - 10).to_string();
                    assert!(
                        delivered.contains(&publication),
                        "round {round}: {reply}, which is not among {}", delivered.len()
                    );
                }
            }
            for (of, publisher) in publishers.iter_mut().enumerate() {
                let answers = String::from_utf8(publisher.read_to_end()).unwrap();
                for (n, answer) in answers.split("HTTP/1.1 ").skip(1).enumerate() {
                    let publication = format!("{of} {n:03}");
                    assert!(
                        !answer.starts_with("200 ") || delivered.contains(&publication),
                        "round {round}: {publication} was accepted but is not among {}", delivered.len()
                    );
                }
            }
        }
    }

    fn a_restarted_server_binds_its_port_at_once(driver) {
        // Reserved, so that no other test takes the port in between.
        let (address, _held) = hold_free_port("127.0.0.1:0".parse().unwrap()).unwrap();
        let first = TestServer::start_with(driver, 2, |config| config.listen = vec![address.into()]);
        let mut client = WebSocket::connect(address, "/ws");
        first.stop();
        client.expect_close(1001);
        drop(client);
        drop(first);
        let again = TestServer::start_with(driver, 2, |config| config.listen = vec![address.into()]);
        assert_eq!(again.edge(), address);
        WebSocket::connect(address, "/ws").round_trip();
    }
}

#[test]
fn printed_addresses_of_wildcard_listeners_can_be_connected_to() {
    let arguments = ["--workers", "1", "--insecure", "--echo", "0.0.0.0:0", "--echo-tcp", "[::]:0"];
    let child = Child::start(DriverChoice::Epoll, &arguments);
    let [.., echo, echo_tcp] = child.addresses[..] else { panic!("{:?}", child.addresses) };
    assert!(echo.ip().is_loopback() && echo_tcp.ip().is_loopback(), "{echo} {echo_tcp}");
    WebSocket::connect(echo, "/").round_trip();
    let mut client = Client::connect(echo_tcp);
    client.send("hello");
    assert_eq!(client.read_exactly(5), b"hello");
}

#[test]
fn a_start_error_names_the_use_of_the_port() {
    let running = Child::start(DriverChoice::Epoll, &["--workers", "1"]);
    let (address, pid) = (running.edge().to_string(), running.pid().to_string());
    expect_start_error(&["--listen", &address], &[&address, "another fantail", &pid]);

    // An outgoing connection from the port, without address sharing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let leave = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&listener.local_addr().unwrap().into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
        (socket, listener.accept().unwrap().0, address)
    };
    let (socket, accepted, address) = leave();
    expect_start_error(
        &["--listen", &address],
        &[&address, "left this host", "ip_local_port_range"],
    );
    drop((socket, accepted));
    // The end that closes first keeps the connection in TIME-WAIT for a minute, unless the kernel's table is full:
    // other tests close thousands of connections.
    let time_wait = (0..100).find_map(|_| {
        let (socket, accepted, address) = leave();
        drop(socket);
        drop(accepted);
        let is_free = TcpListener::bind(&address).is_ok();
        std::thread::sleep(Duration::from_millis(if is_free { 100 } else { 0 }));
        (!is_free).then_some(address)
    });
    let address = time_wait.expect("the kernel keeps a connection in TIME-WAIT");
    expect_start_error(&["--listen", &address], &[&address, "left this host", "TIME-WAIT"]);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // This test process listens on it.
    let pid = std::process::id().to_string();
    expect_start_error(&["--listen", &address], &[&address, "in use", "listens there", &pid]);
    let server = TestServer::start(DriverChoice::Auto, 1);
    let address = server.edge().to_string();
    expect_start_error(&["--tcp", &address], &[&address, "in use"]);
}

#[test]
fn an_address_used_by_two_services_is_rejected() {
    let arguments = ["--listen", "127.0.0.1:9", "--tcp", "127.0.0.1:9"];
    expect_start_error(&arguments, &["127.0.0.1:9", "twice"]);
}

#[test]
fn an_address_of_another_host_or_outside_loopback_is_rejected() {
    expect_start_error(&["--listen", "0.0.0.0:0"], &["0.0.0.0:0", "--insecure", "loopback"]);
    expect_start_error(&["--echo-tcp", "[::]:0"], &["[::]:0", "--insecure"]);
    expect_start_error(
        &["--listen", "192.0.2.1:0", "--insecure"],
        &["192.0.2.1:0", "not an address of this host"],
    );
}

#[test]
fn errors_about_values_out_of_range_name_the_setting_and_the_range() {
    let at = ["--listen", "127.0.0.1:0"];
    for (flag, value, words) in [
        ("--workers", "0", ["--workers", "1 to 128"]),
        ("--workers", "129", ["129", "1 to 128"]),
        ("--connections-max", "0", ["--connections-max", "from 1"]),
        ("--connections-max", "1000000000", ["1000000000", "ulimit -n"]),
        ("--message-bytes-max", "1 GiB", ["--message-bytes-max", "1 B to 64 MiB"]),
        ("--send-queue-bytes-max", "1", ["--send-queue-bytes-max", "4 KiB to 1 GiB"]),
        ("--subscriptions-max", "0", ["--subscriptions-max", "4096"]),
        ("--handshake-timeout", "0", ["--handshake-timeout", "100 ms to 1 d"]),
        ("--shutdown-timeout", "2000 h", ["--shutdown-timeout", "100 ms to 1 d"]),
    ] {
        expect_start_error(&[at[0], at[1], flag, value], &words);
    }
}

#[test]
fn an_open_file_limit_without_room_for_connections_is_reported() {
    let script =
        format!("ulimit -n 100; exec {} --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_fantail"));
    let ended = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(!ended.status.success(), "{ended:?}");
    let line = String::from_utf8(ended.stderr).unwrap();
    assert!(line.contains("limit of 100 open files") && line.contains("ulimit -n"), "{line}");
}

#[test]
fn errors_about_invalid_values_name_the_flag_and_the_value() {
    for (flag, value) in [
        ("--listen", "nowhere"),
        ("--workers", "many"),
        ("--driver", "kqueue"),
        ("--message-bytes-max", "12 parsecs"),
        ("--keepalive-interval", "soon"),
    ] {
        let ended = run(&[flag, value]);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(flag) && ended.stderr.contains(value), "{ended:?}");
    }
    let ended = run(&["--no-such-flag"]);
    assert!(!ended.status.success() && ended.stderr.contains("--no-such-flag"), "{ended:?}");
}

#[test]
fn the_help_describes_the_flags_and_examples() {
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let ended = run(arguments);
        assert!(ended.status.success(), "{ended:?}");
        for word in [
            "--listen",
            "--tcp",
            "--echo",
            "--echo-tcp",
            "--workers",
            "--driver",
            "--insecure",
            "--connections-max",
            "--message-bytes-max",
            "--shutdown-timeout",
            "127.0.0.1:8000",
            "127.0.0.1:8001",
            "curl -d hello",
            "SIGTERM",
        ] {
            assert!(ended.stdout.contains(word), "{word} is not in the help: {}", ended.stdout);
        }
    }
    let version = run(&["--version"]);
    assert!(version.stdout.starts_with("fantail "), "{version:?}");
}

/// What an agent check of HAProxy is answered.
fn agent_check(child: &Child, pieces: &[&str]) -> String {
    let mut client = Client::connect(child.edge());
    for piece in pieces {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    String::from_utf8(client.read_to_end()).unwrap()
}

on_both_drivers! {
    fn an_agent_check_says_ready_and_then_drain(driver) {
        let arguments = ["--drain-time", "10s", "--admin", "127.0.0.1:0"];
        let child = Child::start(driver, &["--drain-time", "10s"]);
        assert_eq!(agent_check(&child, &["agent-check\n"]), "ready up\n");
        assert_eq!(agent_check(&child, &["age", "nt-check", "\n"]), "ready up\n");
        // Nothing else is an agent check.
        for other in ["agent-check\r\n\r\n", "agent-check\nagent-check\n", "agent-checks\n\n"] {
            let answer = agent_check(&child, &[other]);
            assert!(answer.starts_with("HTTP/1.1 400"), "{other:?}: {answer}");
        }
        child.signal(libc::SIGTERM);
        wait_until("it says drain", || agent_check(&child, &["agent-check\n"]) == "drain\n");
        // It is answered where health checks are, and nowhere else.
        let child = Child::start(driver, &arguments);
        let answer = agent_check(&child, &["agent-check\n"]);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let admin = child.addresses.iter().copied().find(|it| {
            *it != child.edge() && Client::connect(*it).try_request("GET /health/ready HTTP/1.1\r\nHost: t\r\n\r\n")
                .is_some_and(|response| response.status == 200)
        });
        let mut client = Client::connect(admin.expect("it has health checks"));
        client.send("agent-check\n");
        assert_eq!(client.read_to_end(), b"ready up\n");
    }
}
