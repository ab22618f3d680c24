//! The types that all rooms share.
//!
//! **What it is.** Plain data: ids of nodes, workers, sessions and clients, identities of clients ([`Identity`]),
//! channel names, payloads, positions, what a channel delivers ([`Item`]), requests ([`Request`]) and replies
//! ([`Reply`]), the reasons for which a connection is closed ([`CloseReason`]) and what is sent to its client
//! ([`Disconnect`]).
//!
//! **In and out.** These types are what rooms pass to each other. There is no logic here beyond validation and
//! formatting.
//!
//! **Always true.** A [`ChannelName`] is 1..=255 bytes of UTF-8 without control characters. A [`Publication`] is
//! immutable once it is numbered.
//!
//! **Must not know.** Any other room.

mod channel_name;
mod channel_pattern;
mod client_control;
mod disconnect;
mod forwarded_headers;
mod identity;
mod item;
mod login;
mod node;
mod publication;
mod publish_options;
mod request;
mod subscription_form;
mod subscription_options;
mod tags;
mod tags_filter;
mod transport_kind;

pub use channel_name::{CHANNEL_NAME_BYTES_MAX, ChannelName, ChannelNameError};
pub use channel_pattern::{CHANNEL_PATTERN_BYTES_MAX, ChannelPattern, ChannelPatternError};
pub use client_control::{ConnectionInfo, Control, Selection, UserCommand};
pub use disconnect::{CloseReason, DISCONNECT_TEXT_BYTES_MAX, Disconnect};
pub use forwarded_headers::ForwardedHeaders;
pub use identity::{
    ClientId, ClientIdError, ClientInfo, INFO_BYTES_MAX, Identity, IdentityError, NodeId,
    SessionId, USER_BYTES_MAX, WorkerId,
};
pub use item::Item;
pub use login::{Login, Token};
pub use node::NodeInfo;
pub use publication::{Epoch, Payload, PayloadKind, Position, PositionError, Publication};
pub use publish_options::{PublishOptions, Version};
pub use request::{
    Actor, BackendError, HistoryQuery, Origin, Publications, Recovery, Refusal, Reply, Request,
    RequestId, ServerSubscription, SessionRequest, Ticket, Welcome,
};
pub use subscription_form::{Rendition, SubscriptionForm, SubscriptionWish};
pub use subscription_options::{Overrides, Renewal, SubscriptionOptions};
pub use tags::{EVENT, EventError, Tags};
pub use tags_filter::{FilterError, FilterNode, TagsFilter};
pub use transport_kind::TransportKind;
