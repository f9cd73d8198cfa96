"""Both corpora through a live router: nothing hostile leaves in any form, and nothing legitimate is kept back."""

import asyncio
import contextlib
import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.doors import Egress, Everything, Row, Server, egress, endpoint, rows, until

HOSTILE = rows("egress_hostile.tsv")
LEGITIMATE = rows("egress_legitimate.tsv")
#: Connections at one time.
WIDTH = 64
#: Where every name leads that is asked for.
ELSEWHERE = "127.77.0.1"
#: Classes that every parser understands; only the address guard is left to refuse them.
UNDERSTOOD = {"literal"}


@dataclass(frozen=True)
class Case:
    """Bytes to send, and to which port of the router."""

    row: Row
    form: str
    data: bytes
    #: Whether it is only its address that is wrong.
    understood: bool = False
    fetch: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a client saw."""

    case: Case
    answer: bytes

    @property
    def refused(self) -> bool:
        """A clear refusal: a status that is one, a TLS alert, or, for a hello without an end, a close."""
        if self.answer.startswith(b"HTTP/1.1 "):
            return self.answer[9:12] in {b"400", b"403", b"413", b"431", b"501", b"502", b"504"}
        return self.answer[:1] == b"\x15" or (self.case.row.kind == "unfinished" and not self.answer)

    @property
    def decision(self) -> str | None:
        found = re.search(rb"x-kars-decision-id: ([0-9a-f]{16})", self.answer)
        return found[1].decode() if found else None


async def exchanged(site: Egress, case: Case) -> Outcome:
    """Sends a case's bytes, ends that side, and reads to the end."""
    port = site.router.port if case.fetch else site.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        writer.write(case.data)
        if case.row.kind == "unfinished":
            writer.write_eof()
        async with asyncio.timeout(20):
            while got := await reader.read(65536):
                answer += got
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return Outcome(case, answer)


def driven(site: Egress, cases: list[Case]) -> list[Outcome]:
    """All cases, many at one time."""

    async def drive() -> list[Outcome]:
        room = asyncio.Semaphore(WIDTH)

        async def one(case: Case) -> Outcome:
            async with room:
                return await exchanged(site, case)

        return await asyncio.gather(*[one(case) for case in cases])

    return asyncio.run(drive())


def by_connect(target: bytes) -> bytes:
    return b"CONNECT " + target + b" HTTP/1.1\r\n\r\n"


def by_url(authority: bytes) -> bytes:
    return b"GET http://" + authority + b"/ HTTP/1.1\r\nConnection: close\r\nHost: " + authority + b"\r\n\r\n"


def by_host(authority: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nConnection: close\r\nHost: " + authority + b"\r\n\r\n"


def by_fetch(url: str) -> bytes:
    body = json.dumps({"url": url}).encode()
    head = f"POST /egress/fetch HTTP/1.1\r\nHost: router\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def hello(name: bytes) -> bytes:
    """A client hello with a server name and little else."""
    names = b"\0" + len(name).to_bytes(2, "big") + name
    extension = b"\0\0" + (len(names) + 2).to_bytes(2, "big") + len(names).to_bytes(2, "big") + names
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x04\x13\x01\x13\x02" + b"\x01\0" + len(extension).to_bytes(2, "big")
    message = b"\x01" + (len(body) + len(extension)).to_bytes(3, "big") + body + extension
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def spellings(row: Row, port: int) -> Iterator[Case]:
    """A hostile CONNECT target in every form in which it is hostile, also with a port that something listens on."""
    known = row.kind in UNDERSTOOD
    texts = {row.data}
    if (written := re.search(rb":(\d{1,5})\Z", row.data)) and 0 < int(written[1]) < 65536:
        texts.add(row.data[: written.start()] + b":%d" % port)
    for text in sorted(texts):
        yield Case(row, "CONNECT", by_connect(text), known)
        # A `/` or `?` ends the host of a URL, which may be a good one then.
        if not re.search(rb"[/?]", text):
            yield Case(row, "absolute-form", by_url(text), known)
            yield Case(row, "fetch", by_fetch("http://" + text.decode("utf-8", "surrogateescape")), known, fetch=True)
        # White space around a field's value is none of the value, and a line's end ends it.
        if not re.search(rb"[\r\n]", text) and text.strip(b" \t") == text:
            yield Case(row, "Host", by_host(text), known)


def sni(name: bytes) -> bool:
    return 0 < len(name) < 250


def hostile(port: int) -> list[Case]:
    """Every hostile row in every form that applies; `address` rows are apart."""
    cases: list[Case] = []
    for row in HOSTILE:
        known = row.kind in UNDERSTOOD or (
            row.form == "http" and re.search("loopback|metadata|private|Azure|Linux", row.rest[0])
        )
        match row.form:
            case "connect":
                cases += spellings(row, port)
                host = re.sub(rb":\d+\Z", b"", row.data)
                if sni(host) and row.kind not in {"port", "whitespace"}:
                    cases.append(Case(row, "SNI", hello(host), known))
            case "http" | "sni":
                cases.append(Case(row, row.form, row.data, bool(known)))
            case "url":
                text = row.data.decode("utf-8", "surrogateescape")
                cases.append(Case(row, "fetch", by_fetch(text), known, fetch=True))
                # What begins with a `/` is a path, and the host is the field's.
                if not row.data.startswith(b"/"):
                    head = b"GET " + row.data + b" HTTP/1.1\r\nConnection: close\r\nHost: example.com\r\n\r\n"
                    cases.append(Case(row, "absolute-form", head, known))
    return cases


def led_there(ports: tuple[int, ...]) -> tuple[list[Case], dict[str, list[str]]]:
    """Allowed names that lead to hostile addresses, by every door."""
    cases, names = [], {}
    for number, row in enumerate(row for row in HOSTILE if row.form == "address"):
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(row.data.decode())
            name = f"row-{number}.addressed.example"
            names[name] = [str(address)]
            port = ports[number % len(ports)]
            text = f"{name}:{port}".encode()
            cases += [
                Case(row, "name by CONNECT", by_connect(text), True),
                Case(row, "name by URL", by_url(text), True),
                Case(row, "name by Host", by_host(text), True),
                Case(row, "name by SNI", hello(name.encode()), True),
                Case(row, "name by fetch", by_fetch(f"http://{name}:{port}/"), True, fetch=True),
            ]
    return cases, names


@pytest.fixture(scope="module", params=["strict", "learn"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Egress, list[Server]]]:
    """A router that would let every name leave, to anywhere on loopback, if it took one for a name; and what listens there.

    Strictly: what an allowlist names, and granted addresses with it, where the names are made. In learn mode, without
    blocklists: everything but what the guard forbids.
    """
    folder = tmp_path_factory.mktemp("hostile")
    with Server() as four, Server(address="::1") as six, Server(address=ELSEWHERE) as elsewhere:
        canaries = [four, six, elsewhere]
        ports = (443, 80, *[canary.port for canary in canaries])
        made = ["allowed.example", "evil.example", "example.com", "example", "com", "a", "b", "c", "x", "router"]
        allowed = [endpoint(host, port) for host in made for port in ports]
        allowed += [{"host": "addressed.example", "port": port} for port in ports]
        strict = request.param == "strict"
        more = {} if strict else {"EGRESS_MODE": "learn", "BLOCKLIST_ENABLED": "false"}
        with egress(folder, {}, *(allowed if strict else []), **more) as running:
            running.dns.names = Everything([ELSEWHERE, "::1"])
            yield running, canaries


def reported(outcomes: list[Outcome]) -> str:
    shown = [f"{o.case.form}: {o.case.row} -> {o.answer[:120]!r}" for o in outcomes]
    return "\n".join([f"{len(shown)} cases", *shown[:40]])


def test_nothing_hostile_leaves_in_any_form(site: tuple[Egress, list[Server]]):
    running, canaries = site
    cases = hostile(canaries[0].port)
    led, names = led_there((443, 80, *[canary.port for canary in canaries]))
    running.dns.names = Everything([ELSEWHERE, "::1"], names)
    outcomes = driven(running, [*cases, *led])

    accepted = [peer.data[:80] for canary in canaries for peer in canary.peers]
    escapes = [o for o in outcomes if not o.refused]
    assert not accepted, f"{len(outcomes)} cases made {len(accepted)} connections: {accepted[:5]}"
    assert not escapes, f"of {len(outcomes)} cases these were not refused: {reported(escapes)}"
    assert len(outcomes) > 1500
    # What is no name is not even asked for, and what is no destination is not judged by its address.
    asked = {query.name for query in running.dns.queries} - set(names)
    taken = [
        o for o in outcomes if not o.case.understood and re.search(rb"address-guard|\xe2\x80\x94 (Bad G|DNS)", o.answer)
    ]
    assert not asked, f"{len(outcomes)} cases made the router resolve {sorted(asked)[:20]}: {reported(taken)}"
    assert not taken, f"of {len(outcomes)} cases these were taken for a destination: {reported(taken)}"

    assert running.router.metric("kars_egress_dial_seconds_count") == 0
    assert running.router.metric("kars_egress_bytes_total") == 0
    told = {o.decision for o in outcomes} - {None}
    until(lambda: told <= {record["decision_id"] for record in running.records()})
    recorded = {record["decision_id"]: record for record in running.records()}
    dialled = [record for record in recorded.values() if record.get("address")]
    assert not dialled, f"{len(recorded)} records, these with an address: {dialled[:3]}"
    allowed = [record for record in recorded.values() if record["decision"] != "deny"]
    assert not allowed, f"{len(recorded)} records, these allowed: {allowed[:3]}"
    # It is as healthy as before.
    assert running.router.ready()
    assert running.router.metric("kars_egress_connections") == 0
    assert running.router.metric("kars_bugs_total") == 0


def wanted(row: Row) -> tuple[str, int]:
    return row.rest[0], int(row.rest[1])


def is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host.strip("[]")))
    return False


def legitimate() -> list[tuple[Case, str]]:
    """Every legitimate row that names a host, in every form that applies, with what the audit calls it.

    Addresses are for `tests/interop/egress`, which has an Internet of its own.
    """
    cases: list[tuple[Case, str]] = []
    for row in LEGITIMATE:
        if row.form == "address" or is_address(row.rest[0]):
            continue
        host, port = wanted(row)
        to = f"{host}:{port}"
        match row.form:
            case "connect":
                cases.append((Case(row, "CONNECT", by_connect(row.data)), f"connect:{to}"))
                written = row.data if b":" in row.data else row.data + b":443"
                cases += [
                    (Case(row, "absolute-form", by_url(written)), f"http:{to}:GET"),
                    (Case(row, "Host", by_host(written)), f"http:{to}:GET"),
                    (Case(row, "fetch", by_fetch(f"http://{written.decode()}/"), fetch=True), f"fetch:{to}:GET"),
                    (Case(row, "SNI", hello(host.encode())), f"tls:{host}:443"),
                ]
            case "http":
                method = row.data.split()[0].decode()
                action = f"connect:{to}" if method == "CONNECT" else f"http:{to}:{method}"
                cases.append((Case(row, "http", row.data), action))
            case "sni":
                cases.append((Case(row, "sni", row.data), f"tls:{to}"))
            case "url":
                case = Case(row, "fetch", by_fetch(row.data.decode()), fetch=True)
                cases.append((case, f"fetch:{to}:GET"))
    return cases


def test_nothing_legitimate_is_kept_back(tmp_path: Path):
    named = [wanted(row) for row in LEGITIMATE if row.form != "address"]
    allowed = {(host, port) for host, ports in named for port in (ports, 443) if not is_address(host)}
    listed = [endpoint(host, port) for host, port in sorted(allowed)]
    with egress(tmp_path, {}, *listed, BLOCKLIST_SEED_PATH=str(tmp_path / "none")) as running:
        # Nothing listens there: what matters is that it is tried.
        running.dns.names = Everything(["127.77.0.9"])
        cases = legitimate()
        outcomes = driven(running, [case for case, _ in cases])
        kept = [
            o
            for o in outcomes
            if o.answer[9:12] in {b"400", b"403", b"501"} or (o.answer[:1] == b"\x15" and o.answer[6] != 80)
        ]
        assert not kept, f"of {len(outcomes)} cases these were kept back: {reported(kept)}"
        assert len(outcomes) > 350
        until(lambda: len(running.records()) >= len(cases))
        records = running.records()
        denied = [record["action"] for record in records if record["decision"] != "allow"]
        assert not denied, f"of {len(records)} records these are denials: {denied[:20]}"
        actions = {record["action"] for record in records}
        missing = [str(case) for case, action in cases if f"egress:{action}" not in actions]
        assert not missing, f"of {len(cases)} cases these went elsewhere: {missing[:10]}"
