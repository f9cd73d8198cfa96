"""Publish mounted bundles to the core: compile, then apply; or refuse and keep the old one; or clear.

Every outcome is recorded in the core, which shows it at `/internal/policy-status`, in metrics and in its log.
"""

from __future__ import annotations

from kars import _core
from kars.errors import PolicyError, from_core
from kars.policy import kinds, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kars.policy.kinds import Kind


Snapshot = _core.Snapshot


def compile_bundle(kind: Kind, files: Sequence[tuple[str, bytes]]) -> Snapshot:
    """Compile a bundle's files of (name, bytes); a `PolicyError` says what is wrong and where.

    Approvals stand alone: one that is not valid is passed over and told in the snapshot's `problems`.
    """
    try:
        return _core.Snapshot.compile(kind.name, files)
    except _core.CoreError as error:
        raise from_core(error) from error


def publish(engine: _core.Engine, kind: Kind, directory: str) -> None:
    """Bring the core up to date with one mount. Never raises for what a mount holds: bad bytes keep the old policy."""
    source = directory
    try:
        bundle = load.mounted(directory, kind)
        if bundle is None:
            engine.clear(kind.name)
            return
        source = bundle.source
        snapshot = compile_bundle(kind, bundle.files)
        engine.apply(snapshot)
        if bundle.problems:
            # What could not be read, beside what the core itself has passed over.
            engine.refuse(kind.name, source, "; ".join([*bundle.problems, *snapshot.problems]))
    except PolicyError as error:
        engine.refuse(kind.name, source, str(error))


def publish_all(engine: _core.Engine) -> None:
    """Bring the core up to date with every mount that it watches, in the order of the table of kinds."""
    directories = engine.policy_dirs()
    for kind in kinds.KINDS.values():
        directory = directories.get(kind.name)
        if directory is not None:
            publish(engine, kind, directory)
