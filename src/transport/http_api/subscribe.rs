//! Requests that subscribe: event streams (`/events`) and long polls (`/poll`).
//!
//! All of a request's subscriptions are made before it is answered, so that what the first one brings meanwhile is held
//! for it. A request that is refused any of them is refused.

use std::borrow::Cow;

use super::answer::{Exchange, write_response};
use super::credentials::check_shown;
use super::error::{Early, HttpError};
use super::parameters::channels_of;
use super::poll::{Poll, PollOptions};
use super::subscription_tokens::SubscriptionTokens;
use crate::auth::{Rate, RateVerdict};
use crate::config::limits::{
    COOKIE_BYTES_MAX, OPENING_PUBLICATIONS_MAX, POSITION_HEADER_BYTES, PUBLICATION_BYTES,
};
use crate::message::{
    Actor, ChannelName, CloseReason, Disconnect, Item, Position, Recovery, Reply, Request, Ticket,
    Token,
};
use crate::protocol::http1::{Head, HttpFault, Version, query_pairs};
use crate::protocol::long_poll::{CookieName, is_of_timeout};
use crate::transport::context::{Context, Output};
use crate::transport::places::{Place, Places, advance, parse_positions};
use crate::transport::poll_form::PollForm;
use crate::transport::prepared::{Batch, Delivered};
use crate::transport::settings::TransportSettings;
use crate::transport::sse::EventStream;
use crate::transport::stream_form::StreamFraming;

/// A request whose subscriptions are being made.
#[derive(Debug)]
pub(super) struct Opening {
    /// In the order of their tickets, which begin at 1.
    places: Vec<Place>,
    /// The token for each, if the client shows any.
    tokens: SubscriptionTokens,
    /// Where the client wants each to begin.
    since: Option<Vec<Position>>,
    replies_left: usize,
    /// Something that the client asked for is lost.
    has_gap: bool,
    /// What it missed, and what came since.
    items: Vec<Item>,
    /// Bytes of recovered publications, which their channels may have dropped by now.
    recovered_bytes: usize,
    /// The client missed more than that: it is sent in parts.
    has_more: bool,
    /// The event stream has begun, with a first part.
    has_begun: bool,
    /// The next part waits until most of the last one has left.
    awaits_drain: bool,
    kind: OpeningKind,
    exchange: Exchange,
}

/// What the request opens once its subscriptions are made.
#[derive(Clone, Copy, Debug)]
enum OpeningKind {
    Stream(StreamFraming),
    Poll(PollOptions),
}

/// Where a client wants to go on.
#[derive(Debug)]
enum Since {
    /// Now: it has nothing yet.
    Now,
    /// Behind these positions, one for each channel.
    Positions(Vec<Position>),
    /// Behind something that is not a position of these channels: another server's id, or another list of channels.
    /// What it missed cannot be known, so it is sent a gap. An error would end an event stream for good (WHATWG HTML
    /// 9.2.3), and a loop of polls would get no further.
    Unknown,
}

impl Since {
    fn of(text: &str, count: usize) -> Self {
        match parse_positions(text, count) {
            _ if text.is_empty() => Self::Now,
            Ok(positions) => Self::Positions(positions),
            Err(_) => Self::Unknown,
        }
    }

    /// The first of some entity tags that is a position (RFC 9110 13.1.2: a condition is `*` or a list of tags, which
    /// need not be this server's). `None` if there are no tags.
    fn of_tags<'h>(mut tags: impl Iterator<Item = &'h [u8]>, count: usize) -> Option<Self> {
        let mut found = None;
        tags.find_map(|tag| {
            found = Some(Self::Unknown);
            let tag = std::str::from_utf8(tag).ok()?;
            parse_positions(position_of_tag(tag), count).ok()
        })
        .map(Self::Positions)
        .or(found)
    }
}

impl Opening {
    /// Takes a request for `GET /events`, an event stream.
    pub(super) fn stream(
        head: &Head<'_>,
        token: Option<&Token>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Self, Early> {
        // A browser that comes back sends the header; its query is as old as the page.
        let since = match last_event_id(head) {
            Some(id) => Some(id),
            None => parameter(head, &["last_event_id", "lastEventId", "since"])?,
        };
        if since.as_deref() == Some(EventStream::ENDED) {
            write_response(exchange, 204, &[], "", b"", context);
            return Err(Early::Answered);
        }
        let framing = StreamFraming::of(head);
        let since = |count| since.map_or(Since::Now, |text| Since::of(&text, count));
        Self::begin((head, token), since, OpeningKind::Stream(framing), exchange, context)
    }

    /// Takes a request for `GET /poll`, a long poll.
    pub(super) fn poll(
        head: &Head<'_>,
        token: Option<&Token>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Self, Early> {
        let timeout = PollOptions::timeout(parameter(head, &["timeout"])?.as_deref())
            .map_err(|message| HttpError::new(400, "timeout_invalid", message))?;
        // Caches take conditions for themselves, and leave the others alone.
        let named = match parameter(head, &["since"])? {
            Some(since) => Some(since),
            None => last_event_id(head),
        };
        let tags = || head.header_list("if-none-match");
        let keeps_position = named.is_some() || tags().next().is_some();
        let form = if keeps_position { PollForm::Batch } else { PollForm::One };
        let repeats_timeout = tags().any(is_of_timeout);
        let since = |count| match named {
            Some(text) => Since::of(&text, count),
            None => Since::of_tags(tags(), count).unwrap_or(Since::Now),
        };
        // RFC 9110 15.2: an HTTP/1.0 client knows no interim answers.
        let takes_interim = head.version == Version::Http11;
        let kind = OpeningKind::Poll(PollOptions { form, timeout, repeats_timeout, takes_interim });
        Self::begin((head, token), since, kind, exchange, context)
    }

    fn begin(
        (head, token): (&Head<'_>, Option<&Token>),
        since: impl FnOnce(usize) -> Since,
        kind: OpeningKind,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Self, Early> {
        let invalid = |message| HttpError::new(400, "channel_invalid", message);
        let channels = channels_of(head, context.settings.subscriptions_max)?.map_err(invalid)?;
        let tokens = SubscriptionTokens::of(head, &channels, context.settings)??;
        check_position_size(head, channels.len(), kind, context.settings).map_err(invalid)?;
        if let Some((reason, error)) = refusal_of(channels.len(), context) {
            let exchange = Exchange { keep_alive: false, ..exchange };
            match kind {
                OpeningKind::Stream(framing) => exchange.refuse_stream(reason, framing, context),
                OpeningKind::Poll(_) => error.write(exchange, context),
            }
            return Err(Early::Closed);
        }
        let since = match kind {
            OpeningKind::Poll(PollOptions { form: form @ PollForm::One, .. }) => {
                cookie_of(head, form, &channels)
            }
            OpeningKind::Poll(_) | OpeningKind::Stream(_) => since(channels.len()),
        };
        let (since, has_gap) = match since {
            Since::Now => (None, false),
            Since::Positions(positions) => (Some(positions), false),
            Since::Unknown => (Some(vec![Position::NOWHERE; channels.len()]), true),
        };
        check_shown(token, context.settings)?;
        Ok(Opening {
            replies_left: channels.len(),
            places: channels.into_iter().map(Place::unknown).collect(),
            tokens,
            since,
            has_gap,
            items: Vec::new(),
            recovered_bytes: 0,
            has_more: false,
            has_begun: false,
            awaits_drain: false,
            kind,
            exchange,
        })
    }

    /// Takes the answer to one of the subscriptions; after the last one, begins what was asked for.
    pub(super) fn take(
        &mut self,
        ticket: Ticket,
        reply: &Reply,
        context: &mut Context<'_>,
    ) -> Opened {
        match self.count(ticket, reply) {
            Step::Wait => Opened::Wait,
            Step::Refuse(error) => {
                let exchange = Exchange { keep_alive: false, ..self.exchange };
                // A browser does not come back by itself after an error.
                if !self.end_stream(error.status == 503, context) {
                    error.write(exchange, context);
                }
                Opened::Closed
            }
            Step::Finish => match self.kind {
                OpeningKind::Poll(options) => {
                    let places = Places::new(std::mem::take(&mut self.places));
                    let items = std::mem::take(&mut self.items);
                    let poll =
                        Poll::begin(options, places, self.has_gap, &items, self.exchange, context);
                    poll.map_or(Opened::Answered, Opened::Poll)
                }
                OpeningKind::Stream(framing) => self.begin_stream(framing, context),
            },
        }
    }

    /// Begins an event stream, or goes on with what its client missed, which comes in parts. Between two of them the
    /// client has no subscriptions, and is given time to read.
    fn begin_stream(&mut self, framing: StreamFraming, context: &mut Context<'_>) -> Opened {
        let mut places = Places::new(std::mem::take(&mut self.places));
        if !self.has_begun {
            self.exchange.write_stream_head(framing, context);
            if self.exchange.is_head {
                return Opened::Closed;
            }
            EventStream::write_first(&places, self.has_gap, framing, context);
        } else if self.has_gap {
            EventStream::write_gap_at(&places, framing, context);
        }
        let missed = std::mem::take(&mut self.items);
        let is_all = EventStream::write_missed(&mut places, &missed, framing, context);
        if is_all && !self.has_more {
            return Opened::Stream(EventStream::new(places, framing, context));
        }
        context.outputs.push(Output::LeaveChannels);
        context.outputs.push(Output::Deadline(context.settings.keepalive_interval));
        self.restart(places);
        self.awaits_drain = true;
        Opened::Part
    }

    /// Whether the next part of a stream waits until most of the last one has left.
    pub(super) fn awaits_drain(&self) -> bool {
        self.awaits_drain
    }

    /// Most of what was written has left: asks for the next part.
    pub(super) fn resume(&mut self, context: &mut Context<'_>) {
        if std::mem::take(&mut self.awaits_drain) {
            self.ask(context);
        }
    }

    /// Keeps what is delivered before all subscriptions are made.
    pub(super) fn keep(&mut self, batch: &Batch<'_>) -> Delivered {
        Delivered { count: self.hold(batch.items()), ..Delivered::NOTHING }
    }
}

/// Why no request is served that subscribes to so many channels, for an event stream and for a poll.
fn refusal_of(channels: usize, context: &mut Context<'_>) -> Option<(CloseReason, HttpError)> {
    if context.overloaded || context.is_spare {
        if !context.is_spare {
            context.outputs.push(Output::Refused);
        }
        return Some((CloseReason::Overloaded, HttpError::overloaded()));
    }
    let verdict = context.take_rate(Rate::Subscriptions, channels);
    (verdict != RateVerdict::Allow)
        .then(|| (CloseReason::TooManyRequests, HttpError::rate_exceeded()))
}

/// What the answer to a subscription leads to.
#[derive(Debug)]
pub(super) enum Opened {
    /// Other answers are missing.
    Wait,
    /// A part of what a stream missed is written, and the next one waits until most of it has left.
    Part,
    /// The request is answered.
    Answered,
    /// The request is answered, and the connection ends.
    Closed,
    /// The poll waits.
    Poll(Poll),
    /// The event stream has begun.
    Stream(EventStream),
}

/// What follows a reply.
enum Step {
    Wait,
    Refuse(HttpError),
    Finish,
}

impl Opening {
    /// Bytes that it keeps in memory. Items that are delivered meanwhile are not among them: a fan-out
    /// does not report them.
    pub(super) fn heap_bytes(&self) -> usize {
        let places = self.places.capacity() * size_of::<Place>();
        places + self.tokens.heap_bytes() + self.recovered_bytes
    }

    /// Subscribes to its channels.
    pub(super) fn ask(&self, context: &mut Context<'_>) {
        for (index, place) in self.places.iter().enumerate() {
            let ticket = Ticket::new(u32::try_from(index + 1).expect("they are few"));
            let since = self.since.as_ref().map(|positions| positions[index]);
            let request = Request::subscribe(place.channel.clone(), since);
            context.request(ticket, Actor::Client, request.with_token(self.tokens.get(index)));
        }
    }

    /// Prepares the next part of a stream, which continues from these places.
    fn restart(&mut self, places: Places) {
        let places = match places {
            Places::One(place) => vec![place],
            Places::Many(places) => places.into_vec(),
        };
        self.since = Some(places.iter().map(|place| place.position).collect());
        self.replies_left = places.len();
        self.places = places;
        (self.has_gap, self.has_more, self.recovered_bytes) = (false, false, 0);
        self.has_begun = true;
    }

    /// The framing of an event stream that has begun.
    pub(super) fn begun_stream(&self) -> Option<StreamFraming> {
        match self.kind {
            OpeningKind::Stream(framing) if self.has_begun => Some(framing),
            OpeningKind::Stream(_) | OpeningKind::Poll(_) => None,
        }
    }

    /// Whether it is cut off by a disconnect, rather than answered: an event stream that has begun, or whose client is
    /// to come back, as a browser does only after a connection that failed.
    pub(super) fn is_cut_by(&self, disconnect: &Disconnect) -> bool {
        let is_stream = matches!(self.kind, OpeningKind::Stream(_));
        is_stream && (self.has_begun || disconnect.may_return())
    }

    /// Ends an event stream that has begun, or one that is refused, so that its client reconnects. Returns false for
    /// any other request.
    pub(super) fn end_stream(&self, is_refused: bool, context: &mut Context<'_>) -> bool {
        match self.kind {
            OpeningKind::Stream(framing) if is_refused && !self.has_begun => {
                self.exchange.refuse_stream(CloseReason::Overloaded, framing, context);
                true
            }
            // Its head is written: the connection is cut.
            OpeningKind::Stream(_) => self.has_begun,
            OpeningKind::Poll(_) => false,
        }
    }

    fn count(&mut self, ticket: Ticket, reply: &Reply) -> Step {
        let index = ticket.number() as usize - 1;
        if index >= self.places.len() {
            return Step::Wait;
        }
        match reply {
            Reply::Refused(refusal) => Step::Refuse(HttpError::refused(*refusal)),
            Reply::Rejected(error) => Step::Refuse(HttpError::rejected(error)),
            Reply::Subscribed { channel, position, recovery, .. } => {
                let since = self.since.as_ref().map(|positions| positions[index]);
                let position = match since {
                    None => *position,
                    Some(since) => self.go_on(since, *position, recovery.as_ref()),
                };
                // The hub's name may be shared with other subscribers.
                self.places[index] = Place { channel: channel.clone(), position };
                self.replies_left -= 1;
                if self.replies_left == 0 { Step::Finish } else { Step::Wait }
            }
            Reply::Connected(_)
            | Reply::Refreshed { .. }
            | Reply::SubscriptionRefreshed { .. }
            | Reply::Unsubscribed { .. }
            | Reply::SubscriptionExpired { .. }
            | Reply::Published { .. }
            | Reply::Outdated { .. }
            | Reply::History { .. }
            | Reply::Presence { .. }
            | Reply::PresenceStats { .. }
            | Reply::Channels { .. }
            | Reply::Returned(_)
            | Reply::Connections { .. }
            | Reply::Done => Step::Wait,
        }
    }

    /// Takes what a channel, which stands at `top` now, has behind a position. Returns the position from which these
    /// publications lead on.
    fn go_on(&mut self, since: Position, top: Position, recovery: Option<&Recovery>) -> Position {
        let publications = recovery.map_or(&[][..], |recovery| &recovery.publications);
        let bytes = publications.iter().map(|item| item.heap_bytes());
        self.recovered_bytes +=
            bytes.sum::<usize>() + publications.len() * PUBLICATION_BYTES as usize;
        self.items.extend(publications.iter().cloned().map(Item::Publication));
        self.has_more |= recovery.is_some_and(|recovery| recovery.has_more);
        // A channel that keeps nothing has lost nothing either as long as it stands where it stood.
        let is_complete = since == top || recovery.is_some_and(|recovery| recovery.is_complete);
        self.has_gap |= !is_complete;
        match publications.first() {
            _ if is_complete => since,
            Some(first) => Position { offset: first.position.offset - 1, ..first.position },
            None => top,
        }
    }

    fn hold(&mut self, items: &[Item]) -> usize {
        self.items.extend_from_slice(items);
        if self.items.len() > OPENING_PUBLICATIONS_MAX {
            self.has_gap = true;
            for publication in std::mem::take(&mut self.items).iter().filter_map(Item::publication)
            {
                advance(&mut self.places, publication);
            }
        }
        items.len()
    }
}

/// Checks that the position in so many channels fits where the client sends it back: the head of a request that is the
/// same otherwise, or a cookie. Without this, a client that reconnects would be refused once its positions have grown.
fn check_position_size(
    head: &Head<'_>,
    count: usize,
    kind: OpeningKind,
    settings: &TransportSettings,
) -> Result<(), String> {
    let position_bytes = Places::bytes_max(count);
    if let OpeningKind::Poll(PollOptions { form: PollForm::One, .. }) = kind
        && CookieName::BYTES + "=".len() + position_bytes > COOKIE_BYTES_MAX
    {
        return Err(format!(
            "channels: the position in {count} of them may not fit a cookie, which has at most {COOKIE_BYTES_MAX} \
             bytes: ask with since=, or name fewer"
        ));
    }
    // The header that has the position in this request will have the next one.
    let brought = ["last-event-id", "if-none-match"].iter().flat_map(|name| {
        head.header(name).map(|value| name.len() + ": ".len() + value.len() + "\r\n".len())
    });
    let rest_bytes = head.head_bytes.saturating_sub(brought.sum());
    let next_bytes = rest_bytes + POSITION_HEADER_BYTES + position_bytes;
    let head_bytes_max = settings.head.head_bytes_max;
    if next_bytes > head_bytes_max as usize {
        return Err(format!(
            "channels: the next request brings the position in {count} of them, and its head has at most \
             {head_bytes_max} bytes: name fewer"
        ));
    }
    Ok(())
}

/// The header `Last-Event-ID` of a client that reconnects; an empty one counts as none.
fn last_event_id<'h>(head: &Head<'h>) -> Option<Cow<'h, str>> {
    // Bytes that are not text are not a position either.
    head.header("last-event-id").next().map(String::from_utf8_lossy).filter(|id| !id.is_empty())
}

/// What is in an entity tag (RFC 9110 8.8.3), without what this server and those that compress append to it: `-gzip`,
/// `-br`, `;gzip`.
fn position_of_tag(tag: &str) -> &str {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    tag.split(['-', ';']).next().unwrap_or(tag)
}

/// The last one of a query's values that has one of these names.
fn parameter<'h>(head: &Head<'h>, names: &[&str]) -> Result<Option<Cow<'h, str>>, HttpFault> {
    let mut found = None;
    for pair in query_pairs(head.query) {
        if names.contains(&pair.name.as_ref()) {
            found = Some(pair.value()?);
        }
    }
    Ok(found)
}

fn cookie_of(head: &Head<'_>, form: PollForm, channels: &[ChannelName]) -> Since {
    let name = form.cookie(channels.iter().map(ChannelName::as_str));
    let value = name.and_then(|name| head.header("cookie").find_map(|header| name.find(header)));
    value.map_or(Since::Now, |value| Since::of(value, channels.len()))
}
