//! What each method asks of the hub.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{ApiCall, Command, Fault, bad_request, refuse_right, right_to, too_many};
use crate::config::limits::{
    API_REQUESTS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, PAYLOAD_DEPTH_MAX, PRESENCE_LIST_MAX,
    TAGS_BYTES_MAX, TAGS_MAX, VERSION_EPOCH_BYTES_MAX,
};
use crate::message::{
    ChannelName, ChannelPattern, HistoryQuery, Payload, PayloadKind, Position, PublishOptions,
    Request, Tags, Version,
};
use crate::protocol::api_json::{
    ApiMethod, Channels, History, List, Nothing, OfChannel, ParametersError, Publish, Since, Text,
    decode,
};
use crate::protocol::command::CommandError;
use crate::protocol::json::{Object, exceeds_depth, kind_of_data};
use crate::transport::context::{Context, Output, Question};

impl ApiCall {
    /// Adds a command, which is refused if the key does not allow it. Nothing is added if its parameters are invalid.
    pub(super) fn command(
        &mut self,
        method: ApiMethod,
        parameters: &str,
        context: &mut Context<'_>,
    ) -> Result<(), ParametersError> {
        if !self.grant.allows(right_to(method)) {
            self.refuse_command(Some(method), refuse_right(context));
            return Ok(());
        }
        let asked = match method {
            ApiMethod::Publish => self.publish(decode(parameters)?, context),
            ApiMethod::Broadcast => self.broadcast(decode(parameters)?, context),
            ApiMethod::Subscribe
            | ApiMethod::Unsubscribe
            | ApiMethod::Disconnect
            | ApiMethod::Refresh => self.control(method, decode(parameters)?, context),
            ApiMethod::Connections => self.connections(decode(parameters)?, context),
            ApiMethod::BlockUser | ApiMethod::UnblockUser => {
                self.block(method, decode(parameters)?, context)
            }
            ApiMethod::History => self.history(decode(parameters)?, context),
            ApiMethod::HistoryRemove => self.of_channel(
                method,
                decode(parameters)?,
                |channel| Request::HistoryRemove { channel },
                context,
            ),
            ApiMethod::Presence => {
                self.presence(method, decode(parameters)?, PRESENCE_LIST_MAX, context)
            }
            ApiMethod::PresenceStats => self.presence(method, decode(parameters)?, 0, context),
            ApiMethod::Channels => {
                let Channels { pattern } = decode(parameters)?;
                let pattern = ChannelPattern::new(pattern.as_ref().map_or("", |Text(text)| text));
                match pattern.map(Arc::new) {
                    Ok(pattern) => self.ask(method, context, Request::Channels { pattern }),
                    Err(error) => Err(bad_request(format!("pattern: {error}"))),
                }
            }
            ApiMethod::Info => {
                let Nothing {} = decode(parameters)?;
                self.slot(method);
                if !std::mem::replace(&mut self.asks_info, true) {
                    context.outputs.push(Output::Ask(Question::NodeInfo));
                }
                Ok(())
            }
            ApiMethod::Rpc
            | ApiMethod::MapPublish
            | ApiMethod::MapRemove
            | ApiMethod::MapReadState
            | ApiMethod::MapReadStream
            | ApiMethod::MapStats
            | ApiMethod::MapClear
            | ApiMethod::SharedPollPublish => Err(CommandError::NotAvailable.into()),
        };
        match asked {
            Ok(()) if method != ApiMethod::Broadcast => {
                let last = self.slots.len() - 1;
                let slots = last..last + 1;
                let command = Command { id: 0, method: Some(method), slots, is_spread: false };
                self.commands.push(command);
            }
            // It added itself.
            Ok(()) => {}
            Err(fault) => self.refuse_command(Some(method), fault),
        }
        Ok(())
    }

    fn publish(
        &mut self,
        publish: Publish<'_, API_REQUESTS_MAX>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let Some(channel) = &publish.channel else { return Err(missing("channel")) };
        if publish.channels.is_some() {
            return Err(bad_request("channels: publish has one channel, broadcast has several"));
        }
        let channel = self.channel(ApiMethod::Publish, channel, context)?;
        let payload = payload_of(&publish)?;
        let options = options_of(&publish)?;
        self.ask(
            ApiMethod::Publish,
            context,
            Request::Publish { channel: Some(channel), payload, options },
        )
    }

    fn broadcast(
        &mut self,
        publish: Publish<'_, API_REQUESTS_MAX>,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let Some(List { items: channels, is_too_long }) = &publish.channels else {
            return Err(missing("channels"));
        };
        if publish.channel.is_some() {
            return Err(bad_request("channel: broadcast has channels"));
        }
        if channels.is_empty() {
            return Err(bad_request("channels: the list is empty"));
        }
        if *is_too_long || self.slots.len() + channels.len() > API_REQUESTS_MAX {
            return Err(too_many());
        }
        let payload = payload_of(&publish)?;
        let options = options_of(&publish)?;
        let first = self.slots.len();
        for channel in channels {
            let channel = match self.channel(ApiMethod::Publish, channel, context) {
                Ok(channel) => channel,
                Err(fault) => {
                    let index = self.slot(ApiMethod::Publish);
                    self.fill_error(index, &fault);
                    continue;
                }
            };
            self.ask(
                ApiMethod::Publish,
                context,
                Request::Publish {
                    channel: Some(channel),
                    payload: payload.clone(),
                    options: options.clone(),
                },
            )?;
        }
        self.commands.push(Command {
            id: 0,
            method: Some(ApiMethod::Broadcast),
            slots: first..self.slots.len(),
            is_spread: true,
        });
        Ok(())
    }

    fn history(&mut self, parameters: History<'_>, context: &mut Context<'_>) -> Result<(), Fault> {
        let History { channel, limit, since, reverse } = parameters;
        let channel = self.channel(ApiMethod::History, &channel, context)?;
        let since = position_of(since)?;
        let limit = match limit.unwrap_or(0) {
            ..0 => None,
            limit => Some(u32::try_from(limit).unwrap_or(u32::MAX)),
        };
        let query = HistoryQuery { since, limit, reverse: reverse.unwrap_or(false) };
        if query.is_before_all() {
            return Err(bad_request("since: nothing comes before 0"));
        }
        self.ask(ApiMethod::History, context, Request::History { channel, query })
    }

    fn presence(
        &mut self,
        method: ApiMethod,
        parameters: OfChannel<'_>,
        list_max: u32,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        self.of_channel(
            method,
            parameters,
            |channel| Request::Presence { channel, list_max },
            context,
        )
    }

    fn of_channel(
        &mut self,
        method: ApiMethod,
        parameters: OfChannel<'_>,
        request: impl FnOnce(ChannelName) -> Request,
        context: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let channel = self.channel(method, &parameters.channel, context)?;
        self.ask(method, context, request(channel))
    }
}

/// An epoch of another server is refused at once.
pub(super) fn position_of(since: Option<Object<Since<'_>>>) -> Result<Option<Position>, Fault> {
    match since.map(|Object(since)| since.position()) {
        Some(Position::NOWHERE) => Err(CommandError::UnrecoverablePosition.into()),
        since => Ok(since),
    }
}

/// JSON stays as it was written, in base64 too. What is not JSON in base64 is binary to every subscriber.
fn payload_of<const N: usize>(publish: &Publish<'_, N>) -> Result<Payload, Fault> {
    let Publish { data, b64data, tags, .. } = publish;
    let mut payload = match (b64data.as_ref().filter(|text| !text.0.is_empty()), data) {
        (Some(Text(text)), _) => {
            let bytes = STANDARD.decode(text.as_bytes());
            let bytes = bytes.map_err(|error| bad_request(format!("b64data: {error}")))?;
            Payload::new(kind_of_data(&bytes, PAYLOAD_DEPTH_MAX), bytes)
        }
        (None, Some(data)) if exceeds_depth(data.get().as_bytes(), PAYLOAD_DEPTH_MAX) => {
            return Err(bad_request(format!("data: it nests deeper than {PAYLOAD_DEPTH_MAX}")));
        }
        (None, Some(data)) => {
            Payload::new(PayloadKind::Json, Bytes::copy_from_slice(data.get().as_bytes()))
        }
        (None, None) => return Err(missing("data")),
    };
    payload.tags = tags_of(tags.as_ref())?;
    Ok(payload)
}

fn tags_of(tags: Option<&BTreeMap<String, String>>) -> Result<Option<Arc<Tags>>, Fault> {
    let Some(tags) = tags else { return Ok(None) };
    let bytes: usize = tags.iter().map(|(name, text)| name.len() + text.len()).sum();
    if tags.len() > TAGS_MAX || bytes > TAGS_BYTES_MAX {
        return Err(bad_request(format!(
            "tags: there are at most {TAGS_MAX}, with {TAGS_BYTES_MAX} bytes together"
        )));
    }
    let tags = Tags::new(tags.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    tags.map_err(|error| bad_request(format!("tags: {error}")))
}

/// What is asked for beside the payload, if anything is.
fn options_of<const N: usize>(
    publish: &Publish<'_, N>,
) -> Result<Option<Arc<PublishOptions>>, Fault> {
    let Publish { idempotency_key, version, version_epoch, exclude, .. } = publish;
    let key = short(idempotency_key.as_ref(), "idempotency_key", IDEMPOTENCY_KEY_BYTES_MAX)?;
    let epoch = short(version_epoch.as_ref(), "version_epoch", VERSION_EPOCH_BYTES_MAX)?;
    let options = PublishOptions {
        idempotency_key: (!key.is_empty()).then(|| key.into()),
        version: version
            .and_then(NonZeroU64::new)
            .map(|number| Version { number, epoch: epoch.into() }),
        exclude: exclude
            .as_ref()
            .filter(|Text(client)| !client.is_empty())
            .map(|Text(client)| client.parse())
            .transpose()
            .map_err(|_| bad_request("exclude: not the id of a client"))?,
        delta: publish.delta == Some(true),
        skip_history: publish.skip_history == Some(true),
    };
    Ok((options != PublishOptions::default()).then(|| options.into()))
}

/// A text of limited length; empty if it is absent.
fn short<'t>(text: Option<&'t Text<'_>>, member: &str, bytes_max: usize) -> Result<&'t str, Fault> {
    let text = text.map_or("", |Text(text)| text);
    if text.len() > bytes_max {
        return Err(bad_request(format!("{member}: it has at most {bytes_max} bytes")));
    }
    Ok(text)
}

pub(super) fn missing(field: &str) -> Fault {
    bad_request(format!("{field}: it is needed"))
}

pub(super) fn not_offered(what: &'static str) -> Fault {
    Fault { error: CommandError::NotAvailable, detail: Some(what.into()) }
}
