"""Which hosts a router's lists can have. One that it cannot read would make it refuse the whole list.

The same rules as the router's own (`ids/host` and `policy/egress/decode` of the core); a test holds both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

# RFC 1035 §3.1: longest name, without a dot at its end.
NAME_LENGTH = 253
# RFC 1123 §2.1, with `_` as service names have it; at most 63 characters (RFC 1035 §3.1).
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# What resolvers read as a number, and so as an address of their own making.
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

# Addresses at which a cloud hands out credentials (the core's `wire/address` says which cloud's they are).
METADATA_4 = frozenset(
    int(IPv4Address(text))
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "169.254.0.23",
        "169.254.42.42",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    )
)
METADATA_6 = frozenset(
    int(IPv6Address(text))
    for text in ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "fe80::a9fe:a9fe")
)


def fault(host: str) -> str:
    """Say why a router could not take a host, trimmed and in lower case, in an allowlist; empty when it can."""
    below = host.startswith("*.")
    name = host.removeprefix("*.")
    if "*" in name or not name:
        return "has a '*' that is not the whole first label, as in *.example.com" if name else "names no host"
    try:
        address = read_address(name)
    except AddressValueError:
        return "is no address"
    if address is None:
        return "" if is_name(name) else "is no name that DNS could have"
    if below:
        return "is an address, which has no names below it"
    if barred(address):
        return "is an address that is never dialled: metadata, link-local, multicast or unspecified"
    return ""


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address, brackets taken off; None for what can only be a name, `AddressValueError` for neither."""
    if text.startswith("["):
        if not text.endswith("]"):
            raise AddressValueError(text)
        return IPv6Address(text[1:-1])
    if ":" in text:
        return IPv6Address(text)
    # A name that ends in a number is read as an address by some resolvers, so it has to be one.
    if NUMBER.fullmatch(text.removesuffix(".").rpartition(".")[2]):
        return IPv4Address(text)
    return None


def is_name(text: str) -> bool:
    """Whether a text is a name: labels with one dot between two, one more dot allowed at the end."""
    text = text.removesuffix(".")
    return len(text) <= NAME_LENGTH and all(LABEL.fullmatch(label) for label in text.split("."))


def barred(address: IPv4Address | IPv6Address) -> bool:
    """Whether naming an address is not enough to reach it: what answers there speaks for the machine or a network.

    An IPv6 address is barred with any IPv4 address that it leads to.
    """
    value = int(address)
    if isinstance(address, IPv4Address):
        return barred_4(value)
    if value in METADATA_6 or value == 0 or value >> 118 == 0xFE80 >> 6 or value >> 120 == 0xFF:
        return True
    return any(barred_4(inside) for inside in embedded(value))


def barred_4(value: int) -> bool:
    """Whether an IPv4 address is barred."""
    first = value >> 24
    return value in METADATA_4 or first == 0 or value >> 16 == 0xA9FE or 224 <= first <= 239 or value == 0xFFFFFFFF


def embedded(value: int) -> Iterator[int]:
    """Go through the IPv4 addresses to which a gateway, a tunnel or the kernel could take a packet."""
    groups = [value >> shift & 0xFFFF for shift in range(112, -1, -16)]
    low = value & 0xFFFFFFFF
    if value == 1:
        return
    # Mapped and compatible, translated (RFC 2765), NAT64 (RFC 6052 §2.1), ISATAP (RFC 5214 §6.1).
    if (
        groups[:6] in ([0] * 5 + [0xFFFF], [0] * 6, [0] * 4 + [0xFFFF, 0], [0x64, 0xFF9B, 0, 0, 0, 0])
        or groups[5] == 0x5EFE
    ):
        yield low
    if groups[:3] == [0x64, 0xFF9B, 1]:  # local NAT64, the /48 form of RFC 6052 §2.2
        yield groups[3] << 16 | (groups[4] & 0xFF) << 8 | groups[5] >> 8
    if groups[:2] == [0x2001, 0]:  # Teredo, whose client is obscured by inversion (RFC 4380 §4)
        yield ~low & 0xFFFFFFFF
    if groups[0] == 0x2002:  # 6to4
        yield value >> 80 & 0xFFFFFFFF
