//! Finds the process or connection that uses a port which cannot be bound, as far as this process has permission.

use std::fs;
use std::net::SocketAddr;

/// A sentence for the user about an address in use: what uses it, and what to do.
pub fn port_in_use(address: SocketAddr) -> String {
    let port = address.port();
    // The kernel lists its table in pieces: a socket opened or closed between two pieces can hide another row.
    let users = (0..READS_MAX).map(|_| users_of(port)).find(|users| !users.is_empty());
    let users = users.unwrap_or_default();
    if let Some(listener) = users.iter().find(|it| it.state == LISTEN) {
        return match process_of(listener.inode) {
            Some((pid, name)) if name == "fantail" => format!(
                "{address} is in use: another fantail serves it, process {pid}; stop that one, or choose another \
                 address"
            ),
            Some((pid, name)) => format!(
                "{address} is in use: {name} listens there, process {pid}; stop it, or choose another address"
            ),
            None => format!(
                "{address} is in use by a program of another user: `ss -ltnp 'sport = :{port}'`, run as root, names \
                 it; stop it, or choose another address"
            ),
        };
    }
    if !users.is_empty() {
        return format!(
            "{address} is in use by a connection that left this host from port {port}: it is free once that has \
             ended, up to a minute later (TIME-WAIT); ports of net.ipv4.ip_local_port_range are given to such \
             connections, so choose one outside of it, or list {port} in net.ipv4.ip_local_reserved_ports"
        );
    }
    format!(
        "{address} is in use by a program that is not visible from here: stop it, or choose another address"
    )
}

/// A row of the kernel's table of TCP sockets.
struct TcpSocket {
    port: u16,
    state: u8,
    inode: u64,
}

/// How often the kernel's table is read before the user of the port is reported as not visible.
const READS_MAX: usize = 3;

/// The sockets that are bound to a port.
fn users_of(port: u16) -> Vec<TcpSocket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| sockets(table)).filter(|it| it.port == port).collect()
}

/// The kernel's TCP_LISTEN.
const LISTEN: u8 = 10;

/// The rows of `/proc/net/tcp` (proc_pid_net(5)): "0: 0100007F:1F90 00000000:0000 0A … inode …".
fn sockets(table: &str) -> impl Iterator<Item = TcpSocket> {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let (_, port) = words.nth(1)?.rsplit_once(':')?;
        let state = u8::from_str_radix(words.nth(1)?, 16).ok()?;
        let inode = words.nth(5)?.parse().ok()?;
        Some(TcpSocket { port: u16::from_str_radix(port, 16).ok()?, state, inode })
    })
}

/// The id and name of the process that has a socket open; `None` for a process of another user, which is not visible.
fn process_of(inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| {
        // Every thread is checked, because a worker has its own descriptor table.
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let files = tasks.filter_map(|task| fs::read_dir(task.path().join("fd")).ok()).flatten();
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        })
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim().to_owned()))
}
