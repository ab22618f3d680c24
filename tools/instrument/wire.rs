//! A connection of a load, plain or encrypted.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::tls::{Tls, TlsHandshake, TlsProgress, TlsSession};

/// A connection of a load, plain or encrypted.
pub struct Wire {
    pub tcp: TcpStream,
    sealed: Option<Box<Sealed>>,
}

/// What an encrypted connection has besides its socket.
struct Sealed {
    session: TlsSession,
    /// A record whose end has not come.
    part: Vec<u8>,
    /// Records that the kernel did not take yet.
    unsent: Vec<u8>,
    /// Data that did not fit the buffer of its reader.
    data: Vec<u8>,
}

/// A connection whose TLS handshake is under way, if it has one.
pub struct Opening {
    tcp: TcpStream,
    handshake: Option<Box<TlsHandshake>>,
}

impl Opening {
    /// Sends the first bytes of the handshake, which is not awaited.
    pub fn begin(mut tcp: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let mut out = Vec::new();
        let handshake = tls.map(|tls| tls.begin(&mut out)).transpose()?;
        tcp.write_all(&out)?;
        Ok(Self { tcp, handshake })
    }

    /// Waits for the end of the handshake.
    pub fn finish(self) -> io::Result<Wire> {
        let Self { mut tcp, handshake } = self;
        let Some(mut handshake) = handshake else { return Ok(Wire { tcp, sealed: None }) };
        let (mut buffer, mut out) = ([0; READ_BYTES], Vec::new());
        loop {
            let count = tcp.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::other("closed during the TLS handshake"));
            }
            let progress = handshake.receive(&buffer[..count], &mut out)?;
            tcp.write_all(&out)?;
            out.clear();
            match progress {
                TlsProgress::More(more) => handshake = more,
                TlsProgress::Done(session, part) => {
                    let sealed = Some(Box::new(Sealed {
                        session,
                        part,
                        unsent: Vec::new(),
                        data: Vec::new(),
                    }));
                    return Ok(Wire { tcp, sealed });
                }
            }
        }
    }
}

impl Sealed {
    /// Sends what was sealed, as far as the kernel takes it.
    fn send(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match tcp.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Wire {
    /// Reads what a nonblocking socket has. The end of the stream is an error.
    pub fn read_available(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(sealed) = &mut self.sealed else {
            return Self::read_plain(&self.tcp, buffer, take);
        };
        sealed.send(&mut self.tcp)?;
        if !sealed.data.is_empty() {
            take(&std::mem::take(&mut sealed.data))?;
        }
        loop {
            let (start, length) = (sealed.part.len(), buffer.len());
            buffer[..start].copy_from_slice(&sealed.part);
            let count = match self.tcp.read(&mut buffer[start..]) {
                Ok(0) => return Err(closed()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let received = &mut buffer[..start + count];
            let opened = sealed.session.open(received)?;
            sealed.part.clear();
            sealed.part.extend_from_slice(&received[opened.taken..]);
            if !opened.data.is_empty() {
                take(&received[opened.data])?;
            }
            if opened.is_end {
                return Err(closed());
            }
            // A short read has emptied the socket: what comes later makes an event of its own.
            if start + count < length {
                return Ok(());
            }
        }
    }

    /// Reads what a nonblocking socket has, in pieces of at most one buffer. The end of the stream is an error.
    pub fn read_plain(
        mut stream: &TcpStream,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            let count = match stream.read(buffer) {
                Ok(0) => return Err(closed()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            take(&buffer[..count])?;
            // A short read has emptied the socket: what comes later makes an event of its own.
            if count < buffer.len() {
                return Ok(());
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(sealed) = &mut self.sealed else { return self.tcp.read(buffer) };
        sealed.send(&mut self.tcp)?;
        while sealed.data.is_empty() {
            let start = sealed.part.len();
            sealed.part.resize(start + READ_BYTES, 0);
            let received = self.tcp.read(&mut sealed.part[start..]);
            sealed.part.truncate(start + received.as_ref().map_or(0, |count| *count));
            if received? == 0 {
                return Ok(0);
            }
            let opened = sealed.session.open(&mut sealed.part)?;
            sealed.data.extend_from_slice(&sealed.part[opened.data]);
            sealed.part.drain(..opened.taken);
            if opened.is_end && sealed.data.is_empty() {
                return Ok(0);
            }
        }
        let count = buffer.len().min(sealed.data.len());
        buffer[..count].copy_from_slice(&sealed.data[..count]);
        sealed.data.drain(..count);
        Ok(count)
    }
}

impl Write for Wire {
    /// An encrypted connection takes all or nothing: the next call sends what the kernel does not take.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(sealed) = &mut self.sealed else { return self.tcp.write(bytes) };
        sealed.send(&mut self.tcp)?;
        if !sealed.unsent.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        sealed.session.seal(bytes, &mut sealed.unsent);
        sealed.send(&mut self.tcp)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

fn closed() -> io::Error {
    io::Error::other("the server closed a connection")
}

const READ_BYTES: usize = 16 * 1024;
