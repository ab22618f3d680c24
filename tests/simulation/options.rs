//! The configuration of a world, drawn from its seed, at the start and again while it runs.

use std::time::Duration;

use fantail::config::Config;
use fantail::driver::DriverSettings;

use crate::stream::namespaces;
use crate::world::{CONNECTIONS_MAX, Dice};

/// The smallest send queue that is drawn.
pub const SEND_QUEUE_BYTES_LEAST: usize = 8 * 1024;

/// The fewest subscriptions that are drawn: enough for those who name their channels, and for the observer.
const SUBSCRIPTIONS_LEAST: usize = 3;

/// The configuration of a start.
pub fn draw(dice: &mut Dice) -> Config {
    let config = Config { namespaces: namespaces(dice), ..Config::default() };
    redraw(&config, dice)
}

/// The configuration of a reload: other limits, and the channels as they were.
pub fn redraw(config: &Config, dice: &mut Dice) -> Config {
    let least = SEND_QUEUE_BYTES_LEAST as u64;
    Config {
        send_queue_bytes_max: dice.pick(&[least, least, least, 2 * least, 8 * least]),
        message_bytes_max: dice.pick(&[4096, 64 * 1024, 1 << 20]),
        subscriptions_max: dice.pick(&[SUBSCRIPTIONS_LEAST, 9, 128]),
        drain_time: Duration::from_millis(dice.pick(&[0, 0, 300, 1000])),
        shutdown_timeout: Duration::from_secs(dice.pick(&[2, 3])),
        keepalive_interval: Duration::from_secs(dice.pick(&[5, 25])),
        keepalive_timeout: Duration::from_secs(dice.pick(&[2, 10])),
        message_timeout: Duration::from_secs(dice.pick(&[15, 60])),
        close_timeout: Duration::from_secs(dice.pick(&[1, 5])),
        stream_lifetime: Duration::from_secs(dice.pick(&[60, 3600])),
        ..config.clone()
    }
}

/// What one turn takes in.
pub fn draw_driver(dice: &mut Dice) -> DriverSettings {
    let receive_buffer_bytes = dice.pick(&[1024, 4096]);
    DriverSettings {
        sockets_max: CONNECTIONS_MAX as u32,
        receive_buffer_bytes,
        events_per_turn_max: dice.pick(&[8, 16, 64]),
        churn_per_turn_max: dice.pick(&[1, 4]),
        churn_per_shared_turn_max: 1,
        received_bytes_per_turn_max: 2 * receive_buffer_bytes,
        receive_share_bytes: receive_buffer_bytes / 4,
        sparse_receive_bytes_max: receive_buffer_bytes / 16,
    }
}
