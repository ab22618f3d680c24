//! Listening on a Unix socket.
//!
//! The kernel does not share a path among sockets as SO_REUSEPORT shares a port, so all workers accept from one socket,
//! each through a descriptor of its own. A connection wakes every worker that sleeps, and the first one accepts it.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::socket::BACKLOG;

/// A Unix socket that listens, and its file, which is removed when this value is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    socket: Socket,
    path: PathBuf,
    /// The device and inode of the file: another server may have replaced it.
    file: (u64, u64),
}

impl UnixSocket {
    /// Listens on a path. A socket file on which no process listens, left by a server that was killed, is replaced.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let address = SockAddr::unix(path)?;
        let socket = new_socket()?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error);
            }
            check_unused(path, &address)?;
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        let metadata = fs::symlink_metadata(path)?;
        let bound = Self { socket, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) };
        // Until it listens, connecting fails whatever the permissions are.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        bound.socket.listen(BACKLOG)?;
        Ok(bound)
    }

    /// Another descriptor of the same socket, for a worker.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let file = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        if file.is_ok_and(|file| file == self.file) {
            // Without it, the next server finds a file on which no process listens, and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn new_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Checks that a path is a socket file on which no process listens.
fn check_unused(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match new_socket()?.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Connected, or its queue is full, or it is a socket of another type.
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("fantail-{}-{name}.sock", std::process::id()))
    }

    #[test]
    fn a_socket_file_has_its_mode_and_is_removed_with_the_socket() {
        let path = path("mode");
        let socket = UnixSocket::bind(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        let shared = socket.share().unwrap();
        drop(socket);
        assert!(!path.exists());
        drop(shared);
    }

    #[test]
    fn a_file_without_a_listener_is_replaced_and_other_files_are_kept() {
        let path = path("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file");
        let first = UnixSocket::bind(&path, 0o660).unwrap();
        let used = UnixSocket::bind(&path, 0o660).unwrap_err();
        assert_eq!(used.kind(), io::ErrorKind::AddrInUse);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not a socket").unwrap();
        drop(first);
        assert!(path.exists(), "it is another file");
        let file = UnixSocket::bind(&path, 0o660).unwrap_err();
        assert_eq!(file.kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&path).unwrap();
    }
}
