"""What the router tells about egress, who may change it, and what it fetches on the agent's behalf."""

import json
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from tests.system import behaviours, client
from tests.system.client import Response
from tests.system.dns import Answer, Dns, Turns
from tests.system.router import Mount, Router
from tests.system.upstream import Peer, Received, Upstream

TOKEN = "the-admin-token"
ADMIN = ("Authorization", f"Bearer {TOKEN}")
LOOPBACK = ["127.0.0.0/8"]
LIMIT = 2_097_152
PRIVATE = "Cannot fetch from private/internal addresses"


@dataclass
class Site:
    """A router under a policy, with the servers and the names that it can reach."""

    router: Router
    web: Upstream
    tls: Upstream
    dns: Dns
    mount: Mount
    rules: list[dict] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.router.port

    def url(self, host: str, path: str = "/", *, scheme: str = "http") -> str:
        return f"{scheme}://{host}:{(self.tls if scheme == 'https' else self.web).port}{path}"

    def fetch(self, url: str, **more) -> Response:
        return client.post(self.port, "/egress/fetch", {"url": url, **more})

    def fetched(self, url: str, **more) -> dict:
        """A fetch that gets an answer."""
        found = self.fetch(url, **more)
        assert found.status == 200, found.body
        return found.json

    def traced(self, trace: str, amount: int = 1) -> list[dict]:
        """Audit records of one trace id, once there are that many."""
        deadline = time.monotonic() + 5
        while True:
            found = [record for record in self.router.audit() if record["call"].get("trace_id") == trace]
            if len(found) >= amount:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def decided(self, decision_id: str) -> dict:
        """The audit record of a decision."""
        deadline = time.monotonic() + 5
        while True:
            for record in self.router.audit():
                if record["call"].get("decision_id") == decision_id:
                    return record
            assert time.monotonic() < deadline, decision_id
            time.sleep(0.02)

    def blocked(self, host: str) -> list[dict]:
        found = client.get(self.port, "/internal/egress/blocked").json
        return [row for row in found["entries"] if row["host"] == host]


def until(check: Callable[[], object], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


NAMES: dict[str, Answer] = {
    "api.test.example": ["127.0.0.1"],
    "other.test.example": ["127.0.0.1"],
    "read.test.example": ["127.0.0.1"],
    "small.test.example": ["127.0.0.1"],
    "guarded.test.example": ["127.0.0.1"],
    "meta.test.example": ["169.254.169.254"],
    "mixed.test.example": ["169.254.169.254", "127.0.0.1"],
    "rebound.test.example": Turns([["169.254.169.254"], ["127.0.0.1"]]),
    "unlisted.test.example": ["127.0.0.1"],
}


def rules(ports: tuple[int, ...]) -> list[dict]:
    found: list[dict] = []
    for port in ports:
        found += [
            {"host": "api.test.example", "port": port, "addresses": LOOPBACK},
            {"host": "other.test.example", "port": port, "addresses": LOOPBACK},
            {
                "host": "read.test.example",
                "port": port,
                "methods": ["GET"],
                "pathPrefix": "/public/",
                "addresses": LOOPBACK,
            },
            {"host": "small.test.example", "port": port, "addresses": LOOPBACK, "maxBytes": 2000},
            {"host": "mixed.test.example", "port": port, "addresses": LOOPBACK},
            {"host": "guarded.test.example", "port": port},
            {"host": "rebound.test.example", "port": port},
            {"host": "meta.test.example", "port": port},
        ]
    return [*found, {"host": "meta.test.example", "port": 80}]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("egress")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.test.example").configure_cert(context)
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    mount = Mount(folder / "lists")
    plain = behaviours.answer(b"hello", 200, ("content-type", "text/plain"))
    with Upstream(plain) as web, Upstream(plain, tls=context) as tls, Dns(NAMES) as dns:
        listed = rules((web.port, tls.port))
        mount.write({"schemaVersion": 2, "endpoints": listed}, "allowlist.json")
        environment = {
            "ADMIN_TOKEN": TOKEN,
            "EGRESS_MODE": "strict",
            "EGRESS_ALLOWLIST_DIR": str(mount.folder),
            "EGRESS_APPROVAL_DIR": str(folder / "approvals"),
            "EGRESS_LEARNED_PATH": str(folder / "learned.jsonl"),
            "EGRESS_DNS_SERVERS": dns.address,
            "UPSTREAM_CA_FILE": str(trusted),
            "INFERENCE_POLICY_MISSING": "open",
        }
        router = Router(folder, environment).start()
        until(lambda: client.get(router.port, "/egress/allowlist").json["count"])
        yield Site(router, web, tls, dns, mount, listed)
        router.stop()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    shared_site.web.clear()
    shared_site.tls.clear()
    yield shared_site
    assert shared_site.router.metric("kars_bugs_total") == 0


def change(site: Site, path: str, body: bytes | dict = b"", *fields: tuple[str, str]) -> Response:
    return client.post(site.port, path, body, *(fields or (ADMIN,)))


@pytest.fixture
def learning(site: Site) -> Iterator[Site]:
    assert change(site, "/egress/learn", {"enabled": True}).json == {"learn_mode": True}
    yield site
    assert change(site, "/egress/learn", {}).json == {"learn_mode": False}
    change(site, "/egress/learned/clear")


class TestShapes:
    def test_the_allowlist_names_its_hosts_once_and_its_digest(self, site: Site):
        found = client.get(site.port, "/egress/allowlist").json
        assert set(found) == {"count", "domains", "digest", "generation"}
        assert found["domains"] == sorted({rule["host"] for rule in site.rules})
        assert found["count"] == len(found["domains"])
        entry = site.router.entry("EgressAllowlist")
        assert entry is not None
        assert found["digest"] == entry["digest"]

    def test_without_an_allowlist_there_are_no_hosts_and_no_digest(self, start_router):
        router = start_router()
        found = client.get(router.port, "/egress/allowlist").json
        assert (found["count"], found["domains"], found["digest"]) == (0, [], None)

    def test_what_was_learned_is_told_by_host_and_by_connection(self, learning: Site):
        learning.fetched(learning.url("api.test.example", "/v1/things"))
        learning.fetched(learning.url("other.test.example"), method="POST")
        found = client.get(learning.port, "/egress/learned").json
        assert set(found) == {"learn_mode", "count", "domains", "connections", "dropped"}
        assert found["learn_mode"] is True
        assert found["domains"] == ["api.test.example", "other.test.example"]
        assert found["count"] == 2
        row = next(row for row in found["connections"] if row["host"] == "api.test.example")
        assert (row["door"], row["method"], row["port"]) == ("fetch", "GET", learning.web.port)
        assert change(learning, "/egress/learned/clear").json == {"status": "cleared", "learn_mode": True}
        assert client.get(learning.port, "/egress/learned").json["connections"] == []

    def test_learn_mode_lets_pass_but_the_address_guard_does_not(self, learning: Site):
        found = learning.fetch(learning.url("unlisted.test.example"))
        assert (found.status, found.json["error"]) == (403, PRIVATE)
        assert learning.web.received == []

    def test_what_was_blocked_is_told_in_each_shape(self, site: Site):
        site.fetch(site.url("unlisted.test.example"))
        site.fetch(site.url("unlisted.test.example"))
        found = client.get(site.port, "/egress/learned/blocked").json
        assert set(found) == {"total", "count", "entries"}
        row = next(row for row in found["entries"] if row["host"] == "unlisted.test.example")
        assert set(row) == {"host", "port", "source_sandbox", "first_seen_unix", "last_seen_unix", "count"}
        assert (row["port"], row["source_sandbox"]) == (site.web.port, "test-sandbox")
        assert row["count"] >= 2
        found = client.get(site.port, "/internal/egress/blocked?since=-10m").json
        assert {"schema_version", "total", "count", "since_unix", "entries"} <= set(found)
        assert abs(found["since_unix"] - (time.time() - 600)) < 5
        assert found["schema_version"] == 1
        row = next(row for row in found["entries"] if row["host"] == "unlisted.test.example")
        assert row["last_seen"].endswith("Z")
        found = client.get(site.port, "/internal/egress/blocked/top?window=1h&n=1").json
        assert set(found) == {"schema_version", "since_unix", "window", "n", "top"}
        assert (found["window"], found["n"], len(found["top"])) == ("1h", 1, 1)

    @pytest.mark.parametrize("since", ["", "?since=nonsense", "?since=0", "?since=1970-01-01T00%3A00%3A00Z"])
    def test_a_moment_that_cannot_be_read_is_the_beginning(self, since: str, site: Site):
        assert client.get(site.port, f"/internal/egress/blocked{since}").json["since_unix"] == 0

    def test_a_page_of_blocked_hosts_has_the_size_asked_for(self, site: Site):
        site.fetch(site.url("unlisted.test.example"))
        site.fetch(site.url("another.test.example"))
        found = client.get(site.port, "/egress/learned/blocked", ("x-kars-limit", "1")).json
        assert (found["count"], len(found["entries"])) == (1, 1)
        assert found["total"] >= 2
        found = client.get(site.port, "/egress/learned/blocked", ("x-kars-limit", "many")).json
        assert found["count"] == found["total"]

    def test_the_blocklist_is_told(self, site: Site):
        found = client.get(site.port, "/blocklist/status").json
        assert found == {"enabled": True, "domain_count": 0, "learn_mode": False, "learned_domains": 0}
        found = client.post(site.port, "/blocklist/check", {"domain": "Fine.Example"}).json
        assert found == {"blocked": False, "domain": "Fine.Example"}
        found = client.post(site.port, "/blocklist/check", {"url": "https://8.8.8.8/x?y"}).json
        assert (found["blocked"], found["domain"]) == (True, "8.8.8.8")
        assert found["reason"]

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", {}, {"domain": 5}, {"url": "nowhere"}, {"domain": "a b"}])
    def test_a_blocklist_question_that_cannot_be_read_is_told_so(self, body: bytes | dict, site: Site):
        found = client.post(site.port, "/blocklist/check", body)
        assert found.status == 400
        assert isinstance(found.json["error"], str)


class TestAuthority:
    @pytest.mark.parametrize("path", ["/egress/learn", "/egress/learned/clear"])
    def test_loopback_alone_changes_nothing(self, path: str, site: Site):
        """W-1: the agent is on loopback, too."""
        for fields in ((("X-Nothing", "1"),), (("Authorization", "Bearer wrong"),), (("x-kars-admin", TOKEN),)):
            assert change(site, path, {"enabled": True}, *fields).status == 401
        assert client.get(site.port, "/egress/learned").json["learn_mode"] is False

    def test_without_a_token_configured_nobody_changes_anything(self, start_router):
        router = start_router(EGRESS_MODE="strict")
        for fields in ((), (("Authorization", "Bearer "),)):
            assert client.post(router.port, "/egress/learn", {"enabled": True}, *fields).status in {401, 403}
        assert client.get(router.port, "/egress/learned").json["learn_mode"] is False

    def test_a_change_and_an_attempt_are_audited(self, site: Site):
        trace = ("x-kars-trace-id", "changes-of-learn-mode")
        change(site, "/egress/learn", {"enabled": True}, trace)
        change(site, "/egress/learn", {"enabled": True}, trace, ADMIN)
        change(site, "/egress/learn", {"enabled": False}, trace, ADMIN)
        found = site.traced(trace[1], 3)
        assert {r["action"] for r in found} == {"admin:egress-learn"}
        assert [r["decision"] for r in found] == ["deny", "allow", "allow"]
        assert [r["call"]["rule"] for r in found] == ["admin-token", "egress-mode.learn", "egress-mode.strict"]
        assert TOKEN not in json.dumps(found)
        assert TOKEN not in site.router.log

    @pytest.mark.parametrize("body", [b"", b"[true]", b"true", b'{"enabled":"yes"}', b"{"])
    def test_a_body_that_is_no_object_changes_nothing(self, body: bytes, site: Site):
        found = change(site, "/egress/learn", body)
        assert found.status == 400
        assert isinstance(found.json["error"], str)
        assert client.get(site.port, "/egress/learned").json["learn_mode"] is False

    def test_a_body_has_its_bound(self, site: Site):
        assert change(site, "/egress/learn", b"{" + b" " * 70_000 + b"}").status == 413

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/egress/learn", "POST"),
            ("/egress/learned", "GET, HEAD"),
            ("/egress/learned/clear", "POST"),
            ("/egress/learned/blocked", "GET, HEAD"),
            ("/egress/allowlist", "GET, HEAD"),
            ("/egress/fetch", "POST"),
            ("/blocklist/status", "GET, HEAD"),
            ("/blocklist/check", "POST"),
            ("/internal/egress/blocked", "GET, HEAD"),
            ("/internal/egress/blocked/top", "GET, HEAD"),
        ],
    )
    def test_another_method_is_told_the_right_ones(self, path: str, allowed: str, site: Site):
        for method in {"GET", "POST", "PUT", "DELETE"} - set(allowed.split(", ")):
            found = client.call(site.port, method, path, b"{}", ADMIN)
            assert (found.status, found.header("allow")) == (405, allowed)

    def test_the_metrics_port_has_none_of_it(self, site: Site):
        assert client.get(site.router.metrics_port, "/egress/learned").status == 404
        assert client.post(site.router.metrics_port, "/egress/fetch", {"url": "http://x/"}).status == 404


class TestFetch:
    def test_an_answer_is_told_whole(self, site: Site):
        site.web.next(
            behaviours.answer(
                b"h\xc3\xa9llo \xff",
                418,
                ("content-type", "text/plain"),
                ("Set-Cookie", "s3cret=1"),
                ("WWW-Authenticate", "Basic"),
                ("X-Api-Key", "s3cret"),
                ("X-Auth-Token", "s3cret"),
                ("X-Other", "kept"),
            )
        )
        found = site.fetched(site.url("api.test.example", "/p?q=1"))
        assert set(found) == {"status", "headers", "body"}
        assert (found["status"], found["body"]) == (418, "héllo �")
        assert found["headers"]["x-other"] == "kept"
        assert found["headers"]["content-type"] == "text/plain"
        assert not {"set-cookie", "www-authenticate", "x-api-key", "x-auth-token"} & set(found["headers"])
        assert site.web.last.target == "/p?q=1"
        assert site.web.last.header("host") == f"api.test.example:{site.web.port}"

    def test_the_request_travels_without_what_concerns_the_connection(self, site: Site):
        headers = {
            "X-Mine": "1",
            "Authorization": "Bearer for-the-service",
            "Host": "evil.example",
            "Transfer-Encoding": "chunked",
            "Content-Length": "3",
            "Proxy-Authorization": "p",
            "Proxy-Connection": "keep-alive",
            "Connection": "x-mine",
            "Upgrade": "h2c",
        }
        site.fetched(site.url("api.test.example"), method="put", headers=headers, body="héllo")
        got = site.web.last
        assert (got.method, got.body) == ("PUT", "héllo".encode())
        assert got.header("x-mine") == "1"
        assert got.header("authorization") == "Bearer for-the-service"
        assert got.header("host") == f"api.test.example:{site.web.port}"
        names = {name.lower() for name, _ in got.fields}
        assert not {"proxy-authorization", "proxy-connection", "upgrade", "transfer-encoding"} & names

    @pytest.mark.parametrize(("method", "sent"), [("HEAD", "HEAD"), ("CONNECT", "GET"), ("delete", "DELETE")])
    def test_an_unknown_method_is_a_get(self, method: str, sent: str, site: Site):
        site.fetched(site.url("api.test.example"), method=method)
        assert site.web.last.method == sent

    def test_https_is_verified(self, site: Site):
        found = site.fetched(site.url("api.test.example", scheme="https"))
        assert (found["status"], found["body"]) == (200, "hello")
        wrong = site.fetch(site.url("other.test.example", scheme="https"))
        assert (wrong.status, wrong.json["reason"]) == (502, "tls")
        assert len(site.tls.received) == 1

    def test_a_chunked_answer_is_joined(self, site: Site):
        opened = behaviours.head(200, ("transfer-encoding", "chunked"))
        site.web.next(
            behaviours.raw(opened, behaviours.chunked(b"one "), behaviours.chunked(b"two"), behaviours.LAST_CHUNK)
        )
        assert site.fetched(site.url("api.test.example"))["body"] == "one two"

    @pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT * 3])
    def test_a_long_answer_is_cut_and_says_so(self, size: int, site: Site):
        site.web.next(behaviours.answer(b"x" * size))
        body = site.fetched(site.url("api.test.example"))["body"]
        mark = f"... [truncated at {LIMIT} bytes]"
        assert body == ("x" * size if size <= LIMIT else "x" * LIMIT + mark)

    def test_an_endless_answer_is_left(self, site: Site):
        async def pour(peer: Peer, request: Received) -> None:
            await peer.send(behaviours.head(200))
            for _ in range(1000):
                await peer.send(b"x" * 65536)

        site.web.next(pour)
        assert site.fetched(site.url("api.test.example"))["body"].endswith("bytes]")
        site.web.last.left_at()

    @pytest.mark.parametrize("body", [b"", b"[]", {}, {"url": 5}, {"url": "http://x/", "headers": {"a": 5}}])
    def test_a_request_that_cannot_be_read_is_told_so(self, body: bytes | dict, site: Site):
        found = client.post(site.port, "/egress/fetch", body)
        assert found.status == 400
        if body == {}:
            assert found.json == {"error": "Missing 'url' field"}

    @pytest.mark.parametrize(
        "headers",
        [{"a\r\nx": "1"}, {"a": "1\r\nx: 2"}, {"a": "1\nx: 2"}, {"a b": "1"}, {"": "1"}, {"a": "1\0"}],
    )
    def test_a_header_cannot_end_its_line(self, headers: dict, site: Site):
        assert site.fetch(site.url("api.test.example"), headers=headers).status == 400
        assert site.web.received == []

    def test_an_upstream_that_breaks_off_is_told(self, site: Site):
        for behave, reason in [
            (behaviours.raw(behaviours.head(200, ("content-length", "9")) + b"1234", close=True), "reset"),
            (behaviours.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"), "protocol"),
            (behaviours.raw(behaviours.head(101, ("upgrade", "x"), ("connection", "upgrade"))), "protocol"),
        ]:
            site.web.next(behave)
            found = site.fetch(site.url("api.test.example", "/p?key=s3cret"))
            assert (found.status, found.json["reason"]) == (502, reason)
            assert found.json["error"].startswith("Request failed: ")
            assert found.json["url"] == site.url("api.test.example", "/p")

    def test_a_port_that_nobody_listens_on_is_told(self, site: Site):
        closed = Upstream(behaviours.answer())
        with closed:
            pass
        site.rules.append({"host": "api.test.example", "port": closed.port, "addresses": LOOPBACK})
        site.mount.write({"schemaVersion": 2, "endpoints": site.rules}, "allowlist.json")
        url = f"http://api.test.example:{closed.port}/"
        until(lambda: site.fetch(url).status != 403)
        found = site.fetch(url)
        assert (found.status, found.json["reason"]) == (502, "connect")

    def test_a_client_that_leaves_ends_the_fetch(self, site: Site):
        site.web.next(behaviours.never())
        with client.Client(site.port) as leaving:
            leaving.post("/egress/fetch", {"url": site.url("api.test.example", "/slow")})
            got = site.web.wait()
            leaving.close()
            got.left_at()
        until(lambda: any(r["call"].get("end") == "client_gone" for r in site.router.audit()))

    def test_a_fetch_is_audited_with_its_bytes(self, site: Site):
        body = {"url": site.url("api.test.example", "/p?key=s3cret"), "headers": {"x-key": "s3cret"}}
        trace = ("x-kars-trace-id", "a-fetch-with-its-bytes")
        assert client.post(site.port, "/egress/fetch", body, trace).status == 200
        (record,) = site.traced(trace[1])
        assert record["action"].startswith(f"egress:fetch:api.test.example:{site.web.port}")
        call = record["call"]
        assert (record["decision"], call["status"], call["end"]) == ("allow", 200, "complete")
        answer = behaviours.head(200, ("content-type", "text/plain"), ("content-length", "5")) + b"hello"
        assert (call["sent_bytes"], call["received_bytes"]) == (len(site.web.last.raw), len(answer))
        assert call["address"] == "127.0.0.1"
        assert "s3cret" not in json.dumps(record)
        assert "s3cret" not in site.router.log


class TestRefusals:
    def test_an_unlisted_host_is_told_what_would_allow_it(self, site: Site):
        found = site.fetch(site.url("unlisted.test.example", "/p?key=s3cret"), headers={"x-key": "s3cret"})
        assert found.status == 403
        assert set(found.json) == {"error", "url", "action", "reason", "decision_id"}
        assert found.json["url"] == site.url("unlisted.test.example", "/p")
        assert found.json["reason"] == "unlisted"
        assert found.json["action"]
        assert b"s3cret" not in found.body
        record = site.decided(found.json["decision_id"])
        assert (record["decision"], record["call"]["end"]) == ("deny", "denied")
        assert site.blocked("unlisted.test.example")

    def test_methods_and_paths_of_a_rule_hold(self, site: Site):
        good = site.url("read.test.example", "/public/x")
        assert site.fetched(good)["status"] == 200
        assert site.fetch(good, method="POST").status == 403
        assert site.fetch(site.url("read.test.example", "/private")).status == 403
        assert [got.target for got in site.web.received] == ["/public/x"]

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_an_address_that_no_rule_grants_is_not_dialled(self, scheme: str, site: Site):
        """W-3: what the name resolves to decides."""
        for host in ("guarded.test.example", "meta.test.example"):
            found = site.fetch(site.url(host, scheme=scheme))
            assert (found.status, found.json["error"]) == (403, PRIVATE)
            assert found.json["reason"] == "address"
            assert site.blocked(host)
        assert site.web.received == site.tls.received == []

    def test_a_grant_covers_only_its_own_addresses(self, site: Site):
        found = site.fetched(site.url("mixed.test.example"))
        assert found["status"] == 200

    def test_a_name_that_changes_its_address_is_checked_each_time(self, site: Site):
        for _ in range(2):
            found = site.fetch(site.url("rebound.test.example"))
            assert (found.status, found.json["error"]) == (403, PRIVATE)
            time.sleep(1.1)
        assert site.web.received == []

    @pytest.mark.parametrize(
        "url",
        [
            "http://evil.example#.api.test.example:{port}/",
            "http://evil.example\\.api.test.example:{port}/",
            "http://evil.example\\@api.test.example:{port}/",
            "http://api.test.example:{port}@evil.example/",
            "http://api.test.example@evil.example:{port}/",
            "http://user:s3cret@api.test.example:{port}/",
            "http://evil.example:{port}#@api.test.example:{port}/",
            "http:\\\\api.test.example:{port}/",
            "http:///api.test.example:{port}/",
            "http:api.test.example:{port}/",
            "//api.test.example:{port}/",
            "http://api.test.example :{port}/",
            "http://api.test.example:{port}/\r\nx: y",
            " http://api.test.example:{port}/",
            "http://api%2etest.example:{port}/",
            "http://api.test.example:{port}/a b",
            "http://ａpi.test.example:{port}/",
            "http://[::ffff:127.0.0.1:{port}/",
            "http://0x7f000001:{port}/",
            "http://2130706433:{port}/",
            "http://127.1:{port}/",
            "file:///etc/passwd",
            "gopher://api.test.example:{port}/",
            "",
        ],
    )
    def test_a_url_that_two_parsers_read_differently_is_refused(self, url: str, site: Site):
        """W-2."""
        found = site.fetch(url.format(port=site.web.port))
        assert found.status == 400, found.body
        assert isinstance(found.json["error"], str)
        assert b"s3cret" not in found.body
        assert site.web.received == []
        assert site.dns.asked("evil.example") == []

    @pytest.mark.parametrize("host", ["api.test.example.", "API.Test.Example"])
    def test_another_spelling_of_a_host_is_the_same_host(self, host: str, site: Site):
        assert site.fetched(site.url(host))["status"] == 200

    def test_more_bytes_than_the_rule_allows_end_the_fetch(self, site: Site):
        assert site.fetched(site.url("small.test.example"))["status"] == 200
        site.web.next(behaviours.answer(b"x" * 5000))
        found = site.fetch(site.url("small.test.example"))
        assert (found.status, found.json["reason"]) == (502, "bytes")
        assert site.fetch(site.url("small.test.example"), body="x" * 5000, method="POST").status == 502
        assert len(site.web.received) == 2


class TestRedirects:
    def redirect(self, to: str, status: int = 302) -> behaviours.Behaviour:
        return behaviours.answer(b"", status, ("location", to))

    def test_a_redirect_is_told_and_not_followed(self, site: Site):
        site.web.next(self.redirect(site.url("other.test.example")))
        found = site.fetched(site.url("api.test.example"))
        assert set(found) == {"status", "headers", "body"}
        assert (found["status"], found["headers"]["location"]) == (302, site.url("other.test.example"))
        assert len(site.web.received) == 1

    def test_as_many_are_followed_as_were_asked_for(self, site: Site):
        site.web.next(self.redirect("/two?x=1"), self.redirect("three"), self.redirect("/four"))
        found = site.fetched(site.url("api.test.example", "/one"), follow=2)
        assert (found["status"], found["redirects"]) == (302, 2)
        assert found["url"] == site.url("api.test.example", "/three")
        assert [got.target for got in site.web.received] == ["/one", "/two?x=1", "/three"]
        assert site.fetch(site.url("api.test.example"), follow=6).status == 400

    @pytest.mark.parametrize("to", ["meta.test.example", "guarded.test.example", "unlisted.test.example"])
    def test_each_is_decided_about_anew(self, to: str, site: Site):
        site.web.next(self.redirect(site.url(to, "/latest/meta-data")))
        found = site.fetch(site.url("api.test.example"), follow=5, headers={"Metadata": "true"})
        assert found.status == 403
        assert found.json["url"] == site.url(to, "/latest/meta-data")
        assert len(site.web.received) == 1

    def test_one_to_the_metadata_service_is_refused(self, site: Site):
        site.web.next(self.redirect("http://169.254.169.254/latest/meta-data"))
        found = site.fetch(site.url("api.test.example"), follow=5)
        assert found.status == 403
        assert len(site.web.received) == 1

    @pytest.mark.parametrize("to", ["http://evil.example\\.api.test.example/", "http://a@evil.example/", "file:///x"])
    def test_one_that_is_no_clear_url_is_told_and_not_followed(self, to: str, site: Site):
        site.web.next(self.redirect(to))
        assert site.fetched(site.url("api.test.example"), follow=5)["status"] == 302
        assert len(site.web.received) == 1

    def test_credentials_stay_with_their_origin(self, site: Site):
        site.web.next(
            self.redirect(site.url("api.test.example", "/same")), self.redirect(site.url("other.test.example"))
        )
        secrets = {
            "Authorization": "Bearer s3cret",
            "Cookie": "s3cret",
            "X-Api-Key": "s3cret",
            "X-Auth-Token": "s3cret",
        }
        site.fetched(site.url("api.test.example"), follow=5, headers={**secrets, "X-Plain": "1"})
        first, same, other = site.web.received
        for got in (first, same):
            assert got.raw.count(b"s3cret") == 4
        assert b"s3cret" not in other.raw
        assert other.header("x-plain") == "1"

    def test_tls_is_not_given_up(self, site: Site):
        site.tls.next(self.redirect(site.url("api.test.example")))
        found = site.fetch(site.url("api.test.example", scheme="https"), follow=5)
        assert (found.status, found.json["reason"]) == (403, "downgrade")
        assert site.web.received == []

    @pytest.mark.parametrize(
        ("status", "then", "body"), [(301, "GET", b""), (303, "GET", b""), (307, "POST", b"b"), (308, "POST", b"b")]
    )
    def test_what_was_posted_is_posted_again_only_where_the_status_says_so(
        self, status: int, then: str, body: bytes, site: Site
    ):
        site.web.next(self.redirect("/next", status))
        site.fetched(site.url("api.test.example"), method="POST", body="b", follow=1)
        assert (site.web.last.method, site.web.last.body) == (then, body)


def test_more_connections_than_allowed_are_told_to_wait(tmp_path: Path):
    with Upstream(behaviours.never()) as web, Dns({"api.test.example": ["127.0.0.1"]}) as dns:
        mount = Mount(tmp_path / "lists")
        rule = {"host": "api.test.example", "port": web.port, "addresses": LOOPBACK}
        mount.write({"schemaVersion": 2, "endpoints": [rule]}, "allowlist.json")
        environment = {
            "EGRESS_ALLOWLIST_DIR": str(mount.folder),
            "EGRESS_DNS_SERVERS": dns.address,
            "EGRESS_MAX_CONNECTIONS": "1",
            "INFERENCE_POLICY_MISSING": "open",
            "OPENAI_BASE_URL": web.url,
        }
        router = Router(tmp_path, environment).start()
        try:
            until(lambda: client.get(router.port, "/egress/allowlist").json["count"])
            with client.Client(router.port) as waiting:
                waiting.post("/egress/fetch", {"url": f"http://api.test.example:{web.port}/"})
                web.wait()
                found = client.post(router.port, "/egress/fetch", {"url": f"http://api.test.example:{web.port}/"})
                assert (found.status, found.json["reason"]) == (503, "slots")
        finally:
            router.stop()
