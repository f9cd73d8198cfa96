"""EgressApproval: hosts that one sandbox may reach for a time.

Each approval is one file in its sandbox's ConfigMap, owned by a field manager of its own, so that approvals that come
and go at once never undo each other. The router ends an approval at its time by itself; the file goes then, too.

    Pending  BlockedOnSandbox       the sandbox is not there or does not run
             AwaitingRouterEcho     the file is there, the router does not have it in force yet
             TtlInvalid ...         it can never take effect as it is
    Active   RouterConfirmed        until `expiresAt`
    Expired  Expired                for good
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec

from kars.controller.cluster import Cluster
from kars.controller.policies import referrers, status
from kars.controller.policies.referrers import Index
from kars.controller.reconcile import Done, Temporary
from kars.desired import conditions, names
from kars.desired.conditions import Standing
from kars.kube.errors import ApiError, Missing
from kars.kube.types import CONFIG_MAP, Key, Object
from kars.model.base import GROUP, Resource
from kars.model.egress import EgressApproval
from kars.model.sandbox import KarsSandbox
from kars.policy.compiled import egress
from kars.policy.compiled.outcome import Compiled, Unfit

MANAGER = "kars-controller/egressapproval"
ECHO = "EgressApproval"
# An approval for longer than a week is a change of the allowlist, whatever was configured.
LONGEST = timedelta(days=7)
# Seconds between two looks while the router is waited for: half of how long it has been, within these.
SOONEST, LATEST = 2.0, 30.0
# How long the end of an approval waits for the router to let go of it. The kubelet can take longer to take the file
# away, but the router ends an approval by its own clock, and whoever deletes one should not wait for minutes.
FAREWELL = timedelta(seconds=20)
ASK_AGAIN = 2.0
DURATION = re.compile(r"P(?:([0-9]{1,6})D)?(?:T(?:([0-9]{1,8})H)?(?:([0-9]{1,8})M)?(?:([0-9]{1,8})S)?)?", re.ASCII)
CONFIG_MAP_NAME = re.compile(r"karssandbox-(.+)-egress-(?:approvals|allowlist)")


class Term(msgspec.Struct, frozen=True):
    """From when until when an approval holds."""

    effective: datetime
    expires: datetime


class Approvals:
    """Reconciles EgressApprovals."""

    kind: ClassVar[type[Resource]] = EgressApproval
    finalizer: ClassVar[str] = f"{GROUP}/egress-approval-cleanup"

    def __init__(self) -> None:
        self.index: Index[EgressApproval] = Index(EgressApproval, targets=targets)

    async def reconcile(self, resource: Resource, cluster: Cluster) -> Done:
        """Bring an approval to where its time and its sandbox are."""
        assert isinstance(resource, EgressApproval)  # noqa: S101 - the engine calls with its kind only
        if resource.status is not None and resource.status.phase == "Expired":
            # For good: a later, longer ttl does not bring it back.
            await self.withdraw(resource, cluster)
            return Done()
        try:
            lasts = ttl(resource.spec.ttl, ceiling(cluster))
            sandbox = cluster.resource(KarsSandbox, target_of(resource))
            term = self.term(resource, sandbox, lasts, cluster)
            if term is None:
                return await self.blocked(resource, sandbox, cluster)
            if cluster.now() >= term.expires:
                return await self.expire(resource, term, cluster)
            return await self.grant(resource, term, cluster)
        except Unfit as error:
            await self.withdraw(resource, cluster)
            # What it began with stays: put right, it goes on and does not begin anew.
            known = {**status.members(resource), "mergedDigest": None, "hostCount": len(resource.spec.hosts)}
            await self.write(resource, refused(error), known, cluster)
            return Done()

    def term(
        self, resource: EgressApproval, sandbox: KarsSandbox | None, lasts: timedelta, cluster: Cluster
    ) -> Term | None:
        """Return when it holds; None while its sandbox has not run yet. Once it began, it never begins anew."""
        began = resource.status.effective_at if resource.status is not None else None
        if began is None and sandbox is not None and running(sandbox):
            # A status that could not be written must not move the beginning of what is in the ConfigMap already.
            began = standing_since(resource, cluster) or cluster.now()
        return None if began is None else Term(began, began + lasts)

    async def blocked(self, resource: EgressApproval, sandbox: KarsSandbox | None, cluster: Cluster) -> Done:
        """Tell that the sandbox is waited for; its change wakes the approval."""
        what = "is not there" if sandbox is None else "does not run yet"
        standing = pending("BlockedOnSandbox", f"KarsSandbox {resource.spec.sandbox} {what}")
        await self.write(resource, standing, {"hostCount": len(resource.spec.hosts)}, cluster)
        return Done()

    async def grant(self, resource: EgressApproval, term: Term, cluster: Cluster) -> Done:
        """Have the file in the ConfigMap and tell whether the router has it in force."""
        found = cluster.children.find(CONFIG_MAP, home(resource.spec.sandbox))
        data = {} if found is None else found.get("data") or {}
        own = egress.approval_file(resource.metadata.name)
        baseline = allowlist(resource.spec.sandbox, cluster)
        compiled = egress.render(
            resource,
            effective_at=term.effective,
            expires_at=term.expires,
            baseline=baseline or egress.allowlist(()),
            siblings={name: text.encode() for name, text in data.items() if name != own},
        )
        known = {name: value for name, value in compiled.status.items() if name != "mergedDigest"}
        left = until(term, cluster)
        if obstacle := self.obstacle(resource, cluster):
            await self.write(resource, pending("BlockedOnSandbox", obstacle), known, cluster)
            return Done(after=left)
        try:
            await self.publish(resource, compiled, found, cluster)
        except ApiError as error:
            if error.retryable:
                raise Temporary(str(error)) from error
            standing = pending("AwaitingRouterEcho", f"the ConfigMap could not be written: {error}")
            await self.write(resource, standing, known, cluster)
            return Done(after=min(left, LATEST))
        standing = await self.ask(resource, compiled, cluster, baseline=baseline)
        if standing.confirmed:
            known["mergedDigest"] = compiled.digest
        await self.write(resource, standing, known, cluster)
        return Done(after=left if standing.confirmed else min(left, patience(resource, term, cluster)))

    def obstacle(self, resource: EgressApproval, cluster: Cluster) -> str:
        """Say why a sandbox that ran once cannot be granted anything now; empty when it can."""
        name = resource.spec.sandbox
        sandbox = cluster.resource(KarsSandbox, target_of(resource))
        if sandbox is None:
            return f"KarsSandbox {name} is not there any more"
        if not cluster.owns(target_of(resource)):
            # Another sandbox of the name has the namespace; what is approved here is nothing of its.
            return f"KarsSandbox {name} has no namespace of its own"
        return "" if referrers.awake(sandbox) else f"KarsSandbox {name} is suspended or goes"

    async def publish(
        self, resource: EgressApproval, compiled: Compiled, found: Object | None, cluster: Cluster
    ) -> None:
        """Write this approval's key, and the ConfigMap that it is in when there is none, when either is missing."""
        part = compiled.objects[0]
        if found is None or not labels(part).items() <= labels(found).items():
            # The object and its labels belong to all approvals together, and outlive each.
            await cluster.client.apply({name: value for name, value in part.items() if name != "data"}, manager=MANAGER)
        if found is None or any((found.get("data") or {}).get(name) != text for name, text in part["data"].items()):
            await cluster.client.apply(bare(part, part["data"]), manager=manager(resource.metadata.name))

    async def ask(
        self, resource: EgressApproval, compiled: Compiled, cluster: Cluster, *, baseline: bytes | None
    ) -> Standing:
        """Say whether the sandbox's routers have it in force."""
        if baseline is None:
            return pending("AwaitingRouterEcho", "the sandbox has no allowlist yet, without which nothing is in force")
        sandbox = target_of(resource)
        heard = (await cluster.echo.ask([sandbox]))[sandbox]
        if heard.digest(ECHO) == compiled.digest:
            note = "; ".join(compiled.notes)
            return conditions.standing(
                "Active", ready=(True, "RouterConfirmed", note), progressing=(False, "Reconciled"), state="Confirmed"
            )
        why = heard.error or heard.last_error(ECHO) or f"its router has {heard.digest(ECHO) or 'nothing'} in force"
        return pending("AwaitingRouterEcho", f"{sandbox.name}: {why}")

    async def expire(self, resource: EgressApproval, term: Term, cluster: Cluster) -> Done:
        """Take the file away and say that it is over."""
        await self.withdraw(resource, cluster)
        standing = conditions.standing(
            "Expired",
            ready=(False, "Expired", f"it ended at {status.instant(term.expires)}"),
            progressing=(False, "Expired"),
            state="NotApplicable",
        )
        known = {**status.members(resource), **instants(term), "hostCount": len(resource.spec.hosts)}
        await self.write(resource, standing, known, cluster)
        return Done()

    async def withdraw(self, resource: EgressApproval, cluster: Cluster) -> None:
        """Take this approval's key out of its sandbox's ConfigMap, when it is there.

        A sandbox of another namespace may have the name, and an approval there this one's: that one stays.
        """
        if cluster.owns(target_of(resource)):
            await take_out(resource.metadata.name, resource.spec.sandbox, cluster)

    async def write(self, resource: Resource, standing: Standing, known: dict[str, Any], cluster: Cluster) -> None:
        """Write the status."""
        await cluster.write_status(resource, status.of(resource, standing, known, now=cluster.now()))

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:
        """Take the file away, and wait a little for the routers to let go of it."""
        if not isinstance(resource, EgressApproval):
            # Not valid any more, so that nobody knows for whom it was: it is looked for wherever it can be.
            for name in of_team(resource.metadata.namespace, cluster):
                await take_out(resource.metadata.name, name, cluster)
            return True
        await self.withdraw(resource, cluster)
        sandbox = cluster.resource(KarsSandbox, target_of(resource))
        began = resource.metadata.deletion_timestamp
        over = resource.status is not None and resource.status.phase == "Expired"
        if over or sandbox is None or not referrers.awake(sandbox) or began is None:
            return True
        if await self.let_go(resource, cluster):
            return True
        if cluster.now() - began < FAREWELL:
            raise Temporary("the router still has the approval in force", delay=ASK_AGAIN)
        about = cluster.document(EgressApproval, Key(resource.metadata.namespace, resource.metadata.name))
        if about is not None:
            note = f"{sandbox.metadata.name}: the router did not say within {FAREWELL.seconds} s that it let go of it"
            cluster.recorder.tell(
                about, reason="RouterNotConfirmed", action="WithdrawingApproval", note=note, type="Warning"
            )
        return True

    async def let_go(self, resource: EgressApproval, cluster: Cluster) -> bool:
        """Whether the routers of the sandbox have in force what stands in the ConfigMap without this approval."""
        name, sandbox = resource.spec.sandbox, target_of(resource)
        found = cluster.children.find(CONFIG_MAP, home(name))
        own = egress.approval_file(resource.metadata.name)
        data = {} if found is None else found.get("data") or {}
        baseline = allowlist(name, cluster)
        if baseline is None:
            return True  # without an allowlist nothing is in force, approved or not
        wanted = egress.merged_digest(baseline, [text.encode() for key, text in data.items() if key != own])
        heard = (await cluster.echo.ask([sandbox], fresh=True))[sandbox]
        return heard.digest(ECHO) == wanted

    def touched(self, kind: str, key: Key, cluster: Cluster) -> Iterable[Key]:
        """Return the approvals of the sandbox that something happened to; of a sibling's, those beside it."""
        if kind == "EgressApproval":
            self.index.change(key, cluster)
            return ()  # what a sibling does shows in the ConfigMap
        if kind == "KarsSandbox":
            return self.index.referrers(key, cluster)
        name = referrers.of_namespace(key.namespace)
        mine = kind in {"Pod", "Deployment"} or (kind == "ConfigMap" and CONFIG_MAP_NAME.fullmatch(key.name))
        if not (name and mine):
            return ()
        return self.index.referrers(Key("", name), cluster)


async def take_out(approval: str, sandbox: str, cluster: Cluster) -> None:
    """Take an approval's key out of a sandbox's ConfigMap, when it is there."""
    found = cluster.children.find(CONFIG_MAP, home(sandbox))
    if found is None or egress.approval_file(approval) not in (found.get("data") or {}):
        return
    # Only this manager owns the key; applying without it takes it away, and nothing else.
    with contextlib.suppress(Missing):
        await cluster.client.apply(bare(egress.approvals(sandbox, {}), {}), manager=manager(approval))


def of_team(namespace: str, cluster: Cluster) -> list[str]:
    """Return the names of the sandboxes of a namespace that have one of their own."""
    found = (Key(namespace, one.metadata.name) for one in cluster.resources(KarsSandbox, namespace=namespace))
    return [key.name for key in found if cluster.owns(key)]


def home(sandbox: str) -> Key:
    """Return where the ConfigMap of a sandbox's approvals is."""
    return Key(names.namespace(sandbox), names.approvals(sandbox))


def target_of(resource: EgressApproval) -> Key:
    """Return the sandbox that it is for."""
    return Key(resource.metadata.namespace, resource.spec.sandbox)


def targets(resource: EgressApproval, cluster: Cluster) -> tuple[Key, ...]:  # noqa: ARG001 - as every kind's
    """Return the sandbox that it is for: by its key, and by its name alone, which its own namespace tells."""
    return (target_of(resource), Key("", resource.spec.sandbox))


def manager(approval: str) -> str:
    """Return who owns an approval's key."""
    return f"{MANAGER}/{approval}"


def bare(part: Object, data: dict[str, str]) -> Object:
    """Return the ConfigMap with nothing but keys, which is all that one approval owns of it."""
    metadata = {name: part["metadata"][name] for name in ("name", "namespace")}
    return {**part, "metadata": metadata, "data": data}


def labels(value: Object) -> dict[str, str]:
    """Return the labels of an object."""
    found: dict[str, str] = value["metadata"].get("labels") or {}
    return found


def running(sandbox: KarsSandbox) -> bool:
    """Whether a sandbox runs, so that an approval can begin."""
    return sandbox.status is not None and sandbox.status.phase == "Running" and referrers.awake(sandbox)


def allowlist(sandbox: str, cluster: Cluster) -> bytes | None:
    """Return the allowlist that a sandbox is given; None when it has none yet."""
    found = cluster.children.find(CONFIG_MAP, Key(names.namespace(sandbox), names.allowlist(sandbox)))
    text = None if found is None else (found.get("data") or {}).get(egress.FILE)
    return None if text is None else text.encode()


def standing_since(resource: EgressApproval, cluster: Cluster) -> datetime | None:
    """Return when an approval that stands in the ConfigMap already began."""
    found = cluster.children.find(CONFIG_MAP, home(resource.spec.sandbox))
    text = None if found is None else (found.get("data") or {}).get(egress.approval_file(resource.metadata.name))
    return None if text is None else msgspec.json.decode(text, type=Written).effective_at


class Written(msgspec.Struct, rename="camel"):
    """What is read again of an approval's own file."""

    effective_at: datetime


def ceiling(cluster: Cluster) -> timedelta:
    """Return the longest time that an approval may be for."""
    return min(timedelta(seconds=cluster.settings.approval_ceiling), LONGEST)


def ttl(text: str, most: timedelta) -> timedelta:
    """Read an ISO 8601 duration of days, hours, minutes and seconds; `Unfit` when it is none or too long."""
    found = DURATION.fullmatch(text)
    days, hours, minutes, seconds = (int(part or 0) for part in (found.groups() if found else ("",) * 4))
    # The pattern bounds each part, so that this cannot overflow.
    total = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not found or not total:
        raise Unfit("TtlInvalid", f"ttl {text!r} is no duration of days, hours, minutes and seconds")
    if total > most:
        raise Unfit(
            "TtlExceedsCeiling",
            f"ttl {text} is longer than {most.total_seconds():g} s, the longest that an approval may run here",
        )
    return total


def instants(term: Term) -> dict[str, str]:
    """Write when it holds as the status has it."""
    return {"effectiveAt": status.instant(term.effective), "expiresAt": status.instant(term.expires)}


def until(term: Term, cluster: Cluster) -> float:
    """Return the seconds until it ends; at least one, so that a clock that lags makes no hot loop."""
    return max(1.0, (term.expires - cluster.now()).total_seconds())


def patience(resource: EgressApproval, term: Term, cluster: Cluster) -> float:
    """Return the seconds until the router is asked again."""
    before = status.condition(resource)
    since = term.effective if before is None else max(term.effective, before.last_transition_time)
    return min(max(SOONEST, (cluster.now() - since).total_seconds() / 2), LATEST)


def pending(reason: str, message: str) -> Standing:
    """Say what it waits for."""
    return conditions.standing("Pending", ready=(False, reason, message), progressing=(True, reason), state="Awaiting")


def refused(error: Unfit) -> Standing:
    """Say why it can never take effect as it is."""
    return conditions.standing(
        "Pending",
        ready=(False, error.reason, str(error)),
        progressing=(True, error.reason),
        degraded=(True, error.reason),
        state="Degraded",
    )
