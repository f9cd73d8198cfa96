"""The sandbox's name server on port 53: `python -m tests.interop.egress.names NAME=ADDRESS[,ADDRESS...] ...`."""

import sys
import threading

from tests.system.dns import Dns


def main(arguments: list[str]) -> None:
    """Serves until ended."""
    names = {name: addresses.split(",") for name, _, addresses in (word.partition("=") for word in arguments)}
    dns = Dns(names)
    dns.port = 53
    with dns:
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
