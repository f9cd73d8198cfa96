"""Health over real sockets."""

import asyncio

import pytest

from kars.controller import health
from kars.controller.health import Health
from kars.errors import UnavailableError


class State:
    def __init__(self):
        self.alive, self.ready = [], []


async def exchange(port, raw, *, finish=True):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    if finish:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def serving(test):
    async def main():
        state = State()
        server = Health(alive=lambda: state.alive, ready=lambda: state.ready, metrics=lambda: b"a_total 1\n")
        await server.start("127.0.0.1", 0)
        try:
            return await test(server, state)
        finally:
            await server.stop()

    return asyncio.run(asyncio.wait_for(main(), 20))


def get(path, method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_probes_say_ok_until_something_is_wrong_and_then_what():
    async def test(server, state):
        for path in ("/healthz", "/livez", "/readyz?verbose"):
            assert (await exchange(server.port, get(path))).endswith(b"\r\n\r\nok")
        state.ready = ["pods were not listed yet"]
        answer = await exchange(server.port, get("/readyz"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"pods were not listed yet\n")
        assert (await exchange(server.port, get("/healthz"))).startswith(b"HTTP/1.1 200 ")
        state.alive = ["task events ended"]
        assert (await exchange(server.port, get("/healthz"))).startswith(b"HTTP/1.1 503 ")

    serving(test)


def test_metrics_are_text_for_prometheus():
    async def test(server, _):
        answer = await exchange(server.port, get("/metrics"))
        assert b"Content-Type: text/plain; version=0.0.4" in answer
        assert answer.endswith(b"\r\n\r\na_total 1\n")
        head = await exchange(server.port, get("/metrics", "HEAD"))
        assert head.endswith(b"\r\n\r\n")
        assert b"Content-Length: 10\r\n" in head

    serving(test)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (get("/other"), b"404"),
        (get("/healthz", "POST"), b"405"),
        (b"garbage\r\n\r\n", b"400"),
        (b"GET /healthz SPDY/3\r\n\r\n", b"400"),
        (b"GET /healthz", b"400"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", b"400"),
        (b"\xff\xfe\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_for_a_page_is_answered_and_ends(raw, status):
    async def test(server, _):
        assert (await exchange(server.port, raw)).split(b" ")[1] == status
        assert (await exchange(server.port, get("/healthz"))).endswith(b"ok")

    serving(test)


def test_a_client_that_says_nothing_is_dropped_and_never_in_the_way(monkeypatch):
    monkeypatch.setattr(health, "DEADLINE", 0.1)

    async def test(server, _):
        silent = [asyncio.create_task(exchange(server.port, b"GET", finish=False)) for _ in range(20)]
        assert (await exchange(server.port, get("/healthz"))).endswith(b"ok")
        assert await asyncio.gather(*silent) == [b""] * 20
        assert not server.connections

    serving(test)


def test_more_connections_than_there_are_places_are_closed_at_once(monkeypatch):
    monkeypatch.setattr(health, "MOST_CONNECTIONS", 2)

    async def test(server, _):
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert await exchange(server.port, b"", finish=False) == b""
        for _, writer in held:
            writer.close()

    serving(test)


def test_an_address_that_is_taken_is_said_by_its_variable():
    async def test(server, _):
        other = Health(alive=list, ready=list, metrics=bytes)
        with pytest.raises(UnavailableError, match="CONTROLLER_METRICS_ADDR"):
            await other.start("127.0.0.1", server.port)

    serving(test)
