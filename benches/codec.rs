//! The codecs against their budgets and their peers, tungstenite and fastwebsockets.
//!
//! `cargo bench --bench codec`; run it alone, and compare only rows of one run. Each group names
//! its budget. The peers read from a stream, not from a slice; where a row covers the
//! whole decoder, ours is fed by the same stream into a buffer of 64 KiB, so that all rows pay the
//! copy that `recv` makes.

use std::hint::black_box;
use std::io::{self, Cursor, Read, Write};
use std::pin::{Pin, pin};
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fantail::protocol::http1::{HeadLimits, parse_head};
use fantail::protocol::websocket::handshake::{check_upgrade, write_accept_response};
use fantail::protocol::websocket::{
    Limits, Message, MessageDecoder, OpCode, Role, decode_header, is_utf8, unmask,
    write_masked_frame,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server;
use tungstenite::protocol::frame::FrameHeader;

const MASK: [u8; 4] = [0x9A, 0x12, 0xFF, 0x47];

/// Budget: 5 ns per header. fastwebsockets does not expose its header decoder; its whole decoder is
/// measured below.
fn header(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    for payload_len in [20, 1024, 70_000] {
        let mut frame = Vec::new();
        write_masked_frame(&mut frame, OpCode::Text, &vec![0; payload_len], MASK);
        let bytes = &frame[..14];
        group.bench_function(BenchmarkId::new("fantail", payload_len), |bencher| {
            bencher.iter(|| decode_header(black_box(bytes), false));
        });
        group.bench_function(BenchmarkId::new("tungstenite", payload_len), |bencher| {
            bencher.iter(|| FrameHeader::parse(&mut Cursor::new(black_box(bytes))));
        });
    }
    group.finish();
}

/// Budget: 4 ns for 20 bytes, half the speed of memcpy from 4 KiB on. Payloads start six bytes into
/// a buffer, as they do behind a header. tungstenite does not expose its loop, which equals that of
/// fastwebsockets.
fn unmask_payload(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for payload_len in [20, 125, 1024, 4096, 65_536] {
        group.throughput(Throughput::Bytes(payload_len as u64));
        let mut frame = vec![0x55; 6 + payload_len];
        group.bench_function(BenchmarkId::new("fantail", payload_len), |bencher| {
            bencher.iter(|| unmask(black_box(&mut frame[6..]), black_box(MASK), 0));
        });
        group.bench_function(BenchmarkId::new("fastwebsockets", payload_len), |bencher| {
            bencher.iter(|| fastwebsockets::unmask(black_box(&mut frame[6..]), black_box(MASK)));
        });
        let mut copy = vec![0; payload_len];
        group.bench_function(BenchmarkId::new("memcpy", payload_len), |bencher| {
            bencher.iter(|| copy.copy_from_slice(black_box(&frame[6..])));
        });
    }
    group.finish();
}

/// Budget: 3 ns for 20 bytes of ASCII, 10 GB/s for long text. The peers check with the standard
/// library unless built with `simdutf8`. Short text that is not ASCII costs about a nanosecond more
/// for the ASCII check.
fn utf8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("utf8");
    let mixed = "plain words, ein paar Umlaute: äöü, и немного кириллицы, 😀; ";
    let texts = [
        ("20_ascii", "twenty ascii letters".to_owned()),
        ("60_ascii", "sixty ascii letters ".repeat(3)),
        ("40_mixed", mixed.chars().skip(20).take(30).collect()),
        ("1k_mixed", mixed.repeat(16).chars().take(800).collect()),
        ("64k_ascii", "0123456789abcdef".repeat(4096)),
        ("64k_mixed", mixed.repeat(820)),
    ];
    for (name, text) in &texts {
        let bytes = text.as_bytes();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("fantail", name), |bencher| {
            bencher.iter(|| is_utf8(black_box(bytes)));
        });
        group.bench_function(BenchmarkId::new("simdutf8", name), |bencher| {
            bencher.iter(|| simdutf8::basic::from_utf8(black_box(bytes)).is_ok());
        });
        group.bench_function(BenchmarkId::new("std", name), |bencher| {
            bencher.iter(|| std::str::from_utf8(black_box(bytes)).is_ok());
        });
    }
    group.finish();
}

/// Budget: 15 ns for a message of 20 bytes, 80 ns for one of 1 KiB, from the stream to checked
/// text.
fn message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for payload_len in [20, 1024] {
        let stream = EndlessStream::of_text(payload_len);
        group.throughput(Throughput::Bytes(payload_len as u64));
        group.bench_function(BenchmarkId::new("fantail", payload_len), |bencher| {
            let mut reader = Reader::new(stream.clone());
            bencher.iter(|| reader.next_text_len());
        });
        group.bench_function(BenchmarkId::new("tungstenite", payload_len), |bencher| {
            let role = tungstenite::protocol::Role::Server;
            let mut socket = tungstenite::WebSocket::from_raw_socket(stream.clone(), role, None);
            bencher.iter(|| socket.read().expect("the stream is valid").len());
        });
        group.bench_function(BenchmarkId::new("fastwebsockets", payload_len), |bencher| {
            let role = fastwebsockets::Role::Server;
            let mut socket = fastwebsockets::WebSocket::after_handshake(stream.clone(), role);
            let mut context = Context::from_waker(Waker::noop());
            bencher.iter(|| match pin!(socket.read_frame()).poll(&mut context) {
                Poll::Ready(Ok(frame)) => frame.payload.len(),
                _ => panic!("the stream is valid and always ready"),
            });
        });
    }
    group.finish();
}

/// Budget: 1 us from a browser's request to the response in the send buffer: a core then upgrades
/// faster than it can accept. fastwebsockets leaves HTTP to hyper, so there is nothing of its own
/// to compare.
fn upgrade(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("upgrade");
    let limits = HeadLimits::default();
    let mut out = Vec::with_capacity(1024);
    for (name, request) in [("browser", BROWSER_REQUEST), ("minimal", MINIMAL_REQUEST)] {
        group.bench_function(BenchmarkId::new("fantail", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                let head = parse_head(black_box(request.as_bytes()), &limits)
                    .expect("the request is valid")
                    .expect("the request is whole");
                let upgrade = check_upgrade(&head).expect("the request asks for an upgrade");
                write_accept_response(&mut out, upgrade.key, None, None);
                out.len()
            });
        });
        group.bench_function(BenchmarkId::new("fantail_parse_only", name), |bencher| {
            bencher.iter(|| {
                let head = parse_head(black_box(request.as_bytes()), &limits);
                head.is_ok_and(|head| head.is_some())
            });
        });
        group.bench_function(BenchmarkId::new("tungstenite", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                let (_, request) = server::Request::try_parse(black_box(request.as_bytes()))
                    .expect("the request is valid")
                    .expect("the request is whole");
                let response = server::create_response(&request).expect("it asks for an upgrade");
                server::write_response(&mut out, &response).expect("a vector takes it");
                out.len()
            });
        });
    }
    group.finish();
}

const MINIMAL_REQUEST: &str = "GET /ws?channel=a HTTP/1.1\r\n\
    Host: edge.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

const BROWSER_REQUEST: &str = "GET /ws?channel=a HTTP/1.1\r\n\
    Host: edge.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Origin: https://www.example.com\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Sec-Fetch-Mode: websocket\r\n\
    Sec-Fetch-Site: same-site\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    Upgrade: websocket\r\n\r\n";

/// Our decoder as a worker uses it: one receive, then every message in it.
struct Reader {
    stream: EndlessStream,
    buffer: Vec<u8>,
    unread: std::ops::Range<usize>,
    decoder: MessageDecoder,
}

impl Reader {
    const LIMITS: Limits = Limits {
        role: Role::Server,
        message_bytes_max: 1 << 20,
        fragments_max: u32::MAX,
        has_compression: false,
    };

    fn new(stream: EndlessStream) -> Self {
        Self { stream, buffer: vec![0; 65_536], unread: 0..0, decoder: MessageDecoder::new() }
    }

    fn next_text_len(&mut self) -> usize {
        loop {
            let mut input = &mut self.buffer[self.unread.clone()];
            let len = match self.decoder.next(&mut input, &Self::LIMITS) {
                Ok(Some(Message::Text(text))) => Some(text.len()),
                Ok(None) => None,
                _ => panic!("the stream is valid text"),
            };
            self.unread.start = self.unread.end - input.len();
            if let Some(len) = len {
                return len;
            }
            let count = self.stream.read(&mut self.buffer).expect("the stream never fails");
            self.unread = 0..count;
        }
    }
}

/// An endless stream of masked text frames, at the speed of memcpy.
#[derive(Clone)]
struct EndlessStream {
    frames: Vec<u8>,
    position: usize,
}

impl EndlessStream {
    fn of_text(payload_len: usize) -> Self {
        let mut frames = Vec::new();
        while frames.len() < 100_000 {
            write_masked_frame(&mut frames, OpCode::Text, &vec![b'a'; payload_len], MASK);
        }
        Self { frames, position: 0 }
    }
}

impl Read for EndlessStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.frames.len() - self.position);
        buffer[..count].copy_from_slice(&self.frames[self.position..][..count]);
        self.position = (self.position + count) % self.frames.len();
        Ok(count)
    }
}

impl Write for EndlessStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for EndlessStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = buffer.remaining().min(self.frames.len() - self.position);
        buffer.put_slice(&self.frames[self.position..][..count]);
        self.position = (self.position + count) % self.frames.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for EndlessStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Prints the machine and the commit, without which numbers are meaningless.
fn print_setting() {
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu_info = file("/proc/cpuinfo");
    let cpu = cpu_info.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|output| output.stdout).unwrap_or_default();
    println!("kernel: {}", file("/proc/sys/kernel/osrelease").trim());
    println!("cpu: {}", cpu.trim_start_matches("model name").trim_start_matches([' ', '\t', ':']));
    println!("commit: {}", String::from_utf8_lossy(&commit).trim());
}

fn quick() -> Criterion {
    print_setting();
    Criterion::default()
        .sample_size(40)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
}

criterion_group! {
    name = codec;
    config = quick();
    targets = header, unmask_payload, utf8, message, upgrade
}
criterion_main!(codec);
