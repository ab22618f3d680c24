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
use crate::config::limits::{API_ANSWER_BYTES_MAX, API_REQUESTS_MAX};
use crate::config::{ApiRight, ErrorMode};
use crate::message::{Actor, ChannelName, NodeInfo, Publication, Reply, Request, Ticket};
use crate::protocol::api_json::{self, ApiMethod, BatchCommand, OldCommand, ParametersError, Text};
use crate::protocol::command::CommandError;

mod clients;
mod commands;

/// A call that is being answered.
#[derive(Debug)]
pub struct ApiCall {
    form: Form,
    /// Where an error is, if it is of a call of one method.
    errors: ErrorMode,
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

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The result or the error of one command.
    One,
    /// A list of replies.
    List,
    /// A reply in each line.
    Lines,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    /// A call of one method.
    Single(ApiMethod),
    /// Several calls at once.
    Batch,
    /// One call behind the other, each with the name of its method.
    Commands,
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
    /// What its reply repeats; 0 for nothing.
    id: u32,
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
    error: Option<CommandError>,
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
            ApiRoute::Batch | ApiRoute::Commands => true,
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
            form: match route {
                ApiRoute::Single(_) => Form::One,
                ApiRoute::Batch => Form::List,
                ApiRoute::Commands => Form::Lines,
            },
            errors: ErrorMode::Body,
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
            ApiRoute::Commands => call.old_commands(body, context),
        }
    }

    /// The same call, with its error there.
    pub fn with_errors(self, errors: ErrorMode) -> Self {
        Self { errors, ..self }
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

    fn old_commands(self, body: &[u8], context: &mut Context<'_>) -> Result<Self, ApiFault> {
        let commands: Result<Vec<_>, _> =
            api_json::decode_old(text_of(body)?).take(API_REQUESTS_MAX + 1).collect();
        let commands = commands.map_err(ApiFault::NotJson)?;
        if commands.is_empty() || commands.len() > API_REQUESTS_MAX {
            let why = format!("there are at least 1 and at most {API_REQUESTS_MAX} commands");
            return Err(ApiFault::BatchInvalid(why));
        }
        let mut call = self;
        for command in commands {
            let OldCommand { id, method, params } = command;
            let method = method.map_or(Some(ApiMethod::Publish), |method| method.method());
            let parameters = params.map_or("{}", |params| params.get());
            match method.map(|method| call.command(method, parameters, context)) {
                None => call.refuse_command(None, CommandError::MethodNotFound.into()),
                Some(Ok(())) => {}
                Some(Err(ParametersError::NotJson(why) | ParametersError::Unfit(why))) => {
                    call.refuse_command(method, bad_request(why));
                }
            }
            if let Some(command) = call.commands.last_mut() {
                command.id = id.unwrap_or(0);
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
        let bytes: usize = publications.iter().map(|item| item.heap_bytes()).sum();
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

    /// The answer's status and its body.
    pub fn answer(&self) -> (u16, Vec<u8>) {
        let mut out = Vec::with_capacity(self.json.len() + 32 * (1 + self.slots.len()));
        match self.form {
            Form::One => {
                let command = &self.commands[0];
                if let Some((error, json)) = self.lone_error(command) {
                    out.extend_from_slice(json);
                    out.push(b'\n');
                    return (status_of(error), out);
                }
                self.write_command(command, "result", &mut out);
            }
            Form::List => {
                out.extend_from_slice(b"{\"replies\":[");
                for (index, command) in self.commands.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    let key = command.method.map_or("", ApiMethod::name);
                    self.write_command(command, key, &mut out);
                }
                out.extend_from_slice(b"]}");
            }
            Form::Lines => {
                for (index, command) in self.commands.iter().enumerate() {
                    if index > 0 {
                        out.push(b'\n');
                    }
                    self.write_command(command, "result", &mut out);
                }
                // As with Centrifugo: libraries read each line as a reply, also an empty one behind the last line feed.
                return (200, out);
            }
        }
        out.push(b'\n');
        (200, out)
    }

    /// The error of a command, if the status of the answer is to have it.
    fn lone_error(&self, command: &Command) -> Option<(CommandError, &[u8])> {
        let slot = &self.slots[command.slots.start];
        let is_lone = self.errors == ErrorMode::Transport && !command.is_spread;
        let filled = slot.filled.as_ref().filter(|_| is_lone)?;
        Some((filled.error?, &self.json[filled.json.clone()]))
    }

    fn write_command(&self, command: &Command, key: &str, out: &mut Vec<u8>) {
        if command.id != 0 {
            out.extend_from_slice(format!("{{\"id\":{},\"", command.id).as_bytes());
        } else {
            out.extend_from_slice(b"{\"");
        }
        if !command.is_spread {
            return self.write_slot(command.slots.start, key, out);
        }
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":{\"responses\":[");
        for index in command.slots.clone() {
            if index > command.slots.start {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"");
            self.write_slot(index, "result", out);
        }
        out.extend_from_slice(b"]}}");
    }

    /// Appends what is in a slot, behind the beginning of its object.
    fn write_slot(&self, index: usize, key: &str, out: &mut Vec<u8>) {
        let filled = self.slots[index].filled.as_ref().expect("everything is answered");
        out.extend_from_slice(if filled.error.is_some() { b"error" } else { key.as_bytes() });
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
        let slots = index..index + 1;
        self.commands.push(Command { id: 0, method, slots, is_spread: false });
    }

    fn fill_error(&mut self, index: usize, fault: &Fault) {
        self.fill(index, |json, _| {
            api_json::write_error(json, fault.error, fault.detail.as_deref());
            Ok(())
        });
        if let Some(filled) = &mut self.slots[index].filled {
            filled.error = Some(fault.error);
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
        let error = written.err().map(|fault| fault.error);
        self.slots[index].filled = Some(Filled { error, json });
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
        ApiMethod::MapPublish | ApiMethod::MapRemove | ApiMethod::MapClear => ApiRight::Publish,
        ApiMethod::SharedPollPublish => ApiRight::Publish,
        ApiMethod::MapReadState | ApiMethod::MapReadStream | ApiMethod::MapStats => {
            ApiRight::History
        }
        ApiMethod::Refresh => ApiRight::Refresh,
        ApiMethod::Connections => ApiRight::Connections,
        ApiMethod::BlockUser | ApiMethod::UnblockUser => ApiRight::BlockUser,
    }
}

/// The status of an answer that has this error alone, as with Centrifugo (internal/apiproto/errors.go) as far as it has
/// these errors.
fn status_of(error: CommandError) -> u16 {
    match error {
        CommandError::Internal => 500,
        CommandError::UnknownChannel | CommandError::MethodNotFound => 404,
        CommandError::PermissionDenied => 403,
        CommandError::UnrecoverablePosition => 416,
        CommandError::TooManyRequests => 503,
        CommandError::BadRequest
        | CommandError::NotAvailable
        | CommandError::AlreadySubscribed
        | CommandError::LimitExceeded
        | CommandError::TokenExpired => 400,
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
