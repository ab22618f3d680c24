//! HTTP: endpoints, and responses to malformed requests.

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;

use fantail::config::CallbackKind;

use crate::support::{
    Client, Response, SECRET, TestServer, WebSocket, on_both_drivers, token, wait_until,
};

const GET: &str = "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n";

/// A request that publishes the payload `x` to channel `a`, with additional headers.
fn publish_with(headers: &str) -> String {
    format!("POST /publish?channel=a HTTP/1.1\r\nHost: t\r\n{headers}\r\nx")
}

/// Sends bytes on a new connection and expects a response with this status, after which the connection closes.
#[track_caller]
fn expect_refusal(server: &TestServer, request: impl AsRef<[u8]>, status: u16) -> Response {
    let request = request.as_ref();
    let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
    let mut client = Client::connect(server.edge());
    client.send(request);
    let response = client.read_response();
    assert_eq!(response.status, status, "{shown:?}: {response:?}");
    let closes = |(name, value): &(String, String)| name == "connection" && value == "close";
    assert!(response.headers.iter().any(closes), "{shown:?}: {response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{shown:?}");
    let error = &response.json()["error"];
    assert_eq!(error["status"], status, "{shown:?}");
    assert!(error["code"].as_str().is_some_and(|code| !code.is_empty()), "{shown:?}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(' ')), "{shown:?}");
    client.expect_end();
    response
}

/// Expects a response with this status to a complete, well-formed request, after which the connection accepts another
/// one.
#[track_caller]
fn expect_kept(server: &TestServer, request: &str, status: u16) -> Response {
    let mut client = Client::connect(server.edge());
    client.send(request);
    let response = client.read_response();
    assert_eq!(response.status, status, "{request:?}: {response:?}");
    assert!(response.text().ends_with('\n'), "{request:?}: the body ends with a line feed");
    assert_eq!(client.get("/health/live").status, 200, "{request:?}");
    response
}

/// Expects exactly one `Date` header, between `before` and now, at a resolution of one second.
#[track_caller]
fn assert_current_date(response: &Response, before: SystemTime) {
    let dates: Vec<_> = response.headers.iter().filter(|(name, _)| name == "date").collect();
    let [(_, date)] = dates[..] else { panic!("{response:?}") };
    let at = httpdate::parse_http_date(date).unwrap();
    let now = SystemTime::now();
    assert!(at <= now && at + Duration::from_secs(1) > before, "{date}: {before:?} to {now:?}");
}

on_both_drivers! {
    fn pages_are_served_and_the_connection_is_kept_alive(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let live = client.get("/health/live");
        assert_eq!((live.status, live.text()), (200, "{\"status\":\"live\"}\n"));
        let welcome = client.get("/");
        assert_eq!(welcome.status, 200);
        assert!(welcome.text().contains("<title>fantail</title>"));
        let metrics = client.get("/metrics");
        assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
        for worker in 0..2 {
            let sample = format!("fantail_connections_accepted_total{{worker=\"{worker}\"}}");
            assert!(metrics.text().contains(&sample));
        }
        assert_eq!(client.get("/health/live").status, 200);
    }

    fn a_head_request_gets_headers_without_a_body(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        for target in ["/health/live", "/", "/metrics"] {
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
            let response = client.read_response_head();
            assert_eq!(response.status, 200);
            assert_ne!(response.header("content-length"), Some("0"));
        }
        client.send("HEAD /nowhere HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.read_response_head().status, 404);
        assert_eq!(client.get("/health/live").status, 200);
        client.send("HEAD /ws?chanel=a HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.read_response_head().status, 400);
        client.expect_end();
    }

    fn http_1_0_connections_are_closed_unless_they_request_keep_alive(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        client.send("GET /health/live HTTP/1.0\r\n\r\n");
        let response = client.read_response();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        client.expect_end();

        let mut client = Client::connect(server.edge());
        for _ in 0..2 {
            client.send("GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            let response = client.read_response();
            assert_eq!((response.status, response.header("connection")), (200, Some("keep-alive")));
        }
    }

    fn connection_close_is_honoured(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n{GET}"));
        assert_eq!(client.read_response().status, 200);
        client.expect_end();
    }

    fn pipelined_requests_are_answered_in_order(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        // The channels' home workers differ, so some answers come from the other worker.
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=c0&channel=c1&channel=c2&channel=c3");
        let mut requests = Vec::new();
        for index in 0..200 {
            let channel = index % 4;
            let payload = index.to_string();
            write!(
                requests,
                "POST /publish?channel=c{channel} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{payload}{GET}",
                payload.len()
            ).unwrap();
        }
        requests.extend_from_slice(b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        client.send(&requests);
        for index in 0..200_u64 {
            let published = client.read_response();
            assert_eq!(published.status, 200, "{published:?}");
            assert_eq!(published.json()["offset"], index / 4 + 1);
            assert_eq!(client.read_response().text(), "{\"status\":\"live\"}\n");
        }
        assert!(client.read_response().text().contains("fantail_publications_total"));
        client.expect_end();
        let mut got: Vec<u32> = (0..200).map(|_| subscriber.read_text().parse().unwrap()).collect();
        for channel in 0..4 {
            let of_channel: Vec<u32> = got.iter().copied().filter(|n| n % 4 == channel).collect();
            assert!(of_channel.is_sorted(), "{of_channel:?}");
        }
        got.sort_unstable();
        assert_eq!(got, (0..200).collect::<Vec<_>>());
    }

    fn requests_may_arrive_byte_by_byte(driver) {
        let server = TestServer::start(driver, 2);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = Client::connect(server.edge());
        client.send_bytewise("POST /publish?channel=%61 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send_bytewise("5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: t\r\n\r\n");
        client.send_bytewise(GET);
        assert_eq!(client.read_response().json()["offset"], 1);
        assert_eq!(client.read_response().status, 200);
        subscriber.expect_text("hello!");
    }

    fn all_encodings_of_an_empty_body_are_equivalent(driver) {
        // RFC 9110 8.6 and 9.3.1. Java's HttpClient (11 to 18) declares an empty body with GET, Safari with a
        // preflight; http-proxy, Envoy and lighttpd add it to OPTIONS.
        let server = TestServer::start(driver, 2);
        // RFC 9112 7.1: a last chunk alone is an empty body too, whatever follows its size.
        let (chunked, last_chunk) = ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n");
        for (length, body) in [
            ("", ""), ("Content-Length: 0\r\n", ""), ("Content-Length: 00\r\n", ""), (chunked, last_chunk),
            (chunked, "000;a=b\r\nTrailer: x\r\n\r\n"),
        ] {
            for target in ["/", "/health/live", "/health/ready", "/metrics", "/poll?timeout=0", "/poll?channel=a&timeout=0"] {
                for method in ["GET", "HEAD"] {
                    let mut client = Client::connect(server.edge());
                    let head = format!("{method} {target} HTTP/1.1\r\nHost: t\r\n{length}\r\n");
                    client.send(format!("{head}{body}"));
                    assert_eq!(client.read_response_head().status, 200, "{method} {target} {length}");
                    if body.is_empty() {
                        continue;
                    }
                    // Its last chunk follows the head byte by byte.
                    let mut client = Client::connect(server.edge());
                    client.send_bytewise(format!("{head}{body}"));
                    assert_eq!(client.read_response_head().status, 200, "{method} {target} {length}");
                }
            }
            for target in ["/", "/health/live", "/health/ready", "/metrics", "/events", "/poll", "/publish", "/api/info"] {
                let mut client = Client::connect(server.edge());
                client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: t\r\nOrigin: https://a\r\n{length}\r\n{body}"));
                let response = client.read_response();
                assert_eq!(response.status, 204, "OPTIONS {target} {length}");
                assert!(response.header("allow").is_some_and(|allow| allow.ends_with("OPTIONS")));
                assert!(response.header("access-control-allow-methods").is_some());
                // HAProxy's health check by default.
                // RFC 9112 6.1: HTTP/1.0 has no chunked encoding.
                if body.is_empty() {
                    client.send(format!("OPTIONS {target} HTTP/1.0\r\n{length}\r\n"));
                    assert_eq!(client.read_response().status, 204, "OPTIONS {target} {length}");
                }
            }
            let mut stream = Client::connect(server.edge());
            stream.send(format!("GET /events HTTP/1.1\r\nHost: t\r\n{length}\r\n{body}"));
            assert_eq!(stream.read_response_head().status, 200, "{length}");
            // RFC 9112 6.3: a POST without a length has a body of no bytes.
            let mut client = Client::connect(server.edge());
            client.send(format!("POST /publish HTTP/1.1\r\nHost: t\r\n{length}\r\n{body}"));
            assert_eq!(client.read_response().status, 200, "{length}");
            client.send(format!("POST /api/info HTTP/1.1\r\nHost: t\r\n{length}\r\n{body}"));
            assert_eq!(client.read_response().json()["error"]["code"], "json_invalid", "{length}");
            // Its channel is another one: the publication above may still be on its way to subscribers of the lobby.
            let upgrade = WebSocket::request("/ws?channel=quiet").replace("Host:", &format!("{length}Host:"));
            let mut socket = WebSocket::over(Client::connect(server.edge()));
            socket.client.send(upgrade + body);
            socket.read_upgrade();
            socket.round_trip();
        }
        // A body with content is rejected as soon as its first byte is known.
        for chunk in ["1\r\nx\r\n0\r\n\r\n", "1\r\n", "x"] {
            expect_refusal(&server, format!("GET /health/live HTTP/1.1\r\nHost: t\r\n{chunked}\r\n{chunk}"), 400);
        }
    }

    fn a_rejected_request_that_is_complete_keeps_the_connection_open(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.api_key = Some("k".into()));
        let refused = [
            ("POST /nowhere", "", 404), ("PUT /publish", "", 405), ("POST /poll", "", 405), ("GET /health/live", "", 400),
            ("POST /publish?chanel=a", "X-API-Key: k\r\n", 400), ("POST /publish?event=gap", "X-API-Key: k\r\n", 400),
            ("POST /publish", "", 401), ("POST /api/info", "", 401), ("POST /api/nothing", "X-API-Key: k\r\n", 404),
            ("POST /publish", "X-API-Key: k\r\nContent-Encoding: gzip\r\n", 415), ("OPTIONS /publish", "", 400),
        ];
        let mut client = Client::connect(server.edge());
        for (line, headers, status) in refused {
            // RFC 9112 9.3: its body is skipped and not parsed as a request.
            let request = format!("{line} HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {}\r\n\r\n{GET}", GET.len());
            client.send(format!("{request}{request}{GET}"));
            for expected in [status, status, 200] {
                let response = client.read_response();
                assert_eq!((response.status, response.header("connection")), (expected, Some("keep-alive")), "{line}");
            }
        }
        // If the end of the body has not arrived or must be searched for, the connection closes.
        for body in ["Content-Length: 2\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"] {
            let mut client = Client::connect(server.edge());
            client.send(format!("POST /nowhere HTTP/1.1\r\nHost: t\r\n{body}"));
            assert_eq!(client.read_response().header("connection"), Some("close"), "{body}");
            client.expect_end();
        }
    }

    fn the_media_type_determines_the_payload_kind(driver) {
        let server = TestServer::start(driver, 2);
        let mut lines = Client::connect(server.commands());
        lines.command(&json!({"id": 1, "connect": {}}));
        lines.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        let mut client = Client::connect(server.edge());
        let mut publish = |headers: &str, body: &str| {
            client.send(format!(
                "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()
            ));
            client.read_response()
        };
        for (media_type, body, data) in [
            ("application/octet-stream; charset=binary", "{}", json!({"data": "e30="})),
            ("Application/Octet-Stream", "hi", json!({"data": "aGk="})),
            ("text/plain", "{\"a\":1}", json!({"data": "{\"a\":1}"})),
            ("text/plain;charset=utf-8", "7", json!({"data": "7"})),
            ("application/json; charset=utf-8", "{\"a\":1}", json!({"data": {"a": 1}})),
            ("application/x-www-form-urlencoded", "{\"a\":1}", json!({"data": {"a": 1}})),
        ] {
            assert_eq!(publish(&format!("Content-Type: {media_type}\r\n"), body).status, 200, "{media_type}");
            let mut pushed = lines.read_json()["push"]["pub"].clone();
            pushed.as_object_mut().unwrap().remove("offset");
            assert_eq!(pushed, data, "{media_type}");
        }
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        // RFC 6839 3.1: a type that ends in +json is JSON; so is text/json (WHATWG MIME Sniffing 4.6).
        for media_type in ["application/json", "application/problem+json", "Application/CloudEvents+JSON; a=b", "text/json"] {
            for body in ["{", "", "hello", &deep(51)] {
                let refused = publish(&format!("Content-Type: {media_type}\r\n"), body);
                assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &"json_invalid".into()));
            }
        }
        assert_eq!(publish("Content-Type: application/json\r\n", &deep(50)).status, 200);
        for (coding, status) in [("identity", 200), ("Identity", 200), ("", 200)] {
            assert_eq!(publish(&format!("Content-Encoding: {coding}\r\n"), "x").status, status);
        }
        let refused = expect_kept(&server, &publish_with("Content-Length: 1\r\nContent-Encoding: gzip\r\n"), 415);
        assert_eq!(refused.header("accept-encoding"), Some("identity"));
        // API calls with a content encoding are rejected too, not only payloads.
        for method in ["info", "publish", "batch"] {
            let mut client = Client::connect(server.edge());
            let refused = client.call_with(method, "Content-Encoding: gzip\r\n", "{}");
            assert_eq!((refused.status, refused.header("accept-encoding")), (415, Some("identity")), "{method}");
            assert_eq!(refused.json()["error"]["code"], "content_encoding_unsupported");
            let mut client = Client::connect(server.edge());
            assert_ne!(client.call_with(method, "Content-Encoding: identity\r\n", "{}").status, 415);
        }
    }

    fn a_repeated_idempotency_key_publishes_once(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let mut publish = |key: &str| {
            client.send(publish_with(&format!("Idempotency-Key: {key}\r\nContent-Length: 1\r\n")));
            client.read_response()
        };
        let first = publish("k").json();
        assert_eq!(publish("k").json(), first);
        assert_eq!(publish("l").json()["offset"], first["offset"].as_u64().unwrap() + 1);
        assert_eq!(publish(&"k".repeat(255)).status, 200);
        for key in ["", &"k".repeat(256), "a\r\nIdempotency-Key: b"] {
            let request = publish_with(&format!("Idempotency-Key: {key}\r\nContent-Length: 1\r\n"));
            let refused = expect_kept(&server, &request, 400);
            assert_eq!(refused.json()["error"]["code"], "idempotency_key_invalid");
        }
    }

    fn an_idempotency_key_is_that_of_its_user_alone(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.hmac_secret = Some(SECRET.into());
            config.api_key = Some("key".into());
        });
        let mut client = Client::connect(server.edge());
        let [ann, bob] = ["ann", "bob"].map(|user| token(&json!({"sub": user})));
        let offset = |shown: &str| {
            let headers = format!("{shown}\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n");
            client.send(publish_with(&headers));
            client.read_response().json()["offset"].as_u64().unwrap()
        };
        let [ann, bob] = [ann, bob].map(|token| format!("Authorization: Bearer {token}"));
        assert_eq!([&*ann, &*bob, &*ann, "X-API-Key: key", &*bob].map(offset), [1, 2, 1, 3, 2]);
    }

    fn an_error_response_reaches_a_client_that_expects_100(driver) {
        // Java's HttpClient (17) and Jetty's ignore a final response that is sent instead of 100.
        let server = TestServer::start_with(driver, 1, |config| config.api_key = Some("k".into()));
        for (target, status) in [("/publish", 401), ("/api/info", 401), ("/nowhere", 404), ("/health/live", 405)] {
            let mut client = Client::connect(server.edge());
            for length in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
                client.send(format!("POST {target} HTTP/1.1\r\nHost: t\r\n{length}Expect: 100-continue\r\n\r\n"));
                assert_eq!(client.read_response_head().status, 100, "{target}");
                client.send(if length.starts_with('C') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
                assert_eq!(client.read_response().status, status, "{target}");
            }
            assert_eq!(client.get("/health/live").status, 200, "the request after the body is answered");
            // A client that does not wait for 100 is answered at once.
            client.send(format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhe"));
            assert_eq!(client.read_response().status, status, "{target}");
        }
        let head = "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n";
        expect_refusal(&server, head, 401);
    }

    fn errors_name_a_proxy_that_breaks_the_upgrade(driver) {
        let server = TestServer::start(driver, 1);
        // nginx, Apache, Varnish, Squid, lighttpd and h2o drop the Upgrade header unless they are configured to pass
        // it, and keep the rest; nginx 1.22 speaks HTTP/1.0.
        for target in ["/ws", "/connection/websocket"] {
            let request = WebSocket::request(target);
            let dropped = request.replace("Upgrade: websocket\r\n", "").replace("Connection: Upgrade\r\n", "");
            let old = dropped.replace("HTTP/1.1", "HTTP/1.0");
            for request in [&dropped, &old] {
                let refused = expect_refusal(&server, request, 426).json();
                assert_eq!(refused["error"]["code"], "upgrade_removed", "{request}");
                assert!(refused["error"]["message"].as_str().unwrap().contains("proxy"));
            }
            let plain = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(expect_refusal(&server, plain, 426).json()["error"]["code"], "upgrade_missing");
        }
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x1f\x90\x1f\x90GET / HTTP/1.1\r\n\r\n";
        let v1 = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n";
        for bytes in [&v1[..], b"PROXY UNKNOWN\r\n", v2] {
            let refused = expect_refusal(&server, bytes, 400).json();
            assert_eq!(refused["error"]["code"], "proxy_protocol_unexpected");
        }
        let mut client = Client::connect(server.edge());
        client.send_bytewise(&v2[..5]);
        assert_eq!(client.read_response().json()["error"]["code"], "proxy_protocol_unexpected");
    }

    fn an_upgrade_to_an_endpoint_without_websockets_is_rejected_at_once(driver) {
        let server = TestServer::start(driver, 1);
        for target in ["/poll", "/events", "/health/live", "/metrics"] {
            let mut client = Client::connect(server.edge());
            client.send(WebSocket::request(target));
            let refused = client.read_response();
            assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &"not_a_websocket_endpoint".into()));
            assert!(refused.text().contains("/ws"));
            // Java's HttpClient requests an upgrade to h2c with each request.
            client.send(format!(
                "GET {target}?timeout=0 HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\n\
                 Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n"
            ));
            assert_eq!(client.read_response_head().status, 200, "{target}");
        }
    }

    /// A browser adds its cookies to a WebSocket that a page of any origin opens (cross-site WebSocket hijacking).
    fn other_origins_are_refused_where_callbacks_have_cookies_unless_they_are_listed(driver) {
        for (header, origins, allowed) in [
            ("Cookie", &[][..], false),
            ("Authorization", &[], false),
            ("X-Real-Ip", &[], true),
            ("Cookie", &["http://a.example"], true),
            ("Cookie", &["*"], true),
        ] {
            let server = TestServer::start_with(driver, 1, |config| {
                config.api_key = Some("k".into());
                config.origins = origins.iter().map(|&origin| origin.to_owned()).collect();
                config.callbacks.of_mut(CallbackKind::Rpc).endpoint = Some("http://127.0.0.1:9/".parse().unwrap());
                config.callbacks.of_mut(CallbackKind::Rpc).http_headers = vec![header.parse().unwrap()];
            });
            for (origin, is_allowed) in [("http://a.example", allowed), ("http://t", true)] {
                for target in ["/ws", "/connection/websocket"] {
                    let mut client = Client::connect(server.edge());
                    let request = WebSocket::request(target);
                    let host = request.lines().find(|line| line.starts_with("Host: ")).unwrap();
                    client.send(request.replace(host, &format!("Host: t\r\nOrigin: {origin}")));
                    let status = if is_allowed { 101 } else { 403 };
                    assert_eq!(client.read_response_head().status, status, "{header} {origins:?} {origin}");
                }
            }
        }
    }

    fn allowed_origins_apply_to_websockets_and_posts(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.origins = vec!["https://good.example".into(), "http://app.example:3000".into()];
        });
        // RFC 6455 10.2: browsers let any page open a WebSocket.
        let try_with = |host: &str, origin: Option<&str>| {
            let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
            let mut statuses = Vec::new();
            for target in ["/ws", "/connection/websocket", "/"] {
                let mut client = Client::connect(server.edge());
                client.send(format!(
                    "GET {target} HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                ));
                statuses.push(client.read_response_head().status);
            }
            for target in ["/publish", "/api/info"] {
                let mut client = Client::connect(server.edge());
                client.send(format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: 2\r\n\r\n{{}}"));
                statuses.push(client.read_response().status);
            }
            statuses
        };
        for (host, origin) in [
            ("s.example", None),
            ("s.example", Some("https://good.example")),
            ("s.example", Some("http://app.example:3000")),
            // The server's own origin, as Netty, Vert.x, Spring, Tyrus and Go's x/net/websocket send it.
            ("s.example:8000", Some("http://s.example:8000")),
            ("s.example", Some("https://S.Example:443")),
            ("localhost:80", Some("http://localhost/")),
        ] {
            assert_eq!(try_with(host, origin), [101, 101, 101, 200, 200], "{host} {origin:?}");
        }
        for origin in ["https://evil.example", "null", "http://good.example", "https://good.example:8443",
            "https://good.example.evil", "", "http://s.example:1"] {
            assert_eq!(try_with("s.example", Some(origin)), [403; 5], "{origin}");
        }
        // Reads are protected by CORS: the response names no allowed origin.
        let mut client = Client::connect(server.edge());
        client.send("GET /poll?timeout=0 HTTP/1.1\r\nHost: t\r\nOrigin: https://evil.example\r\n\r\n");
        let response = client.read_response();
        assert_eq!((response.status, response.header("access-control-allow-origin")), (200, None));
        assert_eq!(response.header("vary"), Some("Origin"));
    }

    fn an_offered_subprotocol_is_selected(driver) {
        // undici, ws and browsers reject a connection if the server selects none of the offered subprotocols (RFC 6455
        // 4.1).
        let server = TestServer::start(driver, 1);
        let offer = |address, target: &str, offered: &str| {
            let mut client = Client::connect(address);
            let request = WebSocket::request(target);
            let with = format!("{offered}Host:");
            client.send(request.replacen("Host:", &with, 1));
            client.read_response_head()
        };
        let header = |names: &str| format!("Sec-WebSocket-Protocol: {names}\r\n");
        for (target, names, chosen) in [
            ("/ws?channel=a", "chat, superchat", Some("chat")),
            ("/", "mqtt", Some("mqtt")),
            ("/ws", "a b, \"c\", d", Some("d")),
            ("/connection/websocket", "centrifuge-json", Some("centrifuge-json")),
            ("/connection/websocket", "centrifuge-json, centrifuge-protobuf", Some("centrifuge-json")),
            ("/connection/websocket", "x, centrifuge-protobuf, centrifuge-json", Some("centrifuge-protobuf")),
            ("/connection/websocket", "chat", None),
        ] {
            let response = offer(server.edge(), target, &header(names));
            assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, chosen), "{target} {names}");
        }
        let echo = offer(server.echo(), "/", &(header("x") + &header("y")));
        assert_eq!((echo.status, echo.header("sec-websocket-protocol")), (101, Some("x")));
        let none = offer(server.edge(), "/ws", "");
        assert_eq!((none.status, none.header("sec-websocket-protocol")), (101, None));
    }

    fn a_misspelt_parameter_gets_a_suggestion_and_foreign_parameters_are_ignored(driver) {
        let server = TestServer::start(driver, 1);
        for name in ["chanel", "channels", "channel[]", "channel%5B%5D", "Channel", "chnnel", "channle", "chan", "topic"] {
            let post = format!("POST /publish?{name}=a HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
            let poll = format!("GET /poll?{name}=a&timeout=0 HTTP/1.1\r\nHost: t\r\n\r\n");
            let events = format!("GET /events?{name}=a HTTP/1.1\r\nHost: t\r\n\r\n");
            for request in [post, poll, events, WebSocket::request(&format!("/ws?{name}=a"))] {
                let mut client = Client::connect(server.edge());
                client.send(&request);
                let refused = client.read_response();
                assert_eq!(refused.status, 400, "{request}");
                let message = refused.json()["error"]["message"].to_string();
                assert!(message.contains("unknown parameter") && message.contains("mean channel?"), "{message}");
            }
        }
        for query in ["utm_source=x&utm_campaign=%zz", "_=1", "t=%", "fbclid=a", "%zz=1", "token=a", "v=2&cb=3",
            "lastEventId=1:00000001", "format=json", "ch=%ff", "size=1", "site=a", "change=1", "topic=b", "chan=b"] {
            let mut client = Client::connect(server.edge());
            assert_eq!(client.get(&format!("/poll?channel=a&timeout=0&{query}")).status, 200, "{query}");
            assert_eq!(WebSocket::connect(server.edge(), &format!("/ws?{query}&channel=a")).round_trip(), ());
        }
        // The server's own parameters are still validated.
        expect_refusal(&server, "GET /poll?timeout=%zz HTTP/1.1\r\nHost: t\r\n\r\n", 400);
    }

    fn only_the_page_may_be_cached(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        for target in ["/health/live", "/health/ready", "/metrics", "/nowhere", "/poll?timeout=0", "/poll?channel="] {
            let response = client.get(target);
            let kept = response.header("cache-control").unwrap_or_default();
            assert!(kept.contains("no-store"), "{target}: {kept:?}");
        }
        assert_eq!(client.get("/").header("cache-control"), Some("no-cache"));
    }

    fn empty_bodies_and_bodies_of_the_maximum_size_are_published(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.message_bytes_max = 70_000);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = Client::connect(server.edge());
        client.publish("a", "");
        subscriber.expect_text("");
        let largest = "x".repeat(70_000);
        client.publish("a", &largest);
        subscriber.expect_text(&largest);
        client.publish("a", [0xff, 0x00]);
        assert_eq!(subscriber.read(), crate::support::Received::Binary(vec![0xff, 0x00]));
        client.send("POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nContent-Type: application/octet-stream\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.read_response().status, 200);
        assert_eq!(subscriber.read(), crate::support::Received::Binary(b"x".to_vec()));
    }

    fn a_client_that_expects_100_continue_gets_it(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        for _ in 0..2 {
            client.send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
            assert_eq!(client.read_response_head().status, 100);
            client.send("hello");
            assert_eq!(client.read_response().status, 200);
        }
        client.send("POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.read_response().status, 413);
        client.expect_end();
    }

    fn a_half_closed_client_gets_its_responses(driver) {
        let server = TestServer::start(driver, 2);
        for channel in ["a", "b", "c", "d"] {
            let mut client = Client::connect(server.edge());
            let publish = format!("POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
            client.send(publish.repeat(3) + "GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n" + GET);
            client.end();
            for _ in 0..5 {
                assert_eq!(client.read_response().status, 200);
            }
            client.expect_end();
        }
    }

    fn request_smuggling_gets_400(driver) {
        let server = TestServer::start(driver, 1);
        for headers in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length : 1\r\n",
            "Content-Length\t: 1\r\n",
            " Content-Length: 1\r\n",
            "X: a\r\n b\r\nContent-Length: 1\r\n",
            "X: a\r\n\tb\r\nContent-Length: 1\r\n",
            "Content-Length: 1\n",
            "X: a\nContent-Length: 1\r\n",
            "X: a\rContent-Length: 1\r\n",
            "X: a\0b\r\nContent-Length: 1\r\n",
            "X: a\u{7f}b\r\nContent-Length: 1\r\n",
            ": a\r\nContent-Length: 1\r\n",
            "X\r\nContent-Length: 1\r\n",
            "X(: a\r\nContent-Length: 1\r\n",
            "Host: u\r\nContent-Length: 1\r\n",
        ] {
            expect_refusal(&server, publish_with(headers), 400);
        }
    }

    fn a_malformed_chunk_gets_400(driver) {
        let server = TestServer::start(driver, 1);
        for body in ["x\r\n", "\r\n", "-1\r\n", "0x1\r\na\r\n", "1\na\r\n", "1\r\nab\r\n", "1\r\na\n",
            "11111111111111111\r\n", "1 \0\r\n", "1 \r\na\r\n", "1 1\r\na\r\n", "1;\r\na\r\n", "1;a=\r\na\r\n", "0\r\nbad trailer\r\n\r\n", "0\r\n\n"] {
            let head = "POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
            expect_refusal(&server, format!("{head}{body}"), 400);
        }
    }

    fn a_malformed_request_line_or_host_gets_400(driver) {
        let server = TestServer::start(driver, 1);
        for request in [
            "GET\r\n\r\n",
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: t\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: t\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: t\r\n\r\n",
            "GET nowhere HTTP/1.1\r\nHost: t\r\n\r\n",
            "GET / HTTP/1.1\nHost: t\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "POST /publish?channel=%zz HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx",
            "POST /publish?channel=%ff HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx",
            "GET / \r\n",
            "GET / HTTP/1\r\n",
            "GET / HTTP/1.1\r\nHost: x:abc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        ] {
            expect_refusal(&server, request, 400);
        }
        for channels in ["channel=", "channel=a&channel=b", &format!("channel={}", "x".repeat(256))] {
            let request = format!("POST /publish?{channels} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
            assert_eq!(expect_kept(&server, &request, 400).json()["error"]["code"], "channel_invalid");
        }
    }

    fn unsupported_requests_get_404_405_501_505(driver) {
        let server = TestServer::start(driver, 1);
        expect_kept(&server, "GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n", 404);
        expect_kept(&server, "GET /health/nowhere HTTP/1.1\r\nHost: t\r\n\r\n", 404);
        for (request, allow) in [
            ("DELETE / HTTP/1.1\r\nHost: t\r\n\r\n", "GET, HEAD, OPTIONS"),
            ("POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n", "GET, HEAD, OPTIONS"),
            ("GET /publish HTTP/1.1\r\nHost: t\r\n\r\n", "POST, OPTIONS"),
        ] {
            assert_eq!(expect_kept(&server, request, 405).header("allow"), Some(allow));
        }
        // RFC 9112 9.3: the bytes after a complete body are the next request.
        expect_kept(&server, "POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx", 404);
        expect_refusal(&server, "DANCE / HTTP/1.1\r\nHost: t\r\n\r\n", 501);
        expect_refusal(&server, "CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n", 501);
        expect_refusal(&server, publish_with("Transfer-Encoding: gzip, chunked\r\n"), 501);
        // RFC 9110 2.5: a higher minor version of 1 is understood.
        expect_kept(&server, "GET /nowhere HTTP/1.2\r\nHost: t\r\n\r\n", 404);
        for version in ["HTTP/2.0", "HTTP/0.9"] {
            expect_refusal(&server, format!("GET / {version}\r\nHost: t\r\n\r\n"), 505);
        }
    }

    fn requests_over_a_size_limit_get_413_414_431(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.message_bytes_max = 1000);
        let head = "POST /publish HTTP/1.1\r\nHost: t\r\n";
        let refusal = expect_refusal(&server, format!("{head}Content-Length: 1001\r\n\r\n"), 413);
        assert!(refusal.text().contains("1000 bytes (limits.message_bytes_max)"), "{refusal:?}");
        // Without CORS headers a script sees only a network error.
        assert_eq!(refusal.header("access-control-allow-origin"), Some("*"));
        let chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n3e8\r\n{}\r\n1\r\nx\r\n", "x".repeat(1000));
        expect_refusal(&server, chunks, 413);
        expect_refusal(&server, format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(8000)), 414);
        expect_refusal(&server, format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(17_000)), 431);
        expect_refusal(&server, format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(64)), 431);
        // Requests at exactly each limit are accepted.
        let mut client = Client::connect(server.edge());
        client.publish("a", "x".repeat(1000));
        assert_eq!(client.get(&format!("/?{}", "x".repeat(7998))).status, 200);
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(63)));
        assert_eq!(client.read_response().status, 200);
    }

    fn an_invalid_websocket_handshake_gets_426_405_or_400(driver) {
        let server = TestServer::start(driver, 1);
        let request = WebSocket::request("/ws?channel=a");
        for (from, to, status) in [
            ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 8\r\n", 426),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("Upgrade: websocket\r\n", "", 426),
            ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", 426),
            ("Connection: Upgrade\r\n", "", 426),
            ("GET ", "POST ", 405),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
            ("HTTP/1.1", "HTTP/1.0", 426),
            ("channel=a", "channel=", 400),
            ("channel=a", "channel=%ff", 400),
        ] {
            let response = expect_refusal(&server, request.replace(from, to), status);
            if status == 426 {
                assert_eq!(response.header("sec-websocket-version"), Some("13"));
                assert_eq!(response.header("upgrade"), Some("websocket"));
            }
            if status == 405 {
                assert_eq!(response.header("allow"), Some("GET"));
            }
        }
    }

    fn the_welcome_page_ignores_upgrades_other_than_websocket(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        for upgrade in ["h2c", "TLS/1.0", "websockets"] {
            client.send(format!(
                "GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
            ));
            let response = client.read_response();
            assert_eq!(response.status, 200, "{upgrade}: {response:?}");
            assert!(response.text().contains("<title>fantail</title>"), "{upgrade}: {response:?}");
        }
        WebSocket::connect(server.edge(), "/").round_trip();
        expect_refusal(&server, WebSocket::request("/").replace("Version: 13", "Version: 8"), 426);
    }

    fn pipelined_requests_get_backpressure_while_responses_are_not_read(driver) {
        let server = TestServer::start(driver, 1);
        let count = 2000;
        for path in ["/", "/metrics"] {
            let mut greedy = Client::connect(server.edge());
            greedy.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").repeat(count));
            // All requests are still answered.
            greedy.end();
            let queued = || server.sum(|counters| &counters.send_queue_bytes);
            wait_until("the kernel's buffers are full", || queued() > 0);
            let mut other = Client::connect(server.edge());
            for _ in 0..50 {
                assert_eq!(other.get("/health/live").status, 200);
                assert!(queued() < 512 * 1024, "{path}: {}", queued());
            }
            for at in 0..count {
                assert_eq!(greedy.read_response().status, 200, "{path}: {at}");
            }
            greedy.expect_end();
        }
        wait_until("everything is freed", || server.sum(|counters| &counters.unfinished_message_bytes) == 0);
    }

    fn a_malformed_request_does_not_affect_other_clients(driver) {
        let server = TestServer::start(driver, 1);
        let mut good = Client::connect(server.edge());
        let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for start in 0..50 {
            let mut bad = Client::connect(server.edge());
            bad.send(&noise[start * 1000..(start + 1) * 1000]);
            bad.end();
            bad.expect_gone();
            assert_eq!(good.get("/health/live").status, 200);
        }
        assert!(server.sum(|counters| &counters.http_errors) > 0);
    }

    /// RFC 9110 6.6.1: every final response has a `Date` of its own time, also after the server was idle.
    fn every_response_has_a_current_date(driver) {
        let server = TestServer::start(driver, 1);
        let post = publish_with("Content-Length: 1\r\n");
        let asks = publish_with("Content-Length: 1\r\nExpect: 100-continue\r\n");
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
        for (request, status) in [
            (GET.to_owned(), 200),
            (get("/"), 200),
            (get("/metrics"), 200),
            (get("/health/ready"), 200),
            (get("/events"), 200),
            (get("/poll?timeout=0"), 200),
            (get("/poll?timeout=1"), 200),
            (get("/nowhere"), 404),
            (get("/ws"), 426),
            (get("/health/live").replace("GET", "DELETE"), 405),
            (get("/health/live").replace("GET", "OPTIONS"), 204),
            (get("/health/live").replace("GET", "HEAD"), 200),
            (get("/health/live").replace("HTTP/1.1", "HTTP/2.0"), 505),
            (post.replace("Length: 1", "Length: 99999999"), 413),
            (asks.strip_suffix('x').expect("a body").to_owned(), 100),
            (post, 200),
            ("no HTTP\r\n\r\n".to_owned(), 501),
        ] {
            let before = SystemTime::now();
            let mut client = Client::connect(server.edge());
            client.send(&request);
            let mut response = client.read_response_head();
            assert_eq!(response.status, status, "{request}");
            if response.status == 100 {
                assert_eq!(response.header("date"), None, "{request}");
                client.send("x");
                response = client.read_response_head();
            }
            assert_current_date(&response, before);
        }
        let socket = WebSocket::over(Client::connect(server.edge()));
        let mut client = socket.client;
        client.send(WebSocket::request("/ws"));
        let upgrade = client.read_response_head();
        assert_eq!((upgrade.status, upgrade.header("date")), (101, None));
        client.reset();
        wait_until("all clients are gone", || server.sum(|counters| &counters.connections_open) == 0);
        std::thread::sleep(Duration::from_millis(2500));
        let before = SystemTime::now();
        assert_current_date(&Client::connect(server.edge()).get("/health/live"), before);
    }
}
