//! The events that a backend is notified of: the options that only `[callbacks.events]` has.

use std::fmt;
use std::time::Duration;

use super::limits::{EVENT_BATCH_CEILING, EVENT_SECRET_BYTES_MAX};
use super::units::{Time, parse_count, parse_seconds};

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident => $word:literal;)*) => {
        /// What a backend is notified of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EventKind { $($(#[$doc])* $name,)* }

        impl EventKind {
            /// Every kind, in the order of [`Self::WORDS`].
            pub const ALL: &'static [EventKind] = &[$(EventKind::$name),*];

            /// The names of the kinds, in settings and in the events themselves.
            pub const WORDS: &'static [&'static str] = &[$($word),*];
        }
    };
}

event_kinds! {
    /// A client connected.
    Connected => "connected";
    /// A client that was connected is not any more.
    Disconnected => "disconnected";
    /// A channel got its first subscriber.
    Occupied => "occupied";
    /// A channel lost its last subscriber.
    Vacated => "vacated";
}

/// Which events the backend is notified of, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct EventSettings {
    /// Whether there are events of each kind, in the order of [`EventKind::ALL`].
    kinds: [bool; EventKind::ALL.len()],
    /// What signs the events; they are not signed if not set.
    pub secret: Option<String>,
    /// Most events of one batch.
    pub batch_max: usize,
    /// How long a batch waits for further events.
    pub batch_delay: Duration,
}

/// The options that only `[callbacks.events]` has: each with its range and a short description.
pub const EVENT_OPTIONS: [(&str, &str, &str); 4] = [
    (
        "kinds",
        "a list of connected, disconnected, occupied and vacated",
        "The events that there are",
    ),
    ("secret", "1 to 1024 visible ASCII characters", "What signs each batch; it is not shown"),
    ("batch_max", "from 1 to 1000", "Most events of one batch"),
    ("batch_delay", "from 0 s to 10 s", "How long a batch waits for further events"),
];

impl EventKind {
    /// The name of the kind.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            kinds: [true; EventKind::ALL.len()],
            secret: None,
            batch_max: 100,
            batch_delay: Duration::from_millis(100),
        }
    }
}

/// Without the secret.
impl fmt::Debug for EventSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EventSettings")
            .field("kinds", &self.text("kinds"))
            .finish_non_exhaustive()
    }
}

impl EventSettings {
    /// Whether there are events of a kind.
    pub fn has(&self, kind: EventKind) -> bool {
        self.kinds[kind as usize]
    }

    /// Sets an option from texts. An error is the part of a sentence that follows the option's name; `None` if there is
    /// no such option.
    pub fn parse(&mut self, name: &str, texts: &[String]) -> Option<Result<(), String>> {
        let (_, range, _) = EVENT_OPTIONS.iter().find(|(known, ..)| *known == name)?;
        Some(self.set(name, texts).map_err(|()| format!("it must be {range}")))
    }

    fn set(&mut self, name: &str, texts: &[String]) -> Result<(), ()> {
        if name == "kinds" {
            let mut kinds = [false; EventKind::ALL.len()];
            for text in texts {
                let index = EventKind::WORDS.iter().position(|word| word == text).ok_or(())?;
                kinds[index] = true;
            }
            self.kinds = kinds;
            return Ok(());
        }
        let [text] = texts else { return Err(()) };
        match name {
            "secret" => {
                let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
                let is_short = (1..=EVENT_SECRET_BYTES_MAX).contains(&text.len());
                self.secret = (is_visible && is_short).then(|| Some(text.clone())).ok_or(())?;
            }
            "batch_max" => {
                let count = parse_count(text).map_err(|_| ())?;
                let is_in_range = (1..=EVENT_BATCH_CEILING).contains(&count);
                self.batch_max = is_in_range.then_some(count as usize).ok_or(())?;
            }
            _ => {
                let delay = parse_seconds(text).map_err(|_| ())?;
                self.batch_delay = (delay <= BATCH_DELAY_MAX).then_some(delay).ok_or(())?;
            }
        }
        Ok(())
    }

    /// The value of an option as text.
    pub fn text(&self, name: &str) -> String {
        match name {
            "kinds" => {
                let kinds = EventKind::ALL.iter().filter(|kind| self.has(**kind));
                kinds.map(|kind| kind.word()).collect::<Vec<_>>().join(", ")
            }
            "secret" => self.secret.as_ref().map_or("", |_| "hidden").to_owned(),
            "batch_max" => self.batch_max.to_string(),
            _ => Time(self.batch_delay).to_string(),
        }
    }
}

const BATCH_DELAY_MAX: Duration = Duration::from_secs(10);

/// The table of the options in `README.md`.
pub(super) fn event_options_markdown() -> String {
    let mut table = "| option of `[callbacks.events]` only | default | range | what it is |\n\
                     |---|---|---|---|\n"
        .to_owned();
    let default = EventSettings::default();
    for (name, range, doc) in EVENT_OPTIONS {
        table.push_str(&format!("| `{name}` | {} | {range} | {doc} |\n", default.text(name)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_accepted_at_their_limits_and_refused_one_past() {
        let mut events = EventSettings::default();
        let long = "x".repeat(EVENT_SECRET_BYTES_MAX);
        let longer = "x".repeat(EVENT_SECRET_BYTES_MAX + 1);
        for (name, fine, bad) in [
            ("secret", vec!["a", &long], vec!["", "a b", &longer]),
            ("batch_max", vec!["1", "1000"], vec!["0", "1001", "x"]),
            ("batch_delay", vec!["0", "10 s"], vec!["11 s", "x"]),
            ("kinds", vec!["vacated"], vec!["", "left"]),
        ] {
            for text in fine {
                assert_eq!(events.parse(name, &[text.to_owned()]), Some(Ok(())), "{name} = {text}");
            }
            for text in bad {
                let fault = events.parse(name, &[text.to_owned()]).unwrap().unwrap_err();
                assert!(fault.starts_with("it must be "), "{name} = {text}");
            }
        }
        assert!(events.has(EventKind::Vacated) && !events.has(EventKind::Occupied));
        assert_eq!(events.parse("kinds", &[]), Some(Ok(())));
        assert!(!events.has(EventKind::Vacated));
        assert_eq!(events.parse("other", &[]), None);
        assert!(!format!("{events:?}").contains("xxx"));
        assert_eq!(events.text("secret"), "hidden");
    }
}
