//! The clients of the simulated world: each connects, loses its connection, and reconnects with its last position.

use std::collections::HashMap;

use fantail::config::SlowConsumer;
use fantail::driver::{PeerId, SimulatedNetwork};
use fantail::message::{CloseReason, Position, TransportKind};
use fantail::protocol::websocket::{Limits, Message, OpCode, Role, write_masked_frame};
use serde_json::{Value, json};

use crate::link::{Link, take_until};
use crate::options::SEND_QUEUE_BYTES_LEAST;
use crate::relay::Relay;
use crate::stream::{CHANNELS, Payload, State, Streams, View};

/// The transport of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands over raw TCP, one per line.
    Lines,
    /// Commands over a WebSocket.
    Messages,
    /// A WebSocket whose messages are publications.
    Plain,
    /// An event stream.
    Events,
    /// Consecutive long polls.
    Polls,
    /// Commands in requests of their own, replies and pushes as the lines of an answer.
    HttpStream,
    /// The same with an answer of events.
    SseStream,
}

impl Kind {
    /// The transport that the server counts it under.
    pub fn transport(self) -> TransportKind {
        match self {
            Self::Lines => TransportKind::CommandsTcp,
            Self::Messages => TransportKind::CommandsWebSocket,
            Self::Plain => TransportKind::WebSocket,
            Self::Events => TransportKind::Sse,
            Self::Polls => TransportKind::LongPoll,
            Self::HttpStream => TransportKind::CommandsHttpStream,
            Self::SseStream => TransportKind::CommandsSse,
        }
    }
}

/// A client of the simulated world.
pub struct Client {
    pub kind: Kind,
    /// Channels named in its request.
    pub named: Vec<usize>,
    pub link: Option<Link>,
    pub views: [View; CHANNELS.len()],
    /// Publications that a plain WebSocket received since it last connected.
    pub seen: Vec<Payload>,
    /// Whether a send to it may have been short, so that its queue may have filled.
    pub may_skip: bool,
    /// Whether it has stopped reading.
    pub is_stalled: bool,
    /// Whether it is exempt from faults.
    pub is_observer: bool,
    pub published: u32,
    pub acknowledged: u32,
    /// Its views when it received the shutdown disconnect.
    pub disconnect: Option<[View; CHANNELS.len()]>,
    pending: HashMap<u32, Request>,
    next_id: u32,
    /// How its commands travel, if not on its connection.
    relay: Relay,
}

/// A command that waits for its reply.
enum Request {
    Connect,
    Subscribe(usize, Option<Position>),
    Unsubscribe(usize),
    Publish(Payload),
}

impl Client {
    pub fn new(kind: Kind, named: Vec<usize>) -> Self {
        Self {
            kind,
            named,
            link: None,
            views: Default::default(),
            seen: Vec::new(),
            may_skip: false,
            is_stalled: false,
            is_observer: false,
            published: 0,
            acknowledged: 0,
            disconnect: None,
            pending: HashMap::new(),
            next_id: 1,
            relay: Relay::default(),
        }
    }

    /// Whether all its commands are answered. A waiting poll does not count.
    pub fn is_answered(&self) -> bool {
        self.pending.is_empty()
    }

    /// Publications without an acknowledgement.
    pub fn unanswered(&self) -> impl Iterator<Item = Payload> {
        self.pending.values().filter_map(|request| match request {
            Request::Publish(payload) => Some(*payload),
            _ => None,
        })
    }

    /// Channels that it is subscribed to, according to the replies.
    pub fn subscribed(&self) -> Vec<usize> {
        let is_live = |at: &usize| self.views[*at].state == State::Subscribed;
        match self.has_commands() {
            true => (0..CHANNELS.len()).filter(is_live).collect(),
            false => self.named.clone(),
        }
    }

    pub fn has_commands(&self) -> bool {
        matches!(self.kind, Kind::Lines | Kind::Messages) || self.is_relayed()
    }

    /// Whether its commands come in requests of their own.
    fn is_relayed(&self) -> bool {
        matches!(self.kind, Kind::HttpStream | Kind::SseStream)
    }

    /// Whether it may publish to this channel.
    pub fn publishes_to(&self, channel: usize) -> bool {
        let link = self.link.as_ref();
        match self.kind {
            _ if self.has_commands() => link.is_some_and(|link| link.name.is_some()),
            Kind::Plain => self.named[0] == channel && link.is_some_and(|link| link.is_open),
            _ => false,
        }
    }

    /// Opens its transport on a new connection. `resumes`: recovers from its last position.
    pub fn connect(&mut self, network: &SimulatedNetwork, peer: PeerId, resumes: bool) {
        self.link = Some(Link::new(peer));
        (self.is_stalled, self.may_skip) = (false, false);
        self.pending.clear();
        self.seen.clear();
        let upgrade = |target: &str| {
            format!(
                "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
        };
        let channels = self.query();
        match self.kind {
            Kind::Lines | Kind::HttpStream | Kind::SseStream => {}
            Kind::Messages => {
                network.write(peer, upgrade("/connection/websocket").as_bytes());
            }
            Kind::Plain => {
                network.write(peer, upgrade(&format!("/ws?{channels}")).as_bytes());
            }
            Kind::Events => {
                let since = resumes.then(|| self.positions()).flatten();
                let header = since.as_ref().map_or_else(String::new, |positions| {
                    format!("Last-Event-ID: {}\r\n", written(positions))
                });
                let request = format!("GET /events?{channels} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
                network.write(peer, request.as_bytes());
                self.named.iter().for_each(|at| self.views[*at].state = State::Subscribing);
                self.link.as_mut().expect("just made").since = since;
            }
            Kind::Polls => self.poll(network, resumes),
        }
        if self.has_commands() {
            self.command(network, Request::Connect, &json!({"connect": {}}));
        }
    }

    /// Subscribes to a channel, from a position or from its current end.
    pub fn subscribe(
        &mut self,
        network: &SimulatedNetwork,
        channel: usize,
        since: Option<Position>,
    ) -> bool {
        let name = CHANNELS[channel].name;
        let command = match since {
            None => json!({"subscribe": {"channel": name}}),
            Some(Position { epoch, offset }) => json!({"subscribe": {
                "channel": name, "recover": true, "offset": offset, "epoch": epoch.to_string(),
            }}),
        };
        self.views[channel].state = State::Subscribing;
        self.command(network, Request::Subscribe(channel, since), &command)
    }

    pub fn unsubscribe(&mut self, network: &SimulatedNetwork, channel: usize) -> bool {
        self.views[channel].state = State::Unsubscribing;
        let command = json!({"unsubscribe": {"channel": CHANNELS[channel].name}});
        self.command(network, Request::Unsubscribe(channel), &command)
    }

    /// Publishes to a channel. Returns whether all of it was written, because a truncated message cannot be completed
    /// later.
    pub fn publish(&mut self, network: &SimulatedNetwork, channel: usize, padding: usize) -> bool {
        let Some(link) = &self.link else { return true };
        self.published += 1;
        // Order is preserved per connection, so the connection identifies the publisher.
        let payload = Payload { channel, publisher: link.peer.0, number: self.published };
        let data = payload.write(padding);
        if self.has_commands() {
            let command = json!({"publish": {"channel": CHANNELS[channel].name, "data": data}});
            return self.command(network, Request::Publish(payload), &command);
        }
        let mut frame = Vec::new();
        write_masked_frame(&mut frame, OpCode::Text, data.as_bytes(), [1, 2, 3, 4]);
        network.write(link.peer, &frame) == frame.len()
    }

    /// Forgets its connection.
    pub fn cut(&mut self) {
        self.link = None;
        self.pending.clear();
        self.relay.cut();
        self.views.iter_mut().for_each(View::cut);
    }

    /// Reads and processes input from the server. Returns the number of bytes; the end of the stream counts as one.
    pub fn read(&mut self, network: &SimulatedNetwork, streams: &mut Streams) -> usize {
        let relayed = self.relay.step(network);
        if relayed.is_err() {
            // Some of its commands are lost, and their replies would be awaited for ever.
            network.reset(self.link_mut().peer);
            self.cut();
        }
        let relayed = relayed.unwrap_or(1);
        let Some(link) = &mut self.link else { return relayed };
        if self.is_stalled {
            return relayed;
        }
        let peer = link.peer;
        let mut bytes = network.read(peer);
        let count = relayed + bytes.len();
        // This much input at once may have filled its send queue.
        self.may_skip |= bytes.len() > SEND_QUEUE_BYTES_LEAST / 2;
        link.bytes.append(&mut bytes);
        match self.kind {
            Kind::Lines => self.read_lines(network, streams),
            Kind::Messages | Kind::Plain => self.read_frames(network, streams),
            Kind::Events => self.read_events(streams),
            Kind::Polls => self.read_answers(network, streams),
            Kind::HttpStream | Kind::SseStream => self.read_answer(network, streams),
        }
        if network.ended(peer).is_some() {
            network.close(peer);
            self.cut();
            return count + 1;
        }
        count
    }

    fn read_lines(&mut self, network: &SimulatedNetwork, streams: &mut Streams) {
        while let Some(line) = self.link_mut().take_until(b"\n") {
            self.on_message(network, &line, streams);
        }
    }

    fn read_frames(&mut self, network: &SimulatedNetwork, streams: &mut Streams) {
        let link = self.link_mut();
        if !link.is_open {
            let Some(head) = link.take_until(b"\r\n\r\n") else { return };
            if is_refused(&head) {
                return;
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
            link.is_open = true;
        }
        let peer = link.peer;
        let mut bytes = std::mem::take(&mut link.bytes);
        let mut rest = bytes.as_mut_slice();
        let limits = Limits {
            role: Role::Client,
            message_bytes_max: 1 << 20,
            fragments_max: u32::MAX,
            has_compression: false,
        };
        let mut decoder = std::mem::take(&mut link.decoder);
        while let Some(message) =
            decoder.next(&mut rest, &limits).expect("the server sends valid frames")
        {
            match (message, self.kind) {
                (Message::Text(text), Kind::Plain) => {
                    let text = std::str::from_utf8(text).expect("text");
                    self.seen.push(Payload::read(text));
                }
                (Message::Text(text), _) => self.on_message(network, text, streams),
                (Message::Ping(payload), _) => {
                    let mut pong = Vec::new();
                    write_masked_frame(&mut pong, OpCode::Pong, payload, [9, 9, 9, 9]);
                    network.write(peer, &pong);
                }
                (Message::Close { code, .. }, _) => self.on_disconnect(code.map(u64::from)),
                (other, _) => panic!("unexpected: {other:?}"),
            }
        }
        self.link_mut().decoder = decoder;
    }

    /// Reads replies and pushes from an answer.
    fn read_answer(&mut self, network: &SimulatedNetwork, streams: &mut Streams) {
        if !self.read_head() {
            return;
        }
        while let Some(mut chunk) = self.link_mut().take_chunk() {
            self.link_mut().body.append(&mut chunk);
        }
        let is_events = self.kind == Kind::SseStream;
        let end: &[u8] = if is_events { b"\n\n" } else { b"\n" };
        loop {
            let link = self.link_mut();
            let Some(message) = take_until(&mut link.body, end) else { return };
            // The first bytes of events are an empty line.
            let message = message.trim_ascii_start();
            let text = if is_events { message.strip_prefix(b"data: ") } else { Some(message) };
            self.on_message(network, text.expect("data"), streams);
        }
    }

    /// Whether the head of an answer has come.
    fn read_head(&mut self) -> bool {
        let link = self.link_mut();
        if !link.is_open {
            let Some(head) = link.take_until(b"\r\n\r\n") else { return false };
            if is_refused(&head) {
                return false;
            }
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
            link.is_open = true;
        }
        true
    }

    /// Processes a reply, a push or a ping.
    fn on_message(&mut self, network: &SimulatedNetwork, text: &[u8], streams: &mut Streams) {
        let value: Value = serde_json::from_slice(text).expect("the server writes JSON");
        if let Some(id) = value["id"].as_u64() {
            let request = self.pending.remove(&(id as u32)).expect("a reply matches a command");
            return self.on_reply(&request, &value, streams);
        }
        if value == json!({}) {
            if self.kind == Kind::Messages {
                let peer = self.link_mut().peer;
                write_message(network, peer, b"{}");
            }
            if self.is_relayed() {
                self.relay.push("{}");
            }
            return;
        }
        let push = &value["push"];
        // An error without an id.
        let Some(name) = push["channel"].as_str() else {
            assert!(push["disconnect"].is_object() || value["error"].is_object(), "{value}");
            return self.on_disconnect(push["disconnect"]["code"].as_u64());
        };
        let channel = channel_of(name);
        let view = &mut self.views[channel];
        if push["pub"].is_object() {
            let (offset, payload) = item_of(&push["pub"]);
            let before = view.position.expect("subscribed before the first push");
            view.on_publication(
                channel,
                Position { offset, ..before },
                payload,
                self.may_skip,
                streams,
            );
        } else if let Some(dropped) = push["gap"]["dropped"].as_u64() {
            view.on_gap(channel, dropped, self.may_skip, streams);
        } else if push["subscribe"].is_object() {
            view.begin(channel, None, position_of(&push["subscribe"]), false, streams);
            if view.state != State::Unsubscribing {
                view.state = State::Subscribed;
            }
        } else if push["unsubscribe"].is_object() {
            if view.state == State::Subscribed {
                view.state = State::Unsubscribed;
                let since = view.position;
                // It has received a part of the missed publications, and subscribes again for the next part.
                if push["unsubscribe"]["code"].as_u64() >= Some(2500)
                    && !self.subscribe(network, channel, since)
                {
                    network.reset(self.link_mut().peer);
                }
            }
        } else {
            panic!("unexpected: {value}");
        }
    }

    /// Processes a disconnect with this code.
    fn on_disconnect(&mut self, code: Option<u64>) {
        let shutdown = CloseReason::Shutdown;
        let codes = [shutdown.disconnect_code(), shutdown.websocket_code()];
        if code.is_some_and(|code| codes.map(u64::from).contains(&code)) {
            self.disconnect = Some(self.views);
        }
    }

    fn on_reply(&mut self, request: &Request, value: &Value, streams: &mut Streams) {
        let error = value["error"]["code"].as_u64();
        match request {
            Request::Connect => {
                let name = value["connect"]["client"].as_str().expect("a client id");
                self.link_mut().name = Some(name.to_owned());
                self.relay.begin(&value["connect"]);
            }
            Request::Publish(payload) => {
                assert!(value["publish"].is_object(), "{value}");
                self.acknowledged += 1;
                streams.acknowledge(*payload);
            }
            Request::Unsubscribe(channel) => {
                assert!(value["unsubscribe"].is_object() || error == Some(107), "{value}");
                self.views[*channel].cut();
            }
            // It has reached its maximum, possibly with server subscriptions whose pushes have not arrived yet.
            Request::Subscribe(channel, _) if error == Some(106) => {
                if self.views[*channel].state == State::Subscribing {
                    self.views[*channel].cut();
                }
            }
            Request::Subscribe(channel, since) => {
                let view = &mut self.views[*channel];
                match error {
                    None => {
                        let reply = &value["subscribe"];
                        on_subscribed(view, *channel, *since, reply, self.may_skip, streams);
                        if view.state != State::Unsubscribing {
                            view.state = State::Subscribed;
                        }
                    }
                    // The server API has already subscribed it, and a push reports that before or after this reply; or
                    // it unsubscribed, or was unsubscribed, before the reply.
                    Some(105 | 107) if view.state == State::Subscribing => view.cut(),
                    Some(105 | 107) => {}
                    Some(_) => panic!("{value}"),
                }
            }
        }
    }

    fn read_events(&mut self, streams: &mut Streams) {
        if !self.read_head() {
            return;
        }
        while let Some(chunk) = self.link_mut().take_chunk() {
            self.on_event(std::str::from_utf8(&chunk).expect("text"), streams);
        }
    }

    fn on_event(&mut self, block: &str, streams: &mut Streams) {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let ids = field("id").map(positions_of);
        // Heartbeats and disconnects carry no position.
        if field("event") == Some("disconnect") {
            let why: Value = serde_json::from_str(field("data").expect("data")).expect("JSON");
            return self.on_disconnect(why["code"].as_u64());
        }
        if block.starts_with("retry: ") && ids.is_none() {
            return;
        }
        // An id takes effect at the end of its block, so a loss must be reported in the same block.
        if field("retry").is_some() {
            let is_loss = field("data") == Some("{\"recovered\":false}");
            let since = self.link_mut().since.take();
            return self.begin_all(since.as_deref(), &ids.expect("an event id"), is_loss, streams);
        }
        if let (Some("gap"), Some(ids)) = (field("event"), &ids) {
            // A later part of the missed publications, some of which have been removed meanwhile.
            let since: Vec<_> = self.positions().expect("a stream has positions");
            return self.begin_all(Some(&since), ids, true, streams);
        }
        if field("event") == Some("gap") {
            let gap: Value = serde_json::from_str(field("data").expect("data")).expect("JSON");
            let dropped = gap["dropped"].as_u64().expect("a number");
            // A stream of several channels does not name the channel of a gap.
            let [channel] = self.named[..] else { panic!("only streams of one channel drop") };
            return self.views[channel].on_gap(channel, dropped, self.may_skip, streams);
        }
        let Some(data) = field("data") else { return };
        let (payload, ids) = (Payload::read(data), ids.expect("a publication has an id"));
        for (at, id) in self.named.iter().zip(ids) {
            let view = &mut self.views[*at];
            if *at == payload.channel {
                view.on_publication(*at, id, payload, self.may_skip, streams);
            } else {
                assert_eq!(view.position, Some(id), "a position changes only with its channel");
            }
        }
    }

    fn begin_all(
        &mut self,
        since: Option<&[Position]>,
        at: &[Position],
        is_loss: bool,
        streams: &mut Streams,
    ) {
        for (index, channel) in self.named.iter().enumerate() {
            let since = since.map(|positions| positions[index]);
            // With several channels, a loss in one is visible by its position.
            let is_reported = is_loss && (self.named.len() == 1 || since != Some(at[index]));
            self.views[*channel].begin(*channel, since, at[index], is_reported, streams);
            self.views[*channel].state = State::Subscribed;
        }
    }

    fn poll(&mut self, network: &SimulatedNetwork, resumes: bool) {
        let since = resumes.then(|| self.positions()).flatten();
        let text = since.as_deref().map_or_else(String::new, written);
        let request = format!(
            "GET /poll?timeout=2&{}&since={text} HTTP/1.1\r\nHost: x\r\n\r\n",
            self.query()
        );
        self.named.iter().for_each(|at| self.views[*at].state = State::Subscribing);
        let link = self.link_mut();
        link.since = since;
        network.write(link.peer, request.as_bytes());
    }

    fn read_answers(&mut self, network: &SimulatedNetwork, streams: &mut Streams) {
        while let Some(response) = self.link_mut().take_response() {
            let Ok(body) = response else {
                network.close(self.link_mut().peer);
                return self.cut();
            };
            let answer: Value = serde_json::from_slice(&body).expect("an answer is JSON");
            self.on_poll_response(&answer, streams);
            self.poll(network, true);
        }
    }

    fn on_poll_response(&mut self, answer: &Value, streams: &mut Streams) {
        let since = self.link_mut().since.take();
        let at = positions_of(answer["position"].as_str().expect("a position"));
        let items: Vec<_> = answer["publications"].as_array().expect("a list").iter().collect();
        let is_loss = answer["recovered"] == false;
        for (index, channel) in self.named.iter().enumerate() {
            let view = &mut self.views[*channel];
            let items: Vec<_> = items
                .iter()
                .filter(|item| item["channel"] == CHANNELS[*channel].name)
                .map(|item| item_of(item))
                .collect();
            let since = since.as_ref().map(|positions| positions[index]);
            let first = items.first().map_or(at[index].offset, |(offset, _)| offset - 1);
            let begins = Position { offset: first, ..at[index] };
            let is_reported = is_loss && since != Some(begins);
            if is_reported && CHANNELS[*channel].slow_consumer == SlowConsumer::DropOldest {
                view.position = Some(begins);
                streams.counts.gaps += 1;
            } else {
                view.begin(*channel, since, begins, is_reported, streams);
            }
            view.state = State::Subscribed;
            for (offset, payload) in items {
                view.on_publication(
                    *channel,
                    Position { offset, ..at[index] },
                    payload,
                    false,
                    streams,
                );
            }
            assert_eq!(view.position, Some(at[index]), "an answer leads to its position");
        }
    }

    fn command(&mut self, network: &SimulatedNetwork, request: Request, command: &Value) -> bool {
        let Some(link) = &self.link else { return true };
        let id = self.next_id;
        self.next_id += 1;
        let mut command = command.clone();
        command["id"] = id.into();
        if self.is_relayed() {
            match request {
                Request::Connect => ask_for_answer(network, link.peer, self.kind, &command),
                _ => self.relay.push(&command.to_string()),
            }
            self.pending.insert(id, request);
            return true;
        }
        self.pending.insert(id, request);
        let mut text = command.to_string().into_bytes();
        if self.kind == Kind::Messages {
            return write_message(network, link.peer, &text);
        }
        text.push(b'\n');
        network.write(link.peer, &text) == text.len()
    }

    fn query(&self) -> String {
        let channels = self.named.iter().map(|at| format!("channel={}", CHANNELS[*at].name));
        channels.collect::<Vec<_>>().join("&")
    }

    fn positions(&self) -> Option<Vec<Position>> {
        self.named.iter().map(|at| self.views[*at].position).collect()
    }

    fn link_mut(&mut self) -> &mut Link {
        self.link.as_mut().expect("only connected clients read")
    }
}

fn on_subscribed(
    view: &mut View,
    channel: usize,
    since: Option<Position>,
    reply: &Value,
    may_skip: bool,
    streams: &mut Streams,
) {
    let at = position_of(reply);
    assert_eq!(reply["was_recovering"] == true, since.is_some(), "{reply}");
    let is_reported = since.is_some() && reply["recovered"] == false;
    view.begin(channel, since, at, is_reported, streams);
    let leaves = std::mem::replace(&mut view.state, State::Subscribed) == State::Unsubscribing;
    for item in reply["publications"].as_array().into_iter().flatten() {
        let (offset, payload) = item_of(item);
        // Recovered publications have no gaps, regardless of the channel's policy.
        assert_eq!(Some(offset - 1), view.position.map(|position| position.offset));
        view.on_publication(channel, Position { offset, ..at }, payload, may_skip, streams);
        streams.counts.recovered += 1;
    }
    if leaves {
        view.state = State::Unsubscribing;
    }
}

/// Whether the server refused the connection because it is full; it closes after this response.
fn is_refused(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 503 ")
}

fn ask_for_answer(network: &SimulatedNetwork, peer: PeerId, kind: Kind, connect: &Value) {
    let path = if kind == Kind::SseStream { "sse" } else { "http_stream" };
    let body = connect.to_string();
    let length = body.len();
    let request = format!(
        "POST /connection/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    network.write(peer, request.as_bytes());
}

fn write_message(network: &SimulatedNetwork, peer: PeerId, text: &[u8]) -> bool {
    let mut frame = Vec::new();
    write_masked_frame(&mut frame, OpCode::Text, text, [1, 2, 3, 4]);
    network.write(peer, &frame) == frame.len()
}

fn channel_of(name: &str) -> usize {
    CHANNELS.iter().position(|channel| channel.name == name).expect("a channel of this world")
}

fn item_of(item: &Value) -> (u64, Payload) {
    let offset = item["offset"].as_u64().expect("an offset");
    (offset, Payload::read(item["data"].as_str().expect("a string")))
}

/// The position in a reply.
pub fn position_of(value: &Value) -> Position {
    let epoch = value["epoch"].as_str().expect("an epoch").parse().expect("eight digits");
    Position { epoch, offset: value["offset"].as_u64().expect("an offset") }
}

fn positions_of(text: &str) -> Vec<Position> {
    text.split('_').map(|part| part.parse().expect("a position")).collect()
}

fn written(positions: &[Position]) -> String {
    let texts: Vec<_> = positions.iter().map(Position::to_string).collect();
    texts.join("_")
}
