//! Compile-time ceilings. Settings may lower what they bound, never raise it.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Workers of one process; a channel's interest is one bit each.
pub const WORKERS_MAX: usize = 128;

/// Connections of one worker, which reserves address space for them.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 4 << 20;

/// Cost of the deliveries in one turn, all fan-outs together: one for each, and one for each [`DELIVERY_COST_BYTES`] in
/// it. About a millisecond of sending, so that whatever arrives meanwhile waits no longer.
pub const DELIVERY_COST_PER_TURN_MAX: usize = 256;

/// Cost of one fan-out's deliveries before the next one has its slice of the turn.
pub const FAN_OUT_SLICE_COST_MAX: usize = 64;

/// Cost of a fan-out's first deliveries, which go before those of fan-outs in progress: most channels have a few
/// subscribers only, who need not wait for the slices of large ones.
pub const FIRST_SLICE_COST_MAX: usize = 8;

/// First deliveries have at most this fraction of a turn's cost while other fan-outs are in progress.
pub const FIRST_SLICES_COST_DIVISOR: usize = 2;

/// Bytes that cost as much to deliver as a delivery itself.
pub const DELIVERY_COST_BYTES: usize = 4 * 1024;

/// Requests taken from clients in one turn, by what one receive buffer holds more at the most.
pub const REQUESTS_PER_TURN_MAX: usize = 1024;

/// Bytes that conversations write in one turn, by what one step writes more at the most.
pub const WRITTEN_BYTES_PER_TURN_MAX: usize = 4 * 1024 * 1024;

/// Bytes that one step may leave among the turn's bytes; what is larger becomes a frame of its own.
pub const TURN_SEGMENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes handed to the kernel in one turn, by one send more at the most.
pub const SENT_BYTES_PER_TURN_MAX: u64 = 4 * 1024 * 1024;

/// Publications that leave together as one block of a fan-out.
pub const PUBLICATIONS_PER_FAN_OUT_MAX: usize = 1024;

/// Payload bytes of one such block; a larger publication goes alone.
pub const FAN_OUT_BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Publications waiting for their fan-out on one worker at which publishers are held back.
pub const FAN_OUT_BACKLOG_HIGH: usize = 16 * 1024;

/// Payload bytes waiting for their fan-out on one worker at which publishers are held back.
pub const FAN_OUT_BACKLOG_BYTES_HIGH: usize = 64 * 1024 * 1024;

/// Publishers go on at this fraction of either mark.
pub const FAN_OUT_BACKLOG_LOW_DIVISOR: usize = 2;

/// Turns for which a fan-out waits for a subscriber with as much in its queue as may be, although its socket takes all
/// of that in each of them. Fan-outs that wait for the same client take turns, so that a client with as many channels
/// is not closed for them.
pub const FAN_OUT_WAITS_MAX: u16 = 1024;

/// Segments in one send.
pub const SEGMENTS_PER_SEND_MAX: usize = 64;

/// Sockets written to in one turn.
pub const SENDS_PER_TURN_MAX: usize = 1024;

/// Load taken from a worker's inbox in one turn, by one message more at the most; see [`MESSAGE_LOAD`].
pub const INBOX_LOAD_PER_TURN_MAX: usize = 4 * 1024 * 1024;

/// Bytes waiting for one client at which nothing more is read from it, and no request answered that is pipelined.
pub const SEND_QUEUE_BYTES_HIGH: u32 = 256 * 1024;

/// Subscriptions of one client that any setting may allow: finding one walks them.
pub const SUBSCRIPTIONS_CEILING: u64 = 4096;

/// Fragments of one WebSocket message: 4 MiB come in pieces of 64 bytes (Autobahn 9.3.1), and twice as many may. They
/// may be empty, so that the bytes of a message do not bound them.
pub const FRAGMENTS_PER_MESSAGE_MAX: u32 = 2 * 64 * 1024;

/// Commands in one WebSocket message: a client may subscribe to all it may have, and as much again.
pub const COMMANDS_PER_MESSAGE_MAX: usize = 2 * SUBSCRIPTIONS_CEILING as usize;

/// Bytes of an answer's publications that are kept as they look, for whoever is answered the same.
pub const ANSWER_BYTES_KEPT_MAX: usize = 1024 * 1024;

/// Namespaces of one configuration.
pub const NAMESPACES_MAX: usize = 256;

/// Publications of one channel that any setting may keep: forgetting them at once takes a few milliseconds.
pub const HISTORY_SIZE_CEILING: u32 = 65_536;

/// Publications of one channel that any setting may keep for subscribers that lag.
pub const BACKLOG_SIZE_CEILING: u32 = 65_536;

/// Publications in one answer, of a history or of a recovery.
pub const ANSWER_PUBLICATIONS_MAX: usize = 10_000;

/// Clients named in one answer.
pub const PRESENCE_LIST_MAX: u32 = 1000;

/// Answers on one worker that wait for parts of other workers.
pub const GATHERS_MAX: usize = 1024;

/// Channels looked at in one turn for an answer that names channels.
pub const CHANNELS_LOOKED_AT_PER_TURN_MAX: usize = 16 * 1024;

/// Comings and goings of one channel that are told at a time; of more than these, only the number of clients speaks.
pub const NEWS_PER_CHANNEL_MAX: usize = 1000;

/// Idempotency keys that one worker remembers.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;

/// Of what a worker's histories may have, idempotency keys may have this fraction beside them.
pub const IDEMPOTENCY_SHARE_DIVISOR: u64 = 4;

/// Bytes of idempotency keys that any worker may have: a few hundred of them.
pub const IDEMPOTENCY_BYTES_FLOOR: u64 = 64 * 1024;

/// Histories, and idempotency keys, that one worker ends in one turn because of their age or their memory.
pub const OVERDUE_PER_TURN_MAX: usize = 64;

/// Requests with long answers (recoveries, histories, who is there) of one worker that are under way at once. The rest
/// wait where they were made.
pub const ANSWERS_AWAITED_MAX: usize = 16;

/// Bytes of long answers written in one turn, by one answer more at the most: less than a millisecond of copying and
/// sending, because everyone else waits for that.
pub const ANSWERED_BYTES_PER_TURN_MAX: usize = 1024 * 1024;

/// Requests that waited for long answers of others and are made in one turn.
pub const DEFERRED_PER_TURN_MAX: usize = 1024;

/// Requests of one connection that wait behind one with a long answer: what one receive buffer and the message that it
/// ends may hold, and what the server API orders meanwhile.
pub const DEFERRED_PER_CONNECTION_MAX: usize = 2 * COMMANDS_PER_MESSAGE_MAX;

/// Payload bytes that a laggard is given at a time, by one publication more at the most.
pub const CATCH_UP_BYTES_MAX: usize = 64 * 1024;

/// Requests that one call of the server API makes of the hub: channels of a broadcast, commands of a batch.
pub const API_REQUESTS_MAX: usize = 1000;

/// Arrays and objects within one another in a payload that is JSON: it stands among the replies and pushes of the
/// command protocol, where the parsers of clients give up, the strictest of those in wide use at 64.
pub const PAYLOAD_DEPTH_MAX: usize = 50;

/// Bytes of the results in one answer of the server API; what does not fit is refused.
pub const API_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of an idempotency key: a channel's home keeps it for minutes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Bytes of the server API's key.
pub const API_KEY_BYTES_MAX: usize = 1024;

/// Channels named in one answer.
pub const CHANNELS_LIST_MAX: usize = 10_000;

/// Milliseconds that a client of an event stream waits before it comes back: not the same for all, so that those whose
/// server stopped do not come at once.
pub const EVENT_STREAM_RETRY_MS: RangeInclusive<u32> = 2000..=5000;

/// The same where the server had no room for it.
pub const EVENT_STREAM_RETRY_OVERLOADED_MS: RangeInclusive<u32> = 5000..=10_000;

/// How long a poll waits that does not say it: less than the 30 seconds at which proxies and hosting services give up.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(25);

/// How long a poll may wait, in seconds: from 0, which asks for the position, up to this.
pub const POLL_TIMEOUT_SECONDS_MAX: u64 = 120;

/// Bytes of a cookie, its name and its value, that every browser keeps (RFC 6265 6.1).
pub const COOKIE_BYTES_MAX: usize = 4096;

/// Bytes of a header that brings a position back, beside the position: `If-None-Match: W/"..."` and what those that
/// compress append to a tag.
pub const POSITION_HEADER_BYTES: usize = 64;

/// Bytes that a client may send behind a poll that waits; then nothing more is read from it.
pub const POLL_PIPELINED_BYTES_MAX: usize = 16 * 1024;

/// How long a client that closed its sending half, and is asked whether it is still there, has to answer. One with
/// commands and no subscriptions gets replies for as long.
pub const HALF_CLOSED_LINGER: Duration = Duration::from_secs(1);

/// Publications held for one client while its subscriptions are made.
pub const OPENING_PUBLICATIONS_MAX: usize = 65_536;

/// Between two publications of what is counted, while someone is subscribed to it.
pub const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// Between two warnings of one worker about a proxy that is not set up for this server.
pub const PROXY_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Origins in a list of them.
pub const ORIGINS_MAX: usize = 256;

/// Connections told of a shutdown in one turn.
pub const GOODBYES_PER_TURN_MAX: usize = 1024;

/// Batches a worker's inbox holds; what does not fit waits with its sender.
pub const INBOX_BATCHES_MAX: usize = 256;

/// Load, in payload bytes and [`MESSAGE_LOAD`] for each message, that waits for one worker at which publishers are
/// held back.
pub const INBOX_LOAD_HIGH: usize = FAN_OUT_BACKLOG_BYTES_HIGH;

/// As much may wait for one worker however small the memory budget is: publishers would be held back by any message.
pub const INBOX_LOAD_FLOOR: usize = 16 * MESSAGE_LOAD;

/// What a message counts beside its payload: as many are allowed to wait as may wait for their fan-out.
pub const MESSAGE_LOAD: usize = FAN_OUT_BACKLOG_BYTES_HIGH / FAN_OUT_BACKLOG_HIGH;

/// Table entries that the sweep looks at in one turn.
pub const SWEEP_ENTRIES_PER_TURN_MAX: usize = 64 * 1024;

/// Connections of one worker beyond the maximum: they are answered health checks and metrics, are refused everything
/// else in words, and are closed. Their descriptors are among those that are reserved.
pub const SPARE_CONNECTIONS: usize = 64;

/// How long such a connection has to ask, and how long to take its answer and close its end.
pub const SPARE_CONNECTION_TIME: Duration = Duration::from_secs(2);

/// What the process held and has freed may stay with its heap up to this; more is given back once a worker idles.
pub const HEAP_KEPT_BYTES: u64 = 32 * 1024 * 1024;

/// Entries of a table beyond which it is made smaller once most of them are gone.
pub const SPARSE_ENTRIES_MIN: usize = 4096;

/// Percent of the memory budget at which histories shrink and slow consumers are given up earlier.
pub const MEMORY_TIGHT_PERCENT: u64 = 70;

/// Percent at which the worst consumers are closed and nobody new is served.
pub const MEMORY_CRITICAL_PERCENT: u64 = 85;

/// Percent at which publishers are held back.
pub const MEMORY_FULL_PERCENT: u64 = 95;

/// A level ends so many percent below where it begins.
pub const MEMORY_HYSTERESIS_PERCENT: u64 = 5;

/// While memory is tight, a slow consumer is closed at this fraction of the maximum, and a channel keeps as little for
/// its laggards.
pub const TIGHT_QUEUE_DIVISOR: u32 = 4;

/// Of the memory budget, histories may have this fraction, and half of that while memory is tight.
pub const HISTORY_SHARE_DIVISOR: u64 = 2;

/// Publishers are held back when what waits for its fan-out is this fraction of a worker's share of the budget.
pub const FAN_OUT_SHARE_DIVISOR: u64 = 8;

/// Of the memory budget, this fraction, divided by all connections, is what each of them may hold unharmed.
pub const FAIR_SHARE_DIVISOR: u64 = 2;

/// What any connection may hold unharmed.
pub const FAIR_SHARE_BYTES_MIN: u64 = 1024;

/// Connections, held publishers and channels, of each so many, that are looked at in one turn for what they hold.
pub const EVICTION_ENTRIES_PER_TURN_MAX: usize = 4 * 1024;

/// What a publication that waits costs beside its payload.
pub const PUBLICATION_BYTES: u64 = 240;

/// Smallest memory budget that may be set.
pub const MEMORY_BYTES_FLOOR: u64 = 1024 * 1024;

/// Largest memory budget that may be set: more than any host has.
pub const MEMORY_BYTES_CEILING: u64 = 1 << 50;

/// Largest message that any setting may allow.
pub const MESSAGE_BYTES_CEILING: u64 = 64 * 1024 * 1024;

/// Largest send queue that any setting may allow.
pub const SEND_QUEUE_BYTES_CEILING: u64 = 1024 * 1024 * 1024;

/// Smallest send queue that any setting may ask for.
pub const SEND_QUEUE_BYTES_FLOOR: u64 = 4 * 1024;

/// Bytes of the settings file.
pub const SETTINGS_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Lines of the log for one cause in one second; what is past it is counted instead.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 10;

/// Causes of log lines that are told apart; those past it share one allowance.
pub const LOG_CAUSES_MAX: usize = 128;

/// Lines of the log that wait to be written; what is logged while nobody takes them is counted instead.
pub const LOG_LINES_WAITING_MAX: usize = 1024;

/// How long the end of the program waits for its last lines to be written.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of one connection's entry in its worker's table: the line that an idle connection rests on.
pub const CONNECTION_BYTES_MAX: usize = 64;

/// Bytes of one subscription in the hub.
pub const SUBSCRIPTION_BYTES_MAX: usize = 32;

/// Bytes received in one call; a peer with more to say is heard again in the next turn.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes received in one call while other sockets wait: some two thousand of the smallest frames.
pub const RECEIVE_SHARE_BYTES: usize = 16 * 1024;

/// Bytes that are read from a client that is being closed, and one message more. What was on its way may be as much as
/// the buffers of both kernels hold: 6 and 4 MiB by default (`net.ipv4.tcp_rmem`, `tcp_wmem`).
pub const CLOSING_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of one receive up to which its socket is heard before those that sent more: a few requests.
pub const SPARSE_RECEIVE_BYTES_MAX: usize = 1024;

/// Bytes received in one turn, one receive buffer more at the most: a few milliseconds of decoding, if they are all
/// frames of one byte.
pub const RECEIVED_BYTES_PER_TURN_MAX: usize = 256 * 1024;

/// Sockets that come or go in one turn while few do, and none of those that stay has something to say: so many are
/// accepted for each listener, so many are heard for the first time, and so many that hung up. Each takes 5 to 20
/// microseconds.
pub const CHURN_PER_TURN_MAX: usize = 8;

/// The same where others wait: in a turn that has something of those that stay, while a crowd comes or goes, and in
/// every turn of a worker that shares its core with other workers.
pub const CHURN_PER_SHARED_TURN_MAX: usize = 1;

/// Sockets that wait to be heard for the first time or hung up, beyond which they are a crowd: a storm that takes a
/// second, in which those that stay have something to say again and again.
pub const CROWD_MIN: usize = 16;

/// Events handled in one turn.
pub const EVENTS_PER_TURN_MAX: usize = 1024;

const _: () =
    assert!(DELIVERY_COST_PER_TURN_MAX <= SENDS_PER_TURN_MAX, "a slice leaves in its turn");
const _: () = assert!(
    2 * MESSAGE_BYTES_CEILING < SEND_QUEUE_BYTES_CEILING,
    "a queue has room for a message and the one that follows"
);
const _: () = assert!(INBOX_LOAD_FLOOR < INBOX_LOAD_HIGH, "a small budget lowers it");
const _: () = assert!(SEND_QUEUE_BYTES_CEILING < u32::MAX as u64, "queue bytes are 32 bits wide");
const _: () = assert!(
    MEMORY_TIGHT_PERCENT < MEMORY_CRITICAL_PERCENT - MEMORY_HYSTERESIS_PERCENT
        && MEMORY_CRITICAL_PERCENT < MEMORY_FULL_PERCENT - MEMORY_HYSTERESIS_PERCENT,
    "levels end before those below them begin"
);
