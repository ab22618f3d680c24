//! What is known about clients and their subscriptions, until it expires, and how subscribers are listed and counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::expiry::Expiries;
use super::identities::Identities;
use super::local_channel::Subscription;
use super::message::Present;
use super::session::Sessions;
use super::settings::HubSettings;
use super::survey::BlockedUsers;
use crate::config::limits::PRESENCE_USERS_MAX;
use crate::message::{
    ClientId, ClientInfo, Identity, IdentityError, Overrides, Refusal, Renewal, SessionId,
    SubscriptionOptions,
};

/// What is known about the clients of this worker's sessions, and about their subscriptions.
#[derive(Debug)]
pub(super) struct Clients {
    identities: Identities,
    expiries: Expiries,
    blocked: BlockedUsers,
    /// By the slots of subscriptions, those about which the backend says anything.
    options: HashMap<u32, Box<SubscriptionOptions>>,
    options_bytes: usize,
    /// The number of joined subscribers that are not listed, by the slots of their channels.
    hidden: HashMap<u32, u32>,
    /// The time of the calendar, in seconds since the Unix epoch.
    now: u64,
}

impl Clients {
    pub(super) fn new(settings: &HubSettings) -> Self {
        Self {
            identities: Identities::new(&settings.hash, settings.sessions_max),
            expiries: Expiries::new(settings.sessions_max),
            blocked: BlockedUsers::default(),
            options: HashMap::new(),
            options_bytes: 0,
            hidden: HashMap::new(),
            now: 0,
        }
    }

    pub(super) fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Sets who the client of a session is, and until when, unless its user is blocked.
    pub(super) fn identify(
        &mut self,
        session: u32,
        identity: &Identity,
    ) -> Result<(), IdentityError> {
        let user = identity.user.as_deref().unwrap_or_default();
        if self.blocked.contains(user, self.now) {
            return Err(IdentityError::UserBlocked);
        }
        self.identities.set(session, identity);
        self.expiries.set_session(session, identity.expires_at);
        Ok(())
    }

    /// Blocks a user until a time, in seconds since the Unix epoch.
    pub(super) fn block(&mut self, user: Arc<str>, until: u64) -> Result<(), Refusal> {
        self.blocked.block(user, until, self.now)
    }

    /// The identity of a session, without when it expires.
    pub(super) fn identity(&self, session: u32) -> Identity {
        let (user, info) = self.identities.get(session);
        Identity { user, info, expires_at: None }
    }

    /// What others see of a client without a subscription.
    pub(super) fn connection_info(&self, client: ClientId) -> ClientInfo {
        let (user, conn_info) = self.identities.get(client.session.index);
        ClientInfo { client, user, conn_info, chan_info: None }
    }

    /// A session has ended.
    pub(super) fn remove(&mut self, session: u32) {
        self.identities.remove(session);
        self.expiries.set_session(session, None);
    }

    /// Sessions and subscriptions by the times at which they expire.
    pub(super) fn expiries(&mut self) -> &mut Expiries {
        &mut self.expiries
    }

    /// Bytes of what is known, beside 4 of each session.
    pub(super) fn bytes(&self) -> usize {
        self.identities.bytes() + self.options_bytes
    }

    /// Keeps what the backend says about a subscription.
    pub(super) fn set_options(&mut self, subscription: u32, options: Box<SubscriptionOptions>) {
        self.remove_options(subscription);
        self.options_bytes += options.heap_bytes();
        self.options.insert(subscription, options);
    }

    /// Whether the backend says anything about any subscription.
    pub(super) fn has_options(&self) -> bool {
        !self.options.is_empty()
    }

    /// What the backend says about a subscription.
    pub(super) fn options(&self, subscription: u32) -> Option<Box<SubscriptionOptions>> {
        self.options.get(&subscription).cloned()
    }

    /// The options of a subscription's channel that the backend replaces.
    pub(super) fn overrides(&self, subscription: u32) -> Overrides {
        self.options.get(&subscription).map(|options| options.overrides).unwrap_or_default()
    }

    /// Sets the time of the calendar.
    pub(super) fn set_time(&mut self, now: u64) {
        self.now = now;
    }

    /// A subscriber has joined a channel: from now on, its subscription may expire, and is listed unless it is hidden.
    pub(super) fn join(&mut self, subscription: u32, channel: u32) {
        self.await_expiry(subscription);
        if self.is_hidden(subscription) {
            *self.hidden.entry(channel).or_default() += 1;
        }
    }

    /// A subscriber leaves a channel that it has joined.
    pub(super) fn leave(&mut self, subscription: u32, channel: u32) {
        if self.is_hidden(subscription)
            && let Entry::Occupied(mut hidden) = self.hidden.entry(channel)
        {
            *hidden.get_mut() -= 1;
            if *hidden.get() == 0 {
                hidden.remove();
            }
        }
    }

    /// The number of subscribers of a channel that are not listed.
    pub(super) fn hidden_in(&self, channel: u32) -> u32 {
        self.hidden.get(&channel).copied().unwrap_or(0)
    }

    fn is_hidden(&self, subscription: u32) -> bool {
        self.overrides(subscription).presence == Some(false)
    }

    /// The subscription of a joined subscriber expires, if the backend says so.
    pub(super) fn await_expiry(&mut self, subscription: u32) {
        if let Some(options) = self.options.get(&subscription) {
            self.expiries.insert_subscription(subscription, options);
        }
    }

    /// Takes what the backend says about a subscription that it was asked about. Returns whether that is to end. One
    /// that was made meanwhile stays as it is.
    pub(super) fn renew(&mut self, subscription: u32, renewal: Renewal) -> bool {
        let Some(options) = self.options.get(&subscription) else { return false };
        let is_due = options.expires_at.is_some_and(|at| at <= self.now);
        if !options.is_renewed_by_backend || !is_due {
            return false;
        }
        let Renewal::Prolonged { expires_at, info } = renewal else { return true };
        let mut options = options.clone();
        options.expires_at = expires_at;
        options.info = info.or(options.info);
        self.set_options(subscription, options);
        self.await_expiry(subscription);
        false
    }

    /// A subscription has ended.
    pub(super) fn remove_options(&mut self, subscription: u32) {
        if self.options.is_empty() {
            return;
        }
        if let Some(options) = self.options.remove(&subscription) {
            self.options_bytes -= options.heap_bytes();
            self.expiries.remove_subscription(subscription, &options);
        }
        if self.options.is_empty() {
            self.options.shrink_to_fit();
        }
    }

    /// What others see of a subscriber.
    pub(super) fn info(
        &self,
        session: SessionId,
        subscription: u32,
        settings: &HubSettings,
    ) -> ClientInfo {
        let options = self.options.get(&subscription);
        let chan_info = options.and_then(|options| options.info.clone());
        ClientInfo { chan_info, ..self.connection_info(settings.client_id(session)) }
    }

    /// Lists at most `list_max` of these subscribers.
    pub(super) fn list<'s>(
        &self,
        subscribers: impl Iterator<Item = (u32, &'s Subscription)>,
        sessions: &Sessions,
        list_max: u32,
        settings: &HubSettings,
    ) -> Vec<ClientInfo> {
        let info =
            |(at, node): (u32, &Subscription)| self.info(sessions.id(node.session), at, settings);
        let listed = subscribers.filter(|(at, _)| self.hidden.is_empty() || !self.is_hidden(*at));
        listed.take(list_max as usize).map(info).collect()
    }

    /// Counts those of these subscribers that are listed, which are `client_count`, and their users. One of `parts`
    /// workers looks at its share of [`PRESENCE_USERS_MAX`] subscribers.
    pub(super) fn count<'s>(
        &self,
        subscribers: impl Iterator<Item = (u32, &'s Subscription)>,
        client_count: u64,
        parts: u16,
        settings: &HubSettings,
    ) -> Present {
        let users_max = PRESENCE_USERS_MAX / usize::from(parts.max(1));
        let (mut entries, mut looked_at) = (Vec::new(), client_count);
        if !self.identities.is_empty() {
            let listed =
                subscribers.filter(|(at, _)| self.hidden.is_empty() || !self.is_hidden(*at));
            entries.extend(
                listed.take(users_max).map(|(_, node)| self.identities.entry_of(node.session)),
            );
            looked_at = entries.len() as u64;
            entries.sort_unstable();
            entries.dedup();
        } else if client_count > 0 {
            entries.push(None);
        }
        let user = |entry: Option<u32>| entry.map_or("", |key| self.identities.user_of_entry(key));
        let mut users: Vec<u64> =
            entries.into_iter().map(|entry| settings.hash.of(user(entry))).collect();
        users.sort_unstable();
        users.dedup();
        Present { clients: Vec::new(), client_count, users, more: client_count - looked_at }
    }
}
