//! Plain HTTP: requests in absolute form, redirected ones in origin form, and those inside a CONNECT tunnel. Each one on
//! a connection is decided about anew.

mod exchange;
mod request;

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::gate::egress::{Passage, Refusal};
use crate::ids::{Destination, EgressDoor};
use crate::net::conn::reset_on_drop;
use crate::net::dial::keep_alive;
use crate::net::tunnel;
use crate::proxy::forward::refuse::{self, Answer};
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, connect, tunnel_limits};
use crate::telemetry::metrics::EgressEnd;

pub use exchange::{Broke, Done};
use exchange::{Exchange, Mode};
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
    address: Option<SocketAddr>,
}

/// What comes after an exchange.
enum Next {
    /// Another request may come, to the same destination perhaps.
    Request(Option<Kept>),
    /// The connection is over; this is the last answer, or nothing more.
    Close(Option<Answer>),
    /// Another protocol takes over.
    Tunnel(Box<Over>),
}

/// A connection that another protocol takes over (RFC 9110 §7.8).
struct Over {
    upstream: TcpStream,
    visit: Visit,
    limits: tunnel::Limits,
    /// What the destination has said behind its head.
    rest: Vec<u8>,
}

/// Serves a connection that begins with HTTP. Its first bytes are in the buffer.
pub async fn serve(mut conn: Conn) {
    let mut kept = None;
    // A CONNECT says itself where it goes.
    let asks = conn.buffer.starts_with(b"CONNECT ");
    let redirected = if asks { None } else { conn.original().map(|original| original.port()) };
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
            Next::Request(next) => kept = next,
            Next::Close(last) => return close(conn, last).await,
            Next::Tunnel(over) => return upgraded(conn, *over).await,
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
    close(conn, Some(answer)).await;
}

/// Serves one request.
async fn one(conn: &mut Conn, request: Request, kept: Option<Kept>) -> Next {
    let mut visit = Visit::begin(conn, EgressDoor::Http);
    visit.trace(request.trace.as_deref());
    let (passage, mut upstream, address) = match open(conn, &mut visit, &request, kept).await {
        Ok(opened) => opened,
        Err(answer) => return Next::Close(Some(answer)),
    };
    let limits = tunnel_limits(&conn.worker, &passage);
    conn.consume(request.len);
    let exchange = Exchange::new(conn, &mut upstream, &request, Mode::Proxy, limits.bytes);
    let done = exchange.run(limits.until).await;
    visit.exchanged(&done);
    if let Some(broke) = done.broke {
        return Next::Close(broken(&mut visit, &broke, done.answered, &upstream));
    }
    if done.status == 101 {
        let limits = limits.less(done.sent + done.received);
        return Next::Tunnel(Box::new(Over { upstream, visit, limits, rest: done.rest }));
    }
    if !(request.keep && done.client_keeps && done.request_whole) || conn.worker.shared.is_draining() {
        return Next::Close(None);
    }
    let reusable = done.upstream_keeps && done.rest.is_empty();
    Next::Request(reusable.then(|| Kept { destination: request.destination, upstream, address }))
}

/// Decides, and connects unless the destination of the request before is the same and still there.
async fn open(
    conn: &Conn,
    visit: &mut Visit,
    request: &Request,
    kept: Option<Kept>,
) -> Result<(Passage, TcpStream, Option<SocketAddr>), Answer> {
    let asked = Some((request.method.as_str(), request.path.as_str()));
    match kept {
        Some(kept) if kept.destination == request.destination && is_fresh(&kept.upstream) => {
            let passage = visit.ask(&request.destination, asked).map_err(|r| refuse::denied(&r, visit))?;
            visit.reused(kept.address);
            Ok((passage, kept.upstream, kept.address))
        }
        _ => {
            let (passage, upstream) =
                connect::leave(&conn.worker, visit, &request.destination, asked).await?;
            keep_alive(&upstream);
            let address = upstream.peer_addr().ok();
            Ok((passage, upstream, address))
        }
    }
}

/// The answer to an exchange that broke: none where one had begun, or nobody is there to read it.
fn broken(visit: &mut Visit, broke: &Broke, answered: bool, upstream: &TcpStream) -> Option<Answer> {
    reset_on_drop(upstream);
    let error = broke.error().filter(|_| !answered)?;
    let answer = match broke {
        Broke::Malformed(what) => refuse::malformed(400, what, visit),
        _ => refuse::failed(&error, visit),
    };
    visit.status = answer.status;
    Some(answer)
}

async fn close(conn: Conn, last: Option<Answer>) {
    conn.finish(&last.map(|answer| answer.bytes()).unwrap_or_default()).await;
}

/// Serves the requests inside a tunnel. They go on byte for byte; only their decisions are ours.
pub async fn inside(mut conn: Conn, pinned: Pinned) {
    let Pinned { destination, mut upstream, visit: mut tunnel, mut passed } = pinned;
    keep_alive(&upstream);
    let form = Form::Inside { destination };
    let over = loop {
        let request = match next(&mut conn, &form).await {
            Ok(Some(request)) => request,
            Ok(None) => break None,
            Err(problem) => {
                tunnel.end = Some(EgressEnd::Complete);
                return refuse_problem(conn, &problem).await;
            }
        };
        let mut visit = Visit::begin(&conn, EgressDoor::Http);
        visit.trace(request.trace.as_deref());
        let asked = Some((request.method.as_str(), request.path.as_str()));
        let passage = match visit.ask(&request.destination, asked) {
            Ok(passage) => passage,
            Err(refusal) => break Some(refuse::denied(&refusal, &visit)),
        };
        visit.inside(&tunnel);
        // A rule bounds the whole connection (docs/policy.md).
        let limits = tunnel_limits(&conn.worker, &passage).less(tunnel.sent + tunnel.received);
        conn.consume(request.len);
        let mode = Mode::Verbatim { passed: std::mem::take(&mut passed) };
        let exchange = Exchange::new(&mut conn, &mut upstream, &request, mode, limits.bytes);
        let done = exchange.run(limits.until).await;
        visit.exchanged(&done);
        tunnel.sent += done.sent;
        tunnel.received += done.received;
        if let Some(broke) = &done.broke {
            tunnel.end = Some(broke.end());
            break broken(&mut visit, broke, done.answered, &upstream);
        }
        if done.status == 101 {
            // The tunnel's own account takes the rest.
            drop(visit);
            let limits = limits.less(done.sent + done.received);
            return upgraded(conn, Over { upstream, visit: tunnel, limits, rest: done.rest }).await;
        }
        tunnel.end = Some(EgressEnd::Complete);
        if !(request.keep
            && done.upstream_keeps
            && done.client_keeps
            && done.request_whole
            && done.rest.is_empty())
        {
            break None;
        }
    };
    close(conn, over).await;
}

/// Moves the bytes of the protocol that took over.
async fn upgraded(mut conn: Conn, over: Over) {
    let Over { upstream, mut visit, limits, rest } = over;
    conn.deadline.set_after(limits.idle);
    if conn.write(&rest).await {
        connect::pump(conn, upstream, visit, limits).await;
    } else {
        visit.end = Some(EgressEnd::ClientReset);
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
