"""A request as it goes to the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

# One object: etcd takes 1.5 MiB unless told otherwise, and managed fields come on top.
OBJECT_LIMIT = 16 << 20

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked. `of` is the plural of what it is about, `what` says it to people, `limit` bounds the answer.

    `twice`: it may be sent again when nobody knows whether it was done. `may` is asked right before its bytes leave.
    """

    method: str
    target: str
    of: str
    what: str
    body: bytes | None = None
    content_type: str = JSON
    limit: int = OBJECT_LIMIT
    twice: bool = False
    may: Callable[[], bool] | None = None


def target_of(path: str, query: Mapping[str, str]) -> str:
    """Join a path and the parameters that are not empty."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
