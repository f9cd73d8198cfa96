"""EgressApproval: hosts that one sandbox may reach for a time."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc
from kars.model.common import (
    LABEL,
    LINE,
    PROSE,
    Conditions,
    Count,
    HostName,
    ObservedGeneration,
    Port,
    SandboxName,
    Time,
    Words,
)

# Days, hours, minutes and seconds: years, months and weeks have no fixed length or no reader.
DURATION = r"^P([0-9]{1,6}D)?(T([0-9]{1,8}H)?([0-9]{1,8}M)?([0-9]{1,8}S)?)?\Z"


class ApprovedHost(Model):
    """A destination that is approved."""

    host: Annotated[HostName, doc("Host name, *.domain or address, without scheme or port.")]
    port: Annotated[Port | None, doc("TCP port; 443 when absent.")] = None


class EgressApprovalSpec(Model):
    """Who may reach what, why, and how long."""

    sandbox: Annotated[SandboxName, doc("The KarsSandbox that it is for.")]
    hosts: Annotated[
        Annotated[tuple[ApprovedHost, ...], Meta(min_length=1, max_length=16)], doc("Destinations that are approved.")
    ]
    reason: Annotated[
        Annotated[str, Meta(min_length=1, max_length=512, pattern=PROSE)], doc("Why; it is kept in the audit log.")
    ]
    ttl: Annotated[
        Annotated[str, Meta(max_length=64, pattern=DURATION)],
        doc("How long from when it takes effect: an ISO 8601 duration of days, hours, minutes, seconds, such as PT2H."),
    ]
    ticket: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128, pattern=LINE)] | None, doc("Where it was asked for.")
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.ttl.matches('[1-9]')",
            "ttl must be longer than nothing",
            lambda self: re.search("[1-9]", self.ttl) is not None,
            field="ttl",
        ),
        Rule(
            "self.sandbox == oldSelf.sandbox",
            "an approval is for one sandbox; make another one for another",
            field="sandbox",
            reason="FieldValueForbidden",
        ),
    )


class EgressApprovalStatus(Model):
    """What is known of the approval."""

    phase: Annotated[Literal["Pending", "Active", "Expired"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    effective_at: Annotated[Time | None, doc("When it took effect.")] = None
    expires_at: Annotated[Time | None, doc("When it ends.")] = None
    merged_digest: Annotated[Words | None, doc("Digest of the lists that the sandbox's router has in force.")] = None
    host_count: Annotated[Count | None, doc("How many destinations it approves.")] = None
    usage_count: Annotated[Count | None, doc("How many connections it let out.")] = None
    conditions: Conditions = ()


class EgressApproval(Resource):
    """Hosts that one sandbox may reach for a time, because somebody said so."""

    NAMES: ClassVar[Names] = Names(
        plural="egressapprovals",
        short="eappr",
        columns=(
            Column("Sandbox", ".spec.sandbox"),
            PHASE,
            Column("Expires", ".status.expiresAt"),
            Column("Hosts", ".status.hostCount", "integer"),
            AGE,
            *WHY,
        ),
        # It is a key of a ConfigMap and part of a field manager, which has at most 128 characters.
        pattern=LABEL,
    )

    spec: Annotated[EgressApprovalSpec, doc("What is wanted.")]
    status: Annotated[EgressApprovalStatus | None, doc("What is.")] = None
