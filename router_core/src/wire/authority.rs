//! Hosts, authorities and URLs, read in one way wherever a client or a policy names one: request targets, `Host`,
//! base URLs, lists. What is allowed as a host's text is [`Host`]'s to say; this is the grammar around it, narrower than
//! RFC 3986 §3.2: no user info, no percent-encoding, no empty host or port.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use crate::error::{Error, Result};
use crate::ids::{Destination, Host, HostFault};

/// A host with an optional port (RFC 3986 §3.2, without user info).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, where one is written.
    pub port: Option<u16>,
}

impl Authority {
    /// The place it names, with `port` where none is written.
    pub fn destination(self, port: u16) -> Destination {
        Destination { host: self.host, port: self.port.unwrap_or(port) }
    }
}

/// An absolute `http` or `https` URL without user info and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url<'t> {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// Host and port.
    pub authority: Authority,
    /// Path and query as written; `/` when both are empty, and with a `/` before a bare query.
    pub target: Cow<'t, str>,
}

impl Url<'_> {
    /// The port, the scheme's own where none is written.
    pub fn port(&self) -> u16 {
        self.authority.port.unwrap_or(default_port(self.tls))
    }
}

/// The port of `http` or `https` (RFC 9110 §4.2).
pub fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// What is wrong with an authority or URL: prints as a predicate, `has user info before @: ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No `://`.
    NoUrl,
    /// A scheme other than `http` and `https`.
    Scheme,
    /// A byte that no URL has, or on which parsers differ.
    Character,
    /// Nothing where the host should be.
    NoHost,
    /// Text before `@`.
    UserInfo,
    /// `[` without `]`.
    Unclosed,
    /// Text other than a port behind `]`.
    AfterBracket,
    /// An IPv6 address without brackets.
    NoBrackets,
    /// A second `:`.
    SecondPort,
    /// A port that is not 1 to 65535 in decimal digits.
    Port,
    /// The host.
    Host(HostFault),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUrl => "is no URL: write http://host or https://host",
            Self::Scheme => "has a scheme other than http and https: write https://host",
            Self::Character => "has white space, '\\', '#' or another character that no URL has",
            Self::NoHost => "has no host: write a name or an address",
            Self::UserInfo => "has user info before @: leave it out",
            Self::Unclosed => "has a [ without ]: write [IPv6] or a name",
            Self::AfterBracket => "has text after ]: write [IPv6]:port",
            Self::NoBrackets => "has an IPv6 address without brackets: write [IPv6]:port",
            Self::SecondPort => "has more than one ':': write host:port, or [IPv6]:port",
            Self::Port => "has a port that is not 1 to 65535",
            Self::Host(fault) => return write!(f, "has a host that {fault}"),
        })
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; a port is 1 to 65535.
pub fn authority(text: &[u8]) -> Result<Authority> {
    read(text).map_err(|fault| Error::bad_request(format!("the authority {fault}")))
}

/// [`authority`] with the fault alone, for texts that name its place themselves.
pub fn read(text: &[u8]) -> Result<Authority, Fault> {
    let named = split(text)
        .and_then(|(host, port)| Host::read(host).map(|host| Authority { host, port }).map_err(Fault::Host));
    named.map_err(|fault| explain(text, fault))
}

/// Whether [`authority`] accepts `text`; allocates nothing.
pub fn well_formed(text: &[u8]) -> bool {
    split(text).is_ok_and(|(host, _)| Host::check(host).is_ok())
}

/// Reads an absolute URL. What one parser takes for the host and another does not (`\`, `#`, user info, white
/// space, an empty host) is refused.
pub fn url(text: &str) -> Result<Url<'_>> {
    read_url(text).map_err(|fault| Error::bad_request(format!("the URL {fault}")))
}

/// [`url`] with the fault alone.
pub fn read_url(text: &str) -> Result<Url<'_>, Fault> {
    let parts = parts(text.as_bytes())?;
    let authority = read(parts.authority)?;
    let target = text.get(text.len() - parts.target.len()..).unwrap_or("");
    let target = if target.starts_with('/') { target.into() } else { format!("/{target}").into() };
    Ok(Url { tls: parts.tls, authority, target })
}

/// Whether [`url`] accepts `text`; allocates nothing.
pub fn well_formed_url(text: &[u8]) -> bool {
    parts(text).is_ok_and(|parts| well_formed(parts.authority))
}

/// Whether `text` has only visible ASCII without `#` and `\`: those two are no URI characters, and parsers differ on
/// where the host or the path ends at them.
pub fn visible(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'\\'))
}

/// An absolute URL cut at its first `/` or `?` behind `://`; the authority is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'t> {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// What stands for host and port.
    pub authority: &'t [u8],
    /// Path and query, maybe empty.
    pub target: &'t [u8],
}

/// Cuts an absolute `http` or `https` URL; see [`url`] for what is refused.
pub fn parts(text: &[u8]) -> Result<Parts<'_>, Fault> {
    let (scheme, rest) = memchr::memmem::find(text, b"://")
        .and_then(|at| Some((text.get(..at)?, text.get(at + 3..)?)))
        .ok_or(Fault::NoUrl)?;
    let tls = scheme.eq_ignore_ascii_case(b"https");
    if !tls && !scheme.eq_ignore_ascii_case(b"http") {
        return Err(Fault::Scheme);
    }
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, &[]));
    if !visible(rest) {
        let host = authority.split(|b| *b == b':').next().unwrap_or(authority);
        let fault = Host::check(host).err().filter(|_| !host.is_ascii());
        return Err(fault.map_or(Fault::Character, Fault::Host));
    }
    Ok(Parts { tls, authority, target })
}

/// Host and port. The host ends at the first `:` outside brackets, so that a second one is no part of it.
fn split(text: &[u8]) -> Result<(&[u8], Option<u16>), Fault> {
    let end = if text.starts_with(b"[") {
        memchr::memchr(b']', text).ok_or(Fault::Unclosed)? + 1
    } else {
        memchr::memchr(b':', text).unwrap_or(text.len())
    };
    let (host, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    match rest {
        _ if host.is_empty() => Err(Fault::NoHost),
        [] => Ok((host, None)),
        [b':', digits @ ..] => Ok((host, Some(port(digits).ok_or(Fault::Port)?))),
        _ => Err(Fault::AfterBracket),
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    if !(1..=5).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u32, |n, b| n * 10 + u32::from(b & 0xf));
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// The fault of `text` that helps most.
#[cold]
fn explain(text: &[u8], fault: Fault) -> Fault {
    if text.contains(&b'@') {
        Fault::UserInfo
    } else if !text.starts_with(b"[") && memchr::memchr_iter(b':', text).count() > 1 {
        if Host::check(text).is_ok() { Fault::NoBrackets } else { Fault::SecondPort }
    } else {
        fault
    }
}
