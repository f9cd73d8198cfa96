"""Events of `events.k8s.io/v1`: what happened to an object, for `kubectl describe`; repeated ones become a series."""

from __future__ import annotations

from typing import Literal

from kars.kube.client import Client
from kars.kube.types import Object


class Recorder:
    """Writes events in the background: bounded, never in the way of who tells them, never twice the same within minutes."""

    def __init__(self, client: Client, *, controller: str, instance: str) -> None:
        self.controller = controller

    def tell(
        self,
        about: Object,
        *,
        reason: str,
        action: str,
        note: str,
        type: Literal["Normal", "Warning"] = "Normal",  # noqa: A002 - the API's own name
    ) -> None:
        """Note an event about an object (apiVersion, kind, metadata); `note` is cut at 1024 bytes."""
        raise NotImplementedError

    async def run(self) -> None:
        """Write until cancelled."""
        raise NotImplementedError
