"""KarsAuthConfig: the variables of the token sidecar; there is one configuration, named default."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kars.controller.cluster import Cluster
from kars.controller.policies import status
from kars.controller.policies.publisher import Publisher
from kars.controller.policies.table import AUTH
from kars.controller.reconcile import Done
from kars.desired import conditions
from kars.kube.types import Key
from kars.model.auth import KarsAuthConfig
from kars.model.base import Resource
from kars.policy.compiled import auth
from kars.policy.compiled.outcome import Compiled, Given, owner

DEFAULT = "default"


class AuthConfigs(Publisher):
    """Reconciles the KarsAuthConfig. It has no finalizer: its ConfigMap goes with it, as the API server sees to."""

    def __init__(self) -> None:
        super().__init__(msgspec.structs.replace(AUTH, render=owned))
        self.finalizer = ""

    async def reconcile(self, resource: Resource, cluster: Cluster) -> Done:
        """Publish the variables of the one that counts."""
        if resource.metadata.name == DEFAULT:
            return await super().reconcile(resource, cluster)
        message = f"only the KarsAuthConfig named {DEFAULT} counts"
        standing = conditions.degraded("NotDefault", message, phase="NotDefault")
        await cluster.write_status(resource, status.of(resource, standing, {}, now=cluster.now()))
        return Done()

    def own(self, key: Key, cluster: Cluster) -> set[Key]:
        """Return whose ConfigMap this is."""
        return {Key("", DEFAULT)} if key == Key(cluster.settings.namespace, auth.NAME) else set()

    def copied(self, key: Key, cluster: Cluster) -> set[Key]:  # noqa: ARG002 - no sandbox has a copy
        """Return nothing."""
        return set()

    def signed(self, key: Key, cluster: Cluster) -> Iterable[Key]:  # type: ignore[override]  # noqa: ARG002
        """Return nothing: nobody signs it."""
        return ()


def owned(config: KarsAuthConfig, given: Given) -> Compiled:
    """Return what it comes to, owned by the resource, so that it goes with it."""
    compiled = auth.render(config, given)
    for one in compiled.objects:
        one["metadata"]["ownerReferences"] = [owner(config)]
    return compiled
