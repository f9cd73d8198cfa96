//! CONNECT over HTTP/1.1 (RFC 9110 §9.3.6): decide, dial, answer, look at the first bytes inside, move the rest.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gate::egress::{Passage, Refusal};
use crate::ids::{Destination, EgressDoor, EgressReason};
use crate::net::conn::reset_on_drop;
use crate::net::tunnel;
use crate::proxy::forward::reach::{self, Failed};
use crate::proxy::forward::refuse::{self, Answer};
use crate::proxy::forward::relay::{self, Pinned};
use crate::proxy::forward::sniff::{self, Look};
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, tunnel_limits, write_all};
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::EgressEnd;
use crate::wire::sni;

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// Serves a CONNECT whose head has been taken from the buffer; what is left there belongs into the tunnel.
pub async fn serve(mut conn: Conn, destination: Destination, trace: Option<Vec<u8>>) {
    let mut visit = Visit::begin(&conn, EgressDoor::Connect);
    visit.trace(trace.as_deref());
    let reached = tokio::select! {
        biased;
        reached = leave(&conn.worker, &mut visit, &destination, None) => Some(reached),
        // A client that has broken off need not keep a place while a destination is silent.
        _ = conn.tcp.ready(Interest::ERROR) => None,
    };
    let (passage, upstream) = match reached {
        Some(Ok(reached)) => reached,
        Some(Err(answer)) => return conn.finish(&answer.bytes()).await,
        None => return,
    };
    visit.status = 200;
    let limits = tunnel_limits(&conn.worker, &passage);
    conn.deadline.set(limits.due());
    if !conn.write(ESTABLISHED).await {
        visit.end = Some(EgressEnd::ClientReset);
        return reset_on_drop(&upstream);
    }
    if conn.worker.shared.settings.egress.strict_names {
        let young = Young { conn, upstream, visit, to: destination, limits, sent: 0, hold: None };
        Box::pin(young.inspect()).await;
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

/// A tunnel whose client has not said yet what it speaks.
struct Young {
    conn: Conn,
    upstream: TcpStream,
    visit: Visit,
    to: Destination,
    limits: tunnel::Limits,
    /// Bytes of the buffer that have gone on.
    sent: usize,
    /// When what is held back has to be complete.
    hold: Option<Instant>,
}

enum Heard {
    Client,
    Upstream,
    /// The client has closed its side.
    End,
    /// It is over.
    Nobody(EgressEnd),
}

impl Young {
    /// Looks at what the client says first, then moves bytes; a tunnel that carries HTTP is relayed request by request.
    async fn inspect(mut self) {
        loop {
            match sniff::look(&self.conn.buffer, &self.to.host) {
                Look::Opaque => break,
                Look::Http => {
                    let Self { conn, upstream, visit, to: destination, sent: passed, .. } = self;
                    return Box::pin(relay::inside(conn, Pinned { destination, upstream, visit, passed }))
                        .await;
                }
                Look::Refuse(reason, message) => return self.refuse(reason, message).await,
                Look::Hold => {
                    let head = self.conn.worker.shared.settings.egress.head;
                    self.hold.get_or_insert_with(|| Instant::now() + head);
                }
                // The tunnel itself knows how to end at its bound.
                Look::Pass if self.limits.bytes > 0 && self.conn.buffer.len() as u64 >= self.limits.bytes => {
                    break;
                }
                Look::Pass => {
                    if let Err(end) = self.pass().await {
                        return self.broken(end);
                    }
                }
            }
            match self.heard().await {
                Heard::Client => {}
                // A server that speaks first, or to half a request, speaks no HTTP/1. A client that says no more has
                // named nobody.
                Heard::Upstream | Heard::End => break,
                Heard::Nobody(end) => return self.broken(end),
            }
        }
        self.conn.consume(self.sent);
        pump(self.conn, self.upstream, self.visit, self.limits.less(self.sent as u64)).await;
    }

    /// Sends on what is in the buffer.
    async fn pass(&mut self) -> Result<(), EgressEnd> {
        let Self { conn, upstream, visit, limits, sent, .. } = self;
        let rest = conn.buffer.get(*sent..).unwrap_or(&[]);
        conn.deadline.set(limits.due());
        if !write_all(&conn.worker, upstream, rest, &mut conn.deadline).await {
            let killed = conn.worker.shared.is_killed();
            return Err(if killed { EgressEnd::Drained } else { EgressEnd::UpstreamReset });
        }
        visit.sent += rest.len() as u64;
        *sent = conn.buffer.len();
        Ok(())
    }

    /// Neither side may take what it has for the whole.
    fn broken(mut self, end: EgressEnd) {
        self.visit.end = Some(end);
        reset_on_drop(&self.conn.tcp);
        reset_on_drop(&self.upstream);
    }

    async fn refuse(mut self, reason: EgressReason, message: String) {
        let hint = "name one host everywhere, or set EGRESS_FRONTING=allow".to_owned();
        self.visit.refused(&Refusal::new(reason, "egress-fronting", message, hint));
        reset_on_drop(&self.upstream);
        let tls = self.conn.buffer.first() == Some(&sniff::TLS_HANDSHAKE);
        let last = if tls { sni::alert(refuse::ACCESS_DENIED).to_vec() } else { Vec::new() };
        self.conn.finish(&last).await;
    }

    /// Waits for either side to say something; the client's bytes are read, the destination's stay in its socket.
    async fn heard(&mut self) -> Heard {
        let Self { conn: Conn { worker, tcp, deadline, buffer }, upstream, visit, limits, hold, .. } = self;
        let due = limits.due().min(hold.unwrap_or_else(|| limits.due()));
        deadline.set(visit.long.map_or(due, |long| long.min(due)));
        poll_fn(|cx| {
            if worker.shared.is_killed() {
                return Poll::Ready(Heard::Nobody(EgressEnd::Drained));
            }
            let read = worker.with_scratch(|scratch| {
                let mut into = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *tcp).poll_read(cx, &mut into))?;
                buffer.extend_from_slice(into.filled());
                Poll::Ready(std::io::Result::Ok(!into.filled().is_empty()))
            });
            match read {
                Poll::Ready(Ok(true)) => return Poll::Ready(Heard::Client),
                Poll::Ready(Ok(false)) => return Poll::Ready(Heard::End),
                Poll::Ready(Err(_)) => return Poll::Ready(Heard::Nobody(EgressEnd::ClientReset)),
                Poll::Pending => {}
            }
            if upstream.poll_read_ready(cx).is_ready() {
                return Poll::Ready(Heard::Upstream);
            }
            while deadline.poll(cx).is_ready() {
                let now = Instant::now();
                if now >= due {
                    let late = limits.until.is_some_and(|until| now >= until);
                    let end = if late { EgressEnd::Lifetime } else { EgressEnd::Idle };
                    return Poll::Ready(Heard::Nobody(end));
                }
                visit.goes_on(upstream);
                deadline.set(due);
            }
            Poll::Pending
        })
        .await
    }
}

/// Moves bytes until the tunnel ends; what was read from the client already goes first.
pub async fn pump(conn: Conn, upstream: TcpStream, mut visit: Visit, limits: tunnel::Limits) {
    let Conn { worker, tcp, mut deadline, buffer } = conn;
    let lend = |use_it: &mut dyn FnMut(&mut [u8])| worker.with_bulk(|bulk| use_it(bulk));
    let stop = || worker.shared.is_killed();
    if let Some(long) = visit.long {
        deadline.set(long);
    }
    let moved = {
        let mut moving = std::pin::pin!(tunnel::run(&tcp, &upstream, buffer, limits, lend, stop));
        let both = poll_fn(|cx| {
            if visit.long.is_some() && deadline.poll(cx).is_ready() {
                visit.goes_on(&upstream);
            }
            moving.as_mut().poll(cx)
        });
        both.await
    };
    // The peers learn of the end before it is written down.
    drop((tcp, upstream));
    visit.moved(&moved);
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
