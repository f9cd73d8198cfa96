"""Which lists are in force, and when: mounts that change under load, approvals, learn mode, blocklists."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import client
from tests.system.client import Response
from tests.system.conftest import StartRouter
from tests.system.egress import (
    Proxy,
    Server,
    approval,
    bundle_digest,
    echo,
    merged_digest,
    proxy,
    until,
)

TOKEN = "the-admin-token"
NOTHING = {"schemaVersion": 1, "endpoints": []}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(echo) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxy(tmp_path_factory.mktemp("policy")) as running:
        yield running


@pytest.fixture
def way(shared: Proxy) -> Proxy:
    """A router whose lists are empty."""
    shared.allow()
    shared.approvals.swap({})
    shared.wait_merged()
    return shared


class TestAllowlist:
    def test_a_swap_of_the_mount_is_in_force_for_the_next_connection(self, way: Proxy, server: Server):
        one, two = way.place("one.test.example", server.port), way.place("two.test.example", server.port)
        way.allow(one)
        with way.tunnel("one.test.example", server.port) as tunnel:
            assert not way.connects("two.test.example", server.port)
            way.allow(two)
            assert way.connects("two.test.example", server.port)
            assert not way.connects("one.test.example", server.port)
            tunnel.send(b"\0still")
            assert tunnel.until(b"still") == b"\0still"

    def test_its_digest_is_told_as_the_controller_computes_it(self, way: Proxy):
        data = b'{"schemaVersion" : 1,\n "endpoints":[{"host":"B.example"},{"host":"a.example","port":8443}]}\n'
        way.lists.swap({"allowlist.json": data})
        way.wait_status("EgressAllowlist", digest=bundle_digest("allowlist.json", data), last_error=None)
        assert client.get(way.router.port, "/egress/allowlist").json["digest"] == bundle_digest("allowlist.json", data)

    @pytest.mark.parametrize(
        "bad",
        [
            b"",
            b"{",
            b'{"schemaVersion":3,"endpoints":[]}',
            b'{"schemaVersion":2,"endpoints":[{"host":"a.example","ports":[1]}]}',
            b'{"schemaVersion":1,"endpoints":[{"host":"a b"}]}',
            b'{"schemaVersion":1,"endpoints":[],"endpoints":[]}',
            b"\xff\xfe",
        ],
        ids=["empty", "cut", "newer", "member", "host", "twice", "bytes"],
    )
    def test_bytes_that_cannot_be_read_leave_the_list_in_force(self, bad: bytes, way: Proxy, server: Server):
        way.allow(way.place("kept.test.example", server.port))
        good = way.router.entry("EgressAllowlist")
        assert good is not None
        way.lists.swap({"allowlist.json": bad})
        until(lambda: (way.router.entry("EgressAllowlist") or {})["last_error"])
        entry = way.router.entry("EgressAllowlist")
        assert entry is not None
        assert entry["digest"] == good["digest"]
        assert "allowlist.json" in entry["last_error"]
        assert way.connects("kept.test.example", server.port)
        way.allow()
        assert not way.connects("kept.test.example", server.port)

    def test_without_the_file_nothing_leaves_whatever_is_approved(self, way: Proxy, server: Server):
        rule = way.place("approved.test.example", server.port)
        way.allow(way.place("listed.test.example", server.port))
        way.approvals.swap({"approval-a.json": approval("a", rule)})
        until(lambda: way.connects("approved.test.example", server.port))
        way.lists.swap({})
        until(lambda: way.router.entry("EgressAllowlist") is None)
        for host in ("approved.test.example", "listed.test.example"):
            found = way.ask(host, server.port)
            assert (found.status, b"no egress allowlist is mounted" in found.body) == (403, True)
        assert way.router.entry("EgressApproval") is None
        way.allow()
        assert way.connects("approved.test.example", server.port)
        assert not way.connects("listed.test.example", server.port)

    def test_a_router_that_starts_without_lists_denies_until_they_come(self, tmp_path: Path, server: Server):
        with proxy(tmp_path) as way:
            way.router.stop()
            way.lists.swap({})
            way.router.start()
            way.dns.names["later.test.example"] = ["127.0.0.1"]
            assert not way.connects("later.test.example", server.port)
            way.allow(way.place("later.test.example", server.port))
            assert way.connects("later.test.example", server.port)

    def test_large_lists_are_swapped_under_load_and_no_connection_fails(self, way: Proxy, server: Server):
        rule = way.place("steady.test.example", server.port)
        large = [{"host": f"host-{n}.domain-{n % 97}.example", "port": 443} for n in range(9_999)]
        failed: list[object] = []
        opened, over = [0] * 16, threading.Event()

        def connect(number: int) -> None:
            while not over.is_set():
                try:
                    with way.tunnel("steady.test.example", server.port) as tunnel:
                        tunnel.send(b"\0hi")
                        assert tunnel.until(b"hi") == b"\0hi"
                    opened[number] += 1
                except (AssertionError, EOFError, OSError) as error:
                    failed.append(error)
                    return

        way.allow(rule)
        threads = [threading.Thread(target=connect, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(6):
                way.allow(*large[turn:], rule)
        finally:
            over.set()
            for thread in threads:
                thread.join(10)
        assert failed == []
        assert min(opened) > 0


class TestApprovals:
    def test_the_merged_lists_digest_is_told_as_the_controller_computes_it(self, way: Proxy):
        way.allow({"host": "b.example", "port": 443}, {"host": "A.example", "port": 8443})
        way.approvals.swap(
            {
                "approval-x.json": approval("x", {"host": "c.example", "port": 443}, {"host": "b.example", "port": 80}),
                "approval-y.json": approval("y", {"host": "b.example", "port": 443}),
                "other.json": b"not one of ours",
            }
        )
        places = [("a.example", 8443), ("b.example", 80), ("b.example", 443), ("c.example", 443)]
        way.wait_status("EgressApproval", digest=merged_digest(places), last_error=None)

    def test_they_come_and_go(self, way: Proxy, server: Server):
        one, two = way.place("one.test.example", server.port), way.place("two.test.example", server.port)
        documents = {"approval-one.json": approval("one", one), "approval-two.json": approval("two", two)}
        way.approvals.swap(documents)
        until(lambda: way.connects("two.test.example", server.port))
        assert way.connects("one.test.example", server.port)
        until(lambda: "approval-one.hosts[0]" in {r["call"]["rule"] for r in way.records("one.test.example")})
        del documents["approval-one.json"]
        way.approvals.swap(documents)
        until(lambda: not way.connects("one.test.example", server.port))
        assert way.connects("two.test.example", server.port)
        way.approvals.swap({})
        until(lambda: not way.connects("two.test.example", server.port))

    def test_a_bad_one_is_passed_over_and_named_while_the_others_hold(self, way: Proxy, server: Server):
        good = approval("good", way.place("good.test.example", server.port))
        way.approvals.swap(
            {
                "approval-bad.json": b'{"schemaVersion":1',
                "approval-foreign.json": approval("foreign", {"host": "x.example"}, sandbox="another"),
                "approval-good.json": good,
                "approval-typo.json": {**good, "approvalName": "typo", "expiry": "2030-01-01T00:00:00Z"},
            }
        )
        until(lambda: way.connects("good.test.example", server.port))
        until(lambda: (way.router.entry("EgressApproval") or {}).get("last_error"))
        entry = way.router.entry("EgressApproval")
        assert entry is not None
        for word in ("approval-bad.json", "approval-typo.json", "expiry", "foreign", "another"):
            assert word in entry["last_error"]
        assert "approval-good" not in entry["last_error"]
        assert entry["digest"] == merged_digest([("good.test.example", server.port)])
        way.approvals.swap({"approval-good.json": good})
        way.wait_status("EgressApproval", last_error=None)
        assert way.connects("good.test.example", server.port)

    def test_one_for_another_sandbox_lets_nobody_out(self, way: Proxy, server: Server):
        rule = way.place("foreign.test.example", server.port)
        way.approvals.swap({"approval-a.json": approval("a", rule, sandbox="another-sandbox")})
        until(lambda: (way.router.entry("EgressApproval") or {}).get("last_error"))
        assert not way.connects("foreign.test.example", server.port)

    def test_one_that_begins_later_holds_from_then_on(self, way: Proxy, server: Server):
        begins = int(time.time()) + 2
        rule = way.place("later.test.example", server.port)
        way.approvals.swap({"approval-a.json": approval("a", rule, begins=begins + 0.01 - time.time())})
        way.wait_status("EgressApproval", digest=merged_digest([("later.test.example", server.port)]))
        assert not way.connects("later.test.example", server.port)
        assert time.time() < begins
        time.sleep(begins + 0.05 - time.time())
        assert way.connects("later.test.example", server.port)

    @pytest.mark.parametrize("grants", [{}, {"maxBytes": 5}], ids=["expiry", "grants"])
    def test_one_that_is_issued_again_takes_force_though_its_hosts_are_the_same(
        self, grants: dict, way: Proxy, server: Server
    ):
        rule = way.place("again.test.example", server.port)
        way.approvals.swap({"approval-a.json": approval("a", rule, ends=3600)})
        until(lambda: way.connects("again.test.example", server.port))
        if grants:
            way.approvals.swap({"approval-a.json": approval("a", {**rule, **grants})})
            until(lambda: self.echoed(way, server) is False)
            return
        way.approvals.swap({"approval-a.json": approval("a", rule, ends=-1)})
        until(lambda: not way.connects("again.test.example", server.port))
        way.approvals.swap({"approval-a.json": approval("a", rule, ends=3600)})
        until(lambda: way.connects("again.test.example", server.port))

    def echoed(self, way: Proxy, server: Server) -> bool:
        with way.tunnel("again.test.example", server.port) as tunnel:
            try:
                tunnel.send(b"\0four")
                return tunnel.until(b"four") == b"\0four"
            except (OSError, EOFError):
                return False


@pytest.fixture
def learning(tmp_path: Path, server: Server) -> Iterator[Proxy]:
    """A router in learn mode with an allowlist and a blocklist."""
    (tmp_path / "blocked.txt").write_text("blocked.example\n")
    environment = {
        "ADMIN_TOKEN": TOKEN,
        "EGRESS_MODE": "learn",
        "BLOCKLIST_SEED_PATH": str(tmp_path / "blocked.txt"),
        "BLOCKLIST_REFRESH_SECS": "0.2",
    }
    with proxy(tmp_path, **environment) as running:
        running.allow(
            running.place("listed.test.example", server.port), running.place("www.blocked.example", server.port)
        )
        until(lambda: client.get(running.router.port, "/blocklist/status").json["domain_count"])
        yield running


def learned(way: Proxy) -> list[tuple[str, int]]:
    rows = client.get(way.router.port, "/egress/learned").json["connections"]
    return [(row["host"], row["port"]) for row in rows]


def set_learning(way: Proxy, *, on: bool) -> Response:
    bearer = ("Authorization", f"Bearer {TOKEN}")
    return client.post(way.router.port, "/egress/learn", {"enabled": on}, bearer)


class TestModes:
    @pytest.mark.parametrize(
        ("environment", "learns"),
        [
            ({"EGRESS_MODE": "strict"}, False),
            ({"EGRESS_MODE": "STRICT"}, False),
            ({"EGRESS_MODE": "learn"}, True),
            ({"EGRESS_MODE": "auto"}, False),
            ({}, False),
        ],
        ids=["strict", "capitals", "learn", "auto", "unset"],
    )
    def test_a_configured_mount_is_strict_unless_learning_was_asked_for(
        self, environment: dict[str, str], learns: bool, tmp_path: Path, server: Server
    ):
        with proxy(tmp_path, **{"EGRESS_MODE": "", **environment}) as way:
            assert client.get(way.router.port, "/egress/learned").json["learn_mode"] is learns

    def test_without_a_mount_it_learns_but_in_kubernetes(self, start_router: StartRouter):
        assert client.get(start_router().port, "/egress/learned").json["learn_mode"] is True
        pod = start_router(KUBERNETES_SERVICE_HOST="10.0.0.1", BLOCKLIST_FEEDS="off", INFERENCE_POLICY_MISSING="open")
        assert client.get(pod.port, "/egress/learned").json["learn_mode"] is False

    def test_learn_mode_lets_pass_and_records_what_the_address_guard_allows(self, learning: Proxy, server: Server):
        with learning.tunnel("listed.test.example", server.port) as tunnel:
            tunnel.send(b"\0hi")
            tunnel.until(b"hi")
        learning.dns.names["private.test.example"] = ["127.0.0.1"]
        learning.dns.names["metadata.test.example"] = ["169.254.169.254"]
        for host in ("private.test.example", "metadata.test.example"):
            found = learning.ask(host, server.port)
            assert (found.status, found.header("x-kars-decision-reason")) == (403, "address")
        assert learned(learning) == [("listed.test.example", server.port)]
        assert learning.records("private.test.example")[0]["decision"] == "deny"

    def test_what_could_not_be_reached_is_not_learned(self, learning: Proxy):
        learning.allow(learning.place("nobody.test.example", 1))
        assert learning.ask("nobody.test.example", 1).status == 502
        assert learning.ask("missing.test.example", 1).status == 502
        assert learned(learning) == []

    def test_requests_inside_a_tunnel_are_learned_by_their_shape(self, learning: Proxy):
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"

        def serve(one: socket.socket) -> None:
            while one.recv(65536):
                one.sendall(answer)

        with Server(serve) as web:
            learning.allow(learning.place("web.test.example", web.port))
            with learning.tunnel("web.test.example", web.port) as tunnel:
                for path in ("/v1/things", "/v1/others"):
                    tunnel.send(b"GET %s HTTP/1.1\r\nHost: web.test.example\r\n\r\n" % path.encode())
                    assert tunnel.response().status == 200
        rows = client.get(learning.router.port, "/egress/learned").json["connections"]
        assert {(row["door"], row["path"]) for row in rows} == {
            ("connect", ""),
            ("http", "/v1/things"),
            ("http", "/v1/others"),
        }

    def test_what_was_learned_survives_kill_9(self, learning: Proxy, server: Server):
        learning.tunnel("listed.test.example", server.port).close()
        until(lambda: learned(learning))
        learning.router.kill()
        learning.router.start()
        assert learned(learning) == [("listed.test.example", server.port)]

    def test_switching_it_off_ends_it_for_the_next_connection(self, learning: Proxy, server: Server):
        assert set_learning(learning, on=False).status == 200
        learning.dns.names["unlisted.test.example"] = ["127.0.0.1"]
        found = learning.ask("unlisted.test.example", server.port)
        assert found.header("x-kars-decision-reason") == "unlisted"
        learning.tunnel("listed.test.example", server.port).close()
        assert learned(learning) == []


class TestBlocklist:
    @pytest.mark.parametrize("learns", [True, False], ids=["learn", "strict"])
    def test_it_wins_over_the_allowlist_however_the_host_is_written(
        self, learns: bool, learning: Proxy, server: Server
    ):
        set_learning(learning, on=learns)
        learning.dns.names["blocked.example"] = ["127.0.0.1"]
        for host in ("www.blocked.example", "blocked.example", "blocked.example.", "WWW.Blocked.Example."):
            found = learning.ask(host, server.port)
            assert (found.status, found.header("x-kars-decision-reason")) == (403, "blocklist"), host
            assert b"blocked.example" in found.body
        assert learning.dns.asked("blocked.example") == []
        assert learned(learning) == []
        for host in ("blocked.example..", ".blocked.example", "%62locked.example", "blocked.example\u3002"):
            assert learning.ask(host, server.port).status in {400, 403}, host

    def test_a_trailing_dot_is_no_other_host_for_the_allowlist_and_its_deny_rules(self, way: Proxy, server: Server):
        rule = way.place("dotted.test.example", server.port)
        way.allow(rule, deny=[{"host": "no.dotted.test.example"}])
        assert way.connects("dotted.test.example.", server.port)
        way.dns.names["no.dotted.test.example"] = ["127.0.0.1"]
        for host in ("no.dotted.test.example", "no.dotted.test.example.", "x.NO.dotted.test.example."):
            assert way.ask(host, server.port).header("x-kars-decision-reason") == "deny_rule"

    def test_its_seed_file_is_read_again_when_it_changes(self, learning: Proxy, server: Server, tmp_path: Path):
        assert learning.connects("listed.test.example", server.port)
        fresh = tmp_path / "fresh.txt"
        fresh.write_text("test.example\n")
        fresh.rename(tmp_path / "blocked.txt")
        until(lambda: not learning.connects("listed.test.example", server.port))
        assert learning.connects("www.blocked.example", server.port)
        (tmp_path / "blocked.txt").unlink()
        until(lambda: learning.connects("listed.test.example", server.port))
