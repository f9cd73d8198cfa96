"""Sends each line of a file, in hexadecimal, on a connection of its own to the egress proxy; prints what comes first."""

import socket
import sys
from pathlib import Path


def main(port: str, file: str) -> None:
    """Serves the lines in their order."""
    for line in Path(file).read_text(encoding="ascii").splitlines():
        with socket.create_connection(("127.0.0.1", int(port)), 30) as proxy:
            proxy.sendall(bytes.fromhex(line))
            print(proxy.recv(4096).hex(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
