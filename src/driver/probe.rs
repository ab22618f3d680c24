//! The choice of a driver at start.

use super::uring;
use crate::config::DriverChoice;

/// A kernel driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// The driver [`super::UringDriver`].
    IoUring,
    /// The driver [`super::EpollDriver`].
    Epoll,
}

impl DriverKind {
    /// The driver's name on the command line and in the log.
    pub fn name(self) -> &'static str {
        match self {
            DriverKind::IoUring => "io_uring",
            DriverKind::Epoll => "epoll",
        }
    }
}

/// Chooses a driver and gives the reason for the log. Fails with a message for the operator if io_uring is configured
/// and does not work on this host. Call it once, before workers start: it sets up a ring and tests it on a loopback
/// connection.
pub fn choose(choice: DriverChoice) -> Result<(DriverKind, String), String> {
    if choice == DriverChoice::Epoll {
        return Ok((DriverKind::Epoll, "epoll, as configured".into()));
    }
    match (uring::is_usable(), choice) {
        (Ok(()), DriverChoice::IoUring) => {
            Ok((DriverKind::IoUring, "io_uring, as configured".into()))
        }
        (Ok(()), _) => Ok((DriverKind::IoUring, "io_uring passed its self-test".into())),
        (Err(reason), DriverChoice::IoUring) => {
            Err(format!("io_uring is configured, but {reason}"))
        }
        (Err(reason), _) => Ok((DriverKind::Epoll, format!("epoll, because {reason}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_always_available_and_auto_never_fails() {
        assert_eq!(choose(DriverChoice::Epoll).unwrap().0, DriverKind::Epoll);
        let (kind, reason) = choose(DriverChoice::Auto).unwrap();
        match choose(DriverChoice::IoUring) {
            Ok((forced, _)) => {
                assert_eq!((forced, kind), (DriverKind::IoUring, DriverKind::IoUring))
            }
            Err(error) => {
                assert_eq!(kind, DriverKind::Epoll);
                assert!(error.len() > 20 && reason.starts_with("epoll, because"));
            }
        }
    }
}
