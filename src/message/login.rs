//! What a client shows when it connects.

use std::fmt;

use super::{ChannelName, Payload, SubscriptionWish};

/// A token, as a client sends it. It opens what its user may see, so that no log and no message shows its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

/// What a client shows when it connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The token that says who it is; `None` if it shows none.
    pub token: Option<Token>,
    /// What it says to the backend.
    pub data: Option<Payload>,
    /// The name of the client program; empty if it has none.
    pub name: Box<str>,
    /// The version of the client program; empty if it has none.
    pub version: Box<str>,
    /// Whether it speaks the command protocol: then it is subscribed to the channels that its token names, and can go
    /// on with a new token.
    pub has_commands: bool,
    /// Channels that it asks to be subscribed to, as far as it may be: a client that sends no other command has no
    /// other way to ask.
    pub channels: Vec<ChannelName>,
    /// What it asks for of channels that the server may subscribe it to, such as to recover from a position.
    pub subs: Vec<(ChannelName, SubscriptionWish)>,
}

impl Token {
    /// Takes the text of a token; `None` if it is empty, which is the same as no token.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// The text, to be verified.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Number of bytes that it owns on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token({} bytes)", self.0.len())
    }
}

impl Login {
    /// Approximate number of bytes that it owns on the heap.
    pub fn heap_bytes(&self) -> usize {
        let Self { token, data, name, version, channels, subs, .. } = self;
        let names = subs.iter().map(|(channel, _)| channel).chain(channels);
        token.as_ref().map_or(0, Token::heap_bytes)
            + data.as_ref().map_or(0, Payload::heap_bytes)
            + name.len()
            + version.len()
            + subs.capacity() * size_of::<(ChannelName, SubscriptionWish)>()
            + channels.capacity() * size_of::<ChannelName>()
            + names.map(|channel| channel.as_str().len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show_its_text() {
        let login = Login { token: Token::new("secret"), ..Login::default() };
        assert!(!format!("{login:?}").contains("secret"));
        assert_eq!(login.token.as_ref().map(Token::reveal), Some("secret"));
        assert_eq!(Token::new(""), None);
    }
}
