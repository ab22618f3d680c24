//! The channels in a query, and parameters that are likely meant to name them.

use crate::message::ChannelName;
use crate::protocol::http1::{Head, HttpFault, query_pairs};

/// The channels that the query names, each once; the lobby if it names none. The inner error is a sentence.
pub(super) fn channels_of(
    head: &Head<'_>,
    channels_max: usize,
) -> Result<Result<Vec<ChannelName>, String>, HttpFault> {
    let mut channels: Vec<ChannelName> = Vec::new();
    let mut short = None;
    for pair in query_pairs(head.query) {
        if pair.name != "channel" {
            if SHORT_FOR_CHANNEL.contains(&&*pair.name) {
                short = Some(pair.name.clone());
            }
            if let Some(meant) = misspelt(&pair.name) {
                return Ok(Err(format!(
                    "unknown parameter {:?}, did you mean {meant}?",
                    pair.name
                )));
            }
            continue;
        }
        let channel = match ChannelName::new(&pair.value()?) {
            Ok(channel) => channel,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if channels.contains(&channel) {
            continue;
        }
        if channels.len() == channels_max {
            return Ok(Err(format!("channels: at most {channels_max} may be named here")));
        }
        channels.push(channel);
    }
    if channels.is_empty() {
        if let Some(name) = short {
            return Ok(Err(format!("unknown parameter {name:?}, did you mean channel?")));
        }
        channels.push(ChannelName::new(LOBBY).expect("a name"));
    }
    Ok(Ok(channels))
}

/// The parameter that someone meant who wrote this name: a request with `chanel=a` is not one for the lobby. Names that
/// differ from all of these by more than one letter, such as `utm_source` or `size`, are those of others.
fn misspelt(name: &str) -> Option<&'static str> {
    let plain = name.split('[').next().unwrap_or(name).to_ascii_lowercase();
    let is_near = |known: &str| {
        plain.starts_with(&known[..2]) && strsim::damerau_levenshtein(&plain, known) <= 1
    };
    let is_known = PARAMETERS.contains(&name) || name == LAST_EVENT_ID;
    if is_known { None } else { PARAMETERS.iter().copied().find(|known| is_near(known)) }
}

/// Parameters of the addresses that have channels.
const PARAMETERS: [&str; 4] = ["channel", "since", "timeout", "event"];

/// What may be short for `channel`, or mean it elsewhere (Mercure's `topic`). Others may have such parameters too, so
/// they are refused only where no channel is named.
const SHORT_FOR_CHANNEL: [&str; 7] = ["chan", "chans", "chn", "chnl", "chnls", "topic", "topics"];

/// What polyfills of EventSource send in place of the header.
const LAST_EVENT_ID: &str = "lastEventId";

/// Where a client that names no channel goes.
const LOBBY: &str = "lobby";
