//! `fantail top`: live statistics of a running server, computed every second from its metrics.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::access::Place;
use super::client::{Request, Server, Trouble, error_of};

mod samples;

use samples::Samples;

/// Arguments of `fantail top`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Print the statistics of one second, then exit
    #[arg(long)]
    once: bool,
}

/// Text below the help of the command.
pub const EXAMPLES: &str = "\
Rates and percentiles are those of the last second. Lag is the time from accepting a publication to
handing its bytes to the kernel; percentiles are upper bounds of histogram buckets, which double.

Examples:
  fantail top
  fantail top --config fantail.toml                    at the address of the settings
  fantail top --server http://10.0.0.5:8000 --once";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { place, once } = arguments;
    let server = &place.load()?.admin()?;
    let is_screen = !once && io::stdout().is_terminal();
    let mut before = read_metrics(server).map_err(Trouble::into_message)?;
    loop {
        thread::sleep(INTERVAL.saturating_sub(before.0.elapsed()));
        let text = match read_metrics(server) {
            Ok(now) => {
                let seconds = (now.0 - before.0).as_secs_f64();
                let text = frame(server, &before.1, &now.1, seconds);
                before = now;
                text
            }
            Err(trouble) if once => return Err(trouble.into_message()),
            Err(trouble) => {
                before.0 = Instant::now();
                format!("fantail top: {}\n", trouble.into_message())
            }
        };
        let mut out = io::stdout().lock();
        let text = if is_screen { on_screen(&text) } else { text };
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        // A failed write means that the reader of the output has exited.
        if once || written.is_err() {
            return Ok(());
        }
    }
}

/// A frame that replaces the last one on a terminal. Each line has its own row and is cut off at the edge of the
/// screen, so that a small screen shows the upper left corner of the frame and never scrolls.
fn on_screen(frame: &str) -> String {
    let mut out = "\x1b[?7l".to_owned();
    for (row, line) in frame.lines().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "\x1b[{};1H\x1b[2K{line}", row + 1);
    }
    // The cursor, and later the prompt of the shell, are below the frame.
    let _ = write!(out, "\x1b[{};1H\x1b[J\x1b[?7h", frame.lines().count() + 1);
    out
}

/// The metrics of a server, and when they were received.
fn read_metrics(server: &Server) -> Result<(Instant, Samples), Trouble> {
    let answer = Request::get("/metrics").exchange(server, RESPONSE_TIMEOUT)?;
    if answer.status == 404 {
        return Err(Trouble::Refused(format!(
            "{server} has no metrics: use the address that admin.listen sets, if this is a server of fantail"
        )));
    }
    if answer.status != 200 {
        return Err(error_of(server, answer.status, &answer.body));
    }
    let samples = Samples::parse(&String::from_utf8_lossy(&answer.body));
    if samples.workers() == 0 {
        return Err(Trouble::Refused(format!("{server} has no metrics of fantail")));
    }
    Ok((Instant::now(), samples))
}

/// The text of a frame: statistics of all workers together, and of each.
fn frame(server: &Server, before: &Samples, now: &Samples, seconds: f64) -> String {
    let rate = |name: &str| (now.sum(name) - before.sum(name)).max(0.0) / seconds;
    let workers = now.workers();
    let mut out = format!("fantail {server}   workers {workers}   interval {seconds:.1} s\n\n");
    let transports: Vec<_> = now
        .by_label("fantail_connections", "transport")
        .into_iter()
        .filter(|(_, count)| *count > 0.0)
        .map(|(transport, count)| format!("{transport} {count}"))
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "connections    {}   ({})\n               accepted/s {:.0}   closed/s {:.0}   rejected/s {:.0}   handshakes \
         failed/s {:.0}",
        now.sum("fantail_connections_open"),
        transports.join(", "),
        rate("fantail_connections_accepted_total"),
        rate("fantail_connections_closed_total"),
        rate("fantail_connections_rejected_total"),
        rate("fantail_handshakes_failed_total"),
    );
    let _ = writeln!(
        out,
        "channels       {}   subscriptions {}\npublications/s {:.0}   deliveries/s {:.0}   dropped/s {:.0}",
        now.sum("fantail_channels"),
        now.sum("fantail_subscriptions"),
        rate("fantail_publications_total"),
        rate("fantail_deliveries_total"),
        rate("fantail_publications_dropped_total"),
    );
    let _ = writeln!(
        out,
        "bytes/s        in {}   out {}   messages/s in {:.0}   out {:.0}",
        bytes(rate("fantail_received_bytes_total")),
        bytes(rate("fantail_sent_bytes_total")),
        rate("fantail_received_messages_total"),
        rate("fantail_sent_messages_total"),
    );
    for (title, name) in
        [("lag", "fantail_delivery_lag_seconds"), ("turn", "fantail_turn_duration_seconds")]
    {
        let at = |share| time(samples::percentile(before, now, name, None, share));
        let _ =
            writeln!(out, "{title:<14} p50 {}   p99 {}   p99.9 {}", at(0.5), at(0.99), at(0.999));
    }
    let _ = writeln!(
        out,
        "memory         queues {}   histories {}   fan-outs {} ({} waiting)\n",
        bytes(now.sum("fantail_send_queue_bytes")),
        bytes(now.sum("fantail_history_bytes")),
        bytes(now.sum("fantail_fan_out_backlog_bytes")),
        now.sum("fantail_fan_out_backlog_publications"),
    );
    write_workers(&mut out, before, now, seconds);
    out
}

fn write_workers(out: &mut String, before: &Samples, now: &Samples, seconds: f64) {
    let _ = writeln!(
        out,
        "{:>6} {:>11} {:>12} {:>11} {:>11} {:>9} {:>11} {:>8} {:>6}",
        "worker",
        "connections",
        "deliveries/s",
        "in/s",
        "out/s",
        "lag p99",
        "queues",
        "turns/s",
        "busy"
    );
    for worker in 0..now.workers() {
        let of = |samples: &Samples, name: &str| samples.of_worker(name, worker);
        let rate = |name: &str| (of(now, name) - of(before, name)).max(0.0) / seconds;
        let lag = "fantail_delivery_lag_seconds";
        let _ = writeln!(
            out,
            "{worker:>6} {:>11} {:>12.0} {:>11} {:>11} {:>9} {:>11} {:>8.0} {:>5.0}%",
            of(now, "fantail_connections_open"),
            rate("fantail_deliveries_total"),
            bytes(rate("fantail_received_bytes_total")),
            bytes(rate("fantail_sent_bytes_total")),
            time(samples::percentile(before, now, lag, Some(worker), 0.99)),
            bytes(of(now, "fantail_send_queue_bytes")),
            rate("fantail_turns_total"),
            (100.0 * rate("fantail_turn_duration_seconds_sum")).min(100.0),
        );
    }
}

fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1024.0 && unit + 1 < units.len() {
        count /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count:.0} B") } else { format!("{count:.1} {}", units[unit]) }
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds.is_infinite() => "> 8 s".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

/// The time between two frames.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait for the server's response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_on_a_terminal_neither_wraps_nor_scrolls() {
        let screen = on_screen("one\n\ntwo\n");
        assert_eq!(
            screen,
            "\x1b[?7l\x1b[1;1H\x1b[2Kone\x1b[2;1H\x1b[2K\x1b[3;1H\x1b[2Ktwo\x1b[4;1H\x1b[J\x1b[?7h"
        );
    }

    #[test]
    fn numbers_are_shown_in_fitting_units() {
        assert_eq!(
            [0.0, 1023.0, 1536.0, 3.5e9].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "3.3 GiB"]
        );
        let times = [None, Some(64e-6), Some(0.0327), Some(2.0), Some(f64::INFINITY)];
        assert_eq!(times.map(time), ["-", "64 µs", "32.7 ms", "2.0 s", "> 8 s"]);
    }
}
