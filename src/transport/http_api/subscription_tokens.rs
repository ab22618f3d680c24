//! The tokens for channels that a request shows: each is the right to subscribe to one of the channels it names.

use std::borrow::Cow;

use super::error::HttpError;
use crate::auth::named_channel;
use crate::message::{ChannelName, Token};
use crate::protocol::http1::{Head, HttpFault, query_pairs};
use crate::transport::settings::TransportSettings;

/// The token for each of a request's channels.
#[derive(Debug, Default)]
pub(super) struct SubscriptionTokens(
    /// In the order of the channels; none without any token.
    Vec<Option<Token>>,
);

impl SubscriptionTokens {
    /// Reads the tokens of a request for these channels. They are not verified here.
    pub(super) fn of(
        head: &Head<'_>,
        channels: &[ChannelName],
        settings: &TransportSettings,
    ) -> Result<Result<Self, HttpError>, HttpFault> {
        let mut shown: Vec<Cow<'_, str>> = in_header(head).map(Cow::Borrowed).collect();
        if shown.is_empty() {
            shown.extend(in_subprotocols(head).map(Cow::Borrowed));
        }
        if shown.is_empty() && settings.credentials.in_query {
            for pair in query_pairs(head.query).filter(|pair| pair.name == PARAMETER) {
                shown.push(pair.value()?);
            }
        }
        shown.retain(|token| !token.is_empty());
        Ok(Self::assign(&shown, channels))
    }

    fn assign(shown: &[Cow<'_, str>], channels: &[ChannelName]) -> Result<Self, HttpError> {
        let mut tokens = Vec::new();
        for token in shown {
            // Where one channel is asked for, its token need not be looked into before it is verified.
            let index = match channels {
                [_] => Some(0),
                _ => named_channel(token)
                    .and_then(|named| channels.iter().position(|it| it.as_str() == named)),
            };
            let index = index.ok_or_else(|| invalid("it is for none of the channels"))?;
            tokens.resize(channels.len(), None);
            if tokens[index].is_some() {
                return Err(invalid("there is another one for the same channel"));
            }
            tokens[index] = Token::new(token);
        }
        Ok(Self(tokens))
    }

    /// The token for the channel with this index.
    pub(super) fn get(&self, index: usize) -> Option<Token> {
        self.0.get(index).cloned().flatten()
    }

    /// Bytes of heap that they own.
    pub(super) fn heap_bytes(&self) -> usize {
        let texts = self.0.iter().flatten().map(Token::heap_bytes).sum::<usize>();
        self.0.capacity() * size_of::<Option<Token>>() + texts
    }
}

fn invalid(reason: &str) -> HttpError {
    let message = format!("a token of a subscription: {reason}");
    HttpError::new(400, "subscription_token_invalid", message)
}

/// The header `Subscription-Token`, which is a list.
fn in_header<'h>(head: &Head<'h>) -> impl Iterator<Item = &'h str> {
    head.header_list("subscription-token").map(text_of)
}

/// The items `subscription.TOKEN` of a WebSocket's subprotocols: scripts of browsers can set no header.
fn in_subprotocols<'h>(head: &Head<'h>) -> impl Iterator<Item = &'h str> {
    let items = head.header_list("sec-websocket-protocol");
    items.filter_map(|name| name.strip_prefix(SUBPROTOCOL.as_bytes()).map(text_of))
}

/// Bytes that are not text cannot be a token, and are refused like another server's.
fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("?")
}

/// What precedes the token in the item of a WebSocket's subprotocols.
pub(super) const SUBPROTOCOL: &str = "subscription.";

/// The parameter of a query, if tokens are taken from there.
const PARAMETER: &str = "subscription_token";

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;
    use crate::config::Config;
    use crate::protocol::http1::{HeadLimits, parse_head};

    /// A token for a channel, without a signature.
    fn token(channel: &str) -> String {
        let claims = format!("{{\"channel\":\"{channel}\"}}");
        format!("e30.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    /// The token for each channel, or the status of the refusal.
    #[track_caller]
    fn shown(channels: &[&str], query: &str, headers: &str) -> Result<Vec<Option<String>>, u16> {
        let config = Config { token_in_query: true, ..Config::default() };
        let text = format!("GET /ws?{query} HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n");
        let head = parse_head(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        let channels: Vec<_> = channels.iter().map(|it| ChannelName::new(it).unwrap()).collect();
        let tokens = SubscriptionTokens::of(&head, &channels, &TransportSettings::new(&config));
        let tokens = tokens.unwrap().map_err(|error| error.status)?;
        let text = |index| tokens.get(index).map(|token| token.reveal().to_owned());
        Ok((0..channels.len()).map(text).collect())
    }

    #[test]
    fn each_token_is_for_the_channel_that_it_names() {
        let [a, b, c] = ["a", "b", "c"].map(token);
        let some = |token: &String| Some(token.clone());
        let header = format!("Subscription-Token: {b}, {a}\r\n");
        assert_eq!(shown(&["a", "b"], "", &header), Ok(vec![some(&a), some(&b)]));
        let header = format!("Subscription-Token: {c}\r\nsubscription-token:{a}\r\n");
        assert_eq!(shown(&["a", "b", "c"], "", &header), Ok(vec![some(&a), None, some(&c)]));
        let header = format!("Sec-WebSocket-Protocol: x, subscription.{b},bearer.t\r\n");
        assert_eq!(shown(&["a", "b"], "", &header), Ok(vec![None, some(&b)]));
        let query = format!("subscription_token={b}&subscription_token=&token=t");
        assert_eq!(shown(&["a", "b"], &query, ""), Ok(vec![None, some(&b)]));
        // The first of these places counts.
        assert_eq!(shown(&["a", "b"], &query, &header), Ok(vec![None, some(&b)]));
        let header = format!("Subscription-Token: {a}\r\n{header}");
        assert_eq!(shown(&["a", "b"], &query, &header), Ok(vec![some(&a), None]));
        for headers in ["", "Subscription-Token:\r\n", "Subscription-Token: ,\r\n"] {
            assert_eq!(shown(&["a", "b"], "", headers), Ok(vec![None, None]), "{headers}");
        }
    }

    #[test]
    fn the_token_for_a_single_channel_is_not_looked_into() {
        for text in ["x", &token("b"), "\u{e9}"] {
            let header = format!("Subscription-Token: {text}\r\n");
            assert_eq!(shown(&["a"], "", &header), Ok(vec![Some(text.to_owned())]));
        }
    }

    #[test]
    fn tokens_that_cannot_be_assigned_are_refused() {
        let [a, c] = ["a", "c"].map(token);
        for text in [
            &*c,
            "x",
            "e30.e30.s",
            "e30.W10.s",
            "e30.eyJjaGFubmVsIjo3fQ.s",
            &format!("{a}, {a}"),
            &format!("{a}, {c}"),
        ] {
            let header = format!("Subscription-Token: {text}\r\n");
            assert_eq!(shown(&["a", "b"], "", &header), Err(400), "{text}");
        }
        assert_eq!(shown(&["a"], "", &format!("Subscription-Token: {a}, {a}\r\n")), Err(400));
    }
}
