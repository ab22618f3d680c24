//! Messages between workers, and to workers from other threads.
//!
//! Each worker has one inbox, a bounded lock-free queue of batches: what a turn has for one worker leaves as one
//! batch, so a worker pays for the messages it gets, not for the number of workers. A batch that does not fit
//! stays with its sender, in order, and is offered again in the next turn.
//!
//! A worker that is about to sleep says so; the next worker that hands it a batch wakes it, once. Between saying so and
//! sleeping it looks once more, and both sides put a full fence between their write and their look: one of the two
//! sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::auth::KeySet;
use crate::callback::{Answered, Inbox};
use crate::config::limits::{
    FAN_OUT_BACKLOG_LOW_DIVISOR, INBOX_BATCHES_MAX, INBOX_LOAD_FLOOR, INBOX_LOAD_HIGH,
    MESSAGE_LOAD, PUBLICATION_BYTES,
};
use crate::driver::Waker;
use crate::hub::{HubMessage, QueryMessage, StreamMessage};
use crate::message::{Publication, Reply, WorkerId};

/// What a worker is sent.
#[derive(Debug)]
pub enum Message {
    /// By a worker, for its hub.
    Hub(HubMessage),
    /// By the thread of the callbacks.
    Callback(Box<Answered>),
    /// By the same thread: keys that tokens are verified with; `None` if they could not be fetched.
    Keys(Option<Arc<KeySet>>),
}

// Batches of them are copied around.
const _: () = assert!(size_of::<Message>() == size_of::<HubMessage>());

/// One worker's end of the mesh.
#[derive(Debug)]
pub struct Mesh {
    worker: WorkerId,
    inbox: Receiver<MessageBatch>,
    /// The batch that is being taken: it was found in the inbox, or by the last look before sleeping. It counts as
    /// waiting until its last message is taken.
    opened: Opened,
    peers: Vec<Peer>,
    outboxes: Vec<MessageBatch>,
    /// Workers whose outbox is not empty.
    touched: Vec<u16>,
    /// Workers that had too much waiting in their inbox when something was added.
    crowded: Vec<u16>,
    /// Load that makes an inbox, or an outbox, too much.
    load_high: usize,
    congestion: Congestion,
}

/// What one turn has for one worker.
#[derive(Debug, Default)]
struct MessageBatch {
    /// In the order in which they were sent.
    pub messages: Vec<Message>,
    /// Their payload bytes, and [`MESSAGE_LOAD`] for each.
    pub load: usize,
}

impl MessageBatch {
    /// About what it keeps in memory.
    fn bytes(&self) -> usize {
        self.load - self.messages.len() * (MESSAGE_LOAD - PUBLICATION_BYTES as usize)
    }
}

/// What is left of a batch.
#[derive(Debug, Default)]
struct Opened {
    messages: std::vec::IntoIter<Message>,
    /// The load of all its messages, taken ones included.
    load: usize,
    /// The average load of a message.
    load_each: usize,
    bytes: usize,
}

/// Another worker, or this one, as seen by those who send to it.
#[derive(Clone, Debug)]
struct Peer {
    inbox: SyncSender<MessageBatch>,
    /// The load of all batches in its inbox. The sender adds to it: a worker that is busy, or does not get its core,
    /// does not know of them yet.
    load: Arc<AtomicUsize>,
    /// Bytes that these batches keep in memory.
    bytes: Arc<AtomicUsize>,
    sleeps: Arc<AtomicBool>,
    waker: Waker,
}

/// How many workers are behind. The publishers of all workers are paused while one is behind: their publications
/// would wait in its inbox.
#[derive(Clone, Debug, Default)]
struct Congestion {
    workers: Arc<AtomicUsize>,
    counted: bool,
}

impl Peer {
    /// Hands over a batch, and wakes its worker. Returns the load in its inbox, and the batch if it does not fit.
    fn send(&self, batch: MessageBatch) -> (Result<(), MessageBatch>, usize) {
        let (load, bytes) = (batch.load, batch.bytes());
        // Added first: the receiver may subtract it at once.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let all = self.load.fetch_add(load, Ordering::Relaxed) + load;
        let sent = match self.inbox.try_send(batch) {
            Ok(()) => {
                fence(Ordering::SeqCst);
                if self.sleeps.swap(false, Ordering::SeqCst) {
                    self.waker.wake();
                }
                Ok(())
            }
            Err(TrySendError::Full(batch)) => {
                self.load.fetch_sub(load, Ordering::Relaxed);
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(batch)
            }
            // The worker has ended, and with it all clients that its messages were for.
            Err(TrySendError::Disconnected(_)) => Ok(()),
        };
        (sent, all)
    }
}

/// The inbox of a worker, for a thread that is not one.
#[derive(Debug)]
pub struct MeshInbox(Peer);

impl Inbox for MeshInbox {
    fn deliver(&mut self, answers: Vec<Answered>) -> Result<(), Vec<Answered>> {
        let load = answers.iter().map(|answered| MESSAGE_LOAD + answered.bytes()).sum();
        let messages = answers.into_iter().map(Box::new).map(Message::Callback).collect();
        let (sent, _) = self.0.send(MessageBatch { messages, load });
        let answers = |batch: MessageBatch| {
            let answer = |message| match message {
                Message::Callback(answered) => Some(*answered),
                Message::Hub(_) | Message::Keys(_) => None,
            };
            batch.messages.into_iter().filter_map(answer).collect()
        };
        sent.map_err(answers)
    }

    fn set_keys(&mut self, keys: Option<&Arc<KeySet>>) -> bool {
        let messages = vec![Message::Keys(keys.cloned())];
        let (sent, _) = self.0.send(MessageBatch { messages, load: MESSAGE_LOAD });
        sent.is_ok()
    }
}

impl Mesh {
    /// The ends of a mesh, one for each waker.
    pub fn new(wakers: &[Waker]) -> Vec<Mesh> {
        let congestion = Congestion::default();
        let (peers, inboxes): (Vec<_>, Vec<_>) = wakers
            .iter()
            .map(|waker| {
                let (sender, inbox) = sync_channel(INBOX_BATCHES_MAX);
                let sleeps = Arc::new(AtomicBool::new(false));
                let [load, bytes] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
                (Peer { inbox: sender, load, bytes, sleeps, waker: waker.clone() }, inbox)
            })
            .unzip();
        inboxes
            .into_iter()
            .enumerate()
            .map(|(worker, inbox)| Mesh {
                worker: WorkerId(u16::try_from(worker).expect("workers are few")),
                inbox,
                opened: Opened::default(),
                outboxes: peers.iter().map(|_| MessageBatch::default()).collect(),
                peers: peers.clone(),
                touched: Vec::new(),
                crowded: Vec::new(),
                load_high: INBOX_LOAD_HIGH,
                congestion: congestion.clone(),
            })
            .collect()
    }

    /// This worker's inbox, for a thread that is not a worker.
    pub fn inbox(&self) -> MeshInbox {
        MeshInbox(self.peers[usize::from(self.worker.0)].clone())
    }

    /// This end's worker.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The next message from some worker, and about its load.
    pub fn receive(&mut self) -> Option<(Message, usize)> {
        if self.opened.messages.len() == 0 {
            self.open_next();
        }
        let message = self.opened.messages.next()?;
        let load_each = self.opened.load_each;
        if self.opened.messages.len() == 0 {
            let Opened { load, bytes, .. } = std::mem::take(&mut self.opened);
            let own = &self.peers[usize::from(self.worker.0)];
            own.load.fetch_sub(load, Ordering::Relaxed);
            own.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        Some((message, load_each))
    }

    fn open_next(&mut self) {
        if let Ok(batch) = self.inbox.try_recv() {
            let (load, bytes) = (batch.load, batch.bytes());
            let load_each = load.div_ceil(batch.messages.len().max(1));
            self.opened = Opened { messages: batch.messages.into_iter(), load, load_each, bytes };
        }
    }

    /// Adds a message to the batch that leaves at the turn's end.
    pub fn send(&mut self, to: WorkerId, message: HubMessage) {
        let outbox = &mut self.outboxes[usize::from(to.0)];
        if outbox.messages.is_empty() {
            self.touched.push(to.0);
        }
        outbox.load += load_of(&message);
        outbox.messages.push(Message::Hub(message));
    }

    /// Whether nothing waits to be handed over.
    pub fn is_flushed(&self) -> bool {
        self.touched.is_empty()
    }

    /// Hands over the batches. Returns whether all of them were taken.
    pub fn flush(&mut self) -> bool {
        let mut at = 0;
        while at < self.touched.len() {
            let to = usize::from(self.touched[at]);
            let peer = &self.peers[to];
            let batch = std::mem::take(&mut self.outboxes[to]);
            let (sent, load) = peer.send(batch);
            if load > self.load_high && !self.crowded.contains(&self.touched[at]) {
                self.crowded.push(self.touched[at]);
            }
            match sent {
                Ok(()) => drop(self.touched.swap_remove(at)),
                Err(batch) => {
                    self.outboxes[to] = batch;
                    at += 1;
                }
            }
        }
        self.touched.is_empty()
    }

    /// Says that this worker is about to sleep. Returns whether it may: false if a batch came meanwhile.
    pub fn prepare_sleep(&mut self) -> bool {
        let sleeps = &self.peers[usize::from(self.worker.0)].sleeps;
        sleeps.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.opened.messages.len() == 0 {
            self.open_next();
        }
        let is_empty = self.opened.messages.len() == 0;
        if !is_empty {
            self.peers[usize::from(self.worker.0)].sleeps.store(false, Ordering::SeqCst);
        }
        is_empty
    }

    /// Says that this worker is awake.
    pub fn end_sleep(&mut self) {
        self.peers[usize::from(self.worker.0)].sleeps.store(false, Ordering::Relaxed);
    }

    /// Publishers are paused when so much waits for one worker, within [`INBOX_LOAD_FLOOR`] and [`INBOX_LOAD_HIGH`].
    pub fn set_load_high(&mut self, load: usize) {
        self.load_high = load.clamp(INBOX_LOAD_FLOOR, INBOX_LOAD_HIGH);
    }

    /// Bytes of the messages that wait for this worker, and of those that it could not hand over.
    pub fn waiting_bytes(&self) -> usize {
        let outboxes = self.touched.iter().map(|to| self.outboxes[usize::from(*to)].bytes());
        let inbox = self.peers[usize::from(self.worker.0)].bytes.load(Ordering::Relaxed);
        inbox + outboxes.sum::<usize>()
    }

    /// Counts this worker among those that are behind, or not.
    pub fn set_congested(&mut self, behind: bool) {
        let outboxes = self.touched.iter().map(|to| self.outboxes[usize::from(*to)].load);
        let behind = behind || outboxes.max().unwrap_or(0) > self.load_high;
        let low = self.load_high / FAN_OUT_BACKLOG_LOW_DIVISOR;
        let load = |to: u16| self.peers[usize::from(to)].load.load(Ordering::Relaxed);
        self.crowded.retain(|to| load(*to) > low);
        let behind = behind || !self.crowded.is_empty();
        if behind != self.congestion.counted {
            self.congestion.counted = behind;
            if behind {
                self.congestion.workers.fetch_add(1, Ordering::Relaxed);
            } else {
                self.congestion.workers.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether this worker counts as behind: it must look again soon, because publishers everywhere wait for it.
    pub fn is_counted(&self) -> bool {
        self.congestion.counted
    }

    /// Whether any worker is behind.
    pub fn is_congested(&self) -> bool {
        self.congestion.workers.load(Ordering::Relaxed) > 0
    }
}

/// What a message costs the worker that gets it.
fn load_of(message: &HubMessage) -> usize {
    let bytes = match message {
        HubMessage::Stream(StreamMessage::Publish { payload, info, .. }) => {
            payload.heap_bytes() + info.as_ref().map_or(0, |info| info.text_bytes())
        }
        HubMessage::Stream(StreamMessage::Deliver(publication)) => publication.heap_bytes(),
        HubMessage::Stream(StreamMessage::Recovered { recovery: Some(recovery), .. }) => {
            bytes_of(&recovery.publications)
        }
        HubMessage::Query(QueryMessage::Answer {
            reply: Reply::History { publications, .. },
            ..
        }) => bytes_of(publications),
        HubMessage::Query(QueryMessage::Control(control)) => control.control.heap_bytes(),
        HubMessage::Stream(_) | HubMessage::Query(_) => 0,
    };
    MESSAGE_LOAD + bytes
}

/// Shared with others, but each receiver encodes them.
fn bytes_of(publications: &[Arc<Publication>]) -> usize {
    publications.iter().map(|publication| publication.heap_bytes()).sum()
}
