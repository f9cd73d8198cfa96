//! What an IP address is for, by the IANA special-purpose registries, and blocks of addresses.
//!
//! Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190), the multicast registries,
//! and RFC 4291. The rule is simple on purpose: an entry of those registries is never global here. The registries call
//! a few anycast entries (AS112, AMT, PCP, TURN) globally reachable, but what answers there is whatever node is nearest,
//! which may well be one of the own network. The one exception is NAT64's well-known prefix, by which a host without
//! IPv4 reaches the IPv4 Internet: it is as global as the address inside.

mod cidr;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use cidr::Cidr;

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Globally reachable unicast.
    Global,
    /// This host.
    Loopback,
    /// This host too, or no host at all: `0.0.0.0/8` and `::`, which Linux connects to itself.
    Unspecified,
    /// A private network: RFC 1918, unique local and site-local addresses.
    Private,
    /// Between a provider's customers and its address translation (RFC 6598).
    Shared,
    /// One link.
    LinkLocal,
    /// A cloud's metadata or control service, whatever range it hides in: it hands out credentials.
    Metadata,
    /// A group of hosts.
    Multicast,
    /// Examples in texts.
    Documentation,
    /// Benchmarks of networks (RFC 2544, RFC 5180).
    Benchmarking,
    /// IPv6 that a gateway turns into IPv4 (6to4, Teredo, local NAT64, IPv4-compatible).
    Transition,
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
            Self::Unspecified => "this-network",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud-metadata",
            Self::Multicast => "multicast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Transition => "transition",
            Self::Special => "special-purpose",
        }
    }
}

/// The class of an address. One that embeds an IPv4 address is never better than what it embeds.
///
/// An IPv4-mapped address is what it embeds: the kernel dials it as IPv4. `64:ff9b::/96` likewise (RFC 6052 §2.1).
/// 6to4, Teredo, IPv4-compatible, IPv4-translated and local NAT64 addresses are never global. An ISATAP interface
/// id (RFC 5214 §6.1) bars a global prefix when the address in it is not global. A provider's own NAT64 and 6rd
/// prefixes look like any other and cannot be seen.
pub fn classify(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    }
}

fn v4(ip: Ipv4Addr) -> Class {
    match ip.octets() {
        // AWS, Azure, Google, Oracle and most others; ECS and EKS credentials; Tencent; Scaleway; Alibaba; Azure's wire
        // server, a global address in every Azure network; Oracle Classic.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [169, 254, 0, 23]
        | [169, 254, 42, 42]
        | [100, 100, 100, 200]
        | [168, 63, 129, 16]
        | [192, 0, 0, 192] => Class::Metadata,
        [0, ..] => Class::Unspecified,
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::Shared,
        [169, 254, ..] => Class::LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [198, 18 | 19, ..] => Class::Benchmarking,
        [224..=239, ..] => Class::Multicast,
        // Protocol assignments, AS112 twice, AMT, 6to4 relays; reserved, with the limited broadcast.
        [192, 0, 0, _]
        | [192, 31, 196, _]
        | [192, 175, 48, _]
        | [192, 52, 193, _]
        | [192, 88, 99, _]
        | [240..=255, ..] => Class::Special,
        _ => Class::Global,
    }
}

fn v6(ip: Ipv6Addr) -> Class {
    let own = by_prefix(ip);
    match (own, embedded(ip).map(v4)) {
        (_, Some(Class::Metadata)) => Class::Metadata,
        (Class::Global | Class::Transition, Some(inner)) if !inner.is_global() => inner,
        _ => own,
    }
}

/// The class of an IPv6 address by its own prefix, with no look at what it embeds.
#[expect(
    clippy::match_same_arms,
    clippy::unnested_or_patterns,
    reason = "one line per block, as the registries have it"
)]
fn by_prefix(ip: Ipv6Addr) -> Class {
    match ip.segments() {
        // AWS metadata and EKS credentials, Google, Scaleway, OpenStack.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]
        | [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe] => Class::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        // IPv4-mapped and NAT64: as the address inside.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Class::Global,
        // IPv4-compatible, IPv4-translated (RFC 2765), local NAT64 (RFC 8215), Teredo, 6to4.
        [0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 1, ..]
        | [0x2001, 0, ..]
        | [0x2002, ..] => Class::Transition,
        [0x2001, 2, 0, ..] => Class::Benchmarking,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Documentation,
        // Protocol assignments (PCP, TURN, DNS-SD, AMT, AS112, ORCHID, drone tags), and AS112's direct delegation.
        [0x2001, 0..=0x1ff, ..] | [0x2620, 0x4f, 0x8000, ..] => Class::Special,
        [0x2000..=0x3fff, ..] => Class::Global,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Class::Private,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        // Discard and dummy prefixes (100::/64, 100:0:0:1::/64), segment ids (5f00::/16), and what nobody assigned.
        _ => Class::Special,
    }
}

/// The IPv4 address to which a gateway, a tunnel or the kernel would take a packet for `ip`.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Teredo's client is obscured by inversion (RFC 4380 §4).
        [0x2001, 0, _, _, _, _, high, low] => join(!high, !low),
        // Local NAT64 in the /48 form of RFC 6052 §2.2: bits 64 to 71 are not of the address.
        [0x64, 0xff9b, 1, a, b, c, ..] => join(a, (b & 0xff) << 8 | c >> 8),
        // Mapped and compatible, translated, NAT64, 6to4, ISATAP.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => join(high, low),
        _ => None,
    }
}
