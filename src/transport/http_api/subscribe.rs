//! Requests that subscribe: event streams (`/events`) and long polls (`/poll`).
//!
//! All of a request's subscriptions are made before it is answered, so that what the first one brings meanwhile is held
//! for it. A request that is refused any of them is refused.

use std::borrow::Cow;
use std::sync::Arc;

use super::answer::{Exchange, close, fail_refused, refuse_overloaded};
use super::poll::{PollForm, PollOptions};
use super::{HttpConversation, HttpFlow, Next, channels_of};
use crate::config::limits::{OPENING_PUBLICATIONS_MAX, PUBLICATION_BYTES};
use crate::message::{
    Actor, ChannelName, Position, Publication, Recovery, Refusal, Reply, Request, Ticket,
};
use crate::protocol::http1::{Head, HttpFault, query_pairs};
use crate::transport::places::{Place, Places, advance, parse_positions};
use crate::transport::{Batch, Context, Delivered, EventStream, Output};

/// A request whose subscriptions are being made.
#[derive(Debug)]
pub(super) struct Opening {
    /// In the order of their tickets, which begin at 1.
    places: Vec<Place>,
    /// Where the client wants each to begin.
    since: Option<Vec<Position>>,
    replies_left: usize,
    /// Something that the client asked for is lost.
    has_gap: bool,
    /// What it missed, and what came since.
    publications: Vec<Arc<Publication>>,
    /// Of what it missed, which its channels may have forgotten by now.
    recovered_bytes: usize,
    wish: Wish,
    exchange: Exchange,
}

/// What becomes of the subscriptions.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Stream,
    Poll(PollOptions),
}

impl HttpConversation {
    /// `GET /events`.
    pub(super) fn stream_events(
        &mut self,
        head: &Head<'_>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let header = text_of(head.header("last-event-id").next());
        // A browser that comes back sends the header; its query is as old as the page.
        let since = match header.filter(|id| !id.is_empty()) {
            Some(id) => Some(id),
            None => parameter(head, &["last_event_id", "lastEventId", "since"])?,
        };
        self.subscribe(head, since.as_deref(), Wish::Stream, exchange, context)
    }

    /// `GET /poll`.
    pub(super) fn poll(
        &mut self,
        head: &Head<'_>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let timeout = match PollOptions::timeout(parameter(head, &["timeout"])?.as_deref()) {
            Ok(timeout) => timeout,
            Err(message) => {
                let code = "timeout_invalid";
                return Ok(self.refuse(400, code, &message, &[], exchange, context));
            }
        };
        let named = match parameter(head, &["since"])? {
            Some(since) => Some(since),
            None => text_of(head.header("if-none-match").next()).map(tag_of),
        };
        let form = if named.is_some() { PollForm::Batch } else { PollForm::One };
        let wish = Wish::Poll(PollOptions { form, timeout });
        self.subscribe(head, named.as_deref(), wish, exchange, context)
    }

    fn subscribe(
        &mut self,
        head: &Head<'_>,
        since: Option<&str>,
        wish: Wish,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let channels = match channels_of(head, context.settings.subscriptions_max)? {
            Ok(channels) => channels,
            Err(message) => {
                let code = "channel_invalid";
                return Ok(self.refuse(400, code, &message, &[], exchange, context));
            }
        };
        let since = match since {
            // What an old or a strange cookie says is no fault of the page.
            None => cookie_of(head, wish, &channels),
            Some("") => None,
            Some(text) => match parse_positions(text, channels.len()) {
                Ok(positions) => Some(positions),
                Err(_) => {
                    let (code, message) = ("position_invalid", POSITION_INVALID);
                    return Ok(self.refuse(400, code, message, &[], exchange, context));
                }
            },
        };
        if context.overloaded {
            context.outputs.push(Output::Refused);
            refuse_overloaded(Exchange { keep_alive: false, ..exchange }, context);
            return Ok(Next::Flow(close(context)));
        }
        for (index, channel) in channels.iter().enumerate() {
            context.request(Request::Subscribe {
                ticket: Ticket(u32::try_from(index + 1).expect("they are few")),
                channel: channel.clone(),
                since: since.as_ref().map(|positions| positions[index]),
                by: Actor::Client,
            });
        }
        self.pending.get_or_insert_default().opening = Some(Opening {
            replies_left: channels.len(),
            places: channels.into_iter().map(Place::unknown).collect(),
            since,
            has_gap: false,
            publications: Vec::new(),
            recovered_bytes: 0,
            wish,
            exchange,
        });
        Ok(Next::Flow(HttpFlow::AwaitReply))
    }

    /// Takes the answer to one of the subscriptions; after the last one, answers the request or has it wait.
    pub(super) fn open(
        &mut self,
        ticket: Ticket,
        reply: &Reply,
        context: &mut Context<'_>,
    ) -> HttpFlow {
        let pending = self.pending.get_or_insert_default();
        let opening = pending.opening.as_mut().expect("the caller looked");
        match opening.take(ticket, reply) {
            Step::Wait => HttpFlow::AwaitReply,
            Step::Refuse(refusal) => {
                let exchange = Exchange { keep_alive: false, ..opening.exchange };
                self.pending = None;
                fail_refused(exchange, refusal, context);
                close(context)
            }
            Step::Finish => {
                let opening = pending.opening.take().expect("it is there until here");
                if pending.remainder.is_empty() {
                    self.pending = None;
                }
                self.finish_opening(opening, context)
            }
        }
    }

    fn finish_opening(&mut self, opening: Opening, context: &mut Context<'_>) -> HttpFlow {
        let Opening { places, has_gap, publications, wish, exchange, .. } = opening;
        let places = Places::new(places);
        match wish {
            Wish::Poll(options) => {
                self.begin_poll(options, places, has_gap, &publications, exchange, context)
            }
            Wish::Stream => {
                self.pending = None;
                exchange.write_stream_head(context);
                if exchange.is_head {
                    return close(context);
                }
                match EventStream::begin(places, has_gap, &publications, context) {
                    Some(stream) => HttpFlow::Stream(stream),
                    None => close(context),
                }
            }
        }
    }

    /// Keeps what comes before all subscriptions are made.
    pub(super) fn hold(&mut self, batch: &Batch<'_>) -> Delivered {
        let opening = self.pending.as_mut().and_then(|pending| pending.opening.as_mut());
        let count = opening.map_or(0, |opening| opening.hold(batch.publications()));
        Delivered { count, frame: None }
    }
}

/// What follows a reply.
enum Step {
    Wait,
    Refuse(Refusal),
    Finish,
}

impl Opening {
    /// Bytes that it keeps in memory. What comes while it waits is not among them: a fan-out does not wait to be told.
    pub(super) fn held_bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place>() + self.recovered_bytes
    }

    fn take(&mut self, ticket: Ticket, reply: &Reply) -> Step {
        let index = (ticket.0 as usize).wrapping_sub(1);
        if index >= self.places.len() {
            return Step::Wait;
        }
        match reply {
            Reply::Refused(refusal) => Step::Refuse(*refusal),
            Reply::Subscribed { channel, position, recovery, .. } => {
                let since = self.since.as_ref().map(|positions| positions[index]);
                let position = match (since, recovery) {
                    (None, _) => *position,
                    // It is led on by the publications.
                    (Some(since), Some(Recovery { is_complete: true, publications })) => {
                        let bytes = publications.iter().map(|item| item.payload.bytes.len());
                        self.recovered_bytes +=
                            bytes.sum::<usize>() + publications.len() * PUBLICATION_BYTES as usize;
                        self.publications.extend(publications.iter().cloned());
                        since
                    }
                    (Some(_), _) => {
                        self.has_gap = true;
                        *position
                    }
                };
                // The hub's name may be shared with other subscribers.
                self.places[index] = Place { channel: channel.clone(), position };
                self.replies_left -= 1;
                if self.replies_left == 0 { Step::Finish } else { Step::Wait }
            }
            Reply::Unsubscribed { .. }
            | Reply::Published { .. }
            | Reply::History { .. }
            | Reply::Presence { .. }
            | Reply::Channels { .. }
            | Reply::Done => Step::Wait,
        }
    }

    fn hold(&mut self, publications: &[Arc<Publication>]) -> usize {
        self.publications.extend_from_slice(publications);
        if self.publications.len() > OPENING_PUBLICATIONS_MAX {
            self.has_gap = true;
            for publication in std::mem::take(&mut self.publications) {
                advance(&mut self.places, &publication);
            }
        }
        publications.len()
    }
}

fn text_of(value: Option<&[u8]>) -> Option<Cow<'_, str>> {
    // What is no text is no position either, and refused as such.
    value.map(String::from_utf8_lossy)
}

/// What is in an entity tag (RFC 9110 8.8.3).
fn tag_of(value: Cow<'_, str>) -> Cow<'_, str> {
    let tag = value.strip_prefix("W/").unwrap_or(&value);
    let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    Cow::Owned(opaque.unwrap_or(tag).to_owned())
}

/// The last one of a query's values that has one of these names.
fn parameter<'h>(head: &Head<'h>, names: &[&str]) -> Result<Option<Cow<'h, str>>, HttpFault> {
    let mut found = None;
    for pair in query_pairs(head.query) {
        let (name, value) = pair?;
        if names.contains(&name.as_ref()) {
            found = Some(value);
        }
    }
    Ok(found)
}

fn cookie_of(head: &Head<'_>, wish: Wish, channels: &[ChannelName]) -> Option<Vec<Position>> {
    let Wish::Poll(options) = wish else { return None };
    let name = options.form.cookie(channels.iter().map(ChannelName::as_str))?;
    let value = head.header("cookie").find_map(|header| name.find(header))?;
    parse_positions(value, channels.len()).ok()
}

const POSITION_INVALID: &str = "a position is what an answer or an event's id said: OFFSET:EPOCH for each channel, \
                                joined by '_'";
