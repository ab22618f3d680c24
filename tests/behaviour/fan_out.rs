//! Many publishers and many subscribers, while clients join and leave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fantail::config::{ChannelOptions, SlowConsumer};
use fantail::protocol::websocket::OpCode;
use serde_json::json;

use crate::support::{
    Client, Received, TestServer, WebSocket, masked, on_both_drivers, wait_until,
};

const PUBLISHERS: usize = 4;
const PUBLICATIONS: u32 = 4000;
const SUBSCRIBERS: usize = 12;

/// Decodes publisher and sequence number of a publication.
fn decode(received: &Received) -> (usize, u32) {
    let Received::Text(text) = received else { panic!("{received:?}") };
    let (publisher, number) = text.split_once(' ').expect("two numbers");
    (publisher.parse().expect("a number"), number.parse().expect("a number"))
}

/// Sends numbered publications to a channel in small batches.
fn publish_all(edge: SocketAddr, publisher: usize) {
    let mut client = Client::connect(edge);
    for start in (0..PUBLICATIONS).step_by(50) {
        let mut requests = String::new();
        for number in start..start + 50 {
            let payload = format!("{publisher} {number}");
            let len = payload.len();
            requests += &format!(
                "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n{payload}"
            );
        }
        client.send(&requests);
        for _ in 0..50 {
            assert_eq!(client.read_response().status, 200);
        }
    }
}

/// Reads until the last number of each publisher arrived; fails on a gap, a duplicate or a wrong order.
fn read_all(subscriber: &mut WebSocket) {
    let mut next = [0; PUBLISHERS];
    while next != [PUBLICATIONS; PUBLISHERS] {
        let (publisher, number) = decode(&subscriber.read());
        assert_eq!(number, next[publisher], "publications of publisher {publisher}");
        next[publisher] += 1;
    }
}

/// Repeatedly subscribes, reads some publications, checks them for gaps, and leaves in one of several ways.
fn join_and_leave(edge: SocketAddr, seed: usize, stop: &AtomicBool) -> u64 {
    let mut visits = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut subscriber = WebSocket::connect(edge, "/ws?channel=b&channel=a&channel=c");
        let mut next = [None; PUBLISHERS];
        for _ in 0..(seed * 7 + visits as usize) % 40 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // The ping ensures that there is always something to read.
            subscriber.send_frame(true, OpCode::Ping, b"");
            let received = subscriber.read();
            if matches!(received, Received::Pong(_)) {
                continue;
            }
            let (publisher, number) = decode(&received);
            assert_eq!(
                number,
                next[publisher].unwrap_or(number),
                "publications of publisher {publisher}"
            );
            next[publisher] = Some(number + 1);
        }
        match visits % 3 {
            0 => subscriber.send_close(1000),
            1 => subscriber.client.reset(),
            _ => drop(subscriber),
        }
        visits += 1;
    }
    visits
}

on_both_drivers! {
    fn a_client_does_not_receive_its_own_publications_where_the_channel_excludes_publishers(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            let quiet = ChannelOptions {
                exclude_publisher: true,
                slow_consumer: SlowConsumer::DropOldest,
                ..ChannelOptions::development()
            };
            config.namespaces.add("quiet", quiet).unwrap();
        });
        let connect = || WebSocket::connect(server.edge(), "/ws?channel=quiet:a");
        let mut sockets = [connect(), connect(), connect()];
        let mut commands = Client::connect(server.commands());
        commands.command(&json!({"id": 1, "connect": {}}));
        commands.command(&json!({"id": 2, "subscribe": {"channel": "quiet:a"}}));
        for publisher in 0..sockets.len() {
            let text = publisher.to_string();
            sockets[publisher].send_text(&text);
            for (index, socket) in sockets.iter_mut().enumerate() {
                if index != publisher {
                    socket.expect_text(&text);
                }
            }
            assert_eq!(commands.read_json()["push"]["pub"]["data"], publisher);
        }
        let publish = json!({"id": 3, "publish": {"channel": "quiet:a", "data": "own"}});
        assert!(commands.command(&publish)["publish"].is_object());
        for socket in &mut sockets {
            socket.expect_text("\"own\"");
        }
        sockets[0].send_text("last");
        assert_eq!(commands.read_json()["push"]["pub"]["data"], "last");

        // A client that recovers has lost track of what it published, so it receives that too.
        let subscribe = json!({"channel": "quiet:a", "recover": true, "offset": 3});
        commands.command(&json!({"id": 4, "unsubscribe": {"channel": "quiet:a"}}));
        let reply = commands.command(&json!({"id": 5, "subscribe": subscribe}));
        let publications = reply["subscribe"]["publications"].as_array().unwrap();
        let data: Vec<_> = publications.iter().map(|publication| &publication["data"]).collect();
        assert_eq!(data, ["own", "last"]);
    }

    fn publications_are_not_lost_repeated_or_reordered_while_clients_join_and_leave(driver) {
        let server = TestServer::start(driver, 2);
        let edge = server.edge();
        let mut subscribers: Vec<WebSocket> =
            (0..SUBSCRIBERS).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let (stop, visits) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let (stop, visits) = (&stop, &visits);
                scope.spawn(move || visits.fetch_add(join_and_leave(edge, seed, stop), Ordering::Relaxed));
            }
            std::thread::scope(|scope| {
                for publisher in 0..PUBLISHERS {
                    scope.spawn(move || publish_all(edge, publisher));
                }
                for subscriber in &mut subscribers {
                    scope.spawn(|| read_all(subscriber));
                }
            });
            stop.store(true, Ordering::Relaxed);
        });
        assert!(visits.into_inner() > 0);
        for subscriber in &mut subscribers {
            subscriber.round_trip();
        }
        drop(subscribers);
        wait_until("all clients are gone", || server.sum(|counters| &counters.connections_open) == 0);
        wait_until("all channels are removed", || {
            server.sum(|counters| &counters.channels) == 0 && server.sum(|counters| &counters.send_queue_bytes) == 0
        });
    }

    fn publications_of_many_publishers_stay_in_order_whichever_worker_is_the_home(driver) {
        let server = TestServer::start(driver, 2);
        // The workers of the publishers, of the home and of the subscribers differ between channels.
        std::thread::scope(|scope| {
            for channel in 0..6 {
                let edge = server.edge();
                scope.spawn(move || {
                    let mut subscriber = WebSocket::connect(edge, &format!("/ws?channel=c{channel}"));
                    let mut publisher = WebSocket::connect(edge, &format!("/ws?channel=c{channel}"));
                    let mut sender = publisher.client.stream().try_clone().unwrap();
                    const COUNT: u32 = 30_000;
                    std::thread::scope(|scope| {
                        scope.spawn(move || {
                            for start in (0..COUNT).step_by(3000) {
                                let frames: Vec<u8> = (start..start + 3000)
                                    .flat_map(|n| masked(true, OpCode::Binary, &n.to_be_bytes()))
                                    .collect();
                                std::io::Write::write_all(&mut sender, &frames).unwrap();
                            }
                        });
                        for socket in [&mut subscriber, &mut publisher] {
                            scope.spawn(move || {
                                for n in 0..COUNT {
                                    assert_eq!(socket.read(), Received::Binary(n.to_be_bytes().to_vec()));
                                }
                            });
                        }
                    });
                });
            }
        });
    }

    fn publications_reach_only_the_subscribers_of_their_channel(driver) {
        let server = TestServer::start(driver, 2);
        let mut subscribers: Vec<WebSocket> =
            (0..300).map(|n| WebSocket::connect(server.edge(), &format!("/ws?channel=c{n}"))).collect();
        let mut publishers: Vec<Client> = (0..4).map(|_| Client::connect(server.edge())).collect();
        for round in 0..5 {
            for n in 0..300 {
                publishers[(n + round) % 4].publish(&format!("c{n}"), format!("{n} {round}"));
            }
        }
        for (n, subscriber) in subscribers.iter_mut().enumerate() {
            for round in 0..5 {
                subscriber.expect_text(&format!("{n} {round}"));
            }
        }
    }
}
