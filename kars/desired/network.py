"""The NetworkPolicy `sandbox-policy`: what the network lets through, beneath what the router decides by name.

A policy of the network sees addresses and ports, not names, so it opens as little as the router needs to do its work:
who may have what of it is the router's to say, and the guard keeps the agent itself off all of it.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from kars.desired import names, router, runtime
from kars.desired.config import metadata
from kars.desired.facts import Facts, Unplannable
from kars.kube.types import Object
from kars.model.addresses import is_barred

# What is not the Internet: private (RFC 1918), shared (RFC 6598), link-local (RFC 3927); unique local (RFC 4193) and
# link-local (RFC 4291).
PRIVATE_V4 = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
PRIVATE_V6 = ("fc00::/7", "fe80::/10")
METADATA_SERVICE = "169.254.169.254/32"
HTTPS = 443
# The relay and registry of the mesh: their Services' ports, and their pods', which a CNI sees.
MESH_PORTS = (8765, 8080, 8083, 8082)
SIDECAR_PORT = 5000
MESH = "agentmesh"
# RFC 1123 label, as namespaces are called.
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Of Kubernetes, by its own word, and of sandboxes and their controller.
RESERVED = ("kube-", "kars-")

SYSTEM = {names.APP_NAME: names.APP, names.APP_COMPONENT: "system"}
PEERS = {names.ROLE: "sandbox"}


def policy(facts: Facts) -> Object:
    """Return the one NetworkPolicy."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(facts, names.NETWORK_POLICY),
        "spec": {
            "podSelector": {"matchLabels": {names.COMPONENT: "sandbox"}},
            "policyTypes": ["Egress", "Ingress"],
            "egress": egress(facts),
            "ingress": ingress(facts),
        },
    }


def egress(facts: Facts) -> list[Object]:
    """Return what may leave the pod."""
    platform = facts.platform
    dns = [namespaces({names.NAMESPACE_NAME: "kube-system"}), *(block(one) for one in platform.dns_addresses)]
    rules = [to(dns, tcp(53), udp=53)]
    if platform.imds_client_id or platform.workload_identity_client_id:
        rules.append(to([{"ipBlock": {"cidr": METADATA_SERVICE}}], tcp(80)))
    rules += [
        to([*internet(), *(block(one) for one in platform.private_networks)], tcp(HTTPS)),
        to([namespaces(PEERS)], tcp(router.PORT)),
        to([namespaces({names.NAMESPACE_NAME: MESH})], tcp(*MESH_PORTS)),
        to([namespaces(SYSTEM)], tcp(SIDECAR_PORT)),
    ]
    if facts.sre or facts.spawns:
        servers = dict.fromkeys((facts.api_server, *facts.api_endpoints))
        rules += [to([block(address)], tcp(port)) for address, port in servers]
    rules += granted(facts)
    rules += model_servers(facts)
    return rules


def granted(facts: Facts) -> list[Object]:
    """Return a rule for each endpoint that the rules before do not open already.

    A name may be any public address, on its port; an address is that address and no other, private ones, too, but for
    those that the router never dials.
    """
    found: dict[str, Object] = {}
    for endpoint in facts.endpoints:
        if is_barred(endpoint.host):
            continue
        port = endpoint.port or HTTPS
        address = literal(endpoint.host)
        if address is not None and not (port == HTTPS and is_public(address)):
            found[f"{address} {port}"] = to([block(str(address))], tcp(port))
        elif address is None and port != HTTPS:
            found[f"* {port}"] = to(internet(), tcp(port))
    return list(found.values())


def model_servers(facts: Facts) -> list[Object]:
    """Return a rule for each model server that is not on the Internet's port 443: in the cluster, or elsewhere.

    One in the cluster opens its namespace, all TCP of it. Nothing narrower follows from a URL: a CNI judges packets by
    the pods' own addresses and ports, once the Service's were replaced. Which pods, and which of their ports, only the
    Service says, whose selector and target port may change at any time; the controller watches no Services but those
    that it makes. So a namespace that holds more than a model server is no place for one, and some never are.
    """
    platform = facts.platform
    urls = (
        [facts.model.endpoint] if facts.model.endpoint else [platform.azure_openai_endpoint, platform.foundry_endpoint]
    )
    urls += [platform.router_env.get(name, "") for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")]
    found: dict[str, Object] = {}
    for url in filter(None, urls):
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), port_of(url)
        address = literal(host)
        labels = host.split(".")
        if is_barred(host):
            raise Unplannable("SpecInvalid", f"the model server's address {host} is never opened to sandboxes")
        if address is not None and not (port == HTTPS and is_public(address)):
            found[f"{address} {port}"] = to([block(str(address))], tcp(port))
        elif address is None and len(labels) > 2 and labels[2] == "svc":
            check_namespace(labels[1], host, facts)
            found[labels[1]] = {"to": [namespaces({names.NAMESPACE_NAME: labels[1]})], "ports": [{"protocol": "TCP"}]}
        elif address is None and port != HTTPS:
            found[f"* {port}"] = to(internet(), tcp(port))
    return list(found.values())


def check_namespace(namespace: str, host: str, facts: Facts) -> None:
    """Refuse a model server whose namespace holds something that no sandbox may reach."""
    if not NAMESPACE.fullmatch(namespace):
        raise Unplannable("SpecInvalid", f"the model server {host} is in no namespace that there could be")
    if namespace.startswith(RESERVED) or namespace in {MESH, facts.platform.namespace}:
        raise Unplannable(
            "SpecInvalid",
            f"the model server {host} is in namespace {namespace}, which is never opened to sandboxes (nor is any of"
            f" kube-*, kars-*, {MESH}, and the controller's own); put it into a namespace of its own",
        )


def port_of(url: str) -> int:
    """Return a URL's port; that of its scheme where it has none, or none that can be."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return port or (80 if parts.scheme == "http" else HTTPS)


def ingress(facts: Facts) -> list[Object]:
    """Return what may come to the pod."""
    rules = []
    if facts.governance.enabled:
        rules.append(from_([namespaces(PEERS)], tcp(router.PORT, runtime.GATEWAY_PORT, runtime.PEER_PORT)))
    rules.append(from_([namespaces(SYSTEM)], tcp(router.PORT)))
    if facts.platform.monitoring_namespace:
        scraper = namespaces({names.NAMESPACE_NAME: facts.platform.monitoring_namespace})
        rules.append(from_([scraper], tcp(router.METRICS_PORT)))
    return rules


def internet() -> list[Object]:
    """Return every address that is not private, of both families."""
    return [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(PRIVATE_V4)}},
        {"ipBlock": {"cidr": "::/0", "except": list(PRIVATE_V6)}},
    ]


def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host writes out; an IPv4 address in IPv6's clothes is that IPv4 address."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the rule for the Internet opens an address."""
    private = PRIVATE_V4 if address.version == 4 else PRIVATE_V6
    return not any(address in ipaddress.ip_network(one) for one in private)


def block(text: str) -> Object:
    """Return an address or network as a peer."""
    return {"ipBlock": {"cidr": str(ipaddress.ip_network(text, strict=False))}}


def namespaces(labels: dict[str, str]) -> Object:
    """Return namespaces by labels as a peer."""
    return {"namespaceSelector": {"matchLabels": labels}}


def tcp(*ports: int) -> list[Object]:
    """Return TCP ports."""
    return [{"protocol": "TCP", "port": port} for port in ports]


def to(peers: list[Object], ports: list[Object], *, udp: int = 0) -> Object:
    """Return a rule for what leaves."""
    return {"to": peers, "ports": [*([{"protocol": "UDP", "port": udp}] if udp else []), *ports]}


def from_(peers: list[Object], ports: list[Object]) -> Object:
    """Return a rule for what comes."""
    return {"from": peers, "ports": ports}
