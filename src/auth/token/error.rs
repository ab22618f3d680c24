//! Why tokens are rejected.

use std::fmt;

/// Why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is longer than [`TOKEN_BYTES_MAX`](crate::config::limits::TOKEN_BYTES_MAX).
    TooLarge,
    /// It is not three parts in base64url, or its header is not one.
    Malformed,
    /// Its header demands an extension (`crit`).
    Unsupported,
    /// Its header names no algorithm of the key: `none`, for example.
    Algorithm,
    /// No key is for it.
    Key,
    /// No key is for it yet: those that are published at a URL are fetched once more.
    KeyPending,
    /// Its signature is not by a key that may have signed it.
    Signature,
    /// A claim is missing, is there twice, is of the wrong type, or has a value that is impossible.
    Claims,
    /// It is not for this server.
    Audience,
    /// It is not by the issuer that this server trusts.
    Issuer,
    /// It is for another user, channel or client than the one that shows it.
    Holder,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
}

impl TokenError {
    /// Every reason, in the order of [`Self::LABELS`].
    pub const ALL: [Self; 13] = [
        Self::TooLarge,
        Self::Malformed,
        Self::Unsupported,
        Self::Algorithm,
        Self::Key,
        Self::KeyPending,
        Self::Signature,
        Self::Claims,
        Self::Audience,
        Self::Issuer,
        Self::Holder,
        Self::Expired,
        Self::NotYetValid,
    ];

    /// The labels that metrics have for the reasons.
    pub const LABELS: &'static [&'static str] = &[
        "too_large",
        "malformed",
        "unsupported",
        "algorithm",
        "key",
        "key_pending",
        "signature",
        "claims",
        "audience",
        "issuer",
        "holder",
        "expired",
        "not_yet_valid",
    ];

    /// The label of this reason.
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }

    /// Whether the client should get a new token (error 109 of the command protocol), rather than give up (code 3500).
    /// So it should with one that is not valid yet, as with Centrifugo: its issuer's clock is ahead.
    pub fn is_expired(self) -> bool {
        matches!(self, Self::Expired | Self::NotYetValid)
    }
}

/// A sentence without anything that the token contains.
impl fmt::Display for TokenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLarge => "the token is too large",
            Self::Malformed => "the token is malformed",
            Self::Unsupported => "the token demands an extension",
            Self::Algorithm => "the token names an algorithm that its key is not for",
            Self::Key => "no key is for the token",
            Self::KeyPending => "the key of the token is not known yet",
            Self::Signature => "the signature of the token is wrong",
            Self::Claims => "the claims of the token are invalid",
            Self::Audience => "the token is for another audience",
            Self::Issuer => "the token is by another issuer",
            Self::Holder => "the token is for another user, channel or client",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
        })
    }
}

impl std::error::Error for TokenError {}
