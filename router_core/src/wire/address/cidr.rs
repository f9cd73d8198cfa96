//! Blocks of addresses, as a policy grants them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// A block of addresses (RFC 4632 §3.1, RFC 4291 §2.3). No bit is set behind the prefix, and none is IPv4-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Parses `address/bits`, or one address. Bits set behind the prefix are an error that names the block meant.
    pub fn parse(text: &str) -> Result<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let first: IpAddr = address
            .parse()
            .map_err(|_| Error::bad_request("no IP address: write 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32"))?;
        let most = width(first);
        let bits = bits.map_or(Some(most), |bits| prefix_length(bits, most)).ok_or_else(|| {
            Error::bad_request(format!("no prefix length behind '/': write 0 to {most} in decimal"))
        })?;
        let block = Self { first: masked(first, bits), bits };
        if let (IpAddr::V6(mapped), 96..) = (block.first, bits)
            && let Some(first) = mapped.to_ipv4_mapped()
        {
            let meant = Self { first: first.into(), bits: bits - 96 };
            return Err(Error::bad_request(format!("an IPv4 block in IPv6 clothes: write {meant}")));
        }
        if block.first != first {
            return Err(Error::bad_request(format!("bits are set behind the prefix: write {block}")));
        }
        Ok(block)
    }

    /// One address; an IPv4-mapped one is the IPv4 address inside.
    pub fn one(ip: IpAddr) -> Self {
        let first = ip.to_canonical();
        Self { first, bits: width(first) }
    }

    /// Whether `ip` lies in the block. An IPv4-mapped address is IPv4: an IPv4 block holds it, an IPv6 block never does.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => (first.to_bits() ^ ip.to_bits()) & mask_v4(self.bits) == 0,
            (IpAddr::V6(first), IpAddr::V6(ip)) => (first.to_bits() ^ ip.to_bits()) & mask_v6(self.bits) == 0,
            _ => false,
        }
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The bits of the prefix, 0 to 32 or 128.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether it is one address alone.
    pub fn is_one(&self) -> bool {
        self.bits == width(self.first)
    }
}

impl fmt::Display for Cidr {
    /// As [`Cidr::parse`] reads it; one address has no prefix length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one() { write!(f, "{}", self.first) } else { write!(f, "{}/{}", self.first, self.bits) }
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Decimal digits without a sign or a leading zero.
fn prefix_length(digits: &str, most: u8) -> Option<u8> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|bits| plain && *bits <= most)
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & mask_v4(bits)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & mask_v6(bits)).into(),
    }
}

fn mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}
