"""What a sandbox may reach: `allowlist.json`, `approval-<name>.json`, and the digest of all of them together.

The canonical form of a host is trimmed and in lower case; of a list, sorted by host and port, each once. A host that no
router could read is left out, because with it the router would refuse the whole list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from kars.kube.types import Object
from kars.model.egress import EgressApproval
from kars.policy.compiled.canonical import compact, digest
from kars.policy.compiled.hosts import fault
from kars.policy.compiled.outcome import Compiled, Unfit, config_map

FILE = "allowlist.json"
# A name that only enters the digest: the list is in no file.
MERGED = "merged-allowlist.json"
# What a host stands for without a port.
PORT = 443


class Destination(NamedTuple):
    """A host in canonical form and a port."""

    host: str
    port: int


class Listed(Protocol):
    """A destination as a resource or an artifact names it."""

    @property
    def host(self) -> str:
        """Host name, `*.domain` or address."""

    @property
    def port(self) -> int | None:
        """TCP port; 443 when None."""


def destinations(listed: Iterable[Listed], notes: list[str] | None = None) -> tuple[Destination, ...]:
    """Return destinations in canonical form; what is left out goes to `notes`, blank hosts aside."""
    found = set()
    for one in listed:
        host = one.host.strip().lower()
        if not host:
            continue
        if why := fault(host):
            if notes is not None:
                notes.append(f"{host} is left out: it {why}")
            continue
        found.add(Destination(host, PORT if one.port is None else one.port))
    return tuple(sorted(found))


def listing(found: Iterable[Destination]) -> list[Object]:
    """Write destinations as documents have them."""
    return [{"host": host, "port": port} for host, port in found]


def allowlist(listed: Iterable[Listed], notes: list[str] | None = None) -> bytes:
    """Return `allowlist.json`."""
    return compact({"schemaVersion": 1, "endpoints": listing(destinations(listed, notes))})


def allowlist_digest(body: bytes) -> str:
    """Return the digest under which routers report an allowlist."""
    return digest([(FILE, body)])


def approval_file(name: str) -> str:
    """Return an approval's key in the ConfigMap of its sandbox, and so its file's name."""
    return f"approval-{name}.json"


def approval(resource: EgressApproval, *, effective_at: datetime, expires_at: datetime) -> bytes:
    """Return `approval-<name>.json`; `Unfit` when no router could use any of its hosts."""
    spec = resource.spec
    notes: list[str] = []
    found = destinations(spec.hosts, notes)
    if not found:
        raise Unfit("SpecInvalid", "; ".join(["no host can be approved", *notes]))
    document: Object = {
        "schemaVersion": 1,
        "approvalName": resource.metadata.name,
        "sandbox": spec.sandbox,
        "hosts": listing(found),
        "reason": spec.reason,
    }
    if spec.ticket is not None:
        document["ticket"] = spec.ticket
    return compact({**document, "effectiveAt": instant(effective_at), "expiresAt": instant(expires_at)})


def approvals(sandbox: str, bodies: Mapping[str, bytes]) -> Object:
    """Return the ConfigMap of a sandbox's approvals, or one approval's part of it: names of approvals to documents."""
    return config_map(
        f"karssandbox-{sandbox}-egress-approvals",
        namespace=f"kars-{sandbox}",
        labels={"sandbox": sandbox, "artifact": "egress-approvals"},
        data={approval_file(name): body for name, body in sorted(bodies.items())},
    )


def render(
    resource: EgressApproval,
    *,
    effective_at: datetime,
    expires_at: datetime,
    baseline: bytes,
    siblings: Mapping[str, bytes],
) -> Compiled:
    """Return one approval's part of its sandbox's ConfigMap, and the digest of what the router then has in force.

    `baseline` is the sandbox's `allowlist.json`; `siblings` are the documents of the other approvals that stand in the
    ConfigMap, by name. Only those count that stand there: the router counts files.
    """
    body = approval(resource, effective_at=effective_at, expires_at=expires_at)
    name, notes = resource.metadata.name, list[str]()
    mounted = {**siblings, name: body}
    merged = merged_digest(baseline, mounted.values())
    count = len(destinations(resource.spec.hosts, notes))
    return Compiled(
        objects=(approvals(resource.spec.sandbox, {name: body}),),
        digest=merged,
        echo_kind="EgressApproval",
        status={
            "effectiveAt": instant(effective_at),
            "expiresAt": instant(expires_at),
            "mergedDigest": merged,
            "hostCount": count,
        },
        notes=tuple(notes),
    )


def merged_digest(baseline: bytes, bodies: Iterable[bytes] = ()) -> str:
    """Return the digest of an allowlist and approvals together, from the documents as they are mounted."""
    found = set(read(baseline, "endpoints"))
    for body in bodies:
        found.update(read(body, "hosts"))
    merged = {"schemaVersion": 1, "endpoints": listing(sorted(found))}
    return digest([(MERGED, compact(merged))])


class Entry(msgspec.Struct, frozen=True):
    """A destination of a document, other members passed over."""

    host: str
    port: int | None = None


class Mounted(msgspec.Struct, frozen=True):
    """The destinations of an allowlist or an approval."""

    endpoints: tuple[Entry, ...] = ()
    hosts: tuple[Entry, ...] = ()


def read(body: bytes, member: str) -> tuple[Destination, ...]:
    """Return the destinations of a document; none of one that somebody made unreadable, which routers pass over."""
    try:
        found: tuple[Entry, ...] = getattr(msgspec.json.decode(body, type=Mounted), member)
    except (msgspec.DecodeError, RecursionError):
        return ()
    return destinations(found)


def instant(moment: datetime) -> str:
    """Write a time as RFC 3339, whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
