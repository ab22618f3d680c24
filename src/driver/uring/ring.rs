//! The ring: all unsafe calls of io_uring, and nothing else.
//!
//! A ring stays on the thread that made it (SINGLE_ISSUER). Completions run only inside `enter` (DEFER_TASKRUN).

#![expect(unsafe_code, reason = "the kernel reads and writes memory that requests name")]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{
    CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue,
};

use crate::driver::socket::SEND_FLAGS;

/// A ring. Its queues are separate fields, so that their positions stay in user space between calls.
pub(in crate::driver) struct Ring {
    // The queues and the submitter borrow from `ring`; `drop` ends them in this order.
    submission: ManuallyDrop<SubmissionQueue<'static>>,
    completion: ManuallyDrop<CompletionQueue<'static>>,
    submitter: Submitter<'static>,
    ring: *mut IoUring,
    enter_flags: EnterFlags,
    /// The memory to which sends in the submission queue point. It never grows: the kernel holds addresses into it
    /// until `is_submitted`.
    headers: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
}

/// The completion of a request.
pub(in crate::driver) struct Completion {
    pub user_data: u64,
    pub result: i32,
    /// Whether a multishot request continues.
    pub more: bool,
}

/// The submission queue, or the memory for its sends, is full: enter, then push again.
#[derive(Debug)]
pub(in crate::driver) struct Full;

impl Ring {
    /// Sets up a ring; fails if the kernel is too old (before 6.1) or forbids it.
    pub fn new(submission_max: u32, completion_max: u32) -> io::Result<Self> {
        // Kernels from 6.6 on can do without the array of indexes, which saves a little memory.
        let built = Self::build(submission_max, completion_max, true);
        let ring = match built {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Self::build(submission_max, completion_max, false)?
            }
            built => built?,
        };
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            // A sleeping server is idle, not waiting for a disk.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let entries = ring.params().sq_entries() as usize;
        let ring = Box::into_raw(Box::new(ring));
        // SAFETY: the pointer comes from the line above and is not aliased; what borrows from it lives in `Self`,
        // which frees it last.
        let (mut submitter, submission, completion) = unsafe { &mut *ring }.split();
        // Saves the kernel the lookup of the descriptor, 77 ns an enter. Sixteen rings of a thread can be registered;
        // the next one works without.
        let _ = submitter.register_ring_fd();
        Ok(Self {
            submission: ManuallyDrop::new(submission),
            completion: ManuallyDrop::new(completion),
            submitter,
            ring,
            enter_flags,
            headers: Vec::with_capacity(entries),
            vectors: Vec::with_capacity(VECTORS_MAX),
        })
    }

    fn build(submission_max: u32, completion_max: u32, no_array: bool) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            // A bit in shared memory tells that completions wait for an enter.
            .setup_taskrun_flag()
            // One bad request does not block those after it.
            .setup_submit_all()
            .setup_cqsize(completion_max)
            .setup_clamp()
            // A forked child must not touch the queues.
            .dontfork();
        if no_array {
            builder.setup_no_sqarray();
        }
        builder.build(submission_max)
    }

    /// The kernel's features, for the probe.
    pub fn features(&self) -> &io_uring::Parameters {
        // SAFETY: the ring lives as long as `self`, and is only read while the queues are in use.
        unsafe { &*self.ring }.params()
    }

    /// The operations that the kernel supports, for the probe.
    pub fn operations(&self) -> io::Result<io_uring::Probe> {
        let mut probe = io_uring::Probe::new();
        self.submitter.register_probe(&mut probe)?;
        Ok(probe)
    }

    /// Polls a descriptor for `events`, once.
    #[inline]
    pub fn poll_once(&mut self, fd: RawFd, events: i32, user_data: u64) -> Result<(), Full> {
        let entry = opcode::PollAdd::new(Fd(fd), events as u32).build().user_data(user_data);
        self.push(&entry)
    }

    /// Polls a descriptor for every change. It ends only with the ring, so the descriptor must live as long.
    pub fn poll_forever(&mut self, fd: RawFd, events: i32, user_data: u64) -> Result<(), Full> {
        let entry =
            opcode::PollAdd::new(Fd(fd), events as u32).multi(true).build().user_data(user_data);
        self.push(&entry)
    }

    /// Sends what fits. If that is everything, no completion is posted; otherwise one with the number of bytes or an
    /// error is posted before the enter that submits it returns.
    ///
    /// # Safety
    ///
    /// The bytes must stay where they are until `is_submitted` is true after an enter.
    #[inline]
    pub unsafe fn send(&mut self, fd: RawFd, bytes: &[u8], user_data: u64) -> Result<(), Full> {
        let len = u32::try_from(bytes.len()).expect("a segment is under 4 GiB");
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), len)
            .flags(INLINE_SEND)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data);
        self.push(&entry)
    }

    /// Sends several slices as one. If there are more than the kernel takes, a completion has the number of bytes sent.
    ///
    /// # Safety
    ///
    /// As for `send`.
    pub unsafe fn send_vectored<'a>(
        &mut self,
        fd: RawFd,
        slices: impl Iterator<Item = &'a [u8]>,
        count: usize,
        user_data: u64,
    ) -> Result<(), Full> {
        let taken = count.min(SLICES_PER_SEND_MAX);
        let start = self.vectors.len();
        if self.headers.len() == self.headers.capacity()
            || self.vectors.capacity() - start < taken
            || self.submission.is_full()
        {
            return Err(Full);
        }
        self.vectors.extend(slices.take(taken).map(|slice| libc::iovec {
            iov_base: slice.as_ptr().cast_mut().cast(),
            iov_len: slice.len(),
        }));
        // SAFETY: a msghdr of zeros is a valid one: no name, no vectors, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.vectors[start..].as_mut_ptr();
        header.msg_iovlen = self.vectors.len() - start;
        self.headers.push(header);
        let header = self.headers.last().expect("pushed just now");
        let silence =
            if taken == count { squeue::Flags::SKIP_SUCCESS } else { squeue::Flags::empty() };
        let entry = opcode::SendMsg::new(Fd(fd), header)
            .flags(INLINE_SEND as u32)
            .build()
            .flags(silence)
            .user_data(user_data);
        self.push(&entry)
    }

    #[inline]
    fn push(&mut self, entry: &squeue::Entry) -> Result<(), Full> {
        // SAFETY: polls name no memory. What sends name is either in `headers` and `vectors`, which are not
        // touched while a submission is outstanding, or promised by the caller of `send` and `send_vectored`.
        unsafe { self.submission.push(entry) }.map_err(|_| Full)
    }

    /// Submits everything that was pushed and waits for `want` completions, for at most `timeout`.
    ///
    /// It is not an error if the kernel was interrupted, lacks memory for a moment or wants completions taken first:
    /// `is_submitted` tells whether to enter again.
    pub fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.submission.sync();
        // The kernel counts completions that it considers unread towards those to wait for.
        self.completion.sync();
        let count = u32::try_from(self.submission.len()).expect("a queue has 2^15 entries at most");
        let timespec = timeout.map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        let flags = self.enter_flags.bits();
        // SAFETY: EXT_ARG says that the argument is a getevents_arg, which SubmitArgs is; it and the timespec in
        // it outlive the call. The entries submitted are valid by `push`.
        let entered = unsafe { self.submitter.enter(count, want, flags, Some(&args)) };
        self.submission.sync();
        self.completion.sync();
        if self.submission.is_empty() {
            self.headers.clear();
            self.vectors.clear();
        }
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether the kernel has taken everything that was pushed and no longer needs the memory it pointed to.
    #[inline]
    pub fn is_submitted(&self) -> bool {
        self.submission.is_empty()
    }

    /// Whether an enter is needed: to submit requests, to run completions, or to fetch those that overflowed.
    #[inline]
    pub fn needs_enter(&self) -> bool {
        !self.submission.is_empty() || self.submission.taskrun() || self.submission.cq_overflow()
    }

    /// Whether completions overflowed the queue. The kernel keeps them; an enter fetches them.
    #[inline]
    pub fn is_overflowed(&self) -> bool {
        self.submission.cq_overflow()
    }

    /// The next completion.
    #[inline]
    pub fn pop(&mut self) -> Option<Completion> {
        self.completion.next().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The registration holds the ring and is one of sixteen of this thread.
        let _ = self.submitter.unregister_ring_fd();
        // SAFETY: neither is used again, and both are dropped before what they borrow from.
        unsafe {
            ManuallyDrop::drop(&mut self.submission);
            ManuallyDrop::drop(&mut self.completion);
        }
        // SAFETY: the pointer came from Box::into_raw in `new`, and is freed only here. The submitter that still
        // borrows from it has no destructor.
        drop(unsafe { Box::from_raw(self.ring) });
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// DONTWAIT completes a send inside the enter. WAITALL makes a short send a failure, for which a completion is posted
/// although success posts none; without it the rest would be lost silently.
const INLINE_SEND: i32 = SEND_FLAGS | libc::MSG_WAITALL;
/// The kernel's limit UIO_MAXIOV.
const SLICES_PER_SEND_MAX: usize = 1024;
/// Most slices of one submission.
const VECTORS_MAX: usize = 4096;
const _: () = assert!(SLICES_PER_SEND_MAX <= VECTORS_MAX, "the longest send fits an empty arena");
