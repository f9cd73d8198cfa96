"""Addresses that nothing dials because somebody named them: what answers there speaks for a machine or a network.

The same rules as the core's (`wire/address`); a test holds both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

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


def is_barred(host: str) -> bool:
    """Whether a host is an address that is barred, or a number that resolvers would make one of; false for names."""
    try:
        address = read_address(host.partition("%")[0])
    except AddressValueError:
        return True
    return address is not None and barred(address)


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
