"""TrustGraph: who vouches for whom.

A vertex or an edge that cannot be right (an id twice, a key or a signature that does not decode) does not refuse the
graph: the reconciler leaves it out and counts it, so that one bad edge cannot take the others away.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc
from kars.model.common import Conditions, Count, DisplayName, Line, NameRef, ObservedGeneration, Time

VertexId = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^\x00-\x1F\x7F]+\Z")]
Base64Url = Annotated[str, Meta(max_length=512)]


class Vertex(Model):
    """A party, and the key that it signs with."""

    id: Annotated[VertexId, doc("Id of the party; a sandbox's name for a sandbox.")]
    alg: Annotated[Literal["EdDSA"], doc("Algorithm of its key; EdDSA is the only one.")]
    public_key_b64u: Annotated[Base64Url, doc("Its Ed25519 public key: 32 bytes as base64url without padding.")]
    label: Annotated[DisplayName | None, doc("A name for people.")] = None


class Edge(Model):
    """A signed statement of one party about another."""

    from_: Annotated[VertexId, doc("Who states it.")]
    to: Annotated[VertexId, doc("Whom it is about.")]
    score: Annotated[Annotated[int, Meta(ge=0, le=1000)], doc("How much they are trusted, 0 to 1000.")]
    issued_at: Annotated[Count, doc("When it was stated, in seconds since 1970.")]
    signature: Annotated[
        Base64Url, doc("Ed25519 signature over the edge (trustgraph.v1): 64 bytes as base64url without padding.")
    ]
    not_after: Annotated[Count | None, doc("When it ends, in seconds since 1970.")] = None
    reason: Annotated[Line | None, doc("Why, for people.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.notAfter) || self.notAfter >= self.issuedAt",
            "notAfter must not be before issuedAt",
            lambda self: self.not_after is None or self.not_after >= self.issued_at,
            field="notAfter",
        ),
    )


class TrustGraphSpec(Model):
    """Parties and what they state about each other."""

    vertices: Annotated[Annotated[tuple[Vertex, ...], Meta(max_length=1024)], doc("The parties; at least one.")]
    edges: Annotated[Annotated[tuple[Edge, ...], Meta(max_length=4096)], doc("What they state about each other.")] = ()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.vertices.size() > 0",
            "spec.vertices must contain at least one entry",
            lambda self: len(self.vertices) > 0,
            field="vertices",
        ),
    )


class TrustGraphStatus(Model):
    """What is known of the graph."""

    phase: Annotated[Literal["Pending", "Compiled", "Ready", "Degraded"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    valid_vertices: Annotated[Count | None, doc("Vertices that count.")] = None
    valid_edges: Annotated[Count | None, doc("Edges that count.")] = None
    invalid_edges: Annotated[Count | None, doc("Edges that are left out.")] = None
    projection_config_map_ref: Annotated[NameRef | None, doc("The ConfigMap of what counts.")] = None
    last_reconciled_at: Annotated[Time | None, doc("When it was last looked at.")] = None


class TrustGraph(Resource):
    """Who vouches for whom; each running sandbox is given the part that begins at it."""

    NAMES: ClassVar[Names] = Names(
        plural="trustgraphs",
        short="tg",
        columns=(
            PHASE,
            Column("Vertices", ".status.validVertices", "integer"),
            Column("ValidEdges", ".status.validEdges", "integer"),
            Column("InvalidEdges", ".status.invalidEdges", "integer"),
            AGE,
            *WHY,
        ),
        namespaced=False,
    )

    spec: Annotated[TrustGraphSpec, doc("What is wanted.")]
    status: Annotated[TrustGraphStatus | None, doc("What is.")] = None
