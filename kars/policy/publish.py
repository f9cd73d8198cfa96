"""Publish mounted bundles to the core: compile, then apply; or refuse and keep the old one; or clear.

Every outcome is recorded in the core, which shows it at `/internal/policy-status`, in metrics and in its log.
"""

from __future__ import annotations

from kars import _core
from kars.errors import PolicyError, from_core
from kars.policy import kinds, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.policy.kinds import Kind


def compile_bundle(kind: Kind, data: bytes) -> _core.Snapshot:
    """Compile a bundle's bytes; a `PolicyError` says what is wrong and where."""
    try:
        return _core.Snapshot.compile(kind.name, [(kind.file, data)])
    except _core.CoreError as error:
        raise from_core(error) from error


def publish(engine: _core.Engine, kind: Kind, directory: str) -> None:
    """Bring the core up to date with one mount. Never raises for what a mount holds: bad bytes keep the old policy."""
    source = directory
    try:
        found = load.mounted(directory, kind)
        if found is None:
            engine.clear(kind.name)
            return
        source, data = found
        engine.apply(compile_bundle(kind, data))
    except PolicyError as error:
        engine.refuse(kind.name, source, str(error))


def publish_all(engine: _core.Engine) -> None:
    """Bring the core up to date with every mount that it watches."""
    for name, directory in engine.policy_dirs().items():
        kind = kinds.KINDS.get(name)
        if kind is not None:
            publish(engine, kind, directory)
