//! How bytes get from one socket to the other: through one buffer that all tunnels share, or through a pipe.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{self, PipeFlags, SpliceFlags};

/// Bytes of the buffer.
const COPY_BYTES: usize = 128 * 1024;

/// Bytes a pipe holds; the most an unprivileged process may ask for is four times that.
const PIPE_BYTES: usize = 256 * 1024;

/// What a move needs, lent to whoever moves.
#[derive(Debug)]
pub struct Mover {
    buffer: Vec<u8>,
    /// Empty pipes, when bytes go by splice(2).
    pipes: Option<Vec<Pipe>>,
}

/// Bytes that were read and not written.
#[derive(Debug)]
pub enum Stuck {
    /// In a buffer of their own.
    Copied(Vec<u8>),
    /// In a pipe, so many.
    Piped(Pipe, usize),
}

/// One of the two sockets has ended, in order or not.
#[derive(Debug)]
pub struct Ended;

/// Both ends of a pipe.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Mover {
    /// One that moves by splice or by copying.
    pub fn new(splice: bool) -> Self {
        if splice {
            Self { buffer: Vec::new(), pipes: Some(Vec::new()) }
        } else {
            Self { buffer: vec![0; COPY_BYTES], pipes: None }
        }
    }

    /// Moves one read's worth; returns what the sink did not take of it.
    pub fn carry(&mut self, mut source: &TcpStream, sink: &TcpStream) -> Result<Option<Stuck>, Ended> {
        if self.pipes.is_some() {
            return self.carry_by_pipe(source, sink);
        }
        let len = match source.read(&mut self.buffer) {
            Ok(0) => return Err(Ended),
            Ok(len) => len,
            Err(error) => return would_block(&error).map(|()| None),
        };
        let bytes = self.buffer.get(..len).ok_or(Ended)?;
        let rest = bytes.get(write(sink, bytes)?..).ok_or(Ended)?;
        Ok((!rest.is_empty()).then(|| Stuck::Copied(rest.to_vec())))
    }

    fn carry_by_pipe(&mut self, source: &TcpStream, sink: &TcpStream) -> Result<Option<Stuck>, Ended> {
        let pipes = self.pipes.as_mut().ok_or(Ended)?;
        let pipe = match pipes.pop() {
            Some(pipe) => pipe,
            None => Pipe::new()?,
        };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let read = pipe::splice(source, None, &pipe.write, None, PIPE_BYTES, flags);
        match read {
            Ok(len @ 1..) => self.push(Stuck::Piped(pipe, len), sink),
            nothing => {
                pipes.push(pipe);
                if nothing == Err(Errno::AGAIN) { Ok(None) } else { Err(Ended) }
            }
        }
    }

    /// Writes what was stuck; returns what still is.
    pub fn push(&mut self, stuck: Stuck, sink: &TcpStream) -> Result<Option<Stuck>, Ended> {
        match stuck {
            Stuck::Copied(mut bytes) => {
                bytes.drain(..write(sink, &bytes)?);
                Ok((!bytes.is_empty()).then_some(Stuck::Copied(bytes)))
            }
            Stuck::Piped(pipe, mut left) => {
                while left > 0 {
                    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
                    match pipe::splice(&pipe.read, None, sink, None, left, flags) {
                        Ok(len) => left = left.saturating_sub(len),
                        Err(Errno::AGAIN) => return Ok(Some(Stuck::Piped(pipe, left))),
                        Err(_) => return Err(Ended),
                    }
                }
                self.pipes.as_mut().ok_or(Ended)?.push(pipe);
                Ok(None)
            }
        }
    }
}

impl Pipe {
    fn new() -> Result<Self, Ended> {
        let (read, write) = pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|_| Ended)?;
        pipe::fcntl_setpipe_size(&write, PIPE_BYTES).map_err(|_| Ended)?;
        Ok(Self { read, write })
    }
}

/// Bytes the sink takes now.
fn write(mut sink: &TcpStream, bytes: &[u8]) -> Result<usize, Ended> {
    match sink.write(bytes) {
        Ok(len) => Ok(len),
        Err(error) => would_block(&error).map(|()| 0),
    }
}

fn would_block(error: &std::io::Error) -> Result<(), Ended> {
    if error.kind() == ErrorKind::WouldBlock { Ok(()) } else { Err(Ended) }
}
