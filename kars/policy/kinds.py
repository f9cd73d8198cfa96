"""The kinds of policy bundle that the router mounts. A new kind is one row here and a compiler in the core.

`file` is the name that enters the digest, whatever the mounted file is called, so that the controller and the
router agree on the digest byte for byte; a kind without one is made of many files, each under its own name.
`prefix` and `suffix` pick the files of a directory; of a kind that is one file, the first in sort order counts.
"""

from __future__ import annotations


class Kind:
    """One kind of bundle: its name in the policy status, its file's canonical name and how to find its files."""

    __slots__ = ("file", "name", "prefix", "suffix")

    def __init__(self, name: str, *, file: str = "", prefix: str = "", suffix: str = ".json") -> None:
        self.name = name
        self.file = file
        self.prefix = prefix
        self.suffix = suffix

    def takes(self, name: str) -> bool:
        """Whether a file of this name belongs to the bundle; hidden ones are the kubelet's work in progress."""
        return name.startswith(self.prefix) and name.endswith(self.suffix) and not name.startswith(".")


INFERENCE = Kind("InferencePolicy", file="inference-policy.json")
ALLOWLIST = Kind("EgressAllowlist", file="allowlist.json")
APPROVAL = Kind("EgressApproval", prefix="approval-")

# In the order of publishing: approvals only add to an allowlist, so that comes first.
KINDS = {kind.name: kind for kind in (INFERENCE, ALLOWLIST, APPROVAL)}
