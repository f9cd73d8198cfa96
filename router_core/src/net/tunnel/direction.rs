//! One direction of a tunnel.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pipes::Pipe;
use crate::limits::PIPE_BYTES;

/// Lends the thread's large buffer for one read and write.
pub type Scratch<'s> = &'s dyn Fn(&mut dyn FnMut(&mut [u8]));

/// Bytes one direction moves before others get their turn: about 0.3 ms of copying.
const TURN: usize = 1024 * 1024;
/// A read that counts towards bulk.
const LARGE: usize = 32 * 1024;
/// A buffer with which copying keeps up with splicing (see [`Tuning`]).
const LARGE_BUFFER: usize = 256 * 1024;

/// When a direction changes its way of moving bytes.
///
/// Measured through one core on loopback against Envoy, CPU per MB and throughput (medians of same-run ratios): a single
/// stream 0.90 and 0.77 spliced, 0.83 and 1.1 copied by 512 KiB; eight streams 0.43 and 1.65 spliced, 0.52 and 1.6 copied.
/// Spliced bytes cost the thread least, but their reader gets fragments of 4 KiB instead of 32 KiB and pays for it,
/// and nothing moves while a pipe is filled. So a stream that has the thread for itself is copied, for there its peers
/// set the pace, and streams that share the thread are spliced. Small messages are always copied: splicing
/// costs a quarter more. Buffers of the sockets are left to the kernel's tuning: fixing them gains nothing.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Bytes moved by large reads in a row that make a direction bulk.
    pub bulk: usize,
    /// Bulk reads in a row without one of another direction of the thread that make it a lone one.
    pub lone: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { bulk: 1024 * 1024, lone: 16 }
    }
}

thread_local! {
    /// The direction that did the thread's last bulk read, and the last number given.
    static LAST: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It waits for a socket.
    Wait,
    /// It could go on and leaves the thread to others.
    Again,
    /// The source has ended, and the sink knows.
    Done,
    /// The source has more than the tunnel may move.
    Excess,
}

/// Which socket broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The one that is read.
    Source,
    /// The one that is written.
    Sink,
}

/// What the sink has not taken yet.
enum Held {
    Nothing,
    Bytes { bytes: Vec<u8>, at: usize },
    Pipe(Pipe),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; what is held is still to be delivered.
    Ended,
    /// The source has broken off, though it reads as an end since the error was told to the other direction.
    Breaking,
    /// The sink knows of the end.
    Done,
    /// The source has more than may be moved.
    Excess,
}

/// Bytes on their way from one socket to the other. Its drop gives back what it holds.
pub struct Direction<'a> {
    source: &'a TcpStream,
    sink: &'a TcpStream,
    state: State,
    held: Held,
    /// Bytes that the sink has taken.
    pub moved: u64,
    active: bool,
    tuning: Tuning,
    number: u64,
    /// Bytes of large reads in a row.
    bulk: usize,
    /// Bulk reads in a row that no other direction's came between.
    lone: u32,
    /// Length of the buffer lent last.
    buffer: usize,
    /// Tells that a source which is not read has broken off.
    watch: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<'a> Direction<'a> {
    pub fn new(source: &'a TcpStream, sink: &'a TcpStream, tuning: Tuning) -> Self {
        let (last, given) = LAST.get();
        LAST.set((last, given + 1));
        Self {
            source,
            sink,
            state: State::Open,
            held: Held::Nothing,
            moved: 0,
            active: false,
            tuning,
            number: given + 1,
            bulk: 0,
            lone: 0,
            buffer: 0,
            watch: None,
        }
    }

    /// Starts with bytes that were read before.
    pub fn with_early(mut self, mut bytes: Vec<u8>, allowance: &mut u64) -> Self {
        let most = usize::try_from(*allowance).unwrap_or(usize::MAX);
        if bytes.len() > most {
            self.state = State::Excess;
        }
        bytes.truncate(most);
        *allowance -= bytes.len() as u64;
        if !bytes.is_empty() {
            self.held = Held::Bytes { bytes, at: 0 };
        }
        self
    }

    /// The source has broken off: what it sent before is still moved, its end is none.
    pub fn expect_break(&mut self) {
        self.state = State::Breaking;
    }

    /// Whether bytes moved since it was last asked.
    pub fn was_active(&mut self) -> bool {
        std::mem::take(&mut self.active)
    }

    /// Moves what can be moved now, at most a turn's worth. `allowance`: bytes that may still be read.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        allowance: &mut u64,
        scratch: Scratch<'_>,
    ) -> Result<Turn, Broken> {
        let mut turn = 0;
        loop {
            if !self.deliver()? {
                match self.sink.poll_write_ready(cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(_)) => return Err(Broken::Sink),
                    Poll::Pending => return self.unread(cx, Turn::Wait),
                }
            }
            match self.state {
                State::Open | State::Breaking if turn >= TURN => return Ok(Turn::Again),
                State::Open | State::Breaking => {}
                State::Ended | State::Done => return self.finish(cx),
                State::Excess => return Ok(Turn::Excess),
            }
            match self.read(*allowance, scratch)? {
                Some(0) if self.state == State::Breaking => return Err(Broken::Source),
                Some(0) => self.state = State::Ended,
                Some(n) => {
                    self.active = true;
                    turn += n;
                    *allowance = allowance.saturating_sub(n as u64);
                }
                None => match self.source.poll_read_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Err(Broken::Source),
                    Poll::Pending => return Ok(Turn::Wait),
                },
            }
        }
    }

    /// Passes the end on, once.
    fn finish(&mut self, cx: &mut Context<'_>) -> Result<Turn, Broken> {
        if self.state == State::Ended {
            SockRef::from(self.sink).shutdown(Shutdown::Write).map_err(|_| Broken::Sink)?;
            self.state = State::Done;
            self.active = true;
        }
        self.unread(cx, Turn::Done)
    }

    /// `turn`, unless the source has broken off, of which no read tells now.
    fn unread(&mut self, cx: &mut Context<'_>, turn: Turn) -> Result<Turn, Broken> {
        let source = self.source;
        let watch = self.watch.get_or_insert_with(|| {
            Box::pin(async {
                // Failing is breaking off, too.
                let _ = source.ready(Interest::ERROR).await;
            })
        });
        if watch.as_mut().poll(cx).is_ready() { Err(Broken::Source) } else { Ok(turn) }
    }

    /// Gives the sink what is held; `false` when it does not take all of it now.
    fn deliver(&mut self) -> Result<bool, Broken> {
        loop {
            let gone = match &mut self.held {
                Held::Nothing => return Ok(true),
                Held::Bytes { bytes, at } => {
                    let rest = bytes.get(*at..).unwrap_or_default();
                    if rest.is_empty() {
                        self.held = Held::Nothing;
                        return Ok(true);
                    }
                    let gone = give(self.sink, rest).map_err(|_| Broken::Sink)?;
                    *at += gone.unwrap_or(0);
                    gone
                }
                Held::Pipe(pipe) => {
                    if pipe.held() == 0 {
                        self.held = Held::Nothing;
                        return Ok(true);
                    }
                    match attempt(self.sink, Interest::WRITABLE, 0, || pipe.drain(self.sink)) {
                        Err(e) if refuses(&e) => {
                            self.tuning.bulk = usize::MAX;
                            self.unpipe()?;
                            continue;
                        }
                        gone => gone.map_err(|_| Broken::Sink)?,
                    }
                }
            };
            let Some(gone) = gone else { return Ok(false) };
            self.moved += gone as u64;
            self.active = true;
        }
    }

    /// Moves what the pipe holds to a buffer.
    fn unpipe(&mut self) -> Result<(), Broken> {
        if let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            let bytes = pipe.take().map_err(|_| Broken::Source)?;
            self.held = Held::Bytes { bytes, at: 0 };
        }
        Ok(())
    }

    /// Reads once and passes on what the sink takes; `None` when nothing has arrived, 0 at the end.
    fn read(&mut self, allowance: u64, scratch: Scratch<'_>) -> Result<Option<usize>, Broken> {
        if allowance == 0 {
            return self.look_ahead();
        }
        let most = usize::try_from(allowance).unwrap_or(usize::MAX);
        let read = match self.lend_pipe() {
            Some(pipe) => self.splice(pipe, most)?,
            None => self.copy(most, scratch)?,
        };
        match read {
            Some(n) if n >= LARGE => self.bulk = self.bulk.saturating_add(n),
            Some(_) => self.bulk = 0,
            None => {}
        }
        Ok(read)
    }

    /// Asks whether there is more than may be moved; an end is still an end.
    fn look_ahead(&mut self) -> Result<Option<usize>, Broken> {
        let ahead = self
            .attempt_read(0, || Ok(recv(self.source, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0));
        let ahead = ahead.map_err(|_| Broken::Source)?;
        if ahead == Some(1) {
            self.state = State::Excess;
        }
        Ok(ahead)
    }

    /// Calls the kernel for what has arrived, as [`attempt`] does. Of a source that has broken off, no event tells before
    /// this turn ends, and there is no other turn.
    fn attempt_read(
        &self,
        len: usize,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if self.state != State::Breaking {
            return attempt(self.source, Interest::READABLE, len, call);
        }
        match call() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// A pipe, if the next read is better spliced and there is one.
    fn lend_pipe(&mut self) -> Option<Pipe> {
        if self.bulk < self.tuning.bulk {
            return None;
        }
        let (last, given) = LAST.get();
        LAST.set((self.number, given));
        self.lone = if last == self.number { self.lone.saturating_add(1) } else { 0 };
        if self.lone >= self.tuning.lone && self.buffer >= LARGE_BUFFER {
            return None;
        }
        let pipe = Pipe::lend();
        if pipe.is_none() {
            // Copies the next stretch before it asks again.
            self.bulk = 0;
        }
        pipe
    }

    fn copy(&mut self, most: usize, scratch: Scratch<'_>) -> Result<Option<usize>, Broken> {
        let mut read = Ok(None);
        scratch(&mut |buffer| {
            self.buffer = buffer.len();
            let len = buffer.len().min(most);
            read = self.copy_through(buffer.get_mut(..len).unwrap_or_default());
        });
        read
    }

    fn copy_through(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Broken> {
        let len = buffer.len();
        let read = self.attempt_read(len, || Ok(recv(self.source, &mut *buffer, RecvFlags::DONTWAIT)?.0));
        let Some(n) = read.map_err(|_| Broken::Source)? else { return Ok(None) };
        let bytes = buffer.get(..n).unwrap_or_default();
        if !bytes.is_empty() {
            let gone = give(self.sink, bytes).map_err(|_| Broken::Sink)?.unwrap_or(0);
            self.moved += gone as u64;
            if let Some(rest @ [_, ..]) = bytes.get(gone..) {
                self.held = Held::Bytes { bytes: rest.to_vec(), at: 0 };
            }
        }
        Ok(Some(n))
    }

    /// Reads into a pipe, which is delivered like anything held.
    fn splice(&mut self, mut pipe: Pipe, most: usize) -> Result<Option<usize>, Broken> {
        // A pipe can be full before it holds its bytes: only `WouldBlock` tells that the socket is empty.
        let most = most.min(PIPE_BYTES);
        match self.attempt_read(0, || pipe.fill(self.source, most)) {
            Err(e) if refuses(&e) => {
                self.tuning.bulk = usize::MAX;
                Ok(None)
            }
            Err(_) => Err(Broken::Source),
            Ok(Some(n)) if n > 0 => {
                self.held = Held::Pipe(pipe);
                Ok(Some(n))
            }
            Ok(read) => Ok(read),
        }
    }
}

/// Whether an error means that these sockets, this kernel or its filter do not splice.
fn refuses(e: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::NOMEM];
    Errno::from_io_error(e).is_some_and(|e| refusals.contains(&e))
}

/// Writes what the socket takes now; `None` when it takes nothing.
fn give(tcp: &TcpStream, bytes: &[u8]) -> io::Result<Option<usize>> {
    attempt(tcp, Interest::WRITABLE, bytes.len(), || {
        Ok(send(tcp, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    })
}

/// Calls the kernel if the socket is believed ready; `None` when it is not. A count below `len` shows that the socket has
/// become unready (events are edge-triggered, epoll(7)): the next attempt waits for an event instead of asking again.
fn attempt(
    tcp: &TcpStream,
    interest: Interest,
    len: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    let mut count = None;
    let outcome = tcp.try_io(interest, || {
        let n = call()?;
        count = Some(n);
        if 0 < n && n < len { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(count),
    }
}
