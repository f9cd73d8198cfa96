"""TrustGraph: what of a graph counts (`graph.json`), and the slice of it that each sandbox is given.

An edge is signed by the party that it comes from, Ed25519 (RFC 8032) over `trustgraph.v1`. One that does not hold is
left out and counted, by reason; so is one that is over or not yet issued, because the router that seeds trust from the
graph looks at no time and no signature.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from kars.kube.types import Object
from kars.model.trust import Edge, TrustGraph, Vertex
from kars.policy.compiled.canonical import compact, pretty, version_hash
from kars.policy.compiled.outcome import Compiled, Given, config_map

FILE = "graph.json"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
MOST_SCORE = 1000
# An edge issued later than this from now is not yet: clocks of parties differ by less.
CLOCK_SKEW = 300
# Signatures that are remembered as checked: four graphs of the most edges. An entry is below 1 KiB.
CHECKED = 16_384
# Longest joined version hash of a slice, an annotation that people read.
JOINED_LENGTH = 64
BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


class Undecodable(ValueError):
    """A text is no base64url without padding."""


class Projection(msgspec.Struct, frozen=True):
    """What counts of a graph, and why the rest does not."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    vertex_rejects: dict[str, int]
    edge_rejects: dict[str, int]
    # When an edge begins or ends to count, in seconds since 1970; None when none ever does.
    until: int | None = None


def render(graph: TrustGraph, given: Given) -> Compiled:
    """Return the ConfigMap `trustgraph-<name>-projection`, in the controller's namespace."""
    if given.now is None:
        raise ValueError("what counts of a trust graph depends on the time")
    found = project(graph, int(given.now.timestamp()))
    written = document(found, len(graph.spec.edges))
    name = f"trustgraph-{graph.metadata.name}-projection"
    version: str = written["versionHash"]
    made = config_map(
        name,
        namespace=given.namespace,
        labels={"trustgraph": graph.metadata.name, "artifact": "trustgraph-projection"},
        annotations={"trustgraph-version-hash": version},
        data={FILE: pretty(written)},
    )
    status = {
        "validVertices": len(found.vertices),
        "validEdges": len(found.edges),
        "invalidEdges": len(graph.spec.edges) - len(found.edges),
        "projectionConfigMapRef": {"name": name},
    }
    return Compiled(
        objects=(made,),
        version_hash=version,
        status=status,
        notes=told(found),
        until=None if found.until is None else datetime.fromtimestamp(found.until, UTC),
    )


def told(found: Projection) -> tuple[str, ...]:
    """Say in words what does not count."""
    rejects = (("vertices", found.vertex_rejects), ("edges", found.edge_rejects))
    return tuple(f"{count} {what} left out: {why}" for what, table in rejects for why, count in table.items())


def project(graph: TrustGraph, now: int) -> Projection:
    """Sort out what counts at a time in seconds since 1970."""
    kept: dict[str, Vertex] = {}
    keys: dict[str, bytes] = {}
    vertex_rejects, edge_rejects = Counter[str](), Counter[str]()
    for vertex in graph.spec.vertices:
        if why := vertex_fault(vertex, kept):
            vertex_rejects[why] += 1
            continue
        kept[vertex.id], keys[vertex.id] = vertex, decode(vertex.public_key_b64u)
    edges: list[Edge] = []
    turns: list[int] = []
    for edge in graph.spec.edges:
        why = edge_fault(edge, keys) or time_fault(edge, now)
        if why:
            edge_rejects[why] += 1
        else:
            edges.append(edge)
        turns += turning(edge, why)
    return Projection(
        tuple(kept.values()), tuple(edges), dict(vertex_rejects), dict(edge_rejects), min(turns, default=None)
    )


def vertex_fault(vertex: Vertex, kept: dict[str, Vertex]) -> str:
    """Say why a vertex does not count; empty when it does. The first of two with one id counts."""
    if vertex.id in kept:
        return "DuplicateId"
    try:
        key = decode(vertex.public_key_b64u)
    except Undecodable:
        return "KeyDecode"
    return "" if len(key) == KEY_BYTES else "KeyLength"


def edge_fault(edge: Edge, keys: dict[str, bytes]) -> str:
    """Say why an edge never counts; empty when it does."""
    if edge.from_ not in keys:
        return "unknown_from_vertex"
    if edge.to not in keys:
        return "unknown_to_vertex"
    if not 0 <= edge.score <= MOST_SCORE:
        return "score_out_of_range"
    if edge.not_after is not None and edge.not_after < edge.issued_at:
        return "inverted_expiry"
    return signature_fault(edge, keys[edge.from_])


def signature_fault(edge: Edge, key: bytes) -> str:
    """Say why an edge's signature does not hold; empty when it does."""
    try:
        signature = decode(edge.signature)
    except Undecodable:
        return "signature_decode_error"
    if len(signature) != SIGNATURE_BYTES:
        return "signature_length_error"
    return "" if verified(key, signed_bytes(edge), signature) else "signature_mismatch"


def time_fault(edge: Edge, now: int) -> str:
    """Say why an edge does not count at a time; empty when it does."""
    if edge.not_after is not None and edge.not_after < now:
        return "expired"
    return "not_yet_valid" if edge.issued_at > now + CLOCK_SKEW else ""


def turning(edge: Edge, why: str) -> list[int]:
    """Return when the answer about an edge will be another one."""
    if why == "not_yet_valid":
        return [edge.issued_at - CLOCK_SKEW]
    return [edge.not_after + 1] if not why and edge.not_after is not None else []


def signed_bytes(edge: Edge) -> bytes:
    """Return what an edge's signature is over: six lines, the last empty without an end."""
    lines = (
        "trustgraph.v1",
        edge.from_,
        edge.to,
        edge.score,
        edge.issued_at,
        "" if edge.not_after is None else edge.not_after,
    )
    return "".join(f"{line}\n" for line in lines).encode()


@lru_cache(maxsize=CHECKED)
def verified(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature holds; keys and signatures of small order do not."""
    try:
        VerifyKey(key).verify(message, signature)
    except (CryptoError, ValueError):
        return False
    return True


def decode(text: str) -> bytes:
    """Decode base64url without padding (RFC 4648 §5), of which there is one spelling only; `Undecodable` otherwise."""
    if not BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise Undecodable(text)
    value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(value).rstrip(b"=").decode() != text:
        raise Undecodable(text)
    return value


def document(found: Projection, given_edges: int) -> Object:
    """Return the document; the order of its members is part of the version hash."""
    graph = {
        "vertices": [vertex_document(one) for one in found.vertices],
        "edges": [edge_document(one) for one in found.edges],
    }
    return {**graph, "versionHash": version_hash(compact(graph), 16), "inputEdgeCount": given_edges}


def vertex_document(vertex: Vertex) -> Object:
    """Return a vertex as documents have it."""
    made = {"id": vertex.id, "alg": vertex.alg, "publicKeyB64u": vertex.public_key_b64u}
    return made if vertex.label is None else {**made, "label": vertex.label}


def edge_document(edge: Edge) -> Object:
    """Return an edge as documents have it."""
    made: Object = {"from": edge.from_, "to": edge.to, "score": edge.score, "issuedAt": edge.issued_at}
    if edge.not_after is not None:
        made["notAfter"] = edge.not_after
    made["signature"] = edge.signature
    return made if edge.reason is None else {**made, "reason": edge.reason}


def slice_of(sandbox: str, graphs: Iterable[Object]) -> tuple[str, str, int] | None:
    """Return a sandbox's part of the graphs: the text of `graph.json`, joined version hashes, number of edges.

    `graphs` are the documents of projections in the order of their names. The part is the edges that come from the
    sandbox and lead to another, and the vertices at their ends, each once. None when there are no graphs.
    """
    vertices: dict[str, Object] = {}
    edges: list[Object] = []
    hashes: list[str] = []
    for graph in graphs:
        hashes.append(graph["versionHash"])
        own = [edge for edge in graph["edges"] if edge["from"] == sandbox and edge["to"] != sandbox]
        ends = {edge[end] for edge in own for end in ("from", "to")}
        for vertex in graph["vertices"]:
            if vertex["id"] in ends:
                vertices.setdefault(vertex["id"], vertex)
        edges += own
    if not hashes:
        return None
    joined = ",".join(hashes)[:JOINED_LENGTH]
    text = pretty(
        {"vertices": list(vertices.values()), "edges": edges, "versionHash": joined, "inputEdgeCount": len(edges)}
    )
    return text.decode(), joined, len(edges)
