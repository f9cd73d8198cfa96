"""McpServer: the issuer's key set by schedule, a signing key made once, and which sandboxes may use the server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from nacl.utils import random

from kars.controller.cluster import Cluster
from kars.controller.policies.jwks import Failed, Issuers
from kars.controller.policies.publisher import Publisher, Unwritten
from kars.controller.policies.table import MCP
from kars.controller.reconcile import Temporary
from kars.desired.plan import stamp
from kars.kube.errors import ApiError, Conflict
from kars.kube.types import SECRET, Key, Object
from kars.model.base import Resource
from kars.model.mcp import McpServer
from kars.model.sandbox import KarsSandbox
from kars.policy.compiled import mcp
from kars.policy.compiled.outcome import Compiled, Given, Unfit

# How long a key set counts before it is fetched again: issuers announce new keys hours ahead.
FRESH = timedelta(minutes=5)
# How long a failure counts, so that many servers of one issuer that is down do not each wait for it.
FAILED = timedelta(seconds=30)
# Issuers that are asked at once, each for `jwks.DEADLINE` at most: a quarter of the engine's workers. And seconds until
# who came meanwhile looks again.
AT_ONCE, ASK_AGAIN = 4, 1.0
# Issuers that are remembered; there are as many as there are McpServers in production mode, at most.
MOST_ISSUERS = 1024
KEYS = frozenset({"signing-key.private", "signing-key.public"})


class Fetched(msgspec.Struct, frozen=True):
    """What an issuer last answered."""

    at: datetime
    keys: bytes = b""
    error: str = ""

    def fresh(self, now: datetime) -> bool:
        """Whether there is no need to ask again."""
        return now - self.at < (FAILED if self.error else FRESH)


class McpServers(Publisher):
    """Reconciles McpServers."""

    def __init__(self, issuers: Issuers | None = None) -> None:
        super().__init__(msgspec.structs.replace(MCP, render=render))
        self.issuers = issuers
        self.fetched: dict[str, Fetched] = {}
        self.asking: set[str] = set()

    async def gather(self, resource: Resource, cluster: Cluster) -> Given:
        """Return the artifact's content, a seed when there is no signing key yet, and the issuer's keys."""
        assert isinstance(resource, McpServer)  # noqa: S101 - the engine calls with its kind only
        given = await super().gather(resource, cluster)
        spec = mcp.effective(resource, given)
        keys = await self.keys(mcp.issuer(spec), cluster) if spec.production_mode else b""
        # A key is made once: whoever trusts it would not know of another.
        seed = b"" if complete(self.signing(resource, cluster)) else random(mcp.SEED_BYTES)
        return msgspec.structs.replace(given, key_set=keys, seed=seed)

    async def keys(self, issuer: str, cluster: Cluster) -> bytes:
        """Return an issuer's key set, at most some minutes old; `Unfit` when it cannot be had.

        Nobody waits for a question of somebody else's: issuers that are slow would else take every worker.
        """
        found = self.fetched.get(issuer)
        if found is None or not found.fresh(cluster.now()):
            if issuer in self.asking or len(self.asking) >= AT_ONCE:
                raise Temporary("issuers are being asked", delay=ASK_AGAIN)
            self.asking.add(issuer)
            try:
                found = await self.fetch(issuer, cluster)
            finally:
                self.asking.discard(issuer)
        if found.error:
            raise Unfit("JwksFetchFailed", f"{found.error} (issuer {issuer})")
        return found.keys

    async def fetch(self, issuer: str, cluster: Cluster) -> Fetched:
        """Ask an issuer, and remember what it said."""
        if self.issuers is None:
            self.issuers = Issuers(networks=cluster.settings.issuer_networks)
        try:
            made = Fetched(cluster.now(), keys=await self.issuers.fetch(issuer))
        except Failed as error:
            made = Fetched(cluster.now(), error=str(error))
        if len(self.fetched) >= MOST_ISSUERS:
            self.fetched.clear()
        self.fetched[issuer] = made
        return made

    async def bring(self, compiled: Compiled, known: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
        """Bring the ConfigMap; create the Secret, never over one that is there."""
        secrets = [one for one in compiled.objects if one["kind"] == SECRET.kind]
        others = tuple(one for one in compiled.objects if one["kind"] != SECRET.kind)
        for secret in secrets:
            await self.make(stamp(secret), cluster)
        made = await super().bring(msgspec.structs.replace(compiled, objects=others), known, cluster)
        if compiled.until is None:
            made.pop("lastProbedAt", None)  # nobody was asked
        return made

    async def make(self, secret: Object, cluster: Cluster) -> None:
        """Create a Secret; one that is there and incomplete is made whole."""
        key = Key(secret["metadata"]["namespace"], secret["metadata"]["name"])
        try:
            if cluster.children.find(SECRET, key) is not None:
                await cluster.children.bring([secret], manager=self.row.field_manager)
            else:
                await cluster.client.create(secret)
        except Conflict:
            return  # the watch has not shown it yet
        except ApiError as error:
            if error.retryable:
                raise Temporary(str(error)) from error
            raise Unwritten(f"Secret {key}: HTTP {error.status} {error.reason}") from error

    def signing(self, resource: Resource, cluster: Cluster) -> Object | None:
        """Return the Secret of the signing key, as far as it is known."""
        metadata = resource.metadata
        return cluster.children.find(SECRET, Key(metadata.namespace, f"mcp-{metadata.name}-signing"))

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:
        """Take the ConfigMap and the Secret away."""
        metadata = resource.metadata
        await cluster.children.remove(SECRET, Key(metadata.namespace, f"mcp-{metadata.name}-signing"))
        return await super().finalize(resource, cluster)

    def touched(self, kind: str, key: Key, cluster: Cluster) -> set[Key]:
        """Return the server whose Secret this is, beside what any policy is woken by."""
        found = set(super().touched(kind, key, cluster))
        name = key.name.removeprefix("mcp-").removesuffix("-signing")
        if kind == "Secret" and key.name == f"mcp-{name}-signing":
            found.add(Key(key.namespace, name))
        return found


def render(server: McpServer, given: Given) -> Compiled:
    """Return what it comes to, until its issuer's keys are to be fetched again."""
    compiled = mcp.render(server, given)
    if not given.key_set or given.now is None:
        return compiled
    return msgspec.structs.replace(compiled, until=given.now + FRESH)


def complete(secret: Object | None) -> bool:
    """Whether a signing key is there, both halves of it."""
    return secret is not None and secret.get("digests", {}).keys() >= KEYS


def allowed(server: McpServer, sandbox: KarsSandbox) -> bool:
    """Whether a sandbox may be given an McpServer: one of its own namespace, whose labels it has."""
    if server.metadata.namespace != sandbox.metadata.namespace:
        return False
    wanted = server.spec.allowed_sandboxes.match_labels if server.spec.allowed_sandboxes is not None else {}
    return wanted.items() <= sandbox.metadata.labels.items()
