//! Patterns of channel names.

use std::fmt;
use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder};

/// A pattern that names of channels match as a whole, in the form of Centrifugo: `*` and `**` stand for any characters,
/// `?` for one, `[abc]` and `[a-z]` for one of these, `[!abc]` and `[!a-z]` for one of the others, `{a,b}` for one of
/// several patterns. A backslash takes the meaning from the character behind it. An empty pattern matches every name.
///
/// The time of a match is linear in the name.
#[derive(Clone, Debug)]
pub struct ChannelPattern(Matcher);

#[derive(Clone, Debug)]
enum Matcher {
    /// In this text, each `*` stands for any characters, and everything else for itself.
    Stars(Arc<str>),
    Regex(Regex),
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelPatternError {
    /// It is not complete, or a range is empty.
    Invalid,
    /// It has more than [`CHANNEL_PATTERN_BYTES_MAX`] bytes, or is too complex.
    TooLong,
}

/// Maximum bytes of a pattern.
pub const CHANNEL_PATTERN_BYTES_MAX: usize = 512;

/// Bytes of a compiled pattern, which bound the time of a match.
const PROGRAM_BYTES_MAX: usize = 128 * 1024;

impl ChannelPattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, ChannelPatternError> {
        if text.len() > CHANNEL_PATTERN_BYTES_MAX {
            return Err(ChannelPatternError::TooLong);
        }
        if !text.contains(['?', '[', '{', '\\']) {
            return Ok(Self(Matcher::Stars(text.into())));
        }
        let regex = Translation::of(text)?;
        let regex = RegexBuilder::new(&regex).size_limit(PROGRAM_BYTES_MAX).build();
        regex.map(|regex| Self(Matcher::Regex(regex))).map_err(|_| ChannelPatternError::TooLong)
    }

    /// Whether a name matches.
    pub fn is_match(&self, name: &str) -> bool {
        match &self.0 {
            Matcher::Stars(pattern) => matches_stars(pattern, name),
            Matcher::Regex(regex) => regex.is_match(name),
        }
    }

    /// Approximate number of bytes that it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Matcher::Stars(pattern) => pattern.len(),
            Matcher::Regex(regex) => regex.as_str().len(),
        }
    }
}

impl fmt::Display for ChannelPatternError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelPatternError::Invalid => out.write_str("it is not a valid pattern"),
            ChannelPatternError::TooLong => {
                write!(out, "it has more than {CHANNEL_PATTERN_BYTES_MAX} bytes, or is too complex")
            }
        }
    }
}

impl Default for ChannelPattern {
    /// The pattern that matches every name.
    fn default() -> Self {
        Self(Matcher::Stars("".into()))
    }
}

impl PartialEq for ChannelPattern {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Matcher::Stars(one), Matcher::Stars(other)) => one == other,
            (Matcher::Regex(one), Matcher::Regex(other)) => one.as_str() == other.as_str(),
            (Matcher::Stars(_), Matcher::Regex(_)) | (Matcher::Regex(_), Matcher::Stars(_)) => {
                false
            }
        }
    }
}

impl Eq for ChannelPattern {}

/// The regular expression of a pattern, as far as it is translated.
struct Translation<'t> {
    rest: std::str::Chars<'t>,
    regex: String,
    /// Braces that are open.
    depth: usize,
}

impl<'t> Translation<'t> {
    fn of(text: &'t str) -> Result<String, ChannelPatternError> {
        let mut translation = Self { rest: text.chars(), regex: "(?s)^".to_owned(), depth: 0 };
        while let Some(character) = translation.rest.next() {
            translation.take(character)?;
        }
        if translation.depth > 0 {
            return Err(ChannelPatternError::Invalid);
        }
        translation.regex.push('$');
        Ok(translation.regex)
    }

    fn take(&mut self, character: char) -> Result<(), ChannelPatternError> {
        match character {
            '*' => self.regex.push_str(".*"),
            '?' => self.regex.push('.'),
            '[' => return self.take_class(),
            '{' => {
                self.depth += 1;
                self.regex.push_str("(?:");
            }
            ',' if self.depth > 0 => self.regex.push('|'),
            '}' if self.depth > 0 => {
                self.depth -= 1;
                self.regex.push(')');
            }
            '\\' => {
                let escaped = self.rest.next().ok_or(ChannelPatternError::Invalid)?;
                self.push_literal(escaped);
            }
            other => self.push_literal(other),
        }
        Ok(())
    }

    /// What follows a `[`, up to its `]`.
    fn take_class(&mut self) -> Result<(), ChannelPatternError> {
        self.regex.push('[');
        let mut next = self.rest.next();
        if next == Some('!') {
            self.regex.push('^');
            next = self.rest.next();
        }
        let mut members = Vec::new();
        while next != Some(']') {
            let member = match next {
                Some('\\') => self.rest.next().map(|member| (member, true)),
                other => other.map(|member| (member, false)),
            };
            members.push(member.ok_or(ChannelPatternError::Invalid)?);
            next = self.rest.next();
        }
        match members[..] {
            [] => return Err(ChannelPatternError::Invalid),
            [(low, _), ('-', false), (high, _)] if low <= high => {
                self.push_literal(low);
                self.regex.push('-');
                self.push_literal(high);
            }
            [_, ('-', false), _] => return Err(ChannelPatternError::Invalid),
            _ => members.into_iter().for_each(|(member, _)| self.push_literal(member)),
        }
        self.regex.push(']');
        Ok(())
    }

    fn push_literal(&mut self, character: char) {
        // In a class too, an escaped character stands for itself.
        if character.is_ascii_punctuation() {
            self.regex.push('\\');
        }
        self.regex.push(character);
    }
}

fn matches_stars(pattern: &str, name: &str) -> bool {
    if pattern.is_empty() {
        return true;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The leftmost match is sufficient for all parts but the last.
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        for (pattern, name, expected) in [
            ("", "anything", true),
            ("*", "anything", true),
            ("**", "any/thing", true),
            ("chat:*", "chat:1", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chats:1", false),
            ("*:1", "chat:1", true),
            ("*:1", "chat:12", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("ab*ba", "aba", false),
            ("chat", "chat", true),
            ("chat", "chats", false),
            ("roo?", "room", true),
            ("roo?", "rooms", false),
            ("roo?", "roo", false),
            ("roo?", "roo\u{e9}", true),
            ("?*", "", false),
            ("?*", "a.b", true),
            ("a.?", "abc", false),
            ("{a,b}", "a", true),
            ("{a,b}", "b", true),
            ("{a,b}", "a,b", false),
            ("x{a,}y", "xy", true),
            ("{a?,[0-9]{x,y}}:*", "7y:1", true),
            ("{a?,[0-9]{x,y}}:*", "ab:", true),
            ("{a?,[0-9]{x,y}}:*", "7z:1", false),
            ("[abc]", "b", true),
            ("[abc]", "-", false),
            ("[a-c]", "b", true),
            ("[a-c]", "-", false),
            ("[!a-c]", "d", true),
            ("[!a-c]", "b", false),
            ("[!abc]", "b", false),
            ("[a\\-c]", "-", true),
            ("[a\\-c]", "b", false),
            ("[^a]", "^", true),
            ("[\\]]", "]", true),
            ("[&&^~]", "&", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a,b}c]?", "a,b}c]d", true),
            ("(?i)a", "(xi)a", true),
        ] {
            let read = ChannelPattern::new(pattern).unwrap();
            assert_eq!(read.is_match(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_is_not_complete_or_too_long_is_refused() {
        for pattern in ["[", "[a", "[]", "[!]", "[z-a]", "[\\", "{a", "{a,{b}", "?\\"] {
            let refused = ChannelPattern::new(pattern).unwrap_err();
            assert_eq!(refused, ChannelPatternError::Invalid, "{pattern}");
        }
        for of in ["a", "?", "{a,b}", "[a-z]"] {
            let longest = of.repeat(CHANNEL_PATTERN_BYTES_MAX / of.len());
            assert!(ChannelPattern::new(&longest).is_ok(), "{of}");
        }
        let too_long = "?".repeat(CHANNEL_PATTERN_BYTES_MAX + 1);
        assert_eq!(ChannelPattern::new(&too_long).unwrap_err(), ChannelPatternError::TooLong);
        let deep = "{".repeat(256) + &"}".repeat(256);
        assert!(ChannelPattern::new(&deep).is_err());
    }
}
