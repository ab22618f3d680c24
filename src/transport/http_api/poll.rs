//! Polls that wait: each is a subscription from a position, and ends with its answer.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Exchange;
use crate::config::limits::{HALF_CLOSED_LINGER, POLL_TIMEOUT, POLL_TIMEOUT_SECONDS_MAX};
use crate::message::{Item, Publication};
use crate::protocol::http1::write_continue;
use crate::protocol::long_poll::{Answer, write_answer};
use crate::transport::context::{Context, Output};
use crate::transport::places::Places;
use crate::transport::poll_form::PollForm;
use crate::transport::prepared::{Batch, Delivered};
use crate::transport::settings::TransportSettings;

/// The parameters of a poll, apart from its channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollOptions {
    pub form: PollForm,
    pub timeout: Duration,
    /// Whether the ETag of the request is that of a poll that timed out.
    pub repeats_timeout: bool,
    /// Whether the client understands interim responses (1xx).
    pub takes_interim: bool,
}

/// A poll that waits.
#[derive(Debug)]
pub(super) struct Poll {
    places: Places,
    form: PollForm,
    /// The position of the request cannot be recovered from: the client continues from another one.
    begins_anew: bool,
    /// Publications were dropped before the next one that is delivered.
    has_gap: bool,
    repeats_timeout: bool,
    takes_interim: bool,
    /// From 0 to [`POLL_TIMEOUT_SECONDS_MAX`].
    timeout_seconds: u8,
    /// The answer is written.
    is_answered: bool,
}

impl PollOptions {
    /// Reads `timeout`, in seconds; the error is a sentence.
    pub(super) fn timeout(text: Option<&str>) -> Result<Duration, String> {
        let Some(text) = text else { return Ok(POLL_TIMEOUT) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(seconds @ ..=POLL_TIMEOUT_SECONDS_MAX) if is_number => {
                Ok(Duration::from_secs(seconds))
            }
            _ => {
                Err(format!("timeout is a number of seconds from 0 to {POLL_TIMEOUT_SECONDS_MAX}"))
            }
        }
    }
}

impl Poll {
    /// The subscriptions are made: answers with what there is, or returns the poll, which waits.
    pub(super) fn begin(
        options: PollOptions,
        mut places: Places,
        begins_anew: bool,
        items: &[Item],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Option<Self> {
        let PollOptions { form, timeout, repeats_timeout, takes_interim } = options;
        let mut bytes_left = context.settings.recovery_bytes_max;
        let fitting = items.iter().take_while(|item| {
            let has_room = bytes_left > 0;
            bytes_left = bytes_left.saturating_sub(item.bytes());
            has_room
        });
        let held = &items[..fitting.count()];
        let publications = form.of(held);
        let has_gap = form.has_gap(held);
        // A poll that cannot go on where it was waits like any other: answered at once, a client of a channel
        // without a history would poll in a tight loop and receive nothing.
        let waits = publications.is_empty() && !exchange.is_head && !timeout.is_zero();
        for publication in &publications {
            places.advance(publication);
        }
        let poll = Self {
            places,
            form,
            begins_anew,
            has_gap,
            repeats_timeout,
            takes_interim,
            timeout_seconds: u8::try_from(timeout.as_secs()).unwrap_or(u8::MAX),
            is_answered: !waits,
        };
        if waits {
            context.outputs.push(Output::DeadlineWithin(timeout));
            return Some(poll);
        }
        let is_timeout = publications.is_empty() && !exchange.is_head;
        poll.write(&publications, is_timeout, exchange, context.out, context.settings);
        None
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }

    /// Whether the answer is written.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Nothing was published in time.
    pub(super) fn time_out(&self, exchange: Exchange, context: &mut Context<'_>) {
        context.messages.sent += 1;
        self.write(&[], true, exchange, context.out, context.settings);
    }

    /// The client sends no more. It may have closed only this half, and is answered then; one that is gone answers two
    /// interim answers (RFC 9110 15.2) with a reset. Until the second one there is little time.
    pub(super) fn probe(&self, context: &mut Context<'_>) {
        if self.takes_interim && self.timeout() > HALF_CLOSED_LINGER {
            write_continue(context.out);
            context.outputs.push(Output::Deadline(HALF_CLOSED_LINGER));
        }
    }

    /// The same for the second time, if the poll has time left. `silence` is the time since bytes came last.
    pub(super) fn probe_again(&self, silence: Duration, context: &mut Context<'_>) -> bool {
        let left = self.timeout().saturating_sub(silence);
        let has_time = left > HALF_CLOSED_LINGER;
        if has_time {
            write_continue(context.out);
            context.outputs.push(Output::DeadlineWithin(left));
        }
        has_time
    }

    /// The server ends the connection: nothing was published.
    pub(super) fn disconnect(&self, exchange: Exchange, context: &mut Context<'_>) {
        if !self.is_answered {
            let exchange = Exchange { keep_alive: false, ..exchange };
            self.write(&[], true, exchange, context.out, context.settings);
        }
    }

    /// Takes publications: appends what only this client gets of the answer; the frame goes behind it.
    pub(super) fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        exchange: Exchange,
        out: &mut Vec<u8>,
        settings: &TransportSettings,
    ) -> Delivered {
        if self.is_answered {
            return Delivered::NOTHING;
        }
        if let Places::One(_) = self.places
            && !self.has_gap
            && !self.begins_anew
        {
            let frame = batch.answer(self.form);
            if frame.is_empty() {
                self.has_gap = self.form.has_gap(batch.items());
                return Delivered::NOTHING;
            }
            self.is_answered = true;
            exchange.write_status(out, settings);
            let count = match self.form {
                PollForm::Batch => batch.items().len(),
                PollForm::One => 1,
            };
            return Delivered { count, frame: Some(frame), completes_answer: true };
        }
        self.has_gap |= self.form.has_gap(batch.items());
        let publications = self.form.of(batch.items());
        if publications.is_empty() {
            return Delivered::NOTHING;
        }
        self.is_answered = true;
        for publication in &publications {
            self.places.advance(publication);
        }
        self.write(&publications, false, exchange, out, settings);
        Delivered { count: publications.len(), frame: None, completes_answer: true }
    }

    fn write(
        &self,
        publications: &[Arc<Publication>],
        is_timeout: bool,
        exchange: Exchange,
        out: &mut Vec<u8>,
        settings: &TransportSettings,
    ) {
        let Self { places, form, repeats_timeout, .. } = self;
        exchange.write_status(out, settings);
        // What was dropped while nothing else came is behind the position: the next poll recovers it, or reports
        // the gap.
        let has_gap = self.begins_anew || self.has_gap && !publications.is_empty();
        let channels = places.all().iter().map(|place| place.channel.as_str());
        let cookie = form.cookie(channels);
        let (position, repeats_timeout) = (places, *repeats_timeout);
        let answer =
            Answer { publications, position, is_timeout, repeats_timeout, has_gap, cookie };
        write_answer(out, &answer, !exchange.is_head);
    }
}

const _: () =
    assert!(POLL_TIMEOUT_SECONDS_MAX <= u8::MAX as u64, "a poll keeps its timeout in a byte");
