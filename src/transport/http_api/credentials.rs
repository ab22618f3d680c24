//! The token that a request shows.
//!
//! It is looked for first where programs put it on purpose: in `Authorization`, among the subprotocols of a WebSocket,
//! and in the query if that is allowed. A cookie comes last, because browsers send it with the requests of every page:
//! it counts only where the page is known to be one of those that may use the server.

use std::borrow::Cow;

use super::error::HttpError;
use crate::message::{Actor, Login, Refusal, Request, Ticket, Token};
use crate::protocol::http1::{Head, HttpFault, query_pairs};
use crate::transport::context::Context;
use crate::transport::settings::{Origins, TransportSettings};

/// The token that a request shows; `None` as well where clients do not have to say who they are.
pub(super) fn token_of(
    head: &Head<'_>,
    settings: &TransportSettings,
) -> Result<Option<Token>, HttpFault> {
    let credentials = &settings.credentials;
    if !credentials.are_taken {
        return Ok(None);
    }
    let mut text = in_authorization(head).or_else(|| in_subprotocols(head)).map(Cow::Borrowed);
    if text.is_none() && credentials.in_query {
        text = in_query(head)?;
    }
    let text = text.or_else(|| in_cookie(head, settings).map(Cow::Borrowed));
    Ok(text.as_deref().and_then(Token::new))
}

/// Refuses a request that has to show a token and does not.
pub(super) fn check_shown(
    token: Option<&Token>,
    settings: &TransportSettings,
) -> Result<(), HttpError> {
    match token.is_some() || !settings.credentials.are_required {
        true => Ok(()),
        false => Err(HttpError::refused(Refusal::TokenMissing)),
    }
}

/// Asks who the client is before anything else is asked for it.
pub(super) fn log_in(token: Option<Token>, context: &mut Context<'_>) {
    let login = Login { token, ..Login::default() };
    context.request(Some(Ticket::FIRST), Actor::Client, Request::Connect(Box::new(login)));
}

/// `Authorization: Bearer TOKEN` (RFC 6750 2.1). Other schemes are those of proxies, or of API keys.
fn in_authorization<'h>(head: &Head<'h>) -> Option<&'h str> {
    head.header("authorization").find_map(|value| {
        let (scheme, token) = value.split_at_checked(BEARER.len())?;
        scheme.eq_ignore_ascii_case(BEARER).then(|| text_of(token.trim_ascii()))
    })
}

/// The item `bearer.TOKEN` of a WebSocket's subprotocols: scripts of browsers can set no header.
fn in_subprotocols<'h>(head: &Head<'h>) -> Option<&'h str> {
    head.header_list("sec-websocket-protocol")
        .find_map(|name| name.strip_prefix(BEARER_SUBPROTOCOL.as_bytes()).map(text_of))
}

/// The parameter `token`.
fn in_query<'h>(head: &Head<'h>) -> Result<Option<Cow<'h, str>>, HttpFault> {
    let mut pairs = query_pairs(head.query);
    pairs.find(|pair| pair.name == "token").map(|pair| pair.value()).transpose()
}

/// The cookie of the configuration, if a page of a listed origin asks. Browsers send no `Origin` with a page's GET
/// requests to its own origin, but `Sec-Fetch-Site`, which no script can set (W3C Fetch Metadata 2.3).
fn in_cookie<'h>(head: &Head<'h>, settings: &TransportSettings) -> Option<&'h str> {
    let name = settings.credentials.cookie.as_deref()?;
    let Origins::Listed(list) = settings.origins() else { return None };
    let is_listed = |origin: &[u8]| list.iter().any(|listed| listed.as_bytes() == origin);
    let mut origins = head.header("origin").peekable();
    let is_trusted = match origins.peek() {
        Some(_) => origins.all(is_listed),
        None => {
            let mut sites = head.header("sec-fetch-site");
            sites.next() == Some(b"same-origin") && sites.next().is_none()
        }
    };
    let pairs = || head.header("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    let value = |pair: &'h [u8]| {
        let (found, value) = pair.trim_ascii().split_at_checked(name.len())?;
        value.strip_prefix(b"=").filter(|_| found == name.as_bytes())
    };
    is_trusted.then(|| pairs().find_map(value).map(text_of)).flatten()
}

/// The text of a token. Bytes that are not text cannot be a token, and are refused like another server's.
fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or(NO_TOKEN)
}

const BEARER: &[u8] = b"bearer ";

/// What precedes the token in the item of a WebSocket's subprotocols.
pub(super) const BEARER_SUBPROTOCOL: &str = "bearer.";

/// No server has issued it.
const NO_TOKEN: &str = "?";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::protocol::http1::{HeadLimits, parse_head};

    fn settings(set: impl FnOnce(&mut Config)) -> TransportSettings {
        let mut config = Config {
            hmac_secret: Some("secret".into()),
            cookie: Some("session".to_owned()),
            origins: vec!["https://a.example".to_owned()],
            ..Config::default()
        };
        set(&mut config);
        TransportSettings::new(&config)
    }

    #[track_caller]
    fn shown(settings: &TransportSettings, query: &str, headers: &str) -> Option<String> {
        let text = format!("GET /ws?{query} HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n");
        let head = parse_head(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        token_of(&head, settings).unwrap().map(|token| token.reveal().to_owned())
    }

    #[test]
    fn a_token_is_found_where_programs_and_browsers_put_it() {
        let settings = settings(|config| config.token_in_query = true);
        for (query, headers, expected) in [
            ("", "", None),
            ("", "Authorization: Bearer t\r\n", Some("t")),
            ("", "authorization: bEARER   t \r\n", Some("t")),
            ("", "Authorization: Basic t\r\nAuthorization: Bearer t\r\n", Some("t")),
            ("", "Authorization: Bearer\r\n", None),
            ("", "Authorization: Bearer \r\n", None),
            ("", "Authorization: apikey t\r\n", None),
            ("", "Authorization: Bearer t\u{e9}\r\n", Some("t\u{e9}")),
            ("", "Sec-WebSocket-Protocol: chat, bearer.a.b.c\r\n", Some("a.b.c")),
            ("", "Sec-WebSocket-Protocol: chat\r\n", None),
            ("", "Sec-WebSocket-Protocol: bearer.\r\n", None),
            ("token=a%2eb", "", Some("a.b")),
            ("token=", "", None),
            ("tokens=a", "", None),
            ("", "Origin: https://a.example\r\nCookie: x=y; session=t; z=1\r\n", Some("t")),
            (
                "",
                "Origin: https://a.example\r\nCookie: sessions=t\r\nCookie: session=u\r\n",
                Some("u"),
            ),
            ("", "Origin: https://a.example\r\nCookie: session=\r\n", None),
            ("", "Sec-Fetch-Site: same-origin\r\nCookie: session=t\r\n", Some("t")),
            // Another page, or a program.
            ("", "Origin: https://b.example\r\nCookie: session=t\r\n", None),
            ("", "Origin: null\r\nCookie: session=t\r\n", None),
            (
                "",
                "Origin: https://a.example\r\nOrigin: https://b.example\r\nCookie: session=t\r\n",
                None,
            ),
            (
                "",
                "Origin: https://b.example\r\nSec-Fetch-Site: same-origin\r\nCookie: session=t\r\n",
                None,
            ),
            ("", "Sec-Fetch-Site: cross-site\r\nCookie: session=t\r\n", None),
            (
                "",
                "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\nCookie: session=t\r\n",
                None,
            ),
            ("", "Cookie: session=t\r\n", None),
            // The first of these places counts.
            (
                "token=q",
                "Authorization: Bearer t\r\nSec-WebSocket-Protocol: bearer.s\r\nOrigin: https://a.example\r\n\
                 Cookie: session=c\r\n",
                Some("t"),
            ),
            ("token=q", "Origin: https://a.example\r\nCookie: session=c\r\n", Some("q")),
        ] {
            assert_eq!(shown(&settings, query, headers).as_deref(), expected, "{query} {headers}");
        }
    }

    #[test]
    fn a_place_that_is_not_configured_is_not_looked_at() {
        let cookie = "Origin: https://a.example\r\nCookie: session=t\r\n";
        assert_eq!(shown(&settings(|_| {}), "token=t", ""), None);
        assert_eq!(shown(&settings(|config| config.cookie = None), "", cookie), None);
        for any in [Vec::new(), vec!["*".to_owned()]] {
            assert_eq!(shown(&settings(|config| config.origins = any), "", cookie), None);
        }
        let open = settings(|config| config.hmac_secret = None);
        assert_eq!(shown(&open, "", "Authorization: Bearer t\r\n"), None);
    }
}
