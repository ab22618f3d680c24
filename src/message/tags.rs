//! Tags of publications.

use std::fmt;
use std::sync::Arc;

/// The tags of a publication: texts that its publisher chose, by name. The tag `event` is the type of event, for
/// transports that have one (the `event` field of SSE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags(Box<[(Box<str>, Box<str>)]>);

/// A text is not a type of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventError;

impl Tags {
    /// Maximum length of a type of event, in bytes.
    pub const EVENT_BYTES_MAX: usize = 255;

    /// Types of event that the server uses itself; publications cannot have them.
    pub const OWN_EVENTS: [&str; 5] = ["gap", "join", "leave", "position", "disconnect"];

    /// The tags with these names and texts; `None` if there are none.
    pub fn new<'t>(
        tags: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) -> Result<Option<Arc<Self>>, EventError> {
        let tags = Self(tags.into_iter().map(|(name, text)| (name.into(), text.into())).collect());
        if tags.event().is_some_and(|event| !is_event(event)) {
            return Err(EventError);
        }
        Ok((!tags.0.is_empty()).then(|| Arc::new(tags)))
    }

    /// The type of event: 1..=[`Self::EVENT_BYTES_MAX`] bytes without line ends and NUL, and none of
    /// [`Self::OWN_EVENTS`].
    pub fn event(&self) -> Option<&str> {
        self.iter().find(|(name, _)| *name == EVENT).map(|(_, text)| text)
    }

    /// The names and texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (&**name, &**text))
    }

    /// Bytes of heap that the tags take.
    pub fn heap_bytes(&self) -> usize {
        let bytes = |(name, text): (&str, &str)| name.len() + text.len() + TAG_BYTES;
        self.iter().map(bytes).sum::<usize>() + size_of::<Self>()
    }
}

/// The name of the tag that is the type of event.
pub const EVENT: &str = "event";

/// Bytes of a tag besides those of its name and text.
const TAG_BYTES: usize = size_of::<(Box<str>, Box<str>)>();

fn is_event(text: &str) -> bool {
    let ends_line = |byte: u8| matches!(byte, b'\r' | b'\n' | 0);
    (1..=Tags::EVENT_BYTES_MAX).contains(&text.len())
        && !text.bytes().any(ends_line)
        && !Tags::OWN_EVENTS.contains(&text)
}

impl fmt::Display for EventError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = Tags::OWN_EVENTS.join(", ");
        write!(out, "an event type has 1 to 255 bytes, without CR, LF and NUL; {own} are reserved")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_has_1_to_255_bytes_and_no_line_end() {
        let event = |text: &str| {
            Tags::new([(EVENT, text)]).map(|tags| tags.unwrap().event().map(str::to_owned))
        };
        assert_eq!(event("é b"), Ok(Some("é b".to_owned())));
        assert!(event(&"x".repeat(255)).is_ok());
        for bad in [
            "",
            "a\nb",
            "a\r",
            "\0",
            "gap",
            "join",
            "leave",
            "position",
            "disconnect",
            &"x".repeat(256),
        ] {
            assert_eq!(event(bad), Err(EventError), "{bad:?}");
        }
    }

    #[test]
    fn tags_are_kept_by_name() {
        assert_eq!(Tags::new([]), Ok(None));
        let tags = Tags::new([("a", "gap\n"), ("b", "")]).unwrap().unwrap();
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("a", "gap\n"), ("b", "")]);
        assert_eq!(tags.event(), None);
        assert!(tags.heap_bytes() >= 6);
    }
}
