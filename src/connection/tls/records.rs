//! TLS records, once the handshake is done: RFC 8446 section 5, and for TLS 1.2 RFC 5246 section 6.2.
//!
//! Received records are opened where they were received, and what they contain is moved together. Sent ones are sealed
//! where they were written. Nothing is sealed twice: what the kernel did not take is kept as it was sealed.

use std::fmt;
use std::ops::Range;

use super::alert::Alert;
use super::keys::{Cipher, Direction, EXPLICIT_NONCE_BYTES, TAG_BYTES, Version};

/// What is left of TLS behind a handshake: the keys of both directions and a few small numbers. It owns no heap.
pub struct Session {
    read: Direction,
    write: Direction,
    cipher: Cipher,
    version: Version,
    /// Bytes of a KeyUpdate that came so far; all but its last are known.
    update_bytes: u8,
    /// Records in a row that brought no data.
    empty_records: u8,
    owes: Update,
    has_closed: Closed,
}

/// Whether a KeyUpdate is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Update {
    No,
    /// The peer asked for it.
    Yes,
    /// The peer is asked for one in turn.
    AndRequest,
}

/// Which sides have said that they send no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    Neither,
    Peer,
    Own,
    Both,
}

/// What came in whole records.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the data of all records is now.
    pub data: Range<usize>,
    /// The bytes of whole records: those behind them begin a record whose end has not come.
    pub taken: usize,
    /// Why the connection ends, once the data before it was taken.
    pub fault: Option<Fault>,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer broke the protocol, and is sent this alert.
    Ours(Alert),
    /// The peer sent an alert.
    Peers(u8),
}

/// Most data in one record: RFC 8446 5.1.
pub const RECORD_BYTES_MAX: usize = 1 << 14;

/// Most bytes of a whole record that came, its header included: RFC 5246 6.2.3 allows more than RFC 8446 5.2.
pub const SEALED_RECORD_BYTES_MAX: usize = HEADER_BYTES + RECORD_BYTES_MAX + 2048;

/// Records in a row that may bring no data: empty and padded ones, KeyUpdates, warnings.
const EMPTY_RECORDS_MAX: u8 = 32;

/// Records that are sealed with one key of AES-GCM: RFC 8446 5.5, with a margin.
const SEALED_MAX: u32 = 1 << 24;

/// Received records at which the peer is asked for a new key, long before their numbers end.
const OPENED_MAX: u32 = 1 << 31;

pub(super) const HEADER_BYTES: usize = 5;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// A KeyUpdate without its last byte: its type and its length.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

impl Session {
    pub(super) fn new(cipher: Cipher, version: Version, read: Direction, write: Direction) -> Self {
        Self {
            read,
            write,
            cipher,
            version,
            update_bytes: 0,
            empty_records: 0,
            owes: Update::No,
            has_closed: Closed::Neither,
        }
    }

    /// Opens the whole records at the beginning of `bytes`, in place. Nothing is taken behind the peer's close_notify.
    pub fn open(&mut self, bytes: &mut [u8]) -> Opened {
        let mut opened = Opened { data: 0..0, taken: 0, fault: None };
        let mut aead = None;
        while !self.has_peer_closed() {
            let rest = &bytes[opened.taken..];
            let record = match self.parse(rest) {
                Ok(Some(record)) => record,
                Ok(None) => return opened,
                Err(alert) => {
                    opened.fault = Some(Fault::Ours(alert));
                    return opened;
                }
            };
            let begin = opened.taken;
            let end = begin + record.end;
            let key = aead.get_or_insert_with(|| self.read.aead(self.cipher, self.version));
            let text = match open_record(
                &mut self.read,
                key,
                self.cipher,
                self.version,
                record,
                &mut bytes[begin..end],
            ) {
                Ok((kind, text)) => self
                    .take(kind, &bytes[begin + text.start..begin + text.end])
                    .map(|taken| (taken, text)),
                Err(alert) => Err(Fault::Ours(alert)),
            };
            match text {
                Ok((Taken::Data, text)) => {
                    let text = begin + text.start..begin + text.end;
                    if opened.data.is_empty() {
                        opened.data = text;
                    } else {
                        let length = text.len();
                        bytes.copy_within(text, opened.data.end);
                        opened.data.end += length;
                    }
                }
                Ok((Taken::NewKey, _)) => aead = None,
                Ok((Taken::Nothing, _)) => {}
                Err(fault) => {
                    opened.fault = Some(fault);
                    return opened;
                }
            }
            opened.taken = end;
        }
        opened.taken = bytes.len();
        opened
    }

    /// Whether the peer has said that it sends no more.
    pub fn has_peer_closed(&self) -> bool {
        matches!(self.has_closed, Closed::Peer | Closed::Both)
    }

    /// Whether the peer was notified that we send no more, or why the connection ends.
    pub fn has_closed(&self) -> bool {
        matches!(self.has_closed, Closed::Own | Closed::Both)
    }

    /// Whether there is something to send without data.
    pub fn is_urgent(&self) -> bool {
        self.owes != Update::No
    }

    /// Appends what is to be sent before the next data: a KeyUpdate, if there is one. Then makes room for the header of
    /// a record in front of the data, which the caller appends next. Returns where the record begins.
    pub fn begin(&mut self, out: &mut Vec<u8>) -> usize {
        self.update(out);
        self.make_room(out)
    }

    /// Seals the data behind the header that begins at `start`. Without data, there is no record.
    pub fn finish(&mut self, out: &mut Vec<u8>, start: usize) {
        if out.len() == start + self.header_bytes() {
            return out.truncate(start);
        }
        self.seal(APPLICATION_DATA, out, start);
    }

    /// Whether so much was sealed that the connection has to end: TLS 1.2 cannot replace its keys.
    pub fn is_used_up(&self) -> bool {
        self.version == Version::Tls12 && self.write.number() >= SEALED_MAX
    }

    /// Appends the last record: close_notify, or the alert with which the connection ends. Only once.
    pub fn close(&mut self, alert: Alert, out: &mut Vec<u8>) {
        if self.has_closed() {
            return;
        }
        self.has_closed = if self.has_peer_closed() { Closed::Both } else { Closed::Own };
        let start = self.make_room(out);
        out.extend_from_slice(&[alert.level(), alert.code()]);
        self.seal(ALERT, out, start);
    }

    fn make_room(&self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.resize(start + self.header_bytes(), 0);
        start
    }

    /// Bytes of a record in front of its data.
    fn header_bytes(&self) -> usize {
        let has_explicit = self.cipher.has_explicit_nonce(self.version);
        HEADER_BYTES + if has_explicit { EXPLICIT_NONCE_BYTES } else { 0 }
    }

    /// Sends a KeyUpdate, if there is one to be sent or the keys were used long enough.
    fn update(&mut self, out: &mut Vec<u8>) {
        if self.version != Version::Tls13 {
            return;
        }
        if self.owes == Update::No && self.write.number() < SEALED_MAX {
            return;
        }
        let start = self.make_room(out);
        out.extend_from_slice(&KEY_UPDATE);
        out.push(u8::from(self.owes == Update::AndRequest));
        self.seal(HANDSHAKE, out, start);
        self.write.update(self.cipher);
        self.owes = Update::No;
    }

    /// Seals what is behind the header that begins at `start`. Without a number left, which the limits prevent, it is
    /// dropped.
    fn seal(&mut self, kind: u8, out: &mut Vec<u8>, start: usize) {
        let header_bytes = self.header_bytes();
        let Ok(number) = self.write.take() else { return out.truncate(start) };
        let aead = self.write.aead(self.cipher, self.version);
        let of_number = number.bytes();
        let nonce = aead.nonce(number);
        let text_bytes = out.len() - start - header_bytes;
        let tag = match self.version {
            Version::Tls13 => {
                out.push(kind);
                let header = header(APPLICATION_DATA, text_bytes + 1 + TAG_BYTES);
                out[start..start + HEADER_BYTES].copy_from_slice(&header);
                aead.seal(nonce, &header, &mut out[start + HEADER_BYTES..])
            }
            Version::Tls12 => {
                let explicit = header_bytes - HEADER_BYTES;
                let header = header(kind, explicit + text_bytes + TAG_BYTES);
                out[start..start + HEADER_BYTES].copy_from_slice(&header);
                let of_nonce = &nonce[nonce.len() - explicit..];
                out[start + HEADER_BYTES..start + header_bytes].copy_from_slice(of_nonce);
                let aad = aad_of_tls12(of_number, kind, text_bytes);
                aead.seal(nonce, &aad, &mut out[start + header_bytes..])
            }
        };
        out.extend_from_slice(&tag);
    }

    /// The record at the beginning of `bytes`; `None` if its end has not come. Its length is checked before it comes.
    fn parse(&self, bytes: &[u8]) -> Result<Option<Record>, Alert> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let expansion = if self.version == Version::Tls13 { 256 } else { 2048 };
        if length > RECORD_BYTES_MAX + expansion {
            return Err(Alert::RecordOverflow);
        }
        if self.version == Version::Tls13 && header[0] != APPLICATION_DATA {
            // ChangeCipherSpec is allowed during the handshake alone, and everything else is encrypted.
            return Err(Alert::UnexpectedMessage);
        }
        let end = HEADER_BYTES + length;
        Ok((bytes.len() >= end).then_some(Record { header: *header, end }))
    }

    fn take(&mut self, kind: u8, text: &[u8]) -> Result<Taken, Fault> {
        if self.update_bytes > 0 && kind != HANDSHAKE {
            return Err(Fault::Ours(Alert::UnexpectedMessage));
        }
        if kind == APPLICATION_DATA && !text.is_empty() {
            self.empty_records = 0;
            if self.read.number() == OPENED_MAX && self.version == Version::Tls13 {
                self.owes = Update::AndRequest;
            }
            return Ok(Taken::Data);
        }
        self.empty_records += 1;
        if self.empty_records > EMPTY_RECORDS_MAX {
            return Err(Fault::Ours(Alert::UnexpectedMessage));
        }
        match kind {
            APPLICATION_DATA => Ok(Taken::Nothing),
            ALERT => self.take_alert(text),
            HANDSHAKE if self.version == Version::Tls13 => {
                self.take_handshake(text).map_err(Fault::Ours)
            }
            // A client asks for renegotiation.
            HANDSHAKE => Err(Fault::Ours(Alert::NoRenegotiation)),
            _ => Err(Fault::Ours(Alert::UnexpectedMessage)),
        }
    }

    fn take_alert(&mut self, text: &[u8]) -> Result<Taken, Fault> {
        let &[level, code] = text else {
            let alert = if text.is_empty() { Alert::UnexpectedMessage } else { Alert::DecodeError };
            return Err(Fault::Ours(alert));
        };
        let is_warning = code == USER_CANCELED || self.version == Version::Tls12 && level == 1;
        if code == Alert::CloseNotify.code() {
            self.has_closed = if self.has_closed() { Closed::Both } else { Closed::Peer };
            Ok(Taken::Nothing)
        } else if is_warning {
            Ok(Taken::Nothing)
        } else {
            Err(Fault::Peers(code))
        }
    }

    /// Takes a piece of a handshake message: clients send nothing but KeyUpdates, each at the end of its record.
    fn take_handshake(&mut self, text: &[u8]) -> Result<Taken, Alert> {
        if text.is_empty() {
            return Err(Alert::UnexpectedMessage);
        }
        for (at, byte) in text.iter().enumerate() {
            match KEY_UPDATE.get(usize::from(self.update_bytes)) {
                Some(expected) if byte == expected => self.update_bytes += 1,
                Some(_) if self.update_bytes == 0 => return Err(Alert::UnexpectedMessage),
                Some(_) => return Err(Alert::DecodeError),
                None => {
                    let is_requested = match byte {
                        0 => false,
                        1 => true,
                        _ => return Err(Alert::IllegalParameter),
                    };
                    if at + 1 != text.len() {
                        return Err(Alert::UnexpectedMessage);
                    }
                    self.update_bytes = 0;
                    self.read.update(self.cipher);
                    if is_requested && self.owes == Update::No {
                        self.owes = Update::Yes;
                    }
                    return Ok(Taken::NewKey);
                }
            }
        }
        Ok(Taken::Nothing)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.read.erase();
        self.write.erase();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Session({:?}, {:?})", self.version, self.cipher)
    }
}

/// A whole record.
struct Record {
    header: [u8; HEADER_BYTES],
    end: usize,
}

/// What a record was.
enum Taken {
    Data,
    NewKey,
    Nothing,
}

const USER_CANCELED: u8 = 90;

fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = u16::try_from(length).expect("a record is short").to_be_bytes();
    [kind, 3, 3, high, low]
}

fn aad_of_tls12(number: [u8; 8], kind: u8, length: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&number);
    aad[8..].copy_from_slice(&header(kind, length));
    aad
}

/// Opens a record in place. Returns its type, and where in it the text is.
fn open_record(
    read: &mut Direction,
    aead: &super::keys::Aead,
    cipher: Cipher,
    version: Version,
    record: Record,
    bytes: &mut [u8],
) -> Result<(u8, Range<usize>), Alert> {
    let has_explicit = cipher.has_explicit_nonce(version);
    let explicit = if has_explicit { EXPLICIT_NONCE_BYTES } else { 0 };
    let start = HEADER_BYTES + explicit;
    if bytes.len() < start + TAG_BYTES {
        return Err(Alert::BadRecordMac);
    }
    let number = read.take().map_err(|_| Alert::InternalError)?;
    let text_bytes = bytes.len() - start - TAG_BYTES;
    let (of_peer, text) = bytes[HEADER_BYTES..].split_at_mut(explicit);
    let opened = match version {
        Version::Tls13 => aead.open(aead.nonce(number), &record.header, text),
        Version::Tls12 => {
            let aad = aad_of_tls12(number.bytes(), record.header[0], text_bytes);
            let nonce = if has_explicit { aead.nonce_of_peer(of_peer) } else { aead.nonce(number) };
            aead.open(nonce, &aad, text)
        }
    };
    let opened = opened.ok_or(Alert::BadRecordMac)?;
    match version {
        Version::Tls12 if opened > RECORD_BYTES_MAX => Err(Alert::RecordOverflow),
        Version::Tls12 => Ok((record.header[0], start..start + opened)),
        Version::Tls13 if opened > RECORD_BYTES_MAX + 1 => Err(Alert::RecordOverflow),
        Version::Tls13 => {
            // Behind the type, a peer may pad with zeros: RFC 8446 5.4.
            let at = text[..opened].iter().rposition(|byte| *byte != 0);
            let at = at.ok_or(Alert::UnexpectedMessage)?;
            match text[at] {
                CHANGE_CIPHER_SPEC => Err(Alert::UnexpectedMessage),
                kind => Ok((kind, start..start + at)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
