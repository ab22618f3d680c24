//! What channels do, by namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limits::NAMESPACES_MAX;

/// The options of every channel: those of its namespace, which is the part of its name before the first `:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// Of the channels without a namespace first, then of each namespace.
    options: Vec<ChannelOptions>,
    /// Where in `options`.
    names: BTreeMap<String, u16>,
    /// The server's own.
    own: Option<NamespaceId>,
}

/// Where the server publishes what it counts, if it may: see [`Namespaces::add_statistics`].
pub const STATISTICS_CHANNEL: &str = "fantail:statistics";

/// The namespace of the server's own channels.
const OWN_NAMESPACE: &str = "fantail";

/// Names a namespace among [`Namespaces`]: dense from 0, which is that of the channels without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId(pub u16);

/// What the channels of one namespace do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Publications that a channel keeps, 0..=[`super::limits::HISTORY_SIZE_CEILING`]; 0 keeps none.
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
    pub slow_consumer: SlowConsumer,
    /// Publications kept per channel for slow subscribers under [`SlowConsumer::DropOldest`],
    /// 1..=[`super::limits::BACKLOG_SIZE_CEILING`].
    pub backlog_size: u32,
    /// Publications wait so long for others to leave with; zero sends each at once.
    pub batch_delay: Duration,
    /// Publications a second to one subscriber; 0 sets no limit. Needs a slow_consumer that may drop.
    pub delivery_rate_max: u32,
}

/// What happens to a subscriber whose socket takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Everything waits for it, until its queue passes the maximum: then it is closed as a slow consumer.
    Disconnect,
    /// The newest publication replaces what waits.
    Latest,
    /// The oldest that waits gives way, and the subscriber is told of the gap.
    DropOldest,
}

impl ChannelOptions {
    /// Whether a position in such a channel is of use later.
    pub fn is_recoverable(&self) -> bool {
        self.recovery && self.history_size > 0
    }

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
            slow_consumer: SlowConsumer::Disconnect,
            backlog_size: 256,
            batch_delay: Duration::ZERO,
            delivery_rate_max: 0,
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

    /// Options of the channel of statistics. It keeps a minute of history, so that clients that reconnect or poll miss
    /// nothing of it; a slow subscriber gets the latest.
    fn statistics() -> Self {
        Self {
            history_size: 60,
            history_ttl: Duration::from_secs(60),
            history_bytes: 1024 * 1024,
            slow_consumer: SlowConsumer::Latest,
            ..Self::closed()
        }
    }

    /// Checks that the options fit together; the error names `namespace`. Ranges are checked as each option is parsed.
    pub fn check(&self, namespace: &str) -> Result<(), String> {
        if self.delivery_rate_max > 0 && self.slow_consumer == SlowConsumer::Disconnect {
            return Err(format!(
                "{namespace}: delivery_rate_max needs slow_consumer = \"latest\" or \"drop_oldest\", as publications \
                 beyond the rate are dropped"
            ));
        }
        Ok(())
    }
}

impl SlowConsumer {
    /// In the order of their words.
    pub const ALL: [Self; 3] = [Self::Disconnect, Self::Latest, Self::DropOldest];
    /// What they are called in settings.
    pub const WORDS: &[&str] = &["disconnect", "latest", "drop_oldest"];
}

impl Namespaces {
    /// The channels without a namespace have these options; there are no namespaces.
    pub fn new(default: ChannelOptions) -> Self {
        Self { options: vec![default], names: BTreeMap::new(), own: None }
    }

    /// Gives the channels without a namespace these options.
    pub fn set_default(&mut self, options: ChannelOptions) -> Result<(), String> {
        options.check("[channels]")?;
        self.options[0] = options;
        Ok(())
    }

    /// Each with the section that sets it.
    pub fn sections(&self) -> Vec<(String, &ChannelOptions)> {
        let mut names = vec!["channels".to_owned(); self.options.len()];
        for (name, id) in &self.names {
            names[usize::from(*id)] = format!("namespaces.{name}");
        }
        names.into_iter().zip(&self.options).collect()
    }

    /// Adds a namespace. Its name is 1..=64 bytes of letters, digits, `_`, `-` and `.`.
    pub fn add(&mut self, name: &str, options: ChannelOptions) -> Result<(), String> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_fine) {
            return Err(format!(
                "[namespaces.{name}]: a name has 1 to 64 characters: letters, digits, '_', '-' or '.'"
            ));
        }
        if name == OWN_NAMESPACE {
            return Err(format!("[namespaces.{name}]: this name is reserved for the server"));
        }
        if self.options.len() > NAMESPACES_MAX {
            return Err(format!("more than {NAMESPACES_MAX} namespaces"));
        }
        options.check(&format!("[namespaces.{name}]"))?;
        if self.insert(name, options) {
            return Err(format!("[namespaces.{name}] is set twice"));
        }
        Ok(())
    }

    /// Adds the server's own namespace: clients may subscribe to [`STATISTICS_CHANNEL`].
    pub fn add_statistics(&mut self) {
        self.insert(OWN_NAMESPACE, ChannelOptions::statistics());
        self.own = self.names.get(OWN_NAMESPACE).copied().map(NamespaceId);
    }

    /// Takes the names of the server's own channels away; who is subscribed keeps the options.
    pub fn remove_statistics(&mut self) {
        self.names.remove(OWN_NAMESPACE);
    }

    /// Whether there are channels of the server's own.
    pub fn has_statistics(&self) -> bool {
        self.names.contains_key(OWN_NAMESPACE)
    }

    /// Whether only the server itself may publish in this namespace, even if a client has the API key.
    pub fn is_own(&self, id: NamespaceId) -> bool {
        self.own == Some(id)
    }

    /// Returns whether there was one of this name.
    fn insert(&mut self, name: &str, options: ChannelOptions) -> bool {
        let id = u16::try_from(self.options.len()).expect("they are few");
        let is_known = self.names.insert(name.to_owned(), id).is_some();
        self.options.push(options);
        is_known
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

/// Longest time to live of a history.
pub const HISTORY_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Longest wait of a publication for others.
pub const BATCH_DELAY_MAX: Duration = Duration::from_secs(60);
/// Highest rate that can be set.
pub const DELIVERY_RATE_CEILING: u32 = 1000;

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
    fn the_channel_of_statistics_is_the_servers_own() {
        let mut namespaces = Namespaces::default();
        assert_eq!(namespaces.find(STATISTICS_CHANNEL), None);
        namespaces.add_statistics();
        let id = namespaces.find(STATISTICS_CHANNEL).unwrap();
        assert!(namespaces.is_own(id) && !namespaces.is_own(NamespaceId(0)));
        let options = namespaces.options(id);
        assert!(options.subscribe && !options.publish);
        assert_eq!(options.check("[namespaces.fantail]"), Ok(()));
        assert!(namespaces.has_statistics());
        namespaces.remove_statistics();
        assert_eq!(
            (namespaces.has_statistics(), namespaces.find(STATISTICS_CHANNEL)),
            (false, None)
        );
        assert!(!namespaces.options(id).publish);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_namespace() {
        let closed = ChannelOptions::closed;
        let mut namespaces = Namespaces::default();
        namespaces.add("a", closed()).unwrap();
        namespaces
            .add(
                "b",
                ChannelOptions {
                    delivery_rate_max: 1,
                    slow_consumer: SlowConsumer::Latest,
                    ..closed()
                },
            )
            .unwrap();
        for (name, options, words) in [
            ("a", closed(), "twice"),
            ("", closed(), "a name has"),
            ("a:b", closed(), "a name has"),
            ("fantail", closed(), "reserved for the server"),
            (
                "c",
                ChannelOptions { delivery_rate_max: 1, ..closed() },
                "[namespaces.c]: delivery_rate_max",
            ),
        ] {
            let error = namespaces.add(name, options).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        for index in namespaces.all().len()..=NAMESPACES_MAX {
            namespaces.add(&format!("n{index}"), closed()).unwrap();
        }
        assert!(namespaces.add("one-more", closed()).is_err());
    }
}
