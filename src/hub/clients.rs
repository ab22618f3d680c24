//! What is known about clients and their subscriptions, and how subscribers are listed and counted.

use std::collections::HashMap;

use super::identities::Identities;
use super::local_channel::Subscription;
use super::message::Present;
use super::session::Sessions;
use super::settings::HubSettings;
use crate::config::limits::PRESENCE_USERS_MAX;
use crate::message::{ClientInfo, SessionId, SubscriptionOptions};

/// What is known about the clients of this worker's sessions, and about their subscriptions.
#[derive(Debug)]
pub(super) struct Clients {
    identities: Identities,
    /// By the slots of subscriptions, those about which the backend says anything.
    options: HashMap<u32, Box<SubscriptionOptions>>,
    options_bytes: usize,
}

impl Clients {
    pub(super) fn new(settings: &HubSettings) -> Self {
        Self {
            identities: Identities::new(&settings.hash, settings.sessions_max),
            options: HashMap::new(),
            options_bytes: 0,
        }
    }

    pub(super) fn identities(&self) -> &Identities {
        &self.identities
    }

    pub(super) fn identities_mut(&mut self) -> &mut Identities {
        &mut self.identities
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

    /// What the backend says about a subscription.
    pub(super) fn options(&self, subscription: u32) -> Option<Box<SubscriptionOptions>> {
        self.options.get(&subscription).cloned()
    }

    /// A subscription has ended.
    pub(super) fn remove_options(&mut self, subscription: u32) {
        if let Some(options) = self.options.remove(&subscription) {
            self.options_bytes -= options.heap_bytes();
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
        let (user, conn_info) = self.identities.get(session.index);
        let options = self.options.get(&subscription);
        let chan_info = options.and_then(|options| options.info.clone());
        ClientInfo { client: settings.client_id(session), user, conn_info, chan_info }
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
        subscribers.take(list_max as usize).map(info).collect()
    }

    /// Counts these subscribers, of which there are `client_count`, and their users. One of `parts` workers looks at
    /// its share of [`PRESENCE_USERS_MAX`] subscribers.
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
            entries.extend(
                subscribers.take(users_max).map(|(_, node)| self.identities.entry_of(node.session)),
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
