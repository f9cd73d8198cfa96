"""Policy files as a kubelet mounts them: a `..data` link that is swapped in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "inference-policy.json"


class PolicyMount:
    """A folder that looks like a mounted ConfigMap."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        (version / FILE).write_text(json.dumps(policy), encoding="utf-8")

    def swap(self) -> None:
        """Makes the staged version the one in force."""
        link = self.folder / "..data_tmp"
        link.symlink_to(f"..v{self.version}")
        link.rename(self.folder / "..data")
        entry = self.folder / FILE
        if not entry.is_symlink():
            entry.symlink_to(f"..data/{FILE}")
