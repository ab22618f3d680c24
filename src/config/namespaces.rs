//! Channel options, by namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ChannelRegex;
use super::limits::NAMESPACES_MAX;

/// The options of every channel: those of its namespace, which is the part of its name before the first `:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// The options of channels without a namespace first, then those of each namespace.
    options: Vec<ChannelOptions>,
    /// Index in `options` of each namespace.
    names: BTreeMap<String, u16>,
    /// The namespace of the server's own channels.
    own: Option<NamespaceId>,
    /// Bytes of the longest name that clients may use; every name if `None`.
    name_bytes_max: Option<usize>,
}

/// The channel of the server's statistics, if they are published: see [`Namespaces::add_statistics`].
pub const STATISTICS_CHANNEL: &str = "fantail:statistics";

/// What the name of a channel begins with to which clients subscribe with a token only.
const PRIVATE_MARK: char = '$';

/// The namespace of the server's own channels.
const OWN_NAMESPACE: &str = "fantail";

/// Identifies a namespace of [`Namespaces`]: dense, from 0, which stands for channels without a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId(pub u16);

/// The options of the channels of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Publications that a channel keeps, 0..=[`super::limits::HISTORY_SIZE_CEILING`]; 0 keeps none.
    pub history_size: u32,
    /// How long a channel keeps publications.
    pub history_ttl: Duration,
    /// Bytes of publications that a channel keeps, including overhead.
    pub history_bytes: u64,
    /// Whether a client that reconnects recovers missed publications. Needs a history.
    pub recovery: bool,
    /// What a client recovers that reconnects.
    pub recovery_mode: RecoveryMode,
    /// Whether subscribers may take deltas.
    pub allows_deltas: bool,
    /// Whether deltas are made of every publication, and not only of those whose publisher asks for it.
    pub delta_publish: bool,
    /// Whether subscribers may filter publications by their tags.
    pub allow_tags_filter: bool,
    /// What the names of channels match that clients ask for.
    pub channel_regex: Option<ChannelRegex>,
    /// The right to subscribe.
    pub allow_subscribe: ClientRight,
    /// Whether a channel whose name ends in `#` and users, separated by commas, is for these users and no other
    /// clients.
    pub allow_user_limited_channels: bool,
    /// Whether the backend decides about subscriptions of clients: then they need no right.
    pub callback_subscribe: bool,
    /// Whether the backend decides about publications of clients: then they need no right.
    pub callback_publish: bool,
    /// Whether the backend is asked about subscriptions that have expired, but for those that a token allows.
    pub callback_sub_refresh: bool,
    /// The right to publish.
    pub allow_publish: ClientRight,
    /// The right to read the history.
    pub allow_history: ClientRight,
    /// The right to list the subscribers.
    pub allow_presence: ClientRight,
    /// Whether the subscribers can be listed, by the server API and by clients with the right.
    pub presence: bool,
    /// Whether subscribers receive join and leave events.
    pub join_leave: bool,
    /// Whether a client does not receive what it publishes itself, unless it recovers or reads the history.
    pub exclude_publisher: bool,
    /// The policy for a slow subscriber.
    pub slow_consumer: SlowConsumer,
    /// Publications kept per channel for slow subscribers under [`SlowConsumer::DropOldest`],
    /// 1..=[`super::limits::BACKLOG_SIZE_CEILING`].
    pub backlog_size: u32,
    /// How long publications are held to be delivered in one batch; zero delivers each at once.
    pub batch_delay: Duration,
    /// Publications per second delivered to one subscriber, 0..=`DELIVERY_RATE_CEILING`; 0 for no limit. Needs a
    /// `slow_consumer` policy that drops publications.
    pub delivery_rate_max: u32,
}

/// A right of clients in a channel. As with Centrifugo, clients without a user are a part of those that the other two
/// fields name: they have the right if `anonymous` is set too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRight {
    /// Clients have it.
    pub client: bool,
    /// Clients that are subscribed to the channel have it.
    pub subscriber: bool,
    /// Clients without a user are not excluded.
    pub anonymous: bool,
}

/// What a client recovers that reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryMode {
    /// The publications that it missed.
    Stream,
    /// The latest publication.
    Cache,
}

/// The policy for a slow subscriber: one whose socket accepts no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Publications are queued for it; once its send queue exceeds the maximum, it is disconnected as a slow consumer.
    Disconnect,
    /// The latest publication replaces the one that waits.
    Latest,
    /// The oldest publications of a full backlog are dropped, and the subscriber receives the number of dropped ones.
    DropOldest,
}

impl ChannelOptions {
    /// Whether a client can recover from a position in such a channel.
    pub fn is_recoverable(&self) -> bool {
        self.is_recoverable_with(None)
    }

    /// Whether a client can recover from a position in such a channel, if this replaces the option `recovery` for it.
    pub fn is_recoverable_with(&self, recovers: Option<bool>) -> bool {
        recovers.unwrap_or(self.recovery) && self.history_size > 0
    }

    /// The defaults of a configured namespace: clients have no rights, and no history is kept.
    pub fn closed() -> Self {
        Self {
            history_size: 0,
            history_ttl: Duration::from_secs(300),
            history_bytes: 16 * 1024 * 1024,
            recovery: true,
            recovery_mode: RecoveryMode::Stream,
            allows_deltas: false,
            delta_publish: false,
            allow_tags_filter: false,
            channel_regex: None,
            allow_subscribe: ClientRight::NONE,
            allow_user_limited_channels: false,
            callback_subscribe: false,
            callback_publish: false,
            callback_sub_refresh: false,
            allow_publish: ClientRight::NONE,
            allow_history: ClientRight::NONE,
            allow_presence: ClientRight::NONE,
            presence: false,
            join_leave: false,
            exclude_publisher: false,
            slow_consumer: SlowConsumer::Disconnect,
            backlog_size: 256,
            batch_delay: Duration::ZERO,
            delivery_rate_max: 0,
        }
    }

    /// Every client may subscribe and publish, and no history is kept.
    pub fn open() -> Self {
        Self {
            allow_subscribe: ClientRight::ALL,
            allow_publish: ClientRight::ALL,
            ..Self::closed()
        }
    }

    /// The options of a server without configuration: everything but join and leave events is allowed, and 1,000
    /// publications are kept for ten minutes.
    pub fn development() -> Self {
        Self {
            history_size: 1000,
            history_ttl: Duration::from_secs(600),
            allows_deltas: true,
            delta_publish: true,
            allow_tags_filter: true,
            allow_history: ClientRight::ALL,
            allow_presence: ClientRight::ALL,
            presence: true,
            ..Self::open()
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
            allow_subscribe: ClientRight::ALL,
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

impl ClientRight {
    /// The right of no client.
    pub const NONE: Self = Self { client: false, subscriber: false, anonymous: false };
    /// The right of every client.
    pub const ALL: Self = Self { client: true, subscriber: true, anonymous: true };

    /// Whether a client has the right. `is_subscribed` is asked only if the verdict depends on it.
    pub fn is_held(self, has_user: bool, is_subscribed: impl FnOnce() -> bool) -> bool {
        (has_user || self.anonymous) && (self.client || (self.subscriber && is_subscribed()))
    }
}

impl RecoveryMode {
    /// All modes, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 2] = [Self::Stream, Self::Cache];
    /// The names of the modes in settings.
    pub const WORDS: &[&str] = &["stream", "cache"];
}

impl SlowConsumer {
    /// All policies, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 3] = [Self::Disconnect, Self::Latest, Self::DropOldest];
    /// The names of the policies in settings.
    pub const WORDS: &[&str] = &["disconnect", "latest", "drop_oldest"];
}

impl Namespaces {
    /// No namespaces, and these options for channels without a namespace.
    pub fn new(default: ChannelOptions) -> Self {
        Self { options: vec![default], names: BTreeMap::new(), own: None, name_bytes_max: None }
    }

    /// Sets the options of channels without a namespace.
    pub fn set_default(&mut self, options: ChannelOptions) -> Result<(), String> {
        options.check("[channels]")?;
        self.options[0] = options;
        Ok(())
    }

    /// The options of each namespace, with the section of the file that sets them.
    pub fn sections(&self) -> Vec<(String, &ChannelOptions)> {
        let mut names = vec!["channels".to_owned(); self.options.len()];
        for (name, id) in &self.names {
            names[usize::from(*id)] = format!("namespaces.{name}");
        }
        names.into_iter().zip(&self.options).collect()
    }

    /// The names of the namespaces.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether there may be channels of a namespace; an empty name stands for channels without one.
    pub fn has(&self, name: &str) -> bool {
        name.is_empty() || name == OWN_NAMESPACE || self.names.contains_key(name)
    }

    /// The name of a channel's namespace, whether or not it exists; empty if the channel has none.
    pub fn name_of(channel: &str) -> &str {
        Self::split(channel).unwrap_or_default()
    }

    /// Whether clients need a token to subscribe to a channel. The mark is not part of the namespace's name.
    pub fn is_private(channel: &str) -> bool {
        channel.starts_with(PRIVATE_MARK)
    }

    fn split(channel: &str) -> Option<&str> {
        let channel = channel.strip_prefix(PRIVATE_MARK).unwrap_or(channel);
        channel.split_once(':').map(|(name, _)| name)
    }

    /// Adds a namespace. Its name is 1..=64 bytes of letters, digits, `_`, `-` and `.`.
    pub fn add(&mut self, name: &str, options: ChannelOptions) -> Result<(), String> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_allowed) {
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

    /// Limits the names that clients may use to a number of bytes.
    pub fn limit_names(&mut self, bytes_max: usize) {
        self.name_bytes_max = Some(bytes_max);
    }

    /// Whether clients may use a name of this length.
    pub fn is_short_enough(&self, channel: &str) -> bool {
        self.name_bytes_max.is_none_or(|bytes_max| channel.len() <= bytes_max)
    }

    /// Adds the server's own namespace: clients may subscribe to [`STATISTICS_CHANNEL`].
    pub fn add_statistics(&mut self) {
        self.insert(OWN_NAMESPACE, ChannelOptions::statistics());
        self.own = self.names.get(OWN_NAMESPACE).copied().map(NamespaceId);
    }

    /// Removes the server's own namespace. Channels that have subscribers keep its options.
    pub fn remove_statistics(&mut self) {
        self.names.remove(OWN_NAMESPACE);
    }

    /// Whether the server's own namespace exists.
    pub fn has_statistics(&self) -> bool {
        self.names.contains_key(OWN_NAMESPACE)
    }

    /// Whether only the server itself may publish in this namespace, even if a client has the API key.
    pub fn is_own(&self, id: NamespaceId) -> bool {
        self.own == Some(id)
    }

    /// Inserts a namespace, and returns whether there was one of this name.
    fn insert(&mut self, name: &str, options: ChannelOptions) -> bool {
        let id = u16::try_from(self.options.len())
            .expect("at most NAMESPACES_MAX, and the server's own");
        let is_known = self.names.insert(name.to_owned(), id).is_some();
        self.options.push(options);
        is_known
    }

    /// The namespace of a channel; `None` if its name begins with an unknown one.
    pub fn find(&self, channel: &str) -> Option<NamespaceId> {
        match Self::split(channel) {
            None => Some(NamespaceId(0)),
            Some(name) => self.names.get(name).copied().map(NamespaceId),
        }
    }

    /// The options of a namespace.
    pub fn options(&self, id: NamespaceId) -> &ChannelOptions {
        &self.options[usize::from(id.0)]
    }

    /// The options of all namespaces, indexed by [`NamespaceId`].
    pub fn all(&self) -> &[ChannelOptions] {
        &self.options
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::new(ChannelOptions::development())
    }
}

/// Upper bound of the channel option `history_ttl`.
pub const HISTORY_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Upper bound of the channel option `batch_delay`.
pub const BATCH_DELAY_MAX: Duration = Duration::from_secs(60);
/// Upper bound of the channel option `delivery_rate_max`.
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
    fn clients_may_subscribe_but_not_publish_to_the_statistics_channel() {
        let mut namespaces = Namespaces::default();
        assert_eq!(namespaces.find(STATISTICS_CHANNEL), None);
        namespaces.add_statistics();
        let id = namespaces.find(STATISTICS_CHANNEL).unwrap();
        assert!(namespaces.is_own(id) && !namespaces.is_own(NamespaceId(0)));
        let options = namespaces.options(id);
        let rights = (options.allow_subscribe, options.allow_publish);
        assert_eq!(rights, (ClientRight::ALL, ClientRight::NONE));
        assert_eq!(options.check("[namespaces.fantail]"), Ok(()));
        assert!(namespaces.has_statistics());
        namespaces.remove_statistics();
        assert_eq!(
            (namespaces.has_statistics(), namespaces.find(STATISTICS_CHANNEL)),
            (false, None)
        );
        assert_eq!(namespaces.options(id).allow_publish, ClientRight::NONE);
    }

    #[test]
    fn an_invalid_namespace_is_refused_by_name() {
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
