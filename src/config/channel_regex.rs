//! Rules for the names of channels.

use regex_lite::{Regex, RegexBuilder};

use super::limits::{CHANNEL_REGEX_BYTES_MAX, CHANNEL_REGEX_PROGRAM_BYTES_MAX};

/// A regular expression that names of channels match: the part behind the namespace, anywhere in it unless the
/// expression is anchored. The time of a match is linear in the name.
#[derive(Clone, Debug)]
pub struct ChannelRegex(Regex);

impl ChannelRegex {
    /// Compiles an expression. An error is the part of a sentence that follows the option's name.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > CHANNEL_REGEX_BYTES_MAX {
            return Err(format!("an expression has at most {CHANNEL_REGEX_BYTES_MAX} bytes"));
        }
        let mut builder = RegexBuilder::new(pattern);
        let regex = builder.size_limit(CHANNEL_REGEX_PROGRAM_BYTES_MAX).build();
        regex.map(Self).map_err(|error| format!("'{pattern}' is not a regular expression: {error}"))
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether a channel has a name that matches.
    pub fn is_match(&self, channel: &str) -> bool {
        let rest = channel.split_once(':').map_or(channel, |(_, rest)| rest);
        self.0.is_match(rest)
    }
}

impl PartialEq for ChannelRegex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ChannelRegex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_behind_the_namespace_is_matched() {
        let regex = ChannelRegex::new("^[a-z]+[0-9]{1,3}$").unwrap();
        for (channel, matches) in [
            ("room1", true),
            ("chat:room1", true),
            ("chat:room1234", false),
            ("chat:Room1", false),
            ("chat:", false),
            ("chat:a:room1", false),
            ("chat:room1\u{e9}", false),
        ] {
            assert_eq!(regex.is_match(channel), matches, "{channel}");
        }
        assert!(ChannelRegex::new("b").unwrap().is_match("abc"), "it is not anchored");
    }

    #[test]
    fn an_expression_that_is_invalid_or_too_large_is_refused() {
        for pattern in ["(", "[a", "a{2,1}", "*", "((a{100}){100}){100}", "(?=a)", "\\1"] {
            let fault = ChannelRegex::new(pattern).unwrap_err();
            assert!(fault.contains("is not a regular expression"), "{fault}");
        }
        assert!(ChannelRegex::new(&"a".repeat(CHANNEL_REGEX_BYTES_MAX)).is_ok());
        assert!(ChannelRegex::new(&"a".repeat(CHANNEL_REGEX_BYTES_MAX + 1)).is_err());
    }
}
