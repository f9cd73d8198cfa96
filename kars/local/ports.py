"""Free ports on the loopback address."""

from __future__ import annotations

import socket

# How far above the preferred port to look before letting the kernel choose.
TRIES = 20


def free(preferred: int, *, taken: frozenset[int] = frozenset()) -> int:
    """Return `preferred`, else the next free port above it, else any free one."""
    for port in range(preferred, min(preferred + TRIES, 65536)):
        if port not in taken and bindable(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return int(port)


def bindable(port: int) -> bool:
    """Whether nobody listens on the port, on this address or on all of them."""
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
