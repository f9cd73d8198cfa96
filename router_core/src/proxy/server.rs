//! A client's HTTP/1.1 connection: requests in, one after another; an HTTP/2 preface hands it over.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::error::{Error, Kind, Result};
use crate::ids::{Dialect, TraceId};
use crate::net::deadline::Deadline;
use crate::proxy::answer::Answer;
use crate::proxy::client::{Client, H1};
use crate::proxy::forward::fetch;
use crate::proxy::inbound::{FieldsRef, Inbound, split_target};
use crate::proxy::respond::{self, Failure};
use crate::proxy::routes::{self, EgressRoute, Endpoint, Found};
use crate::proxy::worker::Worker;
use crate::proxy::{call, cold, h2, local};
use crate::telemetry::metrics::Route;
use crate::wire::body::{Framing, Walker};
use crate::wire::head::{self, RequestHead};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A body above this counts against the memory that all bodies share.
const COUNTED_BYTES: usize = 64 * 1024;
/// Room from which a read goes into the request's own buffer instead of through the thread's.
const DIRECT_BYTES: usize = 16 * 1024;

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr, door: Door) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let enlisted = worker.enlist(&waker);
    worker.shared.metrics.connection_opened();
    let connection = Connection {
        client: Client::H1(H1::new(tcp, Rc::clone(&worker))),
        deadline: Deadline::new(worker.shared.settings.timeouts.client_idle),
        peer,
        door,
        worker: Rc::clone(&worker),
    };
    connection.run().await;
    worker.shared.metrics.connection_closed();
    drop(enlisted);
}

struct Connection {
    worker: Rc<Worker>,
    client: Client,
    deadline: Deadline,
    peer: SocketAddr,
    door: Door,
}

/// What a listener gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Every route.
    Api,
    /// Health and metrics only.
    Metrics,
}

/// What became of a turn of a connection.
enum Turn {
    /// A request was answered.
    Answered,
    /// The client speaks HTTP/2.
    Preface,
    /// The client closed, or waited too long between requests.
    Closed,
}

/// A request whose body is not in the buffer yet.
struct Expected {
    head: usize,
    framing: Framing,
    /// Whether the client waits for `100 Continue`.
    proceed: bool,
}

/// Bytes counted against the memory that all bodies share; given back on drop.
pub struct Memory {
    worker: Rc<Worker>,
    bytes: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.worker.shared.body_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Connection {
    async fn run(mut self) {
        let mut buffer = Vec::new();
        loop {
            match self.turn(&mut buffer).await {
                Ok(Turn::Answered) => {}
                Ok(Turn::Preface) => {
                    if let Client::H1(h1) = self.client {
                        Box::pin(h2::serve(self.worker, h1.tcp, buffer, self.peer, self.door)).await;
                    }
                    return;
                }
                Ok(Turn::Closed) => return,
                Err(e) => self.refuse(&e, &mut buffer).await,
            }
            if !self.flush().await {
                return;
            }
        }
    }

    /// Writes out what is pending; `false` when the connection is over.
    async fn flush(&mut self) -> bool {
        let stall = self.worker.shared.settings.timeouts.client_stall;
        let Self { client, deadline, .. } = self;
        let Client::H1(h1) = client else { return false };
        let mut waits = false;
        let written = poll_fn(|cx| match h1.poll_flush(cx) {
            Poll::Ready(done) => Poll::Ready(done.is_ok()),
            Poll::Pending => {
                if !std::mem::replace(&mut waits, true) {
                    deadline.set_after(stall);
                }
                deadline.poll(cx).map(|()| false)
            }
        });
        written.await && h1.keep_alive
    }

    /// Waits for a request, reads all of it and answers it.
    async fn turn(&mut self, buffer: &mut Vec<u8>) -> Result<Turn> {
        let timeouts = self.worker.shared.settings.timeouts;
        if buffer.is_empty() {
            self.deadline.set_after(timeouts.client_idle);
            if !self.read_some(buffer).await.unwrap_or(false) {
                return Ok(Turn::Closed);
            }
        }
        self.deadline.set_after(timeouts.head);
        let expected = loop {
            if buffer.starts_with(b"PRI ") && buffer.len() >= PREFACE.len() {
                if buffer.starts_with(PREFACE) {
                    return Ok(Turn::Preface);
                }
                return Err(Error::bad_request("a malformed HTTP/2 preface"));
            }
            if let Some(head) = head::request(buffer)? {
                let limit = self.worker.shared.settings.body_limit;
                if let Framing::Length(n) = head.framing
                    && n > limit as u64
                {
                    return Err(too_large(n, limit));
                }
                // Nearly always all of a request comes at once, and its head is read once.
                if let Some(used) = whole(&head, buffer.len()) {
                    let body = buffer.get(head.len..used).unwrap_or(&[]);
                    let answer = self.respond(&head, body, buffer.len() > used).await;
                    self.consume(buffer, used);
                    self.deliver(answer).await;
                    return Ok(Turn::Answered);
                }
                break Expected { head: head.len, framing: head.framing, proceed: head.expect_continue };
            }
            if !self.read_some(buffer).await? {
                return Err(Error::new(Kind::Canceled, "the client closed inside its request head"));
            }
        };
        let (used, decoded, memory) = self.read_body(buffer, &expected).await?;
        let Some(head) = head::request(buffer)? else { return Ok(Turn::Closed) };
        let body = decoded.as_deref().or_else(|| buffer.get(head.len..used)).unwrap_or(&[]);
        let answer = self.respond(&head, body, buffer.len() > used).await;
        self.consume(buffer, used);
        drop((decoded, memory));
        self.deliver(answer).await;
        Ok(Turn::Answered)
    }

    /// Reads the rest of a body; gives the message's end in the buffer, and the content where it was coded.
    async fn read_body(
        &mut self,
        buffer: &mut Vec<u8>,
        expected: &Expected,
    ) -> Result<(usize, Option<Vec<u8>>, Memory)> {
        let limit = self.worker.shared.settings.body_limit;
        let mut memory = Memory::new(&self.worker);
        let head = expected.head;
        if let Framing::Length(n) = expected.framing {
            let length =
                usize::try_from(n).ok().filter(|n| *n <= limit).ok_or_else(|| too_large(n, limit))?;
            memory.add(length)?;
            self.proceed(expected.proceed);
            let used = head + length;
            buffer.reserve_exact(used.saturating_sub(buffer.len()));
            while buffer.len() < used {
                self.await_body(buffer).await?;
            }
            return Ok((used, None, memory));
        }
        self.proceed(expected.proceed);
        let mut walker = Walker::new(expected.framing);
        let mut decoded = Vec::new();
        loop {
            let before = decoded.len();
            let fed = walker.feed(buffer.get(head..).unwrap_or(&[]), |run| decoded.extend_from_slice(run))?;
            if decoded.len() > limit {
                return Err(too_large(decoded.len() as u64, limit));
            }
            memory.add(decoded.len() - before)?;
            if fed.done {
                return Ok((head + fed.used, Some(decoded), memory));
            }
            // Decoded bytes need not stay in their transport coding too.
            buffer.truncate(head);
            self.await_body(buffer).await?;
        }
    }

    fn proceed(&mut self, expects: bool) {
        if let (true, Client::H1(h1)) = (expects, &mut self.client) {
            h1.interim(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    async fn await_body(&mut self, buffer: &mut Vec<u8>) -> Result<()> {
        self.deadline.set_after(self.worker.shared.settings.timeouts.body);
        if self.read_some(buffer).await? {
            return Ok(());
        }
        Err(Error::new(Kind::Canceled, "the client closed inside its request body"))
    }

    /// Reads once into the buffer; `false` when the client has closed. Fails when the deadline passes.
    async fn read_some(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        let Self { worker, client, deadline, .. } = self;
        let Client::H1(h1) = client else { return Ok(false) };
        poll_fn(|cx| {
            if worker.shared.is_killed() {
                return Poll::Ready(Ok(false));
            }
            // Only `100 Continue` can be pending here.
            let _ = h1.poll_flush(cx);
            let room = buffer.capacity() - buffer.len();
            let read = if room >= DIRECT_BYTES {
                // A large body goes straight to its place.
                std::pin::pin!(h1.tcp.read_buf(buffer)).poll(cx).map_ok(|n| n > 0)
            } else {
                worker.with_scratch(|scratch| {
                    let mut into = tokio::io::ReadBuf::new(scratch);
                    let tcp = std::pin::Pin::new(&mut h1.tcp);
                    ready!(tokio::io::AsyncRead::poll_read(tcp, cx, &mut into))?;
                    if buffer.capacity() == 0 && !into.filled().is_empty() {
                        *buffer = worker.take_buffer();
                    }
                    buffer.extend_from_slice(into.filled());
                    Poll::Ready(std::io::Result::Ok(!into.filled().is_empty()))
                })
            };
            match read {
                Poll::Ready(Ok(more)) => Poll::Ready(Ok(more)),
                Poll::Ready(Err(_)) => Poll::Ready(Ok(false)),
                Poll::Pending => deadline.poll(cx).map(|()| Err(too_slow())),
            }
        })
        .await
    }

    /// Answers a request; `more` when the client has already sent what follows it.
    async fn respond(&mut self, head: &RequestHead<'_>, body: &[u8], more: bool) -> Option<Answer> {
        let Self { worker, client, deadline, peer, door } = self;
        if let Client::H1(h1) = client {
            let keep = head.keep_alive && !worker.shared.is_draining();
            h1.reset(head.http10, head.method == "HEAD", keep, !more);
        }
        serve_one(worker, client, deadline, head, body, (*peer, *door)).await
    }

    /// Drops a request's bytes: the thread lends buffers, and a connection that waits, or whose answer
    /// streams, has none.
    fn consume(&self, buffer: &mut Vec<u8>, used: usize) {
        if used >= buffer.len() {
            self.worker.give_buffer(std::mem::take(buffer));
        } else {
            buffer.drain(..used);
        }
    }

    async fn deliver(&mut self, answer: Option<Answer>) {
        if let Some(answer) = answer {
            Box::pin(answer.deliver(&mut self.client, &mut self.deadline)).await;
        }
    }

    /// Answers what could not be read as a request, and closes.
    async fn refuse(&mut self, error: &Error, buffer: &mut Vec<u8>) {
        let trace = TraceId::from_bits(self.worker.random());
        if let Client::H1(h1) = &mut self.client {
            h1.reset(false, false, false, false);
        }
        if error.kind() == Kind::Canceled {
            return;
        }
        let path = request_path(buffer);
        let mut failure = Failure::from(error);
        if let Kind::TooLarge { max, .. } = error.kind()
            && max == crate::limits::HEAD_BYTES as u64
        {
            failure.status = 431;
        }
        if error == &too_slow() {
            failure.status = 408;
        }
        self.worker.shared.metrics.http_begun();
        self.worker.shared.metrics.http_done(Route::None, failure.status);
        respond::fail(&mut self.client, &failure, routes::dialect(&path, false), trace.as_str(), &|_| {});
        // A peer that still sends would answer our close with a reset, and lose the error text.
        self.flush().await;
        self.linger(buffer).await;
    }

    /// Reads and drops what the peer still sends, for a bounded time and amount.
    async fn linger(&mut self, buffer: &mut Vec<u8>) {
        if let Client::H1(h1) = &mut self.client {
            // An error here means that the peer is gone, which is what we wait for.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut h1.tcp).await;
        }
        self.deadline.set_after(std::time::Duration::from_secs(1));
        for _ in 0..64 {
            buffer.clear();
            if !self.read_some(buffer).await.unwrap_or(false) {
                return;
            }
        }
    }
}

impl Memory {
    /// Counts nothing yet.
    pub fn new(worker: &Rc<Worker>) -> Self {
        Self { worker: Rc::clone(worker), bytes: 0 }
    }

    /// Counts more bytes; fails when all bodies together would hold too much.
    pub fn add(&mut self, bytes: usize) -> Result<()> {
        if self.bytes + bytes <= COUNTED_BYTES && self.bytes == 0 {
            return Ok(());
        }
        let shared = &self.worker.shared;
        self.bytes += bytes;
        let all = shared.body_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all <= shared.settings.body_memory {
            return Ok(());
        }
        let max = shared.settings.body_memory;
        let detail = format!("request bodies in flight hold {max} bytes already (ROUTER_BODY_MEMORY_BYTES)");
        Err(Error::new(Kind::NotReady, detail))
    }
}

/// The end of the request in a buffer of `len` bytes, if all of it is there.
fn whole(head: &RequestHead<'_>, len: usize) -> Option<usize> {
    let used = match head.framing {
        Framing::Empty | Framing::UntilClose => head.len,
        Framing::Length(n) => head.len.checked_add(usize::try_from(n).ok()?)?,
        Framing::Chunked => return None,
    };
    (used <= len).then_some(used)
}

/// A body above the bound, in words that name it.
pub fn too_large(got: u64, limit: usize) -> Error {
    let detail = format!("the request body is larger than {limit} bytes (ROUTER_BODY_LIMIT_BYTES)");
    Error::new(Kind::TooLarge { got, max: limit as u64 }, detail)
}

/// A request that takes longer than its bound.
pub fn too_slow() -> Error {
    Error::new(Kind::BadRequest, "the request did not arrive in time")
}

/// The path of a request that may not be readable as a whole, to choose the dialect of its error.
fn request_path(buffer: &[u8]) -> String {
    let line = buffer.split(|b| *b == b'\r').next().unwrap_or(&[]);
    let target = line.split(|b| *b == b' ').nth(1).unwrap_or(&[]);
    String::from_utf8_lossy(target.get(..target.len().min(256)).unwrap_or(&[])).into_owned()
}

async fn serve_one(
    worker: &Rc<Worker>,
    client: &mut Client,
    deadline: &mut Deadline,
    head: &RequestHead<'_>,
    body: &[u8],
    from: (SocketAddr, Door),
) -> Option<Answer> {
    let Some((path, query)) = split_target(head.target) else {
        let failure = Failure::from(&Error::bad_request("the request target is neither a path nor a URL"));
        let trace = TraceId::from_bits(worker.random());
        respond::fail(client, &failure, Dialect::OpenAi, trace.as_str(), &|_| {});
        return None;
    };
    let fields = FieldsRef::H1(&head.fields);
    let inbound = Inbound { method: head.method, path, query, fields, body };
    dispatch(worker, client, deadline, &inbound, from).await
}

/// Leads a request to its endpoint; every HTTP version ends up here. A model call gives its answer back, to be
/// delivered once the request's bytes are let go.
pub async fn dispatch(
    worker: &Rc<Worker>,
    client: &mut Client,
    deadline: &mut Deadline,
    inbound: &Inbound<'_>,
    (peer, door): (SocketAddr, Door),
) -> Option<Answer> {
    let given = inbound.fields.value("x-kars-trace-id").and_then(TraceId::parse);
    let trace = given.unwrap_or_else(|| TraceId::from_bits(worker.random()));
    let found = match routes::find(inbound.method, inbound.path) {
        Found::Route(Endpoint::Model(_) | Endpoint::Cold | Endpoint::Egress(_)) if door == Door::Metrics => {
            Found::Nothing
        }
        found => found,
    };
    match found {
        Found::Route(Endpoint::Model(route)) => {
            // Boxed, as the other doors are: a connection that waits holds none of their state.
            return Some(Box::pin(call::open(worker, client, deadline, inbound, &route, trace)).await);
        }
        Found::Route(Endpoint::Local(endpoint)) => {
            local::serve(worker, client, inbound, endpoint, peer, trace);
        }
        Found::Route(Endpoint::Egress(EgressRoute::Fetch)) => {
            Box::pin(fetch::serve(worker, client, inbound, peer, trace)).await;
        }
        Found::Route(Endpoint::Egress(route)) => {
            local::egress::serve(worker, client, inbound, route, peer, trace);
        }
        Found::Route(Endpoint::Cold) => Box::pin(cold::serve(worker, client, inbound, peer, trace)).await,
        Found::WrongMethod(methods) => {
            let message = format!("{} takes {methods}", inbound.path);
            let failure = Failure::new(
                405,
                "invalid_request_error",
                "method_not_allowed",
                "invalid_request_error",
                message,
            );
            unrouted(worker, client, inbound, &failure, trace, Some(methods));
        }
        Found::Nothing => {
            let message = format!("There is no {} here.", inbound.path);
            let failure = Failure::new(404, "invalid_request_error", "not_found", "not_found_error", message);
            unrouted(worker, client, inbound, &failure, trace, None);
        }
    }
    None
}

fn unrouted(
    worker: &Worker,
    client: &mut Client,
    inbound: &Inbound<'_>,
    failure: &Failure,
    trace: TraceId,
    allow: Option<&str>,
) {
    worker.shared.metrics.http_begun();
    worker.shared.metrics.http_done(Route::None, failure.status);
    let anthropic = inbound.fields.value("anthropic-version").is_some();
    let dialect = routes::dialect(inbound.path, anthropic);
    respond::fail(client, failure, dialect, trace.as_str(), &|head| {
        if let Some(methods) = allow {
            head.field("allow", methods.as_bytes());
        }
    });
}
