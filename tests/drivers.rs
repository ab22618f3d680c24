//! The contract of drivers: every test runs on epoll, on io_uring, on the simulation, and on a simulation that splits,
//! shortens and delays.

#![expect(clippy::unwrap_used, reason = "a failed unwrap names its line")]

#[path = "support/drivers/mod.rs"]
mod support;

use std::fs::File;
use std::time::{Duration, Instant};

use fantail::config::DriverChoice;
use fantail::config::limits::{CROWD_MIN, RECEIVE_SHARE_BYTES, SPARSE_RECEIVE_BYTES_MAX};
use fantail::driver::{
    Close, Driver, DriverSettings, End, EpollDriver, SendResult, SocketId, UringDriver, choose,
    make_private,
};
use support::{
    Harness, Kernel, KernelDriver, Peer, Seen, Simulated, World, connect, pattern, turn_segment,
};

fn accepted_socket_receives_and_sends<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    assert_eq!(peer.write(b"ping"), 4);
    world.until("received", |world| world.received(id) == b"ping");
    world.send(id, b"pong");
    let mut read = Vec::new();
    world.until("echoed", |_| {
        read.extend(peer.read().0);
        read == b"pong"
    });
    assert!(!world.seen.contains(&Seen::Sendable(id)) || !world.late.is_empty());
}

fn bytes_sent_before_accept_are_received<H: Harness>() {
    let mut world = World::<H>::new();
    let mut peer = world.connect();
    assert_eq!(peer.write(b"early"), 5);
    peer.shutdown_write();
    world.until("ended", |world| {
        world.seen.iter().any(|seen| matches!(seen, Seen::Ended(_, End::Eof)))
    });
    assert_eq!(world.received(SocketId { index: 0, generation: 0 }), b"early");
}

fn large_transfers_go_both_ways<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    let len = 2 << 20;
    let bytes = pattern(len);
    let (mut written, mut read, mut echoed) = (0, Vec::new(), 0);
    world.until("the echo is complete", |world| {
        written += peer.write(&bytes[written..(written + 50_000).min(len)]);
        for seen in &world.seen[echoed..].to_vec() {
            if let Seen::Received(_, part) = seen {
                world.send(id, part);
            }
        }
        echoed = world.seen.len();
        read.extend(peer.read().0);
        read.len() == len
    });
    assert!(read == bytes, "the data is complete and in order");
}

fn ten_megabytes_pass_a_small_window_intact<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair_with_window(Some(16 << 10));
    let bytes = pattern(10 << 20);
    world.send(id, &bytes);
    let mut read = Vec::with_capacity(bytes.len());
    world.until("all arrived", |_| {
        read.extend(peer.read().0);
        read.len() == bytes.len()
    });
    assert!(read == bytes, "the data is complete and in order");
    assert!(world.late.iter().any(|(_, result)| matches!(result, SendResult::Short(_))));
    assert!(world.seen.contains(&Seen::Sendable(id)));
}

fn an_item_with_more_slices_than_one_send_accepts_arrives_completely<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    let bytes = pattern(2500 * 7);
    for (index, part) in bytes.chunks(7).enumerate() {
        let segment = turn_segment(&mut world.batch.turn, part);
        if index == 0 {
            world.batch.begin(id, segment);
        } else {
            world.batch.extend(segment);
        }
    }
    world.turn(Some(Duration::ZERO));
    let mut sent = bytes.len();
    for (_, result) in &world.late {
        let SendResult::Short(count) = result else { panic!("{result:?}") };
        sent = *count as usize;
    }
    let mut read = Vec::new();
    world.until("arrived", |_| {
        read.extend(peer.read().0);
        read.len() == sent
    });
    assert!(read == bytes[..sent]);
}

fn a_paused_socket_has_no_events_until_it_is_resumed<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    peer.write(b"one");
    world.until("received", |world| world.received(id) == b"one");
    // Once right after receiving, and once while a receive may already be submitted to the kernel.
    for round in 1..=3 {
        world.harness.driver().pause(id);
        peer.write(b"two");
        world.quiet();
        assert_eq!(world.received(id).len(), 3 * round, "no data while paused");
        world.harness.driver().resume(id);
        world.until("the rest", |world| world.received(id).len() == 3 * (round + 1));
        if round == 2 {
            world.quiet();
        }
    }
    world.harness.driver().pause(id);
    peer.shutdown_write();
    world.quiet();
    assert!(!world.seen.contains(&Seen::Ended(id, End::Eof)));
    world.harness.driver().resume(id);
    world.until("ended", |world| world.seen.contains(&Seen::Ended(id, End::Eof)));
}

fn a_half_closed_peer_still_receives<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    peer.write(b"last words");
    peer.shutdown_write();
    world.until("ended", |world| world.seen.contains(&Seen::Ended(id, End::Eof)));
    assert_eq!(world.received(id), b"last words");
    world.send(id, b"answer");
    let mut read = Vec::new();
    world.until("answered", |_| {
        read.extend(peer.read().0);
        read == b"answer"
    });
    world.quiet();
    assert_eq!(world.count(&Seen::Ended(id, End::Eof)), 1, "reported once");
    world.close(id, Close::Orderly);
    world.until("closed", |world| world.seen.contains(&Seen::Closed(id)));
    assert_eq!(peer.read().1, Some(End::Eof));
}

fn receiving_continues_after_shutdown_write<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    world.send(id, b"all");
    world.until("sent", |world| world.unsent(id) == 0);
    world.turn(Some(Duration::ZERO));
    world.harness.driver().shutdown_write(id);
    let (mut read, mut end) = (Vec::new(), None);
    world.until("end of stream", |_| {
        let (bytes, now) = peer.read();
        read.extend(bytes);
        end = now;
        end.is_some()
    });
    assert_eq!((read.as_slice(), end), (&b"all"[..], Some(End::Eof)));
    peer.write(b"still here");
    world.until("received", |world| world.received(id) == b"still here");
}

fn a_reset_is_reported_once_and_sends_fail<H: Harness>() {
    let mut world = World::<H>::new();
    let (peer, id) = world.pair();
    peer.reset();
    world.until("reset", |world| world.seen.contains(&Seen::Ended(id, End::Reset)));
    world.send(id, b"too late");
    world.until("failed", |world| world.late.contains(&(id, SendResult::Failed)));
    world.quiet();
    assert_eq!(world.count(&Seen::Ended(id, End::Reset)), 1);
    world.close(id, Close::Orderly);
    world.until("closed", |world| world.seen.contains(&Seen::Closed(id)));
}

fn a_send_to_a_full_socket_is_short_and_room_is_reported<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    world.send(id, &pattern(16 << 20));
    world.turn(Some(Duration::ZERO));
    let [(of, SendResult::Short(sent))] = world.late[..] else { panic!("{:?}", world.late) };
    assert!(of == id && sent < 16 << 20);
    world.quiet();
    let before = world.seen.iter().filter(|seen| **seen == Seen::Sendable(id)).count();
    world.until("room", |world| {
        peer.read();
        world.count(&Seen::Sendable(id)) > before
    });
}

fn a_reset_reaches_a_blocked_sender<H: Harness>() {
    let mut world = World::<H>::new();
    let (peer, id) = world.pair();
    world.harness.driver().pause(id);
    world.send(id, &pattern(16 << 20));
    world.quiet();
    assert!(world.unsent(id) > 0);
    peer.reset();
    world.until("failed", |world| world.late.contains(&(id, SendResult::Failed)));
}

fn closed_is_the_last_event_and_is_reported_once<H: Harness>() {
    let mut world = World::<H>::new();
    let mut pairs: Vec<_> = (0..24).map(|_| world.pair()).collect();
    // Sockets in every state: idle, blocked, paused, with unread bytes, with an unread end of stream.
    for (number, (peer, id)) in pairs.iter_mut().enumerate() {
        match number % 6 {
            0 => {}
            1 => world.send(*id, &pattern(8 << 20)),
            2 => world.harness.driver().pause(*id),
            _ => {}
        }
        if number % 6 >= 2 {
            peer.write(b"unread");
        }
        if number % 6 == 4 {
            peer.shutdown_write();
        }
    }
    world.turn(Some(Duration::ZERO));
    for (_, id) in &mut pairs[..12] {
        world.close(*id, if id.index % 2 == 0 { Close::Orderly } else { Close::Abort });
        world.close(*id, Close::Abort);
    }
    // The other half is closed while an event is pending.
    world.quiet();
    for (peer, id) in &mut pairs[12..] {
        peer.write(b"more");
        world.close(*id, if id.index % 2 == 0 { Close::Orderly } else { Close::Abort });
        world.harness.driver().pause(*id);
        world.harness.driver().resume(*id);
        world.harness.driver().shutdown_write(*id);
    }
    world.until("all closed", |world| {
        world.seen.iter().filter(|seen| matches!(seen, Seen::Closed(_))).count() == 24
    });
    world.quiet();
    for (number, (mut peer, id)) in pairs.into_iter().enumerate() {
        assert_eq!(world.count(&Seen::Closed(id)), 1);
        let mut end = None;
        world.until("the peer is closed", |_| {
            end = end.or(peer.read().1);
            end.is_some()
        });
        if id.index % 2 == 1 {
            assert_eq!(end, Some(End::Reset), "peer {number} of an aborted socket");
        } else if number < 12 {
            assert_eq!(end, Some(End::Eof), "peer {number} of an orderly closed socket");
        }
    }
}

fn an_orderly_close_delivers_the_queued_data<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    peer.write(b"never read");
    world.harness.driver().pause(id);
    world.send(id, &pattern(10_000));
    world.until("sent", |world| {
        world.turn(Some(Duration::ZERO));
        world.unsent(id) == 0
    });
    world.close(id, Close::Orderly);
    let (mut read, mut end) = (Vec::new(), None);
    world.until("end of stream", |_| {
        let (bytes, now) = peer.read();
        read.extend(bytes);
        end = now;
        end.is_some()
    });
    assert_eq!(end, Some(End::Eof));
    assert!(read == pattern(10_000));
}

fn a_reused_slot_receives_no_events_of_the_previous_socket<H: Harness>() {
    let mut world = World::<H>::new();
    let mut old: Option<(H::Peer, SocketId)> = None;
    for round in 0..100_u32 {
        let (mut peer, id) = world.pair();
        assert_eq!(id, SocketId { index: 0, generation: round });
        peer.write(&round.to_be_bytes());
        if let Some((mut peer, _)) = old.take() {
            peer.write(b"stale");
        }
        if round % 3 != 0 {
            world.until("received", |world| world.received(id).len() == 4);
            assert_eq!(world.received(id), round.to_be_bytes());
        }
        if round % 3 == 1 {
            peer.write(b"as it closes");
        }
        let how = if round % 2 == 0 { Close::Orderly } else { Close::Abort };
        world.close(id, how);
        old = Some((peer, id));
        world.until("closed", |world| world.seen.contains(&Seen::Closed(id)));
    }
}

fn sockets_beyond_the_limit_of_a_turn_are_served_without_sleeping<H: Harness>() {
    let settings = DriverSettings { sockets_max: 64, events_per_turn_max: 8, ..Default::default() };
    let mut world = World::<H>::with(settings);
    let mut pairs: Vec<_> = (0..50).map(|_| world.pair()).collect();
    world.quiet();
    for (peer, _) in &mut pairs {
        peer.write(b"x");
    }
    let begun = Instant::now();
    let mut turns = 0;
    while pairs.iter().any(|(_, id)| world.received(*id).is_empty()) {
        world.turn(Some(Duration::from_secs(20)));
        assert!(world.events_of_turn <= 8, "a turn has a limit");
        turns += 1;
        assert!(turns < 1000);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it does not sleep while events are pending"
    );
}

fn a_flooder_does_not_starve_others<H: Harness>() {
    let settings =
        DriverSettings { sockets_max: 64, receive_buffer_bytes: 1024, ..Default::default() };
    let mut world = World::<H>::with(settings);
    let (mut flooder, flooding) = world.pair();
    let mut others: Vec<_> = (0..5).map(|_| world.pair()).collect();
    let flood = vec![b'f'; 64 << 10];
    assert_eq!(flooder.write(&flood), flood.len());
    for (peer, _) in &mut others {
        peer.write(b"x");
    }
    let mut served = Vec::new();
    while world.received(flooding).len() < flood.len() {
        let seen = world.turn(Some(Duration::from_secs(20)));
        let of_flooder = |seen: &&Seen| matches!(seen, Seen::Received(id, _) if *id == flooding);
        assert!(seen.iter().filter(of_flooder).count() <= 1, "one receive per turn");
        let all = others.iter().all(|(_, id)| !world.received(*id).is_empty());
        if all {
            served.push(world.received(flooding).len());
        }
    }
    assert!(
        served.first().is_some_and(|at| *at < flood.len() / 2),
        "others are served during the flood"
    );
}

fn the_bytes_of_a_turn_are_limited_and_all_sockets_are_served<H: Harness>() {
    let settings = DriverSettings {
        sockets_max: 64,
        receive_buffer_bytes: 1024,
        received_bytes_per_turn_max: 3000,
        ..Default::default()
    };
    let mut world = World::<H>::with(settings);
    let mut pairs: Vec<_> = (0..20).map(|_| world.pair()).collect();
    world.quiet();
    for (peer, _) in &mut pairs {
        assert_eq!(peer.write(&[b'x'; 2000]), 2000);
    }
    let mut turns = 0;
    while pairs.iter().any(|(_, id)| world.received(*id).len() < 2000) {
        let seen = world.turn(Some(Duration::from_secs(20)));
        let bytes = seen.iter().map(|seen| match seen {
            Seen::Received(_, bytes) => bytes.len(),
            _ => 0,
        });
        assert!(bytes.sum::<usize>() < 3000 + 1024, "the limit, exceeded by at most one receive");
        turns += 1;
        assert!(turns < 1000);
    }
}

fn after_stop_listening_connections_are_refused_and_open_ones_continue<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peer, id) = world.pair();
    world.harness.driver().stop_listening();
    world.quiet();
    assert!(world.harness.try_connect(None).is_none());
    peer.write(b"still");
    world.until("received", |world| world.received(id) == b"still");
}

fn a_thousand_peers_connect_at_once<H: Harness>() {
    let mut world = World::<H>::new();
    let mut peers: Vec<_> = (0..1000).map(|_| world.connect()).collect();
    for (number, peer) in (0_u32..).zip(&mut peers) {
        assert_eq!(peer.write(&number.to_be_bytes()), 4);
    }
    let mut echoed = 0;
    let mut read = vec![Vec::new(); peers.len()];
    world.until("each peer has received its echo", |world| {
        for seen in &world.seen[echoed..].to_vec() {
            if let Seen::Received(id, bytes) = seen {
                world.send(*id, bytes);
            }
        }
        echoed = world.seen.len();
        for (peer, read) in peers.iter_mut().zip(&mut read) {
            if read.len() < 4 {
                read.extend(peer.read().0);
            }
        }
        read.iter().all(|read| read.len() == 4)
    });
    for (number, read) in (0_u32..).zip(&read) {
        assert_eq!(*read, number.to_be_bytes());
    }
}

fn a_wait_sleeps_until_its_timeout<D: KernelDriver>() {
    let mut world = World::<Kernel<D>>::new();
    world.quiet();
    let begun = Instant::now();
    world.turn(Some(Duration::ZERO));
    assert!(begun.elapsed() < Duration::from_secs(5), "a wait with a timeout of zero slept");
    let begun = Instant::now();
    assert_eq!(world.turn(Some(Duration::from_millis(30))), []);
    assert!(begun.elapsed() >= Duration::from_millis(29));
    assert!(world.harness.driver().now() >= begun + Duration::from_millis(29));
}

fn a_waker_ends_a_wait_without_a_timeout<D: KernelDriver>() {
    let mut world = World::<Kernel<D>>::new();
    world.quiet();
    for _ in 0..20 {
        let waker = world.harness.waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(3));
            waker.wake();
        });
        assert_eq!(world.turn(None), [Seen::Woken]);
        thread.join().unwrap();
    }
}

fn wakes_are_merged_and_none_is_lost<D: KernelDriver>() {
    let mut world = World::<Kernel<D>>::new();
    world.quiet();
    let waker = world.harness.waker();
    for _ in 0..20 {
        for _ in 0..100 {
            waker.wake();
        }
        // A wake before the wait prevents it from sleeping.
        assert_eq!(world.turn(None), [Seen::Woken]);
        world.quiet();
        assert!(world.count(&Seen::Woken) <= 20);
        world.seen.clear();
    }
}

fn established_sockets_are_served_before_new_and_closed_ones<H: Harness>() {
    const MANY: usize = 500;
    let settings =
        DriverSettings { sockets_max: 4096, churn_per_turn_max: 8, ..DriverSettings::default() };
    let mut world = World::<H>::with(settings);
    let (mut staying, id) = world.pair();
    staying.write(b"1");
    world.until("the data is received", |world| world.received(id) == b"1");
    let mut going: Vec<_> = (0..MANY).map(|_| world.pair().0).collect();
    let mut coming: Vec<_> = (0..MANY).map(|_| world.pair().0).collect();
    world.quiet();

    going.iter_mut().for_each(Peer::shutdown_write);
    coming.iter_mut().for_each(|peer| assert_eq!(peer.write(b"x"), 1));
    staying.write(b"2");
    let ended = |seen: &[Seen]| seen.iter().filter(|s| matches!(s, Seen::Ended(..))).count();
    let received = |seen: &[Seen]| seen.iter().filter(|s| matches!(s, Seen::Received(..))).count();
    let first = world.turn(Some(Duration::from_secs(20)));
    assert!(
        first.contains(&Seen::Received(id, b"2".to_vec())),
        "the established socket is served first"
    );
    let others = (ended(&first), received(&first) - 1);
    assert!(
        others.0 <= 1 && others.1 <= 1,
        "one of each kind besides the established socket: {others:?}"
    );
    let mut left = (MANY - ended(&first), MANY + 1 - received(&first));
    let mut most = (0, 0);
    while left != (0, 0) {
        let seen = world.turn(Some(Duration::from_secs(20)));
        let (gone, come) = (ended(&seen), received(&seen));
        most = (most.0.max(gone), most.1.max(come));
        assert!(gone + come > 0, "it does not sleep while events are pending");
        let is_crowd = left.0 + left.1 > CROWD_MIN;
        assert!(!is_crowd || (gone <= 1 && come <= 1), "a crowd: {gone} and {come}");
        left = (left.0 - gone, left.1 - come);
    }
    assert_eq!(most, (8, 8), "the full batch, when no other socket has events");
}

fn every_socket_of_a_turn_has_the_same_share<H: Harness>() {
    let mut world = World::<H>::new();
    let (mut peers, ids): (Vec<_>, Vec<_>) = (0..2).map(|_| world.pair()).unzip();
    for (bytes, received) in [(1, 1), (64 << 10, 1 + RECEIVE_SHARE_BYTES)] {
        peers.iter_mut().for_each(|peer| assert_eq!(peer.write(&vec![b'x'; bytes]), bytes));
        world.until("the same share", |world| {
            ids.iter().all(|id| world.received(*id).len() == received)
        });
    }
}

/// Sparse flows go first, as in FQ-CoDel (RFC 8290 section 4.2), without starving the others.
fn sparse_senders_are_served_first_in_every_second_turn<H: Harness>() {
    const SPARSE: usize = 4;
    // A turn ends after its first receive.
    let settings = DriverSettings { received_bytes_per_turn_max: 1, ..DriverSettings::default() };
    let mut world = World::<H>::with(settings);
    let (mut peers, ids): (Vec<_>, Vec<_>) = (0..2 + SPARSE).map(|_| world.pair()).unzip();
    let bulky = ids.split_at(2).0;
    for (peer, &id) in peers.iter_mut().zip(&ids) {
        let bytes = SPARSE_RECEIVE_BYTES_MAX + usize::from(bulky.contains(&id));
        assert_eq!(peer.write(&vec![b'x'; bytes]), bytes);
        world.until("the data is received", |world| world.received(id).len() == bytes);
    }
    // Two full shares from each bulk sender, one byte from each sparse sender.
    for (peer, &id) in peers.iter_mut().zip(&ids) {
        let bytes = if bulky.contains(&id) { 2 * RECEIVE_SHARE_BYTES } else { 1 };
        assert_eq!(peer.write(&vec![b'x'; bytes]), bytes);
    }
    for turn in 0..2 * SPARSE {
        let seen = world.turn(Some(Duration::from_secs(20)));
        let [Seen::Received(id, _)] = &seen[..] else { panic!("one receive per turn: {seen:?}") };
        assert_eq!(bulky.contains(id), turn % 2 == 1, "in turn {turn}");
    }
}

/// The thread has a private descriptor table, so that filling it does not affect other tests; the limit applies to the
/// process.
fn accepting_fails_without_descriptors_and_resumes<D: KernelDriver>() {
    let (address, addresses) = std::sync::mpsc::channel();
    let (connected, connections) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        make_private().unwrap();
        let mut world = World::<Kernel<D>>::new();
        world.quiet();
        let mut files = vec![File::open("/dev/null").unwrap()];
        while let Ok(file) = files[0].try_clone() {
            files.push(file);
        }
        address.send(world.harness.address()).unwrap();
        let failed = |seen: &Seen| matches!(seen, Seen::AcceptFailed(_, Some(24))); // EMFILE
        world.until("failed", |world| world.seen.iter().any(failed));
        connections.recv().unwrap();
        let begun = Instant::now();
        for _ in 0..10 {
            world.turn(Some(Duration::from_millis(3)));
        }
        assert!(
            begun.elapsed() >= Duration::from_millis(20),
            "it sleeps while accepting is paused"
        );
        assert_eq!(world.seen.iter().filter(|seen| failed(seen)).count(), 1, "reported once");
        drop(files);
        world.harness.driver().resume_accepting(fantail::driver::ListenerId(0));
        let accepted = |seen: &&Seen| matches!(seen, Seen::Accepted(_));
        world.until("accepted", |world| world.seen.iter().filter(accepted).count() == 3);
    });
    let address = addresses.recv().unwrap();
    let peers: Vec<_> = (0..3).map(|_| connect(address, None).unwrap()).collect();
    connected.send(()).unwrap();
    worker.join().unwrap();
    drop(peers);
}

/// Tests of io_uring are skipped on hosts that forbid it.
fn runs_here(module: &str) -> bool {
    if !module.ends_with("io_uring") {
        return true;
    }
    choose(DriverChoice::IoUring).inspect_err(|error| println!("skipped: {error}")).is_ok()
}

/// The contract of all drivers.
macro_rules! contract {
    ($harness:ty) => {
        contract!($harness: accepted_socket_receives_and_sends
            bytes_sent_before_accept_are_received
            large_transfers_go_both_ways
            ten_megabytes_pass_a_small_window_intact
            an_item_with_more_slices_than_one_send_accepts_arrives_completely
            a_paused_socket_has_no_events_until_it_is_resumed
            a_half_closed_peer_still_receives
            receiving_continues_after_shutdown_write
            a_reset_is_reported_once_and_sends_fail
            a_send_to_a_full_socket_is_short_and_room_is_reported
            a_reset_reaches_a_blocked_sender
            closed_is_the_last_event_and_is_reported_once
            an_orderly_close_delivers_the_queued_data
            a_reused_slot_receives_no_events_of_the_previous_socket
            sockets_beyond_the_limit_of_a_turn_are_served_without_sleeping
            a_flooder_does_not_starve_others
            the_bytes_of_a_turn_are_limited_and_all_sockets_are_served
            after_stop_listening_connections_are_refused_and_open_ones_continue
            a_thousand_peers_connect_at_once);
    };
    ($harness:ty: $($test:ident)*) => {
        $(#[test]
        fn $test() {
            if super::runs_here(module_path!()) {
                super::$test::<$harness>();
            }
        })*
    };
}

/// The contract of drivers that need a kernel and a clock.
macro_rules! kernel_contract {
    ($driver:ty) => {
        contract!($driver: a_wait_sleeps_until_its_timeout
            a_waker_ends_a_wait_without_a_timeout
            wakes_are_merged_and_none_is_lost
            accepting_fails_without_descriptors_and_resumes);
    };
}

/// The order in which sockets are served. Network faults change it.
macro_rules! order_contract {
    ($harness:ty) => {
        contract!($harness: established_sockets_are_served_before_new_and_closed_ones
            every_socket_of_a_turn_has_the_same_share
            sparse_senders_are_served_first_in_every_second_turn);
    };
}

mod epoll {
    use super::{EpollDriver, Kernel};
    contract!(Kernel<EpollDriver>);
    order_contract!(Kernel<EpollDriver>);
    kernel_contract!(EpollDriver);
}

mod io_uring {
    use super::{Kernel, UringDriver};
    contract!(Kernel<UringDriver>);
    order_contract!(Kernel<UringDriver>);
    kernel_contract!(UringDriver);
}

mod simulated {
    use super::Simulated;
    contract!(Simulated<false>);
    order_contract!(Simulated<false>);
}

mod simulated_with_faults {
    use super::Simulated;
    contract!(Simulated<true>);
}
