//! Where a connection goes: one host and port, parsed in one way wherever it is named.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// A DNS name or an IP address that no two parsers read differently.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A lower-case DNS name (RFC 1123 §2.1, with `_` as service names have it), without a dot at the end.
    Name(Box<str>),
    /// An IP address; an IPv4-mapped IPv6 address stays IPv6.
    Ip(IpAddr),
}

impl Host {
    /// Parses a name, four decimal parts, or an IPv6 address with or without brackets. One dot at a name's end is
    /// taken off. What a resolver would read as an address of its own making (`127.1`, `0x7f.1`, `2130706433`) is
    /// refused, as is everything that is not ASCII: a client sends the `xn--` form.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(inside) = text.strip_prefix('[') {
            let ip = inside.strip_suffix(']').and_then(|inside| inside.parse::<Ipv6Addr>().ok());
            return ip
                .map(|ip| Self::Ip(ip.into()))
                .ok_or_else(|| Error::bad_request("no IPv6 address between [ and ]"));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip));
        }
        name(text.strip_suffix('.').unwrap_or(text)).map(|name| Self::Name(name.into()))
    }

    /// The name, when it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// The address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Ip(ip) => Some(*ip),
        }
    }
}

impl fmt::Display for Host {
    /// As in a URL: an IPv6 address has brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// A host and a port, 1 to 65535.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn name(text: &str) -> Result<String> {
    if !text.is_ascii() {
        return Err(Error::bad_request("a host name is not ASCII: write it in its xn-- form"));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.is_empty() || text.len() > 253 || !text.split('.').all(label) {
        return Err(Error::bad_request("not a DNS name: letters, digits, '-', '_' and '.' between them"));
    }
    let name = text.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if (hex || last.bytes().all(|b| b.is_ascii_digit())) && name.parse::<Ipv4Addr>().is_err() {
        return Err(Error::bad_request("not an IPv4 address: write four decimal parts"));
    }
    Ok(name)
}
