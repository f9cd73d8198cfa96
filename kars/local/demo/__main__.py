"""Runs the demo model server until it is told to stop."""

import argparse
import asyncio
import os
import signal
import socket
import sys

from granian.constants import Interfaces
from granian.server.embed import Server

from kars.local.demo.server import App


def options() -> argparse.Namespace:
    """Read the command line: where to listen and how fast to stream."""
    parser = argparse.ArgumentParser(prog="kars.local.demo", description="A deterministic demo model server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (the default)")
    parser.add_argument(
        "--pace-ms", type=float, default=20.0, help="pause between streamed events (default: %(default)s)"
    )
    return parser.parse_args()


def free_port(host: str) -> int:
    """Find a port nothing listens on right now."""
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def accepts(host: str, port: int) -> None:
    """Return once a connection is accepted; raises `TimeoutError` after five seconds."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.005)
            else:
                writer.close()
                return


async def serve(host: str, port: int, pace: float) -> None:
    """Serve until SIGINT or SIGTERM; prints the address once it accepts connections."""
    app = App(pace=pace)
    server = Server(app, address=host, port=port, interface=Interfaces.RSGI, log_enabled=False, websockets=False)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    running = asyncio.create_task(server.serve())
    await accepts(host, port)
    sys.stdout.write(f"demo model server on http://{host}:{port}\n")
    sys.stdout.flush()
    await running


def main() -> None:
    """Run the server."""
    chosen = options()
    port = chosen.port or free_port(chosen.host)
    asyncio.run(serve(chosen.host, port, chosen.pace_ms / 1000))
    # granian's threads may still hold on to the interpreter; one that attaches while it is torn down aborts.
    os._exit(0)


if __name__ == "__main__":
    main()
