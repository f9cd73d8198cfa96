//! CONNECT over HTTP/1.1 (RFC 9110 §9.3.6): decide, dial, answer, look at the first bytes inside, move the rest.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gate::egress::{Passage, Refusal};
use crate::ids::{Destination, EgressDoor, EgressReason};
use crate::net::{dial, tunnel};
use crate::proxy::forward::reach::{self, Failed};
use crate::proxy::forward::refuse::{self, Answer};
use crate::proxy::forward::relay::{self, Pinned};
use crate::proxy::forward::sniff::{self, Look};
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, tunnel_limits, write_all};
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::EgressEnd;
use crate::wire::sni;

/// A tunnel that lives this long is audited when it does, too: kill -9 must not hide that it was open. From then on its
/// destination is watched by the kernel; shorter ones do without those calls.
const LONG: Duration = Duration::from_secs(10);
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// Serves a CONNECT whose head has been taken from the buffer; what is left there belongs into the tunnel.
pub async fn serve(mut conn: Conn, destination: Destination, trace: Option<Vec<u8>>) {
    let mut visit = Visit::begin(&conn, EgressDoor::Connect);
    visit.trace(trace.as_deref());
    let (passage, upstream) = match leave(&conn.worker, &mut visit, &destination, None).await {
        Ok(reached) => reached,
        Err(answer) => return conn.finish(&answer.bytes()).await,
    };
    visit.status = 200;
    let limits = tunnel_limits(&conn.worker, &passage);
    conn.deadline.set_after(conn.worker.shared.settings.egress.idle);
    if !conn.write(ESTABLISHED).await {
        return;
    }
    if conn.worker.shared.settings.egress.strict_names {
        Box::pin(inspect(conn, upstream, visit, destination, limits)).await;
    } else {
        pump(conn, upstream, visit, limits).await;
    }
}

/// Decides and connects; the error is the answer to send.
pub async fn leave(
    worker: &Worker,
    visit: &mut Visit,
    destination: &Destination,
    request: Option<(&str, &str)>,
) -> Result<(Passage, TcpStream), Answer> {
    let passage = visit.ask(destination, request).map_err(|refusal| refuse::denied(&refusal, visit))?;
    match reach::open(worker, destination, &passage).await {
        Ok((upstream, address)) => {
            visit.connected(address);
            Ok((passage, upstream))
        }
        Err(Failed::Barred(refusal)) => {
            visit.refused(&refusal);
            Err(refuse::denied(&refusal, visit))
        }
        Err(Failed::Broken(error)) => {
            let answer = refuse::failed(&error, visit);
            visit.broken(&error, answer.status);
            Err(answer)
        }
    }
}

/// Looks at what the client says first, then moves bytes; a tunnel that carries HTTP is relayed request by request.
async fn inspect(
    mut conn: Conn,
    mut upstream: TcpStream,
    mut visit: Visit,
    to: Destination,
    limits: tunnel::Limits,
) {
    let mut sent = 0;
    let (head, idle) = (conn.worker.shared.settings.egress.head, conn.worker.shared.settings.egress.idle);
    loop {
        let until = match sniff::look(&conn.buffer, &to.host) {
            Look::Opaque => break,
            Look::Http => {
                let pinned = Pinned { destination: to, upstream, visit, passed: sent };
                return Box::pin(relay::inside(conn, pinned)).await;
            }
            Look::Refuse(reason, message) => {
                let hint = "name one host everywhere, or set EGRESS_FRONTING=allow".to_owned();
                let refusal = Refusal::new(reason, "egress-fronting", message, hint);
                visit.refused(&refusal);
                let tls = conn.buffer.first() == Some(&sniff::TLS_HANDSHAKE);
                let last = if tls { sni::alert(refuse::ACCESS_DENIED).to_vec() } else { Vec::new() };
                return conn.finish(&last).await;
            }
            Look::Hold => Instant::now() + head,
            Look::Pass => {
                conn.deadline.set_after(idle);
                let rest = conn.buffer.get(sent..).unwrap_or(&[]);
                if !write_all(&conn.worker, &mut upstream, rest, &mut conn.deadline).await {
                    return;
                }
                visit.sent += rest.len() as u64;
                sent = conn.buffer.len();
                Instant::now() + idle
            }
        };
        match hear(&mut conn, &upstream, &mut visit, until).await {
            Heard::Client => {}
            // A server that speaks first, or to half a request, speaks no HTTP/1.
            Heard::Upstream => break,
            Heard::Nobody => {
                visit.end = Some(EgressEnd::Idle);
                return;
            }
            Heard::Gone => {
                if conn.buffer.is_empty() {
                    break;
                }
                return;
            }
        }
    }
    conn.consume(sent);
    pump(conn, upstream, visit, limits).await;
}

enum Heard {
    Client,
    Upstream,
    /// The client has closed its side.
    Gone,
    Nobody,
}

/// [`heard`] before `until`; a tunnel that lasts is told meanwhile.
async fn hear(conn: &mut Conn, upstream: &TcpStream, visit: &mut Visit, until: Instant) -> Heard {
    let long = visit.started + LONG;
    if !visit.lasting && long < until {
        conn.deadline.set(long);
        match heard(conn, upstream).await {
            Heard::Nobody if !conn.worker.shared.is_killed() => lasts(visit, upstream),
            other => return other,
        }
    }
    conn.deadline.set(until);
    heard(conn, upstream).await
}

/// Waits for either side to say something; the client's bytes are read, the destination's stay in its socket.
async fn heard(conn: &mut Conn, upstream: &TcpStream) -> Heard {
    let Conn { worker, tcp, deadline, buffer, .. } = conn;
    let mut answered = std::pin::pin!(upstream.ready(Interest::READABLE));
    poll_fn(|cx| {
        if worker.shared.is_killed() {
            return Poll::Ready(Heard::Nobody);
        }
        let read = worker.with_scratch(|scratch| {
            let mut into = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *tcp).poll_read(cx, &mut into))?;
            buffer.extend_from_slice(into.filled());
            Poll::Ready(std::io::Result::Ok(!into.filled().is_empty()))
        });
        match read {
            Poll::Ready(Ok(true)) => return Poll::Ready(Heard::Client),
            Poll::Ready(_) => return Poll::Ready(Heard::Gone),
            Poll::Pending => {}
        }
        if answered.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Heard::Upstream);
        }
        deadline.poll(cx).map(|()| Heard::Nobody)
    })
    .await
}

/// Moves bytes until the tunnel ends; what was read from the client already goes first.
pub async fn pump(conn: Conn, upstream: TcpStream, mut visit: Visit, limits: tunnel::Limits) {
    let Conn { worker, tcp, mut deadline, buffer } = conn;
    let lend = |use_it: &mut dyn FnMut(&mut [u8])| worker.with_bulk(|bulk| use_it(bulk));
    let stop = || worker.shared.is_killed();
    deadline.set_after(LONG);
    let moved = {
        let mut moving = std::pin::pin!(tunnel::run(&tcp, &upstream, buffer, limits, lend, stop));
        let both = poll_fn(|cx| {
            if !visit.lasting && deadline.poll(cx).is_ready() {
                lasts(&mut visit, &upstream);
            }
            moving.as_mut().poll(cx)
        });
        both.await
    };
    drop((tcp, upstream));
    visit.moved(&moved);
}

/// A tunnel has lived for [`LONG`].
fn lasts(visit: &mut Visit, upstream: &TcpStream) {
    visit.goes_on();
    dial::keep_alive(upstream);
}

/// A destination from a CONNECT's target; the port is 443 where none is written.
pub fn destination(target: &str) -> crate::error::Result<Destination> {
    let authority = crate::wire::authority::authority(target.as_bytes())?;
    Ok(Destination { host: authority.host, port: authority.port.unwrap_or(443) })
}

/// Whether a `Host` field names the destination; one without a port does.
pub fn agrees(host: &[u8], destination: &Destination) -> Result<(), Refusal> {
    let named = crate::wire::authority::authority(host).map_err(|e| {
        Refusal::new(EgressReason::Malformed, "host", format!("malformed Host: {e}"), String::new())
    })?;
    if named.host == destination.host && named.port.is_none_or(|port| port == destination.port) {
        return Ok(());
    }
    Err(Refusal::new(
        EgressReason::Fronting,
        "egress-fronting",
        format!("the request is for {destination}, and its Host field names another"),
        "name one host everywhere, or set EGRESS_FRONTING=allow".to_owned(),
    ))
}
