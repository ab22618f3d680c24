//! The configuration of a world, drawn from its seed, at the start and again while it runs.

use std::time::Duration;

use fantail::config::Config;
use fantail::driver::DriverSettings;

use crate::stream::namespaces;
use crate::world::{CONNECTIONS_MAX, Random};

/// The smallest send queue limit of any world.
pub const SEND_QUEUE_BYTES_LEAST: usize = 8 * 1024;

/// The lowest subscription limit of any world: enough for clients that name their channels, and for the observer.
const SUBSCRIPTIONS_LEAST: usize = 3;

/// Draws the configuration at start.
pub fn draw(random: &mut Random) -> Config {
    let config = Config { namespaces: namespaces(random), ..Config::default() };
    redraw(&config, random)
}

/// Draws the configuration of a reload: other limits and the same channels.
pub fn redraw(config: &Config, random: &mut Random) -> Config {
    let least = SEND_QUEUE_BYTES_LEAST as u64;
    Config {
        send_queue_bytes_max: random.pick(&[least, least, least, 2 * least, 8 * least]),
        message_bytes_max: random.pick(&[4096, 64 * 1024, 1 << 20]),
        subscriptions_max: random.pick(&[SUBSCRIPTIONS_LEAST, 9, 128]),
        drain_time: Duration::from_millis(random.pick(&[0, 0, 300, 1000])),
        shutdown_timeout: Duration::from_secs(random.pick(&[2, 3])),
        keepalive_interval: Duration::from_secs(random.pick(&[5, 25])),
        keepalive_timeout: Duration::from_secs(random.pick(&[2, 10])),
        message_timeout: Duration::from_secs(random.pick(&[15, 60])),
        close_timeout: Duration::from_secs(random.pick(&[1, 5])),
        stream_lifetime: Duration::from_secs(random.pick(&[60, 3600])),
        ..config.clone()
    }
}

/// Draws the limits of input per turn.
pub fn draw_driver(random: &mut Random) -> DriverSettings {
    let receive_buffer_bytes = random.pick(&[1024, 4096]);
    DriverSettings {
        sockets_max: CONNECTIONS_MAX as u32,
        receive_buffer_bytes,
        events_per_turn_max: random.pick(&[8, 16, 64]),
        churn_per_turn_max: random.pick(&[1, 4]),
        churn_per_shared_turn_max: 1,
        received_bytes_per_turn_max: 2 * receive_buffer_bytes,
        receive_share_bytes: receive_buffer_bytes / 4,
        sparse_receive_bytes_max: receive_buffer_bytes / 16,
    }
}
