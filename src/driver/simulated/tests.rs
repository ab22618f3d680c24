//! Tests of what only the simulation has: workers that share an address, faults, and runs that repeat. The contract
//! itself is tested in `tests/drivers.rs`.

use super::*;

fn address() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

fn id(index: u32) -> SocketId {
    SocketId { index, generation: 0 }
}

/// Runs one turn that attaches every accepted socket, and describes its events in words.
fn turn(driver: &mut SimulatedDriver, attached: &mut u32) -> Vec<String> {
    let mut seen = Vec::new();
    driver.wait(&mut SendBatch::default(), None).unwrap();
    loop {
        let mut accepted = None;
        let Some(event) = driver.next_event() else { return seen };
        match event {
            Event::Accepted { socket, peer, .. } => {
                let peer = peer.unwrap();
                seen.push(format!("accepted {peer}"));
                accepted = Some(socket);
            }
            Event::Received { id, bytes } => seen.push(format!("{} {bytes:?}", id.index)),
            event => seen.push(format!("{event:?}")),
        }
        if let Some(socket) = accepted {
            driver.attach(id(*attached), socket);
            *attached += 1;
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let network = SimulatedNetwork::new(seed);
        network.set_faults(Faults {
            split_receives: 500,
            stalls: 500,
            stall_max: Duration::from_millis(5),
            resets: 50,
            accept_failures: 100,
            ..Faults::default()
        });
        let mut driver = SimulatedDriver::new(&DriverSettings::default(), &network, &[address()]);
        let (mut attached, mut seen) = (0, Vec::new());
        let peers: Vec<_> = (0..20).map(|_| network.connect(address()).unwrap()).collect();
        for round in 0..50_u8 {
            for peer in &peers {
                network.write(*peer, &[round; 7]);
            }
            network.advance(Duration::from_millis(1));
            seen.push(turn(&mut driver, &mut attached));
            driver.resume_accepting(ListenerId(0));
        }
        seen
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let all = run(7).concat().join("\n");
    assert!(all.contains("AcceptFailed") && all.contains("Reset"), "faults happen");
}

#[test]
fn workers_share_an_address() {
    let network = SimulatedNetwork::new(1);
    let settings = DriverSettings::default();
    let mut workers =
        [(); 3].map(|()| (SimulatedDriver::new(&settings, &network, &[address()]), 0));
    for _ in 0..90 {
        assert!(network.connect(address()).is_some());
    }
    for (driver, attached) in &mut workers {
        for _ in 0..90 / settings.churn_per_turn_max {
            turn(driver, attached);
        }
        assert!(*attached > 10, "connections are spread over the workers");
        driver.stop_listening();
    }
    assert_eq!(workers.iter().map(|(_, attached)| attached).sum::<u32>(), 90);
    assert!(network.connect(address()).is_none());
}

#[test]
fn a_refused_connection_is_reset() {
    let network = SimulatedNetwork::new(1);
    let mut driver = SimulatedDriver::new(&DriverSettings::default(), &network, &[address()]);
    let peer = network.connect(address()).unwrap();
    driver.wait(&mut SendBatch::default(), None).unwrap();
    while let Some(event) = driver.next_event() {
        drop(event);
    }
    assert_eq!(network.ended(peer), Some(End::Reset));
}

#[test]
fn time_moves_when_the_test_moves_it() {
    let network = SimulatedNetwork::new(1);
    let mut driver = SimulatedDriver::new(&DriverSettings::default(), &network, &[]);
    let begun = driver.now();
    network.advance(Duration::from_secs(86_400));
    assert_eq!(driver.now(), begun);
    driver.wait(&mut SendBatch::default(), None).unwrap();
    assert_eq!(driver.now(), begun + Duration::from_secs(86_400));
}
