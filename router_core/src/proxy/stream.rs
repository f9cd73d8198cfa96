//! Moves an answer from the upstream to the client while it arrives: one write per read, whole events only,
//! keepalives in silences, a typed error when it breaks.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Step};
use crate::ids::Dialect;
use crate::net::deadline::Deadline;
use crate::proxy::client::Client;
use crate::proxy::sink::{Sink, Stop};
use crate::proxy::upstream::Source;
use crate::proxy::worker::Worker;
use crate::settings::Timeouts;

/// The waits of one call, measured against one timer.
#[derive(Debug)]
pub struct Watch<'t> {
    timeouts: &'t Timeouts,
    dialect: Dialect,
    started: Instant,
    /// Last byte from the upstream.
    heard: Instant,
    /// Last byte to the client, where silence matters.
    told: Instant,
    stalled: Option<Instant>,
    step: Step,
    /// Whether a keepalive may be sent.
    stream: bool,
}

impl<'t> Watch<'t> {
    /// A watch over a call that began at `started`; `stream` when the client asked for events.
    pub fn new(timeouts: &'t Timeouts, dialect: Dialect, started: Instant, stream: bool) -> Self {
        Self {
            timeouts,
            dialect,
            started,
            heard: started,
            told: started,
            stalled: None,
            step: Step::FirstByte,
            stream,
        }
    }

    /// Starts the wait for an answer's head.
    pub fn await_head(&mut self) {
        self.heard = Instant::now();
        self.step = Step::FirstByte;
    }

    /// Starts the wait for an answer's body.
    pub fn await_body(&mut self, events: bool) {
        self.heard = Instant::now();
        self.told = self.heard;
        self.step = Step::Idle;
        self.stream = events;
    }

    fn silence(&self) -> Duration {
        if self.step == Step::FirstByte { self.timeouts.first_byte } else { self.timeouts.idle }
    }

    fn next(&self) -> Instant {
        let mut next = self.heard + self.silence();
        if let Some(total) = self.timeouts.total {
            next = next.min(self.started + total);
        }
        if let Some(since) = self.stalled {
            next = next.min(since + self.timeouts.client_stall);
        } else if let Some(keepalive) = self.timeouts.keepalive.filter(|_| self.stream) {
            next = next.min(self.told + keepalive);
        }
        next
    }

    /// Looks at the clock: what is overdue now?
    fn poll(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline) -> Poll<Due> {
        deadline.set(self.next());
        if deadline.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if self.timeouts.total.is_some_and(|total| now >= self.started + total) {
            return Poll::Ready(Due::Stop(timed_out(Step::Total, "the call took longer than its bound")));
        }
        if self.stalled.is_some_and(|since| now >= since + self.timeouts.client_stall) {
            return Poll::Ready(Due::Stop(Stop::Gone));
        }
        if self.stalled.is_none() && now >= self.heard + self.silence() {
            let detail = match self.step {
                Step::FirstByte => "the upstream sent no response head in time",
                _ => "the upstream fell silent inside its answer",
            };
            return Poll::Ready(Due::Stop(timed_out(self.step, detail)));
        }
        self.told = now;
        Poll::Ready(Due::Keepalive)
    }
}

enum Due {
    Keepalive,
    Stop(Stop),
}

fn timed_out(step: Step, detail: &str) -> Stop {
    Stop::Failed(Error::new(Kind::Timeout(step), detail))
}

fn killed() -> Stop {
    Stop::Failed(Error::new(
        Kind::NotReady,
        "the router is shutting down and the grace for this call is over",
    ))
}

/// A comment that keeps intermediaries from cutting a silent stream; Anthropic has an event for it.
fn keepalive(dialect: Dialect) -> &'static [u8] {
    match dialect {
        Dialect::OpenAi => b": keepalive\n\n",
        Dialect::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
    }
}

/// Waits for `future` (connecting, sending, the answer's head) while watching the client and the clock.
/// A streamed call that has waited for the keepalive interval is committed by `commit`, which starts the
/// answer. Dropping `future` on the way out resets the upstream.
pub async fn until_head<T>(
    worker: &Worker,
    client: &mut Client,
    deadline: &mut Deadline,
    watch: &mut Watch<'_>,
    commit: &mut dyn FnMut(&mut Client),
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Stop> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if worker.shared.is_killed() {
            return Poll::Ready(Err(killed()));
        }
        if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
            return Poll::Ready(outcome.map_err(Stop::Failed));
        }
        loop {
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Stop::Gone));
            }
            match client.poll_flush(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Gone)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            match watch.poll(cx, deadline) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Due::Stop(stop)) => return Poll::Ready(Err(stop)),
                Poll::Ready(Due::Keepalive) => {
                    if !client.committed() {
                        commit(client);
                    }
                    client.push(keepalive(watch.dialect));
                }
            }
        }
    })
    .await
}

/// Writes out what is pending of an answer, for as long as the client takes it.
pub async fn flush(
    worker: &Worker,
    client: &mut Client,
    deadline: &mut Deadline,
    watch: &mut Watch<'_>,
) -> Result<(), Stop> {
    poll_fn(|cx| match client.poll_flush(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(_)) => Poll::Ready(Err(Stop::Gone)),
        Poll::Pending if worker.shared.is_killed() => Poll::Ready(Err(killed())),
        Poll::Pending => {
            watch.stalled.get_or_insert_with(Instant::now);
            match watch.poll(cx, deadline) {
                Poll::Ready(Due::Stop(stop)) => Poll::Ready(Err(stop)),
                _ => Poll::Pending,
            }
        }
    })
    .await
}

/// Moves the answer's body through `sink` to the client until it has ended. Its last bytes are left to
/// [`flush`], so that the call can be settled and recorded before the client knows that it is over.
pub async fn relay(
    worker: &Worker,
    client: &mut Client,
    deadline: &mut Deadline,
    watch: &mut Watch<'_>,
    source: &mut Source,
    sink: &mut Sink<'_>,
) -> Result<(), Stop> {
    poll_fn(|cx| {
        if worker.shared.is_killed() {
            return Poll::Ready(Err(killed()));
        }
        loop {
            // While the client does not read, neither do we: the upstream slows down too.
            let mut again = watch.stalled.is_some();
            if !again {
                match pump(cx, worker, client, source, sink) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(false)) => {
                        watch.heard = Instant::now();
                        watch.told = watch.heard;
                        again = true;
                    }
                    Poll::Ready(Err(stop)) => return Poll::Ready(Err(stop)),
                    Poll::Pending => {}
                }
            }
            // One write per read: the head leaves with the first content.
            match client.poll_flush(cx) {
                Poll::Ready(Ok(())) => watch.stalled = None,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Gone)),
                Poll::Pending => {
                    watch.stalled.get_or_insert_with(Instant::now);
                    return match watch.poll(cx, deadline) {
                        Poll::Ready(Due::Stop(stop)) => Poll::Ready(Err(stop)),
                        _ => Poll::Pending,
                    };
                }
            }
            if again {
                continue;
            }
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Stop::Gone));
            }
            match watch.poll(cx, deadline) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Due::Stop(stop)) => return Poll::Ready(Err(stop)),
                Poll::Ready(Due::Keepalive) => sink.keepalive(client, keepalive(watch.dialect)),
            }
        }
    })
    .await
}

/// One read from the upstream, taken in by the sink.
fn pump(
    cx: &mut Context<'_>,
    worker: &Worker,
    client: &mut Client,
    source: &mut Source,
    sink: &mut Sink<'_>,
) -> Poll<Result<bool, Stop>> {
    worker.with_content(|content| {
        let whole = std::task::ready!(source.poll_content(cx, worker, content));
        // What came before a break still counts.
        sink.take(content, client)?;
        let whole = whole.map_err(Stop::Failed)?;
        if whole {
            sink.end(client)?;
        }
        Poll::Ready(Ok(whole))
    })
}
