//! One connection of the scripted backend: reads requests, plays the script.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use socket2::SockRef;

use super::{Action, LIMIT, Piece, Reading, Recorded, Shared, Then};

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub(super) struct Connection {
    socket: TcpStream,
    stream: Box<dyn Stream>,
    number: usize,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, number: usize, shared: &Shared) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let stream: Box<dyn Stream> = match &shared.tls {
            None => Box::new(socket.try_clone()?),
            Some(config) => {
                let connection =
                    ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, socket.try_clone()?))
            }
        };
        Ok(Self { socket, stream, number, buffer: Vec::new() })
    }

    pub(super) fn serve(&mut self, shared: &Shared) -> io::Result<()> {
        loop {
            let number = shared.asked.fetch_add(1, Ordering::SeqCst);
            let action = (shared.script)(number);
            self.perform(&action, shared)?;
            match action.then {
                Then::Keep => {}
                Then::Close => return self.socket.shutdown(Shutdown::Both),
                Then::Reset => return SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)),
                Then::Hang => return self.until_closed(shared),
                Then::Echo => return self.echo(),
            }
            if self.buffer.is_empty() && self.more(shared)? == 0 {
                return Ok(());
            }
        }
    }

    fn perform(&mut self, action: &Action, shared: &Shared) -> io::Result<()> {
        if action.read != Reading::Nothing {
            let head = self.read_head(shared)?;
            if action.read == Reading::Whole {
                let (body, trailers) = self.read_body(&head, shared)?;
                let recorded = Recorded { connection: self.number, head, body, trailers };
                shared.recorded.lock().unwrap().push(recorded);
            }
        }
        for piece in &action.pieces {
            match piece {
                Piece::Bytes(bytes) => {
                    self.stream.write_all(bytes)?;
                    self.stream.flush()?;
                }
                Piece::Pause(pause) => self.pause(*pause)?,
                Piece::Gate(gate) => gate.pass(),
            }
        }
        Ok(())
    }

    /// Waits, or less if the other side closes.
    fn pause(&mut self, pause: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(pause))?;
        let result = self.socket.peek(&mut [0]);
        self.socket.set_read_timeout(Some(LIMIT))?;
        match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn until_closed(&mut self, shared: &Shared) -> io::Result<()> {
        while self.more(shared)? > 0 {
            self.buffer.clear();
        }
        Ok(())
    }

    fn echo(&mut self) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.buffer);
        loop {
            self.stream.write_all(&bytes)?;
            self.stream.flush()?;
            bytes.resize(4096, 0);
            let length = self.stream.read(&mut bytes)?;
            bytes.truncate(length);
            if length == 0 {
                return self.socket.shutdown(Shutdown::Both);
            }
        }
    }

    fn more(&mut self, shared: &Shared) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let length = self.stream.read(&mut bytes)?;
        shared.received.fetch_add(length, Ordering::SeqCst);
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// Takes what comes up to and with `end`.
    fn read_until(&mut self, end: &[u8], shared: &Shared) -> io::Result<Vec<u8>> {
        loop {
            if let Some(start) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(self.buffer.drain(..start + end.len()).collect());
            }
            if self.more(shared)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_exact(&mut self, length: usize, shared: &Shared) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.more(shared)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn read_head(&mut self, shared: &Shared) -> io::Result<String> {
        let head = self.read_until(b"\r\n\r\n", shared)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    fn read_body(&mut self, head: &str, shared: &Shared) -> io::Result<(Vec<u8>, String)> {
        let lower = head.to_ascii_lowercase();
        let field = |name: &str| {
            lower.lines().find_map(|line| line.strip_prefix(name).map(|v| v.trim().to_owned()))
        };
        if field("transfer-encoding:").is_some_and(|coding| coding == "chunked") {
            return self.read_chunks(shared);
        }
        let length = field("content-length:").map_or(0, |length| length.parse().unwrap());
        Ok((self.read_exact(length, shared)?, String::new()))
    }

    fn read_chunks(&mut self, shared: &Shared) -> io::Result<(Vec<u8>, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n", shared)?;
            let length = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16)
                .map_err(io::Error::other)?;
            if length == 0 {
                break;
            }
            body.extend(self.read_exact(length, shared)?);
            self.read_exact(2, shared)?;
        }
        let mut trailers = String::new();
        loop {
            let line = self.read_until(b"\r\n", shared)?;
            if line == b"\r\n" {
                return Ok((body, trailers));
            }
            trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }
}
