"""One connection pool to one API server, with raw objects in and out.

Requests go through the official client's REST layer, which brings kubeconfig, in-cluster accounts, exec plugins and
token renewal; JSON is read and written with msgspec. Every error is one of `kars.kube.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Self

from kars.kube.types import Key, Object, Type


class Client:
    """A client; use `async with await Client.connect()`."""

    @classmethod
    async def connect(cls, *, kubeconfig: str = "", context: str = "", timeout: float = 30.0) -> Self:
        """Read the account of the pod, or a kubeconfig (KUBECONFIG, ~/.kube/config) when there is none."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close every connection."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def version(self) -> tuple[int, int]:
        """Return major and minor version of the API server."""
        raise NotImplementedError

    async def get(self, kind: Type, key: Key) -> Object:
        """Read one object; `Missing` when it is not there."""
        raise NotImplementedError

    async def list(
        self, kind: Type, *, namespace: str = "", labels: str = "", fields: str = "", page: int = 500
    ) -> tuple[list[Object], str]:
        """Read a collection page by page; the objects (bearing apiVersion and kind) and its resource version."""
        raise NotImplementedError

    def watch(
        self, kind: Type, *, version: str, namespace: str = "", labels: str = "", fields: str = "", seconds: int = 200
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (ADDED, MODIFIED, DELETED or BOOKMARK, object) from a resource version on, until the server ends it.

        `Gone` when the version is too old, also in mid-stream. Ends, or raises `Busy`, when nothing comes for longer
        than the server should be silent.
        """
        raise NotImplementedError

    async def apply(self, value: Object, *, manager: str, force: bool = True, status: bool = False) -> Object:
        """Server-side apply; `status` applies to the status subresource."""
        raise NotImplementedError

    async def merge(self, kind: Type, key: Key, patch: Mapping[str, object], *, subresource: str = "") -> Object:
        """JSON merge patch (RFC 7386); a `metadata.resourceVersion` in it makes it conditional (`Conflict`)."""
        raise NotImplementedError

    async def create(self, value: Object) -> Object:
        """Create; `Conflict` when it is there already."""
        raise NotImplementedError

    async def replace(self, value: Object) -> Object:
        """Write a whole object whose resourceVersion must be the current one, else `Conflict`."""
        raise NotImplementedError

    async def delete(self, kind: Type, key: Key, *, uid: str = "", propagation: str = "Background") -> bool:
        """Delete; false when it was not there. With `uid` only that very object (`Conflict` otherwise)."""
        raise NotImplementedError

    async def read_log(self, key: Key, *, container: str = "", limit: int = 1 << 20) -> bytes:
        """Read at most `limit` bytes of a container's log."""
        raise NotImplementedError
