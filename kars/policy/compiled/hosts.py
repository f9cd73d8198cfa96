"""Which hosts a router's lists can have. One that it cannot read would make it refuse the whole list.

The same rules as the router's own (`ids/host` and `policy/egress/decode` of the core); a test holds both together.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError

from kars.model.addresses import barred, read_address

# RFC 1035 §3.1: longest name, without a dot at its end.
NAME_LENGTH = 253
# RFC 1123 §2.1, with `_` as service names have it; at most 63 characters (RFC 1035 §3.1).
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)


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


def is_name(text: str) -> bool:
    """Whether a text is a name: labels with one dot between two, one more dot allowed at the end."""
    text = text.removesuffix(".")
    return len(text) <= NAME_LENGTH and all(LABEL.fullmatch(label) for label in text.split("."))
