//! The identity of a client: what the token that it shows leads to, in each request that may carry one.

use std::sync::Arc;
use std::time::Duration;

use super::token::{ConnectionClaims, KeySet, TokenError, Tokens};
use crate::config::Config;
use crate::message::{ChannelName, ClientId, Identity, Refusal, SubscriptionOptions, Token};

/// How clients prove who they are.
#[derive(Clone, Debug)]
pub struct Authentication {
    tokens: Tokens,
    allows_anonymous: bool,
    /// How long a client that may show a new token stays after its token expired.
    close_delay: Duration,
    /// What precedes the user in the name of its personal channel; `None` if users have none.
    personal_prefix: Option<String>,
}

/// The client that a request is from.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The id of the client.
    pub client: ClientId,
    /// The user that it acts for; `None` if it is anonymous.
    pub user: Option<&'a str>,
}

/// A client that is not who it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What is answered.
    pub refusal: Refusal,
    /// What is wrong with its token.
    pub cause: Option<TokenError>,
}

impl Authentication {
    /// What a checked configuration says about it.
    pub fn new(config: &Config) -> Self {
        Self {
            tokens: Tokens::new(config),
            allows_anonymous: config.allows_anonymous(),
            close_delay: config.expired_close_delay,
            personal_prefix: config.personal.prefix(),
        }
    }

    /// The channel that every client of this user is subscribed to, if there is one.
    pub fn personal_channel(&self, user: Option<&str>) -> Result<Option<ChannelName>, Refusal> {
        let (Some(prefix), Some(user)) = (&self.personal_prefix, user) else { return Ok(None) };
        let name = ChannelName::new(&format!("{prefix}{user}"));
        name.map(Some).map_err(|_| Refusal::ChannelInvalid)
    }

    /// Takes keys that were fetched. `now` is in seconds since 1970.
    pub fn set_keys(&mut self, set: &Arc<KeySet>, now: u64) {
        self.tokens.set_keys(set, now);
    }

    /// Takes the keys that were fetched for the settings before these.
    pub fn adopt_keys(&mut self, before: &Self) {
        self.tokens.adopt_keys(&before.tokens);
    }

    /// Whether tokens are verified. Otherwise they are ignored: every client is anonymous.
    pub fn verifies_tokens(&self) -> bool {
        self.tokens.has_keys()
    }

    /// Whether a client may connect of which nothing is known.
    pub fn allows_anonymous(&self) -> bool {
        self.allows_anonymous
    }

    /// Whether every client is anonymous, and may be: nothing has to be asked of it.
    pub fn is_open(&self) -> bool {
        self.allows_anonymous && !self.verifies_tokens()
    }

    /// A client connects. `now` is in seconds since 1970.
    pub fn connect(&self, token: Option<&Token>, now: u64) -> Result<ConnectionClaims, Rejection> {
        match token {
            _ if self.is_open() => Ok(ConnectionClaims::default()),
            None if self.allows_anonymous => Ok(ConnectionClaims::default()),
            None => Err(Refusal::TokenMissing.into()),
            Some(token) => Ok(self.tokens.verify_connection(token.reveal(), now)?),
        }
    }

    /// A client that acts for `user` goes on with a new token. `None` where tokens are ignored: it stays who it is.
    pub fn refresh(
        &self,
        token: &Token,
        user: Option<&str>,
        now: u64,
    ) -> Result<Option<ConnectionClaims>, Rejection> {
        if self.is_open() {
            return Ok(None);
        }
        let claims = self.tokens.verify_connection(token.reveal(), now).map_err(|error| {
            let rejection = Rejection::from(error);
            match rejection.refusal {
                Refusal::TokenExpired => {
                    Rejection { refusal: Refusal::ConnectionExpired, ..rejection }
                }
                _ => rejection,
            }
        })?;
        match claims.identity.user.as_deref() == user {
            true => Ok(Some(claims)),
            false => Err(TokenError::Holder.into()),
        }
    }

    /// A client subscribes to a channel with a token, or prolongs its subscription.
    pub fn subscription(
        &self,
        token: &Token,
        channel: &ChannelName,
        holder: Holder<'_>,
        now: u64,
    ) -> Result<SubscriptionOptions, Rejection> {
        let claims = self.tokens.verify_subscription(token.reveal(), now)?;
        let is_of_client = |client: &String| client.parse() == Ok(holder.client);
        let is_of_holder = claims.channel == *channel
            && claims.user.as_deref() == holder.user
            && claims.client.as_ref().is_none_or(is_of_client);
        match is_of_holder {
            true => Ok(claims.options),
            false => Err(TokenError::Holder.into()),
        }
    }

    /// When a connection of this identity is closed. A client that can show a new token has some time for that.
    pub fn closes_at(&self, identity: &Identity, may_refresh: bool) -> Option<u64> {
        let delay = if may_refresh { self.close_delay.as_secs() } else { 0 };
        identity.expires_at.map(|at| at.saturating_add(delay))
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, cause: None }
    }
}

impl From<TokenError> for Rejection {
    fn from(cause: TokenError) -> Self {
        let refusal = match cause {
            // The client comes back, when the key may be known.
            TokenError::KeyPending => Refusal::BackendUnavailable,
            _ if cause.is_expired() => Refusal::TokenExpired,
            _ => Refusal::TokenInvalid,
        };
        Self { refusal, cause: Some(cause) }
    }
}
