//! What channels do, by namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limits::{BACKLOG_CEILING, HISTORY_SIZE_CEILING, NAMESPACES_MAX};
use super::{ConfigError, error};

/// The options of every channel: those of its namespace, which is the part of its name before the first `:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// Of the channels without a namespace first, then of each namespace.
    options: Vec<ChannelOptions>,
    /// Where in `options`.
    names: BTreeMap<String, u16>,
}

/// Names a namespace among [`Namespaces`]: dense from 0, which is that of the channels without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId(pub u16);

/// What the channels of one namespace do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Publications that a channel keeps, 0..=[`HISTORY_SIZE_CEILING`]; 0 keeps none.
    pub history_size: u32,
    /// How long it keeps them.
    pub history_ttl: Duration,
    /// Bytes that it keeps, with what keeping them costs.
    pub history_bytes: u64,
    /// Whether a client that comes back gets what it missed. Needs a history.
    pub recovery: bool,
    /// Whether clients may subscribe.
    pub subscribe: bool,
    /// Whether clients may publish.
    pub publish: bool,
    /// Whether clients may read the history.
    pub history: bool,
    /// Whether clients may ask who is subscribed.
    pub presence: bool,
    /// Whether subscribers are told who comes and goes.
    pub join_leave: bool,
    /// What happens to a subscriber whose socket takes no more.
    pub delivery: Delivery,
    /// Publications kept for such subscribers under [`Delivery::DropOldest`], 1..=[`BACKLOG_CEILING`].
    pub backlog: u32,
    /// Publications wait so long for others to leave with; zero sends each at once.
    pub deliver_every: Duration,
    /// Publications a second to one subscriber; 0 sets no limit. Needs a delivery that may drop.
    pub rate_max: u32,
}

/// What happens to a subscriber whose socket takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Everything waits for it, until its queue passes the maximum: then it is closed as a slow consumer.
    Disconnect,
    /// The newest publication replaces what waits.
    Latest,
    /// The oldest that waits gives way, and the subscriber is told of the gap.
    DropOldest,
}

impl ChannelOptions {
    /// Nothing but to subscribe is allowed, and nothing is kept: what a configured namespace begins with.
    pub fn closed() -> Self {
        Self {
            history_size: 0,
            history_ttl: Duration::from_secs(300),
            history_bytes: 16 * 1024 * 1024,
            recovery: true,
            subscribe: true,
            publish: false,
            history: false,
            presence: false,
            join_leave: false,
            delivery: Delivery::Disconnect,
            backlog: 256,
            deliver_every: Duration::ZERO,
            rate_max: 0,
        }
    }

    /// Everything is allowed, and 1,000 publications are kept for ten minutes: the channels of a server without
    /// configuration.
    pub fn development() -> Self {
        Self {
            history_size: 1000,
            history_ttl: Duration::from_secs(600),
            publish: true,
            history: true,
            presence: true,
            ..Self::closed()
        }
    }

    /// Judges the whole; `namespace` is for the sentence.
    pub fn check(&self, namespace: &str) -> Result<(), ConfigError> {
        let fault = |what: String| Err(error(&format!("namespace {namespace:?}: {what}")));
        let Self { history_size, backlog, history_ttl, deliver_every, rate_max, .. } = *self;
        if history_size > HISTORY_SIZE_CEILING {
            return fault(format!(
                "history_size is {history_size}; it must be at most {HISTORY_SIZE_CEILING}"
            ));
        }
        if !(Duration::from_secs(1)..=HISTORY_TTL_MAX).contains(&history_ttl) {
            return fault("history_ttl must be from 1 s to 30 days".to_owned());
        }
        if !(1..=BACKLOG_CEILING).contains(&backlog) {
            return fault(format!("backlog is {backlog}; it must be from 1 to {BACKLOG_CEILING}"));
        }
        if deliver_every > DELIVER_EVERY_MAX {
            return fault("deliver_every must be at most 60 s".to_owned());
        }
        if rate_max > RATE_CEILING {
            return fault(format!("rate_max is {rate_max}; it must be at most {RATE_CEILING}"));
        }
        if rate_max > 0 && self.delivery == Delivery::Disconnect {
            return fault(
                "rate_max needs delivery = \"latest\" or \"drop_oldest\": what is too much has to go somewhere"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl Namespaces {
    /// The channels without a namespace have these options; there are no namespaces.
    pub fn new(default: ChannelOptions) -> Self {
        Self { options: vec![default], names: BTreeMap::new() }
    }

    /// Adds a namespace. Its name is 1..=64 bytes of letters, digits, `_`, `-` and `.`.
    pub fn add(&mut self, name: &str, options: ChannelOptions) -> Result<(), ConfigError> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_fine) {
            return Err(error(&format!(
                "namespace {name:?}: a name is 1 to 64 letters, digits, '_', '-' or '.'"
            )));
        }
        if self.options.len() > NAMESPACES_MAX {
            return Err(error(&format!("more than {NAMESPACES_MAX} namespaces")));
        }
        options.check(name)?;
        let id = u16::try_from(self.options.len()).expect("they are few");
        if self.names.insert(name.to_owned(), id).is_some() {
            return Err(error(&format!("namespace {name:?} is given twice")));
        }
        self.options.push(options);
        Ok(())
    }

    /// The namespace of a channel; `None` if its name begins with an unknown one.
    pub fn find(&self, channel: &str) -> Option<NamespaceId> {
        match channel.split_once(':') {
            None => Some(NamespaceId(0)),
            Some((name, _)) => self.names.get(name).copied().map(NamespaceId),
        }
    }

    /// The options of a namespace.
    pub fn options(&self, id: NamespaceId) -> &ChannelOptions {
        &self.options[usize::from(id.0)]
    }

    /// All of them, by [`NamespaceId`].
    pub fn all(&self) -> &[ChannelOptions] {
        &self.options
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::new(ChannelOptions::development())
    }
}

const HISTORY_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
const DELIVER_EVERY_MAX: Duration = Duration::from_secs(60);
const RATE_CEILING: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_the_options_of_the_part_before_its_first_colon() {
        let mut namespaces = Namespaces::default();
        let chat = ChannelOptions { history_size: 7, ..ChannelOptions::closed() };
        namespaces.add("chat", chat.clone()).unwrap();
        let of = |name| namespaces.find(name).map(|id| namespaces.options(id).clone());
        assert_eq!(of("lobby"), Some(ChannelOptions::development()));
        assert_eq!(of("chat"), Some(ChannelOptions::development()));
        assert_eq!(of("chat:1"), Some(chat.clone()));
        assert_eq!(of("chat:1:2"), Some(chat));
        assert_eq!(of("chats:1"), None);
        assert_eq!(of(":1"), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_namespace_and_the_range() {
        let closed = ChannelOptions::closed;
        let cases = [
            (ChannelOptions { history_size: HISTORY_SIZE_CEILING, ..closed() }, None),
            (
                ChannelOptions { history_size: HISTORY_SIZE_CEILING + 1, ..closed() },
                Some("history_size"),
            ),
            (ChannelOptions { history_ttl: Duration::ZERO, ..closed() }, Some("history_ttl")),
            (ChannelOptions { backlog: 0, ..closed() }, Some("backlog")),
            (ChannelOptions { backlog: BACKLOG_CEILING + 1, ..closed() }, Some("backlog")),
            (
                ChannelOptions { deliver_every: Duration::from_secs(61), ..closed() },
                Some("deliver_every"),
            ),
            (ChannelOptions { rate_max: 1, ..closed() }, Some("rate_max")),
            (ChannelOptions { rate_max: 1, delivery: Delivery::Latest, ..closed() }, None),
        ];
        for (options, fault) in cases {
            match (Namespaces::default().add("x", options), fault) {
                (Ok(()), None) => {}
                (Err(error), Some(name)) => assert!(error.0.contains(name), "{}", error.0),
                (result, fault) => panic!("{result:?} instead of {fault:?}"),
            }
        }
        let mut namespaces = Namespaces::default();
        namespaces.add("a", closed()).unwrap();
        assert!(namespaces.add("a", closed()).is_err());
        assert!(namespaces.add("", closed()).is_err());
        assert!(namespaces.add("a:b", closed()).is_err());
    }
}
