//! Where a client stands in each of the channels that it named.

use std::fmt;

use crate::message::{ChannelName, Epoch, Position, PositionError, Publication};

/// A client's channels, in the order in which it named them, with the place of each. Written as the positions, joined
/// by `_`, which headers, cookies and queries take as it is.
#[derive(Debug)]
pub enum Places {
    /// The common case owns no memory of its own.
    One(Place),
    /// At least two.
    Many(Box<[Place]>),
}

/// The place in one channel.
#[derive(Debug)]
pub struct Place {
    /// The channel's name.
    pub channel: ChannelName,
    /// The last publication that the client has, or that it may assume to have.
    pub position: Position,
}

impl Places {
    /// `places` has at least one.
    pub fn new(mut places: Vec<Place>) -> Self {
        match places.len() {
            1 => Self::One(places.remove(0)),
            _ => Self::Many(places.into_boxed_slice()),
        }
    }

    /// Bytes that the places in so many channels are written in, however far their channels have come.
    pub fn bytes_max(count: usize) -> usize {
        count * (POSITION_BYTES_MAX + SEPARATOR.len())
    }

    /// All of them.
    pub fn all(&self) -> &[Place] {
        match self {
            Places::One(place) => std::slice::from_ref(place),
            Places::Many(places) => places,
        }
    }

    /// Goes on behind a publication.
    pub fn advance(&mut self, publication: &Publication) {
        match self {
            Places::One(place) => advance(std::slice::from_mut(place), publication),
            Places::Many(places) => advance(places, publication),
        }
    }
}

/// Goes on behind a publication. A channel that was not named has no place.
pub fn advance(places: &mut [Place], publication: &Publication) {
    if let Some(place) = places.iter_mut().find(|it| it.channel == publication.channel) {
        place.position = publication.position;
    }
}

impl Place {
    /// The place in a channel of which nothing has been heard.
    pub fn unknown(channel: ChannelName) -> Self {
        Self { channel, position: Position { epoch: Epoch(0), offset: 0 } }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.all().iter().enumerate() {
            if index > 0 {
                out.write_str(SEPARATOR)?;
            }
            write!(out, "{}", place.position)?;
        }
        Ok(())
    }
}

/// Reads what [`Places`] are written as: exactly one position for each of `count` channels.
pub fn parse_positions(text: &str, count: usize) -> Result<Vec<Position>, PositionError> {
    let positions: Vec<Position> =
        text.split(SEPARATOR).take(count + 1).map(str::parse).collect::<Result<_, _>>()?;
    if positions.len() == count { Ok(positions) } else { Err(PositionError) }
}

const SEPARATOR: &str = "_";

/// An offset of 64 bits and an epoch of 32.
const POSITION_BYTES_MAX: usize = "18446744073709551615:ffffffff".len();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Payload, PayloadKind};

    fn place(channel: &str, offset: u64) -> Place {
        let channel = ChannelName::new(channel).unwrap();
        Place { channel, position: Position { epoch: Epoch(1), offset } }
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        let places = Places::new(vec![place("a", 7), place("b", 0)]);
        assert_eq!(places.to_string(), "7:00000001_0:00000001");
        let farthest = Position { epoch: Epoch(u32::MAX), offset: u64::MAX };
        assert_eq!(farthest.to_string().len(), POSITION_BYTES_MAX);
        let read = parse_positions(&places.to_string(), 2).unwrap();
        assert_eq!(read, [places.all()[0].position, places.all()[1].position]);
        for (bad, count) in [
            ("", 1),
            ("7:00000001", 2),
            ("7:00000001_0:00000001", 1),
            ("7:00000001_", 1),
            ("7:00000001_", 2),
            ("_7:00000001", 2),
            ("x", 1),
        ] {
            assert_eq!(parse_positions(bad, count), Err(PositionError), "{bad} of {count}");
        }
    }

    #[test]
    fn publications_of_named_channels_lead_on() {
        let mut places = Places::new(vec![place("a", 7), place("b", 0)]);
        let mut advance = |channel, offset| {
            places.advance(&Publication {
                channel: ChannelName::new(channel).unwrap(),
                position: Position { epoch: Epoch(1), offset },
                payload: Payload::new(PayloadKind::Text, "1"),
                info: None,
                accepted_us: 0,
                excludes: None,
                in_stream: true,
            });
            places.to_string()
        };
        assert_eq!(advance("b", 1), "7:00000001_1:00000001");
        assert_eq!(advance("c", 9), "7:00000001_1:00000001");
        assert_eq!(advance("a", 8), "8:00000001_1:00000001");
    }
}
