//! Listeners: addresses for administration, Unix sockets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use fantail::config::{Config, DriverChoice, ListenAddress};
use fantail::connection::Service;
use fantail::protocol::websocket::OpCode;
use fantail::server::Server;
use serde_json::json;

use crate::support::{Client, Received, TestServer, WebSocket, on_both_drivers, wait_until};

/// A path that no other test uses.
fn socket_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("fantail-test-{}-{count}.sock", process::id()))
}

/// A server whose first address of clients is a Unix socket.
fn serve_at(driver: DriverChoice, path: &Path) -> TestServer {
    let path = ListenAddress::Unix(path.to_path_buf());
    TestServer::start_with(driver, 2, |config| config.listen.insert(0, path))
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
            config.api_key = Some("k".to_owned());
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
        let address = ListenAddress::Unix(path.to_path_buf());
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
        let again = Config { listen: vec![ListenAddress::Unix(path.clone())], driver, ..Config::default() };
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
}
