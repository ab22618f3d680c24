//! The choice of a driver at start.

use super::uring;
use crate::config::DriverChoice;

/// A kernel driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The driver [`super::UringDriver`].
    IoUring,
    /// The driver [`super::EpollDriver`].
    Epoll,
}

impl Kind {
    /// The driver's name on the command line and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Kind::IoUring => "io_uring",
            Kind::Epoll => "epoll",
        }
    }
}

/// Chooses a driver and gives the reason for the log. Fails with a message for the operator if io_uring is configured
/// and does not work on this host. Call it once, before workers start: it sets up a ring and tests it on a loopback
/// connection.
pub fn choose(choice: DriverChoice) -> Result<(Kind, String), String> {
    if choice == DriverChoice::Epoll {
        return Ok((Kind::Epoll, "epoll, as configured".into()));
    }
    match (uring::is_usable(), choice) {
        (Ok(()), DriverChoice::IoUring) => Ok((Kind::IoUring, "io_uring, as configured".into())),
        (Ok(()), _) => Ok((Kind::IoUring, "io_uring passed its self-test".into())),
        (Err(reason), DriverChoice::IoUring) => {
            Err(format!("io_uring is configured, but {reason}"))
        }
        (Err(reason), _) => Ok((Kind::Epoll, format!("epoll, because {reason}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_always_available_and_auto_never_fails() {
        assert_eq!(choose(DriverChoice::Epoll).unwrap().0, Kind::Epoll);
        let (kind, reason) = choose(DriverChoice::Auto).unwrap();
        match choose(DriverChoice::IoUring) {
            Ok((forced, _)) => assert_eq!((forced, kind), (Kind::IoUring, Kind::IoUring)),
            Err(error) => {
                assert_eq!(kind, Kind::Epoll);
                assert!(error.len() > 20 && reason.starts_with("epoll, because"));
            }
        }
    }
}
