//! `fantail serve`: runs the server.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use fantail::config::{self, Config, DriverChoice, parse_bytes, parse_seconds};
use fantail::connection::Service;
use fantail::server::{Server, StopSignals};

/// What can be chosen. Every default stands in `Config`.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Arguments {
    /// HTTP and WebSocket address; may be given more than once [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Raw TCP address: the command protocol, one JSON object a line [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDR")]
    tcp: Vec<SocketAddr>,
    /// What delimits commands on raw TCP: a line feed, or a 32-bit big-endian length before each
    #[arg(long, value_enum, value_name = "FRAMING", default_value_t = Framing::Line)]
    tcp_framing: Framing,
    /// Address where every WebSocket message is echoed
    #[arg(long, value_name = "ADDR")]
    echo: Vec<SocketAddr>,
    /// Address where every byte is echoed
    #[arg(long, value_name = "ADDR")]
    echo_tcp: Vec<SocketAddr>,
    /// Threads that serve, each pinned to a core [default: one per core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// How to talk to the kernel; auto probes io_uring and falls back to epoll
    #[arg(long, value_enum, value_name = "DRIVER", default_value_t = Driver::Auto)]
    driver: Driver,
    /// Serve addresses beyond loopback without authentication
    #[arg(long)]
    insecure: bool,
    /// Connections of the whole process [default: as many as descriptors allow]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    connections_max: Option<usize>,
    /// Bytes of one message or HTTP body from a client [default: 1 MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Limits")]
    message_bytes_max: Option<u64>,
    /// The same on --echo addresses [default: 16 MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Limits")]
    echo_message_bytes_max: Option<u64>,
    /// Bytes waiting for one client at which it is closed as a slow consumer [default: 4 MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Limits")]
    send_queue_bytes_max: Option<u64>,
    /// Channels of one client [default: 128]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    subscriptions_max: Option<usize>,
    /// Time for a handshake, and for one HTTP request [default: 10 s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Limits")]
    handshake_timeout: Option<Duration>,
    /// Silence after which a client is pinged [default: 25 s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Limits")]
    keepalive_interval: Option<Duration>,
    /// Time for the answer to a ping [default: 10 s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Limits")]
    keepalive_timeout: Option<Duration>,
    /// Silence between two HTTP requests of a connection [default: 75 s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Limits")]
    http_idle_timeout: Option<Duration>,
    /// Time for a closing client to take what is queued and close its end [default: 5 s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Limits")]
    close_timeout: Option<Duration>,
    /// Time that shutting down may take [default: 10 s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Limits")]
    shutdown_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Driver {
    Auto,
    #[value(name = "io_uring", alias = "io-uring")]
    IoUring,
    Epoll,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Framing {
    Line,
    Length,
}

/// What stands below the help of the command.
pub const EXAMPLES: &str = "\
Without any address given, it serves 127.0.0.1:8000 (HTTP and WebSocket) and 127.0.0.1:8001 (raw TCP); with any, just
those. Sizes take units (64 KiB, 1 MiB), times too (500 ms, 25 s, 2 min).

Examples:
  fantail                                              serve on loopback, then:
  curl -d hello 'http://127.0.0.1:8000/publish?channel=a'
                                                       publish to channel a
  fantail --listen 0.0.0.0:80 --insecure --workers 4   serve everyone, from four threads
  fantail --echo 127.0.0.1:9001 --driver epoll         echo WebSockets, on epoll

SIGTERM and SIGINT stop it: every client is told, what is queued is sent, and it exits with 0 within
--shutdown-timeout.";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let config = configure(arguments);
    let signals = StopSignals::new().map_err(|error| error.to_string())?;
    let server = Server::start(&config).map_err(|error| error.to_string())?;
    announce(&server);
    signals.wait(server).map_err(|error| error.to_string())
}

fn configure(arguments: Arguments) -> Config {
    let defaults = Config::default();
    let mut config = Config {
        listen: arguments.listen,
        tcp: arguments.tcp,
        tcp_framing: match arguments.tcp_framing {
            Framing::Line => config::Framing::Line,
            Framing::Length => config::Framing::LengthPrefix,
        },
        echo: arguments.echo,
        echo_tcp: arguments.echo_tcp,
        workers: arguments.workers,
        driver: match arguments.driver {
            Driver::Auto => DriverChoice::Auto,
            Driver::IoUring => DriverChoice::IoUring,
            Driver::Epoll => DriverChoice::Epoll,
        },
        insecure: arguments.insecure,
        connections_max: arguments.connections_max,
        message_bytes_max: arguments.message_bytes_max.unwrap_or(defaults.message_bytes_max),
        echo_message_bytes_max: arguments
            .echo_message_bytes_max
            .unwrap_or(defaults.echo_message_bytes_max),
        send_queue_bytes_max: arguments
            .send_queue_bytes_max
            .unwrap_or(defaults.send_queue_bytes_max),
        subscriptions_max: arguments.subscriptions_max.unwrap_or(defaults.subscriptions_max),
        handshake_timeout: arguments.handshake_timeout.unwrap_or(defaults.handshake_timeout),
        keepalive_interval: arguments.keepalive_interval.unwrap_or(defaults.keepalive_interval),
        keepalive_timeout: arguments.keepalive_timeout.unwrap_or(defaults.keepalive_timeout),
        http_idle_timeout: arguments.http_idle_timeout.unwrap_or(defaults.http_idle_timeout),
        close_timeout: arguments.close_timeout.unwrap_or(defaults.close_timeout),
        shutdown_timeout: arguments.shutdown_timeout.unwrap_or(defaults.shutdown_timeout),
    };
    if [&config.listen, &config.tcp, &config.echo, &config.echo_tcp].iter().all(|a| a.is_empty()) {
        config.listen.push(SocketAddr::from(([127, 0, 0, 1], 8000)));
        config.tcp.push(SocketAddr::from(([127, 0, 0, 1], 8001)));
    }
    config
}

/// The addresses, and one line to try for each door.
#[expect(clippy::print_stdout, reason = "what a person sees at start")]
fn announce(server: &Server) {
    let (driver, reason) = server.driver();
    println!(
        "fantail {} serves with {} on {driver} ({reason})",
        env!("CARGO_PKG_VERSION"),
        workers(server)
    );
    for (service, address) in server.addresses() {
        match service {
            Service::Edge => println!(
                "\n  http://{address}  HTTP and WebSocket\n\
                 \x20   curl -d hello 'http://{address}/publish?channel=a'\n\
                 \x20   new WebSocket('ws://{address}/ws?channel=a').onmessage = m => console.log(m.data)"
            ),
            Service::Commands(config::Framing::LengthPrefix) => println!(
                "\n  tcp://{address}  raw TCP, each JSON object behind its length, 32 bits, big-endian"
            ),
            Service::Commands(config::Framing::Line) => println!(
                "\n  tcp://{address}  raw TCP, one JSON object a line\n\
                 \x20   printf '%s\\n' '{{\"id\":1,\"connect\":{{}}}}' \
                 '{{\"id\":2,\"subscribe\":{{\"channel\":\"a\"}}}}' | nc {} {}",
                address.ip(),
                address.port()
            ),
            Service::EchoWebSocket => println!(
                "\n  ws://{address}  echoes WebSocket messages\n\
                 \x20   new WebSocket('ws://{address}').onopen = e => e.target.send('hello')"
            ),
            Service::EchoTcp => println!(
                "\n  tcp://{address}  echoes bytes\n\
                 \x20   echo hello | nc {} {}",
                address.ip(),
                address.port()
            ),
        }
    }
    println!("\nThis host's descriptors hold {} connections.", server.connections_max());
}

fn workers(server: &Server) -> String {
    match server.workers() {
        1 => "one worker".to_owned(),
        count => format!("{count} workers"),
    }
}
