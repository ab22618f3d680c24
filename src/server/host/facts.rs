//! The facts about a host, each with its verdict, the number of connections that it allows, and how to raise it.

use serde::Serialize;

use super::capacity::{self, Bottleneck};
use super::{Host, Plan, recommended};
use crate::server::OWN_THREADS;

/// One line of a judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// The name of the fact: the kernel's name for it, if it has one.
    pub name: &'static str,
    /// The value that was read.
    pub value: String,
    /// Whether the value is enough.
    pub verdict: Verdict,
    /// The number of connections that it allows, if it limits them.
    pub connections_max: Option<u64>,
    /// What the value is for, or its effect on this host.
    pub note: String,
    /// How to raise it; `None` if it is enough.
    pub fix: Option<Fix>,
}

/// Whether a value is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// At least the recommended value, and enough for the goal.
    Ok,
    /// Less than recommended.
    Low,
    /// Too low to reach the goal.
    Blocks,
    /// Not visible to this process; counts as enough.
    Unknown,
}

/// How to raise a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// A sentence for the user.
    pub why: String,
    /// A line of shell; empty if there is no command for it.
    pub command: String,
}

/// All facts, in the order of the table.
pub(super) fn facts(host: &Host, plan: &Plan) -> Vec<Fact> {
    let mut facts = vec![descriptors(host, plan), nr_open(host), file_max(host, plan)];
    facts.extend([memory(host, plan), conntrack(host, plan)]);
    facts.extend(SETTINGS.iter().map(|(key, note)| setting(host, key, note)));
    facts.extend([syn_backlog(host), tcp_mem(host, plan), ports(host, plan)]);
    facts.extend(BUFFERS.iter().map(|(key, note)| buffers(host, key, note)));
    facts.extend([io_uring(host), threads(host, plan), cores(host, plan)]);
    facts
}

fn descriptors(host: &Host, plan: &Plan) -> Fact {
    let name = "open files per worker";
    let limit = limit(host, plan, Bottleneck::Descriptors);
    let verdict = limiting(limit, host.descriptors_max < recommended::DESCRIPTORS, plan);
    let note = format!("RLIMIT_NOFILE (hard limit), applies to each of {} workers", plan.workers);
    let fix = Fix {
        why: "for processes of this shell (in a unit: LimitNOFILE=); more --workers need no privilege"
            .into(),
        command: format!("ulimit -n {}", recommended::DESCRIPTORS),
    };
    fact(name, host.descriptors_max.to_string(), verdict, note, fix).limited(limit)
}

fn nr_open(host: &Host) -> Fact {
    let least = recommended::DESCRIPTORS;
    let value = host.number("fs.nr_open");
    let note = "maximum of RLIMIT_NOFILE";
    raise(host, "fs.nr_open", value.is_some_and(|value| value < least), vec![least], note)
}

fn file_max(host: &Host, plan: &Plan) -> Fact {
    let name = "fs.file-max";
    let limit = limit(host, plan, Bottleneck::FileMax);
    let wanted = recommended::setting(name);
    let is_below = is_below(host, name, &wanted);
    let note = if host.is_exempt_from_file_max && is_below {
        format!(
            "{} open; does not apply with CAP_SYS_ADMIN, but to a service without it",
            host.files_open
        )
    } else {
        format!("{} open on the whole host", host.files_open)
    };
    if !host.settings.contains_key(name) {
        return unseen(name, note);
    }
    // A value that does not limit this process is not low.
    let low = limit.is_some() && is_below;
    let fix = Fix { why: note.clone(), command: assignment(name, &wanted) };
    fact(name, value(host, name), limiting(limit, low, plan), note, fix).limited(limit)
}

fn memory(host: &Host, plan: &Plan) -> Fact {
    let left = capacity::memory_left(host);
    let limit = limit(host, plan, Bottleneck::Memory);
    let each = capacity::connection_bytes(plan.both_ends);
    let ends = if plan.both_ends { "both ends" } else { "idle" };
    let group = if left < host.memory_available { "in the control group" } else { "available" };
    let value = format!("{} MiB {group}", left >> 20);
    let fix = Fix {
        why: "more memory, or a higher MemoryMax= where a control group limits it".into(),
        command: String::new(),
    };
    let note = format!("{each} bytes per connection, {ends}, including the kernel's");
    fact("memory", value, limiting(limit, false, plan), note, fix).limited(limit)
}

fn conntrack(host: &Host, plan: &Plan) -> Fact {
    let name = "net.netfilter.nf_conntrack_max";
    let limit = limit(host, plan, Bottleneck::Conntrack);
    let wanted = recommended::setting(name);
    let Some(max) = host.number(name) else {
        let note = "no connection tracking visible".into();
        return Fact { verdict: Verdict::Ok, ..unseen(name, note) };
    };
    let count = host.number("net.netfilter.nf_conntrack_count").unwrap_or(0);
    let note = match count {
        0 => "connection tracking is loaded but tracks no connection".into(),
        _ => format!("{count} tracked connections; beyond the limit, packets are dropped"),
    };
    // A goal may need more than the recommended value.
    let room = plan.goal.unwrap_or(0).saturating_mul(2).max(wanted[0]);
    let fix = Fix { why: note.clone(), command: assignment(name, &[room]) };
    // Without tracked connections it does not limit, and is not low.
    let low = limit.is_some() && is_below(host, name, &wanted);
    fact(name, max.to_string(), limiting(limit, low, plan), note, fix).limited(limit)
}

/// A setting that should be at least as high as in the file, and does not limit the number of connections.
fn setting(host: &Host, name: &'static str, note: &str) -> Fact {
    let wanted = recommended::setting(name);
    raise(host, name, is_below(host, name, &wanted), wanted, note)
}

fn syn_backlog(host: &Host) -> Fact {
    let name = "net.ipv4.tcp_max_syn_backlog";
    let wanted = recommended::setting(name);
    let without_cookies = host.number("net.ipv4.tcp_syncookies") == Some(0);
    let note = match without_cookies {
        true => "handshakes in progress; limits, because net.ipv4.tcp_syncookies is 0",
        false => "handshakes in progress; with SYN cookies, net.core.somaxconn limits instead",
    };
    raise(host, name, without_cookies && is_below(host, name, &wanted), wanted, note)
}

/// Idle sockets use none of it, so it does not limit the number of connections. The note says how many connections can
/// have data in flight, which matters for a broadcast.
fn tcp_mem(host: &Host, plan: &Plan) -> Fact {
    let name = "net.ipv4.tcp_mem";
    let Some(&[_, pressure, _]) = host.settings.get(name).map(Vec::as_slice) else {
        return unseen(name, "pages of TCP buffers; not visible from this namespace".into());
    };
    let busy = pressure / plan.ends();
    let note = format!("pages of TCP buffers: under pressure beyond {busy} busy connections");
    Fact { value: value(host, name), note, ..fine(name) }
}

fn ports(host: &Host, plan: &Plan) -> Fact {
    let name = "net.ipv4.ip_local_port_range";
    if !plan.both_ends {
        let note = "for outgoing connections: does not limit a server".into();
        return Fact { value: value(host, name), note, ..fine(name) };
    }
    let width = |range: &[u64]| match range {
        [first, last] => (last + 1).saturating_sub(*first),
        _ => 0,
    };
    let wanted = recommended::setting(name);
    let have = host.settings.get(name).map_or(0, |range| width(range));
    let note = format!("clients per source address: {have} for each port of the server");
    raise(host, name, have < width(&wanted), wanted, &note)
}

fn buffers(host: &Host, name: &'static str, note: &str) -> Fact {
    Fact { value: value(host, name), note: note.into(), ..fine(name) }
}

fn io_uring(host: &Host) -> Fact {
    let disabled = host.number("kernel.io_uring_disabled").unwrap_or(0);
    let Some(Err(reason)) = &host.io_uring else {
        let tried = if host.io_uring.is_some() { "passed its self-test" } else { "not tried" };
        return Fact {
            value: tried.into(),
            note: "epoll is the fallback".into(),
            ..fine("io_uring")
        };
    };
    let command = if disabled == 0 { "" } else { "sysctl -w kernel.io_uring_disabled=0" };
    let fix = Fix {
        why: "enables io_uring, which may be disabled on purpose; without it, epoll is used".into(),
        command: command.into(),
    };
    let note = format!("epoll is used instead: {reason}");
    fact("io_uring", "refused".into(), Verdict::Low, note, fix)
}

fn threads(host: &Host, plan: &Plan) -> Fact {
    let note = format!("{} workers and {OWN_THREADS} other threads", plan.workers);
    let Some(left) = host.threads_left else {
        return Fact { value: "no limit".into(), note, ..fine("threads") };
    };
    let limit = limit(host, plan, Bottleneck::Threads);
    let verdict = if limit.is_some() { Verdict::Blocks } else { Verdict::Ok };
    let fix = Fix {
        why: "raise pids.max (TasksMax= in a unit, --pids-limit of a container) and RLIMIT_NPROC (LimitNPROC=, ulimit \
              -u), or start fewer --workers"
            .into(),
        command: String::new(),
    };
    let value = format!("{left} left");
    fact("threads", value, verdict, format!("needs {note}"), fix).limited(limit)
}

fn cores(host: &Host, plan: &Plan) -> Fact {
    let mut note = match plan.workers.cmp(&host.cores) {
        std::cmp::Ordering::Less => format!("{} workers leave cores idle", plan.workers),
        std::cmp::Ordering::Equal => "one worker per core".to_owned(),
        std::cmp::Ordering::Greater => {
            format!(
                "{} workers share them: more connections, but not more throughput",
                plan.workers
            )
        }
    };
    if !host.cores_isolated.is_empty() {
        note += &format!("; isolated: {}, used only through taskset", host.cores_isolated);
    }
    let value = format!("{} of {}", host.cores, host.cores_online);
    let Some(quota) = host.cores_quota.filter(|quota| *quota < host.cores as f64) else {
        return Fact { value, note, ..fine("cores") };
    };
    let fix = Fix {
        why: "raise CPUQuota=, or start one of --workers for each whole core of it".into(),
        command: String::new(),
    };
    note = format!("the control group's CPU quota is {quota} cores and throttles workers; {note}");
    fact("cores", value, Verdict::Low, note, fix)
}

/// A kernel setting, with a `sysctl` command that raises it to `wanted` if it is low.
fn raise(host: &Host, name: &'static str, is_low: bool, wanted: Vec<u64>, note: &str) -> Fact {
    if !host.settings.contains_key(name) {
        return unseen(name, note.into());
    }
    let verdict = if is_low { Verdict::Low } else { Verdict::Ok };
    let fix = Fix { why: note.into(), command: assignment(name, &wanted) };
    fact(name, value(host, name), verdict, note.into(), fix)
}

fn is_below(host: &Host, name: &str, wanted: &[u64]) -> bool {
    let have = host.settings.get(name).map_or(&[][..], Vec::as_slice);
    have.iter().zip(wanted).any(|(have, wanted)| have < wanted)
}

fn assignment(name: &str, numbers: &[u64]) -> String {
    format!("sysctl -w {name}='{}'", joined(numbers))
}

fn value(host: &Host, name: &str) -> String {
    host.settings.get(name).map_or_else(|| UNSEEN.into(), |numbers| joined(numbers))
}

fn joined(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// The verdict on a value that limits connections: compared to the goal, or to the recommended value if there is no
/// goal.
fn limiting(limit: Option<u64>, is_low: bool, plan: &Plan) -> Verdict {
    match (plan.goal, limit) {
        (Some(goal), Some(limit)) if limit < goal => Verdict::Blocks,
        (None, _) if is_low => Verdict::Low,
        _ => Verdict::Ok,
    }
}

fn limit(host: &Host, plan: &Plan, of: Bottleneck) -> Option<u64> {
    capacity::limits(host, plan).find(|(by, _)| *by == of).map(|(_, limit)| limit)
}

/// A fact that limits no number of connections. The fix is dropped if the verdict is [`Verdict::Ok`].
fn fact(name: &'static str, value: String, verdict: Verdict, note: String, fix: Fix) -> Fact {
    let fix = (verdict != Verdict::Ok).then_some(fix);
    Fact { name, value, verdict, connections_max: None, note, fix }
}

fn fine(name: &'static str) -> Fact {
    let (value, note) = (String::new(), String::new());
    Fact { name, value, verdict: Verdict::Ok, connections_max: None, note, fix: None }
}

fn unseen(name: &'static str, note: String) -> Fact {
    Fact { value: UNSEEN.into(), verdict: Verdict::Unknown, note, ..fine(name) }
}

impl Fact {
    fn limited(self, connections_max: Option<u64>) -> Self {
        Self { connections_max, ..self }
    }

    /// Whether the value should be raised.
    pub fn is_short(&self) -> bool {
        matches!(self.verdict, Verdict::Low | Verdict::Blocks)
    }
}

const UNSEEN: &str = "-";

const SETTINGS: &[(&str, &str)] = &[
    ("net.core.somaxconn", "accept queue of each worker's listener"),
    ("net.ipv4.tcp_max_orphans", "closed connections whose last bytes are unacknowledged"),
    (
        "net.ipv4.tcp_max_tw_buckets",
        "connections in TIME-WAIT: closed by this host, kept for a minute",
    ),
];

const BUFFERS: &[(&str, &str)] = &[
    ("net.ipv4.tcp_rmem", "receive buffer: minimum, default, maximum; unused while idle"),
    ("net.ipv4.tcp_wmem", "send buffer: minimum, default, maximum; unused while idle"),
];
