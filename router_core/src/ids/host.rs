//! Where a connection goes: one host and port, parsed in one way wherever it is named.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// Longest name in text, without a dot at its end (RFC 1035 §3.1: 255 bytes on the wire).
const NAME_BYTES: usize = 253;
/// Longest label (RFC 1035 §3.1).
const LABEL_BYTES: usize = 63;

/// A DNS name or an IP address that no two parsers read differently.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A lower-case DNS name (RFC 1123 §2.1, with `_` as service names have it), without a dot at the end.
    Name(Box<str>),
    /// An IP address; an IPv4-mapped IPv6 address stays IPv6.
    Ip(IpAddr),
}

/// What is wrong with a host's text, and what to write instead: a predicate such as `is not ASCII: write ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFault(&'static str);

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl From<HostFault> for Error {
    fn from(fault: HostFault) -> Self {
        Self::bad_request(format!("the host {fault}"))
    }
}

impl Host {
    /// Parses a name, four decimal parts, or an IPv6 address with or without brackets. One dot at a name's end is
    /// taken off. What a resolver would read as an address of its own making (`127.1`, `0x7f.1`, `2130706433`) is
    /// refused, as is everything that is not ASCII: a client sends the `xn--` form.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text.as_bytes()).map_err(Error::from)
    }

    /// [`Host::parse`] of bytes, with the fault alone, for texts that name the host's place themselves.
    pub fn read(text: &[u8]) -> Result<Self, HostFault> {
        match shape(text)? {
            Shape::Ip(ip) => Ok(Self::Ip(ip)),
            Shape::Name(name) => {
                let name = std::str::from_utf8(name).map_err(|_| HostFault(NOT_ASCII))?;
                Ok(Self::Name(name.to_ascii_lowercase().into()))
            }
        }
    }

    /// Whether [`Host::read`] accepts `text`; allocates nothing.
    pub fn check(text: &[u8]) -> Result<(), HostFault> {
        shape(text).map(|_| ())
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

const NOT_ASCII: &str = "is not ASCII: write it in its xn-- form";

/// What a host's text is.
enum Shape<'t> {
    /// A name as written, without a dot at its end.
    Name(&'t [u8]),
    Ip(IpAddr),
}

fn shape(text: &[u8]) -> Result<Shape<'_>, HostFault> {
    if let Some(inside) = text.strip_prefix(b"[") {
        let ip = inside.strip_suffix(b"]").and_then(ipv6);
        return ip.map(|ip| Shape::Ip(ip.into())).ok_or_else(|| HostFault(bracket_fault(inside)));
    }
    if text.contains(&b':') {
        return ipv6(text).map(|ip| Shape::Ip(ip.into())).ok_or_else(|| HostFault(colon_fault(text)));
    }
    let name = text.strip_suffix(b".").unwrap_or(text);
    let mut last: &[u8] = &[];
    let labels = name.split(|b| *b == b'.').all(|part| {
        last = part;
        label(part)
    });
    if !labels || name.len() > NAME_BYTES {
        return Err(HostFault(name_fault(name)));
    }
    if !numeric(last) {
        return Ok(Shape::Name(name));
    }
    let ip = std::str::from_utf8(name).ok().and_then(|text| text.parse::<Ipv4Addr>().ok());
    match ip {
        Some(ip) if name.len() == text.len() => Ok(Shape::Ip(ip.into())),
        Some(_) => Err(HostFault("has a dot behind its IPv4 address: leave the dot out")),
        None => Err(HostFault(
            "is no IPv4 address, and no name ends in a number: write four decimal parts without leading zeros",
        )),
    }
}

fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn label(label: &[u8]) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
    label.len() <= LABEL_BYTES
        && edge(label.first())
        && edge(label.last())
        && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether resolvers read a name with this end as an address of their own making (`inet_aton`; the "ends in a number"
/// check of the WHATWG URL standard): the parts before it may then be octal, hexadecimal or left out.
fn numeric(last: &[u8]) -> bool {
    match last {
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

#[cold]
fn bracket_fault(inside: &[u8]) -> &'static str {
    match (inside.contains(&b']'), inside.contains(&b'%')) {
        (false, _) => "has a [ without ]: write [IPv6] or a name",
        (true, true) => "has an IPv6 zone: leave out everything from % to the ]",
        _ if !inside.ends_with(b"]") => "has text after its ]: write [IPv6]",
        _ => "has no IPv6 address between [ and ]",
    }
}

#[cold]
fn colon_fault(text: &[u8]) -> &'static str {
    if text.contains(&b'%') {
        "has an IPv6 zone: leave out everything from % on"
    } else {
        "is no IPv6 address, and a name has no ':': write the port apart from the host"
    }
}

/// Why `name` is none, the likeliest cause of a mistake first.
#[cold]
fn name_fault(name: &[u8]) -> &'static str {
    let mut labels = name.split(|b| *b == b'.');
    if name.is_empty() {
        "is empty: write a name or an address"
    } else if !name.is_ascii() {
        NOT_ASCII
    } else if name.contains(&b'%') {
        "has a %: write its characters out"
    } else if name.contains(&b'@') {
        "has an @: leave out the user"
    } else if name.contains(&b'*') {
        "has a *: write the name that all of them end in"
    } else if name.iter().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        "has white space or a control character in it: leave it out"
    } else if labels.clone().any(<[u8]>::is_empty) {
        "has an empty label: write one dot between two labels"
    } else if name.len() > NAME_BYTES {
        "is longer than the 253 characters of a DNS name"
    } else if labels.any(|label| label.len() > LABEL_BYTES) {
        "has a label longer than the 63 characters of DNS"
    } else {
        "is no DNS name: use letters, digits, '_', '.', and '-' inside a label"
    }
}
