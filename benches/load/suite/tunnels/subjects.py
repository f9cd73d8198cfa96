"""Whatever stands between client and far end; the same roles as elsewhere, told to open tunnels."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import peers

from suite.mount import EGRESS_ALLOWLIST, PolicyMount
from suite.subjects import Launch, Site, Subject, free_port, governed_policy, kars_launch, render

# One of them is the far end.
HOSTS = 1_000
# Any byte that is echoed.
PROBE = b"\x80"


def opens(port: int, target: int) -> bool:
    """Whether a byte comes back through a tunnel by CONNECT."""
    head = f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: 127.0.0.1:{target}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(30)
            connection.sendall(head.encode())
            answer = connection.recv(4096)
            return answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) and echoes(connection)
    except OSError:
        return False


def leads(port: int, _target: int) -> bool:
    """Whether a byte comes back through the port itself."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(30)
            return echoes(connection)
    except OSError:
        return False


def echoes(connection: socket.socket) -> bool:
    connection.sendall(PROBE)
    return connection.recv(2) == PROBE


def own(*words: str) -> Callable[[Site], Launch]:
    """A subcommand of our own binary."""
    return lambda site: Launch([site.binary, words[0], "--port", str(site.port), *words[1:]])


def envoy(site: Site) -> Launch:
    config = render("envoy_connect.yaml", site)
    return Launch([str(peers.program("envoy")), "-c", str(config), "--concurrency", "1", "-l", "off"])


def haproxy(splice: str) -> Callable[[Site], Launch]:
    def launch(site: Site) -> Launch:
        return Launch([str(peers.program("haproxy")), "-f", str(render("haproxy_tcp.cfg", site, SPLICE=splice))])

    return launch


def squid(site: Site) -> Launch:
    return Launch([str(peers.program("squid")), "-N", "-d", "1", "-f", str(render("squid.conf", site))])


def tinyproxy(site: Site) -> Launch:
    return Launch([str(peers.program("tinyproxy")), "-d", "-c", str(render("tinyproxy.conf", site))])


def kars(site: Site) -> Launch:
    """Governed: strict, an allowlist of 1 000 hosts, a record of every tunnel on disk."""
    PolicyMount(site.run / "policy").write(governed_policy(site.models, 1_000))
    return egress(
        site,
        INFERENCE_POLICY_DIR=str(site.run / "policy"),
        KARS_AUDIT_DIR=str(site.run / "audit"),
        TOKEN_BUDGET_PERSIST_PATH=str(site.run / "budget.json"),
    )


def kars_plain(site: Site) -> Launch:
    """The same without audit: an egress proxy that lets everything pass is none."""
    return egress(
        site,
        INFERENCE_POLICY_DIR="",
        INFERENCE_POLICY_MISSING="open",
        KARS_AUDIT_DIR="disabled",
        TOKEN_BUDGET_PERSIST_PATH="",
    )


def egress(site: Site, **settings: str) -> Launch:
    """What both have in common: the egress port is the one that is measured."""
    PolicyMount(site.run / "egress", EGRESS_ALLOWLIST).write(allowlist(site.upstream))
    return kars_launch(
        site,
        ROUTER_PORT=str(free_port()),
        FORWARD_PROXY_PORT=str(site.port),
        FORWARD_PROXY_BIND="127.0.0.1",
        EGRESS_MODE="strict",
        EGRESS_ALLOWLIST_DIR=str(site.run / "egress"),
        EGRESS_APPROVAL_DIR=str(site.run / "approvals"),
        EGRESS_LEARNED_PATH="",
        **settings,
    )


def allowlist(far_end: int) -> dict[str, Any]:
    """So many hosts, the far end in their middle: its address is loopback, which only a grant opens."""
    endpoints: list[dict[str, Any]] = [
        {"host": f"host-{number:05d}.example.com", "port": 443} for number in range(HOSTS - 1)
    ]
    endpoints.insert(HOSTS // 2, {"host": "127.0.0.1", "port": far_end, "addresses": ["127.0.0.0/8"]})
    return {"schemaVersion": 2, "endpoints": endpoints}


TUNNELS = {
    subject.name: subject
    for subject in (
        Subject("direct", "the far end itself", own("tunnel-server"), by_connect=False, is_up=leads),
        Subject("floor", "the least a proxy can do, by copies of 128 KiB", own("tunnel-floor"), is_up=opens),
        Subject("floor-splice", "the same by splice(2)", own("tunnel-floor", "--splice"), is_up=opens),
        Subject("copy8k", "tokio's copy loop, 8 KiB a direction", own("tunnel-naive"), is_up=opens),
        Subject("kars", "governed: 1 000 hosts, hash-chained audit", kars, is_up=opens),
        Subject("kars-plain", "kars without audit", kars_plain, is_up=opens),
        Subject("envoy", "CONNECT, RBAC of one rule, dynamic forward proxy", envoy, is_up=opens, peer="envoy"),
        Subject("haproxy", "TCP, no CONNECT", haproxy(""), by_connect=False, is_up=leads, peer="haproxy"),
        Subject(
            "haproxy-splice",
            "TCP by splice(2), no CONNECT",
            haproxy("option splice-request\n  option splice-response"),
            by_connect=False,
            is_up=leads,
            peer="haproxy",
        ),
        Subject("squid", "CONNECT, an acl, no cache", squid, is_up=opens, peer="squid"),
        Subject("tinyproxy", "CONNECT to one port", tinyproxy, is_up=opens, peer="tinyproxy"),
    )
}
