//! The methods that concern connected clients: those of a user, or one by its id.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::commands::{missing, not_offered, position_of};
use super::{ApiCall, Fault, bad_request};
use crate::config::limits::{PAYLOAD_DEPTH_MAX, WHITELIST_MAX};
use crate::message::{
    ClientId, CloseReason, Control, DISCONNECT_TEXT_BYTES_MAX, Disconnect, INFO_BYTES_MAX,
    PayloadKind, Request, Selection, SubscriptionOptions, USER_BYTES_MAX, UserCommand,
};
use crate::protocol::api_json::{
    ApiMethod, BlockUser, Connections, DisconnectParameters, List, OfClient, Text,
};
use crate::protocol::json::{Object, OverrideDocument, exceeds_depth, kind_of_bytes};
use crate::transport::context::Context;

impl ApiCall {
    pub(super) fn control(
        &mut self,
        method: ApiMethod,
        parameters: OfClient<'_, WHITELIST_MAX>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if parameters.user.is_none() && parameters.client.is_none() && parameters.session.is_none()
        {
            return Err(missing("user"));
        }
        let user = parameters.user.as_ref().map(user_of).transpose()?;
        let client = only_client(&parameters)?;
        let members: &[&str] = match method {
            ApiMethod::Subscribe => &[
                "channel",
                "recover_since",
                "expire_at",
                "info",
                "b64info",
                "data",
                "b64data",
                "override",
            ],
            ApiMethod::Unsubscribe => &["channel"],
            ApiMethod::Refresh => &["expired", "expire_at", "info", "b64info"],
            _ => &["whitelist", "disconnect"],
        };
        if let Some(member) = parameters.given().find(|member| !members.contains(member)) {
            return Err(bad_request(format!("{member}: it is a member of another method")));
        }
        if let Some(member) = parameters.not_offered() {
            return Err(not_offered(member));
        }
        let except = whitelist_of(parameters.whitelist.as_ref())?;
        let control = self.control_of(method, parameters, context)?;
        let request = match (client, user) {
            (Some(client), _) if except.contains(&client) => {
                return Err(bad_request("whitelist: it has the only client"));
            }
            // A client that is named may be anyone's, unless a user is named too.
            (Some(client), user) => {
                let user = user.filter(|user| !user.is_empty());
                Request::Control { client, user, control }
            }
            (None, user) => {
                let user = user.unwrap_or_default();
                Request::ControlUser(Box::new(UserCommand { user, except, control }))
            }
        };
        self.ask(method, context, request)
    }

    fn control_of(
        &self,
        method: ApiMethod,
        parameters: OfClient<'_, WHITELIST_MAX>,
        context: &mut Context<'_>,
    ) -> Result<Control, Fault> {
        let OfClient { info, b64info, data, b64data, .. } = &parameters;
        let info = value_of("info", *info, b64info.as_ref())?;
        if info.as_ref().is_some_and(|info| info.len() > INFO_BYTES_MAX) {
            return Err(bad_request(format!("info: it has at most {INFO_BYTES_MAX} bytes")));
        }
        let data = value_of("data", *data, b64data.as_ref())?;
        let expires_at = time_of("expire_at", parameters.expire_at)?;
        let OfClient { channel, recover_since, disconnect, expired, overrides, .. } = parameters;
        match (method, channel) {
            (ApiMethod::Subscribe | ApiMethod::Unsubscribe, None) => Err(missing("channel")),
            (ApiMethod::Subscribe, Some(channel)) => {
                let channel = self.channel(method, &channel, context)?;
                let Object(overrides) = overrides.unwrap_or(Object(OverrideDocument::default()));
                let overrides = overrides.overrides();
                let options =
                    SubscriptionOptions { info, data, expires_at, overrides, ..Default::default() };
                let options = (options != SubscriptionOptions::default()).then(|| options.into());
                Ok(Control::Subscribe { channel, since: position_of(recover_since)?, options })
            }
            (ApiMethod::Unsubscribe, Some(channel)) => {
                Ok(Control::Unsubscribe { channel: self.channel(method, &channel, context)? })
            }
            (ApiMethod::Refresh, _) if expired == Some(true) => {
                Ok(Control::Disconnect(CloseReason::Expired.into()))
            }
            (ApiMethod::Refresh, _) => Ok(Control::Refresh { expires_at, info }),
            _ => Ok(Control::Disconnect(disconnect_of(disconnect)?)),
        }
    }

    pub(super) fn connections(
        &mut self,
        parameters: Connections<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let method = ApiMethod::Connections;
        if let Some(member) = parameters.not_offered() {
            return Err(not_offered(member));
        }
        let with_channels = parameters.channels == Some(true);
        let selection = match (&parameters.user, &parameters.channel) {
            (Some(_), Some(_)) => {
                return Err(bad_request("channel: it is a user or a channel, not both"));
            }
            (Some(user), None) => Selection::User(user_of(user)?),
            (None, Some(channel)) => Selection::Channel(self.channel(method, channel, context)?),
            (None, None) => Selection::All,
        };
        self.ask(method, context, Request::Connections { selection, with_channels })
    }

    pub(super) fn block(
        &mut self,
        method: ApiMethod,
        parameters: BlockUser<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let user = user_of(&parameters.user)?;
        if user.is_empty() {
            return Err(bad_request("user: anonymous clients cannot be blocked"));
        }
        let expires_at = time_of("expire_at", parameters.expire_at)?;
        let until = match method {
            ApiMethod::UnblockUser if expires_at.is_some() => {
                return Err(bad_request("expire_at: it is a member of another method"));
            }
            ApiMethod::UnblockUser => 0,
            _ => expires_at.unwrap_or(u64::MAX),
        };
        self.ask(method, context, Request::Block { user, until })
    }
}

fn user_of(Text(user): &Text<'_>) -> Result<Arc<str>, Fault> {
    match user.len() {
        ..=USER_BYTES_MAX => Ok((&**user).into()),
        _ => Err(bad_request(format!("user: it has at most {USER_BYTES_MAX} bytes"))),
    }
}

/// The only client that is concerned, by its id or its session, which are the same.
fn only_client(parameters: &OfClient<'_, WHITELIST_MAX>) -> Result<Option<ClientId>, Fault> {
    let OfClient { client, session, .. } = parameters;
    let [client, session] = [("client", client), ("session", session)].map(|(member, id)| {
        let Some(Text(id)) = id.as_ref().filter(|Text(id)| !id.is_empty()) else { return Ok(None) };
        let id = id.parse();
        id.map(Some).map_err(|_| bad_request(format!("{member}: not the id of a client")))
    });
    match (client?, session?) {
        (Some(client), Some(session)) if client != session => {
            Err(bad_request("session: it is not that of the client"))
        }
        (client, session) => Ok(client.or(session)),
    }
}

fn whitelist_of(list: Option<&List<Text<'_>, WHITELIST_MAX>>) -> Result<Vec<ClientId>, Fault> {
    let Some(List { items, is_too_long }) = list else { return Ok(Vec::new()) };
    if *is_too_long {
        return Err(bad_request(format!("whitelist: it has at most {WHITELIST_MAX} ids")));
    }
    let ids = items.iter().map(|Text(id)| id.parse());
    let ids: Result<_, _> = ids.collect();
    ids.map_err(|_| bad_request("whitelist: it has what is not the id of a client"))
}

/// A time in seconds since 1970; `None` for 0, which is never.
fn time_of(member: &str, at: Option<i64>) -> Result<Option<u64>, Fault> {
    let at = u64::try_from(at.unwrap_or(0));
    let at = at.map_err(|_| bad_request(format!("{member}: it is before 1970")))?;
    Ok((at > 0).then_some(at))
}

/// A JSON value, or bytes in base64, which are JSON or become a string of base64.
fn value_of(
    member: &str,
    json: Option<&RawValue>,
    base64: Option<&Text<'_>>,
) -> Result<Option<Bytes>, Fault> {
    if let Some(Text(text)) = base64.filter(|text| !text.0.is_empty()) {
        let bytes = STANDARD.decode(text.as_bytes());
        let bytes = bytes.map_err(|error| bad_request(format!("b64{member}: {error}")))?;
        return Ok(Some(match kind_of_bytes(&bytes, PAYLOAD_DEPTH_MAX) {
            PayloadKind::Json => bytes.into(),
            PayloadKind::Text | PayloadKind::Binary => format!("\"{text}\"").into(),
        }));
    }
    let Some(json) = json.map(RawValue::get).filter(|json| *json != "null") else {
        return Ok(None);
    };
    match exceeds_depth(json.as_bytes(), PAYLOAD_DEPTH_MAX) {
        true => Err(bad_request(format!("{member}: it nests deeper than {PAYLOAD_DEPTH_MAX}"))),
        false => Ok(Some(Bytes::copy_from_slice(json.as_bytes()))),
    }
}

/// The code says whether clients come back, of whichever half of the codes: the protocol's, or the operator's own.
fn disconnect_of(
    disconnect: Option<Object<DisconnectParameters<'_>>>,
) -> Result<Disconnect, Fault> {
    let Some(Object(DisconnectParameters { code, reason: text })) = disconnect else {
        return Ok(CloseReason::Forced.into());
    };
    let (reason, code) = match code.unwrap_or(0) {
        0 => (CloseReason::Forced, None),
        code @ (3000..3500 | 4000..4500) => (CloseReason::ForcedToReconnect, Some(code)),
        code @ (3500..4000 | 4500..5000) => (CloseReason::Forced, Some(code)),
        _ => return Err(bad_request("disconnect: a code is from 3000 to 4999")),
    };
    let text = text.map(|Text(text)| text).filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| !Disconnect::is_text(text)) {
        let max = DISCONNECT_TEXT_BYTES_MAX;
        let detail = format!("disconnect: a reason has at most {max} bytes, on one line");
        return Err(bad_request(detail));
    }
    Ok(Disconnect { reason, code, text: text.map(|text| (*text).into()) })
}
