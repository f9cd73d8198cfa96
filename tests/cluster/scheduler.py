"""Bind pods to nodes: by node selector, and by namespace where a test says whose a namespace is."""

import asyncio
import contextlib
from collections.abc import Callable
from fnmatch import fnmatchcase

from tests.cluster.api import ApiError, Object
from tests.cluster.watching import Mirror, Session, key


class Scheduler:
    """Binds every pod that has no node to the first ready node that its selector fits.

    Pods of a claimed namespace go to the claim's node only; to none at all when that is empty.
    """

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self.open_session = open_session
        self.claims: dict[str, str] = {}
        self.woken = asyncio.Event()

    def notice(self, _value: Object, _gone: bool) -> None:
        self.woken.set()

    async def run(self) -> None:
        """Bind until cancelled."""
        session = self.open_session()
        pods = Mirror(session, "/api/v1/pods", self.notice, fieldSelector="spec.nodeName=")
        nodes = Mirror(session, "/api/v1/nodes", self.notice)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pods.run())
                tasks.create_task(nodes.run())
                while True:
                    await self.woken.wait()
                    self.woken.clear()
                    for pod in list(pods.objects.values()):
                        await self.bind(session, pod, list(nodes.objects.values()))
        finally:
            await session.close()

    async def bind(self, session: Session, pod: Object, nodes: list[Object]) -> None:
        """Give one pod its node, if there is one for it."""
        metadata, spec = pod["metadata"], pod["spec"]
        if spec.get("nodeName") or spec.get("schedulingGates") or "deletionTimestamp" in metadata:
            return
        if node := self.choose(metadata["namespace"], spec.get("nodeSelector", {}), nodes):
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
            # What is refused now is looked at again when it changes; in a namespace that goes, nothing is bound.
            with contextlib.suppress(ApiError):
                await session.persist("POST", path, {"metadata": {"name": metadata["name"]}, "target": target})

    def choose(self, namespace: str, selector: dict[str, str], nodes: list[Object]) -> str:
        """The node for a pod, or nothing."""
        claims = [node for pattern, node in list(self.claims.items()) if fnmatchcase(namespace, pattern)]
        for node in sorted(nodes, key=key):
            metadata = node["metadata"]
            name = str(metadata["name"])
            pretends = "kwok.x-k8s.io/node" in metadata.get("annotations", {})
            meant = name in claims or (pretends and not claims)
            if meant and is_ready(node) and selector.items() <= metadata.get("labels", {}).items():
                return name
        return ""


def is_ready(node: Object) -> bool:
    """Whether a node says that it is ready."""
    conditions = node.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
