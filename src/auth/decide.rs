//! Whether a request is allowed.

use crate::config::{
    CallbackKind, Callbacks, ChannelOptions, ClientRight, NamespaceId, Namespaces,
};
use crate::message::{Actor, ChannelName, Refusal, Request};

/// What a verdict depends on of the client that asks.
#[derive(Debug)]
pub struct Client<'u, F> {
    /// The user that it acts for; `None` if it is anonymous.
    pub user: Option<&'u str>,
    /// Whether it is subscribed to a channel. Called only if the verdict depends on it, because the answer takes a
    /// walk over all of a client's subscriptions.
    pub is_subscribed: F,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Allow,
    /// It is not done.
    Refuse(Refusal),
    /// The backend decides, or answers.
    Ask(CallbackKind),
}

/// Decides a request. Clients have the rights that the options of its channel give them, depending on their user and on
/// whether they are subscribed to it; the server API has all rights, but nothing is published to the server's own
/// channels. What a channel does not offer is not available, to clients or to the server API.
///
/// Clients do not subscribe to a private channel. One that shows a token for it does so with the rights of the server,
/// once its token is verified.
pub fn decide(
    by: Actor,
    client: Client<'_, impl FnOnce(&ChannelName) -> bool>,
    request: &Request,
    namespaces: &Namespaces,
    callbacks: &Callbacks,
) -> Verdict {
    match callback_of(by, request, namespaces, callbacks) {
        Ok(None) => {}
        Ok(Some(callback)) => return Verdict::Ask(callback),
        Err(refusal) => return Verdict::Refuse(refusal),
    }
    match judge(by, client, request, namespaces) {
        Ok(()) => Verdict::Allow,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

/// Whether clients may use a channel of this name, whatever gives them the right to it.
pub fn check_name(channel: &ChannelName, namespaces: &Namespaces) -> Result<(), Refusal> {
    namespace_of(Actor::Client, channel, namespaces).map(drop)
}

/// The callback that decides about a request of a client, or answers it. The client then needs no right, but the name
/// of its channel has to be valid.
fn callback_of(
    by: Actor,
    request: &Request,
    namespaces: &Namespaces,
    callbacks: &Callbacks,
) -> Result<Option<CallbackKind>, Refusal> {
    let (kind, channel) = match request {
        Request::Subscribe { channel, .. } => (CallbackKind::Subscribe, channel),
        Request::Publish { channel: Some(channel), .. } => (CallbackKind::Publish, channel),
        Request::Call { .. } => {
            let asks = by == Actor::Client && callbacks.asks(CallbackKind::Rpc);
            return Ok(asks.then_some(CallbackKind::Rpc));
        }
        _ => return Ok(None),
    };
    if by != Actor::Client || !callbacks.asks(kind) {
        return Ok(None);
    }
    let options = namespaces.options(namespace_of(by, channel, namespaces)?);
    let asks = match kind {
        CallbackKind::Subscribe => {
            let is_open = matches!(access(by, channel, options), Access::Open);
            is_open && options.callback_subscribe
        }
        _ => options.callback_publish,
    };
    Ok(asks.then_some(kind))
}

fn judge(
    by: Actor,
    client: Client<'_, impl FnOnce(&ChannelName) -> bool>,
    request: &Request,
    namespaces: &Namespaces,
) -> Result<(), Refusal> {
    let may = |right: ClientRight, channel: &ChannelName| {
        let has_right = || right.is_held(client.user.is_some(), || (client.is_subscribed)(channel));
        let is_allowed = by == Actor::Server || has_right();
        is_allowed.then_some(()).ok_or(Refusal::PermissionDenied)
    };
    let only_server = (by == Actor::Server).then_some(()).ok_or(Refusal::PermissionDenied);
    let options_of =
        |channel| namespace_of(by, channel, namespaces).map(|id| namespaces.options(id));
    let of_control = |channel: Option<_>| channel.map_or(Ok(()), |name| options_of(name).map(drop));
    match request {
        // Every client may connect, and a client may always end what it has.
        Request::Connect(_)
        | Request::Refresh { .. }
        | Request::RefreshSubscription { .. }
        | Request::Unsubscribe { .. } => Ok(()),
        Request::Subscribe { channel, .. } => {
            let options = options_of(channel)?;
            match access(by, channel, options) {
                Access::Open => may(options.allow_subscribe, channel),
                Access::Private => Err(Refusal::PermissionDenied),
                Access::Users(users) => {
                    let is_named =
                        client.user.is_some_and(|user| users.split(',').any(|it| it == user));
                    is_named.then_some(()).ok_or(Refusal::PermissionDenied)
                }
            }
        }
        Request::Publish { channel: None, .. } => Err(Refusal::NotSubscribed),
        Request::Publish { channel: Some(channel), .. } => {
            let id = namespace_of(by, channel, namespaces)?;
            may(namespaces.options(id).allow_publish, channel)?;
            if namespaces.is_own(id) { Err(Refusal::PermissionDenied) } else { Ok(()) }
        }
        Request::History { channel, .. } => {
            let options = options_of(channel)?;
            offers(options.history_size > 0)?;
            may(options.allow_history, channel)
        }
        Request::HistoryRemove { channel } => {
            let options = options_of(channel)?;
            only_server?;
            offers(options.history_size > 0)
        }
        Request::Presence { channel, .. } => {
            let options = options_of(channel)?;
            offers(options.presence)?;
            may(options.allow_presence, channel)
        }
        Request::Channels { .. } => only_server,
        // A procedure is the backend's, and only clients call it.
        Request::Call { .. } => Err(Refusal::NotAvailable),
        Request::Control { control, .. } => {
            only_server.and_then(|()| of_control(control.channel()))
        }
        Request::ControlUser(command) => {
            only_server.and_then(|()| of_control(command.control.channel()))
        }
        Request::Connections { .. } | Request::Block { .. } => only_server,
    }
}

/// What decides about a subscription.
enum Access<'c> {
    /// The right to subscribe.
    Open,
    /// A token, which the client does not have.
    Private,
    /// The users in the name of the channel, separated by commas.
    Users(&'c str),
}

/// What decides about a subscription to a channel.
fn access<'c>(by: Actor, channel: &'c ChannelName, options: &ChannelOptions) -> Access<'c> {
    if by == Actor::Server {
        return Access::Open;
    }
    if Namespaces::is_private(channel.as_str()) {
        return Access::Private;
    }
    let users = channel.as_str().rsplit_once('#').filter(|_| options.allow_user_limited_channels);
    users.map_or(Access::Open, |(_, users)| Access::Users(users))
}

/// The namespace of a channel, if there may be a channel of this name.
fn namespace_of(
    by: Actor,
    channel: &ChannelName,
    namespaces: &Namespaces,
) -> Result<NamespaceId, Refusal> {
    let (name, is_client) = (channel.as_str(), by == Actor::Client);
    if is_client && !namespaces.is_short_enough(name) {
        return Err(Refusal::ChannelInvalid);
    }
    let id = namespaces.find(name).ok_or(Refusal::NamespaceUnknown)?;
    match &namespaces.options(id).channel_regex {
        Some(regex) if is_client && !regex.is_match(name) => Err(Refusal::ChannelInvalid),
        _ => Ok(id),
    }
}

fn offers(does: bool) -> Result<(), Refusal> {
    does.then_some(()).ok_or(Refusal::NotAvailable)
}

#[cfg(test)]
mod tests;
