//! CONNECT over HTTP/1.1 (RFC 9110 §9.3.6): decide, dial, answer, look at the first bytes inside, move the rest.

use std::future::{Future as _, poll_fn};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::gate::egress::{Passage, Refusal};
use crate::ids::{Destination, EgressDoor, EgressReason};
use crate::net::conn::reset_on_drop;
use crate::net::tunnel;
use crate::proxy::forward::opening::{Listener, Opening};
use crate::proxy::forward::reach::{self, Failed};
use crate::proxy::forward::refuse::{self, Answer};
use crate::proxy::forward::relay::{self, Pinned};
use crate::proxy::forward::sniff;
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, tunnel_limits};
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
    let upstream = dial(worker, visit, destination, &passage).await?;
    Ok((passage, upstream))
}

/// Connects under a leave; the error is the answer to send.
pub async fn dial(
    worker: &Worker,
    visit: &mut Visit,
    destination: &Destination,
    passage: &Passage,
) -> Result<TcpStream, Answer> {
    match reach::open(worker, destination, passage).await {
        Ok((upstream, address)) => {
            visit.connected(address);
            Ok(upstream)
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
    let Conn { worker, tcp, deadline, buffer } = &mut conn;
    let mut listener = Listener {
        worker,
        client: tcp,
        buffer,
        sent: 0,
        upstream: &mut upstream,
        deadline,
        limits: &limits,
        visit: &mut visit,
    };
    let opening = listener.listen(&to.host).await;
    let sent = listener.sent;
    match opening {
        Opening::Opaque => {
            conn.consume(sent);
            pump(conn, upstream, visit, limits.less(sent as u64)).await;
        }
        Opening::Http => {
            let pinned = Pinned { destination: to, upstream, visit, passed: sent };
            Box::pin(relay::inside(conn, pinned)).await;
        }
        Opening::Refused(refusal) => {
            visit.refused(&refusal);
            reset_on_drop(&upstream);
            let tls = conn.buffer.first() == Some(&sniff::TLS_HANDSHAKE);
            let last = if tls { sni::alert(refuse::ACCESS_DENIED).to_vec() } else { Vec::new() };
            conn.finish(&last).await;
        }
        Opening::Over(end) => {
            // Neither side may take what it has for the whole.
            visit.end = Some(end);
            reset_on_drop(&conn.tcp);
            reset_on_drop(&upstream);
        }
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
