//! The limit of the connections of one user, on all workers together.

use fantail::config::DriverChoice;
use fantail::message::CloseReason;
use serde_json::json;

use crate::support::{
    Client, EventStream, SECRET, TestServer, WebSocket, on_both_drivers, token, wait_until,
};

/// The number of connections that a user may have.
const MAX: usize = 4;

fn serve(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.hmac_secret = Some(SECRET.into());
        config.anonymous = Some(true);
        config.user_connections_max = Some(MAX);
    })
}

/// A client of the command protocol, if it is connected.
fn connect(server: &TestServer, user: &str) -> Option<Client> {
    let mut client = Client::connect(server.commands());
    let token = token(&json!({"sub": user}));
    let reply = client.command(&json!({"id": 1, "connect": {"token": token}}));
    if reply["connect"].is_object() {
        return Some(client);
    }
    assert_eq!(reply["push"]["disconnect"]["code"], 3504, "{reply}");
    assert_eq!(reply["push"]["disconnect"]["reason"], "connection limit");
    client.expect_end();
    None
}

/// The header by which a request shows that it is a user's.
fn bearer(user: &str) -> String {
    format!("Authorization: Bearer {}\r\n", token(&json!({"sub": user})))
}

on_both_drivers! {
    fn a_user_has_connections_up_to_the_maximum_of_all_workers(driver) {
        let server = serve(driver);
        let mut clients: Vec<_> = (0..MAX).map(|_| connect(&server, "ann").unwrap()).collect();
        for past in 1..=3 {
            assert!(connect(&server, "ann").is_none());
            assert_eq!(server.rejected("user_connections"), past);
            assert_eq!(server.closed(CloseReason::ConnectionLimit), past);
        }
        assert!(connect(&server, "bob").is_some(), "another user has connections of its own");
        // A client that shows a newer token of the same user is not another connection.
        let refresh = json!({"id": 2, "refresh": {"token": token(&json!({"sub": "ann"}))}});
        assert!(clients[0].command(&refresh)["refresh"].is_object());
        assert!(connect(&server, "ann").is_none());
        clients.truncate(MAX - 1);
        wait_until("a place is free", || connect(&server, "ann").is_some());
        let anonymous: Vec<_> = (0..2 * MAX)
            .map(|_| {
                let mut client = Client::connect(server.commands());
                assert!(client.command(&json!({"id": 1, "connect": {}}))["connect"].is_object());
                client
            })
            .collect();
        assert_eq!(anonymous.len(), 2 * MAX);
    }

    fn every_transport_counts_as_long_as_it_lasts(driver) {
        let server = serve(driver);
        let ann = bearer("ann");
        let stream = EventStream::connect_with(server.edge(), "/events?channel=a", &ann);
        let upgrade = WebSocket::request("/ws?channel=a").replace("\r\n\r\n", &format!("\r\n{ann}\r\n"));
        let mut plain = Client::connect(server.edge());
        plain.send(&upgrade);
        assert_eq!(plain.read_response_head().status, 101);
        let mut poll = Client::connect(server.edge());
        poll.send(format!("GET /poll?channel=a HTTP/1.1\r\nHost: t\r\n{ann}\r\n"));
        wait_until("the poll waits", || server.sum(|it| it.connections.labelled("long_poll")) == 1);
        let commands = connect(&server, "ann").unwrap();
        assert!(connect(&server, "ann").is_none());
        // Over HTTP it is an answer, and a request that is answered counts no longer.
        let mut http = Client::connect(server.edge());
        let mut get = |path: &str| {
            http.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n{ann}\r\n"));
            http.read_response()
        };
        let refused = get("/poll?channel=a&timeout=0");
        assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true));
        assert_eq!(refused.json()["error"]["code"], "user_connections_exhausted");
        drop((stream, plain));
        let mut http = Client::connect(server.edge());
        let mut get = |path: &str| {
            http.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n{ann}\r\n"));
            http.read_response()
        };
        wait_until("two places are free", || connect(&server, "ann").is_some());
        wait_until("the request is served", || get("/poll?channel=a&timeout=0").status == 200);
        for _ in 0..2 * MAX {
            assert_eq!(get("/poll?channel=a&timeout=0").status, 200);
        }
        drop((commands, poll));
    }
}
