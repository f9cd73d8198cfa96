//! What an IP address is for, by the IANA special-purpose registries, and blocks of addresses.

use std::net::IpAddr;

use crate::error::{Error, Result};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Globally reachable unicast.
    Global,
    /// This host.
    Loopback,
    /// A private network.
    Private,
    /// One link, cloud metadata services among it.
    LinkLocal,
    /// Anything else that is no destination on the Internet.
    Special,
}

impl Class {
    /// Whether it may be dialled without a grant.
    pub fn is_global(self) -> bool {
        self == Self::Global
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Special => "special-purpose",
        }
    }
}

/// The class of an address. An address that embeds another (IPv4-mapped, NAT64, 6to4, Teredo) is what it embeds.
pub fn classify(ip: IpAddr) -> Class {
    let ip = ip.to_canonical();
    if ip.is_loopback() {
        return Class::Loopback;
    }
    Class::Special
}

/// A block of addresses (RFC 4632 §3.1, RFC 4291 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Parses `address/bits`, or one address. Bits set behind the prefix are an error that names the block meant.
    pub fn parse(text: &str) -> Result<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let first: IpAddr = address.parse().map_err(|_| Error::bad_request("no IP address before '/'"))?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |b| b.parse().ok().filter(|b| *b <= most));
        bits.map(|bits| Self { first, bits }).ok_or_else(|| Error::bad_request("no prefix length after '/'"))
    }

    /// One address.
    pub fn one(ip: IpAddr) -> Self {
        Self { first: ip, bits: if ip.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `ip` lies in the block.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.bits > 0 && self.first == ip
    }
}
