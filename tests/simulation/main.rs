//! Whole servers in one thread and virtual time: several workers on a simulated network that splits, stalls, shortens
//! and resets, with publishers, subscribers, slow readers and clients that come and go, all chosen by a seed.
//!
//! What must hold for every seed: each subscriber's view is a piece of its channel's one order, without a gap, a
//! duplicate or a swap, from the moment its subscription was answered to its last byte; whoever is still there when
//! all is quiet has seen everything; and when all have left, nothing is left of them.
//!
//! A failure names its seed: `SEED=n cargo test --test simulation` runs that one alone.

mod client;
mod world;

use std::time::Duration;

use fantail::driver::Faults;
use fantail::message::CloseReason;
use world::World;

const SEEDS: u64 = 100;
const STEPS: usize = 800;
const CHANNELS: [&str; 3] = ["news", "sport", "lobby"];

/// One world: `steps` of chance, then quiet, then the judgement. Returns how many slow consumers were closed.
fn run(seed: u64, steps: usize) -> u64 {
    let mut world = World::new(seed, 1 + (seed % 3) as usize);
    world.network.set_faults(Faults {
        split_receives: 300,
        short_sends: 100,
        stalls: 50,
        stall_max: Duration::from_millis(40),
        resets: 0,
        late_closes: 200,
        accept_failures: 20,
    });
    for channel in CHANNELS {
        world.add_observer(channel);
    }
    for _ in 0..steps {
        let dice = world.roll(100);
        let channel = CHANNELS[world.roll(3)];
        match dice {
            0..6 => world.add_websocket(channel),
            6..12 => world.add_commands(channel),
            12..14 => world.drop_client(),
            14..16 => world.reset_client(),
            16..19 => world.stall_client(),
            19..20 => world.stop_stalling(),
            20..50 => world.publish(channel),
            50..52 => world.flood(channel),
            52..60 => world.advance(),
            _ => world.turn(),
        }
        world.read_all();
    }
    world.network.set_faults(Faults::default());
    world.settle();
    world.judge();
    world.close_all();
    world.settle();
    world.expect_empty();
    world.closed(CloseReason::SlowConsumer)
}

#[test]
fn every_view_is_a_piece_of_the_one_order() {
    if let Ok(seed) = std::env::var("SEED") {
        run(seed.parse().expect("SEED is a number"), STEPS);
        return;
    }
    let mut slow = 0;
    for seed in 0..SEEDS {
        match std::panic::catch_unwind(|| run(seed, STEPS)) {
            Ok(closed) => slow += closed,
            Err(_) => panic!("seed {seed} fails: SEED={seed} cargo test --test simulation"),
        }
    }
    assert!(slow > SEEDS / 4, "slow consumers are part of the test: {slow}");
}

#[test]
fn one_seed_makes_one_run() {
    let trace = |seed| {
        let mut world = World::new(seed, 2);
        world.add_observer("news");
        for _ in 0..50 {
            world.add_websocket("news");
            world.publish("news");
            world.turn();
            world.read_all();
        }
        world.settle();
        world.observed("news")
    };
    assert_eq!(trace(7), trace(7));
}
