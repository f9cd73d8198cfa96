//! The egress proxy: the only way out of the sandbox. A connection comes in by one of its doors (CONNECT, a plain HTTP
//! request, redirected TLS), the gate decides, the destination's addresses are classified, and exactly one of those is
//! dialled.

mod connect;
pub mod feeds;
pub mod fetch;
mod h2;
pub mod outbound;
pub mod reach;
mod refuse;
mod relay;
mod sniff;
mod tls;
mod visit;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::gate::egress::{Passage, Refusal};
use crate::ids::{EgressDoor, EgressReason};
use crate::net::deadline::Deadline;
use crate::net::tunnel;
use crate::proxy::account::unix_time;
use crate::proxy::worker::Worker;
use crate::wire::sni;

use visit::Visit;

/// How long a client that was refused may take to read why, and how much it may still send meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 64;

/// Serves one connection of the egress port to its end.
pub async fn serve(worker: Rc<Worker>, tcp: TcpStream) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let _enlisted = worker.enlist(&waker);
    let place = Place::take(&worker);
    let deadline = Deadline::new(worker.shared.settings.egress.head);
    let mut conn = Conn { worker, tcp, deadline, buffer: Vec::new() };
    let Some(_place) = place else { return busy(conn).await };
    // A slow head is the client's own loss: nothing was asked for yet, so nothing is told but to an HTTP client.
    match conn.read_some().await {
        Ok(true) => {}
        _ => return,
    }
    if conn.buffer.first() == Some(&sniff::TLS_HANDSHAKE) {
        return Box::pin(tls::serve(conn)).await;
    }
    while conn.buffer.len() < h2::PREFACE.len() && h2::PREFACE.starts_with(&conn.buffer) {
        if !conn.read_some().await.unwrap_or(false) {
            return;
        }
    }
    if conn.buffer.starts_with(h2::PREFACE) {
        return Box::pin(h2::serve(conn)).await;
    }
    relay::serve(conn).await;
}

/// One of the connections, or of the tunnels on an HTTP/2 connection, that may be open at one time; given back on drop.
struct Place(Rc<Worker>);

impl Place {
    /// `None` when there is none: a connection that is told so takes no place from others meanwhile.
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let most = worker.shared.settings.egress.max_connections;
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let taken = &worker.shared.egress_connections;
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(Rc::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared.egress_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells a client above the bound of connections to come back.
async fn busy(mut conn: Conn) {
    // Which tongue it speaks shows in its first byte; one that is not there yet need not be waited for long.
    conn.deadline.set_after(LINGER);
    let said = conn.read_some().await.unwrap_or(false);
    let tls = said && conn.buffer.first() == Some(&sniff::TLS_HANDSHAKE);
    let refusal = full(&conn.worker);
    let mut visit = Visit::begin(&conn, if tls { EgressDoor::Tls } else { EgressDoor::Connect });
    visit.refused(&refusal);
    if tls {
        conn.finish(&sni::alert(refuse::INTERNAL_ERROR)).await;
    } else {
        let answer = refuse::denied(&refusal, &visit);
        conn.finish(&answer.bytes()).await;
    }
}

/// Why there is no place.
fn full(worker: &Worker) -> Refusal {
    let most = worker.shared.settings.egress.max_connections;
    Refusal::new(
        EgressReason::Slots,
        "EGRESS_MAX_CONNECTIONS",
        format!("the egress proxy has {most} connections open, as many as it may"),
        "try again in a moment".to_owned(),
    )
}

/// A client's connection.
struct Conn {
    worker: Rc<Worker>,
    tcp: TcpStream,
    deadline: Deadline,
    /// Bytes read and not used yet.
    buffer: Vec<u8>,
}

impl Conn {
    /// Reads once into the buffer; `false` when the client has closed or the router stops. Fails when the deadline
    /// passes.
    async fn read_some(&mut self) -> Result<bool> {
        let Self { worker, tcp, deadline, buffer, .. } = self;
        poll_fn(|cx| {
            if worker.shared.is_killed() {
                return Poll::Ready(Ok(false));
            }
            let read = worker.with_scratch(|scratch| {
                let mut into = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *tcp).poll_read(cx, &mut into))?;
                if buffer.capacity() == 0 && !into.filled().is_empty() {
                    *buffer = worker.take_buffer();
                }
                buffer.extend_from_slice(into.filled());
                Poll::Ready(io::Result::Ok(!into.filled().is_empty()))
            });
            match read {
                Poll::Ready(more) => Poll::Ready(Ok(more.unwrap_or(false))),
                Poll::Pending => deadline.poll(cx).map(|()| Err(too_slow())),
            }
        })
        .await
    }

    /// Drops the first `used` bytes of the buffer; a connection that waits holds none.
    fn consume(&mut self, used: usize) {
        if used >= self.buffer.len() {
            self.worker.give_buffer(std::mem::take(&mut self.buffer));
        } else {
            self.buffer.drain(..used);
        }
    }

    /// Writes all of `bytes` to the client within the deadline; `false` when that failed.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        write_all(&self.worker, &mut self.tcp, bytes, &mut self.deadline).await
    }

    /// Says a last word and closes, so that the client reads it even while it still sends: a close with unread
    /// bytes would be a reset, and take the word back.
    async fn finish(mut self, last: &[u8]) {
        self.deadline.set_after(LINGER);
        if !self.write(last).await {
            return;
        }
        // An error here means that the peer is gone, which is what we wait for.
        let _ = SockRef::from(&self.tcp).shutdown(std::net::Shutdown::Write);
        for _ in 0..LINGER_READS {
            self.buffer.clear();
            if !self.read_some().await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Where a redirected connection was going (netfilter's `SO_ORIGINAL_DST`); `None` when it came straight to us.
    fn original(&self) -> Option<SocketAddr> {
        let socket = SockRef::from(&self.tcp);
        let local = self.tcp.local_addr().ok()?;
        let found = if local.ip().to_canonical().is_ipv4() {
            socket.original_dst_v4()
        } else {
            socket.original_dst_v6()
        };
        found.ok()?.as_socket().filter(|original| *original != local)
    }
}

/// What a tunnel under `passage` may use: an approval's end is the tunnel's, too.
fn tunnel_limits(worker: &Worker, passage: &Passage) -> tunnel::Limits {
    let settings = &worker.shared.settings.egress;
    let granted = passage.expires_at().map(|at| Duration::from_secs(at).saturating_sub(unix_time()));
    let until = settings.lifetime.into_iter().chain(granted).min().map(|life| Instant::now() + life);
    let bytes = if passage.max_bytes() == 0 { settings.max_bytes } else { passage.max_bytes() };
    tunnel::Limits { idle: settings.idle, until, bytes }
}

/// Writes all of `bytes` within the deadline; `false` when the peer does not take them, or the router stops.
async fn write_all(worker: &Worker, tcp: &mut TcpStream, bytes: &[u8], deadline: &mut Deadline) -> bool {
    let mut at = 0;
    poll_fn(|cx| {
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if worker.shared.is_killed() {
                return Poll::Ready(false);
            }
            match Pin::new(&mut *tcp).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => at += n,
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => return deadline.poll(cx).map(|()| false),
            }
        }
        Poll::Ready(true)
    })
    .await
}

fn too_slow() -> Error {
    Error::new(Kind::BadRequest, "the request did not arrive in time")
}
