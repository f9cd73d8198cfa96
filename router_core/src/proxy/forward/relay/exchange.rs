//! One HTTP/1 exchange, both directions at once: bodies pass in the framing they came in.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::request::{Request, push};
use crate::error::{Error, Kind, Step};
use crate::proxy::forward::Conn;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::EgressEnd;
use crate::wire::body::{Framing, Walker};
use crate::wire::head::{self, ResponseHead};

/// Why an exchange broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broke {
    /// The client left.
    Client,
    /// The client's body breaks its grammar.
    Malformed(String),
    /// The destination left.
    Upstream,
    /// The destination's bytes are no HTTP.
    Protocol(String),
    /// Nothing moved for too long.
    Idle,
    /// It lasted too long.
    Lifetime,
    /// It moved too much.
    Bytes,
    /// The router stops.
    Drained,
}

impl Broke {
    /// The end to record.
    pub fn end(&self) -> EgressEnd {
        match self {
            Self::Client | Self::Malformed(_) => EgressEnd::ClientReset,
            Self::Upstream | Self::Protocol(_) => EgressEnd::UpstreamReset,
            Self::Idle => EgressEnd::Idle,
            Self::Lifetime => EgressEnd::Lifetime,
            Self::Bytes => EgressEnd::Bytes,
            Self::Drained => EgressEnd::Drained,
        }
    }

    /// What to tell the client; `None` where there is no one to tell.
    pub fn error(&self) -> Option<Error> {
        let upstream = |what: &str| Error::new(Kind::Upstream(Step::Reset), what);
        match self {
            Self::Client => None,
            Self::Malformed(what) => Some(Error::bad_request(what.as_str())),
            Self::Upstream => Some(upstream("the destination closed before it had answered")),
            Self::Protocol(what) => {
                Some(Error::new(Kind::Upstream(Step::Protocol), format!("the answer is no HTTP: {what}")))
            }
            Self::Idle => {
                Some(Error::new(Kind::Timeout(Step::Idle), "the destination said nothing for too long"))
            }
            Self::Lifetime => Some(Error::new(Kind::Timeout(Step::Total), "the exchange took too long")),
            Self::Bytes => Some(upstream("the exchange moved more bytes than its rule allows")),
            Self::Drained => Some(upstream("the router stops")),
        }
    }
}

/// What an exchange did.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is its own fact of the exchange")]
pub struct Done {
    /// The answer's status; 0 when there was none.
    pub status: u16,
    /// Bytes sent to the destination.
    pub sent: u64,
    /// Bytes received from it.
    pub received: u64,
    /// Whether an answer's head went to the client.
    pub answered: bool,
    /// Whether all of the request went on.
    pub request_whole: bool,
    /// Whether the answer's framing lets the client's connection go on.
    pub client_keeps: bool,
    /// Whether the destination keeps its connection.
    pub upstream_keeps: bool,
    /// Bytes behind the answer: another protocol's after an upgrade.
    pub rest: Vec<u8>,
    /// Why it broke, if it did.
    pub broke: Option<Broke>,
}

/// Bytes that a socket has not taken yet.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    at: usize,
}

impl Out {
    fn poll_flush(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut *tcp).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += n;
        }
        self.bytes.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }
}

/// How much of an exchange is ours to change.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// We are the client's proxy: fields of one hop stop here.
    Proxy,
    /// Inside a tunnel everything passes as it came; `passed` bytes of the request's head have gone on already.
    Verbatim {
        /// Bytes.
        passed: usize,
    },
}

enum Reply {
    Head,
    Body(Walker),
    Done,
}

/// An exchange under way. Dropping it leaves both connections in the middle of a message.
pub struct Exchange<'c> {
    conn: &'c mut Conn,
    upstream: &'c mut TcpStream,
    method: &'c str,
    keep: bool,
    verbatim: bool,
    body: Walker,
    up: Out,
    deaf: bool,
    reply: Reply,
    down: Out,
    unread: Vec<u8>,
    most: u64,
    done: Done,
}

impl<'c> Exchange<'c> {
    /// An exchange whose request head has been taken from the client's buffer. `most` bounds the bytes; 0 does not.
    pub fn new(
        conn: &'c mut Conn,
        upstream: &'c mut TcpStream,
        request: &'c Request,
        mode: Mode,
        most: u64,
    ) -> Self {
        let (verbatim, passed) = match mode {
            Mode::Proxy => (false, 0),
            Mode::Verbatim { passed } => (true, passed),
        };
        let bytes = request.out.get(passed..).unwrap_or(&[]).to_vec();
        let done = Done {
            status: 0,
            sent: bytes.len() as u64,
            received: 0,
            answered: false,
            request_whole: false,
            client_keeps: true,
            upstream_keeps: true,
            rest: Vec::new(),
            broke: None,
        };
        Self {
            conn,
            upstream,
            method: &request.method,
            keep: request.keep,
            verbatim,
            body: Walker::new(request.framing),
            up: Out { bytes, at: 0 },
            deaf: false,
            reply: Reply::Head,
            down: Out::default(),
            unread: Vec::new(),
            most,
            done,
        }
    }

    /// Runs to the answer's end, or to what breaks it; `until` bounds its life.
    pub async fn run(mut self, until: Option<Instant>) -> Done {
        let idle = self.conn.worker.shared.settings.egress.idle;
        self.rearm(idle, until);
        let mut moved = 0;
        if self.allow(0).is_err() {
            self.done.sent = 0;
            self.done.broke = Some(Broke::Bytes);
            return self.done;
        }
        let broke = poll_fn(|cx| {
            if self.conn.worker.shared.is_killed() {
                return Poll::Ready(Some(Broke::Drained));
            }
            // The answer may come before the request's end, so neither waits for the other.
            let up = self.poll_up(cx);
            let down = self.poll_down(cx);
            match (up, down) {
                (_, Poll::Ready(Ok(()))) => return Poll::Ready(None),
                // A client that breaks its own request is the reason, whatever the destination made of it.
                (Poll::Ready(Err(broke)), _) | (_, Poll::Ready(Err(broke))) => {
                    return Poll::Ready(Some(broke));
                }
                _ => {}
            }
            if self.done.sent + self.done.received > moved {
                moved = self.done.sent + self.done.received;
                self.rearm(idle, until);
            }
            let late = until.is_some_and(|until| Instant::now() >= until);
            let why = if late { Broke::Lifetime } else { Broke::Idle };
            self.conn.deadline.poll(cx).map(|()| Some(why))
        })
        .await;
        self.done.request_whole = self.body.done();
        self.done.rest = std::mem::take(&mut self.unread);
        self.done.broke = broke;
        self.done
    }

    /// Whether so many bytes more may move.
    fn allow(&self, more: usize) -> Result<(), Broke> {
        let all = self.done.sent + self.done.received + more as u64;
        if self.most > 0 && all > self.most { Err(Broke::Bytes) } else { Ok(()) }
    }

    fn rearm(&mut self, idle: Duration, until: Option<Instant>) {
        let next = Instant::now() + idle;
        self.conn.deadline.set(until.map_or(next, |until| until.min(next)));
    }

    /// Sends the request on; ready at its end, or for good when the destination takes no more of it.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        loop {
            if self.deaf {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.up.poll_flush(self.upstream, cx)).is_err() {
                // It may have answered before it closed: what it says decides.
                self.deaf = true;
                return Poll::Ready(Ok(()));
            }
            if self.body.done() {
                return Poll::Ready(Ok(()));
            }
            if self.conn.buffer.is_empty() {
                let Conn { worker, tcp, buffer, .. } = &mut *self.conn;
                if ready!(poll_read(worker, tcp, buffer, cx)).unwrap_or(0) == 0 {
                    return Poll::Ready(Err(Broke::Client));
                }
            }
            let fed = self.body.feed(&self.conn.buffer, |_| {});
            let used = fed.map_err(|e| Broke::Malformed(e.to_string()))?.used;
            self.allow(used)?;
            self.up.bytes.extend_from_slice(self.conn.buffer.get(..used).unwrap_or(&[]));
            self.done.sent += used as u64;
            self.conn.consume(used);
        }
    }

    /// Brings the answer back; ready at its end.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        loop {
            ready!(self.down.poll_flush(&mut self.conn.tcp, cx)).map_err(|_| Broke::Client)?;
            if matches!(self.reply, Reply::Done) {
                return Poll::Ready(Ok(()));
            }
            if !self.unread.is_empty() && self.advance()? {
                continue;
            }
            let read = ready!(poll_read(&self.conn.worker, self.upstream, &mut self.unread, cx));
            let Ok(n) = read else { return Poll::Ready(Err(Broke::Upstream)) };
            self.allow(n)?;
            self.done.received += n as u64;
            if n == 0 {
                match &self.reply {
                    Reply::Body(walker) if walker.may_end() => {
                        self.done.upstream_keeps = false;
                        self.reply = Reply::Done;
                    }
                    _ => return Poll::Ready(Err(Broke::Upstream)),
                }
            }
        }
    }

    /// Takes what it can from the unread bytes; `false` when more are needed.
    fn advance(&mut self) -> Result<bool, Broke> {
        let used = match &mut self.reply {
            Reply::Head => {
                let protocol = |e: Error| Broke::Protocol(e.to_string());
                let Some(head) = head::response(&self.unread, self.method).map_err(protocol)? else {
                    return Ok(false);
                };
                let raw = self.unread.get(..head.len).unwrap_or(&[]);
                let interim = (100..200).contains(&head.status) && head.status != 101;
                if interim {
                    self.down.bytes.extend_from_slice(raw);
                } else {
                    let keeps = head.framing != Framing::UntilClose;
                    self.done.client_keeps = keeps;
                    self.done.upstream_keeps = head.keep_alive;
                    self.done.status = head.status;
                    self.done.answered = true;
                    if self.verbatim || head.status == 101 {
                        self.down.bytes.extend_from_slice(raw);
                    } else {
                        answer(&head, raw, self.keep && keeps, &mut self.down.bytes);
                    }
                    let walker = Walker::new(head.framing);
                    let len = head.len;
                    self.reply = if walker.done() { Reply::Done } else { Reply::Body(walker) };
                    self.unread.drain(..len);
                    return Ok(true);
                }
                head.len
            }
            Reply::Body(walker) => {
                let fed = walker.feed(&self.unread, |_| {}).map_err(|e| Broke::Protocol(e.to_string()))?;
                self.down.bytes.extend_from_slice(self.unread.get(..fed.used).unwrap_or(&[]));
                if fed.done {
                    self.reply = Reply::Done;
                }
                fed.used
            }
            Reply::Done => 0,
        };
        self.unread.drain(..used);
        Ok(true)
    }
}

/// Reads once through the thread's buffer.
fn poll_read(
    worker: &Worker,
    tcp: &mut TcpStream,
    into: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    worker.with_scratch(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(tcp).poll_read(cx, &mut read))?;
        into.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// The answer's head for the client: as it came, but for the fields that concern one hop alone.
fn answer(head: &ResponseHead<'_>, raw: &[u8], keep: bool, out: &mut Vec<u8>) {
    let line = memchr::memchr(b'\n', raw).map_or(0, |at| at + 1);
    out.extend_from_slice(raw.get(..line).unwrap_or(&[]));
    for field in head.fields.iter() {
        let hop = ["connection", "keep-alive", "proxy-connection", "upgrade"];
        if !hop.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
            push(out, field.name, field.value);
        }
    }
    if !keep {
        push(out, "Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
}
