//! The judgement: how many connections the host holds, the bottleneck, and how to raise it.

use std::fmt;

use serde::Serialize;

use super::capacity::{
    Bottleneck, better_workers, capacity, descriptors_of_worker, memory_left, workers_startable,
};
use super::facts::{Fact, facts};
use super::{Host, Plan, recommended};
use crate::config::limits::WORKERS_MAX;
use crate::driver::RESERVED_DESCRIPTORS;

/// The result of judging a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// The number of workers of the plan.
    pub workers: usize,
    /// The number of idle, subscribed connections that they hold.
    pub connections: u64,
    /// The lowest limit.
    pub bottleneck: Bottleneck,
    /// The bottleneck in words, with its value.
    pub bottleneck_text: String,
    /// How to raise the number of connections, as the end of a sentence.
    pub remedy: String,
    /// Another number of workers with which the host holds more.
    pub better_workers: Option<BetterWorkers>,
    /// The goal of the plan.
    pub goal: Option<u64>,
    /// Whether the host holds the goal; without a goal, whether every value is at least the recommended one.
    pub ok: bool,
    /// The facts, in the order of the table.
    pub facts: Vec<Fact>,
}

/// A number of workers with which the host holds more connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BetterWorkers {
    /// The number of workers.
    pub workers: usize,
    /// The number of connections that they hold.
    pub connections: u64,
}

/// Judges how many connections a host holds under a plan.
pub fn judge(host: &Host, plan: &Plan) -> Judgement {
    assert!((1..=WORKERS_MAX).contains(&plan.workers), "checked with the configuration");
    let (bottleneck, connections) = capacity(host, plan);
    let facts = facts(host, plan);
    let ok = match plan.goal {
        Some(goal) => connections >= goal,
        None => !facts.iter().any(Fact::is_short),
    };
    Judgement {
        workers: plan.workers,
        connections,
        bottleneck,
        bottleneck_text: described(host, bottleneck),
        remedy: how_to_raise(bottleneck, plan),
        better_workers: better_workers(host, plan, WORKERS_MAX)
            .map(|(workers, connections)| BetterWorkers { workers, connections }),
        goal: plan.goal,
        ok,
        facts,
    }
}

fn described(host: &Host, bottleneck: Bottleneck) -> String {
    let setting = |key: &str| Grouped(host.number(key).unwrap_or(0));
    match bottleneck {
        Bottleneck::Descriptors => format!(
            "open files per worker ({}, of which {} for connections)",
            Grouped(host.descriptors_max),
            Grouped(descriptors_of_worker(host))
        ),
        Bottleneck::WorkerTable => "the size of a worker's connection table".into(),
        Bottleneck::FileMax => {
            let (max, open) = (setting("fs.file-max"), Grouped(host.files_open));
            format!("open files of the host (fs.file-max {max}, {open} open)")
        }
        Bottleneck::Memory => format!("memory ({} MiB left)", Grouped(memory_left(host) >> 20)),
        Bottleneck::Conntrack => {
            let max = setting("net.netfilter.nf_conntrack_max");
            format!("connection tracking (nf_conntrack_max {max})")
        }
        Bottleneck::Threads => {
            let (left, workers) = (host.threads_left, workers_startable(host));
            let [left, workers] = [left, workers].map(|number| Grouped(number.unwrap_or(0)));
            format!("threads ({left} more allowed, enough for {workers} workers)")
        }
        Bottleneck::ConnectionsMax => "--connections-max".into(),
    }
}

fn how_to_raise(bottleneck: Bottleneck, plan: &Plan) -> String {
    let has_all_workers = plan.workers == WORKERS_MAX;
    match bottleneck {
        Bottleneck::Descriptors => format!(
            "raise the hard limit (ulimit -n {0}, or LimitNOFILE={0} in a unit; {1} are reserved){2}",
            recommended::DESCRIPTORS,
            RESERVED_DESCRIPTORS,
            if has_all_workers { "" } else { ", or start more workers" }
        ),
        Bottleneck::WorkerTable if has_all_workers => {
            "start a second server on another address: this one has the maximum of workers".into()
        }
        Bottleneck::WorkerTable => "start more workers".into(),
        Bottleneck::Threads => {
            "raise pids.max of the control group (TasksMax= in a unit, --pids-limit of a container) and RLIMIT_NPROC \
             (LimitNPROC= in a unit, ulimit -u), or start fewer workers"
                .into()
        }
        Bottleneck::FileMax => "raise fs.file-max (sysctl/90-fantail.conf)".into(),
        Bottleneck::Memory => {
            "add memory to the host, or raise the limit of the control group (MemoryMax= in a unit)".into()
        }
        Bottleneck::Conntrack => {
            "raise net.netfilter.nf_conntrack_max, or exempt the server's ports from connection tracking (notrack)"
                .into()
        }
        Bottleneck::ConnectionsMax => "raise --connections-max".into(),
    }
}

impl fmt::Display for Judgement {
    /// The verdict in one line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = if self.workers == 1 { "worker" } else { "workers" };
        write!(
            out,
            "This host holds {} connections with {} {workers}; the bottleneck is {}",
            Grouped(self.connections),
            self.workers,
            self.bottleneck_text
        )?;
        match self.better_workers {
            Some(BetterWorkers { workers, connections }) => {
                write!(out, "; --workers {workers} holds {}", Grouped(connections))
            }
            None => Ok(()),
        }
    }
}

/// Displays a number with thousands separators: 1,000,000.
#[derive(Clone, Copy, Debug)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.bytes().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                out.write_str(",")?;
            }
            write!(out, "{}", char::from(digit))?;
        }
        Ok(())
    }
}
