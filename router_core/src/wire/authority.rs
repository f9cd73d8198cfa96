//! Hosts, authorities and URLs, read in one way wherever a client or a policy names one.

use crate::error::{Error, Result};
use crate::ids::Host;

/// A host with an optional port (RFC 3986 §3.2, without user info).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, where one is written.
    pub port: Option<u16>,
}

/// An absolute `http` or `https` URL without user info and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url<'t> {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// Host and port.
    pub authority: Authority,
    /// Path and query as written; `/` when both are empty, and with a `/` before a bare query.
    pub target: std::borrow::Cow<'t, str>,
}

impl Url<'_> {
    /// The port, the scheme's own where none is written.
    pub fn port(&self) -> u16 {
        self.authority.port.unwrap_or(if self.tls { 443 } else { 80 })
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; a port is 1 to 65535.
pub fn authority(text: &[u8]) -> Result<Authority> {
    let text = std::str::from_utf8(text).map_err(|_| Error::bad_request("the authority is not ASCII"))?;
    let (host, port) = match text.rfind(':') {
        Some(at) if !text.ends_with(']') => (text.get(..at).unwrap_or(""), text.get(at + 1..)),
        _ => (text, None),
    };
    let port = port.map(port_number).transpose()?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(Error::bad_request("an IPv6 address stands between [ and ]"));
    }
    Ok(Authority { host: Host::parse(host)?, port })
}

/// Reads an absolute URL. What one parser takes for the host and another does not (`\`, `#`, user info, white
/// space, an empty host) is refused.
pub fn url(text: &str) -> Result<Url<'_>> {
    let bad = |what: &str| Error::bad_request(what);
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#') {
        return Err(bad("a URL has only visible ASCII, without '\\' and '#'"));
    }
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| bad("no URL: write http://host or https://host"))?;
    let tls = scheme.eq_ignore_ascii_case("https");
    if !tls && !scheme.eq_ignore_ascii_case("http") {
        return Err(bad("a URL's scheme is http or https"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let target = if target.starts_with('/') { target.into() } else { format!("/{target}").into() };
    Ok(Url { tls, authority: authority(host.as_bytes())?, target })
}

fn port_number(digits: &str) -> Result<u16> {
    let plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse::<u16>().ok().filter(|n| plain && *n > 0);
    number.ok_or_else(|| Error::bad_request("a port is 1 to 65535"))
}
