"""The native core. Frozen classes, no callbacks; every call that waits releases the GIL."""

from collections.abc import Sequence
from typing import final

__all__ = [
    "CoreError",
    "Engine",
    "Snapshot",
    "probe",
    "propose_egress",
    "replay_egress",
    "settings_table",
    "verify_audit",
    "version",
]

class CoreError(Exception):
    """An error of the core; the text is for people and holds no secret."""

    kind: str

@final
class Snapshot:
    """A compiled, immutable policy."""

    @staticmethod
    def compile(kind: str, files: Sequence[tuple[str, bytes]]) -> Snapshot:
        """Decode strictly and compile files of (name, bytes). Raises CoreError of kind `policy` naming the field."""

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over names and bytes, as the controller computes it."""

    @property
    def problems(self) -> list[str]:
        """What was passed over: approvals that are not valid."""

@final
class Engine:
    """The data plane: listeners, policy handle, budgets, audit log. Serves on threads of its own."""

    def __new__(cls, environment: bytes) -> Engine: ...
    def start(self) -> None:
        """Bind the listeners and serve. Raises CoreError of kind `config` that names the address."""

    def wait(self, timeout: float) -> str | None:
        """Block up to `timeout` seconds for the next event: `policy`, `cold`, `stopped`, or None."""

    def apply(self, snapshot: Snapshot) -> None:
        """Swap the policy in; calls in flight keep the one they started with."""

    def refuse(self, kind: str, source: str, error: str) -> None:
        """Record that a bundle was not valid; the policy in force stays."""

    def clear(self, kind: str) -> None:
        """Record that a bundle is not mounted (any more)."""

    def policy_dirs(self) -> dict[str, str]:
        """Kind of bundle to the directory it is mounted at."""

    def drain(self, grace: float | None) -> None:
        """Stop accepting, let calls finish for `grace` seconds (None: the setting), then `wait` says `stopped`."""

    def attach_cold(self, socket_path: str) -> None:
        """Relay cold routes to the HTTP/1.1 server on this Unix socket."""

    def admin_model(self) -> tuple[str | None, str]:
        """Return the override of the default model, if any, and the configured default."""

    def set_admin_model(self, model: str | None) -> str | None:
        """Set or lift the override; returns the one before."""

    def status(self) -> bytes:
        """JSON: sandbox, readiness, policy, upstreams, listeners, budgets, audit, settings without secrets."""

    def ports(self) -> dict[str, int]:
        """Bound ports by listener: `inference`, `metrics`."""

def settings_table() -> list[tuple[str, str, str, str]]:
    """Every variable: name, default, group, help."""

def verify_audit(directory: str) -> bytes:
    """Verify the audit log in `directory`; JSON as `kars.router.tools.AuditReport` has it."""

def probe(method: str, path: str, body: bytes | None, environment: bytes) -> tuple[int, bytes]:
    """Call this sandbox's own router; status and body."""

def replay_egress(files: Sequence[tuple[str, bytes]], rows: bytes, now: int) -> bytes:
    """Judge recorded connections by `allowlist.json` and `approval-*.json`, whose approvals are looked at at `now`.

    Rows are a JSON list of objects with host and port, and maybe door, method, path and count; the answer is that list
    with allowed, reason, rule and hint. Blocklists and the classes of addresses are no part of it.
    """

def propose_egress(rows: bytes, collapse: bool) -> tuple[str, list[str]]:
    """Return the smallest allowlist that allows recorded connections, and what only a person can add to it."""

def version() -> str:
    """Version of the core."""
