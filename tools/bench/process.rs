//! Server processes: started, pinned, awaited and ended.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::system::{pin_thread_to_core, prioritize, terminate};

/// A running server, ended on drop.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts `program`, pinned to `cores` if given, and waits until `address` accepts connections.
    pub fn start(
        program: &Path,
        arguments: &[String],
        cores: Option<&str>,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let mut command = match cores {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(cores).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child =
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(
                |error| io::Error::other(format!("cannot start {}: {error}", program.display())),
            )?;
        let mut server = Self { child };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let program = program.display();
                return Err(io::Error::other(format!(
                    "{program} ended during its start: {status}"
                )));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{address} does not accept connections")));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives all its threads real-time priority: what else runs on their core is not part of its turns. All have the
    /// same, so that none waits for a lock of one that does not run. The thread of the callbacks has another core, as
    /// where workers have cores of their own: a turn would include its work.
    pub fn prioritize(&self, callbacks_core: usize) -> io::Result<()> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let path = thread?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(number) = number else { continue };
            prioritize(number)?;
            // The kernel cuts names off.
            if fs::read_to_string(path.join("comm"))?.starts_with("fantail-callbac") {
                pin_thread_to_core(number, callbacks_core)?;
            }
        }
        Ok(())
    }

    /// Process id of the only child, for servers whose first process starts a worker process.
    pub fn worker_pid(&self) -> io::Result<u32> {
        let pid = self.pid();
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            match children.split_whitespace().collect::<Vec<_>>()[..] {
                [worker] => return worker.parse().map_err(io::Error::other),
                [] if Instant::now() < deadline => sleep(Duration::from_millis(10)),
                _ => {
                    return Err(io::Error::other(format!(
                        "expected one worker process, found “{children}”"
                    )));
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        terminate(self.child.id());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            sleep(Duration::from_millis(5));
        }
        // It must not disturb the next turn. Tests check that servers end by themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that was free just now.
pub fn free_address() -> io::Result<SocketAddr> {
    free_addresses().map(|[address]| address)
}

/// Different loopback addresses that were free just now.
pub fn free_addresses<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    let listeners = addresses.map(TcpListener::bind);
    for (address, listener) in addresses.iter_mut().zip(listeners) {
        *address = listener?.local_addr()?;
    }
    Ok(addresses)
}

/// The program `name` in the directory of this one.
pub fn sibling(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
