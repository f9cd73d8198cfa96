"""What the engine itself writes on a resource: that it is not valid, was refused, or cannot go.

It writes as the kind's own manager and keeps what that one had written, so the reconciler's next status replaces it.
"""

from __future__ import annotations

import logging
import re
from typing import Any, cast

import msgspec
from msgspec import inspect

from kars.controller import status
from kars.controller.cluster import Cluster, Known
from kars.desired import conditions
from kars.errors import KarsError
from kars.kube.errors import ApiError
from kars.kube.types import Key, Object
from kars.model.base import API_VERSION, Metadata, Resource
from kars.model.common import Condition
from kars.model.decode import bare

log = logging.getLogger(__name__)

# Seconds after which a deletion that is not done is told of.
STUCK_SECONDS = 60.0
# Longest message of a condition that the engine writes; the API server's own texts can be a screen long.
LONGEST = 1024
REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?\Z")


async def degrade(cluster: Cluster, kind: type[Resource], key: Key, *, reason: str, message: str) -> None:
    """Write Ready=False and Degraded=True with a reason, and an event. What goes wrong with that is logged."""
    message = message[:LONGEST]
    wanted = {"Ready": "False", "Degraded": "True"}
    if await mark(cluster, kind, key, wanted=wanted, reason=reason, message=message):
        warn(cluster, kind, key, reason=reason, action="Reconcile", note=message)


async def stuck(cluster: Cluster, kind: type[Resource], key: Key, known: Known, why: str) -> None:
    """Write Terminating=True, and an event, once a deletion has taken long."""
    began = known.metadata.deletion_timestamp
    if began is None or (cluster.now() - began).total_seconds() < STUCK_SECONDS:
        return
    note = f"not removed since {began:%Y-%m-%dT%H:%M:%SZ}: {why}"[:LONGEST]
    if await mark(cluster, kind, key, wanted={"Terminating": "True"}, reason="FinalizerStuck", message=note):
        warn(cluster, kind, key, reason="FinalizerStuck", action="Finalize", note=note)


async def mark(  # noqa: PLR0913 - one call of each kind
    cluster: Cluster, kind: type[Resource], key: Key, *, wanted: dict[str, str], reason: str, message: str
) -> bool:
    """Write conditions beside what the kind's manager wrote before; whether anything was written."""
    known = cluster.known(kind, key)
    if known is None:
        return False
    kept = own_members(known, status.manager(kind.__name__))
    generation = known.metadata.generation
    before = [msgspec.convert(one, Condition) for one in kept.get("conditions", ())]
    now = cluster.now()
    made = [
        Condition(type=name, status=cast("Any", value), reason=reason, message=message, last_transition_time=now)
        for name, value in wanted.items()
    ]
    made = [one for one in before if one.type not in wanted] + made
    merged = conditions.merge(before, made, generation=generation, now=now)
    document: Object = {**kept, "conditions": [msgspec.to_builtins(one) for one in merged]}
    if "Degraded" in wanted:
        document |= {"observedGeneration": generation} | phase(kind)
    try:
        return await cluster.write(kind, key, known, status.normal(kind, document))
    except (ApiError, msgspec.ValidationError) as error:
        log.warning("engine.unmarked", extra={"reason": reason, "error": str(error)})
        return False


def own_members(known: Known, manager: str) -> Object:
    """Return the part of a status that a manager owns."""
    owned = dict(known.owners).get(manager, frozenset())
    borne = known.borne()
    kept = {name: value for name, value in borne.items() if name in owned}
    mine = [one for name, one in status.by_type(borne).items() if f"conditions/{name}" in owned]
    return {**kept, "conditions": mine} if mine else kept


def phase(kind: type[Resource]) -> dict[str, str]:
    """Return the phase of a degraded resource, for kinds that have one."""
    fields = {one.encode_name: one.type for one in inspect.type_info(status.status_type(kind)).fields}  # type: ignore[attr-defined]
    choices = getattr(bare(fields.get("phase")), "values", ()) if "phase" in fields else ()
    return {"phase": "Degraded"} if "Degraded" in choices else {}


def warn(  # noqa: PLR0913 - an event's own members
    cluster: Cluster, kind: type[Resource], key: Key, *, reason: str, action: str, note: str
) -> None:
    """Tell of it as an event, too."""
    about = cluster.document(kind, key)
    if about is not None:
        cluster.recorder.tell(about, reason=reason, action=action, note=note, type="Warning")


def reason_of(error: Exception) -> str:
    """Return the reason of a condition for an error that will not pass by itself."""
    reason = getattr(error, "reason", "") or type(error).__name__
    return reason if REASON.match(reason) else type(error).__name__


def worded(error: Exception) -> str:
    """Return an error's text with its hint; of a bug only its class, because nobody has looked at its text."""
    if isinstance(error, KarsError):
        return f"{error} ({error.hint})" if error.hint else str(error)
    from kars.controller.reconcile import Temporary

    return str(error) if isinstance(error, Temporary) else f"{type(error).__name__} in the controller; see its log"


class Stump:
    """What is left of a resource that is not valid: where it is. Touching anything else is an AttributeError."""

    api_version = API_VERSION
    metadata: Metadata


def stump(kind: type[Resource], metadata: Metadata) -> Resource:
    """Make a resource of which there is `metadata` only; its class has the kind's name."""
    made = type(kind.__name__, (Stump,), {"NAMES": kind.NAMES})()
    made.metadata = metadata
    return cast("Resource", made)
