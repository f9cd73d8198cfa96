"""Policy files as a kubelet mounts them: a `..data` link that is swapped in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INFERENCE_POLICY = "inference-policy.json"
EGRESS_ALLOWLIST = "allowlist.json"


class PolicyMount:
    """A folder that looks like a mounted ConfigMap."""

    def __init__(self, folder: Path, file: str = INFERENCE_POLICY) -> None:
        self.folder = folder
        self.file = file
        self.version = 0

    def write(self, policy: dict[str, Any]) -> None:
        """Puts a new version in place: from one moment to the next, as a kubelet does."""
        self.stage(policy)
        self.swap()

    def stage(self, policy: dict[str, Any]) -> None:
        """Writes the next version beside the one in force."""
        self.version += 1
        version = self.folder / f"..v{self.version}"
        version.mkdir(parents=True)
        (version / self.file).write_text(json.dumps(policy), encoding="utf-8")

    def swap(self) -> None:
        """Makes the staged version the one in force."""
        link = self.folder / "..data_tmp"
        link.symlink_to(f"..v{self.version}")
        link.rename(self.folder / "..data")
        entry = self.folder / self.file
        if not entry.is_symlink():
            entry.symlink_to(f"..data/{self.file}")
