//! One exchange with an upstream: a pooled connection, one request, one answer.

mod fields;
mod h2;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tokio::time::timeout;

use fields::{forward_fields, keep_fields};
pub use h2::LocalExecutor;

use crate::error::{Error, Kind, Result, Step};
use crate::gate::Permit;
use crate::net::conn::{Conn, reset_on_drop};
use crate::net::dial;
use crate::policy::provider::Provider;
use crate::proxy::inbound::FieldsRef;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::Retry;
use crate::wire::body::Walker;
use crate::wire::edit::Edits;
use crate::wire::head;

/// Bodies up to this size are copied behind the head and leave in one write.
const COALESCE_BYTES: usize = 16 * 1024;
/// Most pieces given to one vectored write.
const PIECES: usize = 16;
/// How long a reset may come after the close that it belongs to: a round trip to a distant upstream.
const REFUSAL_WAIT: Duration = Duration::from_millis(300);

/// Idle upstream connections of one thread, newest first: warm sockets stay warm, spare ones age out.
#[derive(Debug)]
pub struct Pool {
    idle: Vec<RefCell<Vec<Conn>>>,
    h2: Vec<RefCell<Option<SendRequest<Full<Bytes>>>>>,
    cap: usize,
}

impl Pool {
    /// A pool for `upstreams` origins that keeps `cap` idle connections each.
    pub fn new(upstreams: usize, cap: usize) -> Self {
        Self {
            idle: (0..upstreams).map(|_| RefCell::default()).collect(),
            h2: (0..upstreams).map(|_| RefCell::default()).collect(),
            cap,
        }
    }

    /// The newest idle connection that the upstream has not closed meanwhile.
    async fn take(&self, upstream: usize) -> Option<Conn> {
        let idle = self.idle.get(upstream)?;
        poll_fn(|cx| {
            let mut idle = idle.borrow_mut();
            while let Some(mut conn) = idle.pop() {
                if !conn.is_stale(cx) {
                    return Poll::Ready(Some(conn));
                }
            }
            Poll::Ready(None)
        })
        .await
    }

    fn give(&self, upstream: usize, conn: Conn) {
        if let Some(idle) = self.idle.get(upstream) {
            let mut idle = idle.borrow_mut();
            if idle.len() < self.cap {
                idle.push(conn);
            }
        }
    }
}

/// A request to an upstream. Holding the call's permit is what allows sending it.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// Index of the provider in the settings.
    pub upstream: usize,
    /// The provider.
    pub provider: &'a Provider,
    /// The method.
    pub method: &'a str,
    /// Path and query at the provider.
    pub target: &'a str,
    /// The client's fields; those that must not travel are left out.
    pub fields: FieldsRef<'a>,
    /// The trace id.
    pub trace_id: &'a str,
    /// The client's body.
    pub body: &'a [u8],
    /// Rewrites of the body.
    pub edits: &'a Edits,
    /// Whether an event stream is expected.
    pub stream: bool,
}

/// What kind of body an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `text/event-stream`.
    Events,
    /// `application/json` and its relatives.
    Json,
    /// Anything else.
    Other,
}

/// An answer whose head has been read.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Fields that go on to the client, as `name: value` lines.
    pub lines: Vec<u8>,
    /// What the body is.
    pub media: Media,
    /// Whether a content coding hides the body from inspection.
    pub encoded: bool,
    /// The announced length, when there is one.
    pub length: Option<u64>,
    /// The body.
    pub body: Source,
}

/// An answer's body, read piece by piece. Dropping it before its end resets the upstream at once.
#[derive(Debug)]
pub enum Source {
    /// HTTP/1.1.
    H1(Box<H1Source>),
    /// HTTP/2.
    H2(Incoming),
}

/// The rest of an HTTP/1.1 answer.
#[derive(Debug)]
pub struct H1Source {
    worker: Rc<Worker>,
    upstream: usize,
    conn: Option<Conn>,
    walker: Walker,
    first: Vec<u8>,
    first_at: usize,
    keep: bool,
    quick: bool,
}

/// Sends one request and reads the answer's head. Deadlines for connecting and TLS apply here; the wait for
/// the head is bounded by the caller. Dropping the future resets the upstream connection.
pub async fn send(worker: &Rc<Worker>, permit: &mut Permit, out: &Outbound<'_>) -> Result<Response> {
    if worker.shared.settings.upstream_h2 {
        return h2::send(worker, permit, out).await;
    }
    let mut reused = worker.pool.take(out.upstream).await;
    loop {
        let fresh = reused.is_none();
        let conn = match reused.take() {
            Some(conn) => conn,
            None => dial(worker, out.provider).await?,
        };
        permit.mark_sent();
        match exchange(worker, conn, out).await {
            // A connection that the upstream closed while it was idle tells so only now. Nobody has read the
            // request, so a fresh connection cannot make it happen twice.
            Err(Broke::Untouched) if !fresh => worker.shared.metrics.upstream_retried(Retry::Transport),
            Err(Broke::Untouched | Broke::Silent) => {
                let detail = "the upstream closed the connection before it answered";
                return Err(Error::new(Kind::Upstream(Step::Reset), detail));
            }
            Err(Broke::Failed(e)) => return Err(e),
            Ok(response) => return Ok(response),
        }
    }
}

enum Broke {
    /// The upstream's kernel refused the request: nobody has read it.
    Untouched,
    /// The connection ended in good order before any byte of an answer.
    Silent,
    Failed(Error),
}

async fn dial(worker: &Worker, provider: &Provider) -> Result<Conn> {
    let timeouts = &worker.shared.settings.timeouts;
    let origin = provider.origin();
    let tcp = dial::connect(&origin.host, origin.port, timeouts.connect).await?;
    reset_on_drop(&tcp);
    if !origin.tls {
        return Ok(Conn::Plain(tcp));
    }
    let Some(tls) = &worker.shared.tls else {
        return Err(Error::new(Kind::Bug, "an https upstream without a TLS configuration"));
    };
    let shaken = timeout(timeouts.tls, tls.connect(&origin.host, tcp)).await.map_err(|_| {
        Error::new(Kind::Timeout(Step::Tls), format!("TLS handshake with {} timed out", origin.host))
    })?;
    Ok(Conn::Tls(Box::new(shaken?)))
}

async fn exchange(worker: &Rc<Worker>, mut conn: Conn, out: &Outbound<'_>) -> Result<Response, Broke> {
    let mut request = worker.take_buffer();
    write_head(&mut request, out);
    let mut buffer = worker.take_buffer();
    let parsed = if out.body.len() <= COALESCE_BYTES {
        out.edits.pieces(out.body).for_each(|piece| request.extend_from_slice(piece));
        send_and_hear(worker, &mut conn, &mut [IoSlice::new(&request)], &mut buffer, out).await
    } else {
        let mut pieces = vec![IoSlice::new(&request)];
        pieces.extend(out.edits.pieces(out.body).map(IoSlice::new));
        send_and_hear(worker, &mut conn, &mut pieces, &mut buffer, out).await
    };
    worker.give_buffer(request);
    match parsed {
        Ok(parsed) => Ok(parsed.into_response(worker, conn, buffer, out)),
        Err(broke) => {
            worker.give_buffer(buffer);
            match broke {
                Broke::Silent if conn.was_refused(REFUSAL_WAIT).await => Err(Broke::Untouched),
                Broke::Silent => {
                    let detail = "the upstream closed the connection without an answer";
                    Err(Broke::Failed(Error::new(Kind::Upstream(Step::Reset), detail)))
                }
                broke => Err(broke),
            }
        }
    }
}

/// Writes the request and reads the answer's head, at the same time: an upstream may answer, and even close,
/// without reading all of the request.
async fn send_and_hear(
    worker: &Worker,
    conn: &mut Conn,
    pieces: &mut [IoSlice<'_>],
    buffer: &mut Vec<u8>,
    out: &Outbound<'_>,
) -> Result<Parsed, Broke> {
    let mut sending = Sending(pieces);
    let mut writing = true;
    let mut refused = false;
    poll_fn(|cx| {
        if writing && let Poll::Ready(sent) = sending.poll(conn, cx) {
            (writing, refused) = (false, sent.is_err());
            if out.stream {
                conn.quick_ack();
            }
        }
        loop {
            let read = worker.with_scratch(|scratch| {
                let n = ready!(conn.poll_read(cx, scratch))?;
                buffer.extend_from_slice(scratch.get(..n).unwrap_or(&[]));
                Poll::Ready(std::io::Result::Ok(n))
            });
            match ready!(read) {
                Ok(n) if n > 0 => {}
                end if buffer.is_empty() => {
                    return Poll::Ready(Err(if refused || end.is_err() {
                        Broke::Untouched
                    } else {
                        Broke::Silent
                    }));
                }
                _ => {
                    let detail = "the upstream's connection ended inside its response head";
                    return Poll::Ready(Err(Broke::Failed(Error::new(Kind::Upstream(Step::Reset), detail))));
                }
            }
            if let Some(mut parsed) = parse_head(worker, buffer, out.method)? {
                parsed.keep &= !writing && !refused;
                return Poll::Ready(Ok(parsed));
            }
        }
    })
    .await
}

/// What is still to be written.
struct Sending<'p, 'b>(&'p mut [IoSlice<'b>]);

impl Sending<'_, '_> {
    fn poll(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.0.is_empty() {
            let now = self.0.get(..self.0.len().min(PIECES)).unwrap_or(&[]);
            let n = ready!(conn.poll_write(cx, now))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(&mut self.0, n);
        }
        conn.poll_flush(cx)
    }
}

/// What a response head says, freed from the buffer it was read into.
struct Parsed {
    status: u16,
    lines: Vec<u8>,
    media: Media,
    encoded: bool,
    length: Option<u64>,
    walker: Walker,
    keep: bool,
    len: usize,
}

impl Parsed {
    fn into_response(self, worker: &Rc<Worker>, conn: Conn, buffer: Vec<u8>, out: &Outbound<'_>) -> Response {
        let source = H1Source {
            worker: Rc::clone(worker),
            upstream: out.upstream,
            conn: Some(conn),
            walker: self.walker,
            first: buffer,
            first_at: self.len,
            keep: self.keep,
            quick: self.media == Media::Events,
        };
        Response {
            status: self.status,
            lines: self.lines,
            media: self.media,
            encoded: self.encoded,
            length: self.length,
            body: Source::H1(Box::new(source)),
        }
    }
}

/// Parses a final head from the buffer, dropping interim ones (1xx) before it.
fn parse_head(worker: &Worker, buffer: &mut Vec<u8>, method: &str) -> Result<Option<Parsed>, Broke> {
    loop {
        let protocol = |e: Error| {
            let detail = format!("the upstream's response head is not acceptable: {e}");
            Broke::Failed(Error::new(Kind::Upstream(Step::Protocol), detail))
        };
        let Some(head) = head::response(buffer, method).map_err(protocol)? else { return Ok(None) };
        if head.status == 101 {
            return Err(protocol(Error::bad_request("it switches protocols unasked")));
        }
        if (100..200).contains(&head.status) {
            let len = head.len;
            buffer.drain(..len);
            continue;
        }
        let mut lines = worker.take_buffer();
        let fields = FieldsRef::H1(&head.fields);
        let mut parsed = Parsed {
            status: head.status,
            media: Media::Other,
            encoded: false,
            length: match head.framing {
                crate::wire::body::Framing::Length(n) => Some(n),
                crate::wire::body::Framing::Empty => Some(0),
                _ => None,
            },
            walker: Walker::new(head.framing),
            keep: head.keep_alive,
            len: head.len,
            lines: Vec::new(),
        };
        (parsed.media, parsed.encoded) = keep_fields(fields, &mut lines);
        parsed.lines = lines;
        return Ok(Some(parsed));
    }
}

fn write_head(request: &mut Vec<u8>, out: &Outbound<'_>) {
    for part in [out.method, " ", out.target, " HTTP/1.1\r\n"] {
        request.extend_from_slice(part.as_bytes());
    }
    forward_fields(out, |name, value| {
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    });
    if !out.body.is_empty() || out.method != "GET" {
        request.extend_from_slice(b"content-length: ");
        let length = out.edits.len_of(out.body);
        request.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
}

impl Source {
    /// Appends the content that has arrived to `content`; ready with `true` once the answer has ended.
    pub fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        content: &mut Vec<u8>,
    ) -> Poll<Result<bool>> {
        match self {
            Self::H1(source) => source.poll_content(cx, worker, content),
            Self::H2(incoming) => h2::poll_incoming(incoming, cx, content),
        }
    }
}

impl H1Source {
    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        content: &mut Vec<u8>,
    ) -> Poll<Result<bool>> {
        if self.walker.done() {
            self.finish(self.first_at >= self.first.len());
            return Poll::Ready(Ok(true));
        }
        if self.first_at < self.first.len() {
            let first = std::mem::take(&mut self.first);
            let input = first.get(self.first_at..).unwrap_or(&[]);
            let outcome = feed(&mut self.walker, input, content);
            worker.give_buffer(first);
            return Poll::Ready(outcome.map(|whole| self.ended(whole)));
        }
        let Some(conn) = &mut self.conn else { return Poll::Ready(Ok(true)) };
        let fed = worker.with_scratch(|scratch| {
            let n = match ready!(conn.poll_read(cx, scratch)) {
                Ok(n) => n,
                Err(e) => return Poll::Ready(Err(Error::new(Kind::Upstream(Step::Reset), e.to_string()))),
            };
            if n == 0 {
                return Poll::Ready(if self.walker.may_end() {
                    Ok(Some(false))
                } else {
                    let detail = "the upstream's connection ended before its answer did";
                    Err(Error::new(Kind::Upstream(Step::Reset), detail))
                });
            }
            let input = scratch.get(..n).unwrap_or(&[]);
            Poll::Ready(feed(&mut self.walker, input, content))
        });
        let outcome = ready!(fed)?;
        if self.quick
            && let Some(conn) = &self.conn
        {
            conn.quick_ack();
        }
        Poll::Ready(Ok(self.ended(outcome)))
    }

    /// Gives the connection back (or away) when the answer has ended.
    fn ended(&mut self, whole: Option<bool>) -> bool {
        if let Some(clean) = whole {
            self.finish(clean);
        }
        whole.is_some()
    }

    fn finish(&mut self, clean: bool) {
        if let Some(conn) = self.conn.take()
            && self.keep
            && clean
        {
            self.worker.pool.give(self.upstream, conn);
        }
    }
}

/// Feeds transport bytes: `Some(clean)` when the answer ended, clean if nothing followed it.
fn feed(walker: &mut Walker, input: &[u8], content: &mut Vec<u8>) -> Result<Option<bool>> {
    let fed = walker.feed(input, |run| content.extend_from_slice(run)).map_err(|e| {
        let detail = format!("the upstream's body framing is not acceptable: {e}");
        Error::new(Kind::Upstream(Step::Protocol), detail)
    })?;
    // Bytes behind the answer were not asked for: they must never reach the next one.
    Ok(fed.done.then_some(fed.used == input.len()))
}
