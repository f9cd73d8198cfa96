//! Plain HTTP: requests in absolute form, redirected ones in origin form, and those inside a CONNECT tunnel. Each one on
//! a connection is decided about anew.

mod exchange;
mod request;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gate::egress::{Passage, Refusal};
use crate::ids::{Destination, EgressDoor};
use crate::net::conn::reset_on_drop;
use crate::net::tunnel::{self, End};
use crate::proxy::account::unix_time;
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, connect, refuse};

use exchange::{Exchange, Mode};
pub use exchange::{Broke, Done};
use request::{Form, Problem, Request};

/// A tunnel that turned out to carry HTTP.
pub struct Pinned {
    /// Where it goes.
    pub destination: Destination,
    /// The connected destination.
    pub upstream: TcpStream,
    /// The CONNECT's own account.
    pub visit: Visit,
    /// Bytes of the first request that have gone on already.
    pub passed: usize,
}

/// A destination that stays connected between requests.
struct Kept {
    destination: Destination,
    upstream: TcpStream,
    address: Option<std::net::SocketAddr>,
}

/// What comes after an exchange.
enum Next {
    /// Another request may come, to the same destination perhaps.
    Request(Option<Kept>),
    /// The connection is over.
    Close,
}

/// Serves a connection that begins with HTTP. Its first bytes are in the buffer.
pub async fn serve(mut conn: Conn) {
    let mut kept = None;
    let redirected = conn.original().map(|original| original.port());
    let form = Form::Proxy { redirected, strict: conn.worker.shared.settings.egress.strict_names };
    loop {
        let request = match next(&mut conn, &form).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(problem) => return refuse_problem(conn, &problem).await,
        };
        if request.method == "CONNECT" {
            conn.consume(request.len);
            return Box::pin(connect::serve(conn, request.destination, request.trace)).await;
        }
        match Box::pin(one(&mut conn, request, kept.take())).await {
            Ok(Next::Request(next)) => kept = next,
            Ok(Next::Close) => return conn.finish(&[]).await,
            Err(answer) => return conn.finish(&answer).await,
        }
    }
}

/// Reads the next request's head; `None` when the client is done.
async fn next(conn: &mut Conn, form: &Form) -> Result<Option<Request>, Problem> {
    let timeouts = conn.worker.shared.settings.timeouts;
    if conn.buffer.is_empty() {
        conn.deadline.set_after(timeouts.client_idle);
        if !conn.read_some().await.unwrap_or(false) {
            return Ok(None);
        }
        conn.deadline.set_after(conn.worker.shared.settings.egress.head);
    }
    loop {
        if let Some(request) = request::read(&conn.buffer, form)? {
            return Ok(Some(request));
        }
        match conn.read_some().await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) => return Err(Problem::status(408, "the request head did not arrive in time")),
        }
    }
}

async fn refuse_problem(conn: Conn, problem: &Problem) {
    let mut visit = Visit::begin(&conn, EgressDoor::Http);
    let answer = match problem {
        Problem::Malformed { status, what } => {
            visit.malformed(*status, what);
            refuse::malformed(*status, what, &visit)
        }
        Problem::Refused { destination, refusal } => {
            visit.name(destination);
            visit.refused(refusal);
            refuse::denied(refusal, &visit)
        }
    };
    conn.finish(&answer).await;
}

/// Serves one request; the error is the last answer on this connection.
async fn one(conn: &mut Conn, request: Request, kept: Option<Kept>) -> Result<Next, Vec<u8>> {
    let mut visit = Visit::begin(conn, EgressDoor::Http);
    visit.trace(request.trace.as_deref());
    let asked = Some((request.method.as_str(), request.path.as_str()));
    let (passage, mut upstream, address) = match kept {
        Some(kept) if kept.destination == request.destination && is_fresh(&kept.upstream) => {
            let passage = visit.ask(&request.destination, asked).map_err(|r| refuse::denied(&r, &visit))?;
            visit.reused(kept.address);
            (passage, kept.upstream, kept.address)
        }
        _ => {
            let (passage, upstream) = connect::leave(conn, &mut visit, &request.destination, asked).await?;
            let address = upstream.peer_addr().ok();
            (passage, upstream, address)
        }
    };
    let life = Life::new(conn, &passage);
    conn.consume(request.len);
    let exchange = Exchange::new(conn, &mut upstream, &request, Mode::Proxy, life.limits.bytes);
    let done = exchange.run(life.until).await;
    visit.exchanged(&done);
    if let Some(broke) = done.broke {
        return broken(&mut visit, &broke, done.answered, &upstream);
    }
    if done.status == 101 {
        return upgraded(conn, upstream, visit, &life, &done.rest).await;
    }
    let keep = request.keep && done.client_keeps && done.request_whole && !conn.worker.shared.is_draining();
    if !keep {
        return Ok(Next::Close);
    }
    let reusable = done.upstream_keeps && done.rest.is_empty();
    Ok(Next::Request(reusable.then(|| Kept { destination: request.destination, upstream, address })))
}

/// What became of an exchange that broke: an answer where none had begun, else nothing but the end.
fn broken(visit: &mut Visit, broke: &Broke, answered: bool, upstream: &TcpStream) -> Result<Next, Vec<u8>> {
    reset_on_drop(upstream);
    let Some(error) = broke.error() else { return Ok(Next::Close) };
    if answered {
        return Ok(Next::Close);
    }
    let (status, answer) = match broke {
        Broke::Malformed(what) => (400, refuse::malformed(400, what, visit)),
        _ => refuse::failed(&error, visit),
    };
    visit.status = status;
    Err(answer)
}

/// Serves the requests inside a tunnel. They go on byte for byte; only their decisions are ours.
pub async fn inside(mut conn: Conn, pinned: Pinned) {
    let Pinned { destination, mut upstream, visit: mut tunnel, mut passed } = pinned;
    let form = Form::Inside { destination };
    let over = loop {
        let request = match next(&mut conn, &form).await {
            Ok(Some(request)) => request,
            Ok(None) => break Vec::new(),
            Err(problem) => {
                tunnel.end = crate::telemetry::metrics::EgressEnd::Denied;
                return refuse_problem(conn, &problem).await;
            }
        };
        let mut visit = Visit::begin(&conn, EgressDoor::Http);
        visit.trace(request.trace.as_deref());
        let asked = Some((request.method.as_str(), request.path.as_str()));
        let passage = match visit.ask(&request.destination, asked) {
            Ok(passage) => passage,
            Err(refusal) => break refuse::denied(&refusal, &visit),
        };
        visit.inside(&tunnel);
        let life = Life::new(&conn, &passage);
        conn.consume(request.len);
        let mode = Mode::Verbatim { passed: std::mem::take(&mut passed) };
        let exchange = Exchange::new(&mut conn, &mut upstream, &request, mode, life.limits.bytes);
        let done = exchange.run(life.until).await;
        visit.exchanged(&done);
        tunnel.sent += done.sent;
        tunnel.received += done.received;
        if let Some(broke) = &done.broke {
            tunnel.end = broke.end();
            break broken(&mut visit, broke, done.answered, &upstream).err().unwrap_or_default();
        }
        if done.status == 101 {
            // The tunnel's own account takes the rest.
            visit.end = crate::telemetry::metrics::EgressEnd::Complete;
            drop(visit);
            let _ = upgraded(&mut conn, upstream, tunnel, &life, &done.rest).await;
            return;
        }
        tunnel.end = crate::telemetry::metrics::EgressEnd::Complete;
        if !(request.keep && done.upstream_keeps && done.client_keeps && done.request_whole && done.rest.is_empty()) {
            break Vec::new();
        }
    };
    conn.finish(&over).await;
}

/// Moves the bytes of a protocol that took over the connection (RFC 9110 §7.8).
async fn upgraded(
    conn: &mut Conn,
    mut upstream: TcpStream,
    mut visit: Visit,
    life: &Life,
    rest: &[u8],
) -> Result<Next, Vec<u8>> {
    let early = std::mem::take(&mut conn.buffer);
    conn.deadline.set_after(life.limits.idle);
    let to_client = conn.write(rest).await;
    let to_upstream = super::write_all(&conn.worker, &mut upstream, &early, &mut conn.deadline).await;
    visit.sent += early.len() as u64;
    if !to_client || !to_upstream {
        visit.moved(&tunnel::Moved { sent: 0, received: 0, end: End::ClientReset });
        return Ok(Next::Close);
    }
    let worker = std::rc::Rc::clone(&conn.worker);
    let lend = |use_it: &mut dyn FnMut(&mut [u8])| worker.with_scratch(|scratch| use_it(scratch));
    let stop = || worker.shared.is_killed();
    let Some(tcp) = conn.take_socket() else { return Ok(Next::Close) };
    let moved = tunnel::run(tcp, upstream, life.limits, &lend, &stop).await;
    visit.moved(&moved);
    Ok(Next::Close)
}

/// How long and how much a request may take.
struct Life {
    limits: tunnel::Limits,
    until: Option<Instant>,
}

impl Life {
    fn new(conn: &Conn, passage: &Passage) -> Self {
        let limits = conn.limits(passage.max_bytes(), passage.expires_at(), unix_time().as_secs());
        Self { limits, until: limits.lifetime.map(|life| Instant::now() + life) }
    }
}

/// Whether an idle connection has nothing to say: neither a close nor bytes that nobody asked for.
fn is_fresh(upstream: &TcpStream) -> bool {
    let mut byte = [0; 1];
    matches!(upstream.try_read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

impl Problem {
    fn status(status: u16, what: &str) -> Self {
        Self::Malformed { status, what: what.to_owned() }
    }

    fn refused(destination: &Destination, refusal: Refusal) -> Self {
        Self::Refused { destination: destination.to_string(), refusal }
    }
}
