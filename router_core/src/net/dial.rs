//! Connects to an origin: every address tried, each with its own deadline, the next one started while one is slow.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::slice::Iter;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::error::{Error, Kind, Result, Step};
use crate::limits;

/// How long one attempt has before the next starts beside it (RFC 8305 §5, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Silence after which a peer is probed, and how long between probes: less than the 350 s and more after which load
/// balancers forget a connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE_IDLE`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to `host:port` over TCP with `TCP_NODELAY` and keep-alive set, over the system's own resolution: for origins that the
/// operator has configured, whatever their addresses are for. Dropping the future abandons the attempts.
///
/// # Errors
/// As [`race`]'s, and of [`Step::Resolve`].
pub async fn connect(host: &str, port: u16, per_address: Duration) -> Result<TcpStream> {
    let addresses = resolve(host, port, per_address).await?;
    if addresses.is_empty() {
        return Err(Error::new(Kind::Upstream(Step::Resolve), format!("{host} has no address")));
    }
    let (stream, _) = race(&addresses, per_address).await.map_err(|e| named(host, &e))?;
    keep_alive(&stream);
    Ok(stream)
}

async fn resolve(host: &str, port: u16, wait: Duration) -> Result<Vec<SocketAddr>> {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = literal.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    match timeout(wait, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(e)) => Err(Error::new(Kind::Upstream(Step::Resolve), format!("resolve {host}: {e}"))),
        Err(_) => Err(Error::new(Kind::Timeout(Step::Resolve), format!("resolve {host} timed out"))),
    }
}

/// An address alone does not tell people which origin it is.
fn named(host: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{host}: {}", error.detail()))
}

/// Connects to the first of `addresses` that answers, starting one attempt after another a little later or as soon as
/// one has failed (RFC 8305 §5, "happy eyeballs"), each with its own deadline; every address is tried before giving
/// up, of at most [`limits::ADDRESSES`]. Gives the address, too. `TCP_NODELAY` is set. Dropping the future
/// abandons all attempts, as does the first success the others.
///
/// # Errors
/// [`Kind::Upstream`] or [`Kind::Timeout`] of [`Step::Connect`]: of the attempt that tells most, with its address.
pub async fn race(addresses: &[SocketAddr], per_address: Duration) -> Result<(TcpStream, SocketAddr)> {
    let (stream, address) = match addresses {
        [] => Err(Error::new(Kind::Upstream(Step::Connect), "there is no address to connect to")),
        [only] => match attempt(*only, per_address).await {
            Ok(stream) => Ok((stream, *only)),
            Err(cause) => Err(Failure { address: *only, cause }.told(1)),
        },
        many => {
            let most = many.split_at_checked(limits::ADDRESSES).map_or(many, |(most, _)| most);
            staggered(most, per_address).await
        }
    }?;
    // A refusal costs latency only.
    let _ = stream.set_nodelay(true);
    Ok((stream, address))
}

/// One attempt; `TimedOut` when its time is over.
async fn attempt(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    timeout(within, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

async fn staggered(addresses: &[SocketAddr], per_address: Duration) -> Result<(TcpStream, SocketAddr)> {
    let mut race = Race { waiting: addresses.iter(), running: Vec::new(), failure: None, per_address };
    let mut delay = pin!(sleep(ATTEMPT_DELAY));
    let won = poll_fn(|cx| race.poll(cx, delay.as_mut())).await;
    won.map_err(|failure| match failure {
        Some(failure) => failure.told(addresses.len()),
        None => Error::new(Kind::Bug, "a race over addresses ended without an attempt"),
    })
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// Attempts side by side on one task.
struct Race<'a> {
    waiting: Iter<'a, SocketAddr>,
    running: Vec<(SocketAddr, Attempt)>,
    failure: Option<Failure>,
    per_address: Duration,
}

impl Race<'_> {
    /// Ready with the first success, or, once every address has failed, with what tells most.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut delay: Pin<&mut Sleep>,
    ) -> Poll<std::result::Result<(TcpStream, SocketAddr), Option<Failure>>> {
        loop {
            let before = self.running.len();
            if let Some(won) = self.poll_running(cx) {
                return Poll::Ready(Ok(won));
            }
            let failed = self.running.len() < before;
            if self.waiting.len() == 0 {
                return if self.running.is_empty() {
                    Poll::Ready(Err(self.failure.take()))
                } else {
                    Poll::Pending
                };
            }
            if !failed && before > 0 && delay.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(address) = self.waiting.next() {
                self.running.push((*address, Box::pin(attempt(*address, self.per_address))));
                delay.as_mut().reset(Instant::now() + ATTEMPT_DELAY);
            }
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<(TcpStream, SocketAddr)> {
        let mut won = None;
        let failure = &mut self.failure;
        self.running.retain_mut(|(address, attempt)| match attempt.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(stream)) => {
                won.get_or_insert((stream, *address));
                false
            }
            Poll::Ready(Err(cause)) => {
                let new = Failure { address: *address, cause };
                if failure.as_ref().is_none_or(|old| old.weight() < new.weight()) {
                    *failure = Some(new);
                }
                false
            }
        });
        won
    }
}

/// Why one attempt came to nothing.
struct Failure {
    address: SocketAddr,
    cause: io::Error,
}

impl Failure {
    /// How much it tells of the destination: a machine without IPv6 fails on every IPv6 address, and silence tells less
    /// than a refusal.
    fn weight(&self) -> u8 {
        match self.cause.kind() {
            ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => 0,
            ErrorKind::TimedOut | ErrorKind::HostUnreachable => 1,
            _ => 2,
        }
    }

    fn told(&self, addresses: usize) -> Error {
        let others = if addresses > 1 { format!(" ({addresses} addresses tried)") } else { String::new() };
        let (address, cause) = (self.address, &self.cause);
        if cause.kind() == ErrorKind::TimedOut {
            return Error::new(
                Kind::Timeout(Step::Connect),
                format!("connect to {address} timed out{others}"),
            );
        }
        Error::new(Kind::Upstream(Step::Connect), format!("connect to {address}: {cause}{others}"))
    }
}

/// Has the kernel notice when a silent peer is gone, for connections that may outlive [`KEEPALIVE_IDLE`].
pub fn keep_alive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    // A refusal costs memory only.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

#[cfg(test)]
mod tests;
