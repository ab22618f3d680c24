//! Cost of a driver per message on loopback. One thread runs both ends; only the driver's side is timed.
//!
//! Budgets, on a 2020s server core: an echo of 64 bytes under 6 µs, one delivery of a broadcast under 6 µs. Most of
//! it is TCP in the kernel, so compare drivers with each other and commits with each other.

#![expect(clippy::unwrap_used, reason = "a bench is a program of its own")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fantail::buffer::{Segment, SharedFrame};
use fantail::config::DriverChoice;
use fantail::driver::{
    Driver, DriverSettings, EpollDriver, Event, Keepalive, SendBatch, SocketId, UringDriver, Waker,
    bind_listener, choose, raise_limit,
};

struct Pair<D> {
    driver: D,
    peers: Vec<TcpStream>,
    batch: SendBatch,
}

impl<D: Driver<Socket = OwnedFd>> Pair<D> {
    fn new(build: impl FnOnce(Vec<OwnedFd>) -> D, count: u32) -> Self {
        raise_limit().unwrap();
        let listener = bind_listener((Ipv4Addr::LOCALHOST, 0).into(), Keepalive::Off).unwrap();
        let address = listener.local_addr().unwrap();
        let mut pair = Self {
            driver: build(vec![listener.into()]),
            peers: (0..count).map(|_| TcpStream::connect(address).unwrap()).collect(),
            batch: SendBatch::default(),
        };
        let mut attached = 0;
        while attached < count {
            pair.driver.wait(&mut pair.batch, Some(Duration::from_secs(1))).unwrap();
            while let Some(event) = pair.driver.next_event() {
                let Event::Accepted { socket, .. } = event else { continue };
                pair.driver.attach(SocketId { index: attached, generation: 0 }, socket);
                attached += 1;
            }
        }
        pair.driver.wait(&mut pair.batch, Some(Duration::ZERO)).unwrap();
        pair
    }

    /// Every peer sends a message and receives its echo.
    fn echo(&mut self) -> Duration {
        let mut bytes = [7; MESSAGE_BYTES];
        for peer in &mut self.peers {
            peer.write_all(&bytes).unwrap();
        }
        let begun = Instant::now();
        let mut left = self.peers.len();
        while left > 0 || !self.batch.is_empty() {
            // The last turn only sends.
            let timeout = if left > 0 { Duration::from_secs(1) } else { Duration::ZERO };
            self.driver.wait(&mut self.batch, Some(timeout)).unwrap();
            assert!(self.batch.late.is_empty());
            self.batch.clear();
            while let Some(event) = self.driver.next_event() {
                let Event::Received { id, bytes } = event else { continue };
                let start = self.batch.turn.len() as u32;
                self.batch.turn.extend_from_slice(bytes);
                self.batch.begin(id, Segment::Turn { start, len: bytes.len() as u32 });
                left -= 1;
            }
        }
        let taken = begun.elapsed();
        for peer in &mut self.peers {
            peer.read_exact(&mut bytes).unwrap();
        }
        taken
    }

    /// Sends one frame to all peers.
    fn broadcast(&mut self, frame: &SharedFrame) -> Duration {
        let begun = Instant::now();
        for index in 0..self.peers.len() as u32 {
            self.batch.begin(SocketId { index, generation: 0 }, Segment::Shared(frame.clone()));
        }
        self.driver.wait(&mut self.batch, Some(Duration::ZERO)).unwrap();
        assert!(self.batch.late.is_empty());
        self.batch.clear();
        let taken = begun.elapsed();
        let mut bytes = [0; MESSAGE_BYTES];
        for peer in &mut self.peers {
            peer.read_exact(&mut bytes).unwrap();
        }
        taken
    }
}

fn run<D: Driver<Socket = OwnedFd>>(
    criterion: &mut Criterion,
    name: &str,
    build: impl Fn(Vec<OwnedFd>) -> D,
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    for count in [1, 256] {
        let mut pair = Pair::new(&build, count);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(format!("echo_64_bytes/{count}"), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| pair.echo()).sum());
        });
    }
    let mut pair = Pair::new(&build, 1000);
    let frame = SharedFrame::copy_of(&[7; MESSAGE_BYTES]);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("broadcast_64_bytes/1000", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| pair.broadcast(&frame)).sum());
    });
    group.finish();
}

fn drivers(criterion: &mut Criterion) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("kernel {}, {}", kernel.trim(), choose(DriverChoice::Auto).unwrap().1);
    let settings = DriverSettings { sockets_max: 4096, ..DriverSettings::default() };
    run(criterion, "epoll", |listeners| {
        EpollDriver::new(&settings, listeners, Waker::none()).unwrap()
    });
    if choose(DriverChoice::IoUring).is_ok() {
        run(criterion, "io_uring", |listeners| {
            UringDriver::new(&settings, listeners, Waker::none()).unwrap()
        });
    }
}

const MESSAGE_BYTES: usize = 64;

criterion_group!(benches, drivers);
criterion_main!(benches);
