//! Limits of the connections of one network prefix, on all workers together.

use std::any::Any;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use fantail::config::{ClientHeader, Config, DriverChoice};
use fantail::connection::Service;
use fantail::message::CloseReason;
use serde_json::json;

use crate::support::{
    Child, Client, EPOLL, EventStream, TempFile, TestServer, WebSocket, on_both_drivers, wait_until,
};

/// Two clients of this host with different prefixes.
const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// The number of connections that the limits allow.
const MAX: usize = 20;

fn serve(driver: DriverChoice, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(driver, 2, change)
}

/// A new connection of an address, if it is served.
fn connect(server: &TestServer, source: Ipv4Addr) -> Option<Client> {
    let mut client = Client::connect_from(source, server.edge());
    let response = client.try_request("GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n")?;
    (response.status == 200).then_some(client)
}

fn all_rejected(server: &TestServer) -> u64 {
    ["prefix_connections", "prefix_handshakes", "prefix_rate"]
        .map(|it| server.rejected(it))
        .iter()
        .sum()
}

/// The number of waiting polls.
fn polls(server: &TestServer) -> u64 {
    server.sum(|counters| counters.connections.labelled("long_poll"))
}

/// The header with which a proxy names a client.
fn header(client: &str) -> Vec<u8> {
    let (kind, target) = if client.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
    format!("PROXY {kind} {client} {target} 5000 80\r\n").into_bytes()
}

on_both_drivers! {
    fn a_prefix_has_connections_up_to_the_maximum_of_all_workers(driver) {
        let server = serve(driver, |config| config.prefix_connections_max = Some(MAX));
        let mut clients: Vec<_> = (0..MAX).map(|_| connect(&server, ONE).unwrap()).collect();
        assert!(server.by_worker(|it| &it.connections_accepted).iter().all(|count| *count > 0));
        for past in 1..=5 {
            assert!(connect(&server, ONE).is_none());
            assert_eq!(server.rejected("prefix_connections"), past);
        }
        assert!(connect(&server, OTHER).is_some(), "another prefix has connections of its own");
        clients.truncate(MAX - 1);
        wait_until("a place is free", || connect(&server, ONE).is_some());
    }

    fn handshakes_of_every_door_count_until_they_are_complete(driver) {
        let server = serve(driver, |config| config.prefix_handshakes_max = Some(3));
        let silent = |address| Client::connect_from(ONE, address);
        let mut half_open = vec![silent(server.edge()), silent(server.commands()), silent(server.echo())];
        half_open[0].send("GET / HTTP/1.1\r\n");
        half_open[2].send("GET / HTTP/1.1\r\nUpgrade: ");
        wait_until("they are accepted", || server.sum(|it| &it.connections_accepted) == 3);
        for address in [server.edge(), server.commands(), server.echo(), server.echo_tcp()] {
            Client::connect_from(ONE, address).expect_gone();
        }
        assert_eq!(server.rejected("prefix_handshakes"), 4);
        assert!(connect(&server, OTHER).is_some());
        half_open.truncate(2);
        // Each of these completes the one handshake that is left.
        wait_until("a place is free", || connect(&server, ONE).is_some());
        let from = |address| Client::connect_from(ONE, address);
        let mut done: Vec<Box<dyn Any>> = Vec::new();
        for _ in 0..3 {
            let mut client = from(server.edge());
            assert_eq!(client.get("/").status, 200);
            done.push(Box::new(client));
            done.push(Box::new(WebSocket::upgrade(from(server.edge()), "/ws?channel=a")));
            done.push(Box::new(WebSocket::upgrade(from(server.echo()), "/")));
            done.push(Box::new(EventStream::over(from(server.edge()), "/events?channel=a", "")));
            let mut socket = WebSocket::upgrade(from(server.edge()), "/connection/websocket");
            socket.send_text("{\"id\":1,\"connect\":{}}");
            assert!(socket.read_text().contains("connect"));
            done.push(Box::new(socket));
            let mut client = from(server.commands());
            client.command(&json!({"id": 1, "connect": {}}));
            done.push(Box::new(client));
            let mut client = from(server.echo_tcp());
            client.send("x");
            assert_eq!(client.read_exactly(1), b"x");
            done.push(Box::new(client));
            let mut client = from(server.edge());
            client.send("GET /poll?channel=a HTTP/1.1\r\nHost: t\r\n\r\n");
            wait_until("the poll waits", || polls(&server) == done.len() as u64 / 8 + 1);
            done.push(Box::new(client));
        }
        // An upgrade alone does not complete the handshake of a client that sends commands.
        let _upgraded = WebSocket::upgrade(Client::connect_from(ONE, server.edge()), "/connection/websocket");
        Client::connect_from(ONE, server.edge()).expect_gone();
    }

    fn connections_of_a_prefix_come_up_to_the_rate(driver) {
        let rate = 5;
        let server = serve(driver, |config| config.prefix_connection_rate_max = Some(rate));
        let began = Instant::now();
        let served = (0..3 * rate).filter(|_| connect(&server, ONE).is_some()).count();
        let allowed = rate + (began.elapsed().as_secs_f64() * rate as f64) as usize + 1;
        assert!((rate..=allowed).contains(&served), "{served} of {allowed}");
        assert_eq!(server.rejected("prefix_rate"), (3 * rate - served) as u64);
        assert!(connect(&server, OTHER).is_some());
        thread::sleep(Duration::from_millis(1100));
        assert!((0..rate).all(|_| connect(&server, ONE).is_some()), "after a second there are as many again");
    }

    fn a_proxys_clients_are_counted_and_the_proxy_is_not(driver) {
        let server = serve(driver, |config| {
            config.listen[0].expects_proxy_header = true;
            config.tcp[0].expects_proxy_header = true;
            config.trusted_proxies = vec!["127.0.0.2".parse().unwrap()];
            config.prefix_connections_max = Some(2);
        });
        let connect = |header: &[u8]| {
            let mut client = Client::connect_from(ONE, server.edge());
            let request = [header, b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"].concat();
            client.try_request(request).map(|_| client)
        };
        let before = server.closed(CloseReason::ConnectionLimit);
        let one = [0; 2].map(|_| connect(&header("192.0.2.1")).unwrap());
        assert!(connect(&header("192.0.2.1")).is_none());
        let _others = [0; 2].map(|_| connect(&header("192.0.2.2")).unwrap());
        // The addresses of one /64 are one prefix.
        let _six = ["2001:db8::1", "2001:db8::2"].map(|client| connect(&header(client)).unwrap());
        assert!(connect(&header("2001:db8::ffff:3")).is_none());
        assert!(connect(&header("2001:db8:0:1::3")).is_some());
        assert_eq!(server.rejected("prefix_connections"), 2);
        assert_eq!(server.closed(CloseReason::ConnectionLimit), before + 2);
        // A proxy's own connections have no client.
        let _own: Vec<_> = (0..9).map(|_| connect(b"PROXY UNKNOWN\r\n").unwrap()).collect();
        drop(one);
        wait_until("the client has room again", || connect(&header("192.0.2.1")).is_some());
        let mut commands = Client::connect_from(ONE, server.commands());
        commands.send(header("192.0.2.2"));
        commands.expect_gone();
    }

    fn a_proxys_requests_count_for_the_clients_that_they_name(driver) {
        let server = serve(driver, |config| {
            config.trusted_proxies = vec!["127.0.0.2".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
            config.prefix_connections_max = Some(2);
        });
        let request = |path: &str, forwarded: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {forwarded}\r\n\r\n")
        };
        let open = |path: &str, forwarded: &str| {
            let mut client = Client::connect_from(ONE, server.edge());
            client.send(request(path, forwarded));
            client
        };
        let poll = "/poll?channel=a";
        // The address in front of the trusted ones counts, whatever the client sent itself.
        let mut waiting = vec![
            open(poll, "192.0.2.1"),
            open(poll, "198.51.100.1, 192.0.2.1, 10.1.1.1"),
        ];
        wait_until("both polls wait", || polls(&server) == 2);
        let mut third = open(poll, "192.0.2.1");
        let refused = third.read_response();
        assert_eq!(refused.status, 429);
        assert!(refused.header("retry-after").is_some());
        assert_eq!(refused.json()["error"]["code"], "prefix_exhausted");
        assert_eq!(server.rejected("prefix_connections"), 1);
        // The connection is the proxy's, and serves other clients.
        third.send(request("/", "192.0.2.2"));
        assert_eq!(third.read_response().status, 200);
        let mut upgrade = Client::connect_from(ONE, server.edge());
        upgrade.send(WebSocket::request("/ws").replace("\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"));
        assert_eq!(upgrade.read_response().status, 429);
        let mut stream = EventStream::over(
            Client::connect_from(ONE, server.edge()), "/events", "X-Forwarded-For: 192.0.2.1\r\n");
        assert_eq!(stream.read().kind, "disconnect");
        // What is answered counts no longer, although the proxy keeps the connections.
        let mut kept: Vec<_> = (0..9).map(|_| open("/", "192.0.2.3")).collect();
        for client in &mut kept {
            assert_eq!(client.read_response().status, 200);
        }
        waiting.pop();
        wait_until("a place is free", || {
            third.send(request("/", "192.0.2.1"));
            third.read_response().status == 200
        });
        // Without an address, or behind something else, the client is not known.
        for forwarded in ["", "unknown", "192.0.2.1, nonsense", "10.0.0.1"] {
            assert_eq!(open("/", forwarded).read_response().status, 200, "{forwarded}");
        }
    }

    fn headers_of_others_name_no_client(driver) {
        let server = serve(driver, |config| {
            config.trusted_proxies = vec!["127.0.0.2".parse().unwrap()];
            config.client_header = ClientHeader::Forwarded;
            config.prefix_connections_max = Some(1);
        });
        let get = |source, header: &str| {
            let mut client = Client::connect_from(source, server.edge());
            let request = format!("GET /poll?channel=a HTTP/1.1\r\nHost: t\r\n{header}\r\n\r\n");
            client.send(request);
            client
        };
        let _poll = get(ONE, "Forwarded: for=192.0.2.1;proto=https");
        wait_until("it waits", || polls(&server) == 1);
        assert_eq!(get(ONE, "Forwarded: for=\"192.0.2.1:99\"").read_response().status, 429);
        // The header that is not set as the one that proxies write may be the client's own.
        let _same = get(ONE, "X-Forwarded-For: 192.0.2.1");
        wait_until("it waits", || polls(&server) == 2);
        // A peer that is not trusted cannot use up what others may have, or go beyond what it may have itself.
        let _other = get(OTHER, "Forwarded: for=192.0.2.2");
        wait_until("it waits", || polls(&server) == 3);
        get(OTHER, "Forwarded: for=192.0.2.3").expect_gone();
        let _real = get(ONE, "Forwarded: for=192.0.2.2");
        wait_until("it waits", || polls(&server) == 4);
    }

    fn a_proxy_behind_the_proxy_protocol_names_clients_in_requests(driver) {
        let server = serve(driver, |config| {
            config.listen[0].expects_proxy_header = true;
            config.trusted_proxies = vec!["127.0.0.2".parse().unwrap(), "192.0.2.77".parse().unwrap()];
            config.prefix_connections_max = Some(1);
        });
        let poll = |first: &str, forwarded: &str| {
            let mut client = Client::connect_from(ONE, server.edge());
            let request = format!(
                "GET /poll?channel=a HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
            client.send([header(first), request.into_bytes()].concat());
            client
        };
        let _waiting = poll("192.0.2.77", "198.51.100.1");
        wait_until("it waits", || polls(&server) == 1);
        assert_eq!(poll("192.0.2.77", "198.51.100.1").read_response().status, 429);
        let _other = poll("192.0.2.77", "198.51.100.2");
        wait_until("it waits", || polls(&server) == 2);
        let _forger = poll("198.51.100.3", "198.51.100.9");
        wait_until("it waits", || polls(&server) == 3);
        poll("198.51.100.3", "198.51.100.10").expect_gone();
    }

    fn trusted_networks_unix_sockets_and_administration_are_exempt(driver) {
        let path = std::env::temp_dir().join(format!("fantail-test-{}-{driver:?}.prefix", std::process::id()));
        let unix = path.clone();
        let server = serve(driver, |config| {
            config.admin = config.listen.clone();
            config.listen.push(unix.into());
            config.trusted_proxies = vec!["127.0.0.3".parse().unwrap()];
            config.prefix_connections_max = Some(1);
        });
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(Client::connect_from(OTHER, server.address(Service::Public)));
            clients.push(Client::connect_from(ONE, server.address(Service::Admin)));
            clients.push(Client::connect_unix(&path));
        }
        for client in &mut clients {
            assert_ne!(client.get("/nothing").status, 200);
        }
        assert_eq!(all_rejected(&server), 0);
        let mut first = Client::connect_from(ONE, server.address(Service::Public));
        assert_eq!(first.get("/nothing").status, 404);
        Client::connect_from(ONE, server.address(Service::Public)).expect_gone();
    }
}

#[test]
fn a_reload_sets_the_limits_and_refusals_are_logged_once_a_second() {
    let file = TempFile::new("prefixes", "[limits]\nprefix_connections_max = 100\n");
    let mut child = Child::start(EPOLL, &["--workers", "1", "--config", file.path()]);
    let began = Instant::now();
    let _first = Client::connect_from(ONE, child.edge());
    file.write("[limits]\nprefix_connections_max = 1\nprefix_v4_bits = 24\n");
    child.signal(libc::SIGHUP);
    child.log_line(&["limits.prefix_connections_max"]);
    // The prefix is another one now, in which the first connection does not count.
    let request = "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut counted = Vec::new();
    wait_until("the limit holds", || {
        counted.truncate(counted.len().saturating_sub(2));
        let pair = [ONE, OTHER].map(|source| {
            let mut client = Client::connect_from(source, child.edge());
            let is_served = client.try_request(request).is_some();
            counted.push(client);
            is_served
        });
        pair == [true, false]
    });
    for _ in 0..100 {
        Client::connect_from(OTHER, child.edge()).expect_gone();
    }
    let seconds = began.elapsed().as_secs() as usize + 1;
    child.log_line(&["prefix_connections", "127.0.0.0/24"]);
    drop(counted);
    child.signal(libc::SIGTERM);
    let lines = child.whole_log();
    let warned = lines.iter().filter(|line| line.contains("127.0.0.0/24")).count();
    assert!(warned <= seconds, "{lines:?}");
}
