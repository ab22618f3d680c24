//! Whole servers in one thread and virtual time: several workers on a simulated network that splits, stalls, shortens
//! and resets, with publishers, subscribers of every transport, slow readers, and clients that connect, lose their
//! connections and recover from their positions, all drawn from a seed.
//!
//! Invariants for every seed: each subscriber's view is its channel's stream from the position in its reply, without
//! gaps, duplicates or reordering, unless the gap was reported or the channel's policy is to deliver only the newest
//! publication; a client that recovers receives the publications that it missed or is informed that recovery failed;
//! publications in the history are not reported as lost; clients that are still connected when the world is idle have
//! received everything; and when all clients have left, all their state is freed.
//!
//! The configuration is drawn from the seed too, and again at every reload: workers, limits, timeouts, histories, input
//! per turn. At the end of a run the counters of the workers are compared with the clients' state; then the world must
//! serve new clients during a flood, and a slow reader with a long recovery; and finally it must stop in time. Some
//! worlds are stopped under load, where acknowledged publications must have reached the connected clients; some have too
//! little memory or too few connections.
//!
//! A failure names its seed: `SEED=n cargo test --test simulation` runs that one alone. `SEEDS=n` runs the first `n`
//! seeds.

mod answers;
mod callbacks;
mod client;
mod command_client;
mod judgement;
mod link;
mod options;
mod relay;
mod service;
mod stream;
mod world;

use std::time::Duration;

use client::Kind;
use fantail::driver::Faults;
use stream::Counts;
use world::{Size, World};

const SEEDS: u64 = 2000;
const STEPS: usize = 150;

/// One in this many worlds ends with publishers that flood.
const FLOODED: u64 = 25;

/// One in this many worlds has its memory budget filled.
const PRESSED: u64 = 20;

/// One in this many worlds allows fewer connections than it has clients.
const FULL: u64 = 20;

/// One in this many worlds has connections that become silent.
const IDLE: u64 = 10;

/// One in this many worlds is stopped under load.
const STOPPED: u64 = 10;

/// One in this many worlds has a slow reader with a long recovery.
const SLOW: u64 = 5;

/// Runs one world: random steps, then idling, then the checks.
fn run(seed: u64) -> (Counts, String) {
    let (is_pressed, is_full) = (seed % PRESSED == 2, seed % FULL == 7);
    let mut size = Size::LARGE;
    if is_pressed {
        size.memory_bytes_max = 1 << 20;
    }
    if is_full {
        // Room for the operator, the observer, and most of the other clients.
        size.open_max = 8;
    }
    let mut world = World::new(seed, size);
    world.set_faults(Faults {
        split_receives: 300,
        // Without short sends, a client that reads is never behind.
        short_sends: if seed.is_multiple_of(4) { 0 } else { 100 },
        stalls: 50,
        stall_max: Duration::from_millis(40),
        resets: 0,
        late_closes: 200,
        accept_failures: 20,
    });
    world.add_observer();
    for kind in [Kind::Lines, Kind::Lines, Kind::Messages, Kind::Messages] {
        world.add(kind);
    }
    for kind in [Kind::Plain, Kind::Events, Kind::Events, Kind::Polls] {
        world.add(kind);
    }
    for kind in [Kind::HttpStream, Kind::SseStream] {
        world.add(kind);
    }
    (0..STEPS).for_each(|_| step(&mut world));
    if seed % STOPPED == 3 {
        world.stop_under_load();
        return (world.streams.counts, world.trace());
    }
    world.settle();
    let counts = world.judge();
    let trace = world.trace();
    world.recount();
    if is_pressed {
        world.press();
    }
    if is_full {
        world.expect_refusals();
    }
    if seed % IDLE == 4 {
        world.expect_timeouts();
    }
    world.expect_service(seed.is_multiple_of(FLOODED));
    if seed % SLOW == 1 {
        world.expect_recovery();
    }
    if seed.is_multiple_of(2) {
        world.close_all();
        world.forget();
        world.expect_empty();
        world.expect_idle();
    }
    world.stop();
    world.expect_empty();
    (counts, trace)
}

/// Performs one random step.
fn step(world: &mut World) {
    match world.random_below(100) {
        0..8 => world.connect_client(),
        8..18 => world.join(),
        18..21 => world.leave(),
        21..25 => world.cut(),
        25..28 => world.stall(),
        28..29 => world.stop_stalling(),
        29..45 => world.publish(1, 20),
        45..47 => world.publish(6, 20),
        47..49 => world.publish(16, 300),
        49..52 => world.control(),
        52..58 => world.advance(60),
        58..59 => world.advance(2500),
        59..60 => world.reload(),
        _ => world.turn(),
    }
    world.read_all();
}

#[test]
fn every_view_equals_the_stream_or_had_its_gap_reported() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("SEED") {
        println!("{:?}", run(seed).0);
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let run_some = |first: u64| {
        let mut all = Counts::default();
        for seed in (first..seeds).step_by(threads as usize) {
            match std::panic::catch_unwind(|| run(seed)) {
                Ok((counts, _)) => all.add(&counts),
                Err(_) => panic!("seed {seed} fails: SEED={seed} cargo test --test simulation"),
            }
        }
        all
    };
    let mut all = Counts::default();
    std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|first| scope.spawn(move || run_some(first))).collect();
        for thread in running {
            all.add(&thread.join().expect("the message above names the seed"));
        }
    });
    println!("{all:?}");
    // The random steps reach the cases under test.
    let Counts { complete, recovered, impossible, gaps, skipped, slow, disconnects } = all;
    for count in [complete, recovered, impossible, gaps, skipped, slow, disconnects] {
        assert!(count > seeds / 100, "{all:?}");
    }
}

#[test]
fn runs_of_one_seed_are_identical() {
    assert_eq!(run(7).1, run(7).1);
}
