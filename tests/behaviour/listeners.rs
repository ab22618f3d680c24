//! Listeners: addresses for administration.

use fantail::connection::Service;
use serde_json::json;

use crate::support::{Client, TestServer, WebSocket, on_both_drivers};

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
}
