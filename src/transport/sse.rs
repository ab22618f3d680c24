//! Event streams: an HTTP answer that goes on, one event a publication.
//!
//! Each event's `id` is where the client stands in all of its channels once it has the event. For one channel that is
//! the publication's own position, so all clients share the whole event. For several it differs from client to client:
//! an `id` line of the client's own comes first, and the rest of the event, which is shared, behind it.
//!
//! # How a stream begins, and how it ends
//!
//! The first block is an event of a type of its own, `position` or `gap`: several libraries take a block without data
//! for a message (`fetch-event-source`, `httpx-sse`, `aiosseclient`, r3labs/sse, Jersey), and what they hand over then
//! is not JSON. It has the position, so that a client that loses its connection before the first event misses nothing.
//!
//! To HTTP/1.1 the stream is sent in chunks, one for each event: proxies and clients pass chunks on as they come, and
//! hold back what only the end of the connection delimits. The chunks are the same for everyone. A stream whose client
//! is to come back ends without the last chunk: that is a network error, after which all libraries come back with
//! `Last-Event-ID`, whereas r3labs/sse 2.10 takes a regular end for the end of all. The last chunk is for a client that
//! shall not come back; if it does all the same, its last event's id says so, and it is answered with 204 (WHATWG HTML
//! 9.2.3).
//!
//! No comment is written: go-sse 0.12 takes a stream that ends behind one for the end of all, and Jersey and Spring
//! make an event of it. A heartbeat is a `retry:` line, which has no effect but its own.

use std::convert::Infallible;
use std::time::Duration;

use super::context::{Context, Flow, Output};
use super::contract::{Traits, Transport};
use super::places::Places;
use super::prepared::{Batch, Delivered, WireForm};
use super::retry::{Retry, spread};
use super::settings::TransportSettings;
use super::stream_form::StreamFraming;
use crate::message::{
    ChannelName, ClientId, CloseReason, Disconnect, Item, Origin, Recovery, Reply, TransportKind,
};
use crate::protocol::http1::{LAST_CHUNK, begin_chunk};
use crate::protocol::{json, sse};

/// One client's event stream after its head.
#[derive(Debug)]
pub enum EventStream {
    /// A stream of one channel.
    One {
        /// The channel's name.
        channel: ChannelName,
        /// The server API subscribed it to others, whose positions must not become its id.
        has_others: bool,
        /// What delimits its events.
        framing: StreamFraming,
    },
    /// A stream of several channels.
    Many {
        /// Where it stands in each.
        places: Box<Places>,
        /// What delimits its events.
        framing: StreamFraming,
    },
}

impl EventStream {
    /// The id of the last event of a client that shall not come back.
    pub const ENDED: &str = "ended";

    /// Appends the first block: where it begins, and that something was missed if `has_gap`.
    pub fn write_first(
        places: &Places,
        has_gap: bool,
        framing: StreamFraming,
        context: &mut Context<'_>,
    ) {
        let retry = Retry::Soon.stream_ms(context.client);
        framing.write(context.out, |out| {
            sse::write_retry(out, retry);
            sse::write_id(out, places);
            // A gap is sent in the same block: a client that had the position alone would come back with it, and never
            // learn of the loss.
            match has_gap {
                true => write_gap(out),
                false => sse::write_event(out, "position", &"{}"),
            }
        });
    }

    /// Appends that something was missed before the publications that follow.
    pub fn write_gap_at(places: &Places, framing: StreamFraming, context: &mut Context<'_>) {
        framing.write(context.out, |out| {
            sse::write_id(out, places);
            write_gap(out);
        });
    }

    /// Appends items whose publications follow `places` and lead them on, as many as fit an answer. Returns whether
    /// these are all.
    pub fn write_missed(
        places: &mut Places,
        items: &[Item],
        framing: StreamFraming,
        context: &mut Context<'_>,
    ) -> bool {
        let start = context.out.len();
        for item in items {
            if context.out.len() - start > context.settings.recovery_bytes_max {
                return false;
            }
            if let Item::Publication(publication) = item {
                places.advance(publication);
            }
            framing.write(context.out, |out| {
                sse::write_id(out, places);
                sse::write_item(out, item);
            });
        }
        true
    }

    /// A stream that has written all that came before.
    pub fn new(places: Places, framing: StreamFraming, context: &mut Context<'_>) -> Self {
        let life = Self::life(context.client, context.settings);
        context.outputs.push(Output::Deadline(context.settings.keepalive_interval.min(life)));
        match places {
            Places::One(place) => Self::One { channel: place.channel, has_others: false, framing },
            many @ Places::Many(_) => Self::Many { places: Box::new(many), framing },
        }
    }

    /// Writes a stream whose head is written, and that ends at once, because the server has no room for it, could not
    /// begin it in time, or is asked too often. An error's status would end it for good (WHATWG HTML 9.2.3).
    pub fn refuse(reason: CloseReason, framing: StreamFraming, context: &mut Context<'_>) {
        let retry = Retry::Later.stream_ms(context.client);
        framing.write(context.out, |out| {
            sse::write_retry(out, retry);
            write_disconnect(out, &reason.into());
        });
    }

    /// How long a stream lives, which is not the same for all, so that those that came together do not come back
    /// together. Some proxies never tell that a client left, and a client that is there misses nothing by coming back.
    pub fn life(client: ClientId, settings: &TransportSettings) -> Duration {
        let longest_ms = u32::try_from(settings.stream_lifetime.as_millis()).unwrap_or(u32::MAX);
        let shortest_ms = longest_ms - longest_ms / 4;
        Duration::from_millis(spread(client, shortest_ms..=longest_ms).into())
    }

    /// Appends why the server ends a stream, and whether it is over for good.
    pub fn write_end(framing: StreamFraming, disconnect: &Disconnect, out: &mut Vec<u8>) {
        let is_final = disconnect.reason == CloseReason::Forced;
        framing.write(out, |out| {
            if is_final {
                sse::write_id(out, &Self::ENDED);
            }
            write_disconnect(out, disconnect);
        });
        if is_final && framing == StreamFraming::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }

    fn framing(&self) -> StreamFraming {
        match self {
            Self::One { framing, .. } | Self::Many { framing, .. } => *framing,
        }
    }
}

impl Transport for EventStream {
    type Next = Infallible;

    fn traits(&self) -> Traits {
        Traits { accepts_server_subscriptions: true, ..Traits::of(TransportKind::Sse) }
    }

    /// An event stream ends with its connection: a request behind it is never answered.
    fn receive(&mut self, _: &mut [u8], _: &mut Context<'_>) -> Flow {
        Flow::Receive
    }

    /// A stream asks for nothing: a reply tells what the server API did.
    fn reply(&mut self, _: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        let framing = self.framing();
        match reply {
            Reply::Subscribed { channel, recovery, .. } => {
                if let Self::One { has_others, .. } = self {
                    *has_others = true;
                }
                framing.write(context.out, |out| write_change(out, "subscribe", channel));
                if let Some(Recovery { is_complete, publications, .. }) = recovery {
                    if !is_complete {
                        framing.write(context.out, write_gap);
                    }
                    for publication in publications.iter() {
                        let payload = &publication.payload;
                        framing.write(context.out, |out| sse::write_payload(out, payload));
                    }
                }
            }
            Reply::Unsubscribed { channel } | Reply::SubscriptionExpired { channel } => {
                framing.write(context.out, |out| write_change(out, "unsubscribe", channel));
            }
            Reply::Connected(_)
            | Reply::Refreshed { .. }
            | Reply::SubscriptionRefreshed { .. }
            | Reply::Published { .. }
            | Reply::Outdated { .. }
            | Reply::History { .. }
            | Reply::Presence { .. }
            | Reply::PresenceStats { .. }
            | Reply::Channels { .. }
            | Reply::Connections { .. }
            | Reply::Done
            | Reply::Returned(_)
            | Reply::Rejected(_)
            | Reply::Refused(_) => {}
        }
        Flow::Receive
    }

    fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        out: &mut Vec<u8>,
        _: &TransportSettings,
    ) -> Delivered {
        match self {
            Self::One { channel, has_others: true, framing } if batch.channel() != channel => {
                framing.deliver_with(batch, out, |_, _| {})
            }
            Self::One { framing, .. } => {
                let form = match framing {
                    StreamFraming::Chunked => WireForm::EventStreamChunk,
                    StreamFraming::Close => WireForm::EventStream,
                };
                Delivered::shared(batch, form)
            }
            Self::Many { places, framing } => framing.deliver_with(batch, out, |item, out| {
                if let Item::Publication(publication) = item {
                    places.advance(publication);
                }
                sse::write_id(out, &**places);
            }),
        }
    }

    /// Sends a heartbeat, which proves to proxies that the stream lives. It is not a block of its own: some clients
    /// take an empty one for an event. `silence` is the age of the stream, because its client says nothing behind the
    /// request.
    fn expire(&mut self, silence: Duration, is_busy: bool, context: &mut Context<'_>) -> Flow {
        let interval = context.settings.keepalive_interval;
        let left = Self::life(context.client, context.settings).saturating_sub(silence);
        if left.is_zero() {
            self.disconnect(&CloseReason::StreamLifetime.into(), false, context);
            return context.close(CloseReason::StreamLifetime);
        }
        if is_busy {
            context.outputs.push(Output::Deadline(interval));
            return Flow::Receive;
        }
        let retry = Retry::Soon.stream_ms(context.client);
        self.framing().write(context.out, |out| sse::write_retry(out, retry));
        context.outputs.push(Output::Deadline(interval.min(left)));
        Flow::Receive
    }

    /// Proxies close their end when a client leaves, and no client waits for the rest of a stream.
    fn end(&mut self, context: &mut Context<'_>) -> Flow {
        context.close(CloseReason::ClientGone)
    }

    /// Says why the server ends the stream, and whether it is over for good.
    fn disconnect(
        &mut self,
        disconnect: &Disconnect,
        is_incomplete: bool,
        context: &mut Context<'_>,
    ) {
        // What was dropped may be the rest of an event whose id, or the size of whose chunk, was sent already: what
        // follows must not become the data of that event or a part of that chunk, and the id must not be that of an
        // event that never came.
        let may_be_cut = matches!(self, Self::Many { .. } | Self::One { has_others: true, .. });
        if !(is_incomplete && may_be_cut) {
            Self::write_end(self.framing(), disconnect, context.out);
        }
    }
}

impl StreamFraming {
    /// Delivers items, each behind what `write_own` writes for this client alone.
    fn deliver_with(
        self,
        batch: &mut Batch<'_>,
        out: &mut Vec<u8>,
        mut write_own: impl FnMut(&Item, &mut Vec<u8>),
    ) -> Delivered {
        let items = batch.items();
        let count = items.len();
        if let [item] = items {
            let start = out.len();
            write_own(item, out);
            let frame = match self {
                StreamFraming::Chunked => {
                    let frame = batch.frame(WireForm::EventStreamChunkRest);
                    begin_chunk(out, start, frame.len() as usize - CRLF_BYTES);
                    frame
                }
                StreamFraming::Close => batch.frame(WireForm::EventStreamRest),
            };
            return Delivered { count, frame: Some(frame), ..Delivered::NOTHING };
        }
        // Small ones, as they left together: copying them is cheaper than as many segments.
        for item in items {
            self.write(out, |out| {
                write_own(item, out);
                sse::write_item(out, item);
            });
        }
        Delivered { count, ..Delivered::NOTHING }
    }
}

fn write_gap(out: &mut Vec<u8>) {
    sse::write_event(out, "gap", &"{\"recovered\":false}");
}

fn write_change(out: &mut Vec<u8>, event: &str, channel: &ChannelName) {
    let mut data = b"{\"channel\":".to_vec();
    json::write_text(&mut data, channel.as_str());
    data.push(b'}');
    sse::write_event(out, event, &String::from_utf8_lossy(&data));
}

fn write_disconnect(out: &mut Vec<u8>, disconnect: &Disconnect) {
    let mut data = format!("{{\"code\":{},\"reason\":", disconnect.disconnect_code()).into_bytes();
    json::write_text(&mut data, disconnect.text());
    data.push(b'}');
    sse::write_event(out, "disconnect", &String::from_utf8_lossy(&data));
}

/// What ends a chunk.
const CRLF_BYTES: usize = 2;
