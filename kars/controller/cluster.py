"""Everything that is known of the cluster, and everything that may be done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from kars.artifacts.fetch import Artifacts
from kars.artifacts.signers import SignerPolicy
from kars.controller.children import Children
from kars.controller.echo import Echo
from kars.kube.client import Client
from kars.kube.events import Recorder
from kars.kube.types import Key, Object
from kars.model.base import Resource
from kars.settings.controller import Controller

Kind = TypeVar("Kind", bound=Resource)


class Cluster:
    """What reconcilers are given: reads come from watches and cost no request; writes are written only when different."""

    client: Client
    settings: Controller
    children: Children
    echo: Echo
    recorder: Recorder
    artifacts: Artifacts
    now: Callable[[], datetime]  # aware, UTC, whole seconds

    def resource(self, kind: type[Kind], key: Key) -> Kind | None:
        """Return a resource as last seen; None when it is not there or is not valid (the engine says so in its status)."""
        raise NotImplementedError

    def resources(self, kind: type[Kind], *, namespace: str = "") -> Iterator[Kind]:
        """Go through the valid resources of a kind, of one namespace or of all."""
        raise NotImplementedError

    def document(self, kind: type[Resource], key: Key) -> Object | None:
        """Return apiVersion, kind and metadata of a resource, for events and owner references."""
        raise NotImplementedError

    def owns(self, sandbox: Key) -> bool:
        """Whether the namespace of a sandbox's objects stands and is labelled as this sandbox's own."""
        raise NotImplementedError

    def signers(self) -> SignerPolicy:
        """Return who may sign, as last seen; `Refused` with SignerPolicyMalformed when that cannot be read."""
        raise NotImplementedError

    async def write_status(self, resource: Resource, status: Mapping[str, Any], *, manager: str = "") -> bool:
        """Write the status when it differs from what is there, in anything but the times of unchanged conditions.

        `status` is the whole status as the API has it; a member that is not in it is removed. A resource that is gone
        or was replaced meanwhile is no error. Returns whether anything was written.
        """
        raise NotImplementedError
