//! Moves bytes between two sockets until both directions have ended.

mod direction;
mod pipes;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use self::direction::{Broken, Direction, Scratch, Tuning, Turn};
use crate::net::conn::reset_on_drop;
use crate::net::deadline::Deadline;

/// Length of the buffer that tunnels of a thread share, 512 KiB. Each read lets the sender go on, and its next segments
/// are then made on this thread: by 64 or 128 KiB a byte costs twice, by 256 KiB 1.3 times what it costs by 512 KiB;
/// more than that gains nothing.
pub const BUFFER_BYTES: usize = 512 * 1024;

/// What a tunnel may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Silence in both directions.
    pub idle: Duration,
    /// When its life ends, whatever moves; `None` for no bound.
    pub until: Option<Instant>,
    /// Bytes in both directions together; 0 for no bound.
    pub bytes: u64,
}

impl Limits {
    /// When it ends if nothing moves from now on.
    pub fn due(&self) -> Instant {
        let idle = Instant::now() + self.idle;
        self.until.map_or(idle, |until| until.min(idle))
    }

    /// What is left when so many bytes have moved; never none at all, for 0 is no bound.
    #[must_use]
    pub fn less(self, moved: u64) -> Self {
        let bytes = if self.bytes == 0 { 0 } else { self.bytes.saturating_sub(moved).max(1) };
        Self { bytes, ..self }
    }
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides ended in good order.
    Complete,
    /// The client broke off.
    ClientReset,
    /// The destination broke off.
    UpstreamReset,
    /// Nothing moved for too long.
    Idle,
    /// It lived too long.
    Lifetime,
    /// It moved too much.
    Bytes,
    /// The router stops.
    Drained,
}

/// What a tunnel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Bytes from the client to the destination.
    pub sent: u64,
    /// Bytes from the destination to the client.
    pub received: u64,
    /// How it ended.
    pub end: End,
}

/// The two sockets; their close will be a reset unless the tunnel completed.
struct Ends<'a> {
    client: &'a TcpStream,
    upstream: &'a TcpStream,
    complete: bool,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if !self.complete {
            reset_on_drop(self.client);
            reset_on_drop(self.upstream);
        }
    }
}

/// Moves bytes both ways until both sides have closed (a half-close is passed on and kept), a limit is met, or `stop`
/// says so; it is asked whenever the task is woken. Neither direction waits for the other. Both sockets are to have
/// `TCP_NODELAY`, as `listener` and `dial` give it. `early` goes to the
/// destination first: what the client sent behind its request. `scratch` lends the thread's large buffer for one read
/// and write ([`BUFFER_BYTES`] is best); a direction that carries bulk moves to splice(2). An idle tunnel holds no
/// buffer; one whose reader stalls holds at most the buffer's length or a pipe's.
///
/// The caller closes the sockets. After an end that is not `Complete`, and after dropping the future, that is a reset, so
/// that neither side takes what it has for the whole.
pub async fn run(
    client: &TcpStream,
    upstream: &TcpStream,
    early: Vec<u8>,
    limits: Limits,
    scratch: impl Fn(&mut dyn FnMut(&mut [u8])),
    stop: impl Fn() -> bool,
) -> Moved {
    carry(client, upstream, early, limits, Tuning::default(), &scratch, stop).await
}

async fn carry(
    client: &TcpStream,
    upstream: &TcpStream,
    early: Vec<u8>,
    limits: Limits,
    tuning: Tuning,
    scratch: Scratch<'_>,
    stop: impl Fn() -> bool,
) -> Moved {
    let mut ends = Ends { client, upstream, complete: false };
    let moved = {
        let mut tunnel = Tunnel::new(ends.client, ends.upstream, early, limits, tuning);
        let end =
            poll_fn(|cx| if stop() { Poll::Ready(End::Drained) } else { tunnel.poll(cx, scratch) }).await;
        Moved { sent: tunnel.up.moved, received: tunnel.down.moved, end }
    };
    ends.complete = moved.end == End::Complete;
    moved
}

/// Both directions and what bounds them.
struct Tunnel<'a> {
    up: Direction<'a>,
    down: Direction<'a>,
    /// Bytes that may still be read, from either side.
    allowance: u64,
    idle: Duration,
    until: Option<Instant>,
    timer: Deadline,
}

impl<'a> Tunnel<'a> {
    fn new(
        client: &'a TcpStream,
        upstream: &'a TcpStream,
        early: Vec<u8>,
        limits: Limits,
        tuning: Tuning,
    ) -> Self {
        let mut allowance = if limits.bytes == 0 { u64::MAX } else { limits.bytes };
        let up = Direction::new(client, upstream, tuning).with_early(early, &mut allowance);
        Self {
            up,
            down: Direction::new(upstream, client, tuning),
            allowance,
            idle: limits.idle,
            until: limits.until,
            timer: Deadline::at(limits.due()),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, scratch: Scratch<'_>) -> Poll<End> {
        let up = self.up.poll(cx, &mut self.allowance, scratch);
        if up == Err(Broken::Sink) {
            // What the destination said before it broke off, such as why, still goes to the client.
            self.down.expect_break();
        }
        let down = self.down.poll(cx, &mut self.allowance, scratch);
        let (up, down) = match (up, down) {
            (Err(Broken::Source), _) | (Ok(_), Err(Broken::Sink)) => return Poll::Ready(End::ClientReset),
            (Err(Broken::Sink), _) | (Ok(_), Err(Broken::Source)) => return Poll::Ready(End::UpstreamReset),
            (Ok(up), Ok(down)) => (up, down),
        };
        match (up, down) {
            (Turn::Excess, _) | (_, Turn::Excess) => return Poll::Ready(End::Bytes),
            (Turn::Done, Turn::Done) => return Poll::Ready(End::Complete),
            (Turn::Again, _) | (_, Turn::Again) => {
                // Wakes the task after the driver was asked for events: others get their turn, and their timers.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
            }
            _ => {}
        }
        self.poll_timer(cx)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // Both are asked, for both are to be cleared.
        if self.up.was_active() | self.down.was_active() {
            let idle = Instant::now() + self.idle;
            self.timer.set(self.until.map_or(idle, |until| until.min(idle)));
        }
        self.timer.poll(cx).map(|()| match self.until {
            Some(until) if until <= Instant::now() => End::Lifetime,
            _ => End::Idle,
        })
    }
}

#[cfg(test)]
mod tests;
