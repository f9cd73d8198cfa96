"""The name server of the system tests, asked by hand."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from tests.system.dns import (
    AAAA,
    NXDOMAIN,
    SERVFAIL,
    A,
    Alias,
    Code,
    Dns,
    Late,
    Query,
    Silent,
    Truncated,
    Turns,
    encoded,
)


def message(name: str, kind: int) -> bytes:
    return struct.pack("!HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + encoded(name) + struct.pack("!HH", kind, 1)


def ask(dns: Dns, name: str, kind: int = A, *, tcp: bool = False, timeout: float = 2.0) -> bytes:
    query = message(name, kind)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as peer:
        peer.settimeout(timeout)
        peer.connect(("127.0.0.1", dns.port))
        peer.sendall(struct.pack("!H", len(query)) + query if tcp else query)
        if not tcp:
            return peer.recv(65535)
        with peer.makefile("rb") as reader:
            (size,) = struct.unpack("!H", reader.read(2))
            return reader.read(size)


def code(reply: bytes) -> int:
    return reply[3] & 15


def is_truncated(reply: bytes) -> bool:
    return bool(reply[2] & 2)


def answers(reply: bytes) -> int:
    return struct.unpack_from("!H", reply, 6)[0]


def test_a_name_has_the_addresses_of_the_family_that_is_asked_for():
    with Dns({"a.example": ["192.0.2.1", "192.0.2.2", "2001:db8::1"]}, ttl=77) as dns:
        four, six = ask(dns, "A.Example"), ask(dns, "a.example", AAAA)
        assert [q.kind for q in dns.asked("a.example")] == ["A", "AAAA"]
    assert four[:2] == b"\x12\x34" and code(four) == 0 and answers(four) == 2
    assert four.endswith(bytes([192, 0, 2, 2])) and struct.pack("!IH", 77, 4) in four
    assert answers(six) == 1 and six.endswith(b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01")


def test_a_name_without_an_entry_does_not_exist_and_one_without_addresses_does():
    with Dns({"empty.example": []}) as dns:
        assert code(ask(dns, "other.example")) == NXDOMAIN
        assert (code(reply := ask(dns, "empty.example")), answers(reply)) == (0, 0)


def test_an_entry_may_fail_be_late_or_stay_silent():
    entries = {"bad.example": Code(SERVFAIL), "late.example": Late(0.1, ["192.0.2.1"]), "mute.example": Silent()}
    with Dns(entries) as dns:
        assert code(ask(dns, "bad.example")) == SERVFAIL
        before = time.monotonic()
        assert answers(ask(dns, "late.example")) == 1
        assert time.monotonic() - before >= 0.1
        with pytest.raises(TimeoutError):
            ask(dns, "mute.example", timeout=0.05)
        assert len(dns.asked("mute.example", "A")) == 1


def test_what_does_not_fit_or_says_so_is_truncated_over_udp_and_whole_over_tcp():
    many = [f"192.0.2.{i}" for i in range(100)]
    with Dns({"many.example": many, "cut.example": Truncated(["192.0.2.1"])}) as dns:
        for name, whole in (("many.example", 100), ("cut.example", 1)):
            short, full = ask(dns, name), ask(dns, name, tcp=True)
            assert is_truncated(short) and answers(short) == 0
            assert not is_truncated(full) and answers(full) == whole
            assert [q.over for q in dns.asked(name)] == ["udp", "tcp"]


def test_an_alias_brings_what_its_target_has():
    with Dns(
        {"www.example": Alias("lb.example"), "lb.example": ["192.0.2.9"], "bad.example": Alias("no.example")}
    ) as dns:
        reply, bad = ask(dns, "www.example"), ask(dns, "bad.example")
    assert answers(reply) == 2 and encoded("lb.example") in reply and reply.endswith(bytes([192, 0, 2, 9]))
    assert code(bad) == NXDOMAIN and answers(bad) == 1


def test_an_answer_may_change_from_query_to_query():
    def by_kind(query: Query) -> list[str]:
        return ["192.0.2.1"] if query.kind == "A" else ["2001:db8::1"]

    with Dns({"turn.example": Turns([["192.0.2.1"], ["192.0.2.2"]]), "call.example": by_kind}) as dns:
        replies = [ask(dns, "turn.example", kind) for kind in (A, AAAA, A, A)]
        assert [reply[-1] for reply in replies if answers(reply)] == [1, 2, 2]
        assert answers(ask(dns, "call.example", AAAA)) == 1
        dns.names["turn.example"] = ["192.0.2.3"]
        assert ask(dns, "turn.example")[-1] == 3


def test_it_stops_with_answers_outstanding_and_open_connections():
    dns = Dns({"late.example": Late(60, ["192.0.2.1"])})
    with dns:
        peer = socket.create_connection(("127.0.0.1", dns.port))
        peer.sendall(struct.pack("!H", len(query := message("late.example", A))) + query)
        with pytest.raises(TimeoutError):
            ask(dns, "late.example", timeout=0.05)
        while len(dns.asked("late.example")) < 2:
            time.sleep(0.005)
    with peer:
        assert peer.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", dns.port))
