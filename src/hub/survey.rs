//! Calls of the server API that concern several connections. Every worker goes through its own, a slice in each turn,
//! and answers once that is done. Whether a session has a connection, and which transport, only the worker knows: it
//! carries out each step, see [`HubOutput::Survey`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::{HubOutput, Part, QueryMessage, Survey, SurveyTask, send_part};
use crate::config::limits::{BLOCKED_USERS_MAX, CONNECTIONS_LIST_MAX};
use crate::message::Refusal;

impl Survey {
    /// Whether as many connections were found as may be listed.
    pub fn is_full(&self) -> bool {
        self.found.len() >= CONNECTIONS_LIST_MAX
    }

    /// Continues at `from` after everything else that waits; `None` ends the survey.
    pub fn continue_at(self, from: Option<usize>, workers: u16, out: &mut VecDeque<HubOutput>) {
        match from {
            Some(from) if !self.is_full() => {
                let message = QueryMessage::Survey(Survey { from, ..self });
                out.push_back(HubOutput::Later(message.into()));
            }
            _ => self.finish(Ok(from.is_some()), workers, out),
        }
    }

    /// Ends the survey, with whether there are more connections, or with the reason for which nothing was done.
    pub fn finish(
        self,
        result: Result<bool, Refusal>,
        workers: u16,
        out: &mut VecDeque<HubOutput>,
    ) {
        let part = match (&*self.task, result) {
            (SurveyTask::List { .. }, Ok(is_truncated)) => {
                Part::Connections(self.found, is_truncated)
            }
            (_, result) => Part::Done(result.map(drop)),
        };
        send_part(self.gather, workers, Some(part), out);
    }
}

/// Users whose connections are refused.
#[derive(Debug, Default)]
pub(super) struct BlockedUsers {
    /// Until when, in seconds since the Unix epoch.
    users: HashMap<Arc<str>, u64>,
}

impl BlockedUsers {
    /// Blocks a user until a time, or no more if that is not in the future.
    pub(super) fn block(&mut self, user: Arc<str>, until: u64, now: u64) -> Result<(), Refusal> {
        if until <= now {
            self.users.remove(&user);
            return Ok(());
        }
        if self.users.len() >= BLOCKED_USERS_MAX {
            self.users.retain(|_, until| *until > now);
        }
        if self.users.len() >= BLOCKED_USERS_MAX && !self.users.contains_key(&user) {
            return Err(Refusal::BlockedUsersExhausted);
        }
        self.users.insert(user, until);
        Ok(())
    }

    /// Whether a user is blocked now.
    pub(super) fn contains(&self, user: &str, now: u64) -> bool {
        self.users.get(user).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_blocked_until_a_time() {
        let mut blocked = BlockedUsers::default();
        blocked.block("ann".into(), 100, 50).unwrap();
        assert!(blocked.contains("ann", 99) && !blocked.contains("ann", 100));
        assert!(!blocked.contains("bob", 99) && !blocked.contains("", 99));
        blocked.block("ann".into(), 0, 50).unwrap();
        assert!(!blocked.contains("ann", 60));
        blocked.block("ann".into(), u64::MAX, 50).unwrap();
        assert!(blocked.contains("ann", u64::MAX - 1));
    }

    #[test]
    fn a_limited_number_of_users_is_blocked_at_a_time() {
        let mut blocked = BlockedUsers::default();
        let user = |n: usize| Arc::from(n.to_string());
        for n in 0..BLOCKED_USERS_MAX {
            blocked.block(user(n), 100 + (n as u64 % 2), 50).unwrap();
        }
        let full = Err(Refusal::BlockedUsersExhausted);
        assert_eq!(blocked.block("ann".into(), 200, 50), full);
        // The time of one that is blocked changes, or has come.
        assert_eq!(blocked.block(user(0), 300, 50), Ok(()));
        assert_eq!(blocked.block("ann".into(), 200, 100), Ok(()));
        assert!(blocked.contains("ann", 199) && blocked.contains("0", 299));
        assert!(blocked.contains("1", 100) && !blocked.contains("2", 100));
    }
}
