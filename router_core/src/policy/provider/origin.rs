//! Base URLs, parsed strictly and in this one place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Kind, Result};

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
        let (tls, rest) = scheme(url)?;
        if rest.contains('#') {
            return Err("has a fragment: leave out everything from # on".into());
        }
        if rest.contains('?') {
            return Err("has a query: leave out everything from ? on".into());
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err("has user info before @: put the key in its own variable".into());
        }
        let (host, port) = host_and_port(authority)?;
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let default = if tls { 443 } else { 80 };
        let port = port.unwrap_or(default);
        let authority = if port == default { shown } else { format!("{shown}:{port}") };
        Ok(Self { origin: Origin { tls, host, port, authority }, path: base_path(path)? })
    }
}

fn scheme(url: &str) -> Result<(bool, &str), String> {
    let (scheme, rest) = url.split_once("://").ok_or("is no URL: write http://host or https://host")?;
    if scheme.eq_ignore_ascii_case("https") {
        Ok((true, rest))
    } else if scheme.eq_ignore_ascii_case("http") {
        Ok((false, rest))
    } else {
        Err("has a scheme other than http and https: write https://host".into())
    }
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or("has a [ without ]: write [IPv6] or a name")?;
        let ip: Ipv6Addr = inside.parse().map_err(|_| "has no IPv6 address between [ and ]")?;
        return match after.strip_prefix(':') {
            Some(digits) => Ok((ip.to_string(), port(digits)?)),
            None if after.is_empty() => Ok((ip.to_string(), None)),
            None => Err("has text after ]: write [IPv6]:port".into()),
        };
    }
    let (host, digits) = authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
    Ok((host_name(host)?, digits.map(port).transpose()?.flatten()))
}

fn port(digits: &str) -> Result<Option<u16>, String> {
    let plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse::<u16>().ok().filter(|n| plain && *n > 0);
    number.map(Some).ok_or_else(|| "has a port that is not 1 to 65535".into())
}

/// A DNS name (RFC 1123 §2.1, with `_` as service names have it) or an IPv4 address in four decimal parts.
fn host_name(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("has no host: write https://host".into());
    }
    if !host.is_ascii() {
        return Err("has a host that is not ASCII: write it in its xn-- form".into());
    }
    let host = host.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(
            "has a host that is no DNS name: use letters, digits, '-' and '.', no dot at the end".into()
        );
    }
    // Resolvers read a name with a numeric end, such as 127.1 or 0x7f.1, as an address of their own making.
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let numeric = hex || last.bytes().all(|b| b.is_ascii_digit());
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err("has a host that is no IPv4 address: write four decimal parts".into());
    }
    Ok(host)
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
