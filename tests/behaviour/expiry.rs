//! Connections and subscriptions that expire.

use std::time::Duration;

use fantail::config::DriverChoice;
use fantail::message::CloseReason;
use serde_json::{Value, json};

use crate::support::{Client, SECRET, TestServer, in_seconds, on_both_drivers, token, wait_until};

fn server(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.expired_close_delay = Duration::from_secs(1);
    })
}

/// A client of the command protocol whose token is valid for some seconds.
fn connect(server: &TestServer, seconds: i64) -> Client {
    let mut client = Client::connect(server.commands());
    let token = token(&json!({"sub": "ann", "exp": in_seconds(seconds)}));
    let reply = client.command(&json!({"id": 1, "connect": {"token": token}}));
    assert_eq!(reply["connect"]["expires"], true, "{reply}");
    client
}

fn pong(client: &mut Client) -> Value {
    client.command(&json!({"id": 9, "ping": {}}))
}

on_both_drivers! {
    fn a_connection_is_closed_when_its_token_has_expired_for_some_time(driver) {
        let server = server(driver);
        let mut gone = connect(&server, 1);
        let mut refreshed = connect(&server, 1);
        let mut later = connect(&server, 100);
        let token = token(&json!({"sub": "ann", "exp": in_seconds(100)}));
        let reply = refreshed.command(&json!({"id": 2, "refresh": {"token": token}}));
        assert_eq!(reply["refresh"]["expires"], true, "{reply}");
        let rest = String::from_utf8(gone.read_to_end()).unwrap();
        let expected = "\"disconnect\":{\"code\":3005,\"reason\":\"connection expired\"}";
        assert!(rest.contains(expected), "{rest}");
        for client in [&mut refreshed, &mut later] {
            assert_eq!(pong(client), json!({"id": 9, "ping": {}}));
        }
        wait_until("the close is counted", || server.closed(CloseReason::Expired) == 1);
    }

    fn a_subscription_ends_when_its_token_has_expired_for_some_time(driver) {
        let server = server(driver);
        let mut client = connect(&server, 100);
        let of = |channel: &str, seconds| token(&json!({"sub": "ann", "channel": channel, "exp": in_seconds(seconds)}));
        for channel in ["a", "b"] {
            let subscribe = json!({"channel": channel, "token": of(channel, 1)});
            let reply = client.command(&json!({"id": 2, "subscribe": subscribe}));
            assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
        }
        let refresh = json!({"channel": "b", "token": of("b", 100)});
        let reply = client.command(&json!({"id": 3, "sub_refresh": refresh}));
        assert_eq!(reply["sub_refresh"]["expires"], true, "{reply}");
        let expired = json!({"code": 2501, "reason": "subscription expired"});
        assert_eq!(client.read_json(), json!({"push": {"channel": "a", "unsubscribe": expired}}));
        let mut api = Client::connect(server.edge());
        let count = |api: &mut Client, channel| {
            api.call("presence_stats", &json!({"channel": channel}))["result"]["num_clients"].clone()
        };
        assert_eq!((count(&mut api, "a"), count(&mut api, "b")), (json!(0), json!(1)));
        // The client comes back with a new token, on the same connection.
        let subscribe = json!({"channel": "a", "token": of("a", 100)});
        let reply = client.command(&json!({"id": 4, "subscribe": subscribe}));
        assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
    }
}
