"""KarsMemory: `binding.json`, the store and the scope that a sandbox's router remembers in."""

from __future__ import annotations

from kars.kube.types import Object
from kars.model.memory import KarsMemory, KarsMemorySpec
from kars.policy.compiled.canonical import compact, digest, version_hash
from kars.policy.compiled.outcome import Compiled, Given, config_map, merged, namespace_of

FILE = "binding.json"
SUPPLIED = ("storeName", "scope", "retentionDays", "deleteOnSandboxDelete", "displayName")


def render(memory: KarsMemory, given: Given) -> Compiled:
    """Return the ConfigMap `karsmemory-<name>-binding` and its digest."""
    spec = memory.spec if memory.spec.bundle_ref is None else merged(memory.spec, given, supplied=SUPPLIED)
    body = compact(document(spec))
    stamp, version = digest([(FILE, body)]), version_hash(body)
    name = f"karsmemory-{memory.metadata.name}-binding"
    made = config_map(
        name,
        namespace=namespace_of(memory, given),
        labels={"karsmemory": memory.metadata.name, "artifact": "claw-memory-binding"},
        annotations={"karsmemory-version-hash": version, "claw-memory-digest": stamp},
        data={FILE: body},
    )
    status = {"bindingConfigMapRef": {"name": name}, "versionHash": version, "compiledDigest": stamp}
    if memory.spec.bundle_ref is not None:
        status["bundleRefDigest"] = given.bundle_digest
    return Compiled(objects=(made,), digest=stamp, version_hash=version, echo_kind="Memory", status=status)


def document(spec: KarsMemorySpec) -> Object:
    """Return the document; the order of its members is part of the digest."""
    return {
        "storeName": spec.store_name or "",
        "sandboxRef": {"name": spec.sandbox_ref.name},
        "scope": spec.scope or "",
        "retentionDays": spec.retention_days,
        "deleteOnSandboxDelete": spec.delete_on_sandbox_delete is not False,
        "displayName": spec.display_name,
    }
