//! Log levels: one for everything, and one per room.

use std::fmt;

use super::nearest::did_you_mean;

/// A log level; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing is logged.
    Off,
    /// Faults that end the server or a worker.
    Error,
    /// Conditions that an operator should look at.
    Warn,
    /// Start, stop, and changes of the configuration.
    Info,
    /// Protocol errors of clients, and the reasons for which connections end.
    Debug,
    /// Everything that is logged.
    Trace,
}

/// The rooms that a level can be set for: those of `src/lib.rs`.
pub const ROOMS: [&str; 13] = [
    "message",
    "config",
    "telemetry",
    "buffer",
    "protocol",
    "auth",
    "transport",
    "hub",
    "driver",
    "connection",
    "callback",
    "worker",
    "server",
];

/// A level for each room, and one for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevels {
    others: LogLevel,
    rooms: [LogLevel; ROOMS.len()],
}

impl LogLevel {
    const ALL: [LogLevel; 6] = [
        LogLevel::Off,
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];

    const WORDS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    fn parse(word: &str) -> Result<Self, String> {
        let index = Self::WORDS.iter().position(|known| *known == word.to_ascii_lowercase());
        index.map(|index| Self::ALL[index]).ok_or_else(|| {
            let hint = did_you_mean(word, Self::WORDS.into_iter());
            format!("unknown level '{word}' ({}){hint}", Self::WORDS.join(", "))
        })
    }
}

impl LogLevels {
    /// One level for everything.
    pub const fn all(level: LogLevel) -> Self {
        Self { others: level, rooms: [level; ROOMS.len()] }
    }

    /// Parses `info,driver=debug`: a level for everything (default: `info`) and levels of rooms, in any order.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = || text.split(',').map(str::trim);
        let mut levels = Self::all(LogLevel::Info);
        for word in words().filter(|word| !word.contains('=')) {
            levels = Self::all(LogLevel::parse(word)?);
        }
        for (room, level) in words().filter_map(|word| word.split_once('=')) {
            let room = room.trim();
            let index = ROOMS.iter().position(|known| *known == room).ok_or_else(|| {
                let hint = did_you_mean(room, ROOMS.into_iter());
                format!("unknown module '{room}' ({}){hint}", ROOMS.join(", "))
            })?;
            levels.rooms[index] = LogLevel::parse(level.trim())?;
        }
        Ok(levels)
    }

    /// The level of a module: that of its room. `fantail::driver::epoll` is in the room `driver`.
    pub fn of(&self, module: &str) -> LogLevel {
        let room = module.strip_prefix("fantail::").and_then(|path| path.split("::").next());
        let index = room.and_then(|room| ROOMS.iter().position(|known| *known == room));
        index.map_or(self.others, |index| self.rooms[index])
    }
}

/// Bits of one level in [`LogLevels::pack`].
const LEVEL_BITS: usize = 3;

const _: () =
    assert!((ROOMS.len() + 1) * LEVEL_BITS <= u64::BITS as usize, "one word holds all levels");

impl LogLevels {
    /// All levels in one word, which can be stored atomically.
    pub fn pack(self) -> u64 {
        let levels = self.rooms.into_iter().chain([self.others]);
        levels.fold(0, |word, level| word << LEVEL_BITS | level as u64)
    }

    /// The levels that [`LogLevels::pack`] put into a word.
    pub fn unpack(mut word: u64) -> Self {
        let mut next = || {
            let level = LogLevel::ALL[(word & ((1 << LEVEL_BITS) - 1)) as usize];
            word >>= LEVEL_BITS;
            level
        };
        let mut levels = Self::all(next());
        for room in levels.rooms.iter_mut().rev() {
            *room = next();
        }
        levels
    }

    /// The most detailed level of all rooms.
    pub fn highest(self) -> LogLevel {
        self.rooms.into_iter().fold(self.others, LogLevel::max)
    }
}

impl fmt::Display for LogLevels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", LogLevel::WORDS[self.others as usize])?;
        for (room, level) in ROOMS.iter().zip(self.rooms) {
            if level != self.others {
                write!(out, ",{room}={}", LogLevel::WORDS[level as usize])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_parsed_written_and_found_by_module() {
        let levels = LogLevels::parse(" worker=debug, warn ,driver=off").unwrap();
        assert_eq!(levels.to_string(), "warn,driver=off,worker=debug");
        assert_eq!(LogLevels::parse(&levels.to_string()), Ok(levels));
        assert_eq!(LogLevels::unpack(levels.pack()), levels);
        assert_eq!(levels.highest(), LogLevel::Debug);
        assert_eq!(levels.of("fantail::worker::connections::closing"), LogLevel::Debug);
        assert_eq!(levels.of("fantail::driver"), LogLevel::Off);
        assert_eq!(levels.of("fantail::server"), LogLevel::Warn);
        assert_eq!(levels.of("fantail"), LogLevel::Warn);
        assert_eq!(levels.of("another::worker"), LogLevel::Warn);
        assert_eq!(LogLevels::parse("hub=trace").unwrap().to_string(), "info,hub=trace");
    }

    #[test]
    fn an_unknown_level_or_room_is_named_with_the_nearest_known_one() {
        assert!(LogLevels::parse("dbug").unwrap_err().contains("did you mean debug?"));
        let fault = LogLevels::parse("info,drivers=debug").unwrap_err();
        assert!(
            fault.contains("unknown module 'drivers'") && fault.contains("mean driver?"),
            "{fault}"
        );
        for text in ["", ",", "info,", "worker=", "=debug", "worker=debug=info"] {
            assert!(LogLevels::parse(text).is_err(), "{text}");
        }
    }
}
