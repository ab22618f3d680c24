//! Which driver to run.

use super::uring;
use crate::config::DriverChoice;

/// A kernel driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`super::UringDriver`]
    IoUring,
    /// [`super::EpollDriver`]
    Epoll,
}

impl Kind {
    /// Its name on the command line and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Kind::IoUring => "io_uring",
            Kind::Epoll => "epoll",
        }
    }
}

/// Chooses a driver, with the reason for the log. Fails with what to tell the operator when io_uring is asked for
/// and does not work here. Call it once, before workers start: it sets a ring up and tries it on a loopback
/// connection.
pub fn choose(choice: DriverChoice) -> Result<(Kind, String), String> {
    if choice == DriverChoice::Epoll {
        return Ok((Kind::Epoll, "epoll, as configured".into()));
    }
    match (uring::is_usable(), choice) {
        (Ok(()), DriverChoice::IoUring) => Ok((Kind::IoUring, "io_uring, as configured".into())),
        (Ok(()), _) => Ok((Kind::IoUring, "io_uring passed its self-test".into())),
        (Err(reason), DriverChoice::IoUring) => Err(format!("io_uring is asked for, but {reason}")),
        (Err(reason), _) => Ok((Kind::Epoll, format!("epoll, because {reason}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_had_for_the_asking_and_auto_never_fails() {
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
