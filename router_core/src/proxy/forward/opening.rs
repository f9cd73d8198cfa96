//! A tunnel's opening words: what the client says first is looked at before, or while, it goes on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gate::egress::Refusal;
use crate::ids::Host;
use crate::net::deadline::Deadline;
use crate::net::tunnel;
use crate::proxy::forward::sniff::{self, Look};
use crate::proxy::forward::write_all;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::EgressEnd;

/// What the opening came to.
pub enum Opening {
    /// Nothing that could be decided about: bytes move from here on.
    Opaque,
    /// An HTTP/1 request; the rest of its head may still be on its way.
    Http,
    /// It may not go on.
    Refused(Refusal),
    /// It ended before it had begun.
    Over(EgressEnd),
}

/// A client's side of a tunnel that was just opened.
pub struct Listener<'c, R> {
    /// The thread's own things.
    pub worker: &'c Worker,
    /// The client.
    pub client: &'c mut R,
    /// What the client has said so far.
    pub buffer: &'c mut Vec<u8>,
    /// Bytes of the buffer that have gone on.
    pub sent: usize,
    /// The connected destination.
    pub upstream: &'c mut TcpStream,
    /// The connection's timer.
    pub deadline: &'c mut Deadline,
}

impl<R: AsyncRead + Unpin> Listener<'_, R> {
    /// Listens until it is clear what is spoken in a tunnel to `host`. What is passed on meanwhile is counted in `sent`.
    /// Dropping the future loses nothing but that count.
    /// The time that it takes is taken off the limits.
    pub async fn listen(&mut self, host: &Host, limits: &mut tunnel::Limits) -> Opening {
        let until = limits.lifetime.map(|lifetime| Instant::now() + lifetime);
        let opening = self.hear(host, limits.idle, until).await;
        limits.lifetime = until.map(|until| until.saturating_duration_since(Instant::now()));
        opening
    }

    async fn hear(&mut self, host: &Host, idle: Duration, until: Option<Instant>) -> Opening {
        self.allow(idle, until);
        let mut held = false;
        loop {
            match sniff::look(self.buffer, host) {
                Look::Opaque => return Opening::Opaque,
                Look::Http => return Opening::Http,
                Look::Refuse(reason, message) => {
                    let hint = "name one host everywhere, or set EGRESS_FRONTING=allow".to_owned();
                    return Opening::Refused(Refusal::new(reason, "egress-fronting", message, hint));
                }
                // All of it has the time that a head has, however it comes.
                Look::Hold => {
                    if !std::mem::replace(&mut held, true) {
                        self.allow(self.worker.shared.settings.egress.head, until);
                    }
                }
                Look::Pass => {
                    let rest = self.buffer.get(self.sent..).unwrap_or(&[]);
                    if !write_all(self.worker, self.upstream, rest, self.deadline).await {
                        return Opening::Over(EgressEnd::UpstreamReset);
                    }
                    self.sent = self.buffer.len();
                    self.allow(idle, until);
                }
            }
            let Self { worker, client, buffer, upstream, deadline, .. } = self;
            match heard(worker, *client, buffer, (!held).then_some(&**upstream), deadline).await {
                Heard::Client => {}
                // A server that speaks first, or to half a request, speaks no HTTP/1.
                Heard::Upstream => return Opening::Opaque,
                Heard::Nobody if self.worker.shared.is_killed() => return Opening::Over(EgressEnd::Drained),
                Heard::Nobody => {
                    let late = until.is_some_and(|until| until <= Instant::now());
                    return Opening::Over(if late { EgressEnd::Lifetime } else { EgressEnd::Idle });
                }
                // What it has said may be all there is to say.
                Heard::Gone if self.sent == self.buffer.len() => return Opening::Opaque,
                Heard::Gone => return Opening::Over(EgressEnd::ClientReset),
            }
        }
    }

    fn allow(&mut self, time: Duration, until: Option<Instant>) {
        let at = Instant::now() + time;
        self.deadline.set(until.map_or(at, |until| until.min(at)));
    }
}

/// Who said something.
pub enum Heard {
    /// The client: its bytes are in the buffer.
    Client,
    /// The destination: its bytes, or its end, are still in its socket.
    Upstream,
    /// The client has closed its side.
    Gone,
    /// Nobody, for too long, or the router stops.
    Nobody,
}

/// Waits for either side to say something. The client's bytes are read into the buffer; the destination, where one is
/// given, is only looked at. Dropping the future loses nothing.
pub async fn heard<R: AsyncRead + Unpin>(
    worker: &Worker,
    client: &mut R,
    buffer: &mut Vec<u8>,
    upstream: Option<&TcpStream>,
    deadline: &mut Deadline,
) -> Heard {
    poll_fn(|cx| {
        if worker.shared.is_killed() {
            return Poll::Ready(Heard::Nobody);
        }
        let before = buffer.len();
        match poll_read(worker, client, buffer, cx) {
            Poll::Ready(Ok(())) if buffer.len() > before => return Poll::Ready(Heard::Client),
            Poll::Ready(_) => return Poll::Ready(Heard::Gone),
            Poll::Pending => {}
        }
        // Readiness alone may be a false alarm.
        let mut byte = [0; 1];
        let spoke = |upstream: &TcpStream| upstream.poll_peek(cx, &mut ReadBuf::new(&mut byte)).is_ready();
        if upstream.is_some_and(spoke) {
            return Poll::Ready(Heard::Upstream);
        }
        deadline.poll(cx).map(|()| Heard::Nobody)
    })
    .await
}

/// Reads once through the thread's buffer; nothing is appended at the end.
pub fn poll_read<R: AsyncRead + Unpin>(
    worker: &Worker,
    from: &mut R,
    into: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<()>> {
    worker.with_scratch(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        into.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    })
}
