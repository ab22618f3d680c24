//! Judgements of made-up hosts, and made-up `/proc` trees.

use std::fs;
use std::path::PathBuf;

use super::judgement::BetterWorkers;
use super::read::read_below;
use super::{Bottleneck, Fact, Host, Judgement, Plan, Verdict, judge, recommended};

/// A host with all recommended values, 64 GiB of memory and eight cores.
fn good_host() -> Host {
    let mut host = Host {
        descriptors_max: recommended::DESCRIPTORS,
        settings: recommended::settings().map(|(key, value)| (key.to_owned(), value)).collect(),
        files_open: 1000,
        is_exempt_from_file_max: false,
        memory_available: 64 << 30,
        cgroup_memory_left: None,
        threads_left: None,
        cores: 8,
        cores_online: 8,
        cores_isolated: String::new(),
        cores_quota: None,
        io_uring: Some(Ok(())),
    };
    for (key, value) in [
        ("fs.nr_open", &[1 << 20][..]),
        ("kernel.io_uring_disabled", &[0]),
        ("net.ipv4.tcp_mem", &[300_000, 400_000, 600_000]),
        ("net.ipv4.tcp_rmem", &[4096, 131_072, 6 << 20]),
        ("net.ipv4.tcp_syncookies", &[1]),
        ("net.ipv4.tcp_wmem", &[4096, 16_384, 4 << 20]),
        ("net.netfilter.nf_conntrack_count", &[0]),
    ] {
        host.settings.insert(key.to_owned(), value.to_vec());
    }
    host
}

fn host(change: impl FnOnce(&mut Host)) -> Host {
    let mut host = good_host();
    change(&mut host);
    host
}

fn set(host: &mut Host, key: &str, value: &[u64]) {
    host.settings.insert(key.to_owned(), value.to_vec());
}

fn plan(workers: usize) -> Plan {
    Plan { workers, goal: None, both_ends: false, connections_max: None }
}

fn with_goal(workers: usize, goal: u64) -> Plan {
    Plan { goal: Some(goal), ..plan(workers) }
}

#[track_caller]
fn fact<'a>(judgement: &'a Judgement, name: &str) -> &'a Fact {
    judgement.facts.iter().find(|fact| fact.name == name).expect("a fact of this name")
}

/// Asserts that the host has this bottleneck: a goal at its limit is reached, one past it is not, and the fact called
/// `name` alone blocks it.
#[track_caller]
fn expect_bottleneck(host: &Host, plan: &Plan, bottleneck: Bottleneck, name: &str) {
    let free = judge(host, plan);
    assert_eq!(free.bottleneck, bottleneck, "{free}");
    let most = free.connections;
    let held = judge(host, &Plan { goal: Some(most), ..plan.clone() });
    assert!(held.ok && held.facts.iter().all(|fact| fact.verdict != Verdict::Blocks));
    let past = judge(host, &Plan { goal: Some(most + 1), ..plan.clone() });
    assert!(!past.ok);
    let blamed: Vec<_> = past.facts.iter().filter(|fact| fact.verdict == Verdict::Blocks).collect();
    assert_eq!(blamed.iter().map(|fact| fact.name).collect::<Vec<_>>(), [name]);
    assert_eq!(blamed[0].connections_max, Some(most));
    assert!(blamed[0].fix.is_some());
}

#[test]
fn a_host_with_the_recommended_values_has_nothing_to_raise() {
    let judgement = judge(&good_host(), &plan(8));
    let short: Vec<_> = judgement.facts.iter().filter(|fact| fact.is_short()).collect();
    assert!(short.is_empty() && judgement.ok, "{short:?}");
    assert!(judgement.facts.iter().all(|fact| fact.fix.is_none()));
    assert!(judgement.connections > 8_000_000, "{judgement}");
}

#[test]
fn open_files_limit_each_worker_so_more_workers_hold_more() {
    let small = host(|host| host.descriptors_max = 20_000);
    expect_bottleneck(&small, &plan(2), Bottleneck::Descriptors, "open files per worker");
    let two = judge(&small, &plan(2));
    assert!((38_500..2 * 19_744).contains(&two.connections), "{two}");
    let million = judge(&small, &with_goal(2, 1_000_000));
    let BetterWorkers { workers, connections: held } = million.better_workers.unwrap();
    assert!(!million.ok && held >= 1_000_000);
    assert!(judge(&small, &with_goal(workers, 1_000_000)).ok);
    assert!(!judge(&small, &with_goal(workers - 1, 1_000_000)).ok);
    assert!(million.to_string().contains(&format!("--workers {workers} holds 1,0")), "{million}");
}

#[test]
fn more_workers_are_not_advised_where_they_do_not_help() {
    let poor = host(|host| host.memory_available = 1 << 30);
    assert_eq!(judge(&poor, &plan(1)).better_workers, None);
    let small = host(|host| host.descriptors_max = 20_000);
    assert_eq!(judge(&small, &with_goal(2, 1000)).better_workers, None);
}

#[test]
fn without_a_goal_the_advice_is_the_fewest_workers_that_hold_the_most() {
    let small = host(|host| {
        host.descriptors_max = 20_000;
        host.memory_available = 4 << 30;
    });
    let better = judge(&small, &plan(1)).better_workers.unwrap();
    let BetterWorkers { workers, connections: held } = better;
    for other in 1..=128 {
        let connections = judge(&small, &plan(other)).connections;
        assert!(connections < held || (connections == held && other >= workers), "{other}");
    }
}

#[test]
fn fs_file_max_limits_every_process_that_is_not_exempt() {
    let small = host(|host| set(host, "fs.file-max", &[100_000]));
    expect_bottleneck(&small, &plan(2), Bottleneck::FileMax, "fs.file-max");
    let both = judge(&small, &Plan { both_ends: true, ..plan(2) });
    assert_eq!(both.connections, judge(&small, &plan(2)).connections / 2);
    let exempt = host(|host| {
        set(host, "fs.file-max", &[100_000]);
        host.is_exempt_from_file_max = true;
    });
    let judgement = judge(&exempt, &plan(2));
    assert_ne!(judgement.bottleneck, Bottleneck::FileMax);
    let fact = fact(&judgement, "fs.file-max");
    assert!(!fact.is_short() && fact.note.contains("CAP_SYS_ADMIN"), "{fact:?}");
    // Without a limit, the exemption is not mentioned.
    let unlimited = host(|host| {
        set(host, "fs.file-max", &[i64::MAX as u64]);
        host.is_exempt_from_file_max = true;
    });
    let judgement = judge(&unlimited, &plan(2));
    let fact = self::fact(&judgement, "fs.file-max");
    assert!(!fact.note.contains("CAP_SYS_ADMIN"), "{fact:?}");
}

#[test]
fn memory_is_limited_by_the_host_or_the_control_group_whichever_has_less() {
    let poor = host(|host| host.memory_available = 1 << 30);
    expect_bottleneck(&poor, &plan(2), Bottleneck::Memory, "memory");
    let grouped = host(|host| host.cgroup_memory_left = Some(1 << 30));
    assert_eq!(judge(&grouped, &plan(2)).connections, judge(&poor, &plan(2)).connections);
    assert!(fact(&judge(&grouped, &plan(2)), "memory").value.contains("control group"));
    let both = judge(&poor, &Plan { both_ends: true, ..plan(2) });
    let one = judge(&poor, &plan(2)).connections;
    assert!(both.connections.abs_diff(one / 2) < 2, "{both}");
    // Without memory left, the result is 0 rather than a panic.
    assert_eq!(judge(&host(|host| host.memory_available = 0), &plan(128)).connections, 0);
}

#[test]
fn connection_tracking_limits_only_if_it_tracks_connections() {
    let few = |count| {
        host(|host| {
            set(host, "net.netfilter.nf_conntrack_max", &[65_536]);
            set(host, "net.netfilter.nf_conntrack_count", &[count]);
        })
    };
    let name = "net.netfilter.nf_conntrack_max";
    expect_bottleneck(&few(536), &plan(2), Bottleneck::Conntrack, name);
    assert_eq!(judge(&few(536), &plan(2)).connections, 65_000);
    let idle = judge(&few(0), &plan(2));
    assert_ne!(idle.bottleneck, Bottleneck::Conntrack);
    assert!(idle.ok && fact(&idle, name).connections_max.is_none());
    let past = judge(&few(536), &with_goal(8, 3_000_000));
    let command = &fact(&past, name).fix.as_ref().unwrap().command;
    assert_eq!(command, "sysctl -w net.netfilter.nf_conntrack_max='6000000'");
}

#[test]
fn connections_max_and_the_connection_table_of_a_worker_limit_too() {
    let asked = Plan { connections_max: Some(10), ..plan(2) };
    let judgement = judge(&good_host(), &asked);
    assert_eq!((judgement.bottleneck, judgement.connections), (Bottleneck::ConnectionsMax, 10));
    assert_eq!(judgement.better_workers, None);
    let vast = host(|host| {
        host.descriptors_max = 1 << 30;
        host.memory_available = 1 << 44;
        set(host, "fs.nr_open", &[1 << 30]);
    });
    let judgement = judge(&vast, &plan(1));
    assert_eq!((judgement.bottleneck, judgement.connections), (Bottleneck::WorkerTable, 4 << 20));
}

#[test]
fn each_setting_of_the_file_is_judged_and_one_below_it_is_low() {
    for (key, wanted) in recommended::settings() {
        let lower: Vec<u64> = match key {
            "net.ipv4.ip_local_port_range" => vec![wanted[0] + 1, wanted[1]],
            _ => wanted.iter().map(|number| number - 1).collect(),
        };
        let low = host(|host| {
            set(host, key, &lower);
            // With these two, the settings that depend on them take effect.
            set(host, "net.ipv4.tcp_syncookies", &[0]);
            set(host, "net.netfilter.nf_conntrack_count", &[1]);
        });
        let judgement = judge(&low, &Plan { both_ends: true, ..plan(2) });
        let short: Vec<_> = judgement.facts.iter().filter(|fact| fact.is_short()).collect();
        assert_eq!(short.iter().map(|fact| fact.name).collect::<Vec<_>>(), [key]);
        assert!(!judgement.ok);
        let numbers = wanted.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        let command = &short[0].fix.as_ref().unwrap().command;
        assert_eq!(*command, format!("sysctl -w {key}='{numbers}'"));
    }
}

#[test]
fn with_syn_cookies_and_without_local_clients_two_settings_do_not_matter() {
    let host = host(|host| {
        set(host, "net.ipv4.tcp_max_syn_backlog", &[128]);
        set(host, "net.ipv4.ip_local_port_range", &[32_768, 60_999]);
    });
    assert!(judge(&host, &plan(2)).ok);
}

#[test]
fn the_reason_for_which_io_uring_is_refused_is_reported() {
    let refused = |disabled| {
        host(|host| {
            host.io_uring = Some(Err("io_uring is forbidden here".into()));
            set(host, "kernel.io_uring_disabled", &[disabled]);
        })
    };
    let by_setting = judge(&refused(2), &plan(2));
    let io_uring = fact(&by_setting, "io_uring");
    assert!(io_uring.verdict == Verdict::Low && io_uring.note.contains("forbidden"));
    assert!(io_uring.fix.as_ref().unwrap().command.contains("io_uring_disabled=0"));
    // There is no command that lifts a seccomp profile.
    let by_filter = judge(&refused(0), &plan(2));
    assert_eq!(fact(&by_filter, "io_uring").fix.as_ref().unwrap().command, "");
}

#[test]
fn isolated_cores_a_cpu_quota_and_shared_cores_are_reported() {
    let rationed = judge(&host(|host| host.cores_quota = Some(1.5)), &plan(8));
    assert_eq!(fact(&rationed, "cores").verdict, Verdict::Low);
    let generous = judge(&host(|host| host.cores_quota = Some(8.0)), &plan(8));
    assert!(generous.ok);
    let isolated = judge(&host(|host| host.cores_isolated = "2-3".into()), &plan(56));
    let cores = fact(&isolated, "cores");
    assert!(cores.note.contains("2-3") && cores.note.contains("56 workers share them"));
}

#[test]
fn settings_that_are_not_visible_do_not_count_against_the_host() {
    let judgement = judge(&host(|host| host.settings.clear()), &plan(2));
    assert!(judgement.ok, "{:?}", judgement.facts);
    assert_eq!(fact(&judgement, "net.core.somaxconn").verdict, Verdict::Unknown);
    assert_eq!(fact(&judgement, "fs.file-max").verdict, Verdict::Unknown);
}

#[test]
fn the_verdict_names_the_bottleneck_and_the_remedy_says_how_to_raise_it() {
    let lone = judge(&host(|host| host.descriptors_max = 1256), &plan(1));
    assert_eq!(
        lone.to_string(),
        "This host holds 1,000 connections with 1 worker; the bottleneck is open files per worker (1,256, of which \
         1,000 for connections); --workers 128 holds 112,856"
    );
    assert!(lone.remedy.contains("LimitNOFILE=1048576"), "{}", lone.remedy);
}

/// A folder that serves as `/`, removed when dropped.
struct Root(PathBuf);

impl Root {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = format!("fantail-host-{}-{name}", std::process::id());
        let root = Root(std::env::temp_dir().join(folder));
        for (path, text) in files {
            let path = root.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ALWAYS: [(&str, &str); 3] = [
    ("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:   8000 kB\n"),
    ("proc/sys/fs/file-nr", "968\t0\t2466177\n"),
    ("proc/self/status", "Name:\tx\nCapEff:\t0000000000200000\n"),
];

#[test]
fn a_host_is_read_from_its_files() {
    let mut files = ALWAYS.to_vec();
    files.extend([
        ("proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n"),
        ("proc/sys/net/core/somaxconn", "4096\n"),
        ("proc/self/cgroup", "0::/a/b\n"),
        ("sys/fs/cgroup/a/memory.max", "1000000\n"),
        ("sys/fs/cgroup/a/memory.current", "400000\n"),
        ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 100000\n"),
        ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ("sys/fs/cgroup/a/b/memory.current", "400000\n"),
        ("sys/fs/cgroup/a/b/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/a/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/a/pids.max", "100\n"),
        ("sys/fs/cgroup/a/pids.current", "60\n"),
        ("sys/fs/cgroup/a/b/pids.max", "max\n"),
        ("sys/fs/cgroup/a/b/pids.current", "50\n"),
        ("sys/devices/system/cpu/online", "0-2,4\n"),
        ("sys/devices/system/cpu/isolated", "4\n"),
    ]);
    let root = Root::new("read", &files);
    let host = read_below(&root.0, 20_000, 3).unwrap();
    assert_eq!(host.settings["net.ipv4.tcp_mem"], [1, 2, 3]);
    assert_eq!(host.settings["net.core.somaxconn"], [4096]);
    assert_eq!(host.settings.len(), 2);
    assert_eq!((host.descriptors_max, host.files_open), (20_000, 968));
    assert!(host.is_exempt_from_file_max);
    assert_eq!(host.memory_available, 8000 * 1024);
    assert_eq!(host.cgroup_memory_left, Some(700_000));
    assert_eq!(host.cores_quota, Some(1.5));
    assert_eq!(host.threads_left, Some(40));
    assert_eq!((host.cores, host.cores_online), (3, 4));
    assert_eq!(host.cores_isolated, "4");
}

#[test]
fn control_groups_of_version_1_are_read_too() {
    let mut files = ALWAYS.to_vec();
    files.extend([
        ("proc/self/cgroup", "5:cpuacct,cpu:/y/z\n4:memory:/x\n3:pids:/x\n0::/../outside\n"),
        ("sys/fs/cgroup/pids/x/pids.max", "8\n"),
        ("sys/fs/cgroup/pids/x/pids.current", "1\n"),
        ("sys/fs/cgroup/cpu/y/z/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu/y/z/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu/y/cpu.cfs_quota_us", "250000\n"),
        ("sys/fs/cgroup/cpu/y/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "500000\n"),
        ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "200000\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "200000\n"),
    ]);
    let root = Root::new("first", &files);
    let host = read_below(&root.0, 1, 1).unwrap();
    assert_eq!(host.cgroup_memory_left, Some(300_000));
    assert_eq!(host.cores_quota, Some(2.5));
    assert_eq!(host.threads_left, Some(7));
}

#[test]
fn the_threads_of_a_user_are_counted_if_a_limit_applies() {
    let status = |user: u32, capabilities: &str, threads: u32| {
        format!("Uid:\t{user}\t{user}\nThreads:\t{threads}\nCapEff:\t{capabilities}\n")
    };
    let limits =
        |max: &str| format!("Limit  Soft  Hard  Units\nMax processes {max} {max} processes\n");
    for (user, capabilities, max, left) in [
        (7, "0", "20", Some(20 - 5 - 1)),
        (7, "0", "3", Some(0)),
        (7, "0", "unlimited", None),
        (0, "0", "20", None),
        (7, "1000000", "20", None),
    ] {
        let (own, other) = (status(user, capabilities, 5), status(8, "0", 9));
        let (limits, second) = (limits(max), status(user, "0", 1));
        let mut files: Vec<_> =
            ALWAYS.into_iter().filter(|(path, _)| *path != "proc/self/status").collect();
        files.extend([
            ("proc/self/status", own.as_str()),
            ("proc/self/limits", limits.as_str()),
            ("proc/100/status", own.as_str()),
            ("proc/101/status", second.as_str()),
            ("proc/102/status", other.as_str()),
        ]);
        let root = Root::new(&format!("threads-{user}-{capabilities}-{max}"), &files);
        assert_eq!(read_below(&root.0, 1, 1).unwrap().threads_left, left, "{user} {max}");
    }
}

#[test]
fn a_server_that_cannot_start_all_threads_holds_no_connections() {
    // The main thread runs; the threads of four workers, of the signals and two of the log are to be started.
    for (left, is_enough) in [(7, true), (6, false)] {
        let judgement = judge(&host(|host| host.threads_left = Some(left)), &plan(4));
        assert_eq!(judgement.ok, is_enough, "{judgement}");
        assert_eq!(judgement.bottleneck == Bottleneck::Threads, !is_enough, "{judgement}");
        let expected = if is_enough { Verdict::Ok } else { Verdict::Blocks };
        assert_eq!(fact(&judgement, "threads").verdict, expected);
    }
    let judgement = judge(&host(|host| host.threads_left = Some(6)), &plan(4));
    assert_eq!(judgement.connections, 0);
    assert_eq!(judgement.better_workers.map(|better| better.workers), Some(3));
    // The advice is limited to the number of workers that can be started.
    let small = host(|host| {
        host.threads_left = Some(8);
        host.descriptors_max = 20_000;
    });
    assert_eq!(judge(&small, &plan(1)).better_workers.map(|better| better.workers), Some(5));
}

#[test]
fn more_workers_are_not_the_remedy_at_the_maximum_of_workers() {
    let small = host(|host| host.descriptors_max = 2000);
    assert!(judge(&small, &plan(127)).remedy.contains("start more workers"));
    assert!(!judge(&small, &plan(128)).remedy.contains("start more workers"));
}

#[test]
fn a_missing_file_is_named_in_the_error() {
    for (missing, _) in ALWAYS {
        let files: Vec<_> = ALWAYS.iter().copied().filter(|(path, _)| *path != missing).collect();
        let root = Root::new(&missing.replace('/', "-"), &files);
        let error = read_below(&root.0, 1, 1).unwrap_err();
        assert!(error.contains(missing), "{error}");
    }
    let nonsense = ALWAYS.map(|(path, _)| (path, "not a number\n"));
    let root = Root::new("nonsense", &nonsense);
    assert!(read_below(&root.0, 1, 1).is_err());
}

#[test]
fn this_host_can_be_read_and_judged_quickly() {
    let began = std::time::Instant::now();
    let host = Host::read().unwrap();
    let judgement = judge(&host, &plan(2));
    // Usually it takes a thousandth of this; the bound shows that nothing is tried and nothing is waited for.
    assert!(began.elapsed() < std::time::Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(host.io_uring.is_none() && judgement.connections > 0);
}
