//! The clients of the simulated world: each comes, is cut off, and comes back with what it knows.

use std::collections::HashMap;

use fantail::config::SlowConsumer;
use fantail::driver::{PeerId, SimulatedNetwork};
use fantail::message::{CloseReason, Position, TransportKind};
use fantail::protocol::websocket::{Limits, Message, OpCode, Role, write_masked_frame};
use serde_json::{Value, json};

use crate::link::Link;
use crate::options::SEND_QUEUE_BYTES_LEAST;
use crate::stream::{CHANNELS, Payload, State, Streams, View};

/// How a client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands, one a line.
    Lines,
    /// Commands over a WebSocket.
    Messages,
    /// A WebSocket whose messages are publications.
    Plain,
    /// An event stream.
    Events,
    /// Long polls, one after the other.
    Polls,
}

impl Kind {
    /// What it is counted as.
    pub fn transport(self) -> TransportKind {
        match self {
            Self::Lines => TransportKind::CommandsTcp,
            Self::Messages => TransportKind::CommandsWebSocket,
            Self::Plain => TransportKind::WebSocket,
            Self::Events => TransportKind::Sse,
            Self::Polls => TransportKind::LongPoll,
        }
    }
}

/// One client.
pub struct Client {
    pub kind: Kind,
    /// What it named in its request, if it named any.
    pub named: Vec<usize>,
    pub link: Option<Link>,
    pub views: [View; CHANNELS.len()],
    /// What a plain WebSocket saw since it connected last.
    pub seen: Vec<Payload>,
    /// Its socket may have taken less than it was given.
    pub may_skip: bool,
    /// Reads nothing.
    pub is_stalled: bool,
    /// It is never disturbed.
    pub is_observer: bool,
    pub published: u32,
    pub acknowledged: u32,
    /// What it had when it was told that the server shuts down.
    pub disconnect: Option<[View; CHANNELS.len()]>,
    asks: HashMap<u32, Ask>,
    next_ask: u32,
}

/// What a command asked.
enum Ask {
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
            asks: HashMap::new(),
            next_ask: 1,
        }
    }

    /// Whether nothing that it asked waits for its answer. A poll that waits is no such thing.
    pub fn is_answered(&self) -> bool {
        self.asks.is_empty()
    }

    /// What it published and does not know to be accepted.
    pub fn unanswered(&self) -> impl Iterator<Item = Payload> {
        self.asks.values().filter_map(|ask| match ask {
            Ask::Publish(payload) => Some(*payload),
            _ => None,
        })
    }

    /// Channels that it is subscribed to, as it knows.
    pub fn subscribed(&self) -> Vec<usize> {
        let is_live = |at: &usize| self.views[*at].state == State::Live;
        match self.has_commands() {
            true => (0..CHANNELS.len()).filter(is_live).collect(),
            false => self.named.clone(),
        }
    }

    pub fn has_commands(&self) -> bool {
        matches!(self.kind, Kind::Lines | Kind::Messages)
    }

    /// Whether it may publish here.
    pub fn publishes_to(&self, channel: usize) -> bool {
        let link = self.link.as_ref();
        match self.kind {
            Kind::Lines | Kind::Messages => link.is_some_and(|link| link.name.is_some()),
            Kind::Plain => self.named[0] == channel && link.is_some_and(|link| link.is_open),
            Kind::Events | Kind::Polls => false,
        }
    }

    /// Begins a conversation. `goes_on`: from where it stood.
    pub fn connect(&mut self, network: &SimulatedNetwork, peer: PeerId, goes_on: bool) {
        self.link = Some(Link::new(peer));
        (self.is_stalled, self.may_skip) = (false, false);
        self.asks.clear();
        self.seen.clear();
        let upgrade = |target: &str| {
            format!(
                "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
        };
        let channels = self.query();
        match self.kind {
            Kind::Lines => {}
            Kind::Messages => {
                network.write(peer, upgrade("/connection/websocket").as_bytes());
            }
            Kind::Plain => {
                network.write(peer, upgrade(&format!("/ws?{channels}")).as_bytes());
            }
            Kind::Events => {
                let since = goes_on.then(|| self.positions()).flatten();
                let header = since.as_ref().map_or_else(String::new, |positions| {
                    format!("Last-Event-ID: {}\r\n", written(positions))
                });
                let request = format!("GET /events?{channels} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
                network.write(peer, request.as_bytes());
                self.named.iter().for_each(|at| self.views[*at].state = State::Asked);
                self.link.as_mut().expect("just made").since = since;
            }
            Kind::Polls => self.poll(network, goes_on),
        }
        if self.has_commands() {
            self.command(network, Ask::Connect, &json!({"connect": {}}));
        }
    }

    /// Asks for a channel, from a position or from now on.
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
        self.views[channel].state = State::Asked;
        self.command(network, Ask::Subscribe(channel, since), &command)
    }

    pub fn unsubscribe(&mut self, network: &SimulatedNetwork, channel: usize) -> bool {
        self.views[channel].state = State::Leaving;
        let command = json!({"unsubscribe": {"channel": CHANNELS[channel].name}});
        self.command(network, Ask::Unsubscribe(channel), &command)
    }

    /// Publishes to a channel. Returns whether all of it was written: what is cut off cannot be taken back.
    pub fn publish(&mut self, network: &SimulatedNetwork, channel: usize, padding: usize) -> bool {
        let Some(link) = &self.link else { return true };
        self.published += 1;
        // The order in which it publishes is kept by its connection.
        let payload = Payload { channel, publisher: link.peer.0, number: self.published };
        let data = payload.write(padding);
        if self.has_commands() {
            let command = json!({"publish": {"channel": CHANNELS[channel].name, "data": data}});
            return self.command(network, Ask::Publish(payload), &command);
        }
        let mut frame = Vec::new();
        write_masked_frame(&mut frame, OpCode::Text, data.as_bytes(), [1, 2, 3, 4]);
        network.write(link.peer, &frame) == frame.len()
    }

    /// Its connection is over.
    pub fn cut(&mut self) {
        self.link = None;
        self.asks.clear();
        self.views.iter_mut().for_each(View::cut);
    }

    /// Takes what the server sent. Returns how many bytes came; the end counts as one.
    pub fn read(&mut self, network: &SimulatedNetwork, streams: &mut Streams) -> usize {
        let Some(link) = &mut self.link else { return 0 };
        if self.is_stalled {
            return 0;
        }
        let peer = link.peer;
        let mut bytes = network.read(peer);
        let count = bytes.len();
        // So much at once may have filled its queue.
        self.may_skip |= count > SEND_QUEUE_BYTES_LEAST / 2;
        link.bytes.append(&mut bytes);
        match self.kind {
            Kind::Lines => self.read_lines(network, streams),
            Kind::Messages | Kind::Plain => self.read_frames(network, streams),
            Kind::Events => self.read_events(streams),
            Kind::Polls => self.read_answers(network, streams),
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
            self.hear(network, &line, streams);
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
        let limits =
            Limits { role: Role::Client, message_bytes_max: 1 << 20, fragments_max: u32::MAX };
        let mut decoder = std::mem::take(&mut link.decoder);
        while let Some(message) = decoder.next(&mut rest, &limits).expect("the server speaks well")
        {
            match (message, self.kind) {
                (Message::Text(text), Kind::Plain) => {
                    let text = std::str::from_utf8(text).expect("text");
                    self.seen.push(Payload::read(text));
                }
                (Message::Text(text), _) => self.hear(network, text, streams),
                (Message::Ping(payload), _) => {
                    let mut pong = Vec::new();
                    write_masked_frame(&mut pong, OpCode::Pong, payload, [9, 9, 9, 9]);
                    network.write(peer, &pong);
                }
                (Message::Close { code, .. }, _) => self.hear_end(code.map(u64::from)),
                (other, _) => panic!("unexpected: {other:?}"),
            }
        }
        self.link_mut().decoder = decoder;
    }

    /// Takes a reply, a push or a ping.
    fn hear(&mut self, network: &SimulatedNetwork, text: &[u8], streams: &mut Streams) {
        let value: Value = serde_json::from_slice(text).expect("the server writes JSON");
        if let Some(id) = value["id"].as_u64() {
            let ask = self.asks.remove(&(id as u32)).expect("only what was asked is answered");
            return self.hear_reply(&ask, &value, streams);
        }
        if value == json!({}) {
            if self.kind == Kind::Messages {
                let peer = self.link_mut().peer;
                write_message(network, peer, b"{}");
            }
            return;
        }
        let push = &value["push"];
        // An error without a number: the server API asked in vain.
        let Some(name) = push["channel"].as_str() else {
            assert!(push["disconnect"].is_object() || value["error"].is_object(), "{value}");
            return self.hear_end(push["disconnect"]["code"].as_u64());
        };
        let channel = channel_of(name);
        let view = &mut self.views[channel];
        if push["pub"].is_object() {
            let (offset, payload) = item_of(&push["pub"]);
            let before = view.position.expect("subscribed before the first push");
            view.hear(channel, Position { offset, ..before }, payload, self.may_skip, streams);
        } else if let Some(dropped) = push["gap"]["dropped"].as_u64() {
            view.hear_gap(channel, dropped, self.may_skip, streams);
        } else if push["subscribe"].is_object() {
            view.begin(channel, None, position_of(&push["subscribe"]), false, streams);
            if view.state != State::Leaving {
                view.state = State::Live;
            }
        } else if push["unsubscribe"].is_object() {
            if view.state == State::Live {
                view.state = State::Away;
                let since = view.position;
                // It has a part of what it missed, and asks for the next one.
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

    /// Its conversation ends, with this code.
    fn hear_end(&mut self, code: Option<u64>) {
        let shutdown = CloseReason::Shutdown;
        let codes = [shutdown.disconnect_code(), shutdown.websocket_code()];
        if code.is_some_and(|code| codes.map(u64::from).contains(&code)) {
            self.disconnect = Some(self.views);
        }
    }

    fn hear_reply(&mut self, ask: &Ask, value: &Value, streams: &mut Streams) {
        let error = value["error"]["code"].as_u64();
        match ask {
            Ask::Connect => {
                let name = value["connect"]["client"].as_str().expect("it has a name");
                self.link_mut().name = Some(name.to_owned());
            }
            Ask::Publish(payload) => {
                assert!(value["publish"].is_object(), "{value}");
                self.acknowledged += 1;
                streams.acknowledge(*payload);
            }
            Ask::Unsubscribe(channel) => {
                assert!(value["unsubscribe"].is_object() || error == Some(107), "{value}");
                self.views[*channel].cut();
            }
            // It has as many as it may, perhaps by the server API and not told of all yet.
            Ask::Subscribe(channel, _) if error == Some(106) => {
                if self.views[*channel].state == State::Asked {
                    self.views[*channel].cut();
                }
            }
            Ask::Subscribe(channel, since) => {
                let view = &mut self.views[*channel];
                match error {
                    None => {
                        let reply = &value["subscribe"];
                        hear_subscribed(view, *channel, *since, reply, self.may_skip, streams);
                        if view.state != State::Leaving {
                            view.state = State::Live;
                        }
                    }
                    // The server API did that already, and a push tells of it, now or later; or it left, or was
                    // unsubscribed, before it was answered.
                    Some(105 | 107) if view.state == State::Asked => view.cut(),
                    Some(105 | 107) => {}
                    Some(_) => panic!("{value}"),
                }
            }
        }
    }

    fn read_events(&mut self, streams: &mut Streams) {
        let link = self.link_mut();
        if !link.is_open {
            let Some(head) = link.take_until(b"\r\n\r\n") else { return };
            if is_refused(&head) {
                return;
            }
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
            link.is_open = true;
        }
        while let Some(chunk) = self.link_mut().take_chunk() {
            self.hear_block(std::str::from_utf8(&chunk).expect("text"), streams);
        }
    }

    fn hear_block(&mut self, block: &str, streams: &mut Streams) {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let ids = field("id").map(positions_of);
        // Heartbeats, and why it ends, lead nowhere.
        if field("event") == Some("disconnect") {
            let why: Value = serde_json::from_str(field("data").expect("data")).expect("JSON");
            return self.hear_end(why["code"].as_u64());
        }
        if block.starts_with("retry: ") && ids.is_none() {
            return;
        }
        // A place counts from the end of its block on, so a loss has to be told by then.
        if field("retry").is_some() {
            let is_loss = field("data") == Some("{\"recovered\":false}");
            let since = self.link_mut().since.take();
            return self.begin_all(since.as_deref(), &ids.expect("a place"), is_loss, streams);
        }
        if let (Some("gap"), Some(ids)) = (field("event"), &ids) {
            // A later part of what it missed: some of that has been forgotten meanwhile.
            let since: Vec<_> = self.positions().expect("it stands somewhere");
            return self.begin_all(Some(&since), ids, true, streams);
        }
        if field("event") == Some("gap") {
            let gap: Value = serde_json::from_str(field("data").expect("data")).expect("JSON");
            let dropped = gap["dropped"].as_u64().expect("a number");
            // Who has several channels does not learn which.
            let [channel] = self.named[..] else { panic!("only streams of one channel drop") };
            return self.views[channel].hear_gap(channel, dropped, self.may_skip, streams);
        }
        let Some(data) = field("data") else { return };
        let (payload, ids) = (Payload::read(data), ids.expect("a publication has an id"));
        for (at, id) in self.named.iter().zip(ids) {
            let view = &mut self.views[*at];
            if *at == payload.channel {
                view.hear(*at, id, payload, self.may_skip, streams);
            } else {
                assert_eq!(view.position, Some(id), "a place moves only with its channel");
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
            // Whose channel lost something is seen by its position, unless it is the only one.
            let is_told = is_loss && (self.named.len() == 1 || since != Some(at[index]));
            self.views[*channel].begin(*channel, since, at[index], is_told, streams);
            self.views[*channel].state = State::Live;
        }
    }

    fn poll(&mut self, network: &SimulatedNetwork, goes_on: bool) {
        let since = goes_on.then(|| self.positions()).flatten();
        let text = since.as_deref().map_or_else(String::new, written);
        let request = format!(
            "GET /poll?timeout=2&{}&since={text} HTTP/1.1\r\nHost: x\r\n\r\n",
            self.query()
        );
        self.named.iter().for_each(|at| self.views[*at].state = State::Asked);
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
            self.hear_answer(&answer, streams);
            self.poll(network, true);
        }
    }

    fn hear_answer(&mut self, answer: &Value, streams: &mut Streams) {
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
            let is_told = is_loss && since != Some(begins);
            if is_told && CHANNELS[*channel].slow_consumer == SlowConsumer::DropOldest {
                view.position = Some(begins);
                streams.counts.gaps += 1;
            } else {
                view.begin(*channel, since, begins, is_told, streams);
            }
            view.state = State::Live;
            for (offset, payload) in items {
                view.hear(*channel, Position { offset, ..at[index] }, payload, false, streams);
            }
            assert_eq!(view.position, Some(at[index]), "an answer leads to its position");
        }
    }

    fn command(&mut self, network: &SimulatedNetwork, ask: Ask, command: &Value) -> bool {
        let Some(link) = &self.link else { return true };
        let id = self.next_ask;
        self.next_ask += 1;
        self.asks.insert(id, ask);
        let mut command = command.clone();
        command["id"] = id.into();
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
        self.link.as_mut().expect("only who is connected reads")
    }
}

fn hear_subscribed(
    view: &mut View,
    channel: usize,
    since: Option<Position>,
    reply: &Value,
    may_skip: bool,
    streams: &mut Streams,
) {
    let at = position_of(reply);
    assert_eq!(reply["was_recovering"] == true, since.is_some(), "{reply}");
    let is_told = since.is_some() && reply["recovered"] == false;
    view.begin(channel, since, at, is_told, streams);
    let leaves = std::mem::replace(&mut view.state, State::Live) == State::Leaving;
    for item in reply["publications"].as_array().into_iter().flatten() {
        let (offset, payload) = item_of(item);
        // What is recovered has no holes, whatever the channel drops.
        assert_eq!(Some(offset - 1), view.position.map(|position| position.offset));
        view.hear(channel, Position { offset, ..at }, payload, may_skip, streams);
        streams.counts.recovered += 1;
    }
    if leaves {
        view.state = State::Leaving;
    }
}

/// There is no place left: the connection ends behind the answer.
fn is_refused(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 503 ")
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

/// Of a reply that has both parts.
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
