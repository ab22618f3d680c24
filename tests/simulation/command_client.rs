//! A client of the command protocol for tests.

use fantail::driver::PeerId;
use serde_json::{Value, json};

use crate::world::World;

/// A client of the command protocol on raw TCP.
pub struct CommandClient {
    pub peer: PeerId,
    received: Vec<u8>,
}

/// A window that never fills.
pub const WIDE: usize = 1 << 30;

impl CommandClient {
    /// Connects a client with an unlimited receive window and sends `connect`.
    pub fn new(world: &mut World) -> Self {
        let mut client = Self::connect(world, &[]);
        let reply = client.ask(world, &json!({"id": 1, "connect": {}}));
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    /// Opens a connection and sends the first commands.
    pub fn connect(world: &World, commands: &[Value]) -> Self {
        let peer = world.connect_commands();
        world.network.set_window(peer, WIDE);
        let client = Self { peer, received: Vec::new() };
        client.send(world, commands);
        client
    }

    pub fn send(&self, world: &World, commands: &[Value]) {
        let text: String = commands.iter().map(|command| format!("{command}\n")).collect();
        assert_eq!(world.network.write(self.peer, text.as_bytes()), text.len());
    }

    pub fn ask(&mut self, world: &mut World, command: &Value) -> Value {
        self.send(world, std::slice::from_ref(command));
        self.replies(world, 1).remove(0)
    }

    /// Reads the lines received since the last call.
    pub fn lines(&mut self, world: &World) -> Vec<Value> {
        self.received.extend(world.network.read(self.peer));
        let end = self.received.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<_> = self.received.drain(..end).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line is JSON")).collect()
    }

    /// Runs the workers until this many replies have arrived.
    pub fn replies(&mut self, world: &mut World, count: usize) -> Vec<Value> {
        let mut replies = Vec::new();
        for _ in 0..10_000 {
            world.turn_all();
            replies.extend(self.lines(world).into_iter().filter(|line| line["id"].is_number()));
            if replies.len() >= count {
                return replies;
            }
        }
        panic!("{} of {count} replies arrived", replies.len());
    }
}
