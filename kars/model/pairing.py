"""KarsPairing: another controller that may offload sandboxes to this cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc, unique
from kars.model.common import EXACT, Conditions, Count, DisplayName, Identifier, Time, Words

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KarsPairingSpec(Model):
    """What the other side may do, once it has shown the secret."""

    token_hash: Annotated[
        Annotated[str, Meta(max_length=64, pattern=r"^[a-f0-9]{64}\Z")],
        doc("SHA-256 of the one-time pairing secret, as lower-case hex."),
    ]
    expires_at: Annotated[Time, doc("When the pairing ends, as RFC 3339.")]
    slots_max: Annotated[
        Annotated[int, Meta(ge=1, le=1000, extra_json_schema={"format": "int32"})], doc("Sandboxes at a time.")
    ] = 1
    token_budget: Annotated[
        Annotated[int, Meta(ge=0, le=EXACT, extra_json_schema={"format": "int64"})],
        doc("Tokens that its sandboxes may spend together."),
    ] = 500000
    capabilities: Annotated[
        Annotated[tuple[Literal["offload", "handoff"], ...], unique(most=8)], doc("What the other side may ask for.")
    ] = ("offload", "handoff")
    display_name: Annotated[DisplayName | None, doc("A name for people.")] = None
    model: Annotated[Identifier | None, doc("Model of its sandboxes.")] = None
    isolation: Annotated[
        Literal["standard", "enhanced", "confidential"] | None, doc("Least isolation of its sandboxes.")
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        # A pattern cannot tell the last day of a month; the conversion fails for one that is not there.
        Rule(
            "timestamp(self.expiresAt) > timestamp('1970-01-01T00:00:00Z')",
            "expiresAt must be a time that there is, after 1970",
            lambda self: self.expires_at > EPOCH,
            field="expiresAt",
        ),
        Rule(
            "self.tokenHash == oldSelf.tokenHash",
            "a pairing is for one secret; make another one for another",
            field="tokenHash",
            reason="FieldValueForbidden",
        ),
    )


class KarsPairingStatus(Model):
    """What is known of the pairing."""

    phase: Annotated[Literal["PendingPairing", "Active", "Expired", "Revoked"] | None, doc("A summary for people.")] = (
        None
    )
    bound_amid: Annotated[Words | None, doc("Mesh identity of the other side.")] = None
    bound_pubkey_ed25519: Annotated[Words | None, doc("Its public key.")] = None
    paired_at: Annotated[Time | None, doc("When it showed the secret.")] = None
    slots_used: Annotated[Count | None, doc("Sandboxes that it has.")] = None
    tokens_used: Annotated[Count | None, doc("Tokens that they spent.")] = None
    last_offload_at: Annotated[Time | None, doc("When it last asked for one.")] = None
    offloads_completed: Annotated[Count | None, doc("Tasks that ended well.")] = None
    offloads_failed: Annotated[Count | None, doc("Tasks that did not.")] = None
    active_sandbox: Annotated[Words | None, doc("The sandbox of its current task.")] = None
    conditions: Conditions = ()


class KarsPairing(Resource):
    """Another controller that may offload sandboxes to this cluster."""

    NAMES: ClassVar[Names] = Names(
        plural="karspairings",
        short="cp",
        columns=(
            PHASE,
            Column("AMID", ".status.boundAmid"),
            Column("Budget", ".spec.tokenBudget", "integer"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            AGE,
            *WHY,
        ),
        longest=253,
    )

    spec: Annotated[KarsPairingSpec, doc("What is wanted.")]
    status: Annotated[KarsPairingStatus | None, doc("What is.")] = None
