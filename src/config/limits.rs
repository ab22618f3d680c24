//! Compile-time limits, grouped by the room that they bound. Settings may lower what they bound, never raise it.
//!
//! The suffix of a name is the unit where it has one. Where the last item taken may exceed a limit, its doc says so.

use std::ops::RangeInclusive;
use std::time::Duration;

// ---- config ----

/// Largest settings file, in bytes.
pub const SETTINGS_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Namespaces of one configuration.
pub const NAMESPACES_MAX: usize = 256;

/// Networks in `proxy.trusted`.
pub const NETWORKS_MAX: usize = 256;

/// Origins in `http.origins`.
pub const ORIGINS_MAX: usize = 256;

/// Length of the channel option `channel_regex`.
pub const CHANNEL_REGEX_BYTES_MAX: usize = 512;

/// Bytes of a compiled `channel_regex`, which bound the time of a match.
pub const CHANNEL_REGEX_PROGRAM_BYTES_MAX: usize = 64 * 1024;

/// Length of a key of the server API.
pub const API_KEY_BYTES_MAX: usize = 1024;

/// Sections `[api.keys.NAME]`: a key that a request shows is compared with all of them.
pub const API_KEYS_MAX: usize = 64;

/// Headers that every request of a callback has.
pub const CALLBACK_HEADERS_MAX: usize = 64;

/// Upper bound of the requests of one kind of callback that wait for an answer.
pub const CALLBACK_PENDING_CEILING: u64 = 65_536;

/// Upper bound of the connections to the backend of one kind of callback.
pub const CALLBACK_CONNECTIONS_CEILING: u64 = 1024;

/// Upper bound of the events of one batch.
pub const EVENT_BATCH_CEILING: u64 = 1000;

/// Bytes of the secret that signs events.
pub const EVENT_SECRET_BYTES_MAX: usize = 1024;

/// Upper bound of an answer to a callback.
pub const CALLBACK_ANSWER_BYTES_CEILING: u64 = 16 * 1024 * 1024;

/// Length of a secret that tokens are signed with.
pub const TOKEN_SECRET_BYTES_MAX: usize = 1024;

/// A shorter secret causes a warning: RFC 7518 3.2 demands as many bytes as the hash has.
pub const TOKEN_SECRET_BYTES_SAFE: usize = 32;

/// Length of a public key that tokens are verified with, as PEM. One of 8192 bits has 1.5 KB.
pub const TOKEN_KEY_BYTES_MAX: usize = 16 * 1024;

/// Length of the id of a key, `kid`.
pub const TOKEN_KEY_ID_BYTES_MAX: usize = 255;

/// Sections `[auth.keys.NAME]` of one configuration.
pub const TOKEN_KEYS_MAX: usize = 64;

/// Keys without an id for one algorithm that a token is verified with, at up to 0.2 milliseconds each.
pub const TOKEN_KEYS_TRIED_MAX: usize = 4;

/// Sections `[auth.keys.NAME]` with a `jwks_url`.
pub const JWKS_URLS_MAX: usize = 8;

/// Length of `auth.audience` and `auth.issuer`.
pub const TOKEN_PARTY_BYTES_MAX: usize = 255;

/// Length of the name of the cookie that may have a token.
pub const COOKIE_NAME_BYTES_MAX: usize = 64;

/// Upper bound of the setting `limits.message_bytes_max`.
pub const MESSAGE_BYTES_CEILING: u64 = 64 * 1024 * 1024;

/// Upper bound of the setting `limits.send_queue_bytes_max`.
pub const SEND_QUEUE_BYTES_CEILING: u64 = 1024 * 1024 * 1024;

/// Lower bound of the setting `limits.send_queue_bytes_max`.
pub const SEND_QUEUE_BYTES_FLOOR: u64 = 4 * 1024;

/// Lower bound of the setting `limits.memory_bytes_max`.
pub const MEMORY_BYTES_FLOOR: u64 = 1024 * 1024;

/// Upper bound of the setting `limits.memory_bytes_max`: more than any host has.
pub const MEMORY_BYTES_CEILING: u64 = 1 << 50;

/// Upper bound of the setting `limits.subscriptions_max`: finding a subscription walks all of a client's.
pub const SUBSCRIPTIONS_CEILING: u64 = 4096;

/// Upper bound of the settings that limit a rate, per second.
pub const RATE_CEILING: u64 = 1_000_000;

/// Range of the setting `limits.client_byte_rate_max`.
pub const BYTE_RATE_RANGE: RangeInclusive<u64> = 1024..=1 << 40;

/// Upper bound of the channel option `history_size`: dropping that many publications at once takes a few milliseconds.
pub const HISTORY_SIZE_CEILING: u32 = 65_536;

/// Upper bound of the channel option `backlog_size`.
pub const BACKLOG_SIZE_CEILING: u32 = 65_536;

// ---- driver ----

/// Events handled in one turn.
pub const EVENTS_PER_TURN_MAX: usize = 1024;

/// Bytes of the receive buffer, and so of one receive; a peer with more to read is served again in the next turn.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of one receive while other sockets wait: about two thousand of the smallest frames.
pub const RECEIVE_SHARE_BYTES: usize = 16 * 1024;

/// A socket whose receives bring at most this many bytes, a few requests, is served before those that send more.
pub const SPARSE_RECEIVE_BYTES_MAX: usize = 1024;

/// Bytes received in one turn (a few milliseconds of decoding at worst); may be exceeded by one receive buffer.
pub const RECEIVED_BYTES_PER_TURN_MAX: usize = 256 * 1024;

/// Connections accepted per listener, served for the first time, and closed by their peer, of each at most this many
/// in one turn while they are few and no established connection has work. Each takes 5 to 20 microseconds.
pub const CHURN_PER_TURN_MAX: usize = 8;

/// The same limit in a turn with work of established connections while a crowd comes or goes, and in every turn of a
/// worker that shares its core with other workers.
pub const CHURN_PER_SHARED_TURN_MAX: usize = 1;

/// More sockets than this that wait to be served for the first time, or were closed by their peer, are a crowd: a storm
/// that takes a second, in which established connections have work again and again.
pub const CROWD_MIN: usize = 16;

/// Segments in one send.
pub const SEGMENTS_PER_SEND_MAX: usize = 64;

/// Sockets sent to in one turn.
pub const SENDS_PER_TURN_MAX: usize = 1024;

// ---- protocol ----

/// Fragments of one WebSocket message, twice what 4 MiB in pieces of 64 bytes need (Autobahn 9.3.1). Fragments may be
/// empty, so the size of a message does not bound their number.
pub const FRAGMENTS_PER_MESSAGE_MAX: u32 = 2 * 64 * 1024;

/// Nesting depth of arrays and objects in a JSON payload. Clients parse it inside a reply or push of the command
/// protocol, and the strictest parser in wide use gives up at 64.
pub const PAYLOAD_DEPTH_MAX: usize = 50;

/// Tags of one publication.
pub const TAGS_MAX: usize = 64;

/// Bytes of the names and texts of the tags of one publication.
pub const TAGS_BYTES_MAX: usize = 4 * 1024;

/// Length of a publication of which a delta is made, and of the one before it; larger ones are sent whole.
pub const DELTA_BYTES_MAX: usize = 256 * 1024;

/// Bytes of the name of a procedure that a client calls.
pub const PROCEDURE_BYTES_MAX: usize = 255;

/// Length of an idempotency key; the channel's home worker keeps it for minutes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Length of the epoch of a publication's version; a channel with a history keeps one.
pub const VERSION_EPOCH_BYTES_MAX: usize = 255;

/// Bytes of a cookie, name and value, that every browser stores (RFC 6265 6.1).
pub const COOKIE_BYTES_MAX: usize = 4096;

// ---- auth ----

/// Length of a set of published keys (JWK Set).
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// Keys of one set.
pub const JWKS_KEYS_MAX: usize = 64;

/// Seconds for which a set of keys is fresh: an unknown key is then not one that was published meanwhile.
pub const JWKS_FRESH_SECONDS: u64 = 2;

/// Length of a token. One that subscribes its client to the default maximum of channels with options has half as much.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

// ---- transport ----

/// Bytes of pushes that are kept for a client whose `connect` is not replied to yet, beyond which it is disconnected
/// and comes back; may be exceeded by what one fan-out brings.
pub const CONNECTING_PUSHES_BYTES_MAX: usize = 256 * 1024;

/// Commands in one WebSocket message: enough to subscribe to every channel allowed, and as many commands again.
pub const COMMANDS_PER_MESSAGE_MAX: usize = 2 * SUBSCRIPTIONS_CEILING as usize;

/// Hub requests made by one call of the server API: channels of a broadcast, commands of a batch.
pub const API_REQUESTS_MAX: usize = 1000;

/// Bytes of the results in one response of the server API; a result that does not fit is refused.
pub const API_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest encoded recovery, in bytes, kept for reuse by other clients that recover from the same position.
pub const ANSWER_BYTES_KEPT_MAX: usize = 1024 * 1024;

/// `Retry-After` of an HTTP answer, in seconds, drawn for each client, where the cause may be over in a moment.
pub const RETRY_AFTER_SECONDS: RangeInclusive<u32> = 1..=3;

/// `Retry-After`, in seconds, of an answer of the overloaded server.
pub const RETRY_AFTER_OVERLOADED_SECONDS: RangeInclusive<u32> = 5..=10;

/// Reconnection time of an event stream, in milliseconds, another one for each client.
pub const EVENT_STREAM_RETRY_MS: RangeInclusive<u32> = 2000..=5000;

/// Reconnection time, in milliseconds, of an event stream that the overloaded server refused.
pub const EVENT_STREAM_RETRY_OVERLOADED_MS: RangeInclusive<u32> = 5000..=10_000;

/// Duration of a poll that does not set `timeout`, below the 30 seconds at which proxies and hosting services time out.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(25);

/// Largest `timeout` of a poll, in seconds; 0 asks for the position only.
pub const POLL_TIMEOUT_SECONDS_MAX: u64 = 120;

/// Pipelined bytes accepted behind a waiting poll; beyond them, reading is paused.
pub const POLL_PIPELINED_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a header that carries a position, without the position itself: `If-None-Match: W/"..."`, and what
/// compressing proxies append to an entity tag.
pub const POSITION_HEADER_BYTES: usize = 64;

/// Publications queued for one client while its subscriptions are being established.
pub const OPENING_PUBLICATIONS_MAX: usize = 65_536;

/// How long a client that closed its sending half, and is probed, has to respond. A client with commands but no
/// subscriptions receives its replies for as long.
pub const HALF_CLOSED_LINGER: Duration = Duration::from_secs(1);

// ---- hub: fan-out ----

/// Cost of the deliveries in one turn, over all fan-outs: 1 for each delivery, and 1 for each [`DELIVERY_COST_BYTES`]
/// in it. About a millisecond of sending, which bounds the wait of everything else.
pub const DELIVERY_COST_PER_TURN_MAX: usize = 256;

/// Bytes of a delivery that cost as much as the delivery itself.
pub const DELIVERY_COST_BYTES: usize = 4 * 1024;

/// Cost of one fan-out's deliveries before the next fan-out has its slice of the turn.
pub const FAN_OUT_SLICE_COST_MAX: usize = 64;

/// Cost of a fan-out's first deliveries, made before those of fan-outs in progress: most channels have few subscribers,
/// who need not wait for the slices of large fan-outs.
pub const FIRST_SLICE_COST_MAX: usize = 8;

/// Divisor of a turn's cost: the share of first deliveries while other fan-outs are in progress.
pub const FIRST_SLICES_COST_DIVISOR: usize = 2;

/// Publications delivered together as one block of a fan-out.
pub const PUBLICATIONS_PER_FAN_OUT_MAX: usize = 1024;

/// Payload bytes of one block of a fan-out; a larger publication is a block of its own. Other items count 32 bytes.
pub const FAN_OUT_BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Publications in one worker's fan-out backlog at which publishers are paused.
pub const FAN_OUT_BACKLOG_HIGH: usize = 16 * 1024;

/// Payload bytes in one worker's fan-out backlog at which publishers are paused.
pub const FAN_OUT_BACKLOG_BYTES_HIGH: usize = 64 * 1024 * 1024;

/// Divisor of both marks of the fan-out backlog: publishers resume below that.
pub const FAN_OUT_BACKLOG_LOW_DIVISOR: usize = 2;

/// Turns that a fan-out waits for a subscriber whose send queue is at its maximum although its socket takes all of it
/// in each turn. Fan-outs that wait for the same client take turns, so that a client with many channels is not
/// disconnected because of their number.
pub const FAN_OUT_WAITS_MAX: u16 = 1024;

/// Payload bytes delivered to a slow subscriber at a time; may be exceeded by one publication.
pub const CATCH_UP_BYTES_MAX: usize = 64 * 1024;

// ---- hub: histories, presence, requests ----

/// Publications in one reply with a history or a recovery.
pub const ANSWER_PUBLICATIONS_MAX: usize = 10_000;

/// Clients listed in one presence reply.
pub const PRESENCE_LIST_MAX: u32 = 1000;

/// Subscribers whose users are compared for one reply with presence statistics, on all workers together. Each one
/// beyond them counts as a user of its own.
pub const PRESENCE_USERS_MAX: usize = 16 * 1024;

/// Channels listed in one reply.
pub const CHANNELS_LIST_MAX: usize = 10_000;

/// Channels visited in one turn for a reply that lists channels.
pub const CHANNELS_LOOKED_AT_PER_TURN_MAX: usize = 16 * 1024;

/// Replies of one worker that wait for the parts of other workers.
pub const GATHERS_MAX: usize = 1024;

/// Join/leave events per channel and window; excess events are dropped, and presence statistics stay correct.
pub const JOIN_LEAVE_PER_CHANNEL_MAX: usize = 1000;

/// Idempotency keys stored by one worker.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;

/// Divisor of a worker's history memory: idempotency keys may take this share in addition, positions another one.
pub const SHARE_BESIDE_HISTORY_DIVISOR: u64 = 4;

/// Bytes of idempotency keys that every worker may store: a few hundred keys.
pub const IDEMPOTENCY_BYTES_FLOOR: u64 = 64 * 1024;

/// Histories, positions and idempotency keys that one worker expires in one turn because of their age or memory.
pub const OVERDUE_PER_TURN_MAX: usize = 64;

/// Bytes that a stored publication costs in addition to its payload.
pub const PUBLICATION_BYTES: u64 = 240;

/// Sessions visited in one turn for a call of the server API that concerns a user.
pub const SESSIONS_LOOKED_AT_PER_TURN_MAX: usize = 64 * 1024;

/// Connections visited in one turn for a call of the server API that concerns all or all anonymous ones.
pub const CONNECTIONS_LOOKED_AT_PER_TURN_MAX: usize = 4 * 1024;

/// Clients of a user that are subscribed, unsubscribed or disconnected in one turn for one call of the server API.
pub const CONTROLS_PER_TURN_MAX: usize = 64;

/// Connections listed in one reply.
pub const CONNECTIONS_LIST_MAX: usize = 1000;

/// Channels listed for one connection; a reply with more of them is truncated.
pub const CONNECTION_CHANNELS_LIST_MAX: usize = 100;

/// Ids in the whitelist of one call.
pub const WHITELIST_MAX: usize = 1000;

/// Users that are blocked at a time.
pub const BLOCKED_USERS_MAX: usize = 10_000;

/// Size of one identity in the hub, in bytes, without its texts.
pub const IDENTITY_BYTES_MAX: usize = 24;

/// Sessions that end in one turn because they have expired, as many subscriptions, and deadlines of connections.
pub const EXPIRIES_PER_TURN_MAX: usize = 256;

/// Identities of one user that are compared with a new one: a user about whose clients the backend says more different
/// things shares fewer of them.
pub const IDENTITIES_LOOKED_AT_MAX: usize = 16;

/// Size of one subscription in the hub, in bytes.
pub const SUBSCRIPTION_BYTES_MAX: usize = 32;

// ---- callback ----

/// Calls of workers that the thread of the callbacks has not taken yet; further ones fail at once.
pub const CALLBACKS_QUEUED_MAX: usize = 4096;

/// Bytes of requests and answers that are under way, or this part of the memory budget if that is less.
pub const CALLBACK_BYTES_MAX: (usize, u64) = (64 * 1024 * 1024, 16);

/// How long a client or a subscription goes on that has expired when the backend does not say whether it may.
pub const CALLBACK_PROLONGATION: Duration = Duration::from_secs(60);

/// Bytes of the head of an answer.
pub const CALLBACK_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the message of an error that a backend answers.
pub const CALLBACK_ERROR_BYTES_MAX: usize = 1024;

/// A call waits for a connection for this part of its timeout at most.
pub const CALLBACK_QUEUE_SHARE_DIVISOR: u32 = 2;

/// How long a backend that fails is not asked: at first, and at most.
pub const CALLBACK_CIRCUIT_TIMES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// The pause before a batch of events is sent again: at first, and at most.
pub const EVENT_RETRY_TIMES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// How long events that are left are sent once the workers have ended.
pub const EVENT_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Addresses of clients that each worker keeps for its log: those of the connections that came last.
pub const ARRIVALS_KEPT: usize = 1024;

/// How often the published keys of tokens are fetched.
pub const JWKS_INTERVAL: Duration = Duration::from_secs(300);

/// How often they are fetched while that fails.
pub const JWKS_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Least time between two fetches, whatever tokens come.
pub const JWKS_PAUSE: Duration = Duration::from_secs(1);

/// How long a fetch may take, unless the settings say otherwise.
pub const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection to a backend is kept.
pub const CALLBACK_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Threads that look up the addresses of backends.
pub const CALLBACK_RESOLVERS_MAX: usize = 2;

/// Minimum interval between two warnings about failed callbacks.
pub const CALLBACK_LOG_INTERVAL: Duration = Duration::from_secs(1);

// ---- connection ----

/// Size of a connection's entry in its worker's table, in bytes: the memory of an idle connection rests on it.
pub const CONNECTION_BYTES_MAX: usize = 64;

/// Bytes read from a client that is being closed; may be exceeded by one message. The buffers of both kernels may hold
/// as much: 6 and 4 MiB by default (`net.ipv4.tcp_rmem`, `tcp_wmem`).
pub const CLOSING_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// High watermark of a client's send queue, in bytes: above it, the client is not read and its requests wait.
pub const SEND_QUEUE_BYTES_HIGH: u32 = 256 * 1024;

// ---- auth ----

/// Fewest slots in a row of the table of network prefixes, of which each has 16 bytes.
pub const PREFIX_SLOTS_MIN: usize = 4096;

/// Most slots in a row of the table of network prefixes: both rows together have 32 MiB.
pub const PREFIX_SLOTS_MAX: usize = 1 << 20;

/// Fewest words in the table of users, of 8 bytes each.
pub const USER_WORDS_MIN: usize = 4096;

/// Most words in the table of users: 32 MiB.
pub const USER_WORDS_MAX: usize = 1 << 22;

/// Minimum interval between two warnings about refused network prefixes.
pub const PREFIX_WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// A client that asks for more than a rate allows, by as much as the rate allows in this time, is disconnected.
pub const RATE_EXCESS_MAX: Duration = Duration::from_secs(10);

// ---- worker: the turn ----

/// Requests taken from clients in one turn; may be exceeded by one receive buffer.
pub const REQUESTS_PER_TURN_MAX: usize = 1024;

/// Bytes that connections write in one turn; may be exceeded by one step of a connection.
pub const WRITTEN_BYTES_PER_TURN_MAX: usize = 4 * 1024 * 1024;

/// Bytes that one step of a connection may leave in the buffer of the turn; more becomes a frame of its own.
pub const TURN_SEGMENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes handed to the kernel in one turn; may be exceeded by one send.
pub const SENT_BYTES_PER_TURN_MAX: u64 = 4 * 1024 * 1024;

/// Requests with long replies (recoveries, histories, presence) that one worker has in progress; others are deferred.
pub const ANSWERS_AWAITED_MAX: usize = 16;

/// Bytes of long replies written in one turn, in less than a millisecond; may be exceeded by one reply.
pub const ANSWERED_BYTES_PER_TURN_MAX: usize = 1024 * 1024;

/// Answers of the backend taken in one turn, of about 5 microseconds each: in a storm, thousands end at once.
pub const CALLBACK_ANSWERS_PER_TURN_MAX: usize = 128;

/// Deferred requests resumed in one turn.
pub const DEFERRED_PER_TURN_MAX: usize = 1024;

/// Invalid tokens with which one client may try to subscribe; the last one ends its connection.
pub const INVALID_TOKENS_MAX: u32 = 15;

/// Tokens verified in one turn: a signature takes up to 0.2 ms (ES384, or RSA with a key of 8192 bits).
pub const TOKENS_PER_TURN_MAX: usize = 8;

/// Requests of one connection deferred behind one with a long reply: those of one receive buffer and of the message
/// that ends in it, and what the server API requests meanwhile.
pub const DEFERRED_PER_CONNECTION_MAX: usize = 2 * COMMANDS_PER_MESSAGE_MAX;

/// Clients read again in one turn that were not read because of the rate of their bytes.
pub const PACED_PER_TURN_MAX: usize = 1024;

/// Clients disconnected by a shutdown in one turn.
pub const SHUTDOWN_CLOSES_PER_TURN_MAX: usize = 1024;

/// Table entries that the sweep visits in one turn.
pub const SWEEP_ENTRIES_PER_TURN_MAX: usize = 64 * 1024;

/// Interval at which the statistics are published while they have subscribers.
pub const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum interval between two warnings about rejected tokens.
pub const TOKEN_WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum interval between two warnings about refused requests to the server API.
pub const API_WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// The longest header of the PROXY protocol, version 2, with its extensions. With every option of HAProxy it has some
/// hundred bytes.
pub const PROXY_HEADER_BYTES_MAX: usize = 2048;

/// Minimum interval between two warnings about a misconfigured proxy.
pub const PROXY_WARNING_INTERVAL: Duration = Duration::from_secs(60);

// ---- worker: the mesh ----

/// Batches in a worker's inbox; further ones wait with their sender.
pub const INBOX_BATCHES_MAX: usize = 256;

/// Load that a message counts in addition to its payload, in bytes, so that at most as many messages wait as
/// publications in a fan-out backlog.
pub const MESSAGE_LOAD: usize = FAN_OUT_BACKLOG_BYTES_HIGH / FAN_OUT_BACKLOG_HIGH;

/// Load (payload bytes, and [`MESSAGE_LOAD`] per message) taken from a worker's inbox in one turn; may be exceeded by
/// one message.
pub const INBOX_LOAD_PER_TURN_MAX: usize = 4 * 1024 * 1024;

/// Load waiting for one worker at which publishers are paused.
pub const INBOX_LOAD_HIGH: usize = FAN_OUT_BACKLOG_BYTES_HIGH;

/// Load that may wait for one worker however small the memory budget is: below it, any message would pause publishers.
pub const INBOX_LOAD_FLOOR: usize = 16 * MESSAGE_LOAD;

// ---- worker: memory pressure ----

/// Percentage of the memory budget at which histories shrink and slow consumers are disconnected earlier.
pub const MEMORY_TIGHT_PERCENT: u64 = 70;

/// Percentage of the memory budget at which the worst consumers are disconnected and new clients are rejected.
pub const MEMORY_CRITICAL_PERCENT: u64 = 85;

/// Percentage of the memory budget at which publishers are paused.
pub const MEMORY_FULL_PERCENT: u64 = 95;

/// A level of memory pressure ends this many percentage points below its beginning.
pub const MEMORY_HYSTERESIS_PERCENT: u64 = 5;

/// Divisor, while memory is tight, of the maximum of a send queue and of a channel's backlog for slow subscribers.
pub const TIGHT_QUEUE_DIVISOR: u32 = 4;

/// Divisor of the memory budget: the share of histories, which is halved while memory is tight.
pub const HISTORY_SHARE_DIVISOR: u64 = 2;

/// Divisor of a worker's share of the memory budget: a fan-out backlog of this size pauses publishers.
pub const FAN_OUT_SHARE_DIVISOR: u64 = 8;

/// Divisor of the memory budget: this part of it, divided by the number of connections, is a connection's fair share,
/// up to which it is never evicted.
pub const FAIR_SHARE_DIVISOR: u64 = 2;

/// Smallest fair share of a connection, in bytes.
pub const FAIR_SHARE_BYTES_MIN: u64 = 1024;

/// Connections, paused publishers and channels, of each at most this many, visited in one turn of an eviction.
pub const EVICTION_ENTRIES_PER_TURN_MAX: usize = 4 * 1024;

/// Freed bytes that may stay with the heap, unless the memory budget is small; more is returned to the system once a
/// worker idles.
pub const HEAP_KEPT_BYTES: u64 = 32 * 1024 * 1024;

/// Capacity above which a table is shrunk once most of its entries are gone.
pub const SPARSE_ENTRIES_MIN: usize = 4096;

// ---- server ----

/// Workers of one process; the interest in a channel has one bit for each.
pub const WORKERS_MAX: usize = 128;

/// Connections of one worker, which reserves address space for them.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 4 << 20;

/// Connections of one worker beyond the connection limit: they are served health checks and metrics, refused everything
/// else with a reason, and closed. Their descriptors are among the reserved ones.
pub const SPARE_CONNECTIONS: usize = 64;

/// Time that a connection beyond the limit has to send its request, and again to read the response and close its side.
pub const SPARE_CONNECTION_TIME: Duration = Duration::from_secs(2);

/// Log lines per second with the same cause; further ones are counted instead.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 10;

/// Distinct causes of log lines; further ones share one allowance.
pub const LOG_CAUSES_MAX: usize = 128;

/// Log lines that wait to be written; further ones are counted and dropped.
pub const LOG_LINES_WAITING_MAX: usize = 1024;

/// How long the end of the program waits for the last log lines to be written.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

// ---- relations that the rooms rely on ----

const _: () =
    assert!(DELIVERY_COST_PER_TURN_MAX <= SENDS_PER_TURN_MAX, "a slice is sent in its turn");
const _: () = assert!(
    2 * MESSAGE_BYTES_CEILING < SEND_QUEUE_BYTES_CEILING,
    "a queue holds a message and the one that follows"
);
const _: () = assert!(INBOX_LOAD_FLOOR < INBOX_LOAD_HIGH, "a small budget lowers the mark");
const _: () = assert!(SEND_QUEUE_BYTES_CEILING < u32::MAX as u64, "queue bytes are 32 bits wide");
const _: () = assert!(
    MEMORY_TIGHT_PERCENT < MEMORY_CRITICAL_PERCENT - MEMORY_HYSTERESIS_PERCENT
        && MEMORY_CRITICAL_PERCENT < MEMORY_FULL_PERCENT - MEMORY_HYSTERESIS_PERCENT,
    "each level ends above the beginning of the one below"
);
