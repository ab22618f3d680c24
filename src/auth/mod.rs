//! Rights: who may do what.
//!
//! **What it is.** [`decide()`], a pure function between what a conversation asks and the hub that does it. A request
//! is allowed or refused at once, or the backend is asked: then the worker has it wait for the answer.
//!
//! [`ApiKeys`] are the keys of the server API: the transport asks them what a request may do that shows one.
//! [`PrefixTable`] counts the connections of each network prefix: the worker asks it whether one more is allowed.
//! [`ClientRates`] does the same for the requests of each client, and [`UserTable`] for the connections of each user.
//!
//! [`SessionKey`] names the sessions whose commands come in requests of their own.
//!
//! [`Tokens`] verifies the tokens of clients: their signature, and what they claim.
//!
//! **In and out.** In: whose rights a request has ([`Actor`](crate::message::Actor)), the request, and the options of
//! all channels. Out: a [`Verdict`].
//!
//! **Always true.** A verdict depends on nothing but the arguments. The hub gets no request that was not allowed here,
//! or by the backend that this asks.
//!
//! **Must not know.** Sessions, sockets, the clock, which transport a request came by.

mod api_keys;
mod authentication;
mod decide;
mod prefixes;
mod rates;
mod session_key;
mod token;
mod users;

pub use api_keys::{ApiGrant, ApiKeys, ApiRefusal};
pub use authentication::{Authentication, Holder, Rejection};
pub use decide::{Client, Verdict, check_name, decide};
pub use prefixes::{Gate, PrefixKey, PrefixLimits, PrefixRefusal, PrefixTable};
pub use rates::{Allowance, ClientRates, Rate, RateLimits, RateVerdict};
pub use session_key::SessionKey;
pub use token::{
    ConnectionClaims, KeySet, KeySetError, SubscriptionClaims, TokenError, Tokens, named_channel,
};
pub use users::{UserKey, UserTable};
