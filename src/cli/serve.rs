//! `fantail serve`: runs the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fantail::config::{self, Loaded};
use fantail::connection::Service;
use fantail::server::host::{Host, Plan, judge};
use fantail::server::{Log, Reloader, Server, StopSignals, tell_ready};
use tracing::warn;

use super::settings;

/// What stands below the help of the command.
pub const EXAMPLES: &str = "\
Without any address given, it serves 127.0.0.1:8000 (HTTP and WebSocket) and 127.0.0.1:8001
(raw TCP); with any, just those. Sizes take units (64 KiB, 1 MiB), times too (500 ms, 25 s, 1m30s).

Each setting is also a line of the settings file and an environment variable. Flags go before the
environment, and that before the file; `fantail check` prints each with its name in the file, its
value and where that was set.

Examples:
  fantail                                              serve on loopback, then:
  curl -d hello 'http://127.0.0.1:8000/publish?channel=a'
                                                       publish to channel a
  fantail --listen 0.0.0.0:80 --insecure --workers 4   serve everyone, from four threads
  fantail --echo 127.0.0.1:9001 --driver epoll         echo WebSockets, on epoll

SIGTERM and SIGINT stop it: every client is told, what is queued is sent, and it exits with 0 within
--shutdown-timeout. SIGHUP reads the settings again and applies what may change.";

/// Runs the command.
pub fn run(arguments: settings::Arguments) -> Result<(), String> {
    let loaded = arguments.sources.load().map_err(|error| error.to_string())?;
    let signals = StopSignals::new().map_err(|error| error.to_string())?;
    let log = Log::start(&loaded.config).map_err(|error| error.to_string())?;
    let ended = serve(arguments, loaded, signals, log.clone());
    log.flush();
    ended
}

fn serve(
    arguments: settings::Arguments,
    loaded: Loaded,
    signals: StopSignals,
    log: Log,
) -> Result<(), String> {
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let server = Server::start(&loaded.config).map_err(|error| error.to_string())?;
    let verdict = verdict(&server, loaded.config.connections_max);
    announce(&server, &verdict);
    tell_ready(&verdict);
    let reloader = Reloader::new(arguments.sources, loaded.config, log);
    signals.wait(server, reloader).map_err(|error| error.to_string())
}

/// The addresses, and one line to try for each door.
fn announce(server: &Server, verdict: &str) {
    let (driver, reason) = server.driver();
    let mut text = format!(
        "fantail {} serves with {} on {driver} ({reason})\n",
        env!("CARGO_PKG_VERSION"),
        workers(server)
    );
    for (service, address) in server.addresses() {
        let example = reached_here(*address);
        let everywhere = match example == *address {
            true => String::new(),
            false => format!(", on every address ({address})"),
        };
        let door = match service {
            Service::Edge => format!(
                "\n  http://{example}  HTTP and WebSocket{everywhere}\n\
                 \x20   curl -d hello 'http://{example}/publish?channel=a'\n\
                 \x20   new WebSocket('ws://{example}/ws?channel=a').onmessage = m => console.log(m.data)"
            ),
            Service::Commands(config::Framing::LengthPrefix) => format!(
                "\n  tcp://{example}  raw TCP, each JSON object behind its length, 32 bits, big-endian{everywhere}"
            ),
            Service::Commands(config::Framing::Line) => format!(
                "\n  tcp://{example}  raw TCP, one JSON object a line{everywhere}\n\
                 \x20   printf '%s\\n' '{{\"id\":1,\"connect\":{{}}}}' \
                 '{{\"id\":2,\"subscribe\":{{\"channel\":\"a\"}}}}' | nc {} {}",
                example.ip(),
                example.port()
            ),
            Service::EchoWebSocket => format!(
                "\n  ws://{example}  echoes WebSocket messages{everywhere}\n\
                 \x20   new WebSocket('ws://{example}').onopen = e => e.target.send('hello')"
            ),
            Service::EchoTcp => format!(
                "\n  tcp://{example}  echoes bytes{everywhere}\n\
                 \x20   echo hello | nc {} {}",
                example.ip(),
                example.port()
            ),
        };
        text.push_str(&door);
        text.push('\n');
    }
    text.push_str(&format!("\n{verdict}\n"));
    super::say(&text);
}

/// Where this host reaches a server that listens here: 0.0.0.0 and [::] are no addresses to connect to.
fn reached_here(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// What `fantail doctor` says of this host and these workers, in one line.
fn verdict(server: &Server, asked: Option<usize>) -> String {
    match Host::read() {
        Ok(mut host) => {
            // The threads run.
            host.threads_left = None;
            let plan = Plan {
                workers: server.workers(),
                goal: None,
                both_ends: false,
                connections_max: asked.map(|asked| asked as u64),
            };
            format!("{}. See: fantail doctor", judge(&host, &plan))
        }
        Err(error) => format!(
            "This host cannot be judged ({error}); its descriptors hold {} connections",
            server.connections_max()
        ),
    }
}

fn workers(server: &Server) -> String {
    match server.workers() {
        1 => "one worker".to_owned(),
        count => format!("{count} workers"),
    }
}
