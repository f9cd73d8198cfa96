"""On SIGTERM the egress port closes, open tunnels have the grace, and what is cut off is recorded as that."""

import socket
import time
from pathlib import Path

from tests.system import client
from tests.system.egress import Server, echo, ends_with_reset, proxy, scripted, until


def test_open_tunnels_go_on_until_the_grace_ends(tmp_path: Path):
    with proxy(tmp_path, SHUTDOWN_TIMEOUT_SECS="1") as way, Server(echo) as server, scripted() as quiet:
        way.allow(way.place("echo.test.example", server.port), way.place("quiet.test.example", quiet.port))
        with (
            way.tunnel("echo.test.example", server.port) as lively,
            way.tunnel("quiet.test.example", quiet.port) as silent,
        ):
            lively.send(b"\0before")
            lively.until(b"before")
            quiet.connection()
            way.router.terminate()
            began = time.monotonic()
            until(lambda: refused(way.port))
            while time.monotonic() - began < 0.8:
                lively.send(b"\0still;")
                assert lively.until(b";") == b"\0still;"
            for connection in (lively.socket, silent.socket, quiet.connection()):
                assert ends_with_reset(connection)
            assert way.router.wait() == 0
            assert 0.9 < time.monotonic() - began < 4
        ends = {str(r["action"]): r["call"]["end"] for r in way.router.audit() if "egress:connect" in r["action"]}
        assert set(ends.values()) == {"drained"}
        assert len(ends) == 2


def test_a_tunnel_that_ends_lets_the_router_go(tmp_path: Path):
    with proxy(tmp_path, SHUTDOWN_TIMEOUT_SECS="20") as way, Server(echo) as server:
        way.allow(way.place("echo.test.example", server.port))
        with way.tunnel("echo.test.example", server.port) as tunnel:
            tunnel.send(b"\0abc")
            tunnel.until(b"abc")
            way.router.terminate()
            until(lambda: refused(way.port))
            assert way.router.process is not None
            assert way.router.process.poll() is None
            tunnel.socket.shutdown(socket.SHUT_WR)
            assert way.router.wait(5) == 0
        assert way.record("echo.test.example")["end"] == "complete"


def test_without_tunnels_it_ends_at_once(tmp_path: Path):
    with proxy(tmp_path, SHUTDOWN_TIMEOUT_SECS="20") as way, client.Client(way.port) as idle:
        idle.send(b"CONN")
        began = time.monotonic()
        way.router.terminate()
        assert way.router.wait(5) == 0
        assert time.monotonic() - began < 2.5


def refused(port: int) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0
