//! `fantail serve`: runs the server.

use fantail::config::{BindAddress, Loaded};
use fantail::server::host::{Host, Plan, judge};
use fantail::server::{Log, Reloader, Server, StopSignals, notify_ready};
use tracing::warn;

use super::announce::{Examples, at_encrypted_address};
use super::output::say;
use super::settings;

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Without an address, it listens on 127.0.0.1:8000 (HTTP and WebSocket) and 127.0.0.1:8001 (raw TCP).
Sizes and durations take units: 64 KiB, 1 MiB, 500 ms, 25 s, 1m30s.

Each setting can also be set in the settings file or by an environment variable. Flags override the
environment, which overrides the file; `fantail check` prints each with its name in the file, its
value and its source.

Examples:
  fantail                                              serve on loopback, then:
  curl -d hello 'http://127.0.0.1:8000/publish?channel=a'
                                                       publish to channel a
  fantail --listen 0.0.0.0:80 --insecure --workers 4   listen on all addresses, with four workers
  fantail --echo 127.0.0.1:9001 --driver epoll         echo WebSockets, on epoll
  fantail --tls-self-signed                            serve https:// and wss:// to try it out

SIGTERM and SIGINT stop it: queued data is sent, every client is disconnected with a reason, and it
exits with 0 within --shutdown-timeout. SIGHUP reloads the settings that can change at run time.";

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
    announce(&server, &Examples::of(&loaded), &verdict);
    notify_ready(&verdict);
    let reloader = Reloader::new(arguments.sources, loaded.config, log);
    signals.wait(server, reloader).map_err(|error| error.to_string())
}

/// Prints the addresses, each with commands to try, and the verdict.
fn announce(server: &Server, examples: &Examples, verdict: &str) {
    let (driver, reason) = server.driver();
    let mut text = format!(
        "fantail {} serves with {} on {driver} ({reason})\n",
        env!("CARGO_PKG_VERSION"),
        workers(server)
    );
    for (service, address) in server.addresses() {
        text.push_str(&match &address.bind {
            BindAddress::Ip(ip) if address.is_encrypted => at_encrypted_address(*service, *ip),
            BindAddress::Ip(address) => examples.at_address(*service, *address),
            BindAddress::Unix(path) => examples.at_socket(*service, path),
        });
        text.push('\n');
    }
    text.push_str(&format!("\n{verdict}\n"));
    say(&text);
}

/// The verdict of `fantail doctor` on this host with these workers, in one line.
fn verdict(server: &Server, connections_max: Option<usize>) -> String {
    match Host::read() {
        Ok(mut host) => {
            // All threads have been started, so the limit on threads does not matter.
            host.threads_left = None;
            let plan = Plan {
                workers: server.workers(),
                goal: None,
                both_ends: false,
                connections_max: connections_max.map(|connections_max| connections_max as u64),
            };
            format!("{}. See: fantail doctor", judge(&host, &plan))
        }
        Err(error) => format!(
            "Cannot read the limits of this host ({error}); its open-file limit allows {} connections",
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
