//! A tunnel's opening words: what the client says first is looked at before, or while, it goes on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gate::egress::Refusal;
use crate::ids::Host;
use crate::net::deadline::Deadline;
use crate::net::tunnel;
use crate::proxy::forward::sniff::{self, Look};
use crate::proxy::forward::visit::Visit;
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
pub struct Listener<'c> {
    /// The thread's own things.
    pub worker: &'c Worker,
    /// The client.
    pub client: &'c mut TcpStream,
    /// What the client has said so far.
    pub buffer: &'c mut Vec<u8>,
    /// Bytes of the buffer that have gone on; the visit has them counted.
    pub sent: usize,
    /// The connected destination.
    pub upstream: &'c mut TcpStream,
    /// The connection's timer.
    pub deadline: &'c mut Deadline,
    /// What the tunnel may use.
    pub limits: &'c tunnel::Limits,
    /// The tunnel's account.
    pub visit: &'c mut Visit,
}

impl Listener<'_> {
    /// Listens until it is clear what is spoken in a tunnel to `host`; what does no harm goes on meanwhile.
    pub async fn listen(&mut self, host: &Host) -> Opening {
        let mut hold = None;
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
                    let head = self.worker.shared.settings.egress.head;
                    hold.get_or_insert_with(|| Instant::now() + head);
                }
                // The tunnel itself knows how to end at its bound.
                Look::Pass if self.limits.bytes > 0 && self.buffer.len() as u64 >= self.limits.bytes => {
                    return Opening::Opaque;
                }
                Look::Pass => {
                    if !self.pass().await {
                        return Opening::Over(self.killed().unwrap_or(EgressEnd::UpstreamReset));
                    }
                }
            }
            match self.wait(hold).await {
                Heard::Client => {}
                // A server that speaks first, or to half a request, speaks no HTTP/1. What a client has said may be
                // all there is to say, but nothing that is held back is passed on for that.
                Heard::End if hold.is_some() => return Opening::Over(EgressEnd::ClientReset),
                Heard::Upstream | Heard::End => return Opening::Opaque,
                Heard::Broken => return Opening::Over(EgressEnd::ClientReset),
                Heard::Lost => return Opening::Over(EgressEnd::UpstreamReset),
                Heard::Nobody => {
                    let late = self.limits.until.is_some_and(|until| until <= Instant::now());
                    let end = if late { EgressEnd::Lifetime } else { EgressEnd::Idle };
                    return Opening::Over(self.killed().unwrap_or(end));
                }
            }
        }
    }

    /// Sends on what is in the buffer; `false` when it is not taken.
    async fn pass(&mut self) -> bool {
        let rest = self.buffer.get(self.sent..).unwrap_or(&[]);
        self.deadline.set(self.limits.due());
        if !write_all(self.worker, self.upstream, rest, self.deadline).await {
            return false;
        }
        self.visit.sent += rest.len() as u64;
        self.sent = self.buffer.len();
        true
    }

    /// Waits for either side. While bytes are held back, only the client can say what they are.
    async fn wait(&mut self, hold: Option<Instant>) -> Heard {
        let due = self.limits.due();
        let due = hold.map_or(due, |hold| hold.min(due));
        loop {
            self.deadline.set(self.visit.long.map_or(due, |long| long.min(due)));
            let upstream = hold.is_none().then_some(&*self.upstream);
            let heard = heard(self.worker, self.client, self.buffer, upstream, self.deadline).await;
            if !matches!(heard, Heard::Nobody) || self.killed().is_some() || Instant::now() >= due {
                return heard;
            }
            self.visit.goes_on(self.upstream);
        }
    }

    fn killed(&self) -> Option<EgressEnd> {
        self.worker.shared.is_killed().then_some(EgressEnd::Drained)
    }
}

/// Who said something.
pub enum Heard {
    /// The client: its bytes are in the buffer.
    Client,
    /// The destination: its bytes, or its end, are still in its socket.
    Upstream,
    /// The destination has broken off.
    Lost,
    /// The client has closed its side.
    End,
    /// The client has broken off.
    Broken,
    /// Nobody, for too long, or the router stops.
    Nobody,
}

/// Waits for either side to say something. The client's bytes are read into the buffer; the destination, where one is
/// given, is only looked at. Dropping the future loses nothing.
pub async fn heard(
    worker: &Worker,
    client: &mut TcpStream,
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
            Poll::Ready(Ok(())) => return Poll::Ready(Heard::End),
            Poll::Ready(Err(_)) => return Poll::Ready(Heard::Broken),
            Poll::Pending => {}
        }
        // Readiness alone may be a false alarm.
        let mut byte = [0; 1];
        let mut peek = |upstream: &TcpStream| upstream.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        match upstream.map_or(Poll::Pending, &mut peek) {
            Poll::Ready(Ok(_)) => return Poll::Ready(Heard::Upstream),
            Poll::Ready(Err(_)) => return Poll::Ready(Heard::Lost),
            Poll::Pending => {}
        }
        deadline.poll(cx).map(|()| Heard::Nobody)
    })
    .await
}

/// Reads once through the thread's buffer; nothing is appended at the end.
fn poll_read(
    worker: &Worker,
    from: &mut TcpStream,
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
