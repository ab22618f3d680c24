//! What few publications ask for, beside their payload.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::ClientId;

/// What a publication asks for beside its payload. It is shared by the publications of one broadcast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// A second publication with the same key within five minutes gets the reply of the first, and is not delivered.
    pub idempotency_key: Option<Arc<str>>,
    /// Where the channel has a history: the publication is dropped unless its version is newer than the channel's.
    pub version: Option<Version>,
    /// A subscriber that does not receive it when it is published.
    pub exclude: Option<ClientId>,
    /// Whether subscribers that take deltas may be sent what differs from the publication before it.
    pub delta: bool,
    /// Where the channel has a history: the publication is delivered, and is not a part of the stream.
    pub skip_history: bool,
}

/// The version of a state that a publication has. A channel with a history has the version of the last publication that
/// had one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Newer versions have greater numbers.
    pub number: NonZeroU64,
    /// Distinguishes versions that are counted from the start again: those of another epoch are newer. An empty one
    /// matches that of the channel, whatever it is.
    pub epoch: Arc<str>,
}

impl PublishOptions {
    /// Approximate number of bytes that they take on the heap.
    pub fn heap_bytes(&self) -> usize {
        let key = self.idempotency_key.as_ref().map_or(0, |key| key.len());
        let version = self.version.as_ref().map_or(0, |version| version.epoch.len());
        size_of::<Self>() + key + version
    }
}

impl Version {
    /// Whether it is newer than the version of a channel.
    pub fn follows(&self, current: &Version) -> bool {
        let is_comparable = self.epoch.is_empty() || self.epoch == current.epoch;
        !is_comparable || self.number > current.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_follows_smaller_ones_of_its_epoch_and_all_of_others() {
        let version = |number, epoch: &str| Version {
            number: NonZeroU64::new(number).unwrap(),
            epoch: epoch.into(),
        };
        let current = version(5, "a");
        for (number, epoch, follows) in [
            (4, "a", false),
            (5, "a", false),
            (6, "a", true),
            (4, "", false),
            (5, "", false),
            (6, "", true),
            (1, "b", true),
            (u64::MAX, "a", true),
        ] {
            assert_eq!(version(number, epoch).follows(&current), follows, "{number} {epoch}");
        }
        assert!(version(1, "a").follows(&version(5, "")), "another epoch");
    }
}
