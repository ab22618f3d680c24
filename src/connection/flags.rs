//! The small facts of a connection, packed into one word of its entry.

use crate::config::limits::INVALID_TOKENS_MAX;
use crate::message::TransportKind;

/// Where a connection is in its life, why it is not read, how it is counted, and its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What the peer sends is processed.
    Open,
    /// What is queued is sent, then our end is closed, then the peer's end is waited for.
    Closing,
    /// The socket is being closed; its slot is not free yet.
    Dead,
}

/// A reason to receive nothing from a peer. Several may hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Its send queue is past the high watermark.
    Queue,
    /// It publishes, and a worker is behind with its fan-outs.
    Congestion,
    /// Its request must be answered before the next one is read.
    Reply,
    /// One of its requests waits until fewer long answers are under way.
    Answers,
    /// Its bytes come faster than they may.
    Rate,
    /// A step of its TLS handshake waits for its turn.
    Handshake,
}

impl Flags {
    /// An open connection that nothing has happened to.
    pub fn new(counted: TransportKind) -> Self {
        Self((counted as u32) << COUNTED_SHIFT)
    }

    /// Where the connection is in its life.
    pub fn stage(self) -> Stage {
        match self.0 & STAGE_MASK {
            0 => Stage::Open,
            1 => Stage::Closing,
            _ => Stage::Dead,
        }
    }

    /// Enters a stage of its life. Returns the one before.
    pub fn set_stage(&mut self, stage: Stage) -> Stage {
        let before = self.stage();
        self.0 = self.0 & !STAGE_MASK | stage as u32;
        before
    }

    /// Whether it is open.
    pub fn is_open(self) -> bool {
        self.stage() == Stage::Open
    }

    /// Whether nothing is received, for whatever reason.
    pub fn is_paused(self) -> bool {
        self.0 & PAUSES_MASK != 0
    }

    /// Whether nothing is received for this reason.
    pub fn is_paused_by(self, pause: Pause) -> bool {
        self.has(pause.bit())
    }

    /// Adds a reason to receive nothing, or takes it away.
    pub fn set_paused_by(&mut self, pause: Pause, is_paused: bool) {
        self.set(pause.bit(), is_paused);
    }

    /// The transport as which it is counted: an index of [`TransportKind::LABELS`].
    pub fn counted(self) -> usize {
        (self.0 >> COUNTED_SHIFT) as usize
    }

    /// Counts it as another transport.
    pub fn set_counted(&mut self, transport: TransportKind) {
        self.0 = self.0 & !(u32::MAX << COUNTED_SHIFT) | (transport as u32) << COUNTED_SHIFT;
    }

    /// Whether it is in the list of connections to flush.
    pub fn is_dirty(self) -> bool {
        self.has(DIRTY)
    }

    /// Notes whether it is in the list of connections to flush.
    pub fn set_dirty(&mut self, is_dirty: bool) {
        self.set(DIRTY, is_dirty);
    }

    /// Whether the kernel has no room for more; an event follows once it has.
    pub fn is_blocked(self) -> bool {
        self.has(BLOCKED)
    }

    /// Notes whether the kernel has no room for more.
    pub fn set_blocked(&mut self, is_blocked: bool) {
        self.set(BLOCKED, is_blocked);
    }

    /// Whether the kernel took only a part of the segment in front of the queue; of an encrypted connection, whether
    /// only a part of the first segment that is not sealed was sealed.
    pub fn is_split(self) -> bool {
        self.has(SPLIT)
    }

    /// Notes whether the segment in front of the queue is a part of one: see [`Flags::is_split`].
    pub fn set_split(&mut self, is_split: bool) {
        self.set(SPLIT, is_split);
    }

    /// Whether the peer sends no more.
    pub fn has_ended(self) -> bool {
        self.has(ENDED)
    }

    /// Notes that the peer sends no more.
    pub fn set_ended(&mut self) {
        self.set(ENDED, true);
    }

    /// Whether our end was closed.
    pub fn has_finished(self) -> bool {
        self.has(FINISHED)
    }

    /// Notes that our end was closed.
    pub fn set_finished(&mut self) {
        self.set(FINISHED, true);
    }

    /// Whether the hub has a session of it.
    pub fn has_session(self) -> bool {
        self.has(SESSION)
    }

    /// Notes whether the hub has a session of it.
    pub fn set_session(&mut self, has_session: bool) {
        self.set(SESSION, has_session);
    }

    /// Whether it is a slow subscriber: its channels keep a backlog for it, which the hub is asked for once all that
    /// is queued was sent.
    pub fn is_behind(self) -> bool {
        self.has(BEHIND)
    }

    /// Notes whether it is a slow subscriber.
    pub fn set_behind(&mut self, is_behind: bool) {
        self.set(BEHIND, is_behind);
    }

    /// Whether it is beyond the maximum, so that only health checks and metrics are answered.
    pub fn is_spare(self) -> bool {
        self.has(SPARE)
    }

    /// Whether a header of the PROXY protocol is to come before the bytes of the client.
    pub fn awaits_proxy_header(self) -> bool {
        self.has(AWAITS_PROXY_HEADER)
    }

    /// Notes whether a header of the PROXY protocol is to come.
    pub fn set_awaits_proxy_header(&mut self, awaits: bool) {
        self.set(AWAITS_PROXY_HEADER, awaits);
    }

    /// Whether it counts as an unfinished handshake of its network prefix.
    pub fn counts_handshake(self) -> bool {
        self.has(COUNTS_HANDSHAKE)
    }

    /// Notes whether it counts as an unfinished handshake.
    pub fn set_counts_handshake(&mut self, counts: bool) {
        self.set(COUNTS_HANDSHAKE, counts);
    }

    /// Whether its peer is a trusted proxy, whose requests name their clients.
    pub fn is_proxied(self) -> bool {
        self.has(PROXIED)
    }

    /// Notes whether its peer is a trusted proxy.
    pub fn set_proxied(&mut self, is_proxied: bool) {
        self.set(PROXIED, is_proxied);
    }

    /// Whether it came to an address for administration, whose clients have no rates.
    pub fn is_admin(self) -> bool {
        self.has(ADMIN)
    }

    /// Notes whether it is beyond the maximum, and whether it came to an address for administration.
    pub fn set_place(&mut self, is_spare: bool, is_admin: bool) {
        self.set(SPARE, is_spare);
        self.set(ADMIN, is_admin);
    }

    /// Whether its listener offers compression to WebSockets.
    pub fn offers_deflate(self) -> bool {
        self.has(OFFERS_DEFLATE)
    }

    /// Whether its bytes are those of TLS.
    pub fn is_encrypted(self) -> bool {
        self.has(ENCRYPTED)
    }

    /// Notes what its listener is for: whether its bytes are those of TLS, and whether compression is offered.
    pub fn set_listener(&mut self, is_encrypted: bool, offers_deflate: bool) {
        self.set(ENCRYPTED, is_encrypted);
        self.set(OFFERS_DEFLATE, offers_deflate);
    }

    /// Whether its TLS handshake is to come, or under way: nothing of its conversation can be sent yet.
    pub fn awaits_tls(self) -> bool {
        self.has(AWAITS_TLS)
    }

    /// Notes whether its TLS handshake is to come.
    pub fn set_awaits_tls(&mut self, awaits: bool) {
        self.set(AWAITS_TLS, awaits);
    }

    /// Counts a token of it that was invalid, and returns how many there were, up to [`INVALID_TOKENS_MAX`].
    pub fn count_invalid_token(&mut self) -> u32 {
        let count = (self.0 >> INVALID_TOKENS_SHIFT & INVALID_TOKENS_MAX) + 1;
        if count <= INVALID_TOKENS_MAX {
            self.0 += 1 << INVALID_TOKENS_SHIFT;
        }
        count.min(INVALID_TOKENS_MAX)
    }

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    fn set(&mut self, bit: u32, value: bool) {
        self.0 = if value { self.0 | bit } else { self.0 & !bit };
    }
}

impl Pause {
    /// All of them.
    pub const ALL: [Pause; 6] = [
        Pause::Queue,
        Pause::Congestion,
        Pause::Reply,
        Pause::Answers,
        Pause::Rate,
        Pause::Handshake,
    ];

    fn bit(self) -> u32 {
        1 << (PAUSES_SHIFT + self as u32)
    }
}

// The word, from its lowest bit: the stage, the pauses, the flags, the number of invalid tokens, the transport.
const STAGE_MASK: u32 = 0b11;
const PAUSES_SHIFT: u32 = 2;
const PAUSES_MASK: u32 = 0b11_1111 << PAUSES_SHIFT;
const DIRTY: u32 = 1 << 8;
const BLOCKED: u32 = 1 << 9;
const SPLIT: u32 = 1 << 10;
const ENDED: u32 = 1 << 11;
const FINISHED: u32 = 1 << 12;
const SESSION: u32 = 1 << 13;
const BEHIND: u32 = 1 << 14;
const SPARE: u32 = 1 << 15;
const AWAITS_PROXY_HEADER: u32 = 1 << 16;
const COUNTS_HANDSHAKE: u32 = 1 << 17;
const ADMIN: u32 = 1 << 18;
const PROXIED: u32 = 1 << 19;
const ENCRYPTED: u32 = 1 << 20;
const AWAITS_TLS: u32 = 1 << 21;
const OFFERS_DEFLATE: u32 = 1 << 22;
const INVALID_TOKENS_SHIFT: u32 = 23;
const COUNTED_SHIFT: u32 = 27;

const _: () = assert!(TransportKind::LABELS.len() <= 32, "the transport has the upper 5 bits");
const _: () = assert!(INVALID_TOKENS_MAX < 1 << (COUNTED_SHIFT - INVALID_TOKENS_SHIFT));

#[cfg(test)]
mod tests {
    use super::*;

    type Setter = fn(&mut Flags, bool);
    type Getter = fn(Flags) -> bool;

    const FLAGS: [(Setter, Getter); 21] = [
        (Flags::set_dirty, Flags::is_dirty),
        (Flags::set_blocked, Flags::is_blocked),
        (Flags::set_split, Flags::is_split),
        (Flags::set_session, Flags::has_session),
        (Flags::set_behind, Flags::is_behind),
        (|flags, is| flags.set_place(is, flags.is_admin()), Flags::is_spare),
        (|flags, _| flags.set_ended(), Flags::has_ended),
        (|flags, _| flags.set_finished(), Flags::has_finished),
        (
            |flags, is| flags.set_paused_by(Pause::Queue, is),
            |flags| flags.is_paused_by(Pause::Queue),
        ),
        (
            |flags, is| flags.set_paused_by(Pause::Congestion, is),
            |flags| flags.is_paused_by(Pause::Congestion),
        ),
        (
            |flags, is| flags.set_paused_by(Pause::Reply, is),
            |flags| flags.is_paused_by(Pause::Reply),
        ),
        (
            |flags, is| flags.set_paused_by(Pause::Answers, is),
            |flags| flags.is_paused_by(Pause::Answers),
        ),
        (|flags, is| flags.set_paused_by(Pause::Rate, is), |flags| flags.is_paused_by(Pause::Rate)),
        (Flags::set_awaits_proxy_header, Flags::awaits_proxy_header),
        (Flags::set_counts_handshake, Flags::counts_handshake),
        (|flags, is| flags.set_place(flags.is_spare(), is), Flags::is_admin),
        (Flags::set_proxied, Flags::is_proxied),
        (
            |flags, is| flags.set_paused_by(Pause::Handshake, is),
            |flags| flags.is_paused_by(Pause::Handshake),
        ),
        (|flags, is| flags.set_listener(is, flags.offers_deflate()), Flags::is_encrypted),
        (Flags::set_awaits_tls, Flags::awaits_tls),
        (|flags, is| flags.set_listener(flags.is_encrypted(), is), Flags::offers_deflate),
    ];

    #[test]
    fn each_flag_changes_alone() {
        for (at, (set, _)) in FLAGS.into_iter().enumerate() {
            let mut flags = Flags::new(TransportKind::EchoTcp);
            flags.set_stage(Stage::Closing);
            let before = flags;
            set(&mut flags, true);
            let values: Vec<bool> = FLAGS.iter().map(|(_, get)| get(flags)).collect();
            let expected: Vec<bool> = (0..FLAGS.len()).map(|other| other == at).collect();
            assert_eq!(values, expected);
            assert_eq!(flags.counted(), TransportKind::EchoTcp as usize);
            assert_eq!(flags.stage(), Stage::Closing);
            set(&mut flags, false);
            // The end of either side is final.
            let is_final = (6..8).contains(&at);
            assert_eq!(flags == before, !is_final);
        }
    }

    #[test]
    fn invalid_tokens_are_counted_up_to_the_maximum() {
        let mut flags = Flags::new(TransportKind::EchoTcp);
        for (set, _) in FLAGS {
            set(&mut flags, true);
        }
        let counts: Vec<_> = (0..20).map(|_| flags.count_invalid_token()).collect();
        let expected: Vec<_> = (1..=20).map(|count| count.min(INVALID_TOKENS_MAX)).collect();
        assert_eq!(counts, expected);
        assert_eq!(
            (flags.stage(), flags.counted()),
            (Stage::Open, TransportKind::EchoTcp as usize)
        );
        assert!(FLAGS.iter().all(|(_, get)| get(flags)));
    }

    #[test]
    fn the_stage_and_the_transport_change_alone() {
        let mut flags = Flags::new(TransportKind::Http);
        for (set, _) in FLAGS {
            set(&mut flags, true);
        }
        assert_eq!(flags.set_stage(Stage::Dead), Stage::Open);
        assert_eq!(flags.set_stage(Stage::Closing), Stage::Dead);
        flags.set_counted(TransportKind::EchoTcp);
        flags.set_counted(TransportKind::Sse);
        assert_eq!((flags.stage(), flags.counted()), (Stage::Closing, TransportKind::Sse as usize));
        assert!(FLAGS.iter().all(|(_, get)| get(flags)));
        assert!(flags.is_paused());
        for pause in Pause::ALL {
            assert!(flags.is_paused());
            flags.set_paused_by(pause, false);
        }
        assert!(!flags.is_paused());
    }
}
