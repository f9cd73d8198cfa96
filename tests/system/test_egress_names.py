"""One destination, one name: CONNECT, Host, SNI and what is said inside a tunnel must agree."""

import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.system.doors import (
    ACCESS_DENIED,
    DECODE_ERROR,
    ESTABLISHED,
    INTERNAL_ERROR,
    OK,
    UNRECOGNIZED_NAME,
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
    rows,
    until,
)
from tests.system.h2 import CANCEL, H2, PREFACE
from tests.system.test_egress_hostile import hello

GOOD, OTHER, EVIL = "good.test.example", "other.test.example", "evil.test.example"
NAMES = {name: ["127.0.0.1"] for name in (GOOD, OTHER, EVIL)}


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def shared_site(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Egress]:
    rules = [endpoint(host, port) for host in (GOOD, OTHER) for port in (shared_server.port, 80, 443)]
    folder = tmp_path_factory.mktemp("names")
    with egress(folder, NAMES, *rules, EGRESS_HEAD_TIMEOUT_SECS="1.5") as running:
        yield running


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.clear()
    return shared_server


@pytest.fixture
def site(shared_site: Egress) -> Egress:
    return shared_site


@pytest.fixture
def to(server: Server) -> str:
    """Where the tunnels go."""
    return f"{GOOD}:{server.port}"


class TestNamesInTheOpen:
    @pytest.mark.parametrize(("target", "host"), list(itertools.product([GOOD, OTHER, EVIL], repeat=2)))
    def test_a_connect_is_for_the_host_that_it_names(self, target: str, host: str, site: Egress, server: Server):
        found = site.call(connect(f"{target}:{server.port}", ("Host", f"{host}:{server.port}")), method="HEAD")
        assert found.status == (200 if target == host != EVIL else 403)
        assert server.data == b""

    @pytest.mark.parametrize(("target", "host"), list(itertools.product([GOOD, OTHER, EVIL], repeat=2)))
    def test_a_plain_request_is_for_the_host_that_it_names(self, target: str, host: str, site: Egress, server: Server):
        server.script = answers(OK)
        found = site.call(absolute(f"{target}:{server.port}", host=f"{host}:{server.port}"))
        assert found.status == (200 if target == host != EVIL else 403)
        if target != host:
            assert (found.header("x-kars-decision-reason"), len(server.peers)) == ("fronting", 0)

    @pytest.mark.parametrize("host", [f"{GOOD}.", GOOD.upper(), f"{GOOD}:{{port}}", f"{GOOD}.:{{port}}"])
    def test_other_spellings_of_a_name_agree(self, host: str, site: Egress, server: Server):
        server.script = answers(OK)
        host = host.format(port=server.port)
        assert site.call(absolute(f"{GOOD}:{server.port}", host=host)).status == 200
        with site.tunnel(f"{GOOD}.:{server.port}", ("Host", host)) as inside:
            inside.send(get(host))
            assert inside.response(method="GET").status == 200

    def test_ports_have_to_agree_too(self, site: Egress, server: Server):
        for data in (
            connect(f"{GOOD}:{server.port}", ("Host", f"{GOOD}:1")),
            absolute(f"{GOOD}:{server.port}", host=f"{GOOD}:1"),
        ):
            assert site.call(data).header("x-kars-decision-reason") == "fronting"
        assert not server.peers


class TestTlsInATunnel:
    @pytest.mark.parametrize("name", [GOOD, GOOD.upper(), None])
    def test_its_own_name_or_none_goes_on(self, name: str | None, site: Egress, server: Server, to: str):
        data = (
            hello(name.encode())
            if name
            else next(r.data for r in rows("egress_hostile.tsv") if "no extensions" in r.rest)
        )
        with site.tunnel(to) as inside:
            inside.send(data)
            until(lambda: server.data == data)

    @pytest.mark.parametrize("name", [OTHER, EVIL, f"x.{GOOD}", GOOD.removeprefix("good.")])
    def test_another_name_goes_nowhere(self, name: str, site: Egress, server: Server, to: str):
        with site.tunnel(to) as inside:
            inside.send(hello(name.encode()))
            assert alert(everything(inside)) == ACCESS_DENIED
        assert server.data == b""
        record = (
            site.record(reason="fronting") if site.records(reason="fronting") else site.record(rule="egress-fronting")
        )
        assert record["decision"] == "deny"

    def test_nothing_of_a_hostile_hello_goes_on(self, site: Egress, server: Server, to: str):
        # Without a name in the clear there is nothing to disagree; what is no TLS is the tunnel's own.
        hostile = [
            row
            for row in rows("egress_hostile.tsv")
            if row.form == "sni"
            and row.kind not in {"no-tls", "sslv2"}
            and (row.kind != "hidden" or "E" in row.rest[0])
        ]
        for row in hostile:
            with site.tunnel(to) as inside:
                inside.send(row.data)
                if row.kind == "unfinished":
                    inside.socket.shutdown(socket.SHUT_WR)
                found = everything(inside)
                assert alert(found) is not None or row.kind == "unfinished", f"{row}: {found!r}"
            assert server.data == b"", str(row)
        assert len(hostile) > 70

    @pytest.mark.parametrize("size", [1, 3, 50])
    @pytest.mark.parametrize("name", [GOOD, EVIL])
    def test_a_hello_in_many_segments_is_one_hello(self, name: str, size: int, site: Egress, server: Server, to: str):
        data = hello(name.encode())
        with site.tunnel(to) as inside:
            for at in range(0, len(data), size):
                inside.send(data[at : at + size])
                time.sleep(0.001)
            if name == GOOD:
                until(lambda: server.data == data)
            else:
                assert alert(everything(inside)) == ACCESS_DENIED
                assert server.data == b""

    @pytest.mark.parametrize("size", [1, 7, 60])
    @pytest.mark.parametrize("name", [GOOD, EVIL])
    def test_a_hello_in_many_records_is_one_hello(self, name: str, size: int, site: Egress, server: Server, to: str):
        message = hello(name.encode())[5:]
        pieces = [message[at : at + size] for at in range(0, len(message), size)]
        data = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)
        with site.tunnel(to) as inside:
            inside.send(data)
            if name == GOOD:
                until(lambda: server.data == data)
            else:
                assert alert(everything(inside)) == ACCESS_DENIED
                assert server.data == b""

    def test_a_hello_that_is_dribbled_for_longer_than_a_head_may_take_is_cut_off(
        self, site: Egress, server: Server, to: str
    ):
        data = hello(EVIL.encode())
        begun = time.monotonic()
        with site.tunnel(to) as inside, contextlib.suppress(ConnectionError):
            for at in range(len(data)):
                inside.send(data[at : at + 1])
                if time.monotonic() - begun > 6:
                    break
                time.sleep(0.25)
        assert 1 < time.monotonic() - begun < 5
        assert server.data == b""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class TestTls:
    @pytest.fixture
    def secure(self, server: Server, authority: trustme.CA) -> Server:
        """The server behind TLS; it sends back what it gets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(GOOD, OTHER).configure_cert(context)

        def script(peer: Peer) -> None:
            if not peer.socket.recv(1, socket.MSG_PEEK):
                return
            with context.wrap_socket(peer.socket, server_side=True) as tls:
                peer.socket = tls  # closes it
                tls.sendall(tls.recv(4096))
                with contextlib.suppress(OSError):
                    tls.unwrap()

        server.script = script
        return server

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_real_handshakes_pass(self, version: ssl.TLSVersion, site: Egress, secure: Server, authority: trustme.CA):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        context.minimum_version = context.maximum_version = version
        with (
            site.tunnel(f"{GOOD}:{secure.port}") as inside,
            context.wrap_socket(inside.socket, server_hostname=GOOD) as tls,
        ):
            tls.sendall(b"hello")
            assert (tls.recv(100), tls.version()) == (b"hello", f"TLSv1.{version.name[-1]}")

    @pytest.mark.parametrize("name", [OTHER, EVIL])
    def test_real_handshakes_for_another_name_do_not(
        self, name: str, site: Egress, secure: Server, authority: trustme.CA
    ):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with site.tunnel(f"{GOOD}:{secure.port}") as inside, pytest.raises(ssl.SSLError, match="access denied"):
            context.wrap_socket(inside.socket, server_hostname=name)


class TestRedirectedTls:
    """Without a redirect's own note of where it was going, the port is 443, where nothing listens."""

    def said(self, site: Egress, data: bytes) -> int | None:
        with site.client() as opened:
            opened.send(data)
            return alert(everything(opened))

    def test_a_name_that_is_allowed_is_dialled(self, site: Egress):
        before = len(site.records(action=f"egress:tls:{OTHER}:443"))
        assert self.said(site, hello(OTHER.encode())) == INTERNAL_ERROR
        record = site.record(before + 1, action=f"egress:tls:{OTHER}:443")
        assert (record["decision"], record["end"]) == ("allow", "connect_failed")

    def test_a_name_that_is_not_is_refused(self, site: Egress):
        assert self.said(site, hello(EVIL.encode())) == ACCESS_DENIED
        assert site.record(action=f"egress:tls:{EVIL}:443")["decision"] == "deny"
        assert [row["port"] for row in site.blocked(EVIL) if row["port"] == 443] == [443]

    def test_a_hidden_or_missing_name_is_refused(self, site: Egress):
        hidden = [row for row in rows("egress_hostile.tsv") if row.kind == "hidden"]
        assert len(hidden) > 5
        for row in hidden:
            assert self.said(site, row.data) == UNRECOGNIZED_NAME, str(row)

    def test_a_broken_hello_is_told_so(self, site: Egress):
        assert self.said(site, b"\x16\x03\x01\x00\x00") == DECODE_ERROR

    def test_a_hello_that_never_ends_is_cut_off(self, site: Egress):
        begun = time.monotonic()
        with site.client() as opened:
            opened.send(hello(GOOD.encode())[:20])
            everything(opened)
        assert 1 < time.monotonic() - begun < 5


class TestHttpInATunnel:
    def test_each_request_is_decided_about(self, site: Egress, server: Server, to: str):
        server.script = answers(OK)
        with site.tunnel(to) as inside:
            inside.send(get(to, "/one?q=1"))
            assert inside.response(method="GET").body == b"ok"
            inside.send(get(GOOD, "/two"))
            assert inside.response(method="GET").body == b"ok"
            inside.send(get(EVIL, "/three"))
            found = inside.response(method="GET")
            assert (found.status, found.header("x-kars-decision-reason")) == (403, "fronting")
            assert everything(inside) == b""
        assert server.data == get(to, "/one?q=1") + get(GOOD, "/two")
        assert site.record(action=f"egress:http:{to}:GET", end="complete")["decision"] == "allow"

    def test_a_pipelined_request_for_another_host_never_gets_there(self, site: Egress, server: Server, to: str):
        server.script = answers(OK)
        with site.tunnel(to) as inside:
            inside.send(get(to, "/one") + get(EVIL, "/two") + get(to, "/three"))
            assert inside.response(method="GET").status == 200
            assert inside.response(method="GET").status == 403
        assert server.data == get(to, "/one")

    def test_no_spelling_of_a_request_carries_another_host(self, site: Egress, server: Server, to: str):
        befores = [b"", b"\r\n", b"\n", b"\r\n\r\n", b"\r\r\n"]
        lines = [
            b"GET / HTTP/1.1",
            b"get / HTTP/1.1",
            b"PROPFIND / HTTP/1.1",
            b"M-SEARCH * HTTP/1.1",
            b"X / HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"GET / http/1.1",
            b"GET\t/\tHTTP/1.1",
            b"GET\x0b/\x0cHTTP/1.1",
            b"GET /  HTTP/1.1 ",
            b"GET http://evil.test.example/ HTTP/1.1",
            b"CONNECT evil.test.example:80 HTTP/1.1",
        ]
        for before, line, end in itertools.product(befores, lines, [b"\r\n", b"\n", b"\r"]):
            data = before + line + end + b"Host: evil.test.example" + end + end
            with site.tunnel(to) as inside:
                inside.send(data)
                inside.socket.shutdown(socket.SHUT_WR)
                everything(inside)
            assert b"evil" not in server.data, data

    @pytest.mark.parametrize("host", [GOOD, EVIL])
    def test_a_request_that_comes_byte_by_byte_is_decided_about(self, host: str, site: Egress, server: Server, to: str):
        server.script = answers(OK)
        data = get(host, "/dribbled", ("X", "y"))
        with site.tunnel(to) as inside:
            with contextlib.suppress(ConnectionError):
                for at in range(len(data)):
                    inside.send(data[at : at + 1])
                    time.sleep(0.001)
            assert inside.response(method="GET").status == (200 if host == GOOD else 403)
        if host == GOOD:
            assert server.data == data
        else:
            assert b"\n" not in server.data

    def test_a_head_that_stops_halfway_is_cut_off(self, site: Egress, server: Server, to: str):
        begun = time.monotonic()
        with site.tunnel(to) as inside:
            inside.send(b"GET / HTTP/1.1\r\nHost: ")
            assert b" 408 " in everything(inside)
        assert 1 < time.monotonic() - begun < 5

    def test_rules_that_change_hold_for_the_next_request(self, tmp_path: Path):
        with Server(answers(OK)) as server, egress(tmp_path, NAMES, endpoint(GOOD, server.port)) as site:
            with site.tunnel(f"{GOOD}:{server.port}") as inside:
                inside.send(get(GOOD, "/a"))
                assert inside.response(method="GET").status == 200
                site.allow(
                    endpoint(GOOD, server.port), deny=({"host": GOOD, "port": server.port, "methods": ["POST"]},)
                )
                inside.send(get(GOOD, "/b"))
                assert inside.response(method="GET").status == 200
                inside.send(get(GOOD, "/c", method="POST"))
                found = inside.response()
                assert (found.status, found.header("x-kars-decision-reason")) == (403, "deny_rule")
            assert server.data == get(GOOD, "/a") + get(GOOD, "/b")

    def test_a_deny_rule_about_requests_refuses_the_tunnel_that_would_hide_them(self, tmp_path: Path):
        with Server(answers(OK)) as server:
            deny = {"host": GOOD, "port": server.port, "pathPrefix": "/admin"}
            with egress(tmp_path, NAMES) as site:
                site.allow(endpoint(GOOD, server.port), deny=(deny,))
                assert site.call(connect(f"{GOOD}:{server.port}")).status == 403
                assert site.call(absolute(f"{GOOD}:{server.port}", "/%61dmin/x")).status == 403
                assert site.call(absolute(f"{GOOD}:{server.port}", "/public")).status == 200
                assert len(server.peers) == 1

    def test_an_upgrade_to_cleartext_http2_would_hide_what_follows(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            peer.drain()

        for upgrade in ("h2c", "websocket, h2c", "TLS/1.0"):
            server.clear()
            server.script = script
            asked = get(
                GOOD, "/", ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", upgrade), ("HTTP2-Settings", "AAA")
            )
            with site.tunnel(to) as inside:
                inside.send(asked)
                assert b" 101 " not in inside.until(b"\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    inside.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                everything(inside)
            assert server.data == asked

    def test_a_websocket_moves_bytes(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
            peer.data = b""
            echo(peer)

        server.script = script
        with site.tunnel(to) as inside:
            inside.send(get(GOOD, "/", ("Connection", "Upgrade"), ("Upgrade", "websocket")))
            assert inside.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            inside.until(b"first")
            inside.send(b"\x81\x02hi")
            inside.until(b"\x81\x02hi")

    def test_a_destination_that_closes_between_requests_is_seen_to_close(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.until(b"\r\n\r\n")
            peer.send(OK)

        server.script = script
        with site.tunnel(to) as inside:
            inside.send(get(GOOD))
            assert inside.response(method="GET").status == 200
            inside.socket.settimeout(3)
            assert everything(inside) == b""

    def test_a_destination_that_closes_instead_of_an_answer_closes(self, site: Egress, server: Server, to: str):
        server.script = lambda peer: peer.until(b"\r\n\r\n")
        with site.tunnel(to) as inside:
            inside.send(get(GOOD))
            assert everything(inside) == b""


class TestOtherProtocols:
    @pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail.example ESMTP\r\n", b"\0\0\0\x0a5.7.1"])
    def test_a_server_that_speaks_first_is_heard(self, banner: bytes, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.send(banner)
            echo(peer)

        server.script = script
        with site.tunnel(to) as inside:
            assert inside.until(banner) == banner
            inside.send(b"EHLO me\r\n")
            assert inside.until(b"EHLO me\r\n") == b"EHLO me\r\n"

    @pytest.mark.parametrize(
        "said", [b"G", b"P", b"GET", b"C", b"GET key\r\n", b"EHLO me\r\n", b"\r\n", b"SSH-2.0-x\r\n"]
    )
    def test_what_may_become_a_request_goes_on_at_once(self, said: bytes, site: Egress, server: Server, to: str):
        with site.tunnel(to) as inside:
            inside.send(said)
            until(lambda: server.data == said, 1)
            server.wait().send(b"heard")
            assert inside.until(b"heard") == b"heard"

    def test_the_answer_comes_after_the_client_has_ended_its_side(self, site: Egress, server: Server, to: str):
        def script(peer: Peer) -> None:
            peer.drain()
            peer.send(b"you said " + peer.data)

        server.script = script
        for said in (b"G", b"", b"GET key", b"x", b"\x80\x01"):
            with site.tunnel(to) as inside:
                inside.send(said)
                inside.socket.shutdown(socket.SHUT_WR)
                assert everything(inside) == b"you said " + said

    def test_bytes_behind_the_head_of_a_connect_are_delivered(self, site: Egress, server: Server, to: str):
        server.script = echo
        for early in (b"x", b"\0" * 100_000, b"G"):
            with site.client() as opened:
                opened.send(connect(to) + early)
                assert opened.until(b"\r\n\r\n") == ESTABLISHED
                opened.fill(len(early))
                assert opened.inbox == early

    def test_the_preface_of_cleartext_http2_is_refused(self, site: Egress, server: Server, to: str):
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        for pieces in ([preface], [bytes([byte]) for byte in preface]):
            with site.tunnel(to) as inside:
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        inside.send(piece)
                        time.sleep(0.001)
                everything(inside)
            # A part of it does no harm.
            assert b"HTTP/2" not in server.data

    def test_a_protocol_with_a_long_first_word_passes(self, site: Egress, server: Server, to: str):
        server.script = echo
        for said in (b"G" * 200_000, b"PUT" + b"x" * 100_000, b"a b c\n" * 10_000):
            with site.tunnel(to) as inside:
                inside.send(said)
                inside.fill(len(said))
                assert inside.inbox == said


class TestHttp2Tunnels:
    """CONNECT over HTTP/2 with prior knowledge."""

    @pytest.fixture
    def h2(self, site: Egress) -> Iterator[H2]:
        with H2(site.port) as opened:
            yield opened

    def cut(self, h2: H2, stream: int) -> bool:
        """Whether the stream ends in a reset, without a byte."""
        return h2.rest(stream) == (b"", CANCEL)

    def test_many_tunnels_go_to_their_own_names(self, h2: H2, server: Server, to: str):
        server.script = echo
        asked = [h2.begin(to), h2.begin(f"{EVIL}:{server.port}"), h2.begin(f"{OTHER}:{server.port}")]
        assert [h2.opened(stream) for stream in asked] == [True, False, True]
        h2.send(asked[0], b"hello")
        assert h2.data(asked[0], 5) == b"hello"

    def test_a_host_field_has_to_agree(self, h2: H2, server: Server, to: str):
        assert not h2.opened(h2.begin(to, host=EVIL))
        assert h2.opened(h2.begin(to, host=GOOD))

    @pytest.mark.parametrize("data", [hello(EVIL.encode()), get(EVIL), b"\r\n" + get(EVIL), b"X" + get(EVIL), PREFACE])
    def test_another_name_inside_goes_nowhere(self, data: bytes, h2: H2, server: Server, to: str):
        stream = h2.tunnel(to)
        h2.send(stream, data)
        assert self.cut(h2, stream)
        assert b"evil" not in server.data
        assert b"HTTP/2" not in server.data

    def test_waiting_does_not_lift_the_check(self, h2: H2, server: Server, to: str):
        cases = [
            (h2.tunnel(to), *case) for case in itertools.product([hello(EVIL.encode()), get(EVIL), PREFACE], [0, 1, 9])
        ]
        for stream, data, at in cases:
            if at:
                h2.send(stream, data[:at])
        time.sleep(2.0)
        for stream, data, at in cases:
            # A hello that takes so long has been cut off by now.
            h2.send(stream, data[at:])
            assert self.cut(h2, stream), (data, at)
        assert b"evil" not in server.data
        assert b"HTTP/2" not in server.data

    def test_half_a_hello_is_not_passed_on_because_nothing_follows(self, h2: H2, server: Server, to: str):
        stream = h2.tunnel(to)
        h2.send(stream, hello(EVIL.encode())[:-1], end=True)
        assert self.cut(h2, stream)
        assert server.data == b""

    def test_what_may_become_a_request_goes_on_at_once(self, h2: H2, server: Server, to: str):
        stream = h2.tunnel(to)
        h2.send(stream, b"G")
        until(lambda: server.data == b"G", 1)
        server.wait().send(b"heard")
        assert h2.data(stream, 5) == b"heard"

    def test_its_own_name_passes(self, h2: H2, server: Server, to: str):
        data = hello(GOOD.encode())
        stream = h2.tunnel(to)
        for at in range(0, len(data), 20):
            h2.send(stream, data[at : at + 20])
        until(lambda: server.data == data)


def test_fronting_can_be_allowed(tmp_path: Path):
    with Server(answers(OK)) as server:
        rules = [endpoint(host, port) for host in (GOOD, OTHER) for port in (server.port, 443)]
        with egress(tmp_path, NAMES, *rules, EGRESS_FRONTING="allow") as site:
            to = f"{GOOD}:{server.port}"
            hidden = next(row.data for row in rows("egress_hostile.tsv") if row.rest == ("ECH, outer",))
            for data in (
                hello(EVIL.encode()),
                hidden,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                get(EVIL),
                get(GOOD) + get(EVIL),
            ):
                server.clear()
                server.script = answers(OK)
                with site.tunnel(to, ("Host", EVIL)) as inside:
                    inside.send(data)
                    until(lambda data=data: server.data == data)
            server.clear()
            server.script = answers(OK)
            assert site.call(absolute(to, host=EVIL)).status == 200
            # A proxy names the host that it goes to (RFC 9112 §3.2.2).
            assert f"Host: {to}".encode() in server.data
            with site.client() as opened:
                opened.send(hidden)
                everything(opened)
            # The name in the clear decides, and it is not listed.
            assert site.record(action="egress:tls:front.example:443")["rule"] == "allowlist"
