//! Connects to an origin: every address tried, each with its own deadline.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Kind, Result, Step};

/// Connects to `host:port` over TCP with `TCP_NODELAY` set. Dropping the future abandons the attempt.
pub async fn connect(host: &str, port: u16, per_address: Duration) -> Result<TcpStream> {
    let addresses = resolve(host, port, per_address).await?;
    let mut last = Error::new(Kind::Upstream(Step::Resolve), format!("{host} has no address"));
    for address in addresses {
        last = match timeout(per_address, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A refusal costs latency only.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => Error::new(Kind::Upstream(Step::Connect), format!("connect to {host}:{port}: {e}")),
            Err(_) => Error::new(Kind::Timeout(Step::Connect), format!("connect to {host}:{port} timed out")),
        };
    }
    Err(last)
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

/// Connects to the first of `addresses` that answers, starting one attempt after another a little later (RFC 8305 §5,
/// "happy eyeballs"), each with its own deadline; every address is tried before giving up. Gives the address, too.
/// `TCP_NODELAY` is set. Dropping the future abandons all attempts.
///
/// # Errors
/// [`Kind::Upstream`] or [`Kind::Timeout`] of [`Step::Connect`]: the last attempt's.
pub async fn race(addresses: &[SocketAddr], per_address: Duration) -> Result<(TcpStream, SocketAddr)> {
    let mut last = Error::new(Kind::Upstream(Step::Connect), "there is no address to connect to");
    for address in addresses {
        last = match timeout(per_address, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A refusal costs latency only.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Ok(Err(e)) => Error::new(Kind::Upstream(Step::Connect), format!("connect to {address}: {e}")),
            Err(_) => Error::new(Kind::Timeout(Step::Connect), format!("connect to {address} timed out")),
        };
    }
    Err(last)
}
