//! One tunnel of an HTTP/2 connection: DATA frames on one side, a socket on the other.

use std::future::poll_fn;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gate::egress::Refusal;
use crate::ids::{Destination, EgressReason};
use crate::net::conn::reset_on_drop;
use crate::net::deadline::Deadline;
use crate::net::tunnel;
use crate::proxy::forward::sniff::{self, Look};
use crate::proxy::forward::visit::Visit;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::EgressEnd;

/// A tunnel. Dropping it resets the destination.
pub struct Stream {
    up: Up,
    down: Down,
    upstream: TcpStream,
    limits: tunnel::Limits,
    /// Bytes that may still move.
    allowance: u64,
}

/// From the client to the destination.
struct Up {
    body: RecvStream,
    unsent: Bytes,
    /// What was said so far, while it is not clear what the client speaks.
    said: Option<Said>,
    ended: bool,
    done: bool,
    excess: bool,
    moved: u64,
}

/// From the destination to the client.
struct Down {
    send: SendStream<Bytes>,
    done: bool,
    moved: u64,
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    /// How much of it has gone on.
    passed: usize,
    /// Since when the rest is held back.
    held: Option<Instant>,
}

/// Why a tunnel did not end in good order.
enum Broken {
    Client,
    Upstream,
    Excess,
    Names(EgressReason, String),
}

impl Stream {
    pub fn new(
        body: RecvStream,
        send: SendStream<Bytes>,
        upstream: TcpStream,
        limits: tunnel::Limits,
    ) -> Self {
        reset_on_drop(&upstream);
        let up =
            Up { body, unsent: Bytes::new(), said: None, ended: false, done: false, excess: false, moved: 0 };
        let allowance = if limits.bytes == 0 { u64::MAX } else { limits.bytes };
        Self { up, down: Down { send, done: false, moved: 0 }, upstream, limits, allowance }
    }

    /// Moves bytes both ways until both sides have ended, and tells `visit`.
    pub async fn run(mut self, worker: &Worker, mut visit: Visit, to: &Destination) {
        if worker.shared.settings.egress.strict_names {
            self.up.said = Some(Said::default());
        }
        let ended = self.pump(worker, &mut visit, to).await;
        visit.sent += self.up.moved;
        visit.received += self.down.moved;
        let reason = match ended {
            Ok(EgressEnd::Complete) => {
                // A refusal costs the destination its last bytes only where it has not read them by now.
                let _ = SockRef::from(&self.upstream).set_linger(None);
                visit.end = Some(EgressEnd::Complete);
                return;
            }
            Ok(end) => {
                visit.end = Some(end);
                // RFC 9113 §8.5: what happens to the TCP connection is told by this code.
                if end == EgressEnd::UpstreamReset { Reason::CONNECT_ERROR } else { Reason::CANCEL }
            }
            Err(refusal) => {
                visit.refused(&refusal);
                Reason::CANCEL
            }
        };
        self.down.send.send_reset(reason);
    }

    async fn pump(
        &mut self,
        worker: &Worker,
        visit: &mut Visit,
        to: &Destination,
    ) -> Result<EgressEnd, Refusal> {
        let mut timer = Deadline::at(self.limits.due());
        let (mut due, mut moved) = (self.limits.due(), 0);
        poll_fn(|cx| {
            if worker.shared.is_killed() {
                return Poll::Ready(Ok(EgressEnd::Drained));
            }
            match self.poll_both(worker, to, cx) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(EgressEnd::Complete)),
                Err(Broken::Client) => return Poll::Ready(Ok(EgressEnd::ClientReset)),
                Err(Broken::Upstream) => return Poll::Ready(Ok(EgressEnd::UpstreamReset)),
                Err(Broken::Excess) => return Poll::Ready(Ok(EgressEnd::Bytes)),
                Err(Broken::Names(reason, message)) => {
                    let hint = "name one host everywhere, or set EGRESS_FRONTING=allow".to_owned();
                    return Poll::Ready(Err(Refusal::new(reason, "egress-fronting", message, hint)));
                }
            }
            if self.up.moved + self.down.moved > moved {
                moved = self.up.moved + self.down.moved;
                due = self.limits.due();
            }
            let patience = worker.shared.settings.egress.head;
            let held = self.up.said.as_ref().and_then(|said| said.held);
            let due = held.map_or(due, |since| due.min(since + patience));
            loop {
                timer.set(visit.long.map_or(due, |long| long.min(due)));
                ready!(timer.poll(cx));
                let now = Instant::now();
                if now >= due {
                    let late = self.limits.until.is_some_and(|until| now >= until);
                    return Poll::Ready(Ok(if late { EgressEnd::Lifetime } else { EgressEnd::Idle }));
                }
                visit.goes_on(&self.upstream);
            }
        })
        .await
    }

    /// Moves what can be moved now; `true` once both sides have ended.
    fn poll_both(&mut self, worker: &Worker, to: &Destination, cx: &mut Context<'_>) -> Result<bool, Broken> {
        let Self { up, down, upstream, allowance, .. } = self;
        if let Poll::Ready(Err(broken)) = up.poll(upstream, to, allowance, cx) {
            return Err(broken);
        }
        if let Poll::Ready(Err(broken)) = down.poll(worker, upstream, allowance, cx) {
            return Err(broken);
        }
        if up.done && down.done {
            return Ok(true);
        }
        // Seen even while nothing can be read or written.
        if down.send.poll_reset(cx).is_ready() { Err(Broken::Client) } else { Ok(false) }
    }
}

impl Up {
    fn poll(
        &mut self,
        upstream: &mut TcpStream,
        to: &Destination,
        allowance: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            while !self.unsent.is_empty() {
                let n = ready!(Pin::new(&mut *upstream).poll_write(cx, &self.unsent))
                    .map_err(|_| Broken::Upstream)?;
                self.unsent.advance(n);
                self.moved += n as u64;
                // Fails only for more than was received.
                let _ = self.body.flow_control().release_capacity(n);
            }
            if self.excess {
                return Poll::Ready(Err(Broken::Excess));
            }
            if self.ended {
                if !self.done {
                    SockRef::from(&*upstream).shutdown(Shutdown::Write).map_err(|_| Broken::Upstream)?;
                    self.done = true;
                }
                return Poll::Ready(Ok(()));
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(bytes)) => self.take(bytes, to, allowance)?,
                Some(Err(_)) => return Poll::Ready(Err(Broken::Client)),
                None => {
                    // Who says no more has named nobody.
                    self.ended = true;
                    self.pass();
                }
            }
        }
    }

    /// Takes what the client has sent, as far as it may move.
    fn take(&mut self, mut bytes: Bytes, to: &Destination, allowance: &mut u64) -> Result<(), Broken> {
        let most = usize::try_from(*allowance).unwrap_or(usize::MAX);
        self.excess = bytes.len() > most;
        bytes.truncate(most);
        *allowance -= bytes.len() as u64;
        let Some(said) = &mut self.said else {
            self.unsent = bytes;
            return Ok(());
        };
        said.bytes.extend_from_slice(&bytes);
        match sniff::look(&said.bytes, &to.host) {
            Look::Hold => {
                said.held.get_or_insert_with(Instant::now);
            }
            Look::Pass => self.pass(),
            Look::Opaque => {
                self.pass();
                self.said = None;
            }
            Look::Refuse(reason, message) => return Err(Broken::Names(reason, message)),
            Look::Http => {
                let what = "cleartext HTTP inside an HTTP/2 tunnel is not relayed; use CONNECT over HTTP/1.1";
                return Err(Broken::Names(EgressReason::Fronting, what.to_owned()));
            }
        }
        Ok(())
    }

    /// Lets go on what was held back.
    fn pass(&mut self) {
        if let Some(said) = &mut self.said {
            self.unsent = Bytes::copy_from_slice(said.bytes.get(said.passed..).unwrap_or(&[]));
            said.passed = said.bytes.len();
        }
    }
}

impl Down {
    fn poll(
        &mut self,
        worker: &Worker,
        upstream: &mut TcpStream,
        allowance: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.done {
            if self.send.capacity() == 0 && ready!(self.poll_peek(upstream, cx))? {
                self.end()?;
                break;
            }
            let room = self.send.capacity().min(usize::try_from(*allowance).unwrap_or(usize::MAX)).max(1);
            let read = worker.with_scratch(|scratch| {
                let most = room.min(scratch.len());
                let mut into = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
                Pin::new(&mut *upstream)
                    .poll_read(cx, &mut into)
                    .map_ok(|()| Bytes::copy_from_slice(into.filled()))
            });
            match read {
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => self.end()?,
                Poll::Ready(Ok(_)) if *allowance == 0 => return Poll::Ready(Err(Broken::Excess)),
                Poll::Ready(Ok(bytes)) => {
                    *allowance -= bytes.len() as u64;
                    self.moved += bytes.len() as u64;
                    self.send.send_data(bytes, false).map_err(|_| Broken::Client)?;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Upstream)),
                Poll::Pending => {
                    // Room that is not used is others'.
                    self.send.reserve_capacity(0);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Asks for room only where there is something to send; ready with `true` at the destination's end, which needs none.
    fn poll_peek(&mut self, upstream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        let mut byte = [0; 1];
        let ahead = ready!(upstream.poll_peek(cx, &mut ReadBuf::new(&mut byte)));
        if ahead.map_err(|_| Broken::Upstream)? == 0 {
            return Poll::Ready(Ok(true));
        }
        self.send.reserve_capacity(super::SEND_BYTES);
        while self.send.capacity() == 0 {
            if !matches!(ready!(self.send.poll_capacity(cx)), Some(Ok(_))) {
                return Poll::Ready(Err(Broken::Client));
            }
        }
        Poll::Ready(Ok(false))
    }

    fn end(&mut self) -> Result<(), Broken> {
        self.done = true;
        self.send.send_data(Bytes::new(), true).map_err(|_| Broken::Client)
    }
}
