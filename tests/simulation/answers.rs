//! Long replies: their order, their effect on other clients, and their cost.

use fantail::config::limits::{ANSWERED_BYTES_PER_TURN_MAX, ANSWERS_AWAITED_MAX};
use serde_json::{Value, json};

use crate::command_client::{CommandClient, WIDE};
use crate::world::World;

/// Fills the history of a channel; returns its epoch.
fn fill(world: &mut World, channel: &str, count: usize, bytes: usize) -> Value {
    let mut publisher = CommandClient::new(world);
    let data = "x".repeat(bytes);
    for _ in 0..count {
        let publish = json!({"id": 2, "publish": {"channel": channel, "data": data}});
        publisher.ask(world, &publish);
    }
    let history =
        publisher.ask(world, &json!({"id": 3, "history": {"channel": channel, "limit": 0}}));
    assert_eq!(history["history"]["offset"], count);
    history["history"]["epoch"].clone()
}

fn recover(id: usize, channel: &str, epoch: &Value) -> Value {
    json!({"id": id, "subscribe": {
        "channel": channel, "recover": true, "epoch": epoch, "offset": 0,
    }})
}

#[test]
fn many_simultaneous_recoveries_do_not_delay_a_bystander() {
    let (missed, bytes) = (100, 2000);
    let answer_bytes = missed * (bytes + 100);
    for workers in [1, 2, 3] {
        let mut world = World::of_real_size(workers as u64, workers);
        let epoch = fill(&mut world, "crowd", missed, bytes);
        let mut bystander = CommandClient::new(&mut world);
        let subscribed =
            bystander.ask(&mut world, &json!({"id": 2, "subscribe": {"channel": "calm"}}));
        assert_eq!(subscribed["subscribe"]["offset"], 0);
        let mut crowd: Vec<_> = (0..200).map(|_| CommandClient::new(&mut world)).collect();
        for client in &crowd {
            client.send(&world, &[recover(2, "crowd", &epoch)]);
        }
        let publish = json!({"id": 3, "publish": {"channel": "calm", "data": "now"}});
        bystander.send(&world, &[publish]);

        let mut answers = vec![0; crowd.len()];
        let (mut turns, mut received_in) = (0, None);
        while answers.contains(&0) {
            turns += 1;
            assert!(turns < 1000, "{answers:?}");
            let before = world.sum(|counters| &counters.sent_bytes);
            world.turn_all();
            let sent = world.sum(|counters| &counters.sent_bytes) - before;
            let most = (workers * (ANSWERED_BYTES_PER_TURN_MAX + answer_bytes)) as u64;
            assert!(sent < most, "{sent} bytes in one turn of {workers} workers");
            if bystander.lines(&world).iter().any(|line| line["push"]["pub"]["data"] == "now") {
                received_in.get_or_insert(turns);
            }
            for (client, answer) in crowd.iter_mut().zip(&mut answers) {
                for line in client.lines(&world) {
                    assert_eq!(line["subscribe"]["recovered"], true, "{line}");
                    *answer += line["subscribe"]["publications"].as_array().map_or(0, Vec::len);
                }
            }
        }
        assert_eq!(answers, vec![missed; crowd.len()]);
        // To the home worker and to the subscriber's worker, after the replies in progress.
        let before_it = ANSWERS_AWAITED_MAX * answer_bytes / ANSWERED_BYTES_PER_TURN_MAX;
        let most = if workers == 1 { 2 } else { 5 + before_it };
        assert!(received_in.is_some_and(|turn| turn <= most), "{received_in:?} of {turns} turns");
        assert!(turns > most, "the recoveries take longer: {turns}");
    }
}

#[test]
fn answers_to_many_simultaneous_polls_are_limited_per_turn() {
    let (missed, bytes) = (50, 20_000);
    let answer_bytes = missed * (bytes + 100);
    for workers in [1, 2] {
        let mut world = World::of_real_size(workers as u64, workers);
        let epoch = fill(&mut world, "crowd", missed, bytes);
        let position = format!("0:{}", epoch.as_str().expect("text"));
        let request =
            format!("GET /poll?channel=crowd&since={position} HTTP/1.1\r\nHost: t\r\n\r\n");
        let crowd: Vec<_> = (0..60).map(|_| world.connect_http()).collect();
        for _ in 0..200 {
            world.turn_all();
        }
        for peer in &crowd {
            world.network.set_window(*peer, WIDE);
            assert_eq!(world.network.write(*peer, request.as_bytes()), request.len());
        }
        let written = |world: &World| {
            world.sum(|counters| &counters.sent_bytes)
                + world.sum(|counters| &counters.send_queue_bytes)
        };
        let mut answers = vec![Vec::new(); crowd.len()];
        let mut turns = 0;
        while answers.iter().any(|answer: &Vec<u8>| !answer.ends_with(b"\"}")) {
            turns += 1;
            assert!(turns < 1000);
            let before = written(&world);
            world.turn_all();
            let sent = written(&world) - before;
            let most = (workers * (ANSWERED_BYTES_PER_TURN_MAX + answer_bytes)) as u64;
            assert!(sent < most, "{sent} bytes in one turn of {workers} workers");
            for (peer, answer) in crowd.iter().zip(&mut answers) {
                answer.extend(world.network.read(*peer));
            }
        }
        for answer in answers {
            let text = String::from_utf8(answer).expect("text");
            assert_eq!(text.matches("\"data\":").count(), missed, "{}", &text[..300]);
        }
    }
}

#[test]
fn a_client_that_recovers_and_does_not_read_has_at_most_one_reply_queued() {
    let (missed, bytes, channels) = (50, 20_000, 12);
    for workers in [1, 2] {
        let mut world = World::of_real_size(7, workers);
        let names: Vec<_> = (0..channels).map(|index| format!("much{index}")).collect();
        let epochs: Vec<_> =
            names.iter().map(|name| fill(&mut world, name, missed, bytes)).collect();
        let mut client = CommandClient::new(&mut world);
        world.network.set_window(client.peer, 1000);
        let asked = names.iter().zip(&epochs).zip(2..);
        let asked: Vec<_> = asked.map(|((name, epoch), id)| recover(id, name, epoch)).collect();
        client.send(&world, &asked);
        for _ in 0..200 {
            world.turn_all();
            let queued = world.sum(|counters| &counters.send_queue_bytes);
            assert!(
                queued < (missed * bytes * 3 / 2) as u64,
                "{queued} bytes are queued for one client"
            );
        }
        assert!(world.sum(|counters| &counters.deferred_request_bytes) > 0);
        world.network.set_window(client.peer, WIDE);
        let replies = client.replies(&mut world, channels);
        for (reply, id) in replies.iter().zip(2..) {
            assert_eq!(reply["id"], id, "replies are in the order of the commands");
            assert_eq!(reply["subscribe"]["publications"].as_array().map(Vec::len), Some(missed));
        }
        assert_eq!(world.sum(|counters| &counters.deferred_request_bytes), 0);

        // Another client does the same and leaves.
        let client = CommandClient::new(&mut world);
        world.network.set_window(client.peer, 1000);
        client.send(&world, &asked);
        for _ in 0..20 {
            world.turn_all();
        }
        assert!(world.sum(|counters| &counters.deferred_request_bytes) > 0);
        world.network.reset(client.peer);
        for _ in 0..20 {
            world.turn_all();
        }
        assert_eq!(world.sum(|counters| &counters.deferred_request_bytes), 0);
        CommandClient::new(&mut world);
    }
}

#[test]
fn commands_after_a_long_reply_keep_their_order() {
    for workers in [1, 2, 3] {
        let mut world = World::of_real_size(3, workers);
        let epoch = fill(&mut world, "a", 10, 100);
        let mut client = CommandClient::new(&mut world);
        let newest =
            |id| json!({"id": id, "history": {"channel": "a", "limit": 1, "reverse": true}});
        let mut commands: Vec<_> = (2..50).map(newest).collect();
        commands.push(recover(50, "a", &epoch));
        commands.push(json!({"id": 51, "publish": {"channel": "a", "data": 1}}));
        commands.push(newest(52));
        commands.push(json!({"id": 53, "unsubscribe": {"channel": "a"}}));
        commands.push(recover(54, "a", &epoch));
        commands.push(newest(55));
        commands.push(json!({"id": 56, "unsubscribe": {"channel": "a"}}));
        client.send(&world, &commands);
        let replies = client.replies(&mut world, commands.len());
        let reply = |id| replies.iter().find(|reply| reply["id"] == id).expect("a reply to each");
        for reply in &replies {
            assert!(reply.get("error").is_none(), "{reply}");
        }
        assert_eq!(reply(49)["history"]["offset"], 10);
        assert_eq!(reply(50)["subscribe"]["publications"].as_array().map(Vec::len), Some(10));
        assert_eq!(reply(52)["history"]["publications"][0]["offset"], 11);
        assert_eq!(reply(54)["subscribe"]["publications"].as_array().map(Vec::len), Some(11));
    }
}

#[test]
fn publications_sent_before_a_disconnect_are_published() {
    let mut world = World::of_real_size(5, 2);
    fill(&mut world, "long", 100, 10_000);
    let client = CommandClient::new(&mut world);
    world.network.set_window(client.peer, 1000);
    let history = json!({"id": 2, "history": {"channel": "long", "limit": -1}});
    let publish = json!({"id": 3, "publish": {"channel": "last", "data": "words"}});
    client.send(&world, &[history.clone(), history.clone(), history, publish]);
    for _ in 0..20 {
        world.turn_all();
    }
    let mut other = CommandClient::new(&mut world);
    let last = json!({"id": 2, "history": {"channel": "last"}});
    assert_eq!(other.ask(&mut world, &last)["history"]["offset"], 0);
    world.network.reset(client.peer);
    for _ in 0..20 {
        world.turn_all();
    }
    assert_eq!(other.ask(&mut world, &last)["history"]["offset"], 1);
}

#[test]
fn concurrent_batches_of_presence_queries_are_all_answered() {
    let command = json!({"presence_stats": {"channel": "a"}});
    let batch = json!({"commands": vec![command; 1000]}).to_string();
    let length = batch.len();
    let request =
        format!("POST /api/batch HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{batch}");
    for workers in [1, 3] {
        let mut world = World::of_real_size(workers as u64, workers);
        let mut asked = CommandClient::new(&mut world);
        asked.ask(&mut world, &json!({"id": 2, "subscribe": {"channel": "a"}}));
        let peers: Vec<_> = (0..12).map(|_| world.connect_http()).collect();
        for peer in &peers {
            world.network.set_window(*peer, WIDE);
            assert_eq!(world.network.write(*peer, request.as_bytes()), request.len());
        }
        asked.send(&world, &[json!({"id": 3, "presence_stats": {"channel": "a"}})]);
        let (mut turns, mut answered_in) = (0, None);
        let mut answers = vec![Vec::new(); peers.len()];
        while answers.iter().any(|answer: &Vec<u8>| !answer.ends_with(b"]}\n")) {
            turns += 1;
            assert!(turns < 10_000);
            world.turn_all();
            if let Some(reply) = asked.lines(&world).first() {
                assert_eq!(reply["presence_stats"]["num_clients"], 1, "{reply}");
                answered_in = Some(turns);
            }
            for (peer, answer) in peers.iter().zip(&mut answers) {
                answer.extend(world.network.read(*peer));
            }
        }
        for answer in answers {
            let text = String::from_utf8(answer).expect("text");
            assert_eq!(text.matches("\"num_clients\":1").count(), 1000, "{}", &text[..200]);
            assert!(!text.contains("error"));
        }
        // Clients take turns: before this query, each of the others may have the maximum number of queries in progress.
        let most = 10 + 5 * ANSWERS_AWAITED_MAX;
        assert!(answered_in.is_some_and(|turn| turn <= most), "{answered_in:?} of {turns} turns");
    }
}

/// Publishes to the first channel in every turn, until a client that subscribes to all channels has received some
/// publications. Returns the bytes that the client received.
fn receive_while_subscribing(seed: u64, target: &str) -> String {
    let mut world = World::of_real_size(seed, 3);
    let publisher = CommandClient::new(&mut world);
    let peer = world.connect_http();
    world.network.set_window(peer, WIDE);
    let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(world.network.write(peer, request.as_bytes()), request.len());
    let mut received = Vec::new();
    for _ in 0..1000 {
        publisher.send(&world, &[json!({"publish": {"channel": "c0", "data": "x"}})]);
        world.turn();
        received.extend(world.network.read(peer));
        let text = String::from_utf8_lossy(&received);
        if text.matches("data: \"x\"\n").count() >= 5 {
            return text.into_owned();
        }
    }
    panic!("received only: {}", String::from_utf8_lossy(&received));
}

#[test]
fn publications_made_while_a_stream_subscribes_are_delivered() {
    let channels: String = (0..8).map(|index| format!("channel=c{index}&")).collect();
    let mut held = 0;
    for seed in 0..50 {
        let text = receive_while_subscribing(seed, &format!("/events?{channels}"));
        let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
        let offsets: Vec<u64> =
            ids.map(|id| id.split(':').next().unwrap().parse().unwrap()).collect();
        // The position of the first event, then each following offset.
        let expected: Vec<_> = (offsets[0]..).take(offsets.len()).collect();
        assert_eq!(offsets, expected, "seed {seed}: {text}");
        held += usize::from(offsets.len() > 6);
    }
    assert!(held > 10, "several publications arrived with the response head in only {held} runs");
}
