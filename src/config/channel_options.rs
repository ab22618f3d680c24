//! The table of channel options, one row each: the keys of `[channels]` and `[namespaces.NAME]` in the settings file.

use std::time::Duration;

use super::limits::{BACKLOG_SIZE_CEILING, CHANNEL_REGEX_BYTES_MAX, HISTORY_SIZE_CEILING};
use super::namespaces::{BATCH_DELAY_MAX, DELIVERY_RATE_CEILING, HISTORY_TTL_MAX};
use super::units::{Bytes, Time, parse_bytes, parse_seconds};
use super::{ChannelOptions, ChannelRegex, RecoveryMode, SlowConsumer};

/// One option of a channel.
#[derive(Debug)]
pub struct ChannelOption {
    /// The key in a section of the file.
    pub name: &'static str,
    /// A short description.
    pub doc: &'static str,
    value: Value,
}

/// The type and range of an option's values, and their field. Ranges include both ends.
#[derive(Debug)]
enum Value {
    Switch(fn(&mut ChannelOptions) -> &mut bool),
    Count(u32, u32, fn(&mut ChannelOptions) -> &mut u32),
    Bytes(u64, u64, fn(&mut ChannelOptions) -> &mut u64),
    Time(Duration, Duration, fn(&mut ChannelOptions) -> &mut Duration),
    RecoveryMode(fn(&mut ChannelOptions) -> &mut RecoveryMode),
    /// A list of formats, of which there is one.
    DeltaTypes(fn(&mut ChannelOptions) -> &mut bool),
    SlowConsumer(fn(&mut ChannelOptions) -> &mut SlowConsumer),
    Regex(fn(&mut ChannelOptions) -> &mut Option<ChannelRegex>),
}

/// Every option, in the order in which they are listed.
pub const CHANNEL_OPTIONS: &[ChannelOption] = &[
    ChannelOption {
        name: "history_size",
        doc: "Publications kept per channel; 0 keeps none",
        value: Value::Count(0, HISTORY_SIZE_CEILING, |options| &mut options.history_size),
    },
    ChannelOption {
        name: "history_ttl",
        doc: "How long publications are kept, and a channel without subscribers",
        value: Value::Time(Duration::from_secs(1), HISTORY_TTL_MAX, |options| {
            &mut options.history_ttl
        }),
    },
    ChannelOption {
        name: "history_bytes",
        doc: "Bytes kept per channel, including overhead",
        value: Value::Bytes(1024, 1 << 40, |options| &mut options.history_bytes),
    },
    ChannelOption {
        name: "recovery",
        doc: "Whether a client that reconnects recovers missed publications; needs history_size",
        value: Value::Switch(|options| &mut options.recovery),
    },
    ChannelOption {
        name: "force_recovery_mode",
        doc: "What a client recovers: with stream the publications that it missed, with cache the latest one, also \
              if it has no position yet; needs history_size and recovery",
        value: Value::RecoveryMode(|options| &mut options.recovery_mode),
    },
    ChannelOption {
        name: "allowed_delta_types",
        doc: "Deltas that subscribers may take: a list, empty or `[\"fossil\"]`",
        value: Value::DeltaTypes(|options| &mut options.allows_deltas),
    },
    ChannelOption {
        name: "delta_publish",
        doc: "Whether deltas are made of every publication, not only of those published with delta; needs \
              allowed_delta_types",
        value: Value::Switch(|options| &mut options.delta_publish),
    },
    ChannelOption {
        name: "allow_tags_filter",
        doc: "Whether subscribers may filter publications by their tags",
        value: Value::Switch(|options| &mut options.allow_tags_filter),
    },
    ChannelOption {
        name: "channel_regex",
        doc: "What clients may call channels: a regular expression that the name behind the namespace matches",
        value: Value::Regex(|options| &mut options.channel_regex),
    },
    ChannelOption {
        name: "allow_subscribe_for_client",
        doc: "Whether clients may subscribe",
        value: Value::Switch(|options| &mut options.allow_subscribe.client),
    },
    ChannelOption {
        name: "allow_subscribe_for_anonymous",
        doc: "Whether these include clients without a user",
        value: Value::Switch(|options| &mut options.allow_subscribe.anonymous),
    },
    ChannelOption {
        name: "allow_user_limited_channels",
        doc: "Whether a channel such as chat#42,43, whose name ends in users, is for these and no other clients",
        value: Value::Switch(|options| &mut options.allow_user_limited_channels),
    },
    ChannelOption {
        name: "callback_subscribe",
        doc: "Whether the backend decides about subscriptions of clients (Centrifugo: `subscribe_proxy_enabled`)",
        value: Value::Switch(|options| &mut options.callback_subscribe),
    },
    ChannelOption {
        name: "callback_publish",
        doc: "Whether the backend decides about publications of clients (Centrifugo: `publish_proxy_enabled`)",
        value: Value::Switch(|options| &mut options.callback_publish),
    },
    ChannelOption {
        name: "callback_sub_refresh",
        doc: "Whether the backend is asked when a subscription expires that no token allowed (Centrifugo: \
              `sub_refresh_proxy_enabled`)",
        value: Value::Switch(|options| &mut options.callback_sub_refresh),
    },
    ChannelOption {
        name: "allow_publish_for_client",
        doc: "Whether clients may publish",
        value: Value::Switch(|options| &mut options.allow_publish.client),
    },
    ChannelOption {
        name: "allow_publish_for_subscriber",
        doc: "Whether clients that are subscribed to the channel may publish",
        value: Value::Switch(|options| &mut options.allow_publish.subscriber),
    },
    ChannelOption {
        name: "allow_publish_for_anonymous",
        doc: "Whether these include clients without a user",
        value: Value::Switch(|options| &mut options.allow_publish.anonymous),
    },
    ChannelOption {
        name: "allow_history_for_client",
        doc: "Whether clients may read the history; needs history_size",
        value: Value::Switch(|options| &mut options.allow_history.client),
    },
    ChannelOption {
        name: "allow_history_for_subscriber",
        doc: "Whether clients that are subscribed to the channel may read the history; needs history_size",
        value: Value::Switch(|options| &mut options.allow_history.subscriber),
    },
    ChannelOption {
        name: "allow_history_for_anonymous",
        doc: "Whether these include clients without a user",
        value: Value::Switch(|options| &mut options.allow_history.anonymous),
    },
    ChannelOption {
        name: "allow_presence_for_client",
        doc: "Whether clients may list the subscribers; needs presence",
        value: Value::Switch(|options| &mut options.allow_presence.client),
    },
    ChannelOption {
        name: "allow_presence_for_subscriber",
        doc: "Whether clients that are subscribed to the channel may list the subscribers; needs presence",
        value: Value::Switch(|options| &mut options.allow_presence.subscriber),
    },
    ChannelOption {
        name: "allow_presence_for_anonymous",
        doc: "Whether these include clients without a user",
        value: Value::Switch(|options| &mut options.allow_presence.anonymous),
    },
    ChannelOption {
        name: "presence",
        doc: "Whether the subscribers can be listed, by the server API and by clients with the right",
        value: Value::Switch(|options| &mut options.presence),
    },
    ChannelOption {
        name: "join_leave",
        doc: "Whether subscribers receive join and leave events",
        value: Value::Switch(|options| &mut options.join_leave),
    },
    ChannelOption {
        name: "exclude_publisher",
        doc: "Whether a client does not receive what it publishes itself, unless it recovers or reads the history",
        value: Value::Switch(|options| &mut options.exclude_publisher),
    },
    ChannelOption {
        name: "slow_consumer",
        doc: "Policy for a subscriber that reads too slowly: disconnect it once its send queue is full; deliver only \
              the latest publication; or drop the oldest of a backlog and report the gap",
        value: Value::SlowConsumer(|options| &mut options.slow_consumer),
    },
    ChannelOption {
        name: "backlog_size",
        doc: "Publications per channel kept for slow subscribers; needs slow_consumer = drop_oldest",
        value: Value::Count(1, BACKLOG_SIZE_CEILING, |options| &mut options.backlog_size),
    },
    ChannelOption {
        name: "batch_delay",
        doc: "How long publications are held to be delivered in one batch; 0 delivers each at once",
        value: Value::Time(Duration::ZERO, BATCH_DELAY_MAX, |options| &mut options.batch_delay),
    },
    ChannelOption {
        name: "delivery_rate_max",
        doc: "Publications per second delivered to one subscriber, except while it recovers or the server shuts down; \
              0 for no limit; needs slow_consumer = latest or drop_oldest",
        value: Value::Count(0, DELIVERY_RATE_CEILING, |options| &mut options.delivery_rate_max),
    },
];

impl ChannelOption {
    /// The option with a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CHANNEL_OPTIONS.iter().find(|option| option.name == name)
    }

    /// Sets the option from text. An error is the part of a sentence that follows the option's name.
    pub fn parse(&self, text: &str, options: &mut ChannelOptions) -> Result<(), String> {
        let text = text.trim();
        let invalid = |wanted: &str| format!("'{text}' is not {wanted}");
        match self.value {
            Value::Switch(field) => {
                *field(options) = text.parse().map_err(|_| invalid("true or false"))?;
            }
            Value::Count(min, max, field) => {
                let count = text.parse().map_err(|_| invalid("a whole number"))?;
                *field(options) = self.in_range(count, min, max)?;
            }
            Value::Bytes(min, max, field) => {
                *field(options) = self.in_range(parse_bytes(text)?, min, max)?;
            }
            Value::Time(min, max, field) => {
                *field(options) = self.in_range(parse_seconds(text)?, min, max)?;
            }
            Value::RecoveryMode(field) => {
                let index = RecoveryMode::WORDS.iter().position(|word| *word == text);
                let index = index.ok_or_else(|| invalid(&RecoveryMode::WORDS.join(" or ")))?;
                *field(options) = RecoveryMode::ALL[index];
            }
            Value::DeltaTypes(field) => {
                *field(options) = match text {
                    "" => false,
                    FOSSIL => true,
                    _ => return Err(invalid(FOSSIL)),
                };
            }
            Value::SlowConsumer(field) => {
                let index = SlowConsumer::WORDS.iter().position(|word| *word == text);
                let index = index.ok_or_else(|| invalid(&SlowConsumer::WORDS.join(" or ")))?;
                *field(options) = SlowConsumer::ALL[index];
            }
            Value::Regex(field) => {
                let given = (!text.is_empty()).then(|| ChannelRegex::new(text));
                *field(options) = given.transpose()?;
            }
        }
        Ok(())
    }

    /// The value as text.
    pub fn text(&self, options: &ChannelOptions) -> String {
        let mut copy = options.clone();
        match self.value {
            Value::Switch(field) => field(&mut copy).to_string(),
            Value::Count(_, _, field) => field(&mut copy).to_string(),
            Value::Bytes(_, _, field) => Bytes(*field(&mut copy)).to_string(),
            Value::Time(_, _, field) => Time(*field(&mut copy)).to_string(),
            Value::RecoveryMode(field) => {
                RecoveryMode::WORDS[*field(&mut copy) as usize].to_owned()
            }
            Value::DeltaTypes(field) => {
                if *field(&mut copy) {
                    FOSSIL.to_owned()
                } else {
                    String::new()
                }
            }
            Value::SlowConsumer(field) => {
                SlowConsumer::WORDS[*field(&mut copy) as usize].to_owned()
            }
            Value::Regex(field) => {
                field(&mut copy).as_ref().map_or("", ChannelRegex::as_str).to_owned()
            }
        }
    }

    /// Whether its value is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.value, Value::DeltaTypes(_))
    }

    /// The range of values, as text.
    pub fn range(&self) -> String {
        match self.value {
            Value::Switch(_) => "true or false".to_owned(),
            Value::Count(min, max, _) => format!("from {min} to {max}"),
            Value::Bytes(min, max, _) => format!("from {} to {}", Bytes(min), Bytes(max)),
            Value::Time(min, max, _) => format!("from {} to {}", Time(min), Time(max)),
            Value::RecoveryMode(_) => RecoveryMode::WORDS.join(" or "),
            Value::DeltaTypes(_) => format!("[] or [\"{FOSSIL}\"]"),
            Value::SlowConsumer(_) => SlowConsumer::WORDS.join(" or "),
            Value::Regex(_) => format!("up to {CHANNEL_REGEX_BYTES_MAX} bytes"),
        }
    }

    fn in_range<T: PartialOrd>(&self, value: T, min: T, max: T) -> Result<T, String> {
        let is_in_range = (min..=max).contains(&value);
        is_in_range.then_some(value).ok_or_else(|| "it is out of range".to_owned())
    }
}

/// The one format of deltas.
const FOSSIL: &str = "fossil";

/// The table of channel options in `README.md`.
pub(super) fn channel_options_markdown() -> String {
    let mut table =
        "| option | `[namespaces.NAME]` | without configuration | range | what it is |\n"
            .to_owned()
            + "|---|---|---|---|---|\n";
    let (closed, development) = (ChannelOptions::closed(), ChannelOptions::development());
    for option in CHANNEL_OPTIONS {
        table.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            option.name,
            option.text(&closed),
            option.text(&development),
            option.range(),
            option.doc
        ));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_every_option_is_parsed_back() {
        for option in CHANNEL_OPTIONS {
            for options in [ChannelOptions::closed(), ChannelOptions::development()] {
                let mut read = ChannelOptions { history_size: 77, ..ChannelOptions::development() };
                option.parse(&option.text(&options), &mut read).unwrap();
                assert_eq!(option.text(&read), option.text(&options), "{}", option.name);
            }
            let nonsense = option.parse("[nonsense", &mut ChannelOptions::closed());
            assert!(nonsense.is_err(), "{}", option.name);
        }
    }

    #[test]
    fn ranges_include_both_ends_and_nothing_beyond() {
        let mut options = ChannelOptions::closed();
        for (name, fine, bad) in [
            ("history_size", vec!["0", "65536"], vec!["-1", "65537", "1.5"]),
            ("history_ttl", vec!["1 s", "30 d"], vec!["0.9 s", "31 d"]),
            ("history_bytes", vec!["1 KiB", "1024 GiB"], vec!["1023", "1025 GiB"]),
            ("backlog_size", vec!["1", "65536"], vec!["0", "65537"]),
            ("batch_delay", vec!["0", "20 ms", "60 s"], vec!["61 s"]),
            ("delivery_rate_max", vec!["0", "1000"], vec!["1001"]),
            ("channel_regex", vec!["", "^a+$"], vec!["("]),
            ("force_recovery_mode", vec!["stream", "cache"], vec!["", "latest"]),
            ("allowed_delta_types", vec!["", "fossil"], vec!["xor", "fossil fossil", "true"]),
            ("slow_consumer", vec!["latest", "drop_oldest", "disconnect"], vec!["newest"]),
        ] {
            let option = ChannelOption::named(name).unwrap();
            for text in fine {
                option.parse(text, &mut options).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            for text in bad {
                assert!(option.parse(text, &mut options).is_err(), "{name} = {text}");
            }
        }
    }
}
