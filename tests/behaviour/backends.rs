//! How callbacks reach a backend, over TLS too, and what they say about where a client is.

use fantail::config::{CallbackKind, CallbackOption, ChannelOptions, Config, DriverChoice};
use serde_json::{Value, json};

use crate::support::{
    Backend, BackendAnswer, BackendRequest, Child, Client, EventStream, Gate, TempFile, TestServer,
    WebSocket, on_both_drivers, wait_until,
};

/// Sets an option of a callback, as the settings file does.
fn set(config: &mut Config, kind: CallbackKind, name: &str, value: &str) {
    let option = CallbackOption::named(name).unwrap();
    option.parse(&[value.to_owned()], config.callbacks.of_mut(kind)).unwrap();
}

fn returns_data(request: &BackendRequest) -> BackendAnswer {
    BackendAnswer::Json(json!({"result": {"data": request.body["data"]}}))
}

/// Settings of a server that calls procedures of an https backend, with this file of certificates.
fn settings(backend: &Backend, ca_file: &str) -> String {
    let url = backend.url("/rpc");
    format!("[callbacks]\nca_file = \"{ca_file}\"\n[callbacks.rpc]\nendpoint = \"{url}\"\n")
}

fn rpc(client: &mut Client, data: u64) -> Value {
    client.command(&json!({"id": 2, "rpc": {"method": "m", "data": data}}))
}

on_both_drivers! {
    fn a_backend_over_https_is_verified_by_the_certificates_of_a_file(driver) {
        let (backend, certificate) = Backend::start_tls("127.0.0.1", returns_data);
        let file = TempFile::new(&format!("ca-{driver:?}"), &certificate);
        let config = TempFile::new(&format!("https-{driver:?}"), &settings(&backend, file.path()));
        let child = Child::start(driver, &["--config", config.path()]);
        let mut client = Client::connect(child.commands());
        client.command(&json!({"id": 1, "connect": {}}));
        for data in 0..3 {
            assert_eq!(rpc(&mut client, data), json!({"id": 2, "rpc": {"data": data}}));
        }
        assert_eq!((backend.connections(), backend.requests().len()), (1, 3), "it is kept");
    }

    fn a_backend_whose_certificate_is_not_trusted_is_unreachable(driver) {
        let (backend, own) = Backend::start_tls("127.0.0.1", returns_data);
        let (elsewhere, certificate) = Backend::start_tls("example.test", returns_data);
        let (_, other) = Backend::start_tls("127.0.0.1", returns_data);
        let rows = [
            ("other", &backend, &other),
            // The certificate is trusted, but for another name than that of the URL.
            ("name", &elsewhere, &certificate),
            ("plain", &Backend::start(returns_data), &own),
        ];
        for (what, backend, trusted) in rows {
            let name = format!("{what}-{driver:?}");
            let file = TempFile::new(&format!("ca-{name}"), trusted);
            let text = settings(backend, file.path()).replace("http://", "https://");
            let config = TempFile::new(&format!("https-{name}"), &text);
            let child = Child::start(driver, &["--config", config.path()]);
            let mut client = Client::connect(child.commands());
            client.command(&json!({"id": 1, "connect": {}}));
            let began = std::time::Instant::now();
            for data in 0..3 {
                let reply = rpc(&mut client, data);
                let error = json!({"code": 100, "message": "internal server error", "temporary": true});
                assert_eq!(reply, json!({"id": 2, "error": error}), "{what}");
            }
            let took = began.elapsed();
            assert!(backend.requests().is_empty(), "{what}: nothing of a client was said");
            child.signal(libc::SIGTERM);
            let log = child.whole_log();
            let lines: Vec<_> =
                log.iter().filter(|line| line.contains("a callback failed")).collect();
            assert!(lines[0].contains("unreachable") && lines[0].contains("WARN"), "{lines:?}");
            // At most one a second.
            assert!(lines.len() <= 1 + took.as_secs() as usize, "{took:?}: {lines:?}");
        }
    }

    fn without_certificates_that_can_be_read_the_server_does_not_start(driver) {
        let (backend, _) = Backend::start_tls("127.0.0.1", returns_data);
        let file = TempFile::new(&format!("ca-none-{driver:?}"), "no certificate\n");
        for path in [file.path(), "/nonexistent/ca.pem"] {
            let text = settings(&backend, path);
            let config = TempFile::new(&format!("https-none-{driver:?}"), &text);
            let arguments = ["--config", config.path(), "--listen", "127.0.0.1:0", "--tcp", "127.0.0.1:0"];
            let ended = crate::support::run(&arguments);
            assert!(!ended.status.success(), "{ended:?}");
            assert!(ended.stderr.contains(path), "{ended:?}");
        }
    }
}

/// The address in each request of a kind, which is in one header at most.
fn addresses(backend: &Backend, kind: &str) -> Vec<Option<String>> {
    let requests = backend.requests();
    let of_kind = requests.iter().filter(|request| request.head[0].contains(kind));
    let address = |request: &BackendRequest| {
        let name = "x-real-ip: ";
        let lines = request.head.iter().filter(|line| line.to_lowercase().starts_with(name));
        let lines: Vec<_> = lines.collect();
        assert!(lines.len() <= 1, "{lines:?}");
        lines.first().map(|line| line[name.len()..].to_owned())
    };
    of_kind.map(address).collect()
}

/// A server that asks a backend for everything, and sends it the address of the client beside other headers.
fn locating(driver: DriverChoice, change: impl FnOnce(&mut Config)) -> (Backend, TestServer) {
    let backend = Backend::start(|request| match request.head[0].contains("/connect") {
        true => BackendAnswer::Json(json!({"result": {"user": "ann"}})),
        false => BackendAnswer::Json(json!({"result": {}})),
    });
    let server = TestServer::start_with(driver, 2, |config| {
        for kind in ["connect", "subscribe", "publish", "rpc"] {
            let (url, kind) =
                (backend.url(&format!("/{kind}")), CallbackKind::named(kind).unwrap());
            set(config, kind, "endpoint", &url);
            set(config, kind, "http_headers", "X-Real-Ip");
            set(config, kind, "static_headers", "X-Real-Ip: 192.0.2.99");
            set(config, kind, "client_address_header", "X-Real-Ip");
        }
        let options = ChannelOptions {
            callback_subscribe: true,
            callback_publish: true,
            ..ChannelOptions::closed()
        };
        config.namespaces.add("asks", options).unwrap();
        change(config);
    });
    (backend, server)
}

/// What a client says about itself that is not so.
const FORGED: &str = "X-Real-Ip: 203.0.113.66\r\nx-real-ip: 203.0.113.67\r\nX-Forwarded-For: 203.0.113.68\r\n\
                      Forwarded: for=203.0.113.69\r\n";

fn upgraded(server: &TestServer, target: &str, headers: &str) -> WebSocket {
    let mut socket = WebSocket::over(Client::connect(server.edge()));
    let request = WebSocket::request(target).replacen("Host:", &format!("{headers}Host:"), 1);
    socket.client.send(request);
    socket.read_upgrade();
    socket
}

fn published(server: &TestServer, headers: &str) {
    let mut client = Client::connect(server.edge());
    client.send(format!(
        "POST /publish?channel=asks:a HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: 1\r\n\r\n1"
    ));
    assert_eq!(client.read_response().status, 200);
}

/// Uses every transport over HTTP with these headers. Returns how many connections that makes.
fn use_http(server: &TestServer, headers: &str) -> usize {
    let mut socket = upgraded(server, "/connection/websocket", headers);
    // A client cannot choose a header by what it says.
    socket.send_text(r#"{"id":1,"connect":{"headers":{"X-Real-Ip":"203.0.113.70"}}}"#);
    socket.read_text();
    socket.send_text(r#"{"id":2,"rpc":{"method":"m"}}"#);
    assert_eq!(socket.read_text(), r#"{"id":2,"rpc":{}}"#);
    upgraded(server, "/ws?channel=asks:a", headers);
    EventStream::connect_with(server.edge(), "/events?channel=asks:a", headers);
    let mut poll = Client::connect(server.edge());
    poll.send(format!("GET /poll?channel=asks:a&timeout=0 HTTP/1.1\r\nHost: t\r\n{headers}\r\n"));
    assert_eq!(poll.read_response().status, 200);
    published(server, headers);
    5
}

on_both_drivers! {
    fn callbacks_have_the_address_of_the_client_and_nothing_that_it_forges(driver) {
        let (backend, server) = locating(driver, |_| {});
        let count = use_http(&server, FORGED);
        let here = Some("127.0.0.1".to_owned());
        assert_eq!(addresses(&backend, "/connect"), vec![here.clone(); count]);
        assert_eq!(addresses(&backend, "/subscribe"), vec![here.clone(); 3]);
        assert_eq!(addresses(&backend, "/publish"), vec![here.clone(); 1]);
        assert_eq!(addresses(&backend, "/rpc"), vec![here.clone(); 1]);
        // Raw TCP, too, and from another address of this host.
        let mut client = Client::connect_from([127, 0, 0, 9], server.commands());
        client.command(&json!({"id": 1, "connect": {}}));
        client.command(&json!({"id": 2, "rpc": {"method": "m"}}));
        let there = Some("127.0.0.9".to_owned());
        assert_eq!(addresses(&backend, "/connect").last(), Some(&there));
        assert_eq!(addresses(&backend, "/rpc").last(), Some(&there));
    }

    fn a_trusted_proxy_names_the_client_that_callbacks_are_about(driver) {
        let (backend, server) = locating(driver, |config| {
            config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        });
        // What stands in front of the last address is the client's own word.
        let headers = "X-Real-Ip: 203.0.113.66\r\nX-Forwarded-For: 203.0.113.68, 198.51.100.7\r\n";
        let count = use_http(&server, headers);
        let named = Some("198.51.100.7".to_owned());
        assert_eq!(addresses(&backend, "/connect"), vec![named.clone(); count]);
        assert_eq!(addresses(&backend, "/rpc"), vec![named.clone(); 1]);
        // A proxy that names no client, or nothing that is an address; and one that is not trusted.
        for headers in ["X-Real-Ip: 203.0.113.66\r\n", "X-Real-Ip: 203.0.113.66\r\nX-Forwarded-For: 1.2.3.4, x\r\n"] {
            published(&server, headers);
            assert_eq!(addresses(&backend, "/publish").last(), Some(&None), "{headers}");
        }
        let mut elsewhere = Client::connect_from([127, 0, 0, 9], server.edge());
        elsewhere.send(format!(
            "POST /publish?channel=asks:a HTTP/1.1\r\nHost: t\r\n{FORGED}Content-Length: 1\r\n\r\n1"
        ));
        assert_eq!(elsewhere.read_response().status, 200);
        assert_eq!(addresses(&backend, "/publish").last(), Some(&Some("127.0.0.9".to_owned())));
        // One connection of a proxy serves several clients.
        let mut proxy = Client::connect(server.edge());
        for last in [1, 2] {
            proxy.send(format!(
                "POST /publish?channel=asks:a HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 198.51.100.{last}\r\n\
                 Content-Length: 1\r\n\r\n1"
            ));
            assert_eq!(proxy.read_response().status, 200);
            let named = Some(format!("198.51.100.{last}"));
            assert_eq!(addresses(&backend, "/publish").last(), Some(&named));
        }
    }

    fn a_header_of_the_proxy_protocol_names_the_client_over_tcp(driver) {
        let (backend, server) = locating(driver, |config| {
            config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
            config.tcp[0].expects_proxy_header = true;
        });
        for (line, named) in [
            ("PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n", Some("198.51.100.7")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", Some("2001:db8::7")),
            ("PROXY UNKNOWN\r\n", None),
        ] {
            let mut client = Client::connect(server.commands());
            client.send(line);
            client.command(&json!({"id": 1, "connect": {}}));
            client.command(&json!({"id": 2, "rpc": {"method": "m"}}));
            let named = named.map(str::to_owned);
            for kind in ["/connect", "/rpc"] {
                assert_eq!(addresses(&backend, kind).last(), Some(&named), "{line}");
            }
        }
    }
}

/// Settings of a server that calls procedures, and notifies of events, at these URLs.
fn moved(rpc: &str, events: &str) -> String {
    format!(
        "[callbacks.rpc]\nendpoint = \"{rpc}\"\ntimeout = \"20 s\"\n[callbacks.events]\nendpoint = \"{events}\"\n"
    )
}

/// A backend that returns a number, to `slow` once it is let.
fn numbered(number: u64, gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |request| {
        if request.body["method"] == "slow" {
            gate.wait();
        }
        BackendAnswer::Json(json!({"result": {"data": number}}))
    })
}

on_both_drivers! {
    fn a_reload_moves_callbacks_and_what_is_under_way_ends_as_it_began(driver) {
        let gate = Gate::default();
        let (first, second) = (numbered(1, &gate), numbered(2, &gate));
        let away = "http://127.0.0.1:9/events";
        let config =
            TempFile::new(&format!("moved-{driver:?}"), &moved(&first.url("/rpc"), away));
        let mut child = Child::start(driver, &["--config", config.path(), "--workers", "2"]);
        let mut clients: Vec<_> = (0..3).map(|_| Client::connect(child.commands())).collect();
        for client in &mut clients {
            client.command(&json!({"id": 1, "connect": {}}));
        }
        let [slow, fast, late] = &mut clients[..] else { panic!() };
        slow.send(format!("{}\n", json!({"id": 2, "rpc": {"method": "slow"}})));
        wait_until("the slow call is under way", || first.requests().len() == 1);
        assert_eq!(rpc(fast, 0)["rpc"]["data"], 1);
        config.write(&moved(&second.url("/rpc"), &second.url("/events")));
        child.signal(libc::SIGHUP);
        child.log_line(&["a setting changed", "callbacks"]);
        // Each worker takes the settings in its next turn; both backends may be asked until then.
        wait_until("the second backend is asked", || rpc(fast, 0)["rpc"]["data"] == 2);
        assert_eq!(rpc(late, 0)["rpc"]["data"], 2);
        gate.open();
        assert_eq!(slow.read_json(), json!({"id": 2, "rpc": {"data": 1}}));
        // Events that no backend has taken go to the new one.
        let events = || {
            let requests = second.requests();
            let batches: Vec<_> = requests.iter().filter_map(|request| request.body["events"].as_array().cloned()).collect();
            batches.concat().iter().filter(|event| event["type"] == "connected").count()
        };
        wait_until("the events are delivered", || events() == 3);
        // One that cannot be taken changes nothing.
        config.write(&format!("[callbacks]\nca_file = \"/nonexistent/ca.pem\"\n{}", moved("https://127.0.0.1:9/", away)));
        child.signal(libc::SIGHUP);
        child.log_line(&["not reloaded", "/nonexistent/ca.pem"]);
        assert_eq!(rpc(fast, 0)["rpc"]["data"], 2);
        // Without callbacks, there is nothing to call.
        config.write("");
        child.signal(libc::SIGHUP);
        child.log_line(&["a setting changed", "callbacks"]);
        wait_until("no backend is asked", || rpc(fast, 0)["error"]["code"] == 108);
    }

    fn the_first_callback_of_a_server_needs_a_restart_and_the_log_says_so(driver) {
        let backend = numbered(1, &Gate::default());
        let config = TempFile::new(&format!("first-{driver:?}"), "");
        let mut child = Child::start(driver, &["--config", config.path()]);
        let mut client = Client::connect(child.commands());
        client.command(&json!({"id": 1, "connect": {}}));
        config.write(&format!("[callbacks.rpc]\nendpoint = \"{}\"\n", backend.url("/")));
        child.signal(libc::SIGHUP);
        child.log_line(&["WARN", "callbacks", "takes effect at the next start"]);
        child.log_line(&["settings reloaded"]);
        assert_eq!(rpc(&mut client, 0)["error"]["code"], 108);
        assert_eq!(backend.requests().len(), 0);
    }

    fn a_reload_has_callbacks_send_the_addresses_of_later_clients(driver) {
        let backend = numbered(1, &Gate::default());
        let text = format!("[callbacks.rpc]\nendpoint = \"{}\"\n", backend.url("/rpc"));
        let config = TempFile::new(&format!("addresses-{driver:?}"), &text);
        let mut child = Child::start(driver, &["--config", config.path(), "--workers", "1"]);
        let mut before = Client::connect(child.commands());
        before.command(&json!({"id": 1, "connect": {}}));
        rpc(&mut before, 0);
        config.write(&format!("{text}client_address_header = \"X-Real-Ip\"\n"));
        child.signal(libc::SIGHUP);
        child.log_line(&["a setting changed", "callbacks"]);
        let here = Some("127.0.0.1".to_owned());
        wait_until("the address of a new client is sent", || {
            let mut client = Client::connect(child.commands());
            client.command(&json!({"id": 1, "connect": {}}));
            rpc(&mut client, 0);
            addresses(&backend, "/rpc").last() == Some(&here)
        });
        rpc(&mut before, 0);
        assert_eq!(addresses(&backend, "/rpc").last(), Some(&None), "it was not kept");
    }
}
