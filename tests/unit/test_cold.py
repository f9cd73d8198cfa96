"""The cold server on its socket, with real granian and uvloop."""

import http.client
import json
import os
import socket
import stat
import threading

import pytest

from kars.router.cold import Cold


class Unix(http.client.HTTPConnection):
    """An HTTP client over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


@pytest.fixture
def cold(fake_engine):
    engine = fake_engine()
    attached = threading.Event()
    engine.attach_cold = lambda path: (engine.calls.append(("attach_cold", path)), attached.set())
    server = Cold(engine)
    server.start()
    assert attached.wait(20)
    yield server
    server.stop()


def call(cold, method, path, body=None):
    client = Unix(cold.engine.calls[0][1])
    try:
        client.request(method, path, body)
        response = client.getresponse()
        return response.status, response.getheader("content-type"), response.read()
    finally:
        client.close()


def test_it_serves_from_a_thread_on_a_socket_that_only_this_user_reaches(cold):
    path = cold.engine.calls[0][1]
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    status, kind, body = call(cold, "PUT", "/admin/model", b'{"model": "o3"}')
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {"model": "o3", "previous": "gpt-4.1"}
    assert call(cold, "GET", "/statusz")[:2] == (200, "text/plain; charset=utf-8")


def test_a_head_has_no_body(cold):
    assert call(cold, "HEAD", "/configz") == (200, "application/json", b"")


def test_stopping_removes_the_socket_and_ends_the_thread(cold):
    cold.stop()
    assert not cold.alive()
    assert not os.path.exists(cold.directory)


def test_stopping_while_it_still_imports_ends_it(fake_engine):
    server = Cold(fake_engine())
    server.start()
    server.stop()
    server.thread.join(20)
    assert not server.alive()
    assert not os.path.exists(server.directory)


def test_a_failure_is_told_once_and_leaves_nothing_behind(fake_engine, monkeypatch, capfd):
    server = Cold(fake_engine())

    def fail():
        raise OSError("no room")

    monkeypatch.setattr(server, "serve", fail)
    server.start()
    server.thread.join(20)
    assert capfd.readouterr().err == "cold routes stopped: OSError: no room\n"
    assert not server.alive()
    assert not os.path.exists(server.directory)
