//! Listeners: addresses for administration, Unix sockets, the PROXY protocol.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fantail::config::{Config, DriverChoice, ListenAddress};
use fantail::connection::Service;
use fantail::protocol::websocket::OpCode;
use fantail::server::Server;
use serde_json::json;

use crate::support::{Child, Client, Received, TestServer, WebSocket, on_both_drivers, wait_until};

/// A path that no other test uses.
fn socket_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("fantail-test-{}-{count}.sock", process::id()))
}

/// A server whose first address of clients is a Unix socket.
fn serve_at(driver: DriverChoice, path: &Path) -> TestServer {
    let path = ListenAddress::from(path.to_path_buf());
    TestServer::start_with(driver, 2, |config| config.listen.insert(0, path))
}

/// A header of version 1.
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 50000 443\r\n";

/// A header of version 2 with an extension.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11\xc0\x00\x02\x01\xc6\x33\x64\x01\xc3\x50\x01\xbb\x01\x00\x02h2";

/// A server all of whose addresses expect the PROXY protocol, from this host.
fn serve_proxied(driver: DriverChoice, trusted: &str) -> TestServer {
    TestServer::start_with(driver, 1, |config| {
        for addresses in
            [&mut config.listen, &mut config.tcp, &mut config.echo, &mut config.echo_tcp]
        {
            addresses[0].expects_proxy_header = true;
        }
        config.trusted_proxies = vec![trusted.parse().unwrap()];
        config.handshake_timeout = Duration::from_millis(500);
    })
}

fn rejected(server: &TestServer, reason: &str) -> u64 {
    server.sum(|counters| counters.proxy_headers_rejected.labelled(reason))
}

const FOR_ADMIN: [&str; 6] =
    ["/", "/health/live", "/health/ready", "/metrics", "/api/info", "/api/publish"];

on_both_drivers! {
    fn addresses_of_clients_serve_nothing_for_administration_if_that_has_its_own(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.admin = config.listen.clone());
        let mut client = Client::connect(server.address(Service::Public));
        for path in FOR_ADMIN {
            for method in ["GET", "POST", "OPTIONS"] {
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"));
                let response = client.read_response();
                assert_eq!(response.status, 404, "{method} {path}");
                assert_eq!(response.json()["error"]["code"], "not_found");
            }
        }
        let mut websocket = WebSocket::connect(server.address(Service::Public), "/");
        let mut same = WebSocket::connect(server.address(Service::Public), "/ws?channel=lobby");
        websocket.send_text("hello");
        assert_eq!(same.read_text(), "hello");
    }

    fn an_address_for_administration_serves_everything(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.admin = config.listen.clone());
        let mut subscriber = WebSocket::connect(server.address(Service::Public), "/ws?channel=a");
        let mut admin = Client::connect(server.address(Service::Admin));
        assert!(admin.get("/").text().starts_with("<!doctype html>"));
        for path in ["/health/live", "/health/ready", "/metrics", "/poll?channel=a&timeout=0"] {
            assert_eq!(admin.get(path).status, 200, "{path}");
        }
        let body = json!({"channel": "a", "data": "x"}).to_string();
        let length = body.len();
        admin.send(format!("POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"));
        assert_eq!(admin.read_response().status, 200);
        assert_eq!(subscriber.read_text(), "\"x\"");
    }

    fn a_proxy_gets_the_page_of_an_address_for_administration_only_with_a_key(driver) {
        let forwarded = |server: &TestServer, service| {
            let mut client = Client::connect(server.address(service));
            client.send("GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
            let response = client.read_response();
            (response.status, response.text().starts_with("<!doctype html>"))
        };
        let server = TestServer::start_with(driver, 1, |config| config.admin = config.listen.clone());
        assert_eq!(forwarded(&server, Service::Public), (404, false));
        assert_eq!(forwarded(&server, Service::Admin), (200, false));
        let direct = Client::connect(server.address(Service::Admin)).get("/");
        assert!(direct.text().starts_with("<!doctype html>"), "a proxy elsewhere changes nothing");
        let server = TestServer::start_with(driver, 1, |config| {
            config.admin = config.listen.clone();
            config.api_key = Some("k".into());
        });
        assert_eq!(forwarded(&server, Service::Admin), (200, true));
    }

    fn everything_is_served_on_a_unix_socket(driver) {
        let path = socket_path();
        let server = serve_at(driver, &path);
        assert_eq!(Client::connect_unix(&path).get("/health/ready").status, 200);
        let mut websocket = WebSocket::upgrade(Client::connect_unix(&path), "/ws?channel=a");
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        websocket.send_text("from the socket");
        assert_eq!(subscriber.read_text(), "from the socket");
        // Unread bytes at the end do not cut the answer off.
        let mut client = Client::connect_unix(&path);
        client.send("POST / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 99999\r\n\r\nunread");
        assert_eq!(client.read_response().status, 405);
        client.expect_end();
    }

    fn long_messages_cross_a_unix_socket_whole(driver) {
        let path = socket_path();
        let address = ListenAddress::from(path.to_path_buf());
        let _server = TestServer::start_with(driver, 1, |config| config.echo.insert(0, address));
        let mut websocket = WebSocket::upgrade(Client::connect_unix(&path), "/");
        let payload: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        for _ in 0..3 {
            websocket.send_frame(true, OpCode::Binary, &payload);
            assert_eq!(websocket.read(), Received::Binary(payload.clone()));
        }
    }

    fn all_workers_accept_from_one_unix_socket(driver) {
        let path = socket_path();
        let server = serve_at(driver, &path);
        let mut clients = Vec::new();
        wait_until("both workers have accepted", || {
            let mut client = Client::connect_unix(&path);
            assert_eq!(client.get("/health/live").status, 200);
            clients.push(client);
            server.by_worker(|counters| &counters.connections_accepted).iter().all(|count| *count > 0)
        });
        let accepted = server.sum(|counters| &counters.connections_accepted);
        assert_eq!(accepted, clients.len() as u64, "each connection is accepted once");
        server.stop();
        drop(clients);
        drop(server);
        assert!(!path.exists(), "the socket's file is removed at the end");
    }

    fn a_unix_socket_of_a_killed_server_is_replaced(driver) {
        let path = socket_path();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists() && UnixStream::connect(&path).is_err());
        let server = serve_at(driver, &path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(Client::connect_unix(&path).get("/health/live").status, 200);
        let again = Config { listen: vec![ListenAddress::from(path.clone())], driver, ..Config::default() };
        let error = Server::start(&again).unwrap_err().to_string();
        assert!(error.contains("is in use: another process listens there"), "{error}");
        assert_eq!(Client::connect_unix(&path).get("/health/live").status, 200, "it is left alone");
        drop(server);
        fs::write(&path, "a file").unwrap();
        let error = Server::start(&again).unwrap_err().to_string();
        assert!(error.contains("exists and is not a socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"a file");
        fs::remove_file(&path).unwrap();
    }

    fn clients_are_served_behind_a_header_of_either_version(driver) {
        let server = serve_proxied(driver, "127.0.0.0/8");
        for header in [LINE, BINARY, b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
            let mut client = Client::connect(server.edge());
            client.send(header);
            assert_eq!(client.get("/health/live").status, 200);
            let mut client = Client::connect(server.edge());
            client.send([header, b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n"].concat());
            assert_eq!(client.read_response().status, 200);
            let mut client = Client::connect(server.edge());
            client.send_bytewise([header, b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n"].concat());
            assert_eq!(client.read_response().status, 200);
            let mut client = Client::connect(server.commands());
            client.send([header, b"{\"id\":1,\"connect\":{}}\n"].concat());
            assert!(client.read_json()["connect"].is_object());
            let mut client = Client::connect(server.echo_tcp());
            client.send(header);
            client.send("hello");
            assert_eq!(client.read_exactly(5), b"hello");
        }
        let mut websocket = {
            let mut client = Client::connect(server.edge());
            client.send(BINARY);
            WebSocket::upgrade(client, "/ws?channel=a")
        };
        websocket.send_text("hello");
        assert_eq!(websocket.read_text(), "hello");
    }

    fn an_echo_behind_a_header_has_no_deadline(driver) {
        let server = serve_proxied(driver, "127.0.0.1");
        let mut client = Client::connect(server.echo_tcp());
        client.send(LINE);
        let mut silent = Client::connect(server.echo_tcp());
        silent.send(&LINE[..7]);
        silent.expect_end();
        client.send("still here");
        assert_eq!(client.read_exactly(10), b"still here");
    }

    fn a_header_is_split_at_every_byte(driver) {
        let server = serve_proxied(driver, "127.0.0.1");
        for header in [LINE, BINARY] {
            for at in 1..header.len() {
                let mut client = Client::connect(server.edge());
                let before = server.sum(|counters| &counters.receives);
                client.send(&header[..at]);
                wait_until("the first part is received", || server.sum(|counters| &counters.receives) > before);
                client.send([&header[at..], b"GET /health/live HTTP/1.0\r\n\r\n"].concat());
                assert_eq!(client.read_response().status, 200, "{at}");
            }
        }
    }

    fn connections_without_a_valid_header_are_closed_and_counted(driver) {
        let server = serve_proxied(driver, "127.0.0.1");
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat();
        let huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
        for (reason, bytes) in [
            ("missing", b"GET / HTTP/1.1\r\nHost: t\r\n\r\n".to_vec()),
            ("missing", b"{\"id\":1,\"connect\":{}}\n".to_vec()),
            ("malformed", b"PROXY TCP4 192.0.2.1\r\n".to_vec()),
            ("malformed", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00".to_vec()),
            ("too_long", long),
            ("too_long", huge),
        ] {
            let before = rejected(&server, reason);
            for address in [server.edge(), server.commands(), server.echo_tcp()] {
                let mut client = Client::connect(address);
                client.send(&bytes);
                client.expect_gone();
            }
            assert_eq!(rejected(&server, reason), before + 3, "{reason}");
        }
        // A header that is never finished is closed in the time of a handshake.
        for begun in [&LINE[..20], &BINARY[..14], b""] {
            let mut client = Client::connect(server.commands());
            client.send(begun);
            client.read_to_end();
        }
    }

    fn connections_of_other_networks_are_closed(driver) {
        let server = serve_proxied(driver, "192.0.2.0/24");
        for address in [server.edge(), server.commands(), server.echo(), server.echo_tcp()] {
            Client::connect(address).expect_gone();
        }
        assert_eq!(rejected(&server, "untrusted"), 4);
        assert_eq!(server.sum(|counters| &counters.connections_accepted), 0);
    }
}

#[test]
fn the_address_of_a_client_is_in_the_log() {
    let arguments = [
        "--workers",
        "1",
        "--listen",
        "127.0.0.1:0 proxy",
        "--trusted-proxy",
        "127.0.0.0/8",
        "--log-level",
        "worker=debug,transport=debug",
    ];
    let mut child = Child::start(DriverChoice::Epoll, &arguments);
    // The program's other address is the first one.
    let mut client = Client::connect(child.addresses[1]);
    client.send(BINARY);
    assert_eq!(client.get("/").status, 200, "there is plain text");
    child.log_line(&["192.0.2.1:50000"]);
    let mut client = Client::connect(child.edge());
    client.send("GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: forged, 192.0.2.2\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    child.log_line(&["192.0.2.2"]);
}
