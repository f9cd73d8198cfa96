//! Base URLs, parsed strictly.

use std::net::IpAddr;

use crate::error::{Error, Kind, Result};
use crate::wire::authority::{self, Authority, Fault, default_port};

/// Where to connect, and what to call it in `Host` (RFC 9110 §7.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether to speak TLS.
    pub tls: bool,
    /// A lower-case DNS name or an IP address, without brackets.
    pub host: String,
    /// The port, 1 to 65535.
    pub port: u16,
    /// The value of `Host`: brackets around IPv6, no default port.
    pub authority: String,
}

impl Origin {
    /// Whether the host is this machine: `localhost`, `127.0.0.0/8`, `::1`, or an address of no host.
    pub fn loopback(&self) -> bool {
        let ip = self.host.parse::<IpAddr>().map(|ip| ip.to_canonical());
        ip.map_or_else(
            |_| self.host == "localhost" || self.host.ends_with(".localhost"),
            |ip| ip.is_loopback() || ip.is_unspecified(),
        )
    }
}

/// A base URL: an origin and a path without a trailing slash (empty for the root).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The origin.
    pub origin: Origin,
    /// The path, empty or starting with `/`.
    pub path: String,
}

impl Base {
    /// Parses `http(s)://host[:port][/path]`; `variable` names the setting in errors.
    ///
    /// # Errors
    /// [`Kind::Config`] with what to change: another scheme, user info, query, fragment, a host that is no DNS
    /// name, IPv4 or `[IPv6]` address, a port out of range, a path with a dot segment or an odd character.
    pub fn parse(url: &str, variable: &str) -> Result<Self> {
        Self::split(url.trim()).map_err(|what| Error::new(Kind::Config, format!("{variable}: {what}")))
    }

    fn split(url: &str) -> Result<Self, String> {
        if url.contains('#') {
            return Err("has a fragment: leave out everything from # on".into());
        }
        if url.contains('?') {
            return Err("has a query: leave out everything from ? on".into());
        }
        let parts = authority::parts(url.as_bytes()).map_err(fault)?;
        let Authority { host, port } = authority::read(parts.authority).map_err(fault)?;
        // A `Host` with the dot is another one to many servers, and nobody means it.
        if parts.authority.split(|b| *b == b':').next().is_some_and(|name| name.ends_with(b".")) {
            return Err("has a dot at the end of its host: leave the dot out".into());
        }
        let default = default_port(parts.tls);
        let port = port.unwrap_or(default);
        let authority = if port == default { host.to_string() } else { format!("{host}:{port}") };
        let (tls, path) = (parts.tls, url.get(url.len() - parts.target.len()..).unwrap_or(""));
        let host = host.ip().map_or_else(|| host.to_string(), |ip| ip.to_string());
        Ok(Self { origin: Origin { tls, host, port, authority }, path: base_path(path)? })
    }
}

/// What is wrong, with what to do about it in a setting.
fn fault(fault: Fault) -> String {
    match fault {
        Fault::NoHost => "has no host: write https://host".into(),
        Fault::UserInfo => "has user info before @: put the key in its own variable".into(),
        fault => fault.to_string(),
    }
}

fn base_path(path: &str) -> Result<String, String> {
    let path = path.trim_end_matches('/');
    let Some(inside) = path.strip_prefix('/') else { return Ok(String::new()) };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    for segment in inside.split('/') {
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err("has an empty or dot segment in its path: write the path out".into());
        }
        if !segment.bytes().all(plain) {
            return Err("has a character in its path that an API's path does not have".into());
        }
    }
    Ok(path.to_owned())
}
