"""The plain HTTP door: each request is decided about, and none becomes two."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import client
from tests.system.client import Client
from tests.system.doors import (
    OK,
    TOKEN,
    Egress,
    Peer,
    Server,
    absolute,
    alert,
    answers,
    connect,
    echo,
    egress,
    endpoint,
    everything,
    get,
    until,
)
from tests.system.test_egress_hostile import hello

GOOD, OTHER, EVIL, READ = "good.test.example", "other.test.example", "evil.test.example", "read.test.example"
NAMES = {name: ["127.0.0.1"] for name in (GOOD, OTHER, EVIL, READ)}


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def shared_site(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Egress]:
    port = shared_server.port
    rules = [
        endpoint(GOOD, port),
        endpoint(OTHER, port),
        endpoint(READ, port, methods=["GET", "HEAD"], pathPrefix="/public"),
    ]
    folder = tmp_path_factory.mktemp("plain")
    with egress(folder, NAMES, *rules, EGRESS_HEAD_TIMEOUT_SECS="2") as running:
        yield running


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.clear()
    shared_server.script = answers(OK)
    return shared_server


@pytest.fixture
def site(shared_site: Egress) -> Egress:
    return shared_site


@pytest.fixture
def to(server: Server) -> str:
    return f"{GOOD}:{server.port}"


def reply(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + body


def once(answer: bytes, *, wait: bytes = b"\r\n\r\n") -> Callable[[Peer], None]:
    """A script that answers once, closes its side and waits for the other's end."""

    def script(peer: Peer) -> None:
        peer.until(wait)
        peer.send(answer)
        peer.socket.shutdown(socket.SHUT_WR)
        peer.drain()

    return script


class TestEachRequest:
    def test_a_later_request_on_a_connection_is_decided_about(self, site: Egress, server: Server, to: str):
        """W-12."""
        with site.client() as opened:
            for path in ("/one", "/two"):
                opened.send(absolute(to, path))
                assert opened.response(method="GET").body == b"ok"
            opened.send(absolute(f"{EVIL}:{server.port}", "/three"))
            assert opened.response(method="GET").status == 403
            assert everything(opened) == b""
        assert len(server.peers) == 1
        assert server.data.startswith(b"GET /one HTTP/1.1\r\nHost: " + to.encode())
        assert b"three" not in server.data

    def test_ports_are_decided_about(self, site: Egress):
        """W-12: ports of the allowlist are ignored elsewhere."""
        with Server(answers(OK)) as unlisted:
            for data in (
                connect(f"{GOOD}:{unlisted.port}"),
                absolute(f"{GOOD}:{unlisted.port}"),
                get(f"{GOOD}:{unlisted.port}"),
            ):
                assert site.call(data).header("x-kars-decision-reason") == "unlisted"
            assert site.fetch(f"http://{GOOD}:{unlisted.port}/").status == 403
            assert not unlisted.peers

    def test_requests_go_each_to_its_own_host(self, site: Egress, server: Server):
        with site.client() as opened:
            for host in (GOOD, OTHER, GOOD):
                opened.send(absolute(f"{host}:{server.port}"))
                assert opened.response(method="GET").status == 200
        assert [peer.data.split(b"Host: ")[1].split(b":")[0].decode() for peer in server.peers] == [GOOD, OTHER, GOOD]

    def test_methods_and_paths_are_decided_about(self, site: Egress, server: Server):
        host = f"{READ}:{server.port}"
        for path, method, status in [
            ("/public", "GET", 200),
            ("/public/x?y", "HEAD", 200),
            ("/public/x", "POST", 403),
            ("/publicity", "GET", 403),
            ("/", "GET", 403),
            ("/public/../private", "GET", 403),
            ("/public/%2e%2e/private", "GET", 403),
            ("/public%2fx", "GET", 403),
            ("//public", "GET", 403),
            ("/PUBLIC/x", "GET", 403),
        ]:
            fields = [("Content-Length", "0")] if method == "POST" else []
            found = site.call(absolute(host, path, *fields, method=method), method=method)
            assert found.status == status, path

    def test_a_url_without_a_path_asks_for_the_root(self, tmp_path: Path):
        with Server(answers(OK)) as server:
            with egress(tmp_path, NAMES, endpoint(GOOD, server.port, pathPrefix="/")) as site:
                to = f"{GOOD}:{server.port}"
                for path in ("", "?q=1"):
                    assert site.call(absolute(to, path)).status == 200
            assert server.data.startswith(b"GET / HTTP/1.1\r\n")
            assert b"GET /?q=1 HTTP/1.1\r\n" in server.data

    def test_a_kept_connection_does_not_serve_a_rule_that_would_not_have_made_it(self, tmp_path: Path):
        with Server(answers(OK)) as server:
            rules = [
                endpoint(GOOD, server.port, methods=["GET"]),
                {"host": GOOD, "port": server.port, "methods": ["PUT"]},
            ]
            with egress(tmp_path, NAMES, *rules) as site, site.client() as opened:
                to = f"{GOOD}:{server.port}"
                opened.send(absolute(to))
                assert opened.response(method="GET").status == 200
                opened.send(absolute(to, "/", ("Content-Length", "0"), method="PUT"))
                found = opened.response()
                assert (found.status, found.header("x-kars-decision-reason")) == (403, "address")
                assert b"PUT" not in server.data

    def test_a_policy_that_takes_a_grant_back_holds_for_the_next_request(self, tmp_path: Path):
        with Server(answers(OK)) as server, egress(tmp_path, NAMES, endpoint(GOOD, server.port)) as site:
            to = f"{GOOD}:{server.port}"
            with site.client() as opened, site.tunnel(to) as inside:
                opened.send(absolute(to))
                inside.send(get(GOOD))
                assert opened.response(method="GET").status == inside.response(method="GET").status == 200
                site.allow({"host": GOOD, "port": server.port})
                opened.send(absolute(to))
                inside.send(get(GOOD))
                for waiting in (opened, inside):
                    found = waiting.response(method="GET")
                    assert (found.status, found.header("x-kars-decision-reason")) == (403, "address")

    def test_pipelined_requests_are_answered_in_order(self, site: Egress, server: Server, to: str):
        server.script = answers(*[reply(b"%d" % n, "Content-Length: 1") for n in range(5)])
        with site.client() as opened:
            opened.send(b"".join(absolute(to, f"/{n}") for n in range(5)))
            assert [opened.response(method="GET").body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            opened.send(absolute(to, "/5") + absolute(f"{EVIL}:{server.port}") + absolute(to, "/6"))
            assert opened.response(method="GET").status == 200
            assert opened.response(method="GET").status == 403
        assert b"/6" not in server.data

    def test_a_destination_that_closed_in_the_meantime_costs_no_request(self, site: Egress, server: Server, to: str):
        server.script = once(OK)
        with site.client() as opened:
            for number in range(1, 4):
                opened.send(absolute(to))
                assert opened.response(method="GET").status == 200
                server.wait(number)
                time.sleep(0.05)

    def test_https_urls_and_other_schemes_are_refused(self, site: Egress, server: Server, to: str):
        for url in (f"https://{to}/", f"ftp://{to}/", f"http:/{to}/", f"file:///{to}"):
            assert site.call(get(GOOD, url)).status == 400
        assert not server.peers


#: One body, after which a second request hides; what it is made to be depends on who reads the head.
INNER = b"GET /smuggled HTTP/1.1\r\nHost: evil.test.example\r\n\r\n"
CHUNK = b"%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n"


def post(to: str, *lines: bytes, body: bytes = b"", end: bytes = b"\r\n") -> bytes:
    head = [b"POST http://" + to.encode() + b"/ HTTP/1.1", b"Host: " + to.encode(), *lines]
    return end.join([*head, b"", b""]) + body


class TestSmuggling:
    @pytest.mark.parametrize(
        "lines",
        [
            [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
            [b"Content-Length: 0", b"Content-Length: 5"],
            [b"Content-Length: 5", b"Content-Length: 5"],
            [b"Content-Length: 5, 5"],
            [b"Content-Length: +5"],
            [b"Content-Length: -1"],
            [b"Content-Length: 0x5"],
            [b"Content-Length: 5 5"],
            [b"Content-Length: 99999999999999999999"],
            [b"Content-Length:"],
            [b"Content-Length : 5"],
            [b"Content-Length: 0", b" 5"],
            [b"Content-Length\x00: 5"],
            [b"Content_Length: 5", b"Content-Length: x"],
            [b"Transfer-Encoding: identity"],
            [b"Transfer-Encoding: xchunked"],
            [b"Transfer-Encoding: chunked, identity"],
            [b"Transfer-Encoding: gzip, chunked"],
            [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
            [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: \x0bchunked"],
            [b"Transfer-Encoding:\x0bchunked"],
            [b"Transfer-Encoding : chunked"],
            [b'Transfer-Encoding: "chunked"'],
            [b"Transfer-Encoding: chunked;q=1"],
            [b"Transfer-Encoding:", b" chunked"],
            [b"X: y\nTransfer-Encoding: chunked"],
            [b"X: y\rTransfer-Encoding: chunked"],
            [b"X: y", b"\tTransfer-Encoding: chunked"],
            [b"Host: evil.test.example"],
            [b"host: good.test.example"],
            [b"X", b"Content-Length: 5"],
            [b": 5"],
            [b"X: a\x00b"],
        ],
        ids=lambda lines: lines[0][:40].decode("latin-1").encode("unicode_escape").decode(),
    )
    def test_a_head_that_could_be_read_in_two_ways_is_refused(
        self, lines: list[bytes], site: Egress, server: Server, to: str
    ):
        for body in (INNER, CHUNK):
            found = site.call(post(to, *lines, body=body), method="POST")
            assert found.status in {400, 403}
            with site.tunnel(to) as inside:
                inside.send(post(to, *lines, body=body).replace(b"http://" + to.encode(), b"", 1))
                assert inside.response().status in {400, 403}
        assert b"smuggled" not in server.data
        assert b"POST" not in server.data

    def test_lines_that_end_without_cr_are_refused(self, site: Egress, server: Server, to: str):
        for end in (b"\n", b"\r", b"\r\r\n", b"\n\r\n"):
            with site.client() as opened:
                opened.send(post(to, b"Content-Length: 0", end=end))
                opened.socket.shutdown(socket.SHUT_WR)
                assert b" 200 " not in everything(opened)
        assert not server.peers

    @pytest.mark.parametrize(
        "body",
        [
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"-1\r\nhello\r\n0\r\n\r\n",
            b"\r\n0\r\n\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nhello",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;\x00\r\nhello\r\n0\r\n\r\n",
            b"5;" + b"x" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
            b"5\r\nhello\r\n0\r\nX y\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX: y\n\r\n",
            b"1;" + b"x" * 200 + b"\r\nh\r\n" * 100,
        ],
        ids=lambda body: body[:24].decode("latin-1").encode("unicode_escape").decode(),
    )
    def test_a_chunked_body_that_could_be_read_in_two_ways_is_cut_off(
        self, body: bytes, site: Egress, server: Server, to: str
    ):
        head = post(to, b"Transfer-Encoding: chunked")
        server.script = Peer.drain
        for data in (head + body, head + body + INNER):
            with site.client() as opened:
                with contextlib.suppress(ConnectionError):
                    opened.send(data)
                found = everything(opened)
                assert b" 200 " not in found
                assert found == b"" or found.startswith(b"HTTP/1.1 400 ")
        until(lambda: all(peer.ended.is_set() for peer in list(server.peers)))
        assert b"smuggled" not in server.data
        assert not any(peer.data.endswith(b"0\r\n\r\n") for peer in server.peers if body[:2] != b"\r\n")

    def test_what_follows_a_body_is_a_request_of_its_own(self, site: Egress, server: Server, to: str):
        """However it is framed, the second request is decided about, and is refused here."""

        def script(peer: Peer) -> None:
            peer.until(b"\n\r\n")
            peer.until(b"the end")
            if b"chunked" in peer.data:
                peer.until(b"\r\n0\r\n")
            peer.send(OK)
            peer.drain()

        server.script = script
        for framing, body in (
            (b"Content-Length: 7", b"the end"),
            (b"Transfer-Encoding: chunked", b"7\r\nthe end\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: Chunked", b"1;x=y\r\n-\r\n7\r\nthe end\r\n0\r\nX: y\r\n\r\n"),
        ):
            with site.client() as opened:
                opened.send(post(to, framing, body=body) + INNER)
                assert opened.response().status == 200
                assert opened.response(method="GET").status == 403
        assert b"smuggled" not in server.data

    def test_fields_named_by_connection_do_not_take_the_framing_away(self, site: Egress, server: Server, to: str):
        for name in (b"Content-Length", b"Transfer-Encoding", b"Host", b"close, Content-Length"):
            server.clear()
            server.script = once(OK, wait=b"hello")
            with site.client() as opened:
                opened.send(post(to, b"Content-Length: 5", b"Connection: " + name, body=b"hello"))
                assert opened.response().status == 200
            assert b"Content-Length: 5\r\n" in server.data
            assert server.data.count(b"Host: ") == 1


class TestFieldsOfOneHop:
    def test_they_stop_here(self, site: Egress, server: Server, to: str):
        fields = [
            ("Proxy-Authorization", "Basic c2VjcmV0"),
            ("Proxy-Connection", "keep-alive"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("Connection", "keep-alive, X-Mine"),
            ("X-Mine", "1"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAA"),
            ("Authorization", "Bearer kept"),
            ("X-Other", "2"),
        ]
        assert site.call(absolute(to, "/", *fields)).status == 200
        lines = server.data.decode().split("\r\n")
        assert lines == ["GET / HTTP/1.1", f"Host: {to}", "Authorization: Bearer kept", "X-Other: 2", "", ""]

    def test_those_of_an_answer_stop_here_too(self, site: Egress, server: Server, to: str):
        server.script = answers(
            reply(
                b"ok",
                "Connection: X-Hop",
                "X-Hop: 1",
                "Keep-Alive: timeout=1",
                "Proxy-Authenticate: Basic",
                "Content-Length: 2",
                "X-End: 2",
            )
        )
        with site.client() as opened:
            for _ in range(2):
                opened.send(absolute(to))
                found = opened.response(method="GET")
                assert found.body == b"ok"
                assert {name.lower() for name, _ in found.fields} == {"content-length", "x-end"}

    def test_the_credentials_of_a_connect_stop_here(self, site: Egress, server: Server, to: str):
        with site.tunnel(to, ("Proxy-Authorization", "Basic c2VjcmV0")) as inside:
            inside.send(b"\0")
            until(lambda: server.data == b"\0")


class TestBodies:
    def test_uploads_arrive_as_they_were_sent(self, site: Egress, server: Server, to: str):
        sized = b"x" * 300_000
        server.script = once(OK, wait=b"x" * 300_000)
        with site.client() as opened:
            opened.send(post(to, b"Content-Length: 300000", body=sized))
            assert opened.response().status == 200
        server.clear()
        chunks = (
            b"".join(b"%x;a=b\r\n" % size + b"y" * size + b"\r\n" for size in (1, 15, 4096, 70_000))
            + b"0\r\nX-T: 1\r\n\r\n"
        )
        server.script = once(OK, wait=b"0\r\nX-T: 1\r\n\r\n")
        with site.client() as opened:
            head = post(to, b"Transfer-Encoding: chunked")
            for at in range(0, len(chunks), 9999):
                opened.send((head if not at else b"") + chunks[at : at + 9999])
            assert opened.response().status == 200
        assert server.data.endswith(chunks)

    def test_downloads_arrive_as_they_were_sent(self, site: Egress, server: Server, to: str):
        chunks = b"".join(b"%x\r\n" % size + b"z" * size + b"\r\n" for size in (1, 15, 4096, 70_000)) + b"0\r\n\r\n"
        server.script = answers(
            reply(chunks, "Transfer-Encoding: chunked"),
            reply(b"z" * 300_000, "Content-Length: 300000"),
            reply(b"", "Content-Length: 0"),
        )
        with site.client() as opened:
            for size in (74112, 300_000, 0):
                opened.send(absolute(to))
                found = opened.response(method="GET")
                assert (found.whole, len(found.body)) == (True, size)
        assert len(server.peers) == 1

    def test_a_body_until_the_end_of_its_connection_ends_the_clients(self, site: Egress, server: Server, to: str):
        server.script = once(reply(b"all of it", "Content-Type: text/plain"))
        found = site.call(absolute(to))
        assert (found.body, found.header("connection")) == (b"all of it", "close")

    @pytest.mark.parametrize(
        ("method", "answer"),
        [
            ("HEAD", reply(b"", "Content-Length: 5000")),
            ("HEAD", reply(b"", "Transfer-Encoding: chunked")),
            ("GET", reply(b"", status="204 No Content")),
            ("GET", reply(b"", "Content-Length: 12", status="304 Not Modified")),
        ],
    )
    def test_answers_without_a_body_leave_the_connection_open(
        self, method: str, answer: bytes, site: Egress, server: Server, to: str
    ):
        server.script = answers(answer, OK)
        with site.client() as opened:
            opened.send(absolute(to, method=method) + absolute(to))
            assert opened.head().status == int(answer[9:12])
            assert opened.response(method="GET").body == b"ok"
        assert len(server.peers) == 1

    @pytest.mark.parametrize("how", ["fin", "reset"])
    @pytest.mark.parametrize(
        "answer",
        [
            reply(b"half", "Content-Length: 8"),
            reply(b"8\r\nhalf", "Transfer-Encoding: chunked"),
            reply(b"4\r\nhalf\r\n", "Transfer-Encoding: chunked"),
            reply(b"half", "Content-Type: text/plain"),
        ],
        ids=["length", "in-chunk", "between-chunks", "until-close"],
    )
    @pytest.mark.parametrize("inside", [False, True], ids=["plain", "tunnel"])
    def test_a_body_that_breaks_off_is_seen_to(
        self, inside: bool, answer: bytes, how: str, site: Egress, server: Server, to: str
    ):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(answer)
            time.sleep(0.05)
            if how == "reset":
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

        server.script = script
        with site.tunnel(to) if inside else site.client() as opened:
            opened.send(get(GOOD) if inside else absolute(to))
            data, ended = b"", "fin"
            try:
                while got := opened.socket.recv(65536):
                    data += got
            except ConnectionResetError:
                ended = "reset"
        assert data.startswith(b"HTTP/1.1 200")
        if b"text/plain" in answer:
            assert ended == how
        else:
            assert not data.endswith(b"0\r\n\r\n")

    def test_more_bytes_than_a_rule_allows_break_a_body_off(self, tmp_path: Path):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(reply(b"x" * 3000, "Content-Type: text/plain"))
            time.sleep(0.1)
            peer.send(b"x" * 3000)

        with Server(script) as server, egress(tmp_path, NAMES, endpoint(GOOD, server.port, maxBytes=5000)) as site:
            with site.client() as opened:
                opened.send(absolute(f"{GOOD}:{server.port}"))
                with pytest.raises(ConnectionResetError):
                    opened.until(b"never")
            assert site.record(action=f"egress:http:{GOOD}:{server.port}:GET")["end"] == "bytes"

    def test_an_answer_may_come_before_all_of_the_upload(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(reply(b"too large", "Content-Length: 9", status="413 Content Too Large"))
            peer.drain()

        server.script = script
        with site.client() as opened:
            opened.send(post(to, b"Content-Length: 100000000"))
            opened.send(b"x" * 200_000)
            found = opened.response()
            assert (found.status, found.body) == (413, b"too large")
            # Nobody reads the rest, so nothing else can follow.
            assert everything(opened) == b""

    def test_the_answer_of_a_destination_that_stops_reading_arrives(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(reply(b"no", "Content-Length: 2", "Connection: close", status="401 Unauthorized"))
            peer.socket.shutdown(socket.SHUT_RDWR)

        server.script = script
        with site.client() as opened:
            opened.send(post(to, b"Content-Length: 100000000"))
            assert opened.response().status == 401

    def test_expectations_go_on_and_interim_answers_come_back(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.until(b"hello")
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
            peer.drain()

        server.script = script
        for inside in (False, True):
            with site.tunnel(to) if inside else site.client() as opened:
                head = post(to, b"Content-Length: 5", b"Expect: 100-continue")
                opened.send(head.replace(b"http://" + to.encode(), b"", 1) if inside else head)
                assert opened.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                opened.send(b"hello")
                assert opened.until(b"\r\n\r\n").startswith(b"HTTP/1.1 103 ")
                assert opened.response().body == b"ok"

    def test_http_1_0_clients_get_their_answer_and_the_end(self, site: Egress, server: Server, to: str):
        server.script = once(reply(b"old", "Content-Length: 3"))
        for fields in (b"", b"Connection: keep-alive\r\n"):
            with site.client() as opened:
                opened.send(b"GET http://" + to.encode() + b"/ HTTP/1.0\r\n" + fields + b"\r\n")
                assert everything(opened).endswith(b"\r\n\r\nold")
        assert server.data.startswith(b"GET / HTTP/1.0\r\nHost: ")


class TestAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            reply(b"ok", "Content-Length: 2", "Transfer-Encoding: chunked"),
            reply(b"ok", "Content-Length: 2", "Content-Length: 3"),
            reply(b"ok", "Content-Length: two"),
            reply(b"ok", "Transfer-Encoding: gzip, chunked"),
            reply(b"ok", "Content-Length : 2"),
            b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 099 Low\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        ],
        ids=lambda answer: answer[:60].decode("latin-1").encode("unicode_escape").decode()[9:],
    )
    def test_one_that_could_be_read_in_two_ways_is_refused(self, answer: bytes, site: Egress, server: Server, to: str):
        for inside in (False, True):
            server.clear()
            server.script = once(answer)
            with site.tunnel(to) if inside else site.client() as opened:
                opened.send(get(GOOD) if inside else absolute(to))
                found = opened.response(method="GET")
                assert found.status == 502
                assert found.header("proxy-status") == "kars; error=http_protocol_error"

    def test_bytes_behind_an_answer_answer_nothing(self, site: Egress, server: Server, to: str):
        server.script = answers(OK + reply(b"forged", "Content-Length: 6"), OK)
        with site.client() as opened:
            for _ in range(2):
                opened.send(absolute(to))
                assert opened.response(method="GET").body == b"ok"

    def test_none_at_all_gets_502(self, site: Egress, server: Server, to: str):
        server.script = lambda peer: peer.until(b"\r\n\r\n")
        found = site.call(absolute(to))
        assert (found.status, found.header("proxy-status")) == (502, "kars; error=connection_terminated")


class TestUpgrades:
    def test_a_websocket_moves_bytes(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(reply(b"first", "Connection: Upgrade", "Upgrade: websocket", status="101 Switching Protocols"))
            peer.data = b""
            echo(peer)

        server.script = script
        with site.client() as opened:
            opened.send(absolute(to, "/", ("Connection", "Upgrade"), ("Upgrade", "websocket")) + b"early")
            head = opened.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"Upgrade: websocket" in head
            opened.until(b"firstearly")
            opened.send(b"\x81\x85" + b"x" * 100_000)
            opened.fill(100_002)
            opened.socket.shutdown(socket.SHUT_WR)
            assert len(everything(opened)) == 100_002
        record = site.record(action=f"egress:http:{to}:GET", status=101)
        assert (record["end"], record["sent_bytes"] > 100_000, record["received_bytes"] > 100_000) == (
            "complete",
            True,
            True,
        )

    def test_one_that_is_refused_is_an_answer(self, site: Egress, server: Server, to: str):
        with site.client() as opened:
            for _ in range(2):
                opened.send(absolute(to, "/", ("Connection", "Upgrade"), ("Upgrade", "websocket")))
                assert opened.response(method="GET").body == b"ok"


class TestAddresses:
    PRIVATE = "127.0.0.1"

    def test_names_are_looked_up_once_and_what_was_checked_is_dialled(self, tmp_path: Path):
        """DNS rebinding: whatever is said the second time, there is no second time."""
        from tests.system.dns import Turns

        with Server(answers(OK), address="127.0.0.5") as good, Server(address="127.0.0.6", port=good.port) as bad:
            rule = {"host": "test.example", "port": good.port, "addresses": ["127.0.0.5/32"]}
            with egress(tmp_path, {}, rule) as site:
                for number, ask in enumerate(
                    [
                        lambda to: site.call(connect(to), method="HEAD").status,
                        lambda to: site.call(absolute(to)).status,
                        lambda to: site.fetch(f"http://{to}/").status,
                    ]
                ):
                    name = f"rebound{number}.test.example"
                    site.dns.names[name] = Turns([["127.0.0.5"], ["127.0.0.6"]])
                    assert ask(f"{name}:{good.port}") == 200
                    assert [query.kind for query in site.dns.asked(name)].count("A") == 1
                    until(lambda number=number: len(good.peers) == number + 1)
                    # Once the record has run out, the new answer is judged like the first.
                    time.sleep(1.1)
                    until(lambda ask=ask, name=name: ask(f"{name}:{good.port}") == 403, 3)
                assert not bad.peers

    def test_of_mixed_answers_only_the_granted_are_dialled(self, tmp_path: Path):
        with (
            Server(answers(OK), address="127.0.0.5") as good,
            Server(answers(OK), address="127.0.0.6", port=good.port) as bad,
        ):
            rule = {"host": "test.example", "port": good.port, "addresses": ["127.0.0.5/32"]}
            names = {
                "mixed.test.example": ["127.0.0.6", "10.0.0.1", "127.0.0.5", "169.254.169.254"],
                "barred.test.example": ["127.0.0.6", "10.0.0.1", "::1"],
            }
            with egress(tmp_path, names, rule) as site:
                for _ in range(3):
                    assert site.call(absolute(f"mixed.test.example:{good.port}")).status == 200
                assert (
                    site.call(absolute(f"barred.test.example:{good.port}")).header("x-kars-decision-reason")
                    == "address"
                )
                assert site.record(3, decision="allow")
                assert {record["address"] for record in site.records(decision="allow")} == {"127.0.0.5"}
            assert not bad.peers

    @pytest.mark.parametrize(
        "address",
        ["127.0.0.1", "0.0.0.0", "10.0.0.1", "169.254.169.254", "::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
         "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::", "fd00::1", "fe80::1", "100.64.0.1",
         "::127.0.0.1", "2001:0:808:808::5601:5601", "168.63.129.16", "255.255.255.255", "224.0.0.1"],
    )  # fmt: skip
    def test_a_name_that_leads_to_one_of_these_goes_nowhere(self, address: str, site: Egress, server: Server):
        from tests.system.dns import Alias

        name = f"n{abs(hash(address))}.led.test.example"
        site.dns.names[name] = [address]
        site.dns.names[f"alias.{name}"] = Alias(name)
        site.learn(True)
        try:
            for host in (name, f"alias.{name}"):
                for data in (connect(f"{host}:{server.port}"), absolute(f"{host}:{server.port}")):
                    found = site.call(data)
                    assert (found.status, found.header("x-kars-decision-reason")) == (403, "address")
                with site.client() as opened:
                    opened.send(hello(host.encode()))
                    assert alert(everything(opened)) == 49
                assert site.fetch(f"http://{host}:{server.port}/").status == 403
        finally:
            site.learn(False)
            client.post(site.router.port, "/egress/learned/clear", b"", ("Authorization", f"Bearer {TOKEN}"))
        assert not server.peers

    def test_the_routers_own_ports_cannot_be_reached_by_a_name(self, tmp_path: Path):
        own = [address for address in machine() if not address.startswith("127.")]
        names = {
            "self.test.example": ["127.0.0.1", "::1"],
            "pod.test.example": own,
            "any.test.example": ["0.0.0.0", "::"],
        }
        with egress(tmp_path, names) as site:
            ports = (site.router.port, site.router.proxy_port, site.router.metrics_port)
            site.allow(*[{"host": "test.example", "port": port} for port in ports])
            for name in (name for name, addresses in names.items() if addresses):
                for port in ports:
                    found = site.call(absolute(f"{name}:{port}", "/healthz"))
                    assert (found.status, found.header("x-kars-decision-reason")) == (403, "address")
            assert site.call(absolute(f"localhost:{ports[0]}")).status == 403

    @pytest.mark.parametrize("text", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"])
    def test_an_address_that_the_policy_writes_out_is_reached_and_no_other_spelling_gets_around(
        self, text: str, tmp_path: Path
    ):
        family = "::1" if text == "[::1]" else "127.0.0.1"
        with Server(answers(OK), address=family) as server, egress(tmp_path, {}) as site:
            site.allow({"host": "127.0.0.2", "port": server.port})
            found = site.call(absolute(f"{text}:{server.port}"))
            assert (found.status, len(server.peers)) == (403, 0)
            site.allow({"host": family, "port": server.port})
            assert site.call(absolute(f"{text}:{server.port}")).status == 200

    def test_every_address_is_tried_before_giving_up(self, tmp_path: Path):
        """W-33: the first address alone."""
        with Server(answers(OK), address="127.0.0.9") as server:
            names = {"many.test.example": ["127.0.0.7", "127.0.0.8", "127.0.0.9"]}
            with egress(tmp_path, names, endpoint("many.test.example", server.port)) as site:
                assert site.call(absolute(f"many.test.example:{server.port}")).status == 200
                assert site.record(decision="allow")["address"] == "127.0.0.9"


def machine() -> set[str]:
    """Addresses of this machine that are not global: what a pod's own address is."""
    import ipaddress

    found = {row[4][0].split("%")[0] for row in socket.getaddrinfo(socket.gethostname(), None)}
    return {address for address in found if not ipaddress.ip_address(address).is_global}


SECRET = "s3cr3t-value"


class TestDenials:
    """What a refusal says, and where it can be found again."""

    def check(
        self, site: Egress, answer: client.Response, raw: bytes, phrase: str, reason: str, to: str, rule: str
    ) -> None:
        assert raw.startswith(f"HTTP/1.1 403 Forbidden \u2014 {phrase}\r\n".encode())
        lines = answer.text.splitlines()
        assert lines[0] == phrase
        facts = dict(line.split(": ", 1) for line in lines[1:])
        assert list(facts)[:2] == ["destination", "decision"]
        assert set(facts) <= {"destination", "decision", "reason", "rule", "to allow it"}
        decision = answer.header("x-kars-decision-id")
        assert (facts["destination"], facts["decision"], facts["rule"]) == (to, decision, rule)
        assert answer.header("x-kars-decision") == "blocked"
        assert answer.header("x-kars-decision-by") == "EgressPolicy"
        assert answer.header("x-kars-decision-reason") == reason
        assert answer.header("proxy-status") == "kars; error=http_request_denied"
        assert answer.header("connection") == "close"
        assert answer.header("content-type") == "text/plain; charset=utf-8"
        record = site.decided(answer)
        assert (record["decision"], record["rule"], record["status"], record["end"]) == ("deny", rule, 403, "denied")
        assert "address" not in record or not record["address"]

    @pytest.mark.parametrize("door", ["connect", "http"])
    @pytest.mark.parametrize("case", ["unlisted", "deny", "address", "fronting", "blocklist"])
    def test_a_refusal_is_told_recorded_counted_and_listed(self, door: str, case: str, tmp_path: Path):
        (tmp_path / "seed").write_text("blocked.test.example\n")
        names = {
            f"{name}.test.example": ["127.0.0.1"] for name in ("unlisted", "deny", "address", "fronting", "blocklist")
        }
        rules = [{"host": f"{name}.test.example", "port": 81} for name in ("address", "fronting", "deny")]
        more = {"BLOCKLIST_SEED_PATH": str(tmp_path / "seed")}
        with egress(tmp_path, names, **more) as site:
            site.allow(*rules, deny=({"host": "deny.test.example", "port": 81, "pathPrefix": "/x"},))
            host = "blocked.test.example" if case == "blocklist" else f"{case}.test.example"
            if case == "blocklist":
                until(lambda: client.post(site.router.port, "/blocklist/check", {"domain": host}).json["blocked"])
            named = [("Host", "other.test.example:81")] if case == "fronting" else [("Host", f"{host}:81")]
            data = connect(f"{host}:81", *named)
            if door == "http":
                data = get(named[0][1], f"http://{host}:81/x/{'y' * 10}?key={SECRET}")
            for _ in range(2):
                with site.client() as opened:
                    opened.send(data)
                    raw = opened.inbox = everything(opened)
                    answer = opened.response(method="GET")
            policy = "host not in allowlist (kars egress policy)"
            phrase, reason, rule = {
                "unlisted": (policy, "unlisted", "allowlist"),
                "deny": (policy, "deny_rule", "allowlist.deny[0]"),
                "blocklist": (policy, "blocklist", "blocklist.blocked.test.example"),
                "address": ("address not allowed (kars egress policy)", "address", "address-guard"),
                "fronting": ("names differ or are hidden (kars egress policy)", "fronting", "egress-fronting"),
            }[case]
            self.check(site, answer, raw, phrase, reason, f"{host}:81", rule)
            assert [(row["port"], row["count"]) for row in site.blocked(host)] == [(81, 2)]
            assert site.router.metric("kars_egress_decisions_total", door=door, reason=reason) == 2
            assert site.router.metric("kars_denials_total", kind="egress") == 2

    def test_no_policy_and_no_name_are_told_apart(self, tmp_path: Path):
        with egress(tmp_path, {}, endpoint(GOOD, 81)) as site:
            found = site.call(absolute(f"{GOOD}:81"))
            assert (found.status, found.header("proxy-status")) == (502, "kars; error=dns_error")
            assert "x-kars-decision" not in {name for name, _ in found.fields}
            assert found.text.startswith("DNS validation failed\n")
            assert site.decided(found)["decision"] == "allow"
            site.mount.remove("allowlist.json")
            until(lambda: site.call(absolute(f"{GOOD}:81")).header("x-kars-decision-reason") == "no_policy")

    def test_a_malformed_request_is_told_what_is_wrong(self, site: Egress):
        found = site.call(b"GET / HTTP/1.1\r\n\r\n")
        assert (found.status, found.header("proxy-status")) == (400, "kars; error=http_request_error")
        assert found.text.startswith("Missing Host header\n")
        record = site.decided(found)
        assert (record["decision"], record["status"], record["rule"]) == ("deny", 400, "Missing Host header")

    def test_a_head_that_does_not_come_is_told_so(self, site: Egress):
        """W-14: no time for a head."""
        begun = time.monotonic()
        with site.client() as silent, site.client() as slow:
            slow.send(b"GET http://")
            assert everything(slow).startswith(b"HTTP/1.1 408 Request Timeout \xe2\x80\x94 ")
            assert everything(silent) == b""
        assert 1.5 < time.monotonic() - begun < 6

    def test_a_head_that_is_too_long_is_told_so(self, site: Egress):
        found = site.call(b"GET http://x/ HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")
        assert found.status == 431

    def test_a_dot_at_the_end_gets_around_nothing(self, tmp_path: Path):
        """W-14: a trailing dot."""
        (tmp_path / "seed").write_text("evil.example\n")
        names = {"evil.example": ["127.0.0.1"], "deny.example": ["127.0.0.1"]}
        with egress(tmp_path, names, BLOCKLIST_SEED_PATH=str(tmp_path / "seed"), EGRESS_MODE="learn") as site:
            site.allow(endpoint("x.example", 81), deny=({"host": "deny.example"},))
            until(lambda: client.post(site.router.port, "/blocklist/check", {"domain": "evil.example"}).json["blocked"])
            for name in ("evil.example", "deny.example"):
                for host in (name, f"{name}.", f"WWW.{name}.", name.upper()):
                    assert site.call(connect(f"{host}:81")).status == 403
                    assert site.call(absolute(f"{host}:81")).status == 403
                    with site.client() as opened:
                        opened.send(hello(host.rstrip(".").encode()))
                        assert alert(everything(opened)) == 49
                assert site.call(connect(f"{name}..:81")).status == 400

    def test_secrets_stay_where_they_belong(self, tmp_path: Path):
        with Server(answers(OK)) as server, egress(tmp_path, NAMES, EGRESS_MODE="learn", RUST_LOG="trace") as site:
            site.allow(endpoint(GOOD, server.port), deny=({"host": EVIL},))
            to, evil = f"{GOOD}:{server.port}", f"{EVIL}:{server.port}"
            kept = [
                ("Authorization", f"Bearer {SECRET}"),
                ("Proxy-Authorization", f"Basic {SECRET}"),
                ("Cookie", SECRET),
            ]
            for target in (to, evil):
                site.call(absolute(target, f"/p?key={SECRET}", *kept))
                site.call(connect(target, *kept), method="HEAD")
                site.fetch(f"http://{target}/p?key={SECRET}", headers=dict(kept), body=SECRET, method="POST")
                with site.client() as opened:
                    opened.send(connect(target, *kept) + get(target, f"/q?key={SECRET}", *kept))
                    opened.socket.shutdown(socket.SHUT_WR)
                    everything(opened)
            for broken in (
                f"GET http://user:{SECRET}@{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n",
                f"GET http://{to}/?{SECRET} HTTP/1.1\r\nHost: {EVIL}\r\n\r\n",
                f"GET http://{to}/#{SECRET} HTTP/1.1\r\nHost: {to}\r\n\r\n",
                f"GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\nX {SECRET}\r\n\r\n",
                f"CONNECT {SECRET}@{to} HTTP/1.1\r\n\r\n",
                f"{SECRET} {SECRET}\r\n\r\n",
            ):
                assert SECRET not in site.call(broken.encode()).text
            site.fetch(f"http://user:{SECRET}@{to}/")
            site.fetch(f"http://{SECRET}@{evil}/")
            until(lambda: len(site.records()) >= 16)
            for path in ("/egress/learned", "/internal/egress/blocked", "/internal/egress/blocked/top"):
                assert SECRET not in client.get(site.router.port, path).text
            assert SECRET not in site.router.metrics()
            assert client.get(site.router.port, "/egress/learned").json["count"] > 0
        for path in tmp_path.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert SECRET.encode() not in path.read_bytes(), path

    def test_names_that_a_client_makes_up_do_not_grow_a_record(self, site: Egress):
        method = "M" * 20_000
        found = site.call(absolute(f"{EVIL}:81", "/" + "p" * 20_000, method=method))
        assert found.status == 403
        assert len(json.dumps(site.decided(found))) < 4000


class TestManyAtOnce:
    def test_neighbours_see_nothing_of_each_other(self, site: Egress, server: Server):
        """Requests and tunnels to two hosts, mixed with refused ones, on many connections at once."""
        wrong: list[object] = []

        def one(number: int) -> None:
            host = f"{(GOOD, OTHER, EVIL)[number % 3]}:{server.port}"
            try:
                with Client(site.port) as opened:
                    for turn in range(5):
                        opened.send(absolute(host, f"/{number}/{turn}"))
                        found = opened.response(method="GET")
                        if found.status != (403 if number % 3 == 2 else 200):
                            wrong.append((number, found.status, found.body))
                        if found.status == 403:
                            return
            except Exception as error:  # noqa: BLE001
                wrong.append((number, error))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not wrong
        for peer in server.peers:
            hosts = {line for line in peer.data.split(b"\r\n") if line.startswith(b"Host: ")}
            numbers = {line.split(b"/")[1] for line in peer.data.split(b"\r\n") if line.startswith(b"GET ")}
            assert len(hosts) == len(numbers) == 1
        assert EVIL.encode() not in server.data
