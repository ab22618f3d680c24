//! One call of the server API: parameters become requests of the hub, its replies become results, all at once.
//!
//! A call has commands: one, or those of a batch. A command has slots: one, or one for each channel of a broadcast. A
//! slot is filled as its reply comes, with the JSON that it will be in the answer; a request's ticket is its slot's
//! number, from 1. All requests leave together and in order, so what commands do to one channel happens in their order.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::context::{Context, Output};
use super::refusal::row_of;
use crate::auth::{ApiGrant, ApiRefusal};
use crate::config::ApiRight;
use crate::config::limits::{API_ANSWER_BYTES_MAX, API_REQUESTS_MAX};
use crate::message::{Actor, ChannelName, NodeInfo, Publication, Reply, Request, Ticket};
use crate::protocol::api_json::{self, ApiMethod, BatchCommand, ParametersError, Text};
use crate::protocol::command::CommandError;

mod clients;
mod commands;

/// A call that is being answered.
#[derive(Debug)]
pub struct ApiCall {
    is_batch: bool,
    /// What its key allows.
    grant: Arc<ApiGrant>,
    commands: Vec<Command>,
    slots: Vec<Slot>,
    /// Slots that are not filled.
    waiting: usize,
    /// Whether one of them waits for the worker.
    asks_info: bool,
    /// The results of filled slots, one behind the other.
    json: Vec<u8>,
    /// A history did not fit though it seemed to: no other is put together.
    is_full: bool,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    /// A call of one method.
    Single(ApiMethod),
    /// Several calls at once.
    Batch,
}

/// Why a body is not a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// It is not JSON.
    NotJson(String),
    /// It is JSON, but not a batch.
    BatchInvalid(String),
}

#[derive(Debug)]
struct Command {
    /// `None` if there is none of that name.
    method: Option<ApiMethod>,
    slots: Range<usize>,
    /// Whether each slot is a response of its own, as in a broadcast.
    is_spread: bool,
}

#[derive(Debug)]
struct Slot {
    method: ApiMethod,
    filled: Option<Filled>,
}

#[derive(Debug)]
struct Filled {
    is_error: bool,
    json: Range<usize>,
}

/// Why a command is not done.
#[derive(Debug)]
struct Fault {
    error: CommandError,
    detail: Option<Cow<'static, str>>,
}

impl ApiRoute {
    /// Whether publications may come of it.
    pub fn may_publish(self) -> bool {
        match self {
            ApiRoute::Single(method) => {
                matches!(method, ApiMethod::Publish | ApiMethod::Broadcast)
            }
            ApiRoute::Batch => true,
        }
    }
}

impl ApiCall {
    /// Asks the hub what a body asks.
    pub fn begin(
        route: ApiRoute,
        grant: Arc<ApiGrant>,
        body: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Self, ApiFault> {
        let call = Self {
            is_batch: route == ApiRoute::Batch,
            grant,
            commands: Vec::new(),
            slots: Vec::new(),
            waiting: 0,
            asks_info: false,
            json: Vec::new(),
            is_full: false,
        };
        match route {
            ApiRoute::Single(method) => call.single(method, body, context),
            ApiRoute::Batch => call.batch(body, context),
        }
    }

    fn single(
        self,
        method: ApiMethod,
        body: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Self, ApiFault> {
        let mut call = self;
        match call.command(method, text_of(body)?, context) {
            Ok(()) => Ok(call),
            Err(ParametersError::NotJson(why)) => Err(ApiFault::NotJson(why)),
            Err(ParametersError::Unfit(why)) => {
                call.refuse_command(Some(method), bad_request(why));
                Ok(call)
            }
        }
    }

    fn batch(self, body: &[u8], context: &mut Context<'_>) -> Result<Self, ApiFault> {
        let batch: api_json::CommandBatch<'_, API_REQUESTS_MAX> = api_json::decode(text_of(body)?)
            .map_err(|error| match error {
                ParametersError::NotJson(why) => ApiFault::NotJson(why),
                ParametersError::Unfit(why) => ApiFault::BatchInvalid(why),
            })?;
        if batch.commands.is_too_long {
            let why = format!("a batch has at most {API_REQUESTS_MAX} commands");
            return Err(ApiFault::BatchInvalid(why));
        }
        let mut call = self;
        for command in batch.commands.items {
            let unfit = match api_json::decode(command.get()) {
                Ok(BatchCommand(None)) => {
                    call.refuse_command(None, CommandError::MethodNotFound.into());
                    continue;
                }
                Ok(BatchCommand(Some((name, parameters)))) => match ApiMethod::from_name(&name) {
                    None => {
                        call.refuse_command(None, CommandError::MethodNotFound.into());
                        continue;
                    }
                    Some(method) => call.command(method, parameters.get(), context).err(),
                },
                Err(unfit) => Some(unfit),
            };
            if let Some(ParametersError::NotJson(why) | ParametersError::Unfit(why)) = unfit {
                call.refuse_command(None, bad_request(why));
            }
        }
        Ok(call)
    }

    /// Takes the hub's answer to one of the requests.
    pub fn take_reply(&mut self, ticket: Ticket, reply: &Reply) {
        let index = ticket.number() as usize - 1;
        let Some(Slot { method, filled: None }) = self.slots.get(index) else { return };
        let method = *method;
        if let Reply::Refused(refusal) = reply {
            let row = row_of(*refusal);
            let detail = row.detail().map(Cow::Borrowed);
            self.fill_error(index, &Fault { error: row.error, detail });
        } else if let Reply::History { publications, .. } = reply
            && (self.is_full || self.cannot_hold(publications))
        {
            self.fill_error(index, &too_long());
        } else if let Reply::Channels { channels } = reply
            && !self.grant.covers_all()
        {
            let covered =
                channels.iter().filter(|(channel, _)| self.grant.covers(channel.as_str()));
            let reply = Reply::Channels { channels: covered.cloned().collect() };
            self.fill(index, |json, bytes_max| write_result(json, method, &reply, bytes_max));
        } else {
            self.fill(index, |json, bytes_max| write_result(json, method, reply, bytes_max));
        }
    }

    /// Whether publications are certainly too long for what is left of the answer.
    fn cannot_hold(&self, publications: &[Arc<Publication>]) -> bool {
        let bytes: usize = publications.iter().map(|item| item.payload.heap_bytes()).sum();
        bytes > API_ANSWER_BYTES_MAX.saturating_sub(self.json.len())
    }

    /// Takes the worker's answer to [`Question::NodeInfo`](super::context::Question::NodeInfo).
    pub fn take_info(&mut self, info: &NodeInfo) {
        for index in 0..self.slots.len() {
            if matches!(self.slots[index], Slot { method: ApiMethod::Info, filled: None }) {
                self.fill(index, |json, _| {
                    api_json::write_info(json, info);
                    Ok(())
                });
            }
        }
    }

    /// Whether everything is answered.
    pub fn is_answered(&self) -> bool {
        self.waiting == 0
    }

    /// Bytes of heap that it owns.
    pub fn heap_bytes(&self) -> usize {
        self.commands.capacity() * size_of::<Command>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.json.capacity()
    }

    /// The answer's body.
    pub fn answer(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.json.len() + 32 * (1 + self.slots.len()));
        if !self.is_batch {
            self.write_command(&self.commands[0], "result", &mut out);
            out.push(b'\n');
            return out;
        }
        out.extend_from_slice(b"{\"replies\":[");
        for (index, command) in self.commands.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_command(command, command.method.map_or("", ApiMethod::name), &mut out);
        }
        out.extend_from_slice(b"]}\n");
        out
    }

    fn write_command(&self, command: &Command, key: &str, out: &mut Vec<u8>) {
        if !command.is_spread {
            return self.write_slot(command.slots.start, key, out);
        }
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":{\"responses\":[");
        for index in command.slots.clone() {
            if index > command.slots.start {
                out.push(b',');
            }
            self.write_slot(index, "result", out);
        }
        out.extend_from_slice(b"]}}");
    }

    fn write_slot(&self, index: usize, key: &str, out: &mut Vec<u8>) {
        let filled = self.slots[index].filled.as_ref().expect("everything is answered");
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(if filled.is_error { b"error" } else { key.as_bytes() });
        out.extend_from_slice(b"\":");
        out.extend_from_slice(&self.json[filled.json.clone()]);
        out.push(b'}');
    }

    /// Adds a slot and asks for what fills it.
    fn ask(
        &mut self,
        method: ApiMethod,
        context: &mut Context<'_>,
        request: Request,
    ) -> Result<(), Fault> {
        if self.slots.len() >= API_REQUESTS_MAX {
            return Err(too_many());
        }
        self.slot(method);
        context.request(Ticket::new(self.slots.len() as u32), Actor::Server, request);
        Ok(())
    }

    /// The channel of a command, if the key allows the command there.
    fn channel(
        &self,
        method: ApiMethod,
        Text(name): &Text<'_>,
        context: &mut Context<'_>,
    ) -> Result<ChannelName, Fault> {
        let channel = ChannelName::new(name).map_err(|error| bad_request(error.to_string()))?;
        match self.grant.allows_on(right_to(method), channel.as_str()) {
            true => Ok(channel),
            false => Err(refuse_right(context)),
        }
    }

    fn slot(&mut self, method: ApiMethod) -> usize {
        self.slots.push(Slot { method, filled: None });
        self.waiting += 1;
        self.slots.len() - 1
    }

    fn refuse_command(&mut self, method: Option<ApiMethod>, fault: Fault) {
        // The slot's method does not matter: it is filled at once.
        let index = self.slot(ApiMethod::Info);
        self.fill_error(index, &fault);
        self.commands.push(Command { method, slots: index..index + 1, is_spread: false });
    }

    fn fill_error(&mut self, index: usize, fault: &Fault) {
        self.fill(index, |json, _| {
            api_json::write_error(json, fault.error, fault.detail.as_deref());
            Ok(())
        });
        if let Some(filled) = &mut self.slots[index].filled {
            filled.is_error = true;
        }
    }

    /// Fills a slot with what `write` appends, or with an error.
    fn fill(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), Fault>) {
        let start = self.json.len();
        let bytes_max = API_ANSWER_BYTES_MAX.saturating_sub(start);
        let written = write(&mut self.json, bytes_max);
        if let Err(fault) = &written {
            self.is_full |= self.slots[index].method == ApiMethod::History;
            self.json.truncate(start);
            api_json::write_error(&mut self.json, fault.error, fault.detail.as_deref());
        }
        let json = start..self.json.len();
        self.slots[index].filled = Some(Filled { is_error: written.is_err(), json });
        self.waiting -= 1;
    }
}

/// Appends what a reply is to a method.
fn write_result(
    json: &mut Vec<u8>,
    method: ApiMethod,
    reply: &Reply,
    bytes_max: usize,
) -> Result<(), Fault> {
    let start = json.len();
    match (method, reply) {
        (ApiMethod::Publish, Reply::Published { position }) => {
            api_json::write_published(json, *position, false);
            // It was published: that is said whatever its place in a long answer.
            return Ok(());
        }
        (ApiMethod::Publish, Reply::Outdated { position }) => {
            api_json::write_published(json, *position, true);
            return Ok(());
        }
        (ApiMethod::History, Reply::History { position, publications }) => {
            let publications = publications.iter().map(|publication| &**publication);
            api_json::write_history(json, *position, publications, bytes_max);
        }
        (ApiMethod::Presence, Reply::Presence { clients, client_count }) => {
            api_json::write_presence(json, clients, *client_count);
        }
        (ApiMethod::PresenceStats, Reply::PresenceStats { client_count, user_count }) => {
            api_json::write_presence_stats(json, *client_count, *user_count);
        }
        (ApiMethod::Channels, Reply::Channels { channels }) => {
            api_json::write_channels(json, channels);
        }
        (ApiMethod::Connections, Reply::Connections { connections, is_truncated }) => {
            api_json::write_connections(json, connections, *is_truncated);
        }
        (_, Reply::Done) => {
            json.extend_from_slice(b"{}");
            return Ok(());
        }
        _ => return Err(CommandError::Internal.into()),
    }
    if json.len() - start > bytes_max {
        return Err(too_long());
    }
    Ok(())
}

/// The right that a method needs.
fn right_to(method: ApiMethod) -> ApiRight {
    match method {
        ApiMethod::Publish | ApiMethod::Broadcast => ApiRight::Publish,
        ApiMethod::Subscribe => ApiRight::Subscribe,
        ApiMethod::Unsubscribe => ApiRight::Unsubscribe,
        ApiMethod::Disconnect => ApiRight::Disconnect,
        ApiMethod::History => ApiRight::History,
        ApiMethod::HistoryRemove => ApiRight::HistoryRemove,
        ApiMethod::Presence => ApiRight::Presence,
        ApiMethod::PresenceStats => ApiRight::PresenceStats,
        ApiMethod::Channels => ApiRight::Channels,
        ApiMethod::Info => ApiRight::Info,
        ApiMethod::Rpc => ApiRight::Rpc,
        ApiMethod::Refresh => ApiRight::Refresh,
        ApiMethod::Connections => ApiRight::Connections,
        ApiMethod::BlockUser | ApiMethod::UnblockUser => ApiRight::BlockUser,
    }
}

fn text_of(body: &[u8]) -> Result<&str, ApiFault> {
    simdutf8::basic::from_utf8(body).map_err(|_| ApiFault::NotJson("it is not UTF-8".to_owned()))
}

/// The key does not allow a command.
fn refuse_right(context: &mut Context<'_>) -> Fault {
    context.outputs.push(Output::ApiRefused(ApiRefusal::RightMissing));
    CommandError::PermissionDenied.into()
}

fn bad_request(detail: impl Into<Cow<'static, str>>) -> Fault {
    Fault { error: CommandError::BadRequest, detail: Some(detail.into()) }
}

fn too_long() -> Fault {
    let detail = format!("the answer has more than {API_ANSWER_BYTES_MAX} bytes: ask for less");
    Fault { error: CommandError::LimitExceeded, detail: Some(detail.into()) }
}

fn too_many() -> Fault {
    let detail = format!("a call asks for at most {API_REQUESTS_MAX} things");
    Fault { error: CommandError::LimitExceeded, detail: Some(detail.into()) }
}

impl From<CommandError> for Fault {
    fn from(error: CommandError) -> Self {
        Self { error, detail: None }
    }
}

#[cfg(test)]
mod tests;
