//! Channel names, validated once.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Maximum length of a channel name, in bytes.
pub const CHANNEL_NAME_BYTES_MAX: usize = 255;

/// A channel name: 1..=255 bytes of UTF-8 without control characters. Shared: a clone costs an atomic increment, on
/// paths that cross workers anyway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Why a text is not a channel name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelNameError {
    /// It is empty.
    Empty,
    /// It is longer than [`CHANNEL_NAME_BYTES_MAX`].
    TooLong,
    /// It contains a control character (Unicode category Cc), such as NUL or a line feed.
    Control,
}

impl ChannelName {
    /// Validates a name.
    pub fn new(name: &str) -> Result<Self, ChannelNameError> {
        match name.len() {
            0 => Err(ChannelNameError::Empty),
            1..=CHANNEL_NAME_BYTES_MAX if name.chars().any(char::is_control) => {
                Err(ChannelNameError::Control)
            }
            1..=CHANNEL_NAME_BYTES_MAX => Ok(Self(Arc::from(name))),
            _ => Err(ChannelNameError::TooLong),
        }
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for ChannelNameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ChannelNameError::Empty => "a channel needs a name",
            ChannelNameError::TooLong => "a channel's name has at most 255 bytes",
            ChannelNameError::Control => "a channel's name has no control characters",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_to_255_bytes() {
        assert_eq!(ChannelName::new(""), Err(ChannelNameError::Empty));
        assert_eq!(ChannelName::new("a").unwrap().as_str(), "a");
        assert!(ChannelName::new(&"x".repeat(255)).is_ok());
        assert_eq!(ChannelName::new(&"x".repeat(256)), Err(ChannelNameError::TooLong));
    }

    #[test]
    fn a_name_has_no_control_characters() {
        for name in ["\0", "a\0b", "a\n", "\r\na", "a\tb", "a\u{1b}[0m", "a\u{7f}", "a\u{85}"] {
            assert_eq!(ChannelName::new(name), Err(ChannelNameError::Control), "{name:?}");
        }
        assert!(ChannelName::new("a b\u{a0}\u{200d}é").is_ok());
    }
}
