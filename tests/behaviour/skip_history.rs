//! Publications that are delivered, and that no history has: by every transport.

use fantail::config::{CallbackKind, CallbackOption, ChannelOptions, DriverChoice};
use serde_json::{Value, json};

use crate::support::{
    Backend, BackendAnswer, Client, EventStream, TestServer, WebSocket, on_both_drivers,
};

fn server(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        let options = ChannelOptions { history_size: 10, presence: true, ..ChannelOptions::open() };
        config.namespaces.set_default(options).unwrap();
    })
}

fn publish(http: &mut Client, data: &str, skips: bool) -> Value {
    let parameters = json!({"channel": "a", "data": data, "skip_history": skips});
    http.call("publish", &parameters)["result"].clone()
}

/// The answer to a long poll.
fn poll(client: &mut Client, query: &str) -> (Value, String) {
    client.send(format!("GET /poll?channel=a&{query} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let response = client.read_response();
    let tag = response.header("etag").unwrap_or_default().to_owned();
    (serde_json::from_slice(&response.body).unwrap(), tag)
}

on_both_drivers! {
    fn every_transport_delivers_them_and_continues_from_the_stream(driver) {
        let server = server(driver);
        let mut http = Client::connect(server.edge());
        let first = publish(&mut http, "kept", false);
        assert_eq!(first["offset"], 1, "{first}");
        let position = format!("1:{}", first["epoch"].as_str().unwrap());
        let mut commands = Client::connect(server.commands());
        commands.command(&json!({"id": 1, "connect": {}}));
        let reply = commands.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        assert_eq!(reply["subscribe"]["offset"], 1, "{reply}");
        let mut plain = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut stream = EventStream::connect(server.edge(), "/events?channel=a");
        let mut poller = Client::connect(server.edge());
        poller.send(format!("GET /poll?channel=a&since={position} HTTP/1.1\r\nHost: t\r\n\r\n"));
        crate::support::wait_until("all are subscribed", || {
            http.call("presence_stats", &json!({"channel": "a"}))["result"]["num_clients"] == 4
        });
        // It is not in the stream, so that the backend gets no position.
        assert_eq!(publish(&mut http, "passing", true), json!({}));
        let push = commands.read_json();
        assert_eq!(push["push"]["pub"], json!({"data": "passing"}), "{push}");
        plain.expect_text("\"passing\"");
        stream.expect("\"passing\"");
        assert_eq!(stream.last_id, position);
        let response = poller.read_response();
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(answer["publications"], json!([{"channel": "a", "data": "passing"}]), "{answer}");
        assert_eq!(answer["position"], json!(position), "{answer}");
        let tag = response.header("etag").unwrap();
        assert_ne!(tag, format!("\"{position}\""), "a cache must not take it for an answer of before");
        // What comes later has the next offset, and clients that come back miss nothing of the stream.
        assert_eq!(publish(&mut http, "later", false)["offset"], 2);
        let push = commands.read_json();
        assert_eq!(push["push"]["pub"], json!({"data": "later", "offset": 2}), "{push}");
        stream.expect("\"later\"");
        let (answer, _) = poll(&mut poller, &format!("since={position}"));
        assert_eq!(answer["publications"], json!([{"channel": "a", "offset": 2, "data": "later"}]));
        assert!(answer["recovered"].is_null(), "{answer}");
        let recover = json!({
            "channel": "a", "recover": true, "offset": 1, "epoch": first["epoch"]
        });
        let mut again = Client::connect(server.commands());
        again.command(&json!({"id": 1, "connect": {}}));
        let reply = again.command(&json!({"id": 2, "subscribe": recover}));
        let recovered = json!([{"data": "later", "offset": 2}]);
        assert_eq!((&reply["subscribe"]["recovered"], &reply["subscribe"]["publications"]), (&json!(true), &recovered));
        let history = http.call("history", &json!({"channel": "a", "limit": -1}));
        assert_eq!(history["result"]["publications"].as_array().unwrap().len(), 2, "{history}");
    }

    fn a_backend_has_a_publication_of_a_client_skip_the_history(driver) {
        let backend = Backend::start(|request| {
            let skips = request.body["data"] == "passing";
            BackendAnswer::Json(json!({"result": {"skip_history": skips}}))
        });
        let server = TestServer::start_with(driver, 2, |config| {
            let callback = config.callbacks.of_mut(CallbackKind::Publish);
            let endpoint = CallbackOption::named("endpoint").unwrap();
            endpoint.parse(&[backend.url("/")], callback).unwrap();
            let options = ChannelOptions { history_size: 10, callback_publish: true, ..ChannelOptions::open() };
            config.namespaces.set_default(options).unwrap();
        });
        let mut client = Client::connect(server.commands());
        client.command(&json!({"id": 1, "connect": {}}));
        client.command(&json!({"id": 2, "subscribe": {"channel": "a"}}));
        for (data, expected) in [
            ("kept", json!({"data": "kept", "offset": 1})),
            ("passing", json!({"data": "passing"})),
            ("later", json!({"data": "later", "offset": 2})),
        ] {
            client.send(format!("{}\n", json!({"id": 3, "publish": {"channel": "a", "data": data}})));
            let mut got = [client.read_json(), client.read_json()];
            // The order of the reply and the delivery is not given.
            got.sort_by_key(|it| it["id"].is_null());
            assert_eq!(got[0], json!({"id": 3, "publish": {}}));
            let publication = got[1]["push"]["pub"].as_object_mut().unwrap();
            assert_eq!(publication.remove("info").unwrap()["user"], "");
            assert_eq!(got[1]["push"]["pub"], expected);
        }
        let history = Client::connect(server.edge()).call("history", &json!({"channel": "a", "limit": -1}));
        let kept: Vec<_> = history["result"]["publications"].as_array().unwrap().iter().map(|it| &it["data"]).collect();
        assert_eq!(kept, ["kept", "later"], "{history}");
    }
}
