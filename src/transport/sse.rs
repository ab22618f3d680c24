//! Event streams: an HTTP answer that goes on, one event a publication.
//!
//! Each event's `id` is where the client stands in all of its channels once it has the event. For one channel that is
//! the publication's own position, so all clients share the whole event. For several it differs from client to client:
//! an `id` line of the client's own comes first, and the rest of the event, which is shared, behind it.
//!
//! The answer has no length and is not sent in chunks: it ends with its connection, which HTTP/1.0 understands too, and
//! the bytes of an event are the same for everyone.

use std::sync::Arc;

use super::places::Places;
use super::{Batch, Context, Delivered, Output, WireForm};
use crate::config::limits::EVENT_STREAM_RETRY;
use crate::message::{ChannelName, Farewell, Publication, Recovery, Reply};
use crate::protocol::{json, sse};

/// One client's event stream after its head.
#[derive(Debug)]
pub enum EventStream {
    /// Of one channel.
    One {
        /// Which.
        channel: ChannelName,
        /// The server API subscribed it to others, whose positions must not become its id.
        has_others: bool,
    },
    /// Of several.
    Many(Box<Places>),
}

impl EventStream {
    /// Begins a stream whose head is written: says where it begins, that something was missed if `has_gap`, and
    /// `publications`, which follow `places`. `None` if that is too much for one answer: the client comes back for the
    /// rest.
    pub fn begin(
        mut places: Places,
        has_gap: bool,
        publications: &[Arc<Publication>],
        context: &mut Context<'_>,
    ) -> Option<Self> {
        let start = context.out.len();
        sse::write_retry(context.out, EVENT_STREAM_RETRY);
        // Told at once, so that who loses the connection before the first event misses nothing either. A loss is told
        // in the same block: a client that had the place alone would come back with it, and never learn of the loss.
        sse::write_id(context.out, &places);
        if has_gap {
            write_gap(context.out);
        } else {
            sse::end_block(context.out);
        }
        for publication in publications {
            if context.out.len() - start > context.settings.recovery_bytes_max {
                return None;
            }
            places.advance(publication);
            sse::write_id(context.out, &places);
            sse::write_payload(context.out, &publication.payload);
        }
        context.outputs.push(Output::Deadline(context.settings.keepalive_interval));
        Some(match places {
            Places::One(place) => Self::One { channel: place.channel, has_others: false },
            many @ Places::Many(_) => Self::Many(Box::new(many)),
        })
    }

    /// Takes publications: appends what only this client gets; the frame goes behind it.
    pub fn deliver(&mut self, batch: &mut Batch<'_>, out: &mut Vec<u8>) -> Delivered {
        let publications = batch.publications();
        let count = publications.len();
        match self {
            Self::One { channel, has_others } => {
                let is_other = *has_others && publications[0].channel != *channel;
                let form = if is_other { WireForm::EventStreamRest } else { WireForm::EventStream };
                Delivered { count, frame: Some(batch.frame(form)) }
            }
            Self::Many(places) if count == 1 => {
                places.advance(&publications[0]);
                sse::write_id(out, &**places);
                Delivered { count, frame: Some(batch.frame(WireForm::EventStreamRest)) }
            }
            // Small ones, as they left together: copying them is cheaper than as many segments.
            Self::Many(places) => {
                for publication in publications {
                    places.advance(publication);
                    sse::write_id(out, &**places);
                    sse::write_payload(out, &publication.payload);
                }
                Delivered { count, frame: None }
            }
        }
    }

    /// Takes what the server API did.
    pub fn reply(&mut self, reply: &Reply, context: &mut Context<'_>) {
        match reply {
            Reply::Subscribed { channel, recovery, .. } => {
                if let Self::One { has_others, .. } = self {
                    *has_others = true;
                }
                write_news(context.out, "subscribe", channel);
                if let Some(Recovery { is_complete, publications }) = recovery {
                    if !is_complete {
                        write_gap(context.out);
                    }
                    for publication in publications.iter() {
                        sse::write_payload(context.out, &publication.payload);
                    }
                }
            }
            Reply::Unsubscribed { channel } => write_news(context.out, "unsubscribe", channel),
            Reply::Published { .. }
            | Reply::History { .. }
            | Reply::Presence { .. }
            | Reply::Channels { .. }
            | Reply::Done
            | Reply::Refused(_) => {}
        }
    }

    /// Proves life to whatever is between the two ends. Not a block of its own: some clients take an empty one for an
    /// event.
    pub fn keep_alive(&self, context: &mut Context<'_>) {
        sse::write_comment(context.out, "");
        context.outputs.push(Output::Deadline(context.settings.keepalive_interval));
    }

    /// Says why the server ends it, to whoever reads comments; all others come back.
    pub fn say_goodbye(&self, farewell: &Farewell, out: &mut Vec<u8>) {
        sse::write_comment(out, farewell.text());
    }
}

fn write_gap(out: &mut Vec<u8>) {
    sse::write_event(out, "gap", &"{\"recovered\":false}");
}

fn write_news(out: &mut Vec<u8>, event: &str, channel: &ChannelName) {
    let mut data = b"{\"channel\":".to_vec();
    json::write_text(&mut data, channel.as_str());
    data.push(b'}');
    sse::write_event(out, event, &String::from_utf8_lossy(&data));
}
