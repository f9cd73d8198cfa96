"""The kinds of policy bundle that the router mounts. A new kind is one row here and a compiler in the core.

`file` is the name that enters the digest, whatever the mounted file is called, so that the controller and the
router agree on the digest byte for byte; `suffix` picks the file: the first in sort order that ends so.
"""

from __future__ import annotations


class Kind:
    """One kind of bundle: its name in the policy status, its file's canonical name and how to find the file."""

    __slots__ = ("file", "name", "suffix")

    def __init__(self, name: str, *, file: str, suffix: str) -> None:
        self.name = name
        self.file = file
        self.suffix = suffix


INFERENCE = Kind("InferencePolicy", file="inference-policy.json", suffix=".json")

KINDS = {kind.name: kind for kind in (INFERENCE,)}
